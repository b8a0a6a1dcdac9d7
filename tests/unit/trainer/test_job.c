/* A job's host state: steps, evaluations, early stopping, quarantine. Which documents it gives when is
 * test_horizon.c's. */
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

/* 7 documents by 3 are 3 steps an epoch. The verdict comes with the last step, the state later. */
static void test_steps(void **state)
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
        assert_int_equal(job->verdict, TR_JOB_RUNNING);
        job_step(job, 5.0 - (double)s);
        assert_int_equal(job->step, s + 1);
        assert_true(job->last_loss == 5.0 - (double)s && job->first_loss == 5.0);
    }
    assert_int_equal(job->verdict, TR_JOB_DONE);
    assert_int_equal(job->state, TR_JOB_RUNNING);
    assert_int_equal(job->end_at, -1);
    assert_string_equal(tr_job_state_word(TR_JOB_DONE), "done");
    assert_int_equal(job->documents, 12);
    assert_int_equal(job->tokens, 120);
    assert_int_equal(job->supervised_tokens, 108);
    assert_true(tr_job_epoch(job) == 12.0 / 7.0);
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

/* Held-out documents are evaluated on, each once. */
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
    int held = 0;
    for (int d = 0; d < 7; d++)
        held += seen[d] == 10;
    assert_int_equal(held, 3);
    tr_job_close(job);
    fixture_ctx_end(ctx);
}

/* Its own dataset, all of it; the job is done with the evaluation after its last step. */
static void test_evaluation_dataset(void **state)
{
    base_ctx_t *ctx = make();
    base_config_adapter_t c = train_config("a", DATA, 2, 2, 1e-3);
    char eval[] = EVAL;
    int64_t index;

    (void)state;
    c.eval = eval;
    tr_job_t *job = job_open(ctx, &c);
    assert_int_equal(job->training_documents, 7);
    assert_int_equal(job->eval_documents, 2);
    assert_int_equal(tr_job_max_rows(job), 50);
    assert_ptr_equal(tr_job_eval_document(job, 1, &index), job->eval);
    assert_int_equal(index, 1);
    for (int64_t s = 1; s <= 2; s++) {
        job_step(job, 1.0);
        assert_int_equal(job->verdict, TR_JOB_RUNNING);
        (void)tr_job_evaluated(job, 1.0);
    }
    assert_int_equal(job->verdict, TR_JOB_DONE);
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
        assert_int_equal(job->verdict, TR_JOB_RUNNING);
        job_step(job, 1.0);
        assert_int_equal(tr_job_evaluated(job, losses[e]), better[e]);
    }
    assert_int_equal(job->verdict, TR_JOB_STOPPED);
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
    assert_int_equal(job->verdict, TR_JOB_DONE);
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
    for (int i = 0; i < 2; i++) /* one more than is known to be lost */
        tr_job_step_given(job);
    assert_int_equal(job->step, 3);
    tr_job_stepped(job, &(tr_step_result_t){.loss = (double)NAN, .nonfinite = 3}, 2, 20, 18);
    assert_int_equal(job->verdict, TR_JOB_QUARANTINED);
    assert_string_equal(tr_job_state_word(job->verdict), "not finite");
    assert_int_equal(job->step, 1);
    assert_true(job->last_loss == 2.0);
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
        cmocka_unit_test(test_steps),          cmocka_unit_test(test_step_options),
        cmocka_unit_test(test_held_out),       cmocka_unit_test(test_evaluation_dataset),
        cmocka_unit_test(test_early_stopping), cmocka_unit_test(test_quarantine),
        cmocka_unit_test(test_faults),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
