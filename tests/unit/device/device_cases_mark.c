#include "tests/unit/device/device_cases.h"

#include "base/clock.h"
#include "base/device/stream_mark.h"

#define HOLD_NS INT64_C(5000000)

static const base_trace_note_t dense = {.part = BASE_PART_DENSE};
static const base_trace_note_t attention = {.part = BASE_PART_ATTENTION};

static base_status_t sleep_work(void *args)
{
    (void)args;
    base_clock_sleep_ns(HOLD_NS);
    return BASE_OK;
}

/* A wait as a transport's: half of it for a rank, half for data. */
static base_status_t wait_work(void *args)
{
    base_stream_t *const *s = args;
    const int64_t from_ns = base_clock_ns();

    base_clock_sleep_ns(HOLD_NS);
    const int64_t ready_ns = base_clock_ns();
    base_clock_sleep_ns(HOLD_NS);
    base_stream_waited(*s, &dense, from_ns, ready_ns);
    return BASE_OK;
}

/* Time is counted when the stream works, whenever it was given; a span within a span has its own. */
static void marks_are_counted_where_the_stream_works(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_meter_t meter = {{0}, 0, 0, {BASE_PART_NONE}};
    base_counter_t *gate;
    int64_t ns[BASE_NUM_PARTS];

    OK(base_counter_create(env->dev, &gate));
    base_stream_measure(s, &meter, 3);
    assert_true(base_stream_measured(s));
    OK(base_stream_wait_counter(s, gate, 1));
    OK(base_stream_begin(s, "outer", &dense));
    OK(base_stream_begin(s, "inner", &attention));
    OK(base_stream_submit(s, sleep_work, NULL, 0, NULL, 0));
    OK(base_stream_end(s));
    OK(base_stream_submit(s, wait_work, &s, sizeof s, NULL, 0));
    OK(base_stream_end(s));
    base_clock_sleep_ns(HOLD_NS);
    base_meter_read(&meter, ns); /* it has not come there */
    for (int p = 0; p < BASE_NUM_PARTS; p++)
        assert_int_equal(ns[p], 0);
    const int64_t begin_ns = base_clock_ns();
    base_counter_raise(gate, 1);
    OK(base_stream_sync(s));
    const int64_t whole_ns = base_clock_ns() - begin_ns;
    base_meter_read(&meter, ns);
    assert_true(ns[BASE_PART_ATTENTION] >= HOLD_NS);
    assert_true(ns[BASE_PART_WAITING] >= HOLD_NS);
    assert_true(ns[BASE_PART_EXCHANGE] >= HOLD_NS);
    assert_true(ns[BASE_PART_DENSE] + ns[BASE_PART_ATTENTION] + ns[BASE_PART_WAITING] +
                    ns[BASE_PART_EXCHANGE] <=
                whole_ns);
    base_counter_destroy(gate);
    base_stream_destroy(s);
}

/* The same on every device, with work that every device has; many more marks than a GPU keeps. */
static void marks_of_fills_are_counted(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_buffer_t *buf = env_buffer(env, 4096);
    const base_range_t all = range_of(buf, 0, 4096, 1, 4096);
    base_meter_t meter = {{0}, 0, 0, {BASE_PART_NONE}};
    base_counter_t *gate;
    int64_t ns[BASE_NUM_PARTS];

    OK(base_counter_create(env->dev, &gate));
    base_stream_measure(s, &meter, 3);
    assert_true(base_stream_measured(s));
    OK(base_stream_wait_counter(s, gate, 1));
    OK(base_stream_begin(s, "span", &dense));
    OK(base_fill(s, &all, 1));
    OK(base_stream_end(s));
    base_clock_sleep_ns(HOLD_NS);
    const int64_t begin_ns = base_clock_ns(), waits = base_device_waits(env->dev);
    base_counter_raise(gate, 1);
    OK(base_stream_sync(s));
    assert_int_equal(base_device_waits(env->dev), waits + 1);
    const int64_t whole_ns = base_clock_ns() - begin_ns;
    base_meter_read(&meter, ns);
    assert_true(ns[BASE_PART_DENSE] > 0 && ns[BASE_PART_DENSE] <= whole_ns + HOLD_NS / 10);
    for (int i = 0; i < (env->kind == BASE_DEVICE_CUDA ? 2500 : 20); i++) {
        OK(base_stream_begin(s, "span", &attention));
        OK(base_stream_end(s));
    }
    OK(base_stream_sync(s));
    base_meter_read(&meter, ns);
    assert_true(ns[BASE_PART_ATTENTION] > 0);
    base_counter_destroy(gate);
    base_stream_destroy(s);
    base_buffer_free(buf);
}

/* With a trace: the spans, the two parts of the wait and the ends of an arrow. */
static void marks_are_traced(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_COMPUTE);
    base_meter_t meter = {{0}, 0, 0, {BASE_PART_NONE}};
    base_trace_t *trace = NULL;

    OK(base_trace_create(env->ctx, 100, &trace));
    base_stream_measure(s, &meter, 3);
    OK(base_stream_begin(s, "before", &dense));
    OK(base_stream_flow_start(s, "arrow", 1));
    OK(base_stream_end(s));
    OK(base_stream_sync(s));
    assert_int_equal(base_trace_recorded(trace), 0); /* the rank has none yet */
    base_ctx_set_trace(env->ctx, trace);
    OK(base_stream_begin(s, "span", &dense));
    OK(base_stream_submit(s, wait_work, &s, sizeof s, NULL, 0));
    OK(base_stream_flow_start(s, "arrow", 1));
    OK(base_stream_flow_finish(s, "arrow", 1));
    OK(base_stream_end(s));
    OK(base_stream_sync(s));
    base_ctx_set_trace(env->ctx, NULL);
    assert_int_equal(base_trace_recorded(trace), 6);
    base_trace_destroy(trace);
    base_stream_destroy(s);
}

/* Marks of a stream that nobody measures are nothing, on every device. */
static void marks_of_other_streams_are_nothing(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_COMPUTE);

    assert_false(base_stream_measured(s));
    OK(base_stream_begin(s, "span", &dense));
    OK(base_stream_end(s));
    OK(base_stream_end(s));
    base_stream_waited(s, &dense, 0, 0);
    OK(base_stream_sync(s));
    base_stream_destroy(s);
}

const device_case_t device_cases_mark[] = {
    {"marks are counted where the stream works", ON_HOST, marks_are_counted_where_the_stream_works},
    {"marks of fills are counted", ON_ALL, marks_of_fills_are_counted},
    {"marks are traced", ON_HOST, marks_are_traced},
    {"marks of other streams are nothing", ON_ALL, marks_of_other_streams_are_nothing},
    {NULL, 0, NULL},
};
