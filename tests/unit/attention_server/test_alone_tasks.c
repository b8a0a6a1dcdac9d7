/* Which tasks round their dk and dv themselves, beside the definition, task by task: on random layouts and plans of 1 to
 * 4 trainers, in place, in pools and local, with windows from one row to more than a document has. */
#include "tests/support/ctx_fixture.h"
#include "tests/support/random_plan.h"

#include "attention_server/schedule.h"
#include "lora/pack.h"

enum { MAX_HEADS = 5, MAX_TRAINERS = 4, MAX_DOCUMENTS = 12, MAX_TASKS = 4096, TOKENS = 2048 };
enum { LAYOUTS = 300 };

typedef struct rig {
    base_ctx_t *ctx;
    data_batch_t *batch;
    as_topology_t *topology;
    as_plan_t *plan;
    int64_t num[2], shared_here, shared_run; /* tasks that are not, that are; and why not */
} rig_t;

static int64_t draw(uint64_t *state, int64_t low, int64_t high)
{
    return low + random_below(state, (uint32_t)(high - low + 1));
}

static int has_rows(const as_schedule_t *s, int32_t document, int64_t row0, int64_t row1)
{
    for (int32_t p = 0; p < s->batch->num_pieces; p++) {
        const data_piece_t *piece = &s->batch->pieces[p];

        if (piece->document == document && s->topology->trainer_rank[piece->trainer] == s->rank &&
            piece->doc_row < row1 && piece->doc_row + piece->rows > row0)
            return 1;
    }
    return 0;
}

/* No other task of the run has any of its heads, and none anywhere gradients for those of its keys of which the owner
 * is here. */
static int is_alone(rig_t *r, const as_schedule_t *s, int32_t i)
{
    const as_task_t *task = &s->plan->tasks[i];
    int same_run = 0, same_rows = 0;

    for (int32_t j = 0; j < s->plan->num_tasks; j++) {
        const as_task_t *other = &s->plan->tasks[j];

        if (j == i || other->h0 >= task->h1 || other->h1 <= task->h0) continue;
        same_run |= as_info(s, j)->run == as_info(s, i)->run;
        same_rows |=
            as_tasks_share_keys(task, other) &&
            has_rows(s, task->document, as_max(task->k0, other->k0), as_min(task->q1, other->q1));
    }
    r->shared_run += same_run && !same_rows;
    r->shared_here += same_rows && !same_run;
    return !same_run && !same_rows;
}

static int is_real(rig_t *r, const as_schedule_t *s, int32_t i)
{
    if (as_info(s, i)->in_place) return as_task_is_whole(&s->plan->tasks[i], s->batch);
    return s->shape.sums_per_server && is_alone(r, s, i);
}

static void check_rank(rig_t *r, int rank, int sums)
{
    const as_shape_t shape = {.group = 2,
                              .head_dim = 16,
                              .num_kv_heads = r->plan->num_kv_heads,
                              .sums_per_server = sums,
                              .real_bytes = 2,
                              .acc_bytes = 4,
                              .head_rows = TOKENS,
                              .o_pitch = INT64_C(2) * r->plan->num_kv_heads * 16,
                              .d_o_pitch = INT64_C(2) * r->plan->num_kv_heads * 16};
    as_schedule_t s;

    as_schedule_init(&s, r->ctx, r->topology, &shape, rank);
    assert_int_equal(as_schedule_build(&s, r->batch, r->plan), BASE_OK);
    for (int32_t i = 0; i < r->plan->num_tasks; i++) {
        const as_task_t *task = &r->plan->tasks[i];
        const as_task_info_t *info = as_info(&s, i);
        const int want = info->server_rank == rank && is_real(r, &s, i);

        if (info->real != want)
            fail_msg("rank %d, window %lld, sums %d: document %d rows %lld to %lld heads %d to %d: "
                     "real %d",
                     rank, (long long)r->plan->window, sums, (int)task->document,
                     (long long)task->q0, (long long)task->q1, (int)task->h0, (int)task->h1,
                     (int)info->real);
        if (!info->in_place && info->server_rank == rank) r->num[want] += sums;
    }
    as_schedule_deinit(&s);
}

static void lay(const rig_t *r, uint64_t *state)
{
    data_document_t documents[MAX_DOCUMENTS];
    const int32_t trainers = r->topology->num_trainers;
    const int whole = r->topology->placement == AS_LOCAL;
    int64_t room = trainers * TOKENS - DATA_ROW_ALIGN + 1;
    int32_t count = 0;

    if (whole) room = TOKENS - DATA_ROW_ALIGN + 1;
    while (count < MAX_DOCUMENTS && room > 0) {
        documents[count] = (data_document_t){.rows = draw(state, 1, room), .index = count};
        room -= documents[count++].rows;
    }
    const lora_pack_t pack = {.num_trainers = trainers,
                              .tokens_per_trainer = TOKENS,
                              .whole_documents = whole,
                              .num_documents = count,
                              .documents = documents};
    assert_int_equal(lora_pack_fast(r->ctx, &pack, r->batch), BASE_OK);
}

static void check_layout(rig_t *r, as_placement_t placement, uint64_t *state)
{
    static const int64_t windows[] = {0, 1, 2, 127, 128, 129, 256, 300, 700, 5000};
    const int32_t trainers = (int32_t)draw(state, 1, MAX_TRAINERS);
    const int32_t servers = placement == AS_POOL ? (int32_t)draw(state, 1, 3) : 0;

    assert_int_equal(
        as_topology_create(r->ctx, placement, trainers + servers, NULL, servers, &r->topology),
        BASE_OK);
    lay(r, state);
    for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
        const random_plan_t options = {.cut_seed = *state + w,
                                       .assign_seed = *state + 50 + w,
                                       .uncut = random_below(state, 4) == 0,
                                       .window = windows[w],
                                       .num_kv_heads = (int32_t)draw(state, 1, MAX_HEADS)};

        assert_int_equal(random_plan_fill(&options, r->batch, r->topology, r->plan), BASE_OK);
        for (int rank = 0; rank < r->topology->num_ranks; rank++)
            for (int sums = 0; sums < 2; sums++)
                check_rank(r, rank, sums);
    }
    as_topology_destroy(r->topology);
}

static void by_definition(void **state)
{
    static const as_placement_t placements[] = {AS_IN_PLACE, AS_POOL, AS_LOCAL};
    rig_t r = {.ctx = fixture_ctx()};
    uint64_t random = 1;

    (void)state;
    assert_int_equal(data_batch_create(r.ctx, MAX_DOCUMENTS, MAX_DOCUMENTS + 2 * MAX_TRAINERS,
                                       MAX_TRAINERS, &r.batch),
                     BASE_OK);
    assert_int_equal(as_plan_create(r.ctx, MAX_TASKS, &r.plan), BASE_OK);
    for (int i = 0; i < LAYOUTS; i++)
        check_layout(&r, placements[i % 3], &random);
    print_message("staged tasks: %lld alone, %lld not, of those %lld for the run alone, %lld for "
                  "rows here alone\n",
                  (long long)r.num[1], (long long)r.num[0], (long long)r.shared_run,
                  (long long)r.shared_here);
    assert_true(r.num[1] > 1000 && r.shared_run > 1000 && r.shared_here > 1000);
    as_plan_destroy(r.plan);
    data_batch_destroy(r.batch);
    fixture_ctx_end(r.ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_definition)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
