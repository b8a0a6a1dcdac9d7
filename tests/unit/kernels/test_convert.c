#include "tests/support/op_fixture.h"

#include <math.h>
#include <stdlib.h>

#define NUM_PATTERNS 65536

static double bf16_value(uint32_t pattern)
{
    const uint32_t bits = pattern << 16;
    float f;

    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

/* Converts `count` doubles to bf16 and returns the patterns. */
static void to_bf16(op_fixture_t *fx, const double *values, int64_t count, kern_dtype_t from,
                    double *back, uint16_t *patterns)
{
    op_tensor_t a = op_tensor_from(fx, 1, count, count, from, values);
    op_tensor_t out = op_tensor(fx, 1, count, count, KERN_BF16);

    op_run(fx, convert, (&(kern_convert_t){a.mat, out.mat}));
    assert_int_equal(base_download(fx->s, patterns, out.mat.mem, count * 2), BASE_OK);
    op_fixture_sync(fx);
    if (back != NULL) op_tensor_get(&out, back);
    op_tensor_end(&a);
    op_tensor_end(&out);
}

/* Every pattern goes to fp32 and fp64 and comes back as it was; a NaN comes back quiet. */
static void test_all_patterns(void **state)
{
    op_fixture_t *fx = *state;
    uint16_t *patterns = malloc(NUM_PATTERNS * sizeof *patterns),
             *back = malloc(NUM_PATTERNS * sizeof *back);
    double *wide = op_doubles(NUM_PATTERNS);
    op_tensor_t a = op_tensor(fx, 256, 256, 256, KERN_BF16),
                out = op_tensor(fx, 256, 256, 256, KERN_BF16);

    assert_true(patterns != NULL && back != NULL);
    for (int i = 0; i < NUM_PATTERNS; i++)
        patterns[i] = (uint16_t)i;
    for (int f64 = 0; f64 < 2; f64++) {
        op_tensor_t mid = op_tensor(fx, 256, 256, 259, f64 ? KERN_F64 : KERN_F32);

        assert_int_equal(base_upload(fx->s, a.mat.mem, patterns, NUM_PATTERNS * 2), BASE_OK);
        op_run(fx, convert, (&(kern_convert_t){a.mat, mid.mat}));
        op_run(fx, convert, (&(kern_convert_t){mid.mat, out.mat}));
        op_tensor_get(&mid, wide);
        assert_int_equal(base_download(fx->s, back, out.mat.mem, NUM_PATTERNS * 2), BASE_OK);
        op_fixture_sync(fx);
        for (int i = 0; i < NUM_PATTERNS; i++) {
            const double value = bf16_value((uint32_t)i);

            if (isnan(value)) {
                assert_true(isnan(wide[i]));
                assert_int_equal(back[i], i | 0x40);
            } else {
                assert_memory_equal(&wide[i], &value, sizeof value);
                assert_int_equal(back[i], i);
            }
        }
        op_tensor_end(&mid);
    }
    op_tensor_end(&a);
    op_tensor_end(&out);
    free(patterns);
    free(back);
    free(wide);
}

/* Between every two neighbours: a little below the middle, the middle (to even), a little above.
 * From fp64 the middle is missed by one part in 2^52, which rounding to fp32 first would lose. */
static void check_between(op_fixture_t *fx, kern_dtype_t from, double *values, uint16_t *got)
{
    const uint32_t first = 1, last = 0x7f7f; /* positive, finite upper neighbour at most infinity */
    const double nudge = from == KERN_F64 ? 0x1p-52 : 0x1p-23;

    for (int side = -1; side <= 1; side++) {
        int64_t n = 0;

        for (uint32_t p = first; p < last; p++, n++) {
            const double middle = (bf16_value(p) + bf16_value(p + 1)) / 2;

            values[n] = middle * (1 + side * nudge);
            /* subnormal fp32 middles cannot be missed by so little */
            if (from == KERN_F32 && side != 0 && middle < 0x1p-126)
                values[n] = middle + side * 0x1p-149;
        }
        to_bf16(fx, values, n, from, NULL, got);
        for (int64_t i = 0; i < n; i++) {
            const uint32_t p = first + (uint32_t)i;
            const uint32_t want = side < 0 ? p : side > 0 ? p + 1 : p + (p & 1);

            assert_int_equal(got[i], want);
        }
        for (int64_t i = 0; i < n; i++)
            values[i] = -values[i];
        to_bf16(fx, values, n, from, NULL, got);
        for (int64_t i = 0; i < n; i++) {
            const uint32_t p = first + (uint32_t)i;

            assert_int_equal(got[i], 0x8000u | (side < 0 ? p : side > 0 ? p + 1 : p + (p & 1)));
        }
    }
}

static void test_rounding(void **state)
{
    double *values = op_doubles(NUM_PATTERNS);
    uint16_t *got = malloc(NUM_PATTERNS * sizeof *got);

    assert_non_null(got);
    check_between(*state, KERN_F32, values, got);
    check_between(*state, KERN_F64, values, got);
    free(values);
    free(got);
}

static void test_edges(void **state)
{
    const double values[] = {0.0,
                             -0.0,
                             (double)INFINITY,
                             -(double)INFINITY,
                             (double)NAN,
                             1e300,
                             -1e300,
                             1e-300,
                             0x1p-134,
                             0x1.8p-134,
                             (double)3.3895313892515355e38f};
    const uint16_t want[] = {0x0000, 0x8000, 0x7f80, 0xff80, 0x7fc0, 0x7f80,
                             0xff80, 0x0000, 0x0000, 0x0001, 0x7f7f};
    uint16_t got[11];

    to_bf16(*state, values, 11, KERN_F64, NULL, got);
    assert_memory_equal(got, want, sizeof want);
}

static void test_wide(void **state)
{
    enum { ROWS = 3, COLS = 300 };
    op_fixture_t *fx = *state;
    double *values = op_doubles(ROWS * COLS), *got = op_doubles(ROWS * COLS);
    op_tensor_t a, f32, f64;

    op_random_fill(5, ROWS * COLS, values);
    a = op_tensor_from(fx, ROWS, COLS, COLS + 1, KERN_F64, values);
    f32 = op_tensor(fx, ROWS, COLS, COLS + 2, KERN_F32);
    f64 = op_tensor(fx, ROWS, COLS, COLS, KERN_F64);
    op_run(fx, convert, (&(kern_convert_t){a.mat, f64.mat}));
    op_tensor_get(&f64, got);
    assert_memory_equal(got, values, ROWS * COLS * sizeof *got);
    op_run(fx, convert, (&(kern_convert_t){a.mat, f32.mat}));
    op_tensor_get(&f32, got);
    for (int i = 0; i < ROWS * COLS; i++)
        assert_true(got[i] == (double)(float)values[i]);
    op_tensor_end(&a);
    op_tensor_end(&f32);
    op_tensor_end(&f64);
    free(values);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_patterns),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_wide),
    };

    return OP_FIXTURE_RUN(tests);
}
