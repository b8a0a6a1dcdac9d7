/* The exponential and the maximum that CPU ops make vectors of (kernels/cpu/real.h), in fp32. */
#define KERN_REAL   float
#define KERN_SUFFIX f32

#include "tests/support/ctx_fixture.h"

#include "kernels/cpu/real.h"

#include <math.h>

static float from_bits(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Every 61st float of either sign; 1.36 is what all floats give, and the bound is that of the
 * comment in real.h. */
static void error_is_small(void **state)
{
    double worst = 0;
    float at = 0;

    (void)state;
    for (uint32_t bits = 0; bits < 0x42b00000u; bits += 61)
        for (uint32_t sign = 0; sign < 2; sign++) {
            const float x = from_bits(bits | sign << 31);
            const double wanted = exp((double)x);

            if (x < -87.33654F || x > 88.3762F) continue;
            const double error = fabs((double)real_exp_f32(x) - wanted) / wanted;
            if (error > worst) {
                worst = error;
                at = x;
            }
        }
    print_message("largest error %.3f 2^-24 at %g\n", worst * 16777216.0, (double)at);
    assert_true(worst < 1.5 / 16777216.0);
}

static void ends(void **state)
{
    (void)state;
    assert_true(real_exp_f32(0.0F) == 1.0F && real_exp_f32(-0.0F) == 1.0F);
    assert_true(real_exp_f32(-INFINITY) == 0.0F && real_exp_f32(-1e30F) == 0.0F);
    assert_true(real_exp_f32(-88.0F) == 0.0F && real_exp_f32(-87.3F) > 0.0F);
    assert_true(isinf(real_exp_f32(INFINITY)) && isinf(real_exp_f32(89.0F)));
    assert_true(isnan(real_exp_f32(NAN)) && isnan(real_exp_f32(-NAN)));
}

/* The bits of an element do not depend on where in a loop it stands (placement invariance). */
static void place_does_not_matter(void **state)
{
    enum { COUNT = 301 };
    float x[COUNT], y[COUNT];

    (void)state;
    for (int i = 0; i < COUNT; i++)
        x[i] = -(float)(i * 37 % 211) * 0.137F;
    for (int first = 0; first < 40; first++) {
        for (int i = first; i < COUNT; i++)
            y[i] = real_exp(x[i]);
        for (int i = first; i < COUNT; i++) {
            const volatile float alone = x[i];
            const float wanted = real_exp_f32(alone);

            assert_memory_equal(&y[i], &wanted, sizeof wanted);
        }
    }
}

static void maximum(void **state)
{
    float x[100];

    (void)state;
    for (int n = 0; n < 100; n++) {
        for (int at = 0; at < n; at++) {
            for (int i = 0; i < n; i++)
                x[i] = i == at ? 5.0F : (float)(i % 7) - 3.0F;
            assert_true(real_max(n, x, -REAL_INFINITY) == 5.0F);
            assert_true(real_max(n, x, 6.0F) == 6.0F);
            x[at] = NAN;
            assert_true(real_max(n, x, 0.5F) >= 0.5F);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(error_is_small), cmocka_unit_test(ends),
                                       cmocka_unit_test(place_does_not_matter),
                                       cmocka_unit_test(maximum)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
