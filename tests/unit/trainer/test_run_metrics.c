#include "tests/unit/trainer/run_fixture.h"

#include "trainer/run/metrics.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static const tr_metrics_step_t STEP = {.adapter = "legal",
                                       .step = 12,
                                       .total_steps = 500,
                                       .epoch = 0.25,
                                       .loss = 1.5,
                                       .grad_norm = 0.5,
                                       .learning_rate = 1e-4,
                                       .tokens = 48211,
                                       .supervised_tokens = 31990,
                                       .microbatch = 37,
                                       .step_time_s = 0.75,
                                       .part_s = {[BASE_PART_NONE] = 0.125,
                                                  [BASE_PART_DENSE] = 0.5,
                                                  [BASE_PART_ATTENTION] = 0.0625,
                                                  [BASE_PART_EXCHANGE] = (double)NAN,
                                                  [BASE_PART_WAITING] = 0.03125},
                                       .elapsed_s = 9.5,
                                       .tokens_per_second = 5120.5,
                                       .pad_share = 0.125};
static const char STEP_LINE[] =
    "{\"adapter\":\"legal\",\"step\":12,\"total_steps\":500,\"epoch\":0.25,\"loss\":1.5,"
    "\"grad_norm\":0.5,\"learning_rate\":0.0001,\"tokens\":48211,\"supervised_tokens\":31990,"
    "\"microbatch\":37,\"step_time_s\":0.75,\"dense_s\":0.5,\"attention_s\":0.0625,"
    "\"exchange_s\":null,\"waiting_s\":0.03125,\"idle_s\":0.125,\"elapsed_s\":9.5,\"tokens_per_"
    "second\":5120.5,"
    "\"pad_share\":0.125}\n";

static void records(void **state)
{
    run_place_t *p = *state;
    tr_metrics_t *metrics = NULL;
    const tr_metrics_eval_t eval = {.adapter = "legal",
                                    .step = 50,
                                    .epoch = 1,
                                    .eval_loss = 0,
                                    .eval_documents = 200,
                                    .eval_supervised_tokens = 81022,
                                    .eval_time_s = 1.5,
                                    .elapsed_s = 44};
    tr_metrics_step_t diverged = STEP;
    char want[2048];
    int64_t calls;

    diverged.loss = (double)NAN;
    assert_int_equal(tr_metrics_open(p->ctx, "m.jsonl", &metrics), BASE_OK);
    calls = base_memory_calls(base_ctx_memory(p->ctx));
    assert_int_equal(tr_metrics_step(metrics, &STEP), BASE_OK);
    run_expect_text("m.jsonl", STEP_LINE); /* there before the next one, without a flush */
    assert_int_equal(tr_metrics_eval(metrics, &eval), BASE_OK);
    assert_int_equal(base_memory_calls(base_ctx_memory(p->ctx)), calls);
    assert_int_equal(tr_metrics_close(metrics), BASE_OK);
    (void)snprintf(want, sizeof want,
                   "%s{\"adapter\":\"legal\",\"step\":50,\"epoch\":1,\"eval_loss\":0,"
                   "\"eval_perplexity\":1,\"eval_documents\":200,\"eval_supervised_tokens\":81022,"
                   "\"eval_time_s\":1.5,\"elapsed_s\":44}\n",
                   STEP_LINE);
    run_expect_text("m.jsonl", want);

    assert_int_equal(tr_metrics_open(p->ctx, "m.jsonl", &metrics), BASE_OK);
    assert_int_equal(tr_metrics_step(metrics, &diverged), BASE_OK);
    assert_int_equal(tr_metrics_close(metrics), BASE_OK);
    run_expect_piece("m.jsonl", "\"eval_perplexity\":1,"); /* what was there stays */
    run_expect_piece("m.jsonl", "\"loss\":null,");
    assert_int_equal(tr_metrics_close(NULL), BASE_OK);
}

/* What a host that lost its power may leave. */
static void cut_record_goes(void **state)
{
    static const struct {
        const char *before;
        const char *after;
    } cases[] = {{"", ""},
                 {"{\"a\":1}\n", "{\"a\":1}\n"},
                 {"{\"a\":1}\n{\"b\":", "{\"a\":1}\n"},
                 {"{\"b", ""}};
    run_place_t *p = *state;
    tr_metrics_t *metrics = NULL;
    FILE *file;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(
            base_file_write(p->ctx, "m.jsonl", cases[i].before, strlen(cases[i].before)), BASE_OK);
        assert_int_equal(tr_metrics_open(p->ctx, "m.jsonl", &metrics), BASE_OK);
        assert_int_equal(tr_metrics_close(metrics), BASE_OK);
        run_expect_text("m.jsonl", cases[i].after);
    }
    /* The last line feed is farther from the end than one block of the search. */
    file = fopen("m.jsonl", "w");
    assert_non_null(file);
    (void)fprintf(file, "{}\n%2000d", 1);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(tr_metrics_open(p->ctx, "m.jsonl", &metrics), BASE_OK);
    assert_int_equal(tr_metrics_close(metrics), BASE_OK);
    run_expect_text("m.jsonl", "{}\n");
}

static void full_disk(void **state)
{
    run_place_t *p = *state;
    tr_metrics_t *metrics = NULL;
    int64_t bytes = 0;

    assert_int_equal(tr_metrics_open(p->ctx, "/dev/full", &metrics), BASE_OK);
    /* Records wait until memory has no room for them either, and are an error in the end. */
    for (size_t i = 0; i < TR_METRICS_KEPT / strlen(STEP_LINE); i++)
        assert_int_equal(tr_metrics_step(metrics, &STEP), BASE_OK);
    assert_int_equal(tr_metrics_step(metrics, &STEP), BASE_ERR_SPACE);
    fixture_expect_error(p->ctx, BASE_ERR_SPACE, "IO-02",
                         "/dev/full: cannot write: No space left on device");
    assert_int_equal(tr_metrics_sync(metrics, &bytes), BASE_ERR_SPACE);
    base_ctx_clear_error(p->ctx);
    assert_int_equal(tr_metrics_close(metrics), BASE_ERR_SPACE);
    fixture_expect_error(p->ctx, BASE_ERR_SPACE, "IO-02", "/dev/full: cannot write");

    assert_int_equal(tr_metrics_open(p->ctx, "no/such/m.jsonl", &metrics), BASE_ERR_IO);
    fixture_expect_error(p->ctx, BASE_ERR_IO, "IO-02",
                         "no/such/m.jsonl: cannot open: No such file");
}

/* A disk that has room for a part of the line: a limit on the size of files does the same. The part is taken away
 * again, so that the file holds whole records only; it follows, with those behind it, when there is room. */
static void room_for_a_part(void **state)
{
    run_place_t *p = *state;
    const struct rlimit limit = {sizeof STEP_LINE + 20, RLIM_INFINITY};
    struct rlimit before;
    tr_metrics_t *metrics = NULL;
    tr_metrics_step_t later = STEP;
    int64_t bytes = 0;
    char *text;

    later.step = 13;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    assert_int_equal(tr_metrics_open(p->ctx, "m.jsonl", &metrics), BASE_OK);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tr_metrics_step(metrics, &STEP), BASE_OK);
    assert_int_equal(tr_metrics_sync(metrics, &bytes), BASE_ERR_SPACE);
    fixture_expect_error(p->ctx, BASE_ERR_SPACE, "IO-02", "m.jsonl: cannot write: only 21 of the");
    base_ctx_clear_error(p->ctx);
    run_expect_text("m.jsonl", STEP_LINE);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(tr_metrics_step(metrics, &later), BASE_OK);
    assert_int_equal(tr_metrics_close(metrics), BASE_OK);
    text = run_text("m.jsonl");
    assert_int_equal(strlen(text), 4 * strlen(STEP_LINE));
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal(text + i * strlen(STEP_LINE), STEP_LINE, strlen(STEP_LINE));
    assert_non_null(strstr(text, "\"step\":13"));
    free(text);
}

/* Killed with SIGKILL while it writes: every line that is there is whole. */
static void killed(void **state)
{
    run_place_t *p = *state;
    const pid_t child = fork();
    int status = 0;
    char *text;

    assert_true(child >= 0);
    if (child == 0) {
        tr_metrics_t *metrics = NULL;

        if (tr_metrics_open(p->ctx, "m.jsonl", &metrics) < 0) _exit(1);
        for (int i = 0; i < 50; i++)
            if (tr_metrics_step(metrics, &STEP) < 0) _exit(1);
        (void)raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    text = run_text("m.jsonl");
    assert_int_equal(strlen(text), 50 * strlen(STEP_LINE));
    for (size_t i = 0; i < 50; i++)
        assert_memory_equal(text + i * strlen(STEP_LINE), STEP_LINE, strlen(STEP_LINE));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(records, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(cut_record_goes, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(full_disk, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(room_for_a_part, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(killed, run_setup, run_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
