#include "tests/unit/device/device_cases.h"

#include <string.h>

/* Creates one of each and uses it; every allocation in turn fails. */
static base_status_t use_everything(device_env_t *env)
{
    base_buffer_t *dev_buf = NULL, *pinned = NULL;
    base_stream_t *compute = NULL, *async = NULL;
    base_event_t *e = NULL;
    base_counter_t *c = NULL;
    base_status_t st;

    BASE_TRY_GOTO(base_buffer_alloc(env->dev, BASE_MEMORY_DEVICE, 10000, "one", &dev_buf), st,
                  done);
    BASE_TRY_GOTO(base_buffer_alloc(env->dev, BASE_MEMORY_PINNED, 0, "two", &pinned), st, done);
    BASE_TRY_GOTO(base_stream_create(env->dev, BASE_STREAM_COMPUTE, "c", &compute), st, done);
    BASE_TRY_GOTO(base_stream_create(env->dev, BASE_STREAM_ASYNC, "a", &async), st, done);
    BASE_TRY_GOTO(base_event_create(env->dev, &e), st, done);
    BASE_TRY_GOTO(base_counter_create(env->dev, &c), st, done);
    const base_range_t r = range_of(dev_buf, 1, 9, 100, 99);
    BASE_TRY_GOTO(base_fill(async, &r, 1), st, done);
    BASE_TRY_GOTO(base_event_record(e, async), st, done);
    BASE_TRY_GOTO(base_stream_wait_event(compute, e), st, done);
    BASE_TRY_GOTO(base_stream_sync(compute), st, done);
    st = base_stream_sync(async);
done:
    base_counter_destroy(c);
    base_event_destroy(e);
    base_stream_destroy(async);
    base_stream_destroy(compute);
    base_buffer_free(pinned);
    base_buffer_free(dev_buf);
    return st;
}

static void allocation_fails(device_env_t *env)
{
    base_memory_t *memory = base_ctx_memory(env->ctx);
    const int64_t live = base_memory_live_total(memory), before = base_memory_calls(memory);
    OK(use_everything(env));
    const int64_t num = base_memory_calls(memory) - before;
    assert_true(num > 0);
    for (int64_t n = 1; n <= num; n++) {
        base_memory_fail_at(memory, n);
        EXPECT(use_everything(env), BASE_ERR_NOMEM);
        env_expect_error(env, BASE_ERR_NOMEM, BASE_MSG_MEM_01, NULL);
        assert_int_equal(base_memory_live_total(memory), live);
    }
    base_memory_fail_at(memory, 0);
    OK(use_everything(env));
}

static void buffer_of_wrong_size(device_env_t *env)
{
    base_buffer_t *buf = NULL;
    EXPECT(base_buffer_alloc(env->dev, BASE_MEMORY_DEVICE, -1, "negative", &buf), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "negative");
#if !defined(__SANITIZE_ADDRESS__) &&                                                              \
    !defined(__SANITIZE_THREAD__) /* their allocators end the process instead */
    EXPECT(base_buffer_alloc(env->dev, BASE_MEMORY_DEVICE, INT64_C(1) << 52, "too large", &buf),
           BASE_ERR_NOMEM);
    env_expect_error(env, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "too large");
#endif
    assert_true(buf == NULL);
}

static void buffer_facts(device_env_t *env)
{
    base_memory_t *memory = base_ctx_memory(env->ctx);
    const uintptr_t alignment = env->kind == BASE_DEVICE_CUDA ? 256 : 4096;
    base_buffer_t *buf[3];

    for (int i = 0; i < 3; i++) {
        OK(base_buffer_alloc(env->dev, i == 1 ? BASE_MEMORY_PINNED : BASE_MEMORY_DEVICE,
                             1000 * i + 1, "facts", &buf[i]));
        assert_true((uintptr_t)base_mem_address(base_mem(buf[i], 0)) % alignment == 0);
        assert_int_equal(base_buffer_bytes(buf[i]), 1000 * i + 1);
        assert_string_equal(base_buffer_name(buf[i]), "facts");
        assert_true(base_buffer_device(buf[i]) == env->dev);
    }
    assert_int_equal(base_memory_bytes(memory, BASE_RESOURCE_DEVICE), 2002);
    assert_int_equal(base_memory_bytes(memory, BASE_RESOURCE_PINNED), 1001);
    for (int i = 0; i < 3; i++)
        base_buffer_free(buf[i]);
    assert_int_equal(base_memory_bytes(memory, BASE_RESOURCE_DEVICE), 0);
    assert_true(base_mem_address(base_mem(NULL, 0)) == NULL);
    base_buffer_free(NULL);
    base_stream_destroy(NULL);
    base_event_destroy(NULL);
    base_counter_destroy(NULL);
    base_device_close(NULL);
}

static void new_buffer_is_nan(device_env_t *env)
{
    unsigned char got[5000];
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_buffer_t *buf = env_buffer(env, sizeof got);
    OK(base_download(s, got, base_mem(buf, 0), sizeof got));
    OK(base_stream_sync(s));
    for (size_t i = 0; i < sizeof got; i++)
        assert_int_equal(got[i], 0xFF);
    base_buffer_free(buf);
    base_stream_destroy(s);
}

/* One round of what a microbatch does, longer than a queue's first chunk. */
static void round_of_work(base_stream_t *a, base_stream_t *b, base_event_t *made,
                          base_event_t *read, base_buffer_t *x, unsigned char *host)
{
    for (int i = 0; i < 300; i++) {
        const base_range_t from = range_of(x, 0, 7, 9, 8), to = range_of(x, 500, 7, 9, 16);
        OK(base_upload(a, base_mem(x, 0), host, 64));
        OK(base_event_record(made, a));
        OK(base_stream_wait_event(b, made));
        OK(base_copy(b, &to, &from));
        OK(base_download(b, host + 64, base_mem(x, 500), 64));
        OK(base_event_record(read, b));
        OK(base_stream_wait_event(a, read));
    }
    OK(base_stream_sync(a));
    OK(base_stream_sync(b));
}

static void no_allocation_after_warm_up(device_env_t *env)
{
    base_memory_t *memory = base_ctx_memory(env->ctx);
    base_stream_t *a = env_stream(env, BASE_STREAM_COMPUTE),
                  *b = env_stream(env, BASE_STREAM_ASYNC);
    base_buffer_t *x = env_buffer(env, 1000);
    base_event_t *made, *read;
    unsigned char host[128] = {0};

    OK(base_event_create(env->dev, &made));
    OK(base_event_create(env->dev, &read));
    round_of_work(a, b, made, read, x, host);
    const int64_t calls = base_memory_calls(memory);
    for (int r = 0; r < 3; r++)
        round_of_work(a, b, made, read, x, host);
    assert_int_equal(base_memory_calls(memory), calls);
    base_event_destroy(made);
    base_event_destroy(read);
    base_stream_destroy(a);
    base_stream_destroy(b);
    base_buffer_free(x);
}

static base_status_t sum_work(void *args)
{
    uint64_t *const *p = args;
    const uint64_t *words = (const uint64_t *)args + 1;
    for (int i = 0; i < 20000; i++)
        **p += words[i];
    return BASE_OK;
}

/* A queue grows with its backlog, also by items larger than its chunks, and keeps their order. */
static void long_and_large_queue(device_env_t *env)
{
    enum { num = 40 };
    uint64_t args[20001], sum = 0;
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_buffer_t *x = env_buffer(env, 1);
    base_counter_t *gate;
    unsigned char last = 0;

    OK(base_counter_create(env->dev, &gate));
    OK(base_stream_wait_counter(s, gate, 1));
    uint64_t *const target = &sum;
    memcpy(args, &target, sizeof target);
    for (int i = 0; i < num; i++) {
        for (int k = 1; k <= 20000; k++)
            args[k] = (uint64_t)i;
        OK(base_stream_submit(s, sum_work, args, sizeof args, NULL, 0));
        for (int k = 0; k < 100; k++) {
            const base_range_t r = range_of(x, 0, 1, 1, 0);
            OK(base_fill(s, &r, (uint8_t)(i + k)));
        }
    }
    OK(base_download(s, &last, base_mem(x, 0), 1));
    base_counter_raise(gate, 1);
    OK(base_stream_sync(s));
    assert_int_equal(sum, 20000 * num * (num - 1) / 2);
    assert_int_equal(last, num - 1 + 99);
    base_counter_destroy(gate);
    base_buffer_free(x);
    base_stream_destroy(s);
}

const device_case_t device_cases_memory[] = {
    {"buffer_facts", ON_ALL, buffer_facts},
    {"buffer_of_wrong_size", ON_ALL, buffer_of_wrong_size},
    {"new_buffer_is_nan", ON_STRICT, new_buffer_is_nan},
    {"allocation_fails", ON_ALL, allocation_fails},
    {"no_allocation_after_warm_up", ON_ALL, no_allocation_after_warm_up},
    {"long_and_large_queue", ON_HOST, long_and_large_queue},
    {NULL, 0, NULL},
};
