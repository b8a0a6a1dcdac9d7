#include "tests/support/ctx_fixture.h"

#include "base/meter.h"

static void expect(const base_meter_t *m, int64_t dense, int64_t attention, int64_t exchange,
                   int64_t waiting)
{
    int64_t ns[BASE_NUM_PARTS];

    base_meter_read(m, ns);
    assert_int_equal(ns[BASE_PART_NONE], 0);
    assert_int_equal(ns[BASE_PART_DENSE], dense);
    assert_int_equal(ns[BASE_PART_ATTENTION], attention);
    assert_int_equal(ns[BASE_PART_EXCHANGE], exchange);
    assert_int_equal(ns[BASE_PART_WAITING], waiting);
}

static void the_innermost_part_gets_the_time(void **state)
{
    base_meter_t m = {0};

    (void)state;
    base_meter_begin(&m, BASE_PART_DENSE, 1000);
    base_meter_begin(&m, BASE_PART_ATTENTION, 1010);
    base_meter_end(&m, 1030);
    base_meter_begin(&m, BASE_PART_NONE, 1040);
    base_meter_end(&m, 1047);
    base_meter_end(&m, 1050);
    expect(&m, 10 + 10 + 3, 20, 0, 0);
    base_meter_begin(&m, BASE_PART_ATTENTION, 2000); /* what lies between belongs to nobody */
    base_meter_end(&m, 2001);
    expect(&m, 23, 21, 0, 0);
}

static void a_wait_is_cut_where_the_peer_came(void **state)
{
    base_meter_t m = {0};

    (void)state;
    base_meter_begin(&m, BASE_PART_ATTENTION, 0);
    base_meter_waited(&m, 10, 25, 30); /* came while we waited */
    base_meter_waited(&m, 40, 5, 47);  /* was there before */
    base_meter_waited(&m, 50, 99, 60); /* later than the end of the wait: never seen on its way */
    base_meter_end(&m, 100);
    expect(&m, 0, 10 + 10 + 3 + 40, 5 + 7, 15 + 10);
    base_meter_waited(&m, 200, 200, 230); /* within nothing */
    expect(&m, 0, 63, 42, 25);
}

static void deeper_than_its_stack(void **state)
{
    base_meter_t m = {0};

    (void)state;
    for (int i = 0; i < BASE_METER_DEPTH + 2; i++)
        base_meter_begin(&m, i < BASE_METER_DEPTH ? BASE_PART_DENSE : BASE_PART_ATTENTION, i);
    for (int i = 0; i < BASE_METER_DEPTH + 2; i++)
        base_meter_end(&m, 100 + i);
    base_meter_end(&m, 500); /* one too many */
    expect(&m, 100 + BASE_METER_DEPTH + 1, 0, 0, 0);
    assert_string_equal(base_part_word(BASE_PART_NONE), "idle");
    assert_string_equal(base_part_word(BASE_PART_EXCHANGE), "exchange");
    assert_string_equal(base_part_word(BASE_NUM_PARTS), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_innermost_part_gets_the_time),
        cmocka_unit_test(a_wait_is_cut_where_the_peer_came),
        cmocka_unit_test(deeper_than_its_stack),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
