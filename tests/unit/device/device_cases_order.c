#include "tests/unit/device/device_cases.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdatomic.h>

#define SEEDS 20

/* Work of the CPU family: atomic, so that a missing edge is a wrong value and not a data race. */
typedef struct word_args {
    _Atomic uint64_t *from, *to; /* from NULL: stores value */
    uint64_t value;
} word_args_t;

static base_status_t word_work(void *args)
{
    const word_args_t *a = args;
    const uint64_t v =
        a->from == NULL ? a->value : atomic_load_explicit(a->from, memory_order_relaxed);
    atomic_store_explicit(a->to, v, memory_order_relaxed);
    return BASE_OK;
}

/* to = from, or value when from is nothing. */
static void give_word(base_stream_t *s, base_mem_t to, base_mem_t from, uint64_t value)
{
    const word_args_t args = {base_mem_address(from), base_mem_address(to), value};
    const base_operand_t ops[2] = {{{to, 8, 1, 0}, BASE_WRITE}, {{from, 8, 1, 0}, BASE_READ}};
    OK(base_stream_submit(s, word_work, &args, sizeof args, ops, from.buffer == NULL ? 1 : 2));
}

/* Rounds of "a writes x, b copies x", with or without the edge from a to b. Returns how many
 * copies were wrong. */
static int rounds_with_edge(device_env_t *env, bool edge)
{
    enum { ROUNDS = 16 };
    base_stream_t *a = env_stream(env, BASE_STREAM_COMPUTE),
                  *b = env_stream(env, BASE_STREAM_ASYNC);
    base_buffer_t *x = env_buffer(env, 8), *y = env_buffer(env, 8 * ROUNDS);
    base_event_t *made, *read;
    uint64_t got[ROUNDS];
    int wrong = 0;

    OK(base_event_create(env->dev, &made));
    OK(base_event_create(env->dev, &read));
    give_word(a, base_mem(x, 0), base_mem(NULL, 0), 0);
    for (uint64_t r = 0; r < ROUNDS; r++) {
        if (r > 0) OK(base_stream_wait_event(a, read));
        give_word(a, base_mem(x, 0), base_mem(NULL, 0), r + 1);
        OK(base_event_record(made, a));
        if (edge) OK(base_stream_wait_event(b, made));
        give_word(b, base_mem(y, (int64_t)r * 8), base_mem(x, 0), 0);
        OK(base_event_record(read, b));
    }
    OK(base_stream_sync(a));
    OK(base_download(b, got, base_mem(y, 0), sizeof got));
    OK(base_stream_sync(b));
    for (uint64_t r = 0; r < ROUNDS; r++)
        wrong += got[r] != r + 1;
    base_event_destroy(made);
    base_event_destroy(read);
    base_buffer_free(x);
    base_buffer_free(y);
    base_stream_destroy(a);
    base_stream_destroy(b);
    return wrong;
}

static void event_edge_holds(device_env_t *env)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        base_device_set_seed(env->dev, seed);
        assert_int_equal(rounds_with_edge(env, true), 0);
    }
}

/* The strict device has to find what the case above would miss: the same rounds without the
 * wait. */
static void missing_edge_is_found(device_env_t *env)
{
    int seeds_that_found_it = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        base_device_set_seed(env->dev, seed);
        seeds_that_found_it += rounds_with_edge(env, false) > 0;
    }
    print_message("  found by %d of %d seeds\n", seeds_that_found_it, SEEDS);
    assert_true(seeds_that_found_it >= SEEDS / 4);
}

/* The same through copies, which every device has: a fills x, b copies it, round after round. */
static void copies_in_order(device_env_t *env)
{
    enum { ROUNDS = 24, BYTES = 300000 };
    base_stream_t *a = env_stream(env, BASE_STREAM_ASYNC), *b = env_stream(env, BASE_STREAM_ASYNC);
    base_buffer_t *x = env_buffer(env, BYTES), *y = env_buffer(env, ROUNDS * 2);
    base_event_t *made, *read;
    unsigned char got[ROUNDS * 2];

    OK(base_event_create(env->dev, &made));
    OK(base_event_create(env->dev, &read));
    for (int64_t r = 0; r < ROUNDS; r++) {
        const base_range_t all = range_of(x, 0, BYTES, 1, 0);
        const base_range_t ends = range_of(x, 0, 1, 2, BYTES - 1), to = range_of(y, 2 * r, 1, 2, 1);
        if (r > 0) OK(base_stream_wait_event(a, read));
        OK(base_fill(a, &all, (uint8_t)(r + 1)));
        OK(base_event_record(made, a));
        OK(base_stream_wait_event(b, made));
        OK(base_copy(b, &to, &ends));
        OK(base_event_record(read, b));
    }
    OK(base_download(b, got, base_mem(y, 0), sizeof got));
    OK(base_stream_sync(b));
    OK(base_stream_sync(a));
    for (int r = 0; r < ROUNDS; r++)
        assert_true(got[2 * r] == r + 1 && got[2 * r + 1] == r + 1);
    base_event_destroy(made);
    base_event_destroy(read);
    base_buffer_free(x);
    base_buffer_free(y);
    base_stream_destroy(a);
    base_stream_destroy(b);
}

static void event_never_recorded(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_event_t *e;
    OK(base_event_create(env->dev, &e));
    EXPECT(base_event_query(e), BASE_ERR_STATE);
    env_expect_error(env, BASE_ERR_STATE, BASE_MSG_INT_01, "never recorded");
    EXPECT(base_stream_wait_event(s, e), BASE_ERR_STATE);
    env_expect_error(env, BASE_ERR_STATE, BASE_MSG_INT_01, "never recorded");
    OK(base_stream_sync(s)); /* did not stick */
    base_event_destroy(e);
    base_stream_destroy(s);
}

static void event_of_other_device(device_env_t *env)
{
    base_device_t *other;
    base_event_t *e;
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    OK(base_device_open(env->ctx, env->kind, 0, &other));
    OK(base_event_create(other, &e));
    EXPECT(base_event_record(e, s), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "another device");
    EXPECT(base_stream_wait_event(s, e), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "another device");
    base_event_destroy(e);
    base_device_close(other);
    base_stream_destroy(s);
}

/* A wait keeps the place that the event had when it was given; the event may go on, and its
 * stream away. */
static void event_recorded_again(device_env_t *env)
{
    base_stream_t *a = env_stream(env, BASE_STREAM_ASYNC), *b = env_stream(env, BASE_STREAM_ASYNC);
    base_counter_t *first, *second;
    base_event_t *e;

    OK(base_counter_create(env->dev, &first));
    OK(base_counter_create(env->dev, &second));
    OK(base_event_create(env->dev, &e));
    OK(base_stream_wait_counter(a, first, 1));
    OK(base_event_record(e, a));
    EXPECT(base_event_query(e), BASE_PENDING);
    OK(base_stream_wait_event(b, e));
    OK(base_stream_wait_counter(a, second, 1));
    OK(base_event_record(e, a));
    base_counter_raise(first, 1);
    OK(base_stream_sync(b)); /* would hang at the second place */
    EXPECT(base_event_query(e), BASE_PENDING);
    base_counter_raise(second, 1);
    OK(base_stream_sync(a));
    OK(base_event_query(e));
    base_stream_destroy(a);
    OK(base_stream_wait_event(b, e));
    OK(base_stream_sync(b));
    base_event_destroy(e);
    base_counter_destroy(first);
    base_counter_destroy(second);
    base_stream_destroy(b);
}

static void *raise_later(void *counter)
{
    base_clock_sleep_ns(20 * 1000000);
    base_counter_raise(counter, 1);
    return NULL;
}

/* Waits for events that are pending are counted, others not. */
static void event_waits(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_counter_t *gate;
    base_event_t *e;
    pthread_t thread;

    OK(base_counter_create(env->dev, &gate));
    OK(base_event_create(env->dev, &e));
    OK(base_stream_wait_counter(s, gate, 1));
    OK(base_event_record(e, s));
    EXPECT(base_event_query(e), BASE_PENDING);
    const int64_t before = base_device_event_waits(env->dev);
    assert_int_equal(pthread_create(&thread, NULL, raise_later, gate), 0);
    OK(base_event_wait(e, "later"));
    assert_int_equal(base_device_event_waits(env->dev), before + 1);
    OK(base_event_wait(e, "over"));
    assert_int_equal(base_device_event_waits(env->dev), before + 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    base_stream_destroy(s);
    base_event_destroy(e);
    base_counter_destroy(gate);
}

/* ==== counters ==== */

/* Two streams of two devices hand one byte to and fro. */
static void counters_between_devices(device_env_t *env)
{
    enum { ROUNDS = 64 };
    base_device_t *other;
    base_stream_t *a = env_stream(env, BASE_STREAM_ASYNC), *b;
    base_buffer_t *x = env_buffer(env, 1), *y = env_buffer(env, ROUNDS);
    base_counter_t *made, *taken;
    unsigned char got[ROUNDS];

    OK(base_device_open(env->ctx, env->kind, 0, &other));
    OK(base_stream_create(other, BASE_STREAM_ASYNC, "other", &b));
    OK(base_counter_create(env->dev, &made));
    OK(base_counter_create(other, &taken));
    for (uint64_t r = 0; r < ROUNDS; r++) {
        const base_range_t from = range_of(x, 0, 1, 1, 0), to = range_of(y, (int64_t)r, 1, 1, 0);
        OK(base_stream_wait_counter(a, taken, r));
        OK(base_fill(a, &from, (uint8_t)(r + 1)));
        OK(base_stream_signal(a, made, r + 1));
        OK(base_stream_wait_counter(b, made, r + 1));
        OK(base_copy(b, &to, &from));
        OK(base_stream_signal(b, taken, r + 1));
    }
    OK(base_download(b, got, base_mem(y, 0), ROUNDS));
    OK(base_stream_sync(b));
    OK(base_stream_sync(a));
    assert_int_equal(base_counter_value(made), ROUNDS);
    for (int r = 0; r < ROUNDS; r++)
        assert_int_equal(got[r], r + 1);
    base_counter_destroy(made);
    base_counter_destroy(taken);
    base_stream_destroy(b);
    base_buffer_free(x);
    base_buffer_free(y);
    base_device_close(other);
    base_stream_destroy(a);
}

typedef struct ping_thread {
    base_ctx_t *ctx;
    base_counter_t *ask, *answer;
    base_status_t st;
} ping_thread_t;

static void *ping_main(void *arg)
{
    ping_thread_t *p = arg;
    for (uint64_t r = 1; r <= 50 && p->st == BASE_OK; r++) {
        p->st = base_counter_wait_host(p->ctx, p->ask, r, -1);
        if (p->st == BASE_OK) base_counter_raise(p->answer, r);
    }
    return NULL;
}

/* A stream and a host thread answer each other; the compute stream of cpu does it inside the
 * calls. */
static void counters_between_threads(device_env_t *env)
{
    for (int kind = BASE_STREAM_COMPUTE; kind <= BASE_STREAM_ASYNC; kind++) {
        base_stream_t *s = env_stream(env, (base_stream_kind_t)kind);
        ping_thread_t p = {.ctx = env->ctx, .st = BASE_OK};
        pthread_t thread;

        OK(base_counter_create(env->dev, &p.ask));
        OK(base_counter_create(env->dev, &p.answer));
        EXPECT(base_counter_wait_host(env->ctx, p.ask, 1, 10), BASE_PENDING);
        assert_int_equal(pthread_create(&thread, NULL, ping_main, &p), 0);
        for (uint64_t r = 1; r <= 50; r++) {
            OK(base_stream_signal(s, p.ask, r));
            OK(base_stream_wait_counter(s, p.answer, r));
        }
        OK(base_stream_sync(s));
        assert_int_equal(pthread_join(thread, NULL), 0);
        OK(p.st);
        assert_int_equal(base_counter_value(p.answer), 50);
        base_counter_destroy(p.ask);
        base_counter_destroy(p.answer);
        base_stream_destroy(s);
    }
}

static void counter_goes_back(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_counter_t *c;
    OK(base_counter_create(env->dev, &c));
    assert_int_equal(base_counter_value(c), 0);
    base_counter_raise(c, 5);
    base_counter_raise(c, 5);
    env_expect_error(env, BASE_ERR_STATE, BASE_MSG_INT_01, "raised to 5");
    EXPECT(base_stream_signal(s, c, 4), BASE_ERR_STATE);
    env_expect_error(env, BASE_ERR_STATE, BASE_MSG_INT_01, "raised to 4");
    OK(base_stream_signal(s, c, 6));
    OK(base_stream_sync(s));
    assert_int_equal(base_counter_value(c), 6);
    base_counter_destroy(c);
    base_stream_destroy(s);
}

/* Each is signalled behind what the stream was given before, also beyond 2^32; what is released is left out. Waited for
 * together, the last one counts. */
static void counters_together(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_counter_t *gate, *c[3];
    OK(base_counter_create(env->dev, &gate));
    for (int i = 0; i < 3; i++)
        OK(base_counter_create(env->dev, &c[i]));
    const base_signal_t signals[] = {{c[0], 7}, {c[1], UINT64_C(0x100000003)}, {c[2], 9}};
    base_counter_release(c[2]);
    OK(base_stream_wait_counter(s, gate, 1));
    OK(base_stream_signal_all(s, signals, 3));
    assert_int_equal(base_counter_value(c[0]), 0);
    assert_int_equal(base_counter_value(c[1]), 0);
    base_counter_raise(gate, 1);
    OK(base_stream_sync(s));
    assert_int_equal(base_counter_value(c[0]), 7);
    assert_true(base_counter_value(c[1]) == UINT64_C(0x100000003));
    assert_true(base_counter_value(c[2]) == UINT64_MAX);
    EXPECT(base_stream_signal_all(s, signals, 1), BASE_ERR_STATE);
    env_expect_error(env, BASE_ERR_STATE, BASE_MSG_INT_01, "raised to 7");
    EXPECT(base_stream_signal_all(s, signals, BASE_MAX_SIGNALS + 1), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "9 signals at once, at most 8");
    OK(base_stream_signal_all(s, NULL, 0));
    const base_signal_t waits[] = {{c[0], 8}, {c[1], 5}, {gate, 2}}; /* one passes at once */
    OK(base_stream_wait_all(s, waits, 3));
    OK(base_stream_signal(s, c[1], UINT64_C(0x100000004)));
    base_counter_raise(gate, 2);
    assert_true(base_counter_value(c[1]) == UINT64_C(0x100000003));
    base_counter_raise(c[0], 8);
    OK(base_stream_sync(s));
    assert_true(base_counter_value(c[1]) == UINT64_C(0x100000004));
    EXPECT(base_stream_wait_all(s, waits, BASE_MAX_SIGNALS + 1), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "waits for 9 counters at once, at most 8");
    for (int i = 0; i < 3; i++)
        base_counter_destroy(c[i]);
    base_counter_destroy(gate);
    base_stream_destroy(s);
}

/* Beyond 2^32, up to the largest. */
static void counter_limits(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_counter_t *c;
    OK(base_counter_create(env->dev, &c));
    EXPECT(base_stream_signal(s, c, BASE_COUNTER_MAX + 1), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "counter value 4611686018427387905");
    EXPECT(base_stream_wait_counter(s, c, UINT64_MAX), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "the largest is 4611686018427387904");
    base_counter_raise(c, UINT64_MAX);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "counter value");
    const uint64_t values[] = {UINT32_MAX, (uint64_t)UINT32_MAX + 1, UINT64_C(0x700000005),
                               BASE_COUNTER_MAX};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        OK(base_stream_signal(s, c, values[i]));
        OK(base_stream_wait_counter(s, c, values[i]));
        OK(base_stream_sync(s));
        assert_true(base_counter_value(c) == values[i]);
    }
    base_counter_destroy(c);
    base_stream_destroy(s);
}

typedef struct kept_part {
    base_stream_part_t part; /* first */
    int destroyed;
} kept_part_t;

static void count_destroy(base_stream_part_t *part)
{
    ((kept_part_t *)part)->destroyed++;
}

/* What was kept with a stream is its own, and destroyed once, with it. */
static void stream_keeps_a_part(device_env_t *env)
{
    kept_part_t kept = {{count_destroy}, 0};
    base_stream_t *with = NULL, *without = NULL;

    assert_int_equal(base_stream_create(env->dev, BASE_STREAM_COMPUTE, "with", &with), BASE_OK);
    assert_int_equal(base_stream_create(env->dev, BASE_STREAM_COMPUTE, "without", &without),
                     BASE_OK);
    assert_null(base_stream_kept(with));
    base_stream_keep(with, &kept.part);
    assert_ptr_equal(base_stream_kept(with), &kept.part);
    assert_null(base_stream_kept(without));
    base_stream_destroy(without);
    assert_int_equal(kept.destroyed, 0);
    base_stream_destroy(with);
    assert_int_equal(kept.destroyed, 1);
}

const device_case_t device_cases_order[] = {
    {"event_edge_holds", ON_HOST, event_edge_holds},
    {"missing_edge_is_found", ON_STRICT, missing_edge_is_found},
    {"copies_in_order", ON_ALL, copies_in_order},
    {"event_never_recorded", ON_ALL, event_never_recorded},
    {"event_of_other_device", ON_ALL, event_of_other_device},
    {"event_recorded_again", ON_ALL, event_recorded_again},
    {"event_waits", ON_ALL, event_waits},
    {"counters_between_devices", ON_ALL, counters_between_devices},
    {"counters_between_threads", ON_ALL, counters_between_threads},
    {"counter_goes_back", ON_ALL, counter_goes_back},
    {"counters_together", ON_ALL, counters_together},
    {"counter_limits", ON_ALL, counter_limits},
    {"stream_keeps_a_part", ON_ALL, stream_keeps_a_part},
    {NULL, 0, NULL},
};
