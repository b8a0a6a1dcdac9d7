/* kernels/exact_quotient.h against the processor's own quotients and roots: every mantissa for the
 * root; for the quotient the numerators that come closest to the middle between two floats, and
 * random ones; each from all approximations that the header allows. */
#include "kernels/exact_quotient.h"

#include "tests/support/ctx_fixture.h"

static float float_of(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static float moved(float x, int ulps)
{
    return float_of(kern_exact_bits(x) + (uint32_t)ulps);
}

static void assert_same(float got, float want)
{
    if (kern_exact_bits(got) != kern_exact_bits(want))
        fail_msg("got %a, want %a", (double)got, (double)want);
}

/* [1, 4) has every mantissa with either parity of the exponent. */
static void every_root(void **state)
{
    (void)state;
    for (uint32_t bits = 0x3f800000u; bits < 0x40800000u; bits++) {
        const float x = float_of(bits), want = sqrtf(x), inverse = (float)(1.0 / sqrt((double)x));

        for (int ulps = -3; ulps <= 3; ulps += 3)
            if (kern_exact_root(x, moved(inverse, ulps)) != want)
                fail_msg("root of %a from %d ulp", (double)x, ulps);
    }
}

static void roots_at_the_ends(void **state)
{
    const float ends[] = {0x1p-101F, 0x1.000002p-101F, 0x1.fffffep-101F, 0x1p126F, 0x1.fffffep125F};

    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        for (int ulps = -3; ulps <= 3; ulps++)
            assert_same(kern_exact_root(ends[i], moved(1.0F / sqrtf(ends[i]), ulps)),
                        sqrtf(ends[i]));
    assert_same(kern_exact_root(0.0F, INFINITY), 0.0F);
    assert_same(kern_exact_root(-0.0F, -INFINITY), -0.0F);
}

static void try_quotient(float a, float b)
{
    const float want = a / b, inverse = (float)(1.0 / (double)b);

    if (kern_exact_quotient_by(a, b, inverse) != want)
        fail_msg("%a / %a by the rounded reciprocal", (double)a, (double)b);
    for (int ulps = -2; ulps <= 2; ulps++)
        if (kern_exact_quotient(a, b, moved(inverse, ulps)) != want)
            fail_msg("%a / %a from %d ulp", (double)a, (double)b, ulps);
}

/* Of a divisor with the odd mantissa B: the numerators A for which A 2^k - M B = e is small, where M
 * has 25 bits and is odd: the middle between two quotients is M 2^-k. */
static void try_middles(uint64_t B)
{
    const uint64_t bottom = UINT64_C(1) << 24;
    uint64_t inverse = B; /* of B, modulo 2^64, by Newton */

    for (int i = 0; i < 5; i++)
        inverse *= 2 - B * inverse;
    for (int k = 24; k <= 25; k++)
        for (int64_t e = -3; e <= 3; e += 2) {
            const uint64_t M = (0 - (uint64_t)e * inverse) & ((UINT64_C(1) << k) - 1);
            const uint64_t middle = k == 24 ? M + bottom : M;
            const uint64_t A = (middle * B + (uint64_t)e) >> k;

            if (middle < bottom || A < bottom / 2 || A >= bottom) continue;
            assert_int_equal(A << k, middle * B + (uint64_t)e);
            try_quotient((float)A, (float)B);
        }
}

static void hardest_quotients(void **state)
{
    const uint64_t first = UINT64_C(1) << 23, end = first + KERN_EXACT_MANTISSAS;

    (void)state;
    for (uint64_t B = first + 1; B < end; B += 2 * 37)
        try_middles(B);
    for (uint64_t B = end - 4095; B < end; B += 2)
        try_middles(B);
    assert_true(kern_exact_divisor((float)(end - 1)));
    assert_false(kern_exact_divisor((float)end));
}

/* The mantissas that are left out are so for a reason: from an ulp beside, the last one fails. */
static void left_out(void **state)
{
    const float b = 0x1.fffffep23F, inverse = 1.0F / b;

    (void)state;
    assert_false(kern_exact_divisor(b));
    assert_true(kern_exact_quotient(0x1p23F, b, moved(inverse, 1)) != 0x1p23F / b);
}

static void random_quotients(void **state)
{
    uint64_t x = 1;

    (void)state;
    for (int i = 0; i < 1000000; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        const uint32_t a = (uint32_t)(x >> 41) & 0x7fffffu, b = (uint32_t)(x >> 18) & 0x7fffffu;

        if (b < KERN_EXACT_MANTISSAS)
            try_quotient(float_of(0x3f800000u | a), float_of(0x3f800000u | b));
    }
}

/* Where the ranges end, with either sign and a zero that keeps its own. */
static void quotients_at_the_ends(void **state)
{
    const float as[] = {
        0x1p-95F, 0x1.fffffep-95F, 0x1p62F, 0x1.fffffep61F, -0x1.234566p-95F, -0x1.fffffep61F,
        0.0F,     -0.0F,           1e-8F,   -3.0F};
    const float bs[] = {0x1p-60F, 0x1.fff7eep-60F, 0x1p31F, 0x1.ffe7fep30F, 1e-8F, 3.0F};

    (void)state;
    for (size_t i = 0; i < sizeof as / sizeof as[0]; i++)
        for (size_t j = 0; j < sizeof bs / sizeof bs[0]; j++) {
            assert_true(kern_exact_divisor(bs[j]));
            assert_same(kern_exact_quotient(as[i], bs[j], 1.0F / bs[j]), as[i] / bs[j]);
            assert_same(kern_exact_quotient_by(as[i], bs[j], 1.0F / bs[j]), as[i] / bs[j]);
        }
}

static void ranges(void **state)
{
    (void)state;
    assert_true(kern_exact_between(0.0F, 0x1p-95F, 0x1p60F));
    assert_true(kern_exact_between(-0.0F, 0x1p-95F, 0x1p60F));
    assert_true(kern_exact_between(0x1p-95F, 0x1p-95F, 0x1p60F));
    assert_true(kern_exact_between(-0x1p60F, 0x1p-95F, 0x1p60F));
    assert_false(kern_exact_between(0x1.fffffep-96F, 0x1p-95F, 0x1p60F));
    assert_false(kern_exact_between(-0x1.000002p60F, 0x1p-95F, 0x1p60F));
    assert_false(kern_exact_between(0x1p-149F, 0x1p-95F, 0x1p60F));
    assert_false(kern_exact_between(INFINITY, 0x1p-95F, 0x1p60F));
    assert_false(kern_exact_between(NAN, 0x1p-95F, 0x1p60F));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_root),
        cmocka_unit_test(roots_at_the_ends),
        cmocka_unit_test(hardest_quotients),
        cmocka_unit_test(left_out),
        cmocka_unit_test(random_quotients),
        cmocka_unit_test(quotients_at_the_ends),
        cmocka_unit_test(ranges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
