#include "tests/support/ctx_fixture.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/trace.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define PATH "test-trace.json"

static int count(const char *text, const char *piece)
{
    int n = 0;

    while ((text = strstr(text, piece)) != NULL) {
        text++;
        n++;
    }
    return n;
}

static char *written(base_ctx_t *ctx, base_trace_t *trace)
{
    char *text = NULL;
    size_t bytes;

    assert_int_equal(base_trace_write(trace, NULL, PATH), BASE_OK);
    assert_int_equal(base_file_read(ctx, PATH, 10000000, &text, &bytes), BASE_OK);
    return text;
}

static const char *const KEYS[BASE_TRACE_NOTES] = {"layer", "bytes"};

static void every_kind_of_event(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_trace_t *trace = NULL;
    char *text;

    (void)state;
    assert_int_equal(base_trace_create(ctx, 100, &trace), BASE_OK);
    base_ctx_set_trace(ctx, trace);
    assert_ptr_equal(base_ctx_trace(ctx), trace);
    base_trace_name_lane(trace, 1, "compute");
    base_trace_name_lane(trace, BASE_TRACE_LANES, "nowhere");
    base_trace_begin(trace, 1, "dense");
    base_trace_flow_start(trace, 1, "q", 42);
    base_trace_end(trace, 1);
    base_trace_instant(trace, 2, "save \"now\"");
    base_trace_flow_finish(trace, 2, "q", 42);
    base_trace_counter(trace, "rows", 7);
    base_trace_span(trace, 3, "kernel", 1000, 3500);
    const base_trace_note_t note = {
        .part = BASE_PART_ATTENTION, .keys = KEYS, .values = {5, INT64_MAX}};
    base_trace_record(trace, BASE_TRACE_SPAN, 3, "tasks", 4000, 1000, &note);
    assert_int_equal(base_trace_recorded(trace), 8);
    assert_int_equal(base_trace_dropped(trace), 0);
    const base_trace_clock_t clock = {.offset_ns = {1000000, 0}};
    base_trace_set_clock(trace, &clock);
    text = written(ctx, trace);
    assert_non_null(strstr(
        text, "{\"ph\":\"X\",\"pid\":0,\"tid\":3,\"ts\":1001,\"name\":\"kernel\",\"dur\":2.5}"));
    assert_non_null(strstr(text, "\"thread_name\",\"args\":{\"name\":\"compute\"}"));
    assert_non_null(strstr(text, "\"process_name\",\"args\":{\"name\":\"rank 0\"}"));
    assert_null(strstr(text, "nowhere"));
    assert_int_equal(count(text, "\"ph\":\"B\""), 1);
    assert_int_equal(count(text, "\"ph\":\"E\""), 1);
    assert_int_equal(count(text, "\"ph\":\"i\""), 1);
    assert_int_equal(count(text, "\"id\":42"), 2);
    assert_int_equal(count(text, "\"bp\":\"e\""), 1);
    assert_int_equal(count(text, "\"args\":{\"value\":7}"), 1);
    assert_non_null(strstr(text, "\"tasks\",\"dur\":1,\"cat\":\"attention\",\"args\":{\"layer\":5,"
                                 "\"bytes\":9223372036854775807}}"));
    assert_non_null(strstr(text, "save \\\"now\\\""));
    base_free(ctx, text);
    base_trace_destroy(trace);
    fixture_ctx_end(ctx);
}

static void a_full_trace_drops_and_counts(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_trace_t *trace = NULL;
    int64_t calls;
    char *text;

    (void)state;
    assert_int_equal(base_trace_create(ctx, 3, &trace), BASE_OK);
    calls = base_memory_calls(base_ctx_memory(ctx));
    for (int i = 0; i < 5; i++)
        base_trace_instant(trace, 0, "x");
    assert_int_equal(base_memory_calls(base_ctx_memory(ctx)), calls);
    assert_int_equal(base_trace_recorded(trace), 3);
    assert_int_equal(base_trace_dropped(trace), 2);
    text = written(ctx, trace);
    assert_non_null(strstr(text, "\"dropped\":2"));
    assert_int_equal(count(text, "\"ph\":\"i\""), 3);
    base_free(ctx, text);
    base_trace_destroy(trace);
    fixture_ctx_end(ctx);
}

/* Two clocks that drift apart: halfway the offset is half. */
static void the_clock_is_a_line(void **state)
{
    const base_trace_clock_t drift = {.here_ns = {1000, 3000}, .offset_ns = {-100, 100}};
    const base_trace_clock_t once = {.here_ns = {1000, 1000}, .offset_ns = {-100, 7}};
    const base_trace_clock_t none = {.error_ns = 0};

    (void)state;
    assert_int_equal(base_trace_clock_at(&drift, 1000), 900);
    assert_int_equal(base_trace_clock_at(&drift, 2000), 2000);
    assert_int_equal(base_trace_clock_at(&drift, 3000), 3100);
    assert_int_equal(base_trace_clock_at(&drift, 5000), 5300);
    assert_int_equal(base_trace_clock_at(&once, 5000), 4900);
    assert_int_equal(base_trace_clock_at(&none, 5000), 5000);
}

static void no_trace_is_legal(void **state)
{
    (void)state;
    base_trace_begin(NULL, 0, "x");
    base_trace_end(NULL, 0);
    base_trace_instant(NULL, 0, "x");
    base_trace_flow_start(NULL, 0, "x", 1);
    base_trace_flow_finish(NULL, 0, "x", 1);
    base_trace_counter(NULL, "x", 1);
    base_trace_span(NULL, 0, "x", 0, 1);
    base_trace_record(NULL, BASE_TRACE_INSTANT, 0, "x", 0, 0, NULL);
    base_trace_name_lane(NULL, 0, "x");
    base_trace_destroy(NULL);
}

static void failures(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_memory_t *memory = base_ctx_memory(ctx);
    base_trace_t *trace = NULL;
    base_status_t st = BASE_ERR_NOMEM;

    (void)state;
    assert_int_equal(base_trace_create(ctx, 0, &trace), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "room for 0 events");
    for (int n = 1; st == BASE_ERR_NOMEM; n++) {
        base_memory_fail_at(memory, n);
        st = base_trace_create(ctx, 10, &trace);
        if (st < 0) {
            fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "trace");
            assert_int_equal(base_memory_live_total(memory), 0);
        }
    }
    assert_int_equal(st, BASE_OK);
    base_memory_fail_at(memory, 0);
    assert_int_equal(base_trace_write(trace, NULL, "no/such/trace.json"), BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-02", "no/such/trace.json");
    base_trace_destroy(trace);
    fixture_ctx_end(ctx);
}

static void *record(void *arg)
{
    for (int i = 0; i < 1000; i++) {
        base_trace_begin(arg, 1, "work");
        base_trace_end(arg, 1);
    }
    return NULL;
}

/* Also written while others record. */
static void threads_lose_nothing(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_trace_t *trace = NULL;
    pthread_t thread[4];
    char *text;

    (void)state;
    assert_int_equal(base_trace_create(ctx, 8000, &trace), BASE_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, record, trace), 0);
    assert_int_equal(base_trace_write(trace, NULL, PATH), BASE_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(base_trace_recorded(trace), 8000);
    assert_int_equal(base_trace_dropped(trace), 0);
    text = written(ctx, trace);
    assert_int_equal(count(text, "\"ph\":\"B\""), 4000);
    assert_int_equal(count(text, "\"ph\":\"E\""), 4000);
    base_free(ctx, text);
    base_trace_destroy(trace);
    fixture_ctx_end(ctx);
    (void)unlink(PATH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_event),  cmocka_unit_test(a_full_trace_drops_and_counts),
        cmocka_unit_test(no_trace_is_legal),    cmocka_unit_test(failures),
        cmocka_unit_test(threads_lose_nothing), cmocka_unit_test(the_clock_is_a_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
