/* What only a GPU can show. */
#include "tests/unit/device/device_cases.h"

#include "tests/support/fill_pattern.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#define N 1000003

typedef struct kernel_thread {
    base_stream_t *s;
    base_buffer_t *buf;
    base_status_t st;
} kernel_thread_t;

/* A thread that never chose a device. */
static void *kernel_main(void *arg)
{
    kernel_thread_t *k = arg;
    k->st = kern_fill_pattern(k->s, base_mem(k->buf, 1), N, 42);
    return NULL;
}

/* A kernel on the native stream, between the device's own operations. */
static void kernel_on_native_stream(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_COMPUTE);
    base_buffer_t *buf = env_buffer(env, N + 1), *result, *bytes;
    kernel_thread_t k = {s, buf, BASE_ERR_INTERNAL};
    kern_pattern_result_t got;
    pthread_t thread;

    OK(base_buffer_alloc(env->dev, BASE_MEMORY_DEVICE, 16, "result", &result));
    OK(base_buffer_alloc(env->dev, BASE_MEMORY_PINNED, N, "bytes", &bytes));
    assert_int_equal(pthread_create(&thread, NULL, kernel_main, &k), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    OK(k.st);
    OK(kern_check_pattern(s, base_mem(buf, 1), N, 42, base_mem(result, 0)));
    OK(base_download(s, &got, base_mem(result, 0), sizeof got));
    const base_range_t from = range_of(buf, 1, N, 1, 0), to = range_of(bytes, 0, N, 1, 0);
    OK(base_copy(s, &to, &from));
    OK(base_stream_sync(s));
    assert_true(got.num_wrong == 0 && got.first_wrong == UINT64_MAX);
    const unsigned char *host = base_mem_address(base_mem(bytes, 0));
    for (int64_t i = 0; i < N; i++)
        if (host[i] != kern_pattern_byte(42, i)) fail_msg("byte %lld", (long long)i);

    const unsigned char first = (unsigned char)~kern_pattern_byte(42, 77);
    const unsigned char second = (unsigned char)~kern_pattern_byte(42, 5077);
    OK(base_upload(s, base_mem(buf, 1 + 5077), &second, 1));
    OK(base_upload(s, base_mem(buf, 1 + 77), &first, 1));
    OK(kern_check_pattern(s, base_mem(buf, 1), N, 42, base_mem(result, 0)));
    OK(base_download(s, &got, base_mem(result, 0), sizeof got));
    OK(base_stream_sync(s));
    assert_true(got.first_wrong == 77 && got.num_wrong == 2);
    EXPECT(kern_fill_pattern(s, base_mem(buf, 2), N, 1), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "pattern to fill");
    base_buffer_free(bytes);
    base_buffer_free(result);
    base_buffer_free(buf);
    base_stream_destroy(s);
}

/* A stream of the host waits for a word that the GPU writes, and the other way round. */
static void counter_to_host_stream(device_env_t *env)
{
    base_device_t *cpu;
    base_stream_t *gpu_stream = env_stream(env, BASE_STREAM_ASYNC), *cpu_stream;
    base_counter_t *there, *back, *host_made;

    OK(base_device_open(env->ctx, BASE_DEVICE_CPU, 0, &cpu));
    OK(base_stream_create(cpu, BASE_STREAM_ASYNC, "host", &cpu_stream));
    OK(base_counter_create(env->dev, &there));
    OK(base_counter_create(env->dev, &back));
    OK(base_counter_create(cpu, &host_made));
    for (uint64_t r = 1; r <= 20; r++) {
        OK(base_stream_wait_counter(cpu_stream, there, r));
        OK(base_stream_signal(cpu_stream, back, r));
        OK(base_stream_signal(gpu_stream, there, r));
        OK(base_stream_wait_counter(gpu_stream, back, r));
    }
    OK(base_stream_sync(gpu_stream));
    OK(base_stream_sync(cpu_stream));
    assert_int_equal(base_counter_value(there), 20);
    EXPECT(base_stream_wait_counter(gpu_stream, host_made, 1), BASE_ERR_UNSUPPORTED);
    env_expect_error(env, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01, "made by a GPU");
    base_counter_destroy(there);
    base_counter_destroy(back);
    base_counter_destroy(host_made);
    base_stream_destroy(cpu_stream);
    base_stream_destroy(gpu_stream);
    base_device_close(cpu);
}

/* Download to pageable memory must not sit in the driver without a deadline. */
static void pageable_download_has_deadline(device_env_t *env)
{
    unsigned char got[16];
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_buffer_t *buf = env_buffer(env, sizeof got);
    base_counter_t *c;

    OK(base_counter_create(env->dev, &c));
    base_ctx_set_deadline_ms(env->ctx, 200);
    OK(base_stream_wait_counter(s, c, 1));
    const int64_t start = now_ms();
    EXPECT(base_download(s, got, base_mem(buf, 0), sizeof got), BASE_ERR_TIMEOUT);
    assert_true(now_ms() - start < 5000);
    env_expect_error(env, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02, "pending");
    base_counter_raise(c, 1);
    base_stream_destroy(s);
    base_counter_destroy(c);
    base_buffer_free(buf);
}

/* A queued wait sees no stop flag. Released, the stream becomes idle and its end is quick. */
static void released_after_stop(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_event_t *e;
    base_counter_t *c;

    OK(base_counter_create(env->dev, &c));
    OK(base_event_create(env->dev, &e));
    OK(base_stream_wait_counter(s, c, 1));
    OK(base_event_record(e, s));
    __atomic_store_n(&env->stop, 1, __ATOMIC_RELEASE);
    EXPECT(base_stream_sync(s), BASE_ERR_PEER);
    env_expect_error(env, BASE_ERR_PEER, BASE_MSG_COMM_01, "async");
    EXPECT(base_event_query(e), BASE_PENDING);
    base_counter_release(c);
    const int64_t start = now_ms();
    base_stream_destroy(s);
    assert_true(now_ms() - start < 500); /* a failed stream is given 1000 ms */
    OK(base_event_query(e));
    base_event_destroy(e);
    base_counter_destroy(c);
}

/* A pitch beyond what the 2-D copy takes. */
static void very_large_pitch(device_env_t *env)
{
    const int64_t pitch = (INT64_C(1) << 31) + 4096;
    unsigned char got[2 * 3], want[2 * 3];
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_buffer_t *big = NULL, *small = env_buffer(env, sizeof got);

    if (base_buffer_alloc(env->dev, BASE_MEMORY_DEVICE, pitch + 16, "big", &big) < 0) {
        base_ctx_clear_error(env->ctx); /* a small GPU */
    } else {
        const base_range_t far = range_of(big, 1, 3, 2, pitch), near = range_of(small, 0, 3, 2, 3);
        for (size_t i = 0; i < sizeof want; i++)
            want[i] = (unsigned char)(i + 1);
        OK(base_fill(s, &far, 9));
        OK(base_copy(s, &near, &far));
        OK(base_download(s, got, base_mem(small, 0), sizeof got));
        OK(base_stream_sync(s));
        for (size_t i = 0; i < sizeof got; i++)
            assert_int_equal(got[i], 9);
        OK(base_upload(s, base_mem(small, 0), want, sizeof want));
        OK(base_copy(s, &far, &near));
        OK(base_fill(s, &near, 0));
        OK(base_copy(s, &near, &far));
        OK(base_download(s, got, base_mem(small, 0), sizeof got));
        OK(base_stream_sync(s));
        assert_true(memcmp(got, want, sizeof want) == 0);
        base_buffer_free(big);
    }
    base_buffer_free(small);
    base_stream_destroy(s);
}

static void no_such_gpu(device_env_t *env)
{
    base_device_t *dev = NULL;
    EXPECT(base_device_open(env->ctx, BASE_DEVICE_CUDA, 4096, &dev), BASE_ERR_UNSUPPORTED);
    env_expect_error(env, BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01, "cuda:4096"); /* DEV-01 */
    assert_true(dev == NULL);
}

typedef struct other {
    base_stream_t *stream;
    base_buffer_t *buf;
    base_counter_t *done, *gate;
    base_status_t status;
} other_t;

/* Gives work of its own while the first thread is held, and ends the wait that holds it. */
static void *other_main(void *arg)
{
    other_t *o = arg;
    const base_range_t all = {
        .mem = base_mem(o->buf, 0), .row_bytes = 4096, .rows = 1, .pitch = 4096};
    const struct timespec nap = {.tv_nsec = 300000000}; /* the first thread is as far as it gets */

    (void)nanosleep(&nap, NULL);
    o->status = base_fill(o->stream, &all, 2);
    if (o->status >= 0) o->status = base_stream_signal(o->stream, o->done, 1);
    if (o->status >= 0) o->status = base_stream_sync(o->stream);
    base_counter_raise(o->gate, 1);
    return NULL;
}

/* A compute stream that waits takes so much work and no more: not so much that its queue is full, when a launch would
 * wait inside the driver and other threads' calls with it. */
static void ahead_is_limited(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_COMPUTE);
    base_buffer_t *buf = env_buffer(env, 4096);
    const base_range_t all = {.mem = base_mem(buf, 0), .row_bytes = 4096, .rows = 1, .pitch = 4096};
    other_t o = {.stream = env_stream(env, BASE_STREAM_ASYNC), .buf = env_buffer(env, 4096)};
    pthread_t thread;

    OK(base_counter_create(env->dev, &o.done));
    OK(base_counter_create(env->dev, &o.gate));
    assert_int_equal(pthread_create(&thread, NULL, other_main, &o), 0);
    OK(base_stream_wait_counter(s, o.gate, 1));
    for (int i = 0; i < 4000; i++)
        OK(base_fill(s, &all, 1));
    assert_int_equal(base_counter_value(o.gate), 1); /* the loop was held */
    OK(base_stream_sync(s));
    assert_int_equal(pthread_join(thread, NULL), 0);
    OK(o.status);
    assert_int_equal(base_counter_value(o.done), 1);
    base_counter_destroy(o.gate);
    base_counter_destroy(o.done);
    base_stream_destroy(o.stream);
    base_stream_destroy(s);
    base_buffer_free(o.buf);
    base_buffer_free(buf);
}

const device_case_t device_cases_cuda[] = {
    {"kernel_on_native_stream", ON_CUDA, kernel_on_native_stream},
    {"counter_to_host_stream", ON_CUDA, counter_to_host_stream},
    {"pageable_download_has_deadline", ON_CUDA, pageable_download_has_deadline},
    {"released_after_stop", ON_CUDA, released_after_stop},
    {"very_large_pitch", ON_CUDA, very_large_pitch},
    {"ahead_is_limited", ON_CUDA, ahead_is_limited},
    {"no_such_gpu", ON_CUDA, no_such_gpu},
    {NULL, 0, NULL},
};
