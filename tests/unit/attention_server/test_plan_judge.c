/* The judge against the seam: for the same plan the bytes that each rank's schedule sends and the
 * memory that it needs are those that the judge counts. */
#include "tests/support/ctx_fixture.h"
#include "tests/support/random_plan.h"

#include "attention_server/plan_judge.h"
#include "attention_server/schedule.h"
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

static void judge(rig_t *r)
{
    as_machine_t machine = {.topology = r->topology,
                            .num_layers = 1,
                            .link_ps_per_kib = {1000, 10000},
                            .dense_ns = {1000, 1000}};
    as_bounds_t bounds;

    as_wire_seam(GROUP, DIM, 4, 4, 4, &machine.wire);
    machine.wire.partial_per_task = 1;
    assert_int_equal(as_judge_create(r->ctx, &machine, HEADS, &r->judge), BASE_OK);
    as_bounds_of(&machine, r->cost, HEADS, r->batch, &bounds);
    as_judge_run(r->judge, r->cost, r->batch, &bounds, r->plan->tasks, r->plan->num_tasks, 0,
                 &r->score);
}

/* Every staged piece is rounded up to AS_ALIGN: at most so many pieces a task, run and sum. */
static void check_memory(int64_t counted, int64_t scheduled, int64_t pieces)
{
    assert_true(counted <= scheduled);
    assert_true(scheduled <= counted + 16 * AS_ALIGN * (pieces + 4));
}

static void check_rank(const rig_t *r, int rank)
{
    const as_shape_t shape = {.group = GROUP,
                              .head_dim = DIM,
                              .num_kv_heads = HEADS,
                              .real_bytes = 4,
                              .acc_bytes = 4,
                              .head_rows = 1 << 20,
                              .o_pitch = GROUP * HEADS * DIM,
                              .d_o_pitch = GROUP * HEADS * DIM};
    as_schedule_t s;
    int64_t sent = 0;

    as_schedule_init(&s, r->ctx, r->topology, &shape, rank);
    assert_int_equal(as_schedule_build(&s, r->batch, r->plan), BASE_OK);
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        for (int leg = 0; leg < AS_NUM_LEGS; leg++)
            sent += s.legs[half][leg].sent_bytes;
    assert_int_equal(sent, as_judge_link_bytes(r->judge, rank, 1));
    check_memory(as_judge_scratch_bytes(r->judge, rank), s.scratch_bytes,
                 s.tasks_here + s.received.count + s.runs.count);
    check_memory(as_judge_retain_bytes(r->judge, rank), s.keep_bytes, s.tasks_here + s.runs.count);
    as_schedule_deinit(&s);
}

static void bytes_are_those_of_the_seam(void **state)
{
    static const int32_t hosts[] = {0, 0, 1, 1, 1, 0};
    rig_t r = {.ctx = fixture_ctx()};
    as_profile_t pairs;

    (void)state;
    as_profile_pairs(&pairs);
    assert_int_equal(data_batch_create(r.ctx, MAX_DOCUMENTS, MAX_PIECES, 6, &r.batch), BASE_OK);
    assert_int_equal(as_plan_create(r.ctx, MAX_TASKS, &r.plan), BASE_OK);
    assert_int_equal(as_cost_create(r.ctx, &pairs, 0, 2000, &r.cost), BASE_OK);
    for (uint64_t seed = 1; seed <= 80; seed++) {
        uint64_t next = seed;
        const int pool = (int)random_below(&next, 2);

        assert_int_equal(
            as_topology_create(r.ctx, pool ? AS_POOL : AS_IN_PLACE, 6, hosts, 1, &r.topology),
            BASE_OK);
        lay_random(&r, &next, r.topology->num_trainers);
        const random_plan_t options = {
            .cut_seed = seed, .assign_seed = seed + 100, .num_kv_heads = HEADS};
        assert_int_equal(random_plan_fill(&options, r.batch, r.topology, r.plan), BASE_OK);
        judge(&r);
        for (int rank = 0; rank < r.topology->num_ranks; rank++)
            check_rank(&r, rank);
        as_judge_destroy(r.judge);
        as_topology_destroy(r.topology);
    }
    as_cost_destroy(r.cost);
    as_plan_destroy(r.plan);
    data_batch_destroy(r.batch);
    fixture_ctx_end(r.ctx);
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
        judge(&r);
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
        cmocka_unit_test(times_follow_the_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
