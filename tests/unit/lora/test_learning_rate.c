/* The schedules against values worked out by hand from transformers' formulas. */
#include "tests/support/ctx_fixture.h"

#include "lora/learning_rate.h"

#include <math.h>

/* Values of a few roundings. */
static void check(base_config_schedule_t schedule, int64_t done, int64_t warmup, int64_t total,
                  double want)
{
    const double got = lora_learning_rate_at(schedule, 0.25, done, warmup, total);

    if (!(fabs(got - 0.25 * want) <= 1e-16)) fail_msg("%.17g, want %.17g", got, 0.25 * want);
}

static void test_constant(void **state)
{
    (void)state;
    check(BASE_CONFIG_SCHEDULE_CONSTANT, 0, 0, 10, 1.0);
    check(BASE_CONFIG_SCHEDULE_CONSTANT, 9, 0, 10, 1.0);
    check(BASE_CONFIG_SCHEDULE_CONSTANT, 0, 4, 10, 0.0); /* the first step has rate 0 */
    check(BASE_CONFIG_SCHEDULE_CONSTANT, 3, 4, 10, 0.75);
    check(BASE_CONFIG_SCHEDULE_CONSTANT, 4, 4, 10, 1.0);
}

static void test_linear(void **state)
{
    (void)state;
    check(BASE_CONFIG_SCHEDULE_LINEAR, 0, 0, 10, 1.0);
    check(BASE_CONFIG_SCHEDULE_LINEAR, 9, 0, 10, 0.1);
    check(BASE_CONFIG_SCHEDULE_LINEAR, 1, 2, 10, 0.5);
    check(BASE_CONFIG_SCHEDULE_LINEAR, 2, 2, 10, 1.0);
    check(BASE_CONFIG_SCHEDULE_LINEAR, 6, 2, 10, 0.5);
    check(BASE_CONFIG_SCHEDULE_LINEAR, 10, 2, 10, 0.0);
    check(BASE_CONFIG_SCHEDULE_LINEAR, 12, 2, 10, 0.0); /* never below 0 */
}

static void test_cosine(void **state)
{
    (void)state;
    check(BASE_CONFIG_SCHEDULE_COSINE, 0, 0, 12, 1.0);
    check(BASE_CONFIG_SCHEDULE_COSINE, 4, 0, 12, 0.75); /* (1 + cos 60) / 2 */
    check(BASE_CONFIG_SCHEDULE_COSINE, 6, 0, 12, 0.5);
    check(BASE_CONFIG_SCHEDULE_COSINE, 8, 0, 12, 0.25);
    check(BASE_CONFIG_SCHEDULE_COSINE, 12, 0, 12, 0.0);
    check(BASE_CONFIG_SCHEDULE_COSINE, 1, 2, 14, 0.5);
    check(BASE_CONFIG_SCHEDULE_COSINE, 6, 2, 14, 0.75);
}

/* All of it is warm-up, or more than there is: no division by 0. */
static void test_short_jobs(void **state)
{
    (void)state;
    check(BASE_CONFIG_SCHEDULE_LINEAR, 0, 1, 1, 0.0);
    check(BASE_CONFIG_SCHEDULE_LINEAR, 0, 0, 1, 1.0);
    check(BASE_CONFIG_SCHEDULE_COSINE, 2, 5, 3, 0.4);
}

static void test_warmup(void **state)
{
    (void)state;
    base_config_adapter_t c = {.warmup_ratio = 0.03};
    assert_int_equal(lora_learning_rate_warmup(&c, 100), 3);
    assert_int_equal(lora_learning_rate_warmup(&c, 101), 4); /* 3.03, rounded up */
    assert_int_equal(lora_learning_rate_warmup(&c, 1), 1);
    c.warmup_ratio = 0.0;
    assert_int_equal(lora_learning_rate_warmup(&c, 100), 0);
    c.warmup_steps = 7;
    assert_int_equal(lora_learning_rate_warmup(&c, 100), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_constant), cmocka_unit_test(test_linear),
        cmocka_unit_test(test_cosine),   cmocka_unit_test(test_short_jobs),
        cmocka_unit_test(test_warmup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
