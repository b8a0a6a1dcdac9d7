/* Placement invariance of the whole model with the planner's own cuts, heads included: for each
 * seed T trainers in place against one and two servers in a pool, of unlike speed, some with little
 * memory for retained tasks. With cuts by the layout all bits of losses, gradients and final hidden
 * states are the same; with cuts that follow the servers and sums of dk and dv per server they agree
 * within 1e-5 (fp32) or 1e-12 (fp64), and have the same bits when the run is repeated.
 *
 *   plan_placement [--device cpu|strict] [--first N] [--seeds N] [--threads N] */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention_server/planner.h"
#include "tests/support/model_case.h"
#include "tests/support/property_options.h"
#include "tests/support/random_plan.h"

#define MAX_SERVERS 8

typedef struct cadre_plan {
    const tr_model_config_t *model;
    int32_t cuts_follow_servers, retain;
    int32_t speed[MAX_SERVERS];
    int64_t retain_bytes[MAX_SERVERS]; /* all alike */
    /* what the plans held, counted on rank 0 */
    int64_t windowed, long_documents, mixed;
} cadre_plan_t;

static as_profile_t some_profile(void)
{
    return (as_profile_t){.row_grain = 1,
                          .idle_per_mille = {600, 830},
                          .num_points = 2,
                          .keys = {128, 4096},
                          .tile_row_ps = {{400000000, 20800000000}, {1000000000, 37900000000}},
                          .task_ps = {20000000, 9000000}};
}

/* A property that the plans never have is not tested. */
static void count(cadre_plan_t *u, const data_batch_t *batch, const as_topology_t *topology,
                  const as_plan_t *plan)
{
    int64_t retained = 0, resent = 0;

    if (base_ctx_rank(plan->ctx) != 0) return;
    for (int32_t d = 0; d < batch->num_documents; d++)
        u->long_documents +=
            batch->num_trainers > 1 && batch->documents[d].rows > 2 * batch->trainer_rows[0];
    for (int32_t i = 0; i < plan->num_tasks; i++) {
        const as_task_t *task = &plan->tasks[i];

        if (topology->trainer_rank[batch->pieces[task->piece].trainer] ==
            topology->server_rank[task->server])
            continue;
        u->windowed += task->k0 > 0;
        retained += task->retained;
        resent += !task->retained;
    }
    u->mixed += retained > 0 && resent > 0;
}

/* A planner for one plan: a model_plan_fn has no other place to keep it. */
static base_status_t plan_cadre(void *user, int64_t window, const data_batch_t *batch,
                                const as_topology_t *topology, as_plan_t *plan)
{
    cadre_plan_t *u = user;
    const as_profile_t profile = some_profile();
    as_machine_t machine = {.topology = topology,
                            .speed = u->speed,
                            .retain_bytes = u->retain_bytes,
                            .num_layers = u->model->num_layers,
                            .link_ps_per_kib = {3000, 25000},
                            .dense_ns = {1000000, 1000000}};
    as_planner_config_t config = {.machine = &machine,
                                  .num_kv_heads = u->model->num_kv_heads,
                                  .cut_heads = 1,
                                  .retain = u->retain,
                                  .cuts_follow_servers = u->cuts_follow_servers,
                                  .max_documents = batch->num_documents,
                                  .max_pieces = batch->num_pieces};
    as_planner_t *planner = NULL;
    as_cost_t *cost = NULL;
    as_score_t score;
    int64_t rows = 1;
    base_status_t st;

    if (topology->placement == AS_IN_PLACE && !u->cuts_follow_servers) machine.speed = NULL;
    as_wire_seam(2, u->model->head_dim, 4, 4, 4, &machine.wire);
    machine.wire.partial_per_task = !u->cuts_follow_servers;
    for (int32_t d = 0; d < batch->num_documents; d++)
        if (batch->documents[d].rows > rows) rows = batch->documents[d].rows;
    BASE_TRY_GOTO(as_cost_create(plan->ctx, &profile, window, rows, &cost), st, done);
    config.cost = cost;
    BASE_TRY_GOTO(as_planner_create(plan->ctx, &config, &planner), st, done);
    BASE_TRY_GOTO(as_planner_run(planner, batch, plan, &score), st, done);
    count(u, batch, topology, plan);
done:
    as_planner_destroy(planner);
    as_cost_destroy(cost);
    return st;
}

static void run_or_fail(const model_case_t *c, uint64_t seed, const char *name,
                        model_result_t *result)
{
    const base_status_t st = model_case_run(c, result);

    if (st < 0)
        fail_msg("seed %llu, %s: %s (%s:%d): %s", (unsigned long long)seed, name,
                 base_status_name(st), result->error.file ? result->error.file : "?",
                 result->error.line, result->error.text);
}

static model_case_t random_case(uint64_t seed, const property_options_t *o, cadre_plan_t *user,
                                model_documents_t *documents)
{
    uint64_t state = seed * 0x9E3779B97F4A7C15u + 11;
    const model_documents_options_t d = {.seed = seed,
                                         .count = 1 + (int32_t)random_below(&state, 5),
                                         .vocab = 50 + (int32_t)random_below(&state, 50),
                                         .adapters = 1 + (int32_t)random_below(&state, 3),
                                         .max_rows = random_below(&state, 4) == 0 ? 1500 : 400,
                                         .edges = 1};
    model_documents_random(&d, documents);
    model_case_t c = model_case_default(documents);
    c.model.dtype = random_below(&state, 3) == 0 ? KERN_F64 : KERN_F32;
    static const int64_t windows[][3] = {{0, 0, 0}, {0, 100, 0}, {130, 0, 130}};
    c.model.num_layers = random_below(&state, 2) ? 3 : 1;
    c.model.layer_window = windows[random_below(&state, 3)];
    c.device = o->device;
    c.device_seed = seed;
    c.plan = plan_cadre;
    c.user = user;
    *user = (cadre_plan_t){.retain = (int32_t)random_below(&state, 2)};
    for (int s = 0; s < MAX_SERVERS; s++)
        user->speed[s] = 400 + (int32_t)random_below(&state, 1600);
    const int64_t retain_bytes = random_below(&state, 2) ? INT64_MAX / 4 : 200000;
    for (int s = 0; s < MAX_SERVERS; s++)
        user->retain_bytes[s] = retain_bytes;
    return c;
}

/* With cuts and sums that follow the servers, twice. */
static void check_follow(model_case_t c, const model_result_t *in_place, uint64_t seed)
{
    model_result_t first, again;
    char what[128];
    const double limit = c.model.dtype == KERN_F64 ? 1e-12 : 1e-5;

    c.sums_per_server = 1;
    run_or_fail(&c, seed, "cuts for the servers", &first);
    const double distance = model_result_distance(&first, in_place, what, sizeof what);
    if (!(distance <= limit))
        fail_msg("seed %llu, cuts for the servers: %s differs by %g", (unsigned long long)seed,
                 what, distance);
    if (seed % 4 == 0) {
        run_or_fail(&c, seed, "cuts for the servers again", &again);
        if (!model_result_same(&again, &first, what, sizeof what))
            fail_msg("seed %llu, cuts for the servers again: %s", (unsigned long long)seed, what);
        model_result_free(&again);
    }
    model_result_free(&first);
}

static void check_seed(uint64_t seed, const property_options_t *o, cadre_plan_t *all)
{
    model_documents_t documents;
    model_result_t in_place, other;
    cadre_plan_t user;
    char what[128];
    model_case_t c = random_case(seed, o, &user, &documents);
    const int32_t trainers = o->threads > 0 ? o->threads : 1 + (int32_t)(seed % 4);

    user.model = &c.model;
    c.placement = AS_IN_PLACE;
    c.num_ranks = trainers;
    run_or_fail(&c, seed, "in place", &in_place);
    c.placement = AS_POOL;
    for (c.servers_per_host = 1; c.servers_per_host <= 2; c.servers_per_host++) {
        c.num_ranks = trainers + c.servers_per_host;
        run_or_fail(&c, seed, "pool", &other);
        if (!model_result_same(&other, &in_place, what, sizeof what))
            fail_msg("seed %llu, pool of %d: %s", (unsigned long long)seed, (int)c.servers_per_host,
                     what);
        model_result_free(&other);
    }
    user.cuts_follow_servers = 1;
    if (seed % 2 == 0 && trainers > 1) {
        c.placement = AS_IN_PLACE;
        c.num_ranks = trainers;
    } else {
        c.servers_per_host = 2;
        c.num_ranks = trainers + 2;
    }
    check_follow(c, &in_place, seed);
    all->windowed += user.windowed;
    all->long_documents += user.long_documents;
    all->mixed += user.mixed;
    model_result_free(&in_place);
    model_documents_free(&documents);
}

static void test_seeds(void **state)
{
    const property_options_t *o = *state;
    cadre_plan_t all = {0};

    for (uint64_t seed = o->first; seed < o->first + o->count; seed++)
        check_seed(seed, o, &all);
    print_message("%llu seeds: %lld remote tasks cut by a window, %lld documents longer than a "
                  "trainer's rows, %lld plans with retained and resent tasks\n",
                  (unsigned long long)o->count, (long long)all.windowed,
                  (long long)all.long_documents, (long long)all.mixed);
    if (o->count >= 20) assert_true(all.windowed && all.long_documents && all.mixed);
}

int main(int argc, char **argv)
{
    property_options_t o = property_options(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_seeds, &o),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
