/* Which documents come next: every document of every batch once, jobs side by side, within the
 * columns. The loop is that of trainer/loop/train.c without a trainer. */
#include "tests/support/job_fixture.h"

#define NUM 4

typedef struct select_case {
    base_ctx_t *ctx;
    as_topology_t *topology;
    tr_lot_t *lot;
    base_config_adapter_t configs[NUM];
    tr_job_t *jobs[NUM];
    int64_t given[NUM][16];       /* how often a document was in a microbatch */
    int64_t microbatches, spread; /* the largest distance of two running jobs, in percent */
} select_case_t;

static void begin(select_case_t *c, const int64_t *epochs, const int64_t *ranks, int64_t tokens)
{
    static const int64_t batches[NUM] = {1, 3, 4, 16};
    static const char *const names[NUM] = {"a", "b", "c", "d"};
    static char paths[NUM][32];

    memset(c, 0, sizeof *c);
    c->ctx = fixture_ctx();
    assert_int_equal(as_topology_create(c->ctx, AS_IN_PLACE, 1, NULL, 1, &c->topology), BASE_OK);
    const tr_lot_options_t options = {.plans = {.topology = c->topology,
                                                .dtype = KERN_F32,
                                                .group = 1,
                                                .head_dim = 16,
                                                .num_kv_heads = 2,
                                                .num_layers = 1,
                                                .num_kinds = 1,
                                                .tokens_per_trainer = tokens},
                                      .tokens = 1};
    assert_int_equal(tr_lot_create(c->ctx, &options, NULL, &c->lot), BASE_OK);
    for (int32_t j = 0; j < NUM; j++) {
        int64_t rows[16];

        for (int d = 0; d < 16; d++)
            rows[d] = 2 + (d * 37 + j * 11) % 60;
        (void)snprintf(paths[j], sizeof paths[j], "select_%d.h5", j);
        job_dataset(c->ctx, paths[j], rows, 16);
        c->configs[j] = train_config(names[j], paths[j], 0, batches[j], 1e-3);
        c->configs[j].epochs = epochs[j];
        c->configs[j].rank = ranks[j];
        c->jobs[j] = job_open(c->ctx, &c->configs[j]);
    }
}

static void end(select_case_t *c)
{
    for (int32_t j = 0; j < NUM; j++)
        tr_job_close(c->jobs[j]);
    tr_lot_destroy(c->lot);
    as_topology_destroy(c->topology);
    fixture_ctx_end(c->ctx);
}

static double progress(const tr_job_t *job)
{
    return ((double)job->step + (double)job->batch_next / (double)job->batch_count) /
           (double)job->total_steps;
}

static void note_spread(select_case_t *c)
{
    double low = 1.0, high = 0.0;

    for (int32_t j = 0; j < NUM; j++) {
        if (c->jobs[j]->state != TR_JOB_RUNNING) continue;
        low = progress(c->jobs[j]) < low ? progress(c->jobs[j]) : low;
        high = progress(c->jobs[j]) > high ? progress(c->jobs[j]) : high;
    }
    if (100 * (high - low) > (double)c->spread) c->spread = (int64_t)(100 * (high - low));
}

static void check_lot(select_case_t *c, const int *chosen, int64_t rank_columns)
{
    int in_lot[NUM] = {0};
    int64_t ranks = 0;

    assert_true(c->lot->num_documents > 0);
    for (int32_t d = 0; d < c->lot->num_documents; d++) {
        const data_document_t *doc = &c->lot->documents[d];

        assert_true(doc->row_weight == tr_job_row_weight(c->jobs[doc->adapter]));
        c->given[doc->adapter][doc->index]++;
        in_lot[doc->adapter] = 1;
    }
    for (int32_t j = 0; j < NUM; j++) {
        assert_int_equal(chosen[j], in_lot[j]);
        ranks += in_lot[j] ? c->configs[j].rank : 0;
    }
    if (rank_columns > 0) assert_true(ranks <= rank_columns);
}

static int any_running(const select_case_t *c)
{
    for (int32_t j = 0; j < NUM; j++)
        if (c->jobs[j]->state == TR_JOB_RUNNING) return 1;
    return 0;
}

static void run(select_case_t *c, int64_t rank_columns)
{
    while (any_running(c)) {
        int chosen[NUM];

        assert_int_equal(
            tr_select_fill(c->jobs, NUM, rank_columns, c->microbatches, c->lot, chosen), BASE_OK);
        assert_int_equal(c->lot->batch->microbatch, c->microbatches);
        check_lot(c, chosen, rank_columns);
        assert_true(++c->microbatches < 1000);
        for (int32_t j = 0; j < NUM; j++) {
            if (!chosen[j] || !tr_job_batch_complete(c->jobs[j])) continue;
            tr_job_stepped(c->jobs[j], &(tr_step_result_t){.loss = 1.0});
        }
        note_spread(c);
    }
}

static void check_all_given(const select_case_t *c, const int64_t *epochs)
{
    for (int32_t j = 0; j < NUM; j++) {
        assert_int_equal(c->jobs[j]->state, TR_JOB_DONE);
        for (int d = 0; d < 16; d++)
            assert_int_equal(c->given[j][d], epochs[j]);
    }
}

/* Jobs of very different lengths and batches: each document once an epoch. (Those with few steps
 * end early here: there is room beside a job that needs a step after every three documents.) */
static void test_all_documents_once(void **state)
{
    static const int64_t epochs[NUM] = {3, 9, 1, 2}, ranks[NUM] = {8, 8, 8, 8};
    select_case_t c;

    (void)state;
    begin(&c, epochs, ranks, 512);
    run(&c, 64);
    check_all_given(&c, epochs);
    end(&c);
}

/* Only some of them in one microbatch: none is left behind by more than its largest batch, a
 * quarter of all, and the microbatch that it waits for. */
static void test_few_columns(void **state)
{
    static const int64_t epochs[NUM] = {4, 4, 4, 4}, ranks[NUM] = {16, 4, 8, 2};
    select_case_t c;

    (void)state;
    begin(&c, epochs, ranks, 512);
    run(&c, 16);
    check_all_given(&c, epochs);
    assert_true(c.spread <= 50);
    end(&c);
}

/* A few documents a microbatch: a batch of 16 takes several. */
static void test_no_room(void **state)
{
    static const int64_t epochs[NUM] = {2, 2, 2, 2}, ranks[NUM] = {8, 8, 8, 8};
    select_case_t c;

    (void)state;
    begin(&c, epochs, ranks, 256);
    run(&c, 0);
    check_all_given(&c, epochs);
    assert_true(c.spread <= 25);
    end(&c);
}

/* The same states give the same lots. */
static void test_repeatable(void **state)
{
    static const int64_t epochs[NUM] = {3, 2, 1, 2}, ranks[NUM] = {8, 8, 8, 8};
    select_case_t a, b;

    (void)state;
    begin(&a, epochs, ranks, 512);
    run(&a, 20);
    const uint64_t last = data_batch_hash(a.lot->batch);
    begin(&b, epochs, ranks, 512);
    run(&b, 20);
    assert_int_equal(a.microbatches, b.microbatches);
    assert_true(last == data_batch_hash(b.lot->batch));
    end(&a);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_documents_once),
        cmocka_unit_test(test_few_columns),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_repeatable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
