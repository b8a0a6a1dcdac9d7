#include "tests/support/ctx_fixture.h"

#include "base/clock.h"

#include <stdio.h>

static void monotonic_and_sleep(void **state)
{
    const int64_t start = base_clock_ns();

    (void)state;
    base_clock_sleep_ns(-1);
    base_clock_sleep_ns(0);
    base_clock_sleep_ns(3000000);
    assert_true(base_clock_ns() - start >= 3000000);
}

static void wall_time_is_this_century(void **state)
{
    (void)state;
    assert_true(base_clock_wall_ns() > INT64_C(946684800) * 1000000000);
}

static void format(void **state)
{
    char text[BASE_CLOCK_TEXT_BYTES];

    (void)state;
    base_clock_format(0, text);
    assert_string_equal(text, "1970-01-01T00:00:00.000Z");
    base_clock_format(INT64_C(1769847841123999999), text);
    assert_string_equal(text, "2026-01-31T08:24:01.123Z");
    base_clock_format(-1, text);
    assert_string_equal(text, "1969-12-31T23:59:59.999Z");
    base_clock_format(INT64_MAX, text);
    assert_string_equal(text, "2262-04-11T23:47:16.854Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(monotonic_and_sleep),
        cmocka_unit_test(wall_time_is_this_century),
        cmocka_unit_test(format),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
