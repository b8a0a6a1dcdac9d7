/* The plan of last resort takes no more than as_planner_home_bytes says, for random mixtures of
 * documents on 1, 2 and 4 trainers, in place, in pools and local, with both ways to sum dk and dv;
 * and a planner whose machine has that much memory never ends a run. */
#include "tests/support/ctx_fixture.h"
#include "tests/support/random_plan.h"

#include "attention_server/plan_work.h"
#include "attention_server/schedule.h"
#include "lora/pack.h"

enum { HEADS = 4, MAX_TRAINERS = 4, MAX_DOCUMENTS = 600, MAX_PIECES = 640, LAYOUTS = 420 };

typedef struct rig {
    base_ctx_t *ctx;
    data_batch_t *batch;
    as_plan_t *plan;
    as_topology_t *topology;
    as_cost_t *cost;
    as_machine_t machine;
    int64_t scratch[MAX_TRAINERS];
    int64_t longest, tokens;
    as_planner_t *planner;
    int64_t at_home, worst_per_mille;
} rig_t;

static int64_t draw(uint64_t *state, int64_t low, int64_t high)
{
    return low + random_below(state, (uint32_t)(high - low + 1));
}

/* Documents up to the longest, filled up as a lot is (trainer/loop/lot.c): one long one and short
 * ones, all alike, or of any length. */
static void lay(rig_t *r, uint64_t *state)
{
    static data_document_t documents[MAX_DOCUMENTS];
    const int32_t trainers = r->topology->num_trainers;
    const int whole = r->topology->placement == AS_LOCAL;
    const int64_t all = trainers * r->tokens, kind = draw(state, 0, 3);
    const int64_t shorter = draw(state, 1, r->longest);
    int64_t rows = 0, next = kind == 3 ? shorter : r->longest;
    int32_t count = 0;

    while (count < MAX_DOCUMENTS && (count == 0 || rows + next <= all - DATA_ROW_ALIGN + 1)) {
        documents[count] = (data_document_t){
            .rows = next, .index = count, .adapter = (int32_t)random_below(state, 3)};
        rows += next;
        count++;
        next = kind == 0 ? r->longest : kind == 1 ? draw(state, 1, shorter) : shorter;
        if (kind == 2) next = draw(state, 1, r->longest);
        if (rows + next > all - DATA_ROW_ALIGN + 1) next = draw(state, 1, 64);
    }
    for (;;) { /* whole documents may not fit as they are */
        const lora_pack_t pack = {.num_trainers = trainers,
                                  .tokens_per_trainer = r->tokens,
                                  .whole_documents = whole,
                                  .num_documents = count,
                                  .documents = documents};
        const base_status_t st = lora_pack_fast(r->ctx, &pack, r->batch);

        if (st >= 0) return;
        assert_true(whole && count > 1);
        base_ctx_clear_error(r->ctx);
        count--;
    }
}

static void open_planner(rig_t *r, int limited, uint64_t *state)
{
    const as_planner_config_t config = {.machine = &r->machine,
                                        .cost = r->cost,
                                        .num_kv_heads = HEADS,
                                        .cut_heads = (int32_t)random_below(state, 2),
                                        .cuts_follow_servers = (int32_t)random_below(state, 2),
                                        .max_documents = MAX_DOCUMENTS,
                                        .max_pieces = MAX_PIECES};

    r->machine.scratch_bytes = limited ? r->scratch : NULL;
    assert_int_equal(as_planner_create(r->ctx, &config, &r->planner), BASE_OK);
}

/* Every rank's need, from its schedule, of a finished plan. */
static void check_needs(rig_t *r, const as_home_bytes_t *most, int32_t real_bytes, int sums)
{
    const as_shape_t shape = {.group = 2,
                              .head_dim = 16,
                              .num_kv_heads = HEADS,
                              .sums_per_server = sums,
                              .real_bytes = real_bytes,
                              .acc_bytes = 4,
                              .head_rows = 1 << 20,
                              .o_pitch = 2 * HEADS * 16,
                              .d_o_pitch = 2 * HEADS * 16};

    for (int rank = 0; rank < r->topology->num_ranks; rank++) {
        const int64_t limit = r->topology->rank_server[rank] >= 0 ? most->server : most->trainer;
        as_schedule_t s;

        as_schedule_init(&s, r->ctx, r->topology, &shape, rank);
        assert_int_equal(as_schedule_build(&s, r->batch, r->plan), BASE_OK);
        if (as_page(s.scratch_bytes) > limit)
            fail_msg("rank %d of %d, placement %d: %lld bytes, the bound is %lld", rank,
                     r->topology->num_ranks, (int)r->topology->placement,
                     (long long)s.scratch_bytes, (long long)limit);
        if (s.scratch_bytes * 1000 / limit > r->worst_per_mille)
            r->worst_per_mille = s.scratch_bytes * 1000 / limit;
        as_schedule_deinit(&s);
    }
}

static void check_layout(rig_t *r, uint64_t seed)
{
    static const as_placement_t placements[] = {AS_IN_PLACE, AS_POOL, AS_LOCAL};
    static const int32_t trainers[] = {1, 2, 4};
    const as_placement_t placement = placements[seed % 3];
    const int32_t t = trainers[seed / 3 % 3];
    const int sums = (int)(seed / 9 % 2);
    const int32_t servers = placement == AS_POOL ? 1 + (int32_t)(seed / 18 % 2) : 0;
    const int64_t window = seed % 5 == 4 ? 300 : 0;
    uint64_t state = seed;
    as_profile_t pairs;
    as_score_t score;

    as_profile_pairs(&pairs);
    assert_int_equal(
        as_topology_create(r->ctx, placement, t + servers, NULL, servers, &r->topology), BASE_OK);
    r->tokens = 256 * draw(&state, 1, 12);
    r->longest = draw(&state, 1, (placement == AS_LOCAL ? 1 : t) * r->tokens);
    r->machine = (as_machine_t){.topology = r->topology,
                                .num_layers = 1,
                                .link_ps_per_kib = {1000, 10000},
                                .dense_ns = {1000, 1000}};
    as_wire_seam(2, 16, sums ? 2 : 4, 4, sums ? 2 : 4, &r->machine.wire);
    r->machine.wire.partial_per_task = !sums;
    assert_int_equal(as_cost_create(r->ctx, &pairs, window, t * r->tokens, &r->cost), BASE_OK);
    lay(r, &state);

    open_planner(r, 0, &state);
    const as_home_bytes_t most = as_planner_home_bytes(r->planner, r->longest, r->tokens / 2);
    r->planner->batch = r->batch;
    assert_int_equal(as_plan_home(r->planner, r->plan), BASE_OK);
    assert_int_equal(as_plan_finish(r->plan, r->batch, r->topology), BASE_OK);
    check_needs(r, &most, sums ? 2 : 4, sums);
    as_planner_destroy(r->planner);

    for (int32_t s = 0; s < r->topology->num_servers; s++)
        r->scratch[s] = most.server;
    r->machine.trainer_scratch_bytes = &most.trainer;
    open_planner(r, 1, &state);
    assert_int_equal(as_planner_run(r->planner, r->batch, r->plan, &score), BASE_OK);
    check_needs(r, &most, sums ? 2 : 4, sums);
    r->at_home += score.at_home;
    as_planner_destroy(r->planner);
    as_cost_destroy(r->cost);
    as_topology_destroy(r->topology);
}

static void the_bound_holds(void **state)
{
    rig_t r = {.ctx = fixture_ctx()};

    (void)state;
    assert_int_equal(data_batch_create(r.ctx, MAX_DOCUMENTS, MAX_PIECES, MAX_TRAINERS, &r.batch),
                     BASE_OK);
    assert_int_equal(as_plan_create(r.ctx, 1 << 15, &r.plan), BASE_OK);
    for (uint64_t seed = 0; seed < LAYOUTS; seed++)
        check_layout(&r, seed);
    print_message("%d layouts: %lld planned at home, at most %lld per mille of the bound\n",
                  LAYOUTS, (long long)r.at_home, (long long)r.worst_per_mille);
    assert_true(r.worst_per_mille > 300); /* a bound, not any large number */
    as_plan_destroy(r.plan);
    data_batch_destroy(r.batch);
    fixture_ctx_end(r.ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_bound_holds)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
