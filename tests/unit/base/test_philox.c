#include "tests/support/ctx_fixture.h"

#include "base/philox.h"

#include <math.h>

typedef struct known {
    uint32_t counter[4], key[2], want[4];
} known_t;

/* The lines "philox4x32 10" of tests/kat_vectors in Random123 1.14. */
static void random123_known_answers(void **state)
{
    static const known_t known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const known_t *k = &known[i];
        const base_philox_key_t key = base_philox_key((uint64_t)k->key[1] << 32 | k->key[0]);
        const base_philox_t r =
            base_philox(key, k->counter[0], k->counter[1], k->counter[2], k->counter[3]);

        assert_memory_equal(r.word, k->want, sizeof k->want);
    }
}

/* The lines "philox4x32 7" there. */
static void random123_fewest_rounds(void **state)
{
    static const known_t known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x5207ddc2, 0x45165e59, 0x4d8ee751, 0x8c52f662}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0x4dfccaba, 0x190a87f0, 0xc47362ba, 0xb6b5242a}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const known_t *k = &known[i];
        const base_philox_key_t key = base_philox_key((uint64_t)k->key[1] << 32 | k->key[0]);
        const base_philox_t r = base_philox_rounds(BASE_PHILOX_FEWEST_ROUNDS, key, k->counter[0],
                                                   k->counter[1], k->counter[2], k->counter[3]);

        assert_memory_equal(r.word, k->want, sizeof k->want);
    }
}

static void uniform_ends(void **state)
{
    (void)state;
    assert_true(base_philox_float(0) == 0.0f);
    assert_true(base_philox_float(0xffffffffu) == 1.0f - 0x1p-24f);
    assert_true(base_philox_float(0x80000000u) == 0.5f);
    assert_true(base_philox_double(0, 0) == 0.0);
    assert_true(base_philox_double(0xffffffffu, 0xffffffffu) == 1.0 - 0x1p-53);
    assert_true(base_philox_double(0x40000000u, 0) == 0.25);
}

__extension__ typedef unsigned __int128 wide_t;

static void below_is_the_exact_product(void **state)
{
    static const uint64_t bounds[] = {
        0, 1, 2, 3, 10, 0xffffffff, 0x100000000, 0x123456789abcdef, UINT64_MAX};
    const base_philox_key_t key = base_philox_key(7);

    (void)state;
    for (uint32_t i = 0; i < 2000; i++) {
        const base_philox_t r = base_philox(key, i, 0, 0, 0);
        const uint64_t x = (uint64_t)r.word[0] << 32 | r.word[1];

        for (size_t b = 0; b < sizeof bounds / sizeof bounds[0]; b++) {
            const uint64_t got = base_philox_below(r.word[0], r.word[1], bounds[b]);

            assert_true(got == (uint64_t)((wide_t)x * bounds[b] >> 64));
        }
    }
    assert_true(base_philox_below(0xffffffffu, 0xffffffffu, UINT64_MAX) == UINT64_MAX - 1);
}

static void normals_have_the_moments(void **state)
{
    const base_philox_key_t key = base_philox_key(UINT64_C(0x123456789));
    const int n = 100000;
    double sum = 0.0, square = 0.0, product = 0.0, fourth = 0.0, normal[2];

    (void)state;
    for (int i = 0; i < n; i++) {
        base_philox_normal2(base_philox(key, (uint32_t)i, 1, 2, 3), normal);
        assert_true(isfinite(normal[0]) && isfinite(normal[1]));
        sum += normal[0] + normal[1];
        square += normal[0] * normal[0] + normal[1] * normal[1];
        product += normal[0] * normal[1];
        fourth += pow(normal[0], 4.0) + pow(normal[1], 4.0);
    }
    /* Five standard errors each. */
    assert_true(fabs(sum / (2 * n)) < 5.0 / sqrt(2.0 * n));
    assert_true(fabs(square / (2 * n) - 1.0) < 5.0 * sqrt(2.0 / (2.0 * n)));
    assert_true(fabs(product / n) < 5.0 / sqrt((double)n));
    assert_true(fabs(fourth / (2 * n) - 3.0) < 5.0 * sqrt(96.0 / (2.0 * n)));
}

/* The ends of the uniform numbers must not reach infinity. */
static void normals_at_the_ends(void **state)
{
    const base_philox_t zero = {{0, 0, 0, 0}};
    const base_philox_t ones = {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}};
    double normal[2];

    (void)state;
    base_philox_normal2(zero, normal);
    assert_true(normal[0] == 0.0 && normal[1] == 0.0);
    base_philox_normal2(ones, normal);
    assert_true(normal[0] > 8.5 && normal[0] < 8.7 && isfinite(normal[1]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random123_known_answers),
        cmocka_unit_test(random123_fewest_rounds),
        cmocka_unit_test(uniform_ends),
        cmocka_unit_test(below_is_the_exact_product),
        cmocka_unit_test(normals_have_the_moments),
        cmocka_unit_test(normals_at_the_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
