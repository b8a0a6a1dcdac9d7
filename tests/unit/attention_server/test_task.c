#include "tests/support/ctx_fixture.h"

#include "attention_server/task.h"

#define MAX_TASKS 16

typedef struct plan_fixture {
    base_ctx_t *ctx;
    data_batch_t *batch;
    as_topology_t *topology;
    as_plan_t *plan;
} plan_fixture_t;

/* Two trainers of 512 rows, all in ping. Document 0: rows [0, 300) at the start of trainer 0, then
 * document 1: rows [0, 212) on trainer 0 and [212, 700) on trainer 1. */
static plan_fixture_t new_plan(as_placement_t placement)
{
    static const data_piece_t pieces[] = {{0, DATA_PING, 0, 0, 300, 0},
                                          {1, DATA_PING, 0, 0, 212, 300},
                                          {1, DATA_PING, 1, 212, 488, 0}};
    plan_fixture_t f = {.ctx = fixture_ctx()};
    int32_t index = -1;

    assert_int_equal(data_batch_create(f.ctx, 2, 4, 2, &f.batch), BASE_OK);
    assert_int_equal(data_batch_begin(f.batch, 9, 2), BASE_OK);
    f.batch->trainer_rows[0] = f.batch->trainer_rows[1] = 512;
    assert_int_equal(data_batch_add_document(f.batch, &(data_document_t){.rows = 300}, &index),
                     BASE_OK);
    assert_int_equal(data_batch_add_document(f.batch, &(data_document_t){.rows = 700}, &index),
                     BASE_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(data_batch_add_piece(f.batch, &pieces[i]), BASE_OK);
    assert_int_equal(data_batch_finish(f.batch), BASE_OK);
    assert_int_equal(as_topology_create(f.ctx, placement, 2, NULL, 0, &f.topology), BASE_OK);
    assert_int_equal(as_plan_create(f.ctx, MAX_TASKS, &f.plan), BASE_OK);
    return f;
}

static void end_plan(plan_fixture_t *f)
{
    as_plan_destroy(f->plan);
    as_topology_destroy(f->topology);
    data_batch_destroy(f->batch);
    fixture_ctx_end(f->ctx);
}

/* A plan for 3 KV heads that uses all that is allowed: cuts on the grid and at edges of pieces, two
 * head ranges with cuts of their own. With window 200 the first keys are not 0 everywhere. */
#define WINDOW    200
#define NUM_TASKS 8
static void good_tasks(as_task_t *tasks)
{
    /* document, piece, server, h0, h1, retained, q0, q1, k0 */
    const as_task_t good[NUM_TASKS] = {
        {1, 2, 0, 0, 1, 0, 212, 700, 0}, {1, 2, 1, 1, 3, 1, 512, 700, 256},
        {1, 2, 0, 1, 3, 1, 212, 512, 0}, {1, 1, 1, 0, 3, 0, 0, 212, 0},
        {0, 0, 1, 0, 3, 1, 256, 300, 0}, {0, 0, 0, 0, 2, 1, 0, 128, 0},
        {0, 0, 1, 0, 2, 0, 128, 256, 0}, {0, 0, 1, 2, 3, 1, 0, 256, 0},
    };

    memcpy(tasks, good, sizeof good);
}

static base_status_t lay(plan_fixture_t *f, const as_task_t *tasks, int32_t num_tasks)
{
    assert_int_equal(as_plan_begin(f->plan, 9, WINDOW, 3), BASE_OK);
    for (int32_t i = 0; i < num_tasks; i++)
        assert_int_equal(as_plan_add(f->plan, &tasks[i]), BASE_OK);
    return as_plan_finish(f->plan, f->batch, f->topology);
}

static void tasks_are_sorted(void **state)
{
    plan_fixture_t f = new_plan(AS_IN_PLACE);
    as_task_t tasks[MAX_TASKS];

    (void)state;
    good_tasks(tasks);
    assert_int_equal(lay(&f, tasks, NUM_TASKS), BASE_OK);
    assert_int_equal(f.plan->num_tasks, NUM_TASKS);
    for (int32_t i = 1; i < NUM_TASKS; i++) {
        const as_task_t *a = &f.plan->tasks[i - 1];
        const as_task_t *b = &f.plan->tasks[i];

        assert_true(
            a->document < b->document ||
            (a->document == b->document && (a->q0 < b->q0 || (a->q0 == b->q0 && a->h0 < b->h0))));
    }
    end_plan(&f);
}

static void hash_sees_everything(void **state)
{
    plan_fixture_t f = new_plan(AS_IN_PLACE);
    as_task_t tasks[MAX_TASKS];

    (void)state;
    good_tasks(tasks);
    assert_int_equal(lay(&f, tasks, NUM_TASKS), BASE_OK);
    const uint64_t hash = f.plan->hash;
    const int64_t calls = base_memory_calls(base_ctx_memory(f.ctx));

    assert_int_equal(lay(&f, tasks, NUM_TASKS), BASE_OK);
    assert_true(f.plan->hash == hash);
    tasks[0].server ^= 1;
    assert_int_equal(lay(&f, tasks, NUM_TASKS), BASE_OK);
    assert_true(f.plan->hash != hash);
    tasks[0].server ^= 1;
    tasks[0].retained ^= 1;
    assert_int_equal(lay(&f, tasks, NUM_TASKS), BASE_OK);
    assert_true(f.plan->hash != hash);
    tasks[0].retained ^= 1;
    f.topology->rank_server[0] = 1;
    assert_int_equal(lay(&f, tasks, NUM_TASKS), BASE_OK);
    assert_true(f.plan->hash != hash);
    f.topology->rank_server[0] = 0;
    f.topology->rank_host[1] = 1;
    assert_int_equal(lay(&f, tasks, NUM_TASKS), BASE_OK);
    assert_true(f.plan->hash != hash);
    f.topology->rank_host[1] = 0;
    f.topology->num_hosts = 2;
    assert_int_equal(lay(&f, tasks, NUM_TASKS), BASE_OK);
    assert_true(f.plan->hash != hash);
    f.topology->num_hosts = 1;
    assert_int_equal(lay(&f, tasks, NUM_TASKS), BASE_OK);
    assert_true(f.plan->hash == hash);
    f.batch->documents[1].index = 5;
    assert_int_equal(lay(&f, tasks, NUM_TASKS), BASE_OK);
    assert_true(f.plan->hash != hash);
    assert_int_equal(base_memory_calls(base_ctx_memory(f.ctx)), calls);
    end_plan(&f);
}

/* ==== what finish finds ==== */

static void expect_wrong(as_placement_t placement, const as_task_t *tasks, int32_t num_tasks,
                         const char *text)
{
    plan_fixture_t f = new_plan(placement);

    assert_int_equal(lay(&f, tasks, num_tasks), BASE_ERR_INTERNAL);
    fixture_expect_error(f.ctx, BASE_ERR_INTERNAL, "INT-01", text);
    assert_true(f.plan->hash == 0);
    end_plan(&f);
}

static void wrong_tasks_are_named(void **state)
{
    static const struct {
        int32_t task;
        as_task_t with;
        const char *text;
    } cases[] = {
        {3, {1, 3, 1, 0, 3, 0, 0, 212, 0}, "document 1 rows [0, 212): piece 3, the layout has 3"},
        {3, {1, -1, 1, 0, 3, 0, 0, 212, 0}, "piece -1, the layout has 3"},
        {3, {1, 0, 1, 0, 3, 0, 0, 212, 0}, "piece 0 is of document 0"},
        {3, {2, 1, 1, 0, 3, 0, 0, 212, 0}, "document 2 rows [0, 212): piece 1 is of document 1"},
        {3, {1, 1, 1, 0, 3, 0, 0, 256, 0}, "not within piece 1, rows [0, 212)"},
        {2, {1, 2, 0, 1, 3, 1, 128, 512, 0}, "not within piece 2, rows [212, 700)"},
        {3, {1, 1, 1, 0, 3, 0, 0, 0, 0}, "rows [0, 0): not within piece 1"},
        {3, {1, 1, 1, 0, 3, 0, 128, 0, 0}, "rows [128, 0): not within piece 1"},
        {3,
         {1, 1, 1, 0, 3, 0, 0, 200, 0},
         "rows [0, 200): cut neither at a multiple of 128 nor at an edge of the piece"},
        {1,
         {1, 2, 1, 1, 3, 1, 500, 700, 256},
         "rows [500, 700): cut neither at a multiple of 128 nor at an edge of the piece"},
        {1,
         {1, 2, 1, 1, 3, 1, 512, 700, 0},
         "document 1 rows [512, 700): first key 0, want 256 with window 200"},
        {1, {1, 2, 1, 1, 3, 1, 512, 700, 313}, "first key 313, want 256 with window 200"},
        {3, {1, 1, 1, 0, 4, 0, 0, 212, 0}, "KV heads [0, 4) of 3"},
        {3, {1, 1, 1, -1, 3, 0, 0, 212, 0}, "KV heads [-1, 3) of 3"},
        {3, {1, 1, 1, 2, 2, 0, 0, 212, 0}, "KV heads [2, 2) of 3"},
        {3, {1, 1, 1, 0, 3, 2, 0, 212, 0}, "retained is 2, want 0 or 1"},
        {3, {1, 1, 2, 0, 3, 0, 0, 212, 0}, "server 2, there are 2"},
        {3, {1, 1, -1, 0, 3, 0, 0, 212, 0}, "server -1, there are 2"},
        {5,
         {0, 0, 0, 0, 2, 1, 0, 256, 0},
         "document 0 rows [128, 256): KV head 0 is in two tasks up to row 256"},
        {5,
         {0, 0, 0, 0, 3, 1, 0, 128, 0},
         "document 0 rows [0, 256): KV head 2 is in two tasks up to row 128"},
        {5,
         {0, 0, 0, 0, 1, 1, 0, 128, 0},
         "document 0 rows [128, 256): KV head 1 of the rows before, from 0, is in no task"},
        {0, {1, 2, 0, 0, 1, 0, 212, 640, 0}, "document 1 rows [640, 700): KV head 0 is in no task"},
        {4, {0, 0, 1, 0, 2, 1, 256, 300, 0}, "document 0 rows [256, 300): KV head 2 is in no task"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        as_task_t tasks[MAX_TASKS];

        good_tasks(tasks);
        tasks[cases[i].task] = cases[i].with;
        expect_wrong(AS_IN_PLACE, tasks, NUM_TASKS, cases[i].text);
    }
}

static void missing_and_double_tasks_are_named(void **state)
{
    as_task_t tasks[MAX_TASKS];

    (void)state;
    for (int32_t i = 0; i < NUM_TASKS; i++) {
        good_tasks(tasks);
        tasks[i] = tasks[NUM_TASKS - 1];
        expect_wrong(AS_IN_PLACE, tasks, NUM_TASKS - 1, "is in no task");
        good_tasks(tasks);
        tasks[NUM_TASKS] = tasks[i];
        expect_wrong(AS_IN_PLACE, tasks, NUM_TASKS + 1, "is in two tasks");
    }
    expect_wrong(AS_IN_PLACE, tasks, 0, "document 0 rows [0, 300): KV head 0 is in no task");
    good_tasks(tasks);
    expect_wrong(AS_IN_PLACE, &tasks[4], 4, "document 1 rows [0, 700): KV head 0 is in no task");
}

static void local_tasks_stay_at_home(void **state)
{
    as_task_t tasks[MAX_TASKS];
    plan_fixture_t f = new_plan(AS_LOCAL);

    (void)state;
    good_tasks(tasks);
    for (int32_t i = 0; i < NUM_TASKS; i++)
        tasks[i].server = tasks[i].piece == 2;
    assert_int_equal(lay(&f, tasks, NUM_TASKS), BASE_OK);
    end_plan(&f);
    tasks[1].server = 0;
    expect_wrong(AS_LOCAL, tasks, NUM_TASKS,
                 "document 1 rows [512, 700): on rank 0, but placement local keeps them on rank 1");
}

static void foreign_layouts_are_refused(void **state)
{
    plan_fixture_t f = new_plan(AS_IN_PLACE);

    (void)state;
    assert_int_equal(as_plan_begin(f.plan, 8, 0, 3), BASE_OK);
    assert_int_equal(as_plan_finish(f.plan, f.batch, f.topology), BASE_ERR_INTERNAL);
    fixture_expect_error(f.ctx, BASE_ERR_INTERNAL, "INT-01", "the layout is of microbatch 9");
    f.topology->num_trainers = 1;
    assert_int_equal(as_plan_begin(f.plan, 9, 0, 3), BASE_OK);
    assert_int_equal(as_plan_finish(f.plan, f.batch, f.topology), BASE_ERR_INTERNAL);
    fixture_expect_error(f.ctx, BASE_ERR_INTERNAL, "INT-01", "with 1 trainers: the layout");
    assert_int_equal(data_batch_begin(f.batch, 9, 2), BASE_OK);
    assert_int_equal(as_plan_finish(f.plan, f.batch, f.topology), BASE_ERR_STATE);
    fixture_expect_error(f.ctx, BASE_ERR_STATE, "INT-01", "the layout is not finished");
    end_plan(&f);
}

/* ==== storage and arithmetic ==== */

static void plans_have_limits(void **state)
{
    plan_fixture_t f = new_plan(AS_IN_PLACE);
    const as_task_t task = {.document = 1, .q0 = 5, .q1 = 6};
    as_plan_t *plan = NULL;

    (void)state;
    assert_int_equal(as_plan_begin(f.plan, 9, -1, 3), BASE_ERR_ARG);
    assert_int_equal(as_plan_begin(f.plan, 9, 0, 0), BASE_ERR_ARG);
    assert_int_equal(as_plan_begin(f.plan, 9, 0, AS_MAX_KV_HEADS + 1), BASE_ERR_ARG);
    fixture_expect_error(f.ctx, BASE_ERR_ARG, "INT-01", "window -1");
    assert_int_equal(as_plan_begin(f.plan, 9, 0, AS_MAX_KV_HEADS), BASE_OK);
    for (int32_t i = 0; i < MAX_TASKS; i++)
        assert_int_equal(as_plan_add(f.plan, &task), BASE_OK);
    assert_int_equal(as_plan_add(f.plan, &task), BASE_ERR_ARG);
    fixture_expect_error(f.ctx, BASE_ERR_ARG, "INT-01",
                         "document 1 rows [5, 6): the plan is full with 16 tasks");
    assert_int_equal(as_plan_create(f.ctx, 0, &plan), BASE_ERR_ARG);
    base_ctx_clear_error(f.ctx);
    end_plan(&f);
}

static void create_fails_cleanly(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    as_plan_t *plan = NULL;

    (void)state;
    for (int64_t n = 1; n <= 2; n++) {
        base_memory_fail_at(base_ctx_memory(ctx), n);
        assert_int_equal(as_plan_create(ctx, 5, &plan), BASE_ERR_NOMEM);
        fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "plan");
        assert_int_equal(base_memory_live_total(base_ctx_memory(ctx)), 0);
    }
    assert_int_equal(as_plan_create(ctx, 5, &plan), BASE_OK);
    base_memory_fail_at(base_ctx_memory(ctx), 1);
    assert_int_equal(as_plan_begin(plan, 0, 0, 8), BASE_ERR_NOMEM);
    fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "plan: scratch");
    assert_int_equal(as_plan_begin(plan, 0, 0, 8), BASE_OK);
    as_plan_destroy(plan);
    as_plan_destroy(NULL);
    fixture_ctx_end(ctx);
}

static void pairs_and_first_keys_are_counted(void **state)
{
    static const int64_t windows[] = {0, 1, 2, 127, 128, 129, 200, 300, 1000};
    static const int64_t rows[] = {0, 1, 127, 128, 129, 200, 300, 384, 555};

    (void)state;
    for (size_t w = 0; w < sizeof windows / sizeof windows[0]; w++) {
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            for (size_t j = i; j < sizeof rows / sizeof rows[0]; j++) {
                const as_task_t task = {.q0 = rows[i], .q1 = rows[j], .h0 = 1, .h1 = 4};
                int64_t pairs = 0;

                for (int64_t q = task.q0; q < task.q1; q++)
                    pairs += windows[w] != 0 && q + 1 > windows[w] ? windows[w] : q + 1;
                assert_int_equal(as_task_pairs(&task, windows[w]), 3 * pairs);
            }
        }
    }
    assert_int_equal(as_task_first_key(100000, 0), 0);
    assert_int_equal(as_task_first_key(0, 1), 0);
    assert_int_equal(as_task_first_key(127, 1), 0);
    assert_int_equal(as_task_first_key(128, 1), 128);
    assert_int_equal(as_task_first_key(128, 2), 0);
    assert_int_equal(as_task_first_key(1000, 233), 768);
    assert_int_equal(as_task_first_key(1000, 234), 640);
    assert_int_equal(as_task_first_key(1000, 5000), 0);

    /* The largest there is. */
    const as_task_t most = {.q0 = 0, .q1 = DATA_MAX_ROWS, .h0 = 0, .h1 = AS_MAX_KV_HEADS};
    assert_int_equal(as_task_pairs(&most, 0), 2305843043573432320);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_are_sorted),
        cmocka_unit_test(hash_sees_everything),
        cmocka_unit_test(wrong_tasks_are_named),
        cmocka_unit_test(missing_and_double_tasks_are_named),
        cmocka_unit_test(local_tasks_stay_at_home),
        cmocka_unit_test(foreign_layouts_are_refused),
        cmocka_unit_test(plans_have_limits),
        cmocka_unit_test(create_fails_cleanly),
        cmocka_unit_test(pairs_and_first_keys_are_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
