/* The judge against the seam: for the same plan the bytes that each rank's schedule sends and
 * receives, exchange by exchange, and the memory that it needs are those that the judge counts; for
 * every task's sums of dk and dv and for sums per server, with and without a window, of random plans
 * and of the planner's. */
#include "tests/support/ctx_fixture.h"
#include "tests/support/random_plan.h"

#include "attention_server/planner.h"
#include "attention_server/seam.h"
#include "lora/pack.h"

enum { GROUP = 2, DIM = 16, HEADS = 4, MAX_DOCUMENTS = 12, MAX_PIECES = 40, MAX_TASKS = 2048 };

typedef struct rig {
    base_ctx_t *ctx;
    data_batch_t *batch;
    as_plan_t *plan;
    as_topology_t *topology;
    as_cost_t *cost;
    as_judge_t *judge;
    as_score_t score;
} rig_t;

static void lay_random(rig_t *r, uint64_t *state, int32_t trainers)
{
    data_document_t documents[MAX_DOCUMENTS];
    const int32_t count = 1 + (int32_t)random_below(state, MAX_DOCUMENTS);
    int64_t rows = 0;

    for (int32_t d = 0; d < count; d++) {
        documents[d] = (data_document_t){.rows = 1 + random_below(state, 1500), .index = d};
        rows += documents[d].rows;
    }
    const lora_pack_t pack = {.num_trainers = trainers,
                              .tokens_per_trainer = (rows / trainers / 256 + 2) * 256,
                              .num_documents = count,
                              .documents = documents};
    assert_int_equal(lora_pack_fast(r->ctx, &pack, r->batch), BASE_OK);
}

/* What the seam sends: bf16 with statistics in fp32, or fp32. */
typedef struct wire_case {
    int32_t real_bytes, sums_per_server;
    int64_t window;
} wire_case_t;

static as_machine_t machine_of(const rig_t *r, const wire_case_t *c)
{
    as_machine_t machine = {.topology = r->topology,
                            .num_layers = 1,
                            .link_ps_per_kib = {1000, 10000},
                            .dense_ns = {1000, 1000}};

    as_wire_seam(GROUP, DIM, c->real_bytes, 4, c->sums_per_server ? c->real_bytes : 4,
                 &machine.wire);
    machine.wire.partial_per_task = !c->sums_per_server;
    return machine;
}

static void judge(rig_t *r, const wire_case_t *c)
{
    const as_machine_t machine = machine_of(r, c);
    as_bounds_t bounds;

    assert_int_equal(as_judge_create(r->ctx, &machine, HEADS, &r->judge), BASE_OK);
    as_bounds_of(&machine, r->cost, HEADS, r->batch, &bounds);
    as_judge_run(r->judge, r->cost, r->batch, &bounds, r->plan->tasks, r->plan->num_tasks, 0,
                 &r->score);
}

/* What this rank's exchanges of one half and leg send (1) or receive. */
static int64_t leg_bytes(const as_exchange_t *leg, int send)
{
    const as_entry_t *entries = leg->entries.items;
    int64_t bytes = 0;

    for (int64_t e = 0; e < leg->entries.count; e++)
        if (entries[e].send == send) bytes += entries[e].row_bytes * entries[e].rows;
    return bytes;
}

static void check_rank(const rig_t *r, const as_judge_t *judge, const wire_case_t *c, int rank)
{
    const as_shape_t shape = {.group = GROUP,
                              .head_dim = DIM,
                              .num_kv_heads = HEADS,
                              .sums_per_server = c->sums_per_server,
                              .real_bytes = c->real_bytes,
                              .acc_bytes = 4,
                              .head_rows = 1 << 20,
                              .o_pitch = GROUP * HEADS * DIM,
                              .d_o_pitch = GROUP * HEADS * DIM};
    as_schedule_t s;

    as_schedule_init(&s, r->ctx, r->topology, &shape, rank);
    assert_int_equal(as_schedule_build(&s, r->batch, r->plan), BASE_OK);
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        for (int leg = 0; leg < AS_NUM_LEGS; leg++) {
            /* as_attention_stats reports this one */
            assert_int_equal(s.legs[half][leg].sent_bytes, leg_bytes(&s.legs[half][leg], 1));
            for (int send = 0; send < 2; send++)
                assert_int_equal(
                    leg_bytes(&s.legs[half][leg], send),
                    as_judge_flow_bytes(judge, rank, (data_half_t)half, (as_flow_t)leg, send));
        }
    assert_int_equal(as_judge_scratch_bytes(judge, rank), as_page(s.scratch_bytes));
    assert_int_equal(as_judge_retain_bytes(judge, rank), as_page(s.keep_bytes));
    as_schedule_deinit(&s);
}

static const wire_case_t wire_cases[] = {{.real_bytes = 4},
                                         {.real_bytes = 2, .sums_per_server = 1},
                                         {.real_bytes = 2, .sums_per_server = 1, .window = 200},
                                         {.real_bytes = 2, .window = 300}};

static void begin_rig(rig_t *r)
{
    as_profile_t pairs;

    as_profile_pairs(&pairs);
    assert_int_equal(data_batch_create(r->ctx, MAX_DOCUMENTS, MAX_PIECES, 6, &r->batch), BASE_OK);
    assert_int_equal(as_plan_create(r->ctx, MAX_TASKS, &r->plan), BASE_OK);
    assert_int_equal(as_cost_create(r->ctx, &pairs, 0, 2000, &r->cost), BASE_OK);
}

static void end_rig(rig_t *r)
{
    as_cost_destroy(r->cost);
    as_plan_destroy(r->plan);
    data_batch_destroy(r->batch);
    fixture_ctx_end(r->ctx);
}

static void create_topology(rig_t *r, int pool)
{
    static const int32_t hosts[] = {0, 0, 1, 1, 1, 0};

    assert_int_equal(
        as_topology_create(r->ctx, pool ? AS_POOL : AS_IN_PLACE, 6, hosts, 1, &r->topology),
        BASE_OK);
}

static void bytes_are_those_of_the_seam(void **state)
{
    rig_t r = {.ctx = fixture_ctx()};

    (void)state;
    begin_rig(&r);
    for (uint64_t seed = 1; seed <= 120; seed++) {
        const wire_case_t *c = &wire_cases[seed % 4];
        uint64_t next = seed;

        create_topology(&r, (int)random_below(&next, 2));
        lay_random(&r, &next, r.topology->num_trainers);
        const random_plan_t options = {.cut_seed = seed,
                                       .assign_seed = seed + 100,
                                       .window = c->window,
                                       .num_kv_heads = HEADS};
        assert_int_equal(random_plan_fill(&options, r.batch, r.topology, r.plan), BASE_OK);
        judge(&r, c);
        for (int rank = 0; rank < r.topology->num_ranks; rank++)
            check_rank(&r, r.judge, c, rank);
        as_judge_destroy(r.judge);
        as_topology_destroy(r.topology);
    }
    end_rig(&r);
}

/* The planner's own plans: what its score says of links and memory is what the seam does. */
static void plans_are_sent_as_judged(void **state)
{
    rig_t r = {.ctx = fixture_ctx()};
    int64_t link_bytes[2] = {0, 0};

    (void)state;
    begin_rig(&r);
    for (uint64_t seed = 1; seed <= 40; seed++) {
        for (int w = 0; w < 2; w++) {
            const wire_case_t c = {.real_bytes = 2, .sums_per_server = w};
            uint64_t next = seed;
            as_planner_t *planner;
            as_score_t score;

            create_topology(&r, (int)random_below(&next, 2));
            lay_random(&r, &next, r.topology->num_trainers);
            const as_machine_t machine = machine_of(&r, &c);
            const as_planner_config_t config = {.machine = &machine,
                                                .cost = r.cost,
                                                .num_kv_heads = HEADS,
                                                .cut_heads = (int32_t)random_below(&next, 2),
                                                .retain = (int32_t)random_below(&next, 2),
                                                .cuts_follow_servers = w,
                                                .max_documents = MAX_DOCUMENTS,
                                                .max_pieces = MAX_PIECES};
            assert_int_equal(as_planner_create(r.ctx, &config, &planner), BASE_OK);
            assert_int_equal(as_planner_run(planner, r.batch, r.plan, &score), BASE_OK);
            int64_t most = 0;
            for (int rank = 0; rank < r.topology->num_ranks; rank++) {
                const as_judge_t *judged = as_planner_judge(planner);

                check_rank(&r, judged, &c, rank);
                for (int sent = 0; sent < 2; sent++)
                    if (as_judge_link_bytes(judged, rank, sent) > most)
                        most = as_judge_link_bytes(judged, rank, sent);
            }
            assert_int_equal(score.link_bytes, most);
            link_bytes[w] += most;
            as_planner_destroy(planner);
            as_topology_destroy(r.topology);
        }
    }
    assert_true(link_bytes[1] < link_bytes[0]);
    end_rig(&r);
}

/* Launches of the backward on one rank, each of which must need no more workspace than there is. */
static int64_t count_launches(const rig_t *r, const as_shape_t *shape, int rank)
{
    as_schedule_t s;
    int64_t num_tasks = 0;

    as_schedule_init(&s, r->ctx, r->topology, shape, rank);
    assert_int_equal(as_schedule_build(&s, r->batch, r->plan), BASE_OK);
    const as_launch_t *launches = s.launches.items;
    for (int64_t l = 0; l < s.launches.count; l++) {
        const kern_attention_bwd_t bwd = {
            .dtype = KERN_BF16,
            .group = GROUP,
            .head_dim = 64,
            .num_tasks = launches[l].num_tasks,
            .tasks = (const kern_attention_task_t *)s.kernel_tasks.items + num_tasks};

        assert_int_equal(launches[l].first_task, num_tasks);
        assert_true(kern_attention_bwd_workspace(&bwd) <= shape->workspace_bytes);
        num_tasks += launches[l].num_tasks;
    }
    assert_int_equal(num_tasks, s.tasks_here);
    const int64_t count = s.launches.count;
    as_schedule_deinit(&s);
    return count;
}

/* What the seam sets aside is enough for whole halves; with less, launches are divided. */
static void launches_fit_the_workspace(void **state)
{
    rig_t r = {.ctx = fixture_ctx()};
    int64_t num_divided = 0;

    (void)state;
    begin_rig(&r);
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t next = seed;

        create_topology(&r, (int)random_below(&next, 2));
        lay_random(&r, &next, r.topology->num_trainers);
        const random_plan_t options = {
            .cut_seed = seed, .assign_seed = seed + 100, .num_kv_heads = HEADS};
        assert_int_equal(random_plan_fill(&options, r.batch, r.topology, r.plan), BASE_OK);
        as_attention_config_t config = {.dtype = KERN_BF16,
                                        .num_q_heads = GROUP * HEADS,
                                        .num_kv_heads = HEADS,
                                        .head_dim = 64,
                                        .num_kinds = 1,
                                        .max_rows = r.batch->trainer_rows[0]};
        const as_shape_t shape = as_shape_of(&config);
        assert_true(shape.workspace_bytes > config.max_rows * GROUP * HEADS * 64 * 4);
        as_shape_t less = shape;
        less.workspace_bytes = shape.workspace_bytes * 5 / 6; /* still the longest task's */
        for (int rank = 0; rank < r.topology->num_ranks; rank++) {
            const int64_t count = count_launches(&r, &shape, rank);

            num_divided += count_launches(&r, &less, rank) - count;
        }
        as_topology_destroy(r.topology);
    }
    assert_true(num_divided > 0);
    end_rig(&r);
}

/* Two trainers, one document each in ping; all runs at home or all on one server. */
static void times_follow_the_model(void **state)
{
    const data_document_t documents[] = {{.rows = 128, .index = 0}, {.rows = 128, .index = 1}};
    rig_t r = {.ctx = fixture_ctx()};
    as_profile_t pairs;

    (void)state;
    as_profile_pairs(&pairs);
    assert_int_equal(data_batch_create(r.ctx, 2, 8, 2, &r.batch), BASE_OK);
    assert_int_equal(as_plan_create(r.ctx, 8, &r.plan), BASE_OK);
    assert_int_equal(as_cost_create(r.ctx, &pairs, 0, 2000, &r.cost), BASE_OK);
    assert_int_equal(as_topology_create(r.ctx, AS_IN_PLACE, 2, NULL, 0, &r.topology), BASE_OK);
    assert_int_equal(data_batch_begin(r.batch, 0, 2), BASE_OK);
    for (int32_t d = 0; d < 2; d++) {
        int32_t index;
        const data_piece_t piece = {.document = d, .trainer = d, .rows = 128};

        r.batch->trainer_rows[d] = 128;
        assert_int_equal(data_batch_add_document(r.batch, &documents[d], &index), BASE_OK);
        assert_int_equal(data_batch_add_piece(r.batch, &piece), BASE_OK);
    }
    assert_int_equal(data_batch_finish(r.batch), BASE_OK);
    for (int32_t far = 0; far < 2; far++) {
        assert_int_equal(as_plan_begin(r.plan, 0, 0, HEADS), BASE_OK);
        for (int32_t d = 0; d < 2; d++) {
            const as_task_t task = {
                .document = d, .piece = d, .server = far ? 1 : d, .h1 = HEADS, .q1 = 128};

            assert_int_equal(as_plan_add(r.plan, &task), BASE_OK);
        }
        assert_int_equal(as_plan_finish(r.plan, r.batch, r.topology), BASE_OK);
        judge(&r, &wire_cases[0]);
        /* A tile row of a head takes 1 ns in each pass. */
        assert_int_equal(r.score.bound_ns, 2 * HEADS);
        assert_int_equal(r.score.compute_ns, far ? 4 * HEADS : 2 * HEADS);
        assert_int_equal(r.score.num_remote, far);
        if (!far) {
            assert_int_equal(r.score.link_bytes, 0);
            assert_int_equal(r.score.pass_ns[0], 2000 + HEADS);
            assert_int_equal(r.score.pass_bound_ns[0], 2000 + HEADS);
        } else { /* q, k and v out of rank 0; o, lse back into it; and so on */
            const int64_t q = 128 * HEADS * GROUP * DIM * 4, stat = 128 * HEADS * GROUP * 4;
            const int64_t kv = 2 * 128 * HEADS * DIM * 4;

            assert_int_equal(r.score.flow_bytes[AS_FLOW_FWD_OUT], q + kv);
            assert_int_equal(r.score.flow_bytes[AS_FLOW_FWD_BACK], q + stat);
            assert_int_equal(r.score.flow_bytes[AS_FLOW_BWD_OUT], 2 * q + 2 * stat + kv);
            assert_int_equal(r.score.flow_bytes[AS_FLOW_BWD_BACK], q + kv);
            assert_int_equal(r.score.link_bytes, 3 * q + 2 * stat + 2 * kv);
            assert_true(r.score.pass_ns[0] > 2000 + 2 * HEADS);
        }
        as_judge_destroy(r.judge);
    }
    as_topology_destroy(r.topology);
    as_cost_destroy(r.cost);
    as_plan_destroy(r.plan);
    data_batch_destroy(r.batch);
    fixture_ctx_end(r.ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_those_of_the_seam),
        cmocka_unit_test(plans_are_sent_as_judged),
        cmocka_unit_test(launches_fit_the_workspace),
        cmocka_unit_test(times_follow_the_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
