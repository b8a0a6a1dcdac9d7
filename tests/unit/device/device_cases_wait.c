/* Errors of work that runs later, deadlines, the stop flag and released counters. */
#include "tests/unit/device/device_cases.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#define SOON_MS 30000 /* half the deadline of a case: what ends then has not run into it */

typedef struct fail_args {
    base_ctx_t *ctx;
    int *num_ran;
    base_status_t st;
} fail_args_t;

static base_status_t fail_work(void *args)
{
    const fail_args_t *a = args;
    ++*a->num_ran;
    return a->st == BASE_OK
               ? BASE_OK
               : BASE_FAIL(a->ctx, a->st, BASE_MSG_INT_01, "work %d failed", *a->num_ran);
}

/* The first error stays; what follows is skipped; events carry it, counters are not raised. */
static void error_sticks(device_env_t *env)
{
    for (int kind = BASE_STREAM_COMPUTE; kind <= BASE_STREAM_ASYNC; kind++) {
        base_stream_t *s = env_stream(env, (base_stream_kind_t)kind),
                      *t = env_stream(env, BASE_STREAM_ASYNC);
        base_event_t *before, *after;
        base_counter_t *gate, *c;
        int num_ran = 0;
        fail_args_t args = {env->ctx, &num_ran, BASE_OK};
        const bool runs_inline = env->kind == BASE_DEVICE_CPU && kind == BASE_STREAM_COMPUTE;

        OK(base_event_create(env->dev, &before));
        OK(base_event_create(env->dev, &after));
        OK(base_counter_create(env->dev, &gate));
        OK(base_counter_create(env->dev, &c));
        if (!runs_inline)
            OK(base_stream_wait_counter(s, gate, 1)); /* the rest is given before anything fails */
        OK(base_stream_submit(s, fail_work, &args, sizeof args, NULL, 0));
        OK(base_event_record(before, s));
        args.st = BASE_ERR_DEVICE;
        EXPECT(base_stream_submit(s, fail_work, &args, sizeof args, NULL, 0),
               runs_inline ? BASE_ERR_DEVICE : BASE_OK);
        args.st = BASE_ERR_IO;
        EXPECT(base_stream_submit(s, fail_work, &args, sizeof args, NULL, 0),
               runs_inline ? BASE_ERR_DEVICE : BASE_OK);
        EXPECT(base_stream_signal(s, c, 1), runs_inline ? BASE_ERR_DEVICE : BASE_OK);
        EXPECT(base_event_record(after, s), runs_inline ? BASE_ERR_DEVICE : BASE_OK);
        if (!runs_inline) OK(base_stream_wait_event(t, after));
        base_counter_raise(gate, 1);
        EXPECT(base_stream_sync(s), BASE_ERR_DEVICE);
        EXPECT(base_stream_sync(s), BASE_ERR_DEVICE);
        EXPECT(base_stream_submit(s, fail_work, &args, sizeof args, NULL, 0), BASE_ERR_DEVICE);
        EXPECT(base_stream_wait_counter(s, gate, 1), BASE_ERR_DEVICE);
        OK(base_event_query(before));
        if (!runs_inline) {
            EXPECT(base_event_query(after), BASE_ERR_DEVICE);
            EXPECT(base_stream_sync(t), BASE_ERR_DEVICE);
        }
        assert_int_equal(base_counter_value(c), 0);
        assert_int_equal(num_ran, 2);
        env_expect_error(env, BASE_ERR_DEVICE, BASE_MSG_INT_01, "work 2 failed");
        base_event_destroy(before);
        base_event_destroy(after);
        base_stream_destroy(s);
        base_stream_destroy(t);
        base_counter_destroy(gate);
        base_counter_destroy(c);
    }
}

static void deadline(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_counter_t *c;
    OK(base_counter_create(env->dev, &c));
    base_ctx_set_deadline_ms(env->ctx, 150);
    const int64_t start = now_ms();
    OK(base_stream_wait_counter(s, c, 1));
    EXPECT(base_stream_sync(s), BASE_ERR_TIMEOUT);
    assert_true(now_ms() - start >= 150 && now_ms() - start < SOON_MS);
    env_expect_error(env, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02, "async");
    EXPECT(base_stream_signal(s, c, 7), BASE_ERR_TIMEOUT); /* sticks */
    EXPECT(base_counter_wait_host(env->ctx, c, 1, -1), BASE_ERR_TIMEOUT);
    env_expect_error(env, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02, "waiting for 1");
    base_counter_raise(c, 1); /* a GPU's wait has no deadline of its own: let it end */
    base_stream_destroy(s);
    base_counter_destroy(c);
}

static void compute_wait_has_deadline(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_COMPUTE);
    base_counter_t *c;
    OK(base_counter_create(env->dev, &c));
    base_ctx_set_deadline_ms(env->ctx, 60);
    EXPECT(base_stream_wait_counter(s, c, 1), BASE_ERR_TIMEOUT); /* blocks the caller */
    env_expect_error(env, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02, "compute");
    EXPECT(base_stream_sync(s), BASE_ERR_TIMEOUT);
    base_stream_destroy(s);
    base_counter_destroy(c);
}

static base_status_t nap_work(void *args)
{
    const struct timespec ts = {.tv_sec = 0, .tv_nsec = *(const long *)args};
    nanosleep(&ts, NULL);
    return BASE_OK;
}

/* Whether a queue of items, three deadlines long, is waited for; each item takes a sixth of one. */
static base_status_t sync_long_queue(device_env_t *env, int64_t deadline_ms)
{
    const long nap_ns = (long)deadline_ms * 1000000 / 6;
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_ctx_set_deadline_ms(env->ctx, deadline_ms);
    for (int i = 0; i < 20; i++)
        OK(base_stream_submit(s, nap_work, &nap_ns, sizeof nap_ns, NULL, 0));
    const base_status_t st = base_stream_sync(s);
    base_stream_destroy(s);
    return st;
}

/* The deadline of a sync counts from the last item that ended: long queues are no fault. A machine that
 * stands still for the rest of a deadline gets a longer one. */
static void deadline_is_for_one_item(device_env_t *env)
{
    base_status_t st = BASE_ERR_TIMEOUT;
    for (int64_t ms = 300; st == BASE_ERR_TIMEOUT && ms <= 4800; ms *= 4) {
        base_ctx_clear_error(env->ctx);
        st = sync_long_queue(env, ms);
    }
    OK(st);
}

static void *raise_flag(void *arg)
{
    const struct timespec ts = {.tv_sec = 0, .tv_nsec = 100000000};
    nanosleep(&ts, NULL);
    __atomic_store_n((int32_t *)arg, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void stop_flag(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC), *t = env_stream(env, BASE_STREAM_ASYNC);
    base_counter_t *c;
    base_event_t *e;
    pthread_t thread;

    OK(base_counter_create(env->dev, &c));
    OK(base_event_create(env->dev, &e));
    OK(base_stream_wait_counter(s, c, 1));
    OK(base_event_record(e, s));
    OK(base_stream_wait_event(t, e));
    assert_int_equal(pthread_create(&thread, NULL, raise_flag, &env->stop), 0);
    const int64_t start = now_ms();
    EXPECT(base_stream_sync(t), BASE_ERR_PEER);
    EXPECT(base_stream_sync(s), BASE_ERR_PEER);
    assert_true(now_ms() - start < SOON_MS);
    env_expect_error(env, BASE_ERR_PEER, BASE_MSG_COMM_01, "async");
    EXPECT(base_counter_wait_host(env->ctx, c, 1, -1), BASE_ERR_PEER);
    env_expect_error(env, BASE_ERR_PEER, BASE_MSG_COMM_01, NULL);
    assert_int_equal(pthread_join(thread, NULL), 0);
    base_counter_raise(c, 1);
    base_event_destroy(e);
    base_stream_destroy(s);
    base_stream_destroy(t);
    base_counter_destroy(c);
}

/* Released from another thread: what is queued on streams and what waits on the host goes on. */
static void *release_main(void *arg)
{
    const struct timespec ts = {.tv_sec = 0, .tv_nsec = 50000000};
    nanosleep(&ts, NULL);
    base_counter_release(arg);
    return NULL;
}

static void release_ends_waits(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC), *t = env_stream(env, BASE_STREAM_ASYNC);
    base_counter_t *c, *after;
    pthread_t thread;

    OK(base_counter_create(env->dev, &c));
    OK(base_counter_create(env->dev, &after));
    base_counter_raise(c, 3);
    OK(base_stream_wait_counter(s, c, 4));
    OK(base_stream_signal(s, after, 1));
    OK(base_stream_wait_counter(t, c, BASE_COUNTER_MAX));
    assert_int_equal(pthread_create(&thread, NULL, release_main, c), 0);
    const int64_t start = now_ms();
    OK(base_counter_wait_host(env->ctx, c, 5, -1));
    OK(base_stream_sync(s));
    OK(base_stream_sync(t));
    assert_true(now_ms() - start < SOON_MS);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(base_counter_value(after), 1);
    for (int i = 0; i < 2; i++) { /* for good, and again */
        assert_true(base_counter_value(c) == UINT64_MAX);
        OK(base_counter_wait_host(env->ctx, c, UINT64_MAX, -1));
        OK(base_stream_wait_counter(s, c, BASE_COUNTER_MAX));
        base_counter_raise(c, 2);
        OK(base_stream_signal(s, c, 9));
        OK(base_stream_signal(t, c, 9));
        OK(base_stream_sync(s));
        OK(base_stream_sync(t));
        base_counter_release(c);
    }
    base_counter_destroy(c);
    base_counter_destroy(after);
    base_stream_destroy(s);
    base_stream_destroy(t);
}

/* A signal that was queued before the release and runs after it does not take it back. */
static void release_outlasts_queued_signals(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC), *t = env_stream(env, BASE_STREAM_ASYNC);
    base_counter_t *gate, *c;

    OK(base_counter_create(env->dev, &gate));
    OK(base_counter_create(env->dev, &c));
    OK(base_stream_wait_counter(s, gate, 1));
    OK(base_stream_signal(s, c, 7));
    OK(base_stream_signal(s, c, UINT32_MAX));
    base_counter_release(c);
    assert_true(base_counter_value(c) == UINT64_MAX);
    base_counter_raise(gate, 1);
    OK(base_stream_sync(s));
    assert_true(base_counter_value(c) == UINT64_MAX);
    OK(base_stream_wait_counter(t, c, UINT64_C(1) << 40));
    OK(base_stream_sync(t));
    base_counter_destroy(gate);
    base_counter_destroy(c);
    base_stream_destroy(s);
    base_stream_destroy(t);
}

typedef struct raise_thread {
    base_counter_t *counter;
    int done; /* set by the main thread */
} raise_thread_t;

static void *raise_main(void *arg)
{
    raise_thread_t *r = arg;
    for (uint64_t value = 1; !__atomic_load_n(&r->done, __ATOMIC_ACQUIRE); value++)
        base_counter_raise(r->counter, value);
    return NULL;
}

static void release_while_raised(device_env_t *env)
{
    for (int round = 0; round < 50; round++) {
        base_counter_t *c;
        pthread_t thread;

        OK(base_counter_create(env->dev, &c));
        raise_thread_t r = {.counter = c};
        assert_int_equal(pthread_create(&thread, NULL, raise_main, &r), 0);
        OK(base_counter_wait_host(env->ctx, c, 1 + (uint64_t)round, -1));
        base_counter_release(c);
        for (int i = 0; i < 1000; i++)
            assert_true(base_counter_value(c) == UINT64_MAX);
        __atomic_store_n(&r.done, 1, __ATOMIC_RELEASE);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_true(base_counter_value(c) == UINT64_MAX);
        base_counter_destroy(c);
    }
}

static void submit_refused(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_buffer_t *buf = env_buffer(env, 64);
    const base_operand_t outside = {range_of(buf, 60, 8, 1, 0), BASE_READ};
    const base_operand_t no_access = {range_of(buf, 0, 8, 1, 0), (base_access_t)0};
    const long nap_ns = 0;

    if (env->kind == BASE_DEVICE_CUDA) {
        EXPECT(base_stream_submit(s, nap_work, &nap_ns, sizeof nap_ns, NULL, 0),
               BASE_ERR_UNSUPPORTED);
        env_expect_error(env, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01, "host functions");
    } else {
        EXPECT(base_stream_submit(s, nap_work, &nap_ns, sizeof nap_ns, &outside, 1), BASE_ERR_ARG);
        env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "operand 0");
        EXPECT(base_stream_submit(s, nap_work, &nap_ns, sizeof nap_ns, &no_access, 1),
               BASE_ERR_ARG);
        env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "access 0");
        EXPECT(base_stream_submit(s, NULL, NULL, 0, NULL, 0), BASE_ERR_ARG);
        env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "missing");
        assert_true(base_stream_native(s) == NULL);
    }
    OK(base_stream_sync(s));
    base_buffer_free(buf);
    base_stream_destroy(s);
}

const device_case_t device_cases_wait[] = {
    {"error_sticks", ON_HOST, error_sticks},
    {"deadline", ON_ALL, deadline},
    {"compute_wait_has_deadline", ON_CPU, compute_wait_has_deadline},
    {"deadline_is_for_one_item", ON_HOST, deadline_is_for_one_item},
    {"stop_flag", ON_ALL, stop_flag},
    {"release_ends_waits", ON_ALL, release_ends_waits},
    {"release_outlasts_queued_signals", ON_ALL, release_outlasts_queued_signals},
    {"release_while_raised", ON_ALL, release_while_raised},
    {"submit_refused", ON_ALL, submit_refused},
    {NULL, 0, NULL},
};
