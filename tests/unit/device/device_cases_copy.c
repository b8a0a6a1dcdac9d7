#include "tests/unit/device/device_cases.h"

#include "base/device/staging.h"

#include <stdlib.h>
#include <string.h>

static void put(base_stream_t *s, base_buffer_t *buf, const unsigned char *bytes)
{
    OK(base_upload(s, base_mem(buf, 0), bytes, base_buffer_bytes(buf)));
    OK(base_stream_sync(s));
}

static void get(base_stream_t *s, unsigned char *bytes, base_buffer_t *buf)
{
    OK(base_download(s, bytes, base_mem(buf, 0), base_buffer_bytes(buf)));
    OK(base_stream_sync(s));
}

static unsigned char pattern(int64_t i)
{
    return (unsigned char)(i * 31 + i / 251);
}

static void upload_download(device_env_t *env)
{
    const int64_t sizes[] = {0, 1, 3, 4095, 4096, 4097, 100003};
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        const int64_t n = sizes[k], at = 13;
        base_buffer_t *buf = env_buffer(env, n + at);
        unsigned char *up = malloc((size_t)n + 1), *down = malloc((size_t)n + 1);
        assert_true(up != NULL && down != NULL);
        for (int64_t i = 0; i < n; i++)
            up[i] = pattern(i);
        OK(base_upload(s, base_mem(buf, at), up, n));
        OK(base_download(s, down, base_mem_at(base_mem(buf, 0), at), n));
        OK(base_stream_sync(s));
        assert_true(memcmp(up, down, (size_t)n) == 0);
        free(up);
        free(down);
        base_buffer_free(buf);
    }
    base_stream_destroy(s);
}

typedef struct shape {
    int64_t row_bytes, rows, src_at, src_pitch, dst_at, dst_pitch;
} shape_t;

/* Copies and fills one shape and compares every byte of the destination, touched or not. */
static void check_shape(device_env_t *env, base_stream_t *s, base_device_t *src_dev,
                        base_memory_kind_t kind, shape_t p)
{
    enum { N = 20000 };
    unsigned char *src = malloc(N), *want = malloc(N), *got = malloc(N);
    base_buffer_t *src_buf, *dst_buf = env_buffer(env, N);
    base_stream_t *src_stream;

    assert_true(src != NULL && want != NULL && got != NULL);
    OK(base_buffer_alloc(src_dev, kind, N, "source", &src_buf));
    OK(base_stream_create(src_dev, BASE_STREAM_ASYNC, "source", &src_stream));
    for (int i = 0; i < N; i++) {
        src[i] = pattern(i);
        want[i] = (unsigned char)(i % 7);
    }
    put(src_stream, src_buf, src);
    put(s, dst_buf, want);
    for (int64_t r = 0; r < p.rows; r++)
        for (int64_t i = 0; i < p.row_bytes; i++)
            want[p.dst_at + r * p.dst_pitch + i] = src[p.src_at + r * p.src_pitch + i];
    const base_range_t from = range_of(src_buf, p.src_at, p.row_bytes, p.rows, p.src_pitch);
    const base_range_t to = range_of(dst_buf, p.dst_at, p.row_bytes, p.rows, p.dst_pitch);
    OK(base_copy(s, &to, &from));
    get(s, got, dst_buf);
    assert_true(memcmp(got, want, N) == 0);

    OK(base_fill(s, &to, 0xA5));
    for (int64_t r = 0; r < p.rows; r++)
        memset(want + p.dst_at + r * p.dst_pitch, 0xA5, (size_t)p.row_bytes);
    get(s, got, dst_buf);
    assert_true(memcmp(got, want, N) == 0);

    base_stream_destroy(src_stream);
    base_buffer_free(src_buf);
    base_buffer_free(dst_buf);
    free(src);
    free(want);
    free(got);
}

static void shapes(device_env_t *env, base_device_t *src_dev, base_memory_kind_t kind)
{
    const shape_t all[] = {
        {1, 1, 0, 0, 0, 0},
        {7, 1, 3, 5, 11, 2}, /* one row ignores the pitches */
        {7, 13, 3, 7, 11, 7},
        {64, 9, 0, 100, 5, 64}, /* contiguous; gathered */
        {64, 9, 1, 64, 3, 2001},
        {333, 17, 19, 777, 0, 1111}, /* scattered; both */
        {4096, 4, 100, 4096, 8, 4097},
        {50, 0, 0, 50, 0, 50},
        {0, 50, 3, 50, 7, 50},
    };
    base_stream_t *s[2] = {env_stream(env, BASE_STREAM_COMPUTE),
                           env_stream(env, BASE_STREAM_ASYNC)};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++)
        check_shape(env, s[k % 2], src_dev, kind, all[k]);
    base_stream_destroy(s[0]);
    base_stream_destroy(s[1]);
}

static void copy_and_fill(device_env_t *env)
{
    shapes(env, env->dev, BASE_MEMORY_DEVICE);
}

static void copy_from_pinned(device_env_t *env)
{
    shapes(env, env->dev, BASE_MEMORY_PINNED);
}

static void copy_between_devices(device_env_t *env)
{
    base_device_t *other;
    OK(base_device_open(env->ctx, env->kind, 0, &other));
    shapes(env, other, BASE_MEMORY_DEVICE);
    base_device_close(other);
}

static void copy_between_families(device_env_t *env)
{
    base_device_t *other;
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_buffer_t *theirs, *ours = env_buffer(env, 64);
    const base_device_kind_t kind =
        env->kind == BASE_DEVICE_CUDA ? BASE_DEVICE_CPU : BASE_DEVICE_CUDA;

    if (base_device_open(env->ctx, kind, 0, &other) < 0)
        base_ctx_clear_error(env->ctx); /* no GPU: nothing to mix up */
    else {
        OK(base_buffer_alloc(other, BASE_MEMORY_DEVICE, 64, "theirs", &theirs));
        const base_range_t from = range_of(theirs, 0, 64, 1, 0), to = range_of(ours, 0, 64, 1, 0);
        EXPECT(base_copy(s, &to, &from), BASE_ERR_ARG);
        env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "theirs");
        base_buffer_free(theirs);
        base_device_close(other);
    }
    base_buffer_free(ours);
    base_stream_destroy(s);
}

/* The columns of one matrix: ranges interleave without meeting. */
static void copy_columns(device_env_t *env)
{
    enum { ROWS = 9, PITCH = 96 };
    unsigned char bytes[ROWS * PITCH], want[ROWS * PITCH];
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_buffer_t *buf = env_buffer(env, sizeof bytes);

    for (size_t i = 0; i < sizeof bytes; i++)
        want[i] = bytes[i] = pattern((int64_t)i);
    for (size_t r = 0; r < ROWS; r++)
        memcpy(want + r * PITCH + 50, bytes + r * PITCH + 10, 40);
    put(s, buf, bytes);
    const base_range_t from = range_of(buf, 10, 40, ROWS, PITCH);
    base_range_t to = range_of(buf, 50, 40, ROWS, PITCH);
    OK(base_copy(s, &to, &from));
    get(s, bytes, buf);
    assert_true(memcmp(bytes, want, sizeof bytes) == 0);

    to = range_of(buf, 49, 40, ROWS, PITCH); /* one column too far to the left */
    EXPECT(base_copy(s, &to, &from), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "overlap");
    to = range_of(buf, 67, 40, ROWS - 1,
                  PITCH); /* its last byte is the source's first of the next row */
    const base_range_t fewer = range_of(buf, 10, 40, ROWS - 1, PITCH);
    EXPECT(base_copy(s, &to, &fewer), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "overlap");
    base_buffer_free(buf);
    base_stream_destroy(s);
}

/* Rows side by side in staging memory, to rows that lie apart and to rows that do not. */
static void upload_staged(device_env_t *env)
{
    enum { N = 20000, ROW = 300, ROWS = 40, AT = 77 };
    const int64_t pitches[] = {ROW, ROW + 1, ROW + 64};
    base_stream_t *s = env_stream(env, BASE_STREAM_ASYNC);
    base_buffer_t *buf = env_buffer(env, N);
    unsigned char *want = malloc(N), *got = malloc(N);
    base_staging_t staging;

    assert_true(want != NULL && got != NULL);
    OK(base_staging_create_raw(env->dev, AT + ROWS * ROW, "rows", &staging));
    for (int64_t i = 0; i < AT + ROWS * ROW; i++)
        ((unsigned char *)staging.memory)[i] = pattern(i);
    for (size_t k = 0; k < sizeof pitches / sizeof *pitches; k++) {
        const base_range_t dst = {base_mem(buf, 13), ROW, ROWS, pitches[k]};

        memset(want, 0xa5, N);
        put(s, buf, want);
        for (int64_t i = 0; i < (int64_t)ROWS * ROW; i++)
            want[13 + i / ROW * pitches[k] + i % ROW] = pattern(AT + i);
        OK(base_staging_upload(s, &dst, &staging, AT));
        get(s, got, buf);
        assert_true(memcmp(want, got, N) == 0);
    }
    const base_range_t outside = {base_mem(buf, N - ROW), ROW, 2, ROW},
                       none = {base_mem(buf, 0), ROW, 0, 0};
    EXPECT(base_staging_upload(s, &outside, &staging, 0), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "copy destination");
    OK(base_staging_upload(s, &none, &staging, 0));
    OK(base_stream_sync(s));
    base_staging_destroy(&staging);
    free(want);
    free(got);
    base_buffer_free(buf);
    base_stream_destroy(s);
}

static void ranges_refused(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_COMPUTE);
    base_buffer_t *buf = env_buffer(env, 1000);
    const base_range_t bad[] = {
        range_of(buf, -1, 1, 1, 0),        range_of(buf, 0, 1001, 1, 0),
        range_of(buf, 1000, 1, 1, 0),      range_of(buf, 1001, 0, 0, 0),
        range_of(buf, 0, -1, 1, 0),        range_of(buf, 0, 1, -1, 0),
        range_of(buf, 0, 10, 2, 9),        range_of(buf, 0, 10, 11, 99 + 1),
        range_of(buf, 0, 10, 2, -100),     range_of(buf, 0, 8, INT64_MAX, INT64_MAX),
        range_of(buf, INT64_MAX, 8, 1, 0), range_of(NULL, 0, 8, 1, 0),
    };
    char host[8] = {0};

    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        if (base_range_check(env->ctx, &bad[k], "thing") != BASE_ERR_ARG)
            fail_msg("bad range %zu was taken", k);
        env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "thing");
        EXPECT(base_fill(s, &bad[k], 0), BASE_ERR_ARG);
        env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, k == 11 ? "no buffer" : "test buffer");
    }
    const base_range_t good[] = {range_of(buf, 0, 10, 10, 110), range_of(buf, 1000, 0, 5, 0),
                                 range_of(NULL, 0, 0, 0, 0), range_of(buf, 999, 1, 1, -7)};
    for (size_t k = 0; k < sizeof good / sizeof *good; k++)
        OK(base_range_check(env->ctx, &good[k], "thing"));

    EXPECT(base_upload(s, base_mem(buf, 996), host, 8), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "upload");
    EXPECT(base_download(s, host, base_mem(buf, 996), 8), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "download");
    EXPECT(base_upload(s, base_mem(buf, 0), NULL, 8), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "no host memory");
    const base_range_t a = range_of(buf, 0, 10, 2, 10), b = range_of(buf, 100, 10, 3, 10);
    EXPECT(base_copy(s, &a, &b), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "3 rows of 10 bytes to 2 rows");
    const base_range_t c = range_of(buf, 9, 10, 1, 0), d = range_of(buf, 0, 10, 1, 0);
    EXPECT(base_copy(s, &c, &d), BASE_ERR_ARG);
    env_expect_error(env, BASE_ERR_ARG, BASE_MSG_INT_01, "overlap");
    OK(base_stream_sync(s)); /* wrong arguments do not stick */
    base_buffer_free(buf);
    base_stream_destroy(s);
}

const device_case_t device_cases_copy[] = {
    {"upload_download", ON_ALL, upload_download},
    {"copy_and_fill", ON_ALL, copy_and_fill},
    {"copy_from_pinned", ON_ALL, copy_from_pinned},
    {"copy_between_devices", ON_ALL, copy_between_devices},
    {"copy_between_families", ON_ALL, copy_between_families},
    {"copy_columns", ON_ALL, copy_columns},
    {"upload_staged", ON_ALL, upload_staged},
    {"ranges_refused", ON_ALL, ranges_refused},
    {NULL, 0, NULL},
};
