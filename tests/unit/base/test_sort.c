#include "tests/support/ctx_fixture.h"

#include "base/philox.h"
#include "base/sort.h"

static int by_value(const void *a, const void *b, const void *arg)
{
    const int64_t sign = *(const int64_t *)arg;

    return base_compare_i64(sign * *(const int64_t *)a, sign * *(const int64_t *)b);
}

/* Larger than what is swapped at a time. */
typedef struct wide {
    int64_t value;
    unsigned char rest[92];
} wide_t;

static uint64_t draw(uint32_t round, uint32_t i, uint64_t bound)
{
    const base_philox_t r = base_philox(base_philox_key(7), 0, 0, round, i);

    return base_philox_below(r.word[0], r.word[1], bound);
}

static void every_length_is_sorted(void **state)
{
    int64_t v[200];

    (void)state;
    for (uint32_t n = 0; n <= 200; n++) {
        const int64_t sign = n % 2 == 0 ? 1 : -1;
        int64_t sum = 0;

        for (uint32_t i = 0; i < n; i++) {
            v[i] = (int64_t)draw(n, i, 50) - 25;
            sum += v[i];
        }
        base_sort(v, n, sizeof v[0], by_value, &sign);
        for (uint32_t i = 0; i < n; i++) {
            sum -= v[i];
            if (i > 0) assert_true(sign * v[i - 1] <= sign * v[i]);
        }
        assert_int_equal(sum, 0);
    }
}

static void elements_move_whole(void **state)
{
    const int64_t sign = 1;
    wide_t v[40];

    (void)state;
    for (uint32_t i = 0; i < 40; i++) {
        v[i].value = (int64_t)draw(1000, i, UINT64_C(1) << 40) - (INT64_C(1) << 39);
        memset(v[i].rest, (int)(v[i].value & 0xff), sizeof v[i].rest);
    }
    base_sort(v, 40, sizeof v[0], by_value, &sign);
    for (int i = 0; i < 40; i++) {
        if (i > 0) assert_true(v[i - 1].value <= v[i].value);
        for (size_t j = 0; j < sizeof v[i].rest; j++)
            assert_int_equal(v[i].rest[j], v[i].value & 0xff);
    }
}

static void far_numbers_compare(void **state)
{
    (void)state;
    assert_int_equal(base_compare_i64(INT64_MIN, INT64_MAX), -1);
    assert_int_equal(base_compare_i64(INT64_MAX, INT64_MIN), 1);
    assert_int_equal(base_compare_i64(-3, -3), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_is_sorted),
        cmocka_unit_test(elements_move_whole),
        cmocka_unit_test(far_numbers_compare),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
