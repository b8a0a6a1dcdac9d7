/* Linked with -Wl,--wrap=base_clock_ns, so that a second passes when the test says so, and with
 * --wrap=calloc. */
#include "tests/support/ctx_fixture.h"

#include "base/clock.h"
#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int64_t now_ns = 1000;
static int fail_in;

int64_t __wrap_base_clock_ns(void);
void *__wrap_calloc(size_t count, size_t bytes);
void *__real_calloc(size_t count, size_t bytes);

int64_t __wrap_base_clock_ns(void)
{
    return now_ns;
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    if (fail_in > 0 && --fail_in == 0) return NULL;
    return __real_calloc(count, bytes);
}

#define PATH "test-log.txt"

typedef struct screen {
    base_ctx_t *ctx;
    base_log_t *log;
    char text[1 << 16];
} screen_t;

static void show(void *user, base_log_level_t level, const char *text)
{
    screen_t *s = user;

    (void)level;
    assert_true(strlen(s->text) + strlen(text) < sizeof s->text);
    (void)snprintf(s->text + strlen(s->text), sizeof s->text - strlen(s->text), "%s", text);
}

static void expect_screen(screen_t *s, const char *want)
{
    assert_string_equal(s->text, want);
    s->text[0] = '\0';
}

static int setup(void **state)
{
    screen_t *s = calloc(1, sizeof *s);

    assert_non_null(s);
    s->ctx = fixture_ctx();
    assert_int_equal(base_log_create(BASE_LOG_INFO, &s->log), BASE_OK);
    base_log_set_terminal(s->log, show, s, 0);
    (void)unlink(PATH);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    screen_t *s = *state;

    base_log_destroy(s->log);
    fixture_ctx_end(s->ctx);
    (void)unlink(PATH);
    free(s);
    return 0;
}

/* Line `n` of the file after its time, or "" */
static void file_line(int n, char *line, size_t room)
{
    FILE *f = fopen(PATH, "r");

    assert_non_null(f);
    for (int i = 0; i <= n; i++) {
        if (fgets(line, (int)room, f) == NULL) {
            line[0] = '\0';
            break;
        }
    }
    (void)fclose(f);
    line[strcspn(line, "\n")] = '\0';
    if (line[0] != '\0') {
        assert_int_equal(line[23], 'Z');
        memmove(line, line + 25, strlen(line + 25) + 1);
    }
}

static void info_once_a_second(void **state)
{
    screen_t *s = *state;
    char line[256];

    assert_int_equal(base_log_open_file(s->log, s->ctx, PATH), BASE_OK);
    base_log_info(s->log, "one %d", 1);
    base_log_info(s->log, "two");
    now_ns += 999999999;
    base_log_info(s->log, "three");
    now_ns += 1;
    base_log_info(s->log, "four");
    now_ns += 1000000000;
    base_log_info(s->log, "five");
    expect_screen(s, "one 1\nfour (and 2 more)\nfive\n");
    file_line(0, line, sizeof line);
    assert_string_equal(line, "info one 1");
    file_line(4, line, sizeof line);
    assert_string_equal(line, "info five");
    file_line(5, line, sizeof line);
    assert_string_equal(line, "");
}

static void a_warning_once_then_counted(void **state)
{
    screen_t *s = *state;
    char line[256];

    assert_int_equal(base_log_open_file(s->log, s->ctx, PATH), BASE_OK);
    for (int i = 0; i < 3; i++)
        base_log_warn(s->log, "pad-rows", "microbatch %d: pad rows", i);
    base_log_warn(s->log, "short:legal", "legal: short");
    expect_screen(s, "cadre: warning: microbatch 0: pad rows\ncadre: warning: legal: short\n");
    file_line(2, line, sizeof line);
    assert_string_equal(line, "");
    assert_int_equal(base_log_warnings(s->log, "pad-rows"), 3);
    assert_int_equal(base_log_warnings(s->log, "unknown"), 0);
    base_log_summary(s->log);
    expect_screen(s, "cadre: warning: microbatch 0: pad rows (3 times)\n"
                     "cadre: warning: legal: short\n");
    assert_int_equal(base_log_warnings(s->log, "pad-rows"), 0);
    base_log_warn(s->log, "pad-rows", "again");
    base_log_summary(s->log);
    expect_screen(s, "cadre: warning: microbatch 0: pad rows\n");
}

static void more_kinds_than_room(void **state)
{
    screen_t *s = *state;

    for (int i = 0; i < BASE_LOG_WARNING_KEYS; i++) {
        char key[16];

        (void)snprintf(key, sizeof key, "key-%d", i);
        base_log_warn(s->log, key, "x");
    }
    s->text[0] = '\0';
    base_log_warn(s->log, "one more", "beyond");
    base_log_warn(s->log, "and one", "beyond too");
    expect_screen(s, "cadre: warning: beyond\n");
    base_log_summary(s->log);
    assert_non_null(strstr(s->text, "further warnings of other kinds (2 times)"));
}

static void levels(void **state)
{
    screen_t *s = *state;
    base_log_t *log = NULL;
    base_log_level_t level = BASE_LOG_INFO;
    base_error_t error = {
        .status = BASE_ERR_IO, .message = BASE_MSG_IO_01, .file = "a.c", .line = 1};

    base_log_debug(s->log, "hidden");
    expect_screen(s, "");
    assert_int_equal(base_log_create(BASE_LOG_ERROR, &log), BASE_OK);
    base_log_set_terminal(log, show, s, 0);
    base_log_info(log, "hidden");
    base_log_warn(log, "k", "hidden");
    assert_int_equal(base_log_warnings(log, "k"), 0);
    expect_screen(s, "");
    base_log_error(log, &error);
    assert_non_null(strstr(s->text, "error IO-01"));
    base_log_destroy(log);

    s->text[0] = '\0';
    assert_int_equal(base_log_create(BASE_LOG_DEBUG, &log), BASE_OK);
    base_log_set_terminal(log, show, s, 0);
    base_log_debug(log, "seen");
    base_log_debug(log, "seen at once");
    expect_screen(s, "seen\nseen at once\n");
    base_log_destroy(log);

    assert_true(base_log_level_parse("debug", &level));
    assert_int_equal(level, BASE_LOG_DEBUG);
    assert_false(base_log_level_parse("verbose", &level));
    assert_null(base_log_level_name((base_log_level_t)9));
    assert_int_equal(base_log_create((base_log_level_t)9, &log), BASE_ERR_ARG);
}

static void debug_level_files_every_warning(void **state)
{
    screen_t *s = *state;
    base_log_t *log = NULL;
    char line[256];

    assert_int_equal(base_log_create(BASE_LOG_DEBUG, &log), BASE_OK);
    assert_int_equal(base_log_open_file(log, s->ctx, PATH), BASE_OK);
    base_log_warn(log, "k", "first");
    base_log_warn(log, "k", "second");
    base_log_destroy(log);
    file_line(1, line, sizeof line);
    assert_string_equal(line, "warning second");
}

static void error_format(void **state)
{
    base_error_t error = {.status = BASE_ERR_CONFIG,
                          .message = BASE_MSG_CONF_03,
                          .text = "run.yaml:3:1: unknown key \"lora_r\""};
    const char *want = "cadre: error CONF-03: run.yaml:3:1: unknown key \"lora_r\"\n"
                       "  use the suggested key, or remove the line\n";
    char text[512];

    (void)state;
    assert_int_equal(base_error_format(&error, text, sizeof text), strlen(want));
    assert_string_equal(text, want);
    assert_int_equal(base_error_format(&error, text, 8), 7);
    assert_string_equal(text, "cadre: ");
    assert_int_equal(base_error_format(&error, text, 1), 0);
    assert_string_equal(text, "");
    assert_int_equal(base_error_format(&error, text, 0), 0);
    error.message = BASE_MSG_COUNT;
    (void)base_error_format(&error, text, sizeof text);
    assert_non_null(strstr(text, "error ?: run.yaml"));
    assert_non_null(strstr(text, "invalid configuration"));
}

static void errors_reach_file_and_terminal(void **state)
{
    screen_t *s = *state;
    base_error_t error;
    char line[512];

    assert_int_equal(base_log_open_file(s->log, s->ctx, PATH), BASE_OK);
    (void)BASE_FAIL(s->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "rank 0: weights: none");
    assert_true(base_ctx_error(s->ctx, &error));
    base_log_error(s->log, &error);
    expect_screen(s, "cadre: error MEM-01: rank 0: weights: none\n  `cadre plan` says what fits; "
                     "lower batch.tokens_per_trainer\n");
    file_line(0, line, sizeof line);
    assert_string_equal(line, "error MEM-01: rank 0: weights: none");
    file_line(1, line, sizeof line);
    assert_non_null(strstr(line, "(BASE_ERR_NOMEM, rank 0, "));
    base_ctx_clear_error(s->ctx);
}

static void no_escape_sequence_gets_through(void **state)
{
    screen_t *s = *state;

    base_log_warn(s->log, "k", "document \033[2J\r\n\x7f\xc3\xa4");
    expect_screen(s, "cadre: warning: document ?[2J???\xc3\xa4\n");
    (void)BASE_FAIL(s->ctx, BASE_ERR_FORMAT, BASE_MSG_INT_01, "a\033b");
    {
        base_error_t error;

        assert_true(base_ctx_error(s->ctx, &error));
        base_log_error(s->log, &error);
        assert_non_null(strstr(s->text, "error INT-01: a?b\n"));
    }
    base_ctx_clear_error(s->ctx);
}

static void colours(void **state)
{
    screen_t *s = *state;
    base_error_t error = {.status = BASE_ERR_IO, .message = BASE_MSG_IO_01, .text = "a: b"};

    base_log_set_terminal(s->log, show, s, 1);
    base_log_warn(s->log, "k", "w");
    base_log_error(s->log, &error);
    now_ns += 2000000000;
    base_log_info(s->log, "plain");
    expect_screen(s, "cadre: \033[1;33mwarning:\033[0m w\n"
                     "cadre: \033[1;31merror IO-01:\033[0m a: b\n"
                     "  check the path and its permissions\nplain\n");
}

static void colour_needs_a_terminal_that_wants_it(void **state)
{
    const int file = open("/dev/null", O_WRONLY);
    const int terminal = posix_openpt(O_RDWR | O_NOCTTY);

    (void)state;
    assert_int_equal(setenv("TERM", "xterm", 1), 0);
    assert_int_equal(unsetenv("NO_COLOR"), 0);
    assert_false(base_log_wants_colour(file));
    if (terminal >= 0 && isatty(terminal)) {
        assert_true(base_log_wants_colour(terminal));
        assert_int_equal(setenv("NO_COLOR", "1", 1), 0);
        assert_false(base_log_wants_colour(terminal));
        assert_int_equal(setenv("NO_COLOR", "", 1), 0); /* no-color.org: empty does not count */
        assert_true(base_log_wants_colour(terminal));
        assert_int_equal(setenv("TERM", "dumb", 1), 0);
        assert_false(base_log_wants_colour(terminal));
        (void)close(terminal);
    }
    (void)close(file);
}

static void file_failures(void **state)
{
    screen_t *s = *state;

    assert_int_equal(base_log_open_file(s->log, s->ctx, "no/such/log"), BASE_ERR_IO);
    fixture_expect_error(s->ctx, BASE_ERR_IO, "IO-02", "no/such/log: cannot open the log: No such");
    assert_int_equal(base_log_open_file(s->log, s->ctx, "/dev/full"), BASE_OK);
    assert_int_equal(base_log_open_file(s->log, s->ctx, PATH), BASE_ERR_STATE);
    fixture_expect_error(s->ctx, BASE_ERR_STATE, "INT-01", "has a file already");
    assert_int_equal(base_log_file_line(s->log, s->ctx, "rank %d", 1), BASE_ERR_SPACE);
    fixture_expect_error(s->ctx, BASE_ERR_SPACE, "IO-02",
                         "/dev/full: cannot write to the log: No space left on device");
    now_ns += 2000000000;
    base_log_info(s->log, "lost");
    base_log_info(s->log, "lost");
    base_log_summary(s->log);
    expect_screen(s, "lost\n"
                     "cadre: warning: a line of the log file could not be written (2 times)\n");
}

static void null_log_and_no_terminal(void **state)
{
    screen_t *s = *state;
    base_error_t error = {.status = BASE_ERR_IO, .message = BASE_MSG_IO_01};

    base_log_info(NULL, "x");
    base_log_debug(NULL, "x");
    base_log_warn(NULL, "k", "x");
    base_log_error(NULL, &error);
    base_log_summary(NULL);
    assert_int_equal(base_log_file_line(NULL, s->ctx, "x"), BASE_OK);
    base_log_set_terminal(NULL, NULL, NULL, 0);
    base_log_destroy(NULL);
    assert_int_equal(base_log_open_file(NULL, s->ctx, PATH), BASE_OK);
    assert_int_equal(base_log_warnings(NULL, "k"), 0);
    base_log_set_terminal(s->log, NULL, NULL, 0);
    base_log_info(s->log, "x");
    base_log_error(s->log, &error);
    expect_screen(s, "");
    base_log_to_stderr(NULL, BASE_LOG_DEBUG, "");
}

static void no_memory(void **state)
{
    base_log_t *log = NULL;

    (void)state;
    fail_in = 1;
    assert_int_equal(base_log_create(BASE_LOG_INFO, &log), BASE_ERR_NOMEM);
    assert_null(log);
    fail_in = 0;
}

static void *chatter(void *arg)
{
    for (int i = 0; i < 200; i++) {
        base_log_info(arg, "line of some length, the same always");
        base_log_warn(arg, "key", "warned");
    }
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
    screen_t *s = *state;
    pthread_t thread[4];
    char line[256];

    assert_int_equal(base_log_open_file(s->log, s->ctx, PATH), BASE_OK);
    base_log_warn(s->log, "key", "warned");
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, chatter, s->log), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(base_log_warnings(s->log, "key"), 801);
    for (int i = 1; i <= 800; i += 37) {
        file_line(i, line, sizeof line);
        assert_string_equal(line, "info line of some length, the same always");
    }
    file_line(801, line, sizeof line);
    assert_string_equal(line, "");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(info_once_a_second),
        TEST(a_warning_once_then_counted),
        TEST(more_kinds_than_room),
        TEST(levels),
        TEST(debug_level_files_every_warning),
        TEST(error_format),
        TEST(errors_reach_file_and_terminal),
        TEST(no_escape_sequence_gets_through),
        TEST(colours),
        TEST(colour_needs_a_terminal_that_wants_it),
        TEST(file_failures),
        TEST(null_log_and_no_terminal),
        TEST(no_memory),
        TEST(lines_of_threads_do_not_mix),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
