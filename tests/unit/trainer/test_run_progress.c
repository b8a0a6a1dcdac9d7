#include "tests/unit/trainer/run_fixture.h"

#include "trainer/run/progress.h"

#include <fcntl.h>

#define SECOND INT64_C(1000000000)

/* The test's own clock. */
static int64_t now_ns;
static int64_t test_now(void)
{
    return now_ns;
}

static const tr_progress_job_t JOBS[] = {
    {"headers", 0, 100}, {"licences", 0, 60}, {"python", 0, 40}};

/* What the call wrote since the last look; the stream starts afresh. */
static void expect_written(FILE *out, const char *want)
{
    char text[2048] = "";
    size_t bytes;

    assert_int_equal(fflush(out), 0);
    rewind(out);
    bytes = fread(text, 1, sizeof text - 1, out);
    text[bytes] = '\0';
    assert_string_equal(text, want);
    rewind(out);
    assert_int_equal(ftruncate(fileno(out), 0), 0);
}

static tr_progress_t *start(run_place_t *p, FILE **out_p, bool terminal, bool colour, int width)
{
    tr_progress_options_t options = {.terminal = terminal, .colour = colour, .width = width};
    tr_progress_t *progress = NULL;

    *out_p = tmpfile();
    assert_non_null(*out_p);
    options.out = *out_p;
    options.now = test_now;
    now_ns = 1000 * SECOND;
    assert_int_equal(tr_progress_create(p->ctx, &options, JOBS, 3, &progress), BASE_OK);
    return progress;
}

static void pipe_gets_lines(void **state)
{
    run_place_t *p = *state;
    FILE *out;
    tr_progress_t *progress = start(p, &out, false, false, 0);

    now_ns += SECOND;
    tr_progress_tokens(progress, 2000);
    expect_written(out, "  0 % | step 0/200 | 2.0k tokens/s\n");
    now_ns += SECOND / 2;
    tr_progress_step(progress, 0, 1, 2.34567);
    expect_written(out, ""); /* not before a second has passed */
    now_ns += SECOND / 2;
    tr_progress_step(progress, 1, 1, 1.5);
    expect_written(
        out, "  1 % | step 2/200 | 1.0k tokens/s | 3:18 left | headers 2.346, licences 1.500\n");
    /* The end of an adapter is never left out, and its remaining steps count no more. */
    tr_progress_job_end(progress, 1, "stopped early");
    expect_written(out, "licences: stopped early after step 1/60, loss 1.5000, 0:02\n");
    now_ns += 2 * SECOND;
    tr_progress_tokens(progress, 6000);
    expect_written(out, "  1 % | step 2/141 | 2.0k tokens/s | 4:38 left | headers 2.346\n");
    tr_progress_destroy(progress);
    expect_written(out, "");
    assert_int_equal(fclose(out), 0);
}

/* Over many calls: one line a second at most, and the rate is that of the last seconds. */
static void rate_of_the_last_seconds(void **state)
{
    run_place_t *p = *state;
    FILE *out;
    tr_progress_t *progress = start(p, &out, false, false, 0);
    char text[4096] = "";
    int lines = 0;

    for (int i = 1; i <= 200; i++) {
        now_ns += SECOND / 10;
        tr_progress_tokens(progress, i <= 100 ? 100 : 250000);
    }
    rewind(out);
    assert_true(fread(text, 1, sizeof text - 1, out) > 0);
    for (const char *c = text; *c != '\0'; c++)
        lines += *c == '\n';
    assert_in_range(lines, 19, 21);
    assert_non_null(strstr(text, "| 1.0k tokens/s\n"));
    assert_non_null(strstr(text, "| 2.50M tokens/s\n"));
    tr_progress_destroy(progress);
    assert_int_equal(fclose(out), 0);
}

/* A day into a pipe: seldom enough to be read, never more than 30 s apart. */
static void long_run_in_a_pipe(void **state)
{
    run_place_t *p = *state;
    FILE *out;
    tr_progress_t *progress = start(p, &out, false, false, 0);
    int lines = 0;
    int silent = 0;

    for (int i = 1; i <= 24 * 3600; i++) {
        now_ns += SECOND;
        tr_progress_tokens(progress, 1000);
        silent++;
        if (ftell(out) == 0) continue;
        assert_true(silent <= 30);
        silent = 0;
        lines++;
        rewind(out);
    }
    assert_in_range(lines, 24 * 120, 24 * 120 + 100);
    tr_progress_destroy(progress);
    assert_int_equal(fclose(out), 0);
}

static void terminal_is_redrawn(void **state)
{
    run_place_t *p = *state;
    FILE *out;
    tr_progress_t *progress = start(p, &out, true, false, 100);

    now_ns += SECOND;
    tr_progress_step(progress, 2, 20, 3.25);
    expect_written(out,
                   "\r[##------------------]  10 % | step 20/200 | 0 tokens/s | 0:09 left | python "
                   "3.250\033[K");
    now_ns += SECOND / 20;
    tr_progress_step(progress, 2, 30, 3.25);
    expect_written(out, ""); /* ten times a second at most */
    /* A line of the log: it takes the place of the bar, which is drawn again below. */
    tr_progress_log(progress, BASE_LOG_WARNING, "cadre: warning: x\n");
    expect_written(out,
                   "\r\033[Kcadre: warning: x\n\r[###-----------------]  15 % | step 30/200 | 0 "
                   "tokens/s | 0:05 left | python 3.250\033[K");
    tr_progress_job_end(progress, 2, NULL);
    expect_written(out,
                   "\r\033[Kpython: done after step 30/40, loss 3.2500, 0:01\n"
                   "\r[###-----------------]  15 % | step 30/190 | 0 tokens/s | 0:05 left\033[K");
    tr_progress_destroy(progress);
    expect_written(out, "\r\033[K");
    assert_int_equal(fclose(out), 0);
}

static void cut_to_the_width(void **state)
{
    run_place_t *p = *state;
    FILE *out;
    tr_progress_t *progress = start(p, &out, true, true, 40);

    now_ns += SECOND;
    tr_progress_step(progress, 0, 1, 2.5);
    /* 39 columns, no bar in so narrow a terminal; the colours take no columns. */
    expect_written(out, "\r\033[32m\033[0m  0 % | step 1/200 | 0 tokens/s | 3:...\033[K");
    tr_progress_destroy(progress);
    assert_int_equal(fclose(out), 0);

    progress = start(p, &out, true, true, 82);
    now_ns += SECOND;
    tr_progress_step(progress, 0, 10, 2.5);
    expect_written(out,
                   "\r\033[32m[#-------------------]\033[0m   5 % | step 10/200 | 0 tokens/s | "
                   "0:19 left | headers ...\033[K");
    tr_progress_destroy(progress);
    assert_int_equal(fclose(out), 0);
}

/* What a stream gets: no terminal here, so neither bar nor colours. */
static void options_of_a_file(void **state)
{
    FILE *out = tmpfile();
    tr_progress_options_t options;

    (void)state;
    assert_non_null(out);
    assert_int_equal(setenv("TERM", "xterm", 1), 0);
    tr_progress_for(out, test_now, &options);
    assert_false(options.terminal);
    assert_false(options.colour);
    assert_ptr_equal(options.out, out);
    assert_int_equal(options.width, 0);
    assert_int_equal(fclose(out), 0);
}

/* On a pseudo terminal: redrawn, and NO_COLOR takes the colours only. */
static void options_of_a_terminal(void **state)
{
    const int fd = posix_openpt(O_RDWR | O_NOCTTY);
    tr_progress_options_t options;
    const char *name;
    FILE *out;

    (void)state;
    if (fd < 0 || grantpt(fd) != 0 || unlockpt(fd) != 0) skip();
    name = ptsname(fd);
    out = name != NULL ? fopen(name, "r+") : NULL;
    if (out == NULL) skip();
    assert_int_equal(setenv("TERM", "xterm", 1), 0);
    assert_int_equal(unsetenv("NO_COLOR"), 0);
    tr_progress_for(out, test_now, &options);
    assert_true(options.terminal && options.colour);
    assert_int_equal(setenv("NO_COLOR", "1", 1), 0);
    tr_progress_for(out, test_now, &options);
    assert_true(options.terminal && !options.colour);
    assert_int_equal(setenv("TERM", "dumb", 1), 0);
    tr_progress_for(out, test_now, &options);
    assert_false(options.terminal);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(close(fd), 0);
}

static void without_memory(void **state)
{
    run_place_t *p = *state;
    const tr_progress_options_t options = {.out = stderr, .now = test_now};
    tr_progress_t *progress = NULL;

    for (int n = 1; n <= 5; n++) {
        base_memory_fail_at(base_ctx_memory(p->ctx), n);
        assert_int_equal(tr_progress_create(p->ctx, &options, JOBS, 3, &progress), BASE_ERR_NOMEM);
        fixture_expect_error(p->ctx, BASE_ERR_NOMEM, "MEM-01", "progress");
    }
    base_memory_fail_at(base_ctx_memory(p->ctx), 0);
    tr_progress_tokens(NULL, 1);
    tr_progress_step(NULL, 0, 1, 1);
    tr_progress_job_end(NULL, 0, NULL);
    tr_progress_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pipe_gets_lines, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(rate_of_the_last_seconds, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(long_run_in_a_pipe, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(terminal_is_redrawn, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(cut_to_the_width, run_setup, run_teardown),
        cmocka_unit_test(options_of_a_file),
        cmocka_unit_test(options_of_a_terminal),
        cmocka_unit_test_setup_teardown(without_memory, run_setup, run_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
