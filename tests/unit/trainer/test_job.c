/* A job's host state: global batches, epochs, evaluations, early stopping, quarantine. */
#include "tests/support/job_fixture.h"

#include <math.h>

#define DATA "job_test.h5"
#define EVAL "job_eval.h5"

static const int64_t rows[] = {10, 20, 5, 40, 8, 12, 30};

static base_ctx_t *make(void)
{
    static const int64_t eval_rows[] = {7, 50};
    base_ctx_t *ctx = fixture_ctx();

    job_dataset(ctx, DATA, rows, 7);
    job_dataset(ctx, EVAL, eval_rows, 2);
    return ctx;
}

/* 7 documents by 3 are 3 steps an epoch, the last of one document; weights sum to 1. */
static void test_epochs(void **state)
{
    base_ctx_t *ctx = make();
    base_config_adapter_t c = train_config("a", DATA, 0, 3, 1e-3);

    (void)state;
    c.epochs = 2;
    tr_job_t *job = job_open(ctx, &c);
    assert_int_equal(job->total_steps, 6);
    assert_int_equal(tr_job_max_rows(job), 40);
    assert_true(isnan(job->first_loss));
    for (int64_t s = 0; s < 6; s++) {
        const int64_t first = s % 3 * 3, count = s % 3 == 2 ? 1 : 3;
        int64_t supervised = 0;

        assert_int_equal(job->state, TR_JOB_RUNNING);
        assert_int_equal(job->batch_count, count);
        for (int64_t i = 0; i < count; i++) {
            assert_false(tr_job_batch_complete(job));
            assert_int_equal(tr_job_next(job), first + i);
            supervised += rows[first + i] - 1;
            tr_job_take(job);
        }
        assert_int_equal(tr_job_next(job), -1);
        assert_true(tr_job_batch_complete(job));
        assert_true(tr_job_row_weight(job) == 1.0 / (double)supervised);
        tr_job_stepped(job, &(tr_step_result_t){.loss = 5.0 - (double)s, .norm = 1.0});
        assert_int_equal(job->step, s + 1);
        assert_true(job->last_loss == 5.0 - (double)s && job->first_loss == 5.0);
    }
    assert_int_equal(job->state, TR_JOB_DONE);
    assert_string_equal(tr_job_state_word(job->state), "done");
    assert_int_equal(job->documents, 14);
    assert_int_equal(job->tokens, 2 * (10 + 20 + 5 + 40 + 8 + 12 + 30));
    assert_int_equal(job->supervised_tokens, job->tokens - 14);
    assert_true(tr_job_epoch(job) == 2.0);
    tr_job_close(job);
    fixture_ctx_end(ctx);
}

/* Steps go on from epoch to epoch; a batch larger than the dataset is the dataset. */
static void test_steps(void **state)
{
    base_ctx_t *ctx = make();
    base_config_adapter_t c = train_config("a", DATA, 4, 5, 1e-3);
    int64_t want[] = {5, 2, 5, 2};

    (void)state;
    tr_job_t *job = job_open(ctx, &c);
    for (int s = 0; s < 4; s++) {
        assert_int_equal(job->batch_count, want[s]);
        job_step(job, 1.0);
    }
    assert_int_equal(job->state, TR_JOB_DONE);
    tr_job_close(job);
    c.global_batch_documents = 100;
    job = job_open(ctx, &c);
    assert_int_equal(job->batch_count, 7);
    tr_job_take(job);
    tr_job_take(job);
    tr_job_give_back(job);
    assert_int_equal(tr_job_next(job), 1);
    tr_job_close(job);
    fixture_ctx_end(ctx);
}

/* Rates of the step that is due. */
static void test_step_options(void **state)
{
    base_ctx_t *ctx = make();
    base_config_adapter_t c = train_config("a", DATA, 4, 5, 0.5);

    (void)state;
    c.schedule = BASE_CONFIG_SCHEDULE_LINEAR;
    c.warmup_steps = 1;
    c.weight_decay = 0.25;
    c.clip_norm = 2.0;
    tr_job_t *job = job_open(ctx, &c);
    const double want[] = {0.0, 0.5, 0.5 * 2 / 3, 0.5 / 3};
    for (int s = 0; s < 4; s++) {
        const tr_step_options_t o = tr_job_step_options(job);
        assert_true(fabs(o.learning_rate - want[s]) < 1e-15);
        assert_true(o.weight_decay == 0.25 && o.clip_norm == 2.0 && o.beta1 == 0.9 &&
                    o.beta2 == 0.999 && o.eps == 1e-8);
        job_step(job, 1.0);
    }
    tr_job_close(job);
    fixture_ctx_end(ctx);
}

/* Held-out documents are evaluated and never trained on. */
static void test_held_out(void **state)
{
    base_ctx_t *ctx = make();
    base_config_adapter_t c = train_config("a", DATA, 0, 2, 1e-3);
    int seen[7] = {0};

    (void)state;
    c.epochs = 1;
    c.eval_documents = 3;
    c.order = BASE_CONFIG_ORDER_SHUFFLE;
    c.seed = 4;
    tr_job_t *job = job_open(ctx, &c);
    assert_int_equal(job->training_documents, 4);
    assert_int_equal(job->eval_documents, 3);
    assert_int_equal(job->total_steps, 2);
    for (int64_t n = 0; n < 3; n++) {
        int64_t index;
        assert_ptr_equal(tr_job_eval_document(job, n, &index), job->data);
        seen[index] += 10;
    }
    while (job->state == TR_JOB_RUNNING) {
        for (int64_t i = 0; i < job->batch_count; i++)
            seen[job->batch[i]]++;
        job_step(job, 1.0);
    }
    int trained = 0, held = 0;
    for (int d = 0; d < 7; d++) {
        trained += seen[d] == 1;
        held += seen[d] == 10;
    }
    assert_int_equal(trained, 4);
    assert_int_equal(held, 3);
    tr_job_close(job);
    fixture_ctx_end(ctx);
}

/* Every so many steps and after the last one; its own dataset, all of it. */
static void test_evaluation_due(void **state)
{
    base_ctx_t *ctx = make();
    base_config_adapter_t c = train_config("a", DATA, 7, 2, 1e-3);
    char eval[] = EVAL;
    int64_t index;

    (void)state;
    c.eval = eval;
    c.eval_every_steps = 3;
    tr_job_t *job = job_open(ctx, &c);
    assert_int_equal(job->training_documents, 7);
    assert_int_equal(job->eval_documents, 2);
    assert_int_equal(tr_job_max_rows(job), 50);
    assert_ptr_equal(tr_job_eval_document(job, 1, &index), job->eval);
    assert_int_equal(index, 1);
    for (int64_t s = 1; s <= 7; s++) {
        job_step(job, 1.0);
        assert_int_equal(tr_job_eval_due(job), s == 3 || s == 6 || s == 7);
    }
    tr_job_close(job);
    c.eval = NULL;
    job = job_open(ctx, &c);
    job_step(job, 1.0);
    assert_int_equal(tr_job_eval_due(job), 0); /* there is nothing to evaluate on */
    tr_job_close(job);
    fixture_ctx_end(ctx);
}

/* Two evaluations in a row that are no better, equal ones among them, end the job. */
static void test_early_stopping(void **state)
{
    static const double losses[] = {3.0, 2.5, 2.7, 2.0, 2.0, 2.1};
    static const int better[] = {1, 1, 0, 1, 0, 0};
    base_ctx_t *ctx = make();
    base_config_adapter_t c = train_config("a", DATA, 20, 2, 1e-3);

    (void)state;
    c.eval_documents = 2;
    c.early_stopping_patience = 2;
    tr_job_t *job = job_open(ctx, &c);
    for (int e = 0; e < 6; e++) {
        assert_int_equal(job->state, TR_JOB_RUNNING);
        job_step(job, 1.0);
        assert_int_equal(tr_job_evaluated(job, losses[e]), better[e]);
    }
    assert_int_equal(job->state, TR_JOB_STOPPED);
    assert_true(job->best_eval == 2.0 && job->last_eval == 2.1);
    tr_job_close(job);
    /* Patience 0: never. The evaluation after the last step leaves it done. */
    c.early_stopping_patience = 0;
    c.steps = 6;
    job = job_open(ctx, &c);
    for (int e = 0; e < 6; e++) {
        job_step(job, 1.0);
        (void)tr_job_evaluated(job, 1.0 + e);
    }
    assert_int_equal(job->state, TR_JOB_DONE);
    tr_job_close(job);
    fixture_ctx_end(ctx);
}

static void test_quarantine(void **state)
{
    base_ctx_t *ctx = make();
    base_config_adapter_t c = train_config("a", DATA, 20, 2, 1e-3);

    (void)state;
    c.eval_documents = 2;
    tr_job_t *job = job_open(ctx, &c);
    job_step(job, 2.0);
    while (tr_job_next(job) >= 0)
        tr_job_take(job);
    tr_job_stepped(job, &(tr_step_result_t){.loss = (double)NAN, .nonfinite = 3});
    assert_int_equal(job->state, TR_JOB_QUARANTINED);
    assert_string_equal(tr_job_state_word(job->state), "not finite");
    assert_int_equal(job->step, 1);
    assert_true(job->last_loss == 2.0);
    assert_int_equal(tr_job_eval_due(job), 0);
    tr_job_close(job);
    fixture_ctx_end(ctx);
}

/* Faults of both datasets in one pass; a file that is not there is an error at once. */
static void test_faults(void **state)
{
    base_ctx_t *ctx = make();
    const base_config_adapter_t c = train_config("a", DATA, 20, 2, 1e-3);
    base_error_list_t errors;
    tr_job_t *job = NULL;

    (void)state;
    base_error_list_init(&errors, ctx);
    assert_int_equal(
        tr_job_open(ctx, &c, "a", DATA, EVAL, TRAIN_CASE_SHA, JOB_VOCAB + 1, &errors, &job),
        BASE_OK);
    assert_null(job);
    assert_int_equal(errors.count, 2);
    for (size_t i = 0; i < errors.count; i++)
        assert_string_equal(base_message_id(errors.items[i].message), "DATA-13");
    assert_int_equal(
        tr_job_open(ctx, &c, "a", "no_such.h5", NULL, TRAIN_CASE_SHA, JOB_VOCAB, &errors, &job),
        BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-01", "no_such.h5");
    assert_null(job);
    base_error_list_deinit(&errors);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_epochs),         cmocka_unit_test(test_steps),
        cmocka_unit_test(test_step_options),   cmocka_unit_test(test_held_out),
        cmocka_unit_test(test_evaluation_due), cmocka_unit_test(test_early_stopping),
        cmocka_unit_test(test_quarantine),     cmocka_unit_test(test_faults),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
