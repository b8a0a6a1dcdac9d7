#include "tests/support/ctx_fixture.h"

#include "data/tensor_dtype.h"

#include <math.h>

#define PATTERNS 65536

/* The value of a small float by its definition, in double. */
static double value_of(uint16_t bits, int exponent_bits, int fraction_bits)
{
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1);
    const int fraction = bits & ((1 << fraction_bits) - 1);
    const double sign = (bits & 0x8000u) != 0 ? -1.0 : 1.0;

    if (exponent == (1 << exponent_bits) - 1)
        return fraction != 0 ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0) return sign * ldexp((double)fraction, 1 - bias - fraction_bits);
    return sign * ldexp((double)(fraction + (1 << fraction_bits)), exponent - bias - fraction_bits);
}

static void same_value(double found, double wanted)
{
    if (isnan(wanted)) {
        assert_true(isnan(found));
        return;
    }
    assert_true(found == wanted);
    assert_int_equal(signbit(found), signbit(wanted));
}

static void every_pattern_converts_exactly_and_back(void **state)
{
    (void)state;
    for (uint32_t p = 0; p < PATTERNS; p++) {
        const uint16_t bits = (uint16_t)p;
        const double f16 = value_of(bits, 5, 10), bf16 = value_of(bits, 8, 7);

        same_value((double)data_f16_to_float(bits), f16);
        same_value((double)data_bf16_to_float(bits), bf16);
        if (isnan(f16))
            assert_true(isnan(data_f16_to_float(data_f16_from_float(data_f16_to_float(bits)))));
        else
            assert_int_equal(data_f16_from_float(data_f16_to_float(bits)), bits);
        if (isnan(bf16))
            assert_true(isnan(data_bf16_to_float(data_bf16_from_float(data_bf16_to_float(bits)))));
        else
            assert_int_equal(data_bf16_from_float(data_bf16_to_float(bits)), bits);
    }
}

/* Between each neighbour a and b = a + 1 ulp: the middle goes to the even one, what lies beside it
 * to the nearer one. `last` is the largest finite pattern; its upper neighbour is the infinity,
 * with the middle half an ulp above. */
static void rounds_to_nearest_even(uint16_t last, int exponent_bits, int fraction_bits,
                                   uint16_t (*from_float)(float))
{
    for (uint32_t p = 0; p <= last; p++) {
        const double a = value_of((uint16_t)p, exponent_bits, fraction_bits);
        const double below =
            p == 0 ? 0.0 : value_of((uint16_t)(p - 1), exponent_bits, fraction_bits);
        const double b =
            p == last ? a + (a - below) : value_of((uint16_t)(p + 1), exponent_bits, fraction_bits);
        const float middle = (float)((a + b) / 2);

        if (exponent_bits == 8 && p < 0x80) continue; /* the middle itself is subnormal: below */
        assert_true((double)middle == (a + b) / 2);
        assert_int_equal(from_float(middle), p % 2 == 0 ? p : p + 1);
        assert_int_equal(from_float(nextafterf(middle, 0.0f)), p);
        assert_int_equal(from_float(nextafterf(middle, INFINITY)), p + 1);
        assert_int_equal(from_float(-middle), 0x8000u | (p % 2 == 0 ? p : p + 1));
    }
}

static void narrowing_rounds_to_nearest_even(void **state)
{
    (void)state;
    rounds_to_nearest_even(0x7bff, 5, 10, data_f16_from_float);
    rounds_to_nearest_even(0x7f7f, 8, 7, data_bf16_from_float);
    assert_int_equal(data_f16_from_float(1e30f), 0x7c00);
    assert_int_equal(data_f16_from_float(-INFINITY), 0xfc00);
    assert_int_equal(data_f16_from_float(1e-30f), 0);
    assert_int_equal(data_bf16_from_float(3.4028235e38f), 0x7f80);
}

static void arrays_convert_from_any_address(void **state)
{
    const data_dtype_t dtypes[] = {DATA_F16, DATA_BF16, DATA_F32, DATA_F64};
    const float values[] = {1.5f, -0.25f, 0.0f, 1024.0f, -3.0f};
    unsigned char bytes[1 + sizeof(double) * 5];

    (void)state;
    for (size_t d = 0; d < 4; d++) {
        float narrow[5];
        double wide[5];

        data_dtype_from_float(dtypes[d], values, bytes + 1, 5);
        data_dtype_to_float(dtypes[d], bytes + 1, narrow, 5);
        data_dtype_to_double(dtypes[d], bytes + 1, wide, 5);
        for (int i = 0; i < 5; i++) {
            assert_true(narrow[i] == values[i]);
            assert_true(wide[i] == (double)values[i]);
        }
        data_dtype_to_float(dtypes[d], bytes, narrow, 0);
    }
}

static void dtypes_are_found_by_name(void **state)
{
    data_dtype_t dtype = DATA_U8;

    (void)state;
    for (int i = 0; i < DATA_NUM_DTYPES; i++) {
        assert_true(data_dtype_find(data_dtype_name((data_dtype_t)i), &dtype));
        assert_int_equal(dtype, i);
        if (i > 0) assert_true(data_dtype_bytes(dtype) >= data_dtype_bytes((data_dtype_t)(i - 1)));
    }
    assert_false(data_dtype_find("bf16", &dtype));
    assert_null(data_dtype_name(DATA_NUM_DTYPES));
    assert_int_equal(data_dtype_bytes(DATA_BF16), 2);
    assert_true(data_dtype_is_float(DATA_BF16));
    assert_false(data_dtype_is_float(DATA_I32));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pattern_converts_exactly_and_back),
        cmocka_unit_test(narrowing_rounds_to_nearest_even),
        cmocka_unit_test(arrays_convert_from_any_address),
        cmocka_unit_test(dtypes_are_found_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
