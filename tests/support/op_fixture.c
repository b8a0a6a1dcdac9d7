#include "tests/support/op_fixture.h"

#include <math.h>
#include <stdlib.h>

#define GUARD_BYTES 256

/* 0xff bytes are a quiet NaN in fp64, fp32 and bf16, and -1 in int32. */
static const uint8_t guard_pattern = 0xff;

static int setup(void **state, base_device_kind_t kind)
{
    op_fixture_t *fx = calloc(1, sizeof *fx);

    assert_non_null(fx);
    fx->kind = kind;
    fx->ctx = fixture_ctx();
    assert_int_equal(base_device_open(fx->ctx, kind, 0, &fx->dev), BASE_OK);
    assert_int_equal(base_stream_create(fx->dev, BASE_STREAM_COMPUTE, "test", &fx->s), BASE_OK);
    *state = fx;
    return 0;
}

int op_fixture_setup_cpu(void **state)
{
    return setup(state, BASE_DEVICE_CPU);
}

int op_fixture_setup_strict(void **state)
{
    return setup(state, BASE_DEVICE_STRICT);
}

int op_fixture_teardown(void **state)
{
    op_fixture_t *fx = *state;

    base_stream_destroy(fx->s);
    base_device_close(fx->dev);
    fixture_ctx_end(fx->ctx);
    free(fx);
    return 0;
}

void op_fixture_sync(op_fixture_t *fx)
{
    base_error_t error;

    if (base_stream_sync(fx->s) == BASE_OK) return;
    if (base_ctx_error(fx->ctx, &error)) fail_msg("stream: %s", error.text);
    fail_msg("stream: an error without a text");
}

void op_fixture_expect_stream_error(op_fixture_t *fx, base_status_t st, const char *piece)
{
    assert_int_equal(base_stream_sync(fx->s), st);
    fixture_expect_error(fx->ctx, st, "INT-01", piece);
    base_stream_destroy(fx->s);
    assert_int_equal(base_stream_create(fx->dev, BASE_STREAM_COMPUTE, "test", &fx->s), BASE_OK);
}

/* ==== tensors ==== */

static int64_t body_bytes(const kern_mat_t *m)
{
    return m->rows > 0 ? ((m->rows - 1) * m->pitch + m->cols) * kern_dtype_bytes(m->dtype) : 0;
}

static uint8_t *image_get(op_tensor_t *t, int64_t bytes)
{
    uint8_t *image = malloc((size_t)bytes);

    assert_non_null(image);
    assert_int_equal(base_download(t->fx->s, image, base_mem(t->mat.mem.buffer, 0), bytes),
                     BASE_OK);
    op_fixture_sync(t->fx);
    return image;
}

static void image_put(op_tensor_t *t, const uint8_t *image, int64_t bytes)
{
    assert_int_equal(base_upload(t->fx->s, base_mem(t->mat.mem.buffer, 0), image, bytes), BASE_OK);
    op_fixture_sync(t->fx);
}

op_tensor_t op_tensor(op_fixture_t *fx, int64_t rows, int64_t cols, int64_t pitch,
                      kern_dtype_t dtype)
{
    op_tensor_t t = {fx, kern_mat(base_mem(NULL, GUARD_BYTES), rows, cols, pitch, dtype)};
    const int64_t bytes = body_bytes(&t.mat) + 2 * GUARD_BYTES;
    uint8_t *image = malloc((size_t)bytes);

    assert_non_null(image);
    memset(image, guard_pattern, (size_t)bytes);
    assert_int_equal(
        base_buffer_alloc(fx->dev, BASE_MEMORY_DEVICE, bytes, "tensor", &t.mat.mem.buffer),
        BASE_OK);
    image_put(&t, image, bytes);
    free(image);
    return t;
}

op_tensor_t op_tensor_from(op_fixture_t *fx, int64_t rows, int64_t cols, int64_t pitch,
                           kern_dtype_t dtype, const double *values)
{
    op_tensor_t t = op_tensor(fx, rows, cols, pitch, dtype);

    op_tensor_set(&t, values);
    return t;
}

static void put_element(uint8_t *at, kern_dtype_t dtype, double value)
{
    const float f = (float)value;
    const int32_t i = dtype == KERN_I32 ? (int32_t)value : 0;
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    bits >>= 16; /* bf16: callers give values that it holds */
    switch (dtype) {
    case KERN_F64:
        memcpy(at, &value, 8);
        break;
    case KERN_F32:
        memcpy(at, &f, 4);
        break;
    case KERN_I32:
        memcpy(at, &i, 4);
        break;
    default:
        memcpy(at, &bits, 2);
        break; /* little-endian */
    }
}

static double get_element(const uint8_t *at, kern_dtype_t dtype)
{
    double d;
    float f;
    int32_t i;
    uint32_t bits = 0;

    switch (dtype) {
    case KERN_F64:
        memcpy(&d, at, 8);
        return d;
    case KERN_F32:
        memcpy(&f, at, 4);
        return (double)f;
    case KERN_I32:
        memcpy(&i, at, 4);
        return (double)i;
    default:
        memcpy((uint8_t *)&bits + 2, at, 2);
        memcpy(&f, &bits, 4);
        return (double)f;
    }
}

static int64_t place(const kern_mat_t *m, int64_t row, int64_t col)
{
    return m->mem.offset + (row * m->pitch + col) * kern_dtype_bytes(m->dtype);
}

void op_tensor_set(op_tensor_t *t, const double *values)
{
    const int64_t bytes = body_bytes(&t->mat) + 2 * GUARD_BYTES;
    uint8_t *image = malloc((size_t)bytes);

    assert_non_null(image);
    memset(image, guard_pattern, (size_t)bytes);
    for (int64_t i = 0; i < t->mat.rows; i++)
        for (int64_t j = 0; j < t->mat.cols; j++)
            put_element(image + place(&t->mat, i, j), t->mat.dtype, values[i * t->mat.cols + j]);
    image_put(t, image, bytes);
    free(image);
}

void op_tensor_get(op_tensor_t *t, double *values)
{
    uint8_t *image = image_get(t, body_bytes(&t->mat) + 2 * GUARD_BYTES);

    for (int64_t i = 0; i < t->mat.rows; i++)
        for (int64_t j = 0; j < t->mat.cols; j++)
            values[i * t->mat.cols + j] = get_element(image + place(&t->mat, i, j), t->mat.dtype);
    free(image);
}

void op_tensor_end(op_tensor_t *t)
{
    const int64_t bytes = body_bytes(&t->mat) + 2 * GUARD_BYTES;
    const int64_t row_bytes = t->mat.cols * kern_dtype_bytes(t->mat.dtype);
    uint8_t *image = image_get(t, bytes);

    for (int64_t i = 0; i < t->mat.rows; i++)
        memset(image + place(&t->mat, i, 0), guard_pattern, (size_t)row_bytes);
    for (int64_t i = 0; i < bytes; i++)
        if (image[i] != guard_pattern)
            fail_msg("byte %lld round a tensor of %lld rows was written",
                     (long long)(i - GUARD_BYTES), (long long)t->mat.rows);
    free(image);
    base_buffer_free(t->mat.mem.buffer);
    t->mat.mem.buffer = NULL;
}

/* ==== values ==== */

double op_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (double)(z >> 11) / (double)(1ull << 52) - 1.0;
}

int64_t op_random_below(uint64_t *state, int64_t n)
{
    const int64_t k = (int64_t)((op_random(state) + 1.0) / 2.0 * (double)n);

    return k < n ? k : n - 1;
}

void op_random_fill(uint64_t seed, int64_t count, double *values)
{
    for (int64_t i = 0; i < count; i++)
        values[i] = op_random(&seed);
}

void op_assert_close(const double *got, const double *want, int64_t count, double tolerance)
{
    double largest = 1.0;

    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(want[i]));
    for (int64_t i = 0; i < count; i++)
        if (!(fabs(got[i] - want[i]) <= tolerance * largest))
            fail_msg("element %lld is %.17g, want %.17g (largest %.3g, tolerance %.3g)",
                     (long long)i, got[i], want[i], largest, tolerance);
}

double op_dot(const double *a, const double *b, int64_t count)
{
    double sum = 0;

    for (int64_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

double *op_doubles(int64_t count)
{
    double *values = calloc((size_t)count + 1, sizeof *values);

    assert_non_null(values);
    return values;
}

/* f at *value + delta */
static double shifted(double *value, double delta, op_scalar_fn scalar, void *user)
{
    const double saved = *value;
    double f;

    *value += delta;
    f = scalar(user);
    *value = saved;
    return f;
}

void op_assert_gradient(double *values, int64_t count, const double *gradient, op_scalar_fn scalar,
                        void *user, int samples, uint64_t seed)
{
    const double h = 1e-3;
    double largest = 1e-3;

    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(gradient[i]));
    for (int n = 0; n < samples; n++) {
        const int64_t i = count <= samples ? n % count : op_random_below(&seed, count);
        double *value = &values[i];
        const double near = shifted(value, h, scalar, user) - shifted(value, -h, scalar, user);
        const double far =
            shifted(value, 2 * h, scalar, user) - shifted(value, -2 * h, scalar, user);
        const double slope = (8 * near - far) / (12 * h);

        if (!(fabs(slope - gradient[i]) <= 1e-7 * largest))
            fail_msg("gradient of element %lld is %.12g, differences give %.12g (largest %.3g)",
                     (long long)i, gradient[i], slope, largest);
    }
}
