/* The profile that is made of times: of a device whose times are known. */
#include "tests/support/ctx_fixture.h"
#include "trainer/bench/bench_plan_profile.h"

#define MAX_KEYS 131072
#define HELD_OUT 16

/* A device that takes, picoseconds: `task` for a task, `key` for 128 of its keys, and for a tile row that sees n keys
 * `row` + `pair` n. Rows are charged by 32. */
typedef struct device {
    int64_t task, key, row, pair;
} device_t;

static int64_t time_ns(const device_t *d, int64_t q0, int64_t q1)
{
    const int64_t end = (q1 + 31) / 32 * 32;
    int64_t ps = d->task + d->key * ((q1 + 127) / 128);

    for (int64_t row = q0; row < end;) {
        const int64_t next = (row / 128 + 1) * 128, stop = next < end ? next : end;

        ps += (d->row + d->pair * next) * (stop - row) / 128;
        row = stop;
    }
    return ps / 1000;
}

static base_status_t time_it(void *rig, tr_timed_t *timed)
{
    const device_t *both = rig;

    assert_true(timed->q0 >= 0 && timed->q0 < timed->q1 && timed->q1 <= MAX_KEYS);
    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++)
        timed->ns[d] = time_ns(&both[d], timed->q0, timed->q1);
    return BASE_OK;
}

static double worst(const tr_held_out_t *held_out)
{
    double worst = 0;

    for (int32_t i = 0; i < HELD_OUT; i++)
        for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++) {
            const double measured = (double)held_out[i].measured_ns[d];
            const double error = ((double)held_out[i].predicted_ns[d] - measured) / measured;

            if (error > worst) worst = error;
            if (-error > worst) worst = -error;
        }
    return 100 * worst;
}

/* The worst error, per cent. */
static double make(device_t both[AS_PROFILE_DIRECTIONS], int32_t each_side, int32_t many,
                   as_profile_t *profile)
{
    const tr_profile_device_t device = {.name = "a device",
                                        .dtype = "bf16",
                                        .command = "a test",
                                        .row_grain = 32,
                                        .rounds = 1,
                                        .max_held_rows = 4096,
                                        .each_side = each_side,
                                        .many = many,
                                        .time = time_it,
                                        .rig = both};
    const tr_bench_profile_t options = {
        .group = 4, .head_dim = 128, .max_keys = MAX_KEYS, .num_held_out = HELD_OUT};
    base_ctx_t *ctx = fixture_ctx();
    tr_held_out_t held_out[HELD_OUT];

    assert_int_equal(tr_profile_make(ctx, &options, &device, profile, held_out), BASE_OK);
    fixture_ctx_end(ctx);
    return worst(held_out);
}

/* A backward that stores gradients of all keys for each task: what an H200 does, about. */
static const device_t H200[AS_PROFILE_DIRECTIONS] = {{40000, 0, 30000, 400},
                                                     {129000, 75000, 100000, 1250}};

static void keys_are_told_from_rows(void **state)
{
    device_t both[] = {H200[0], H200[1]};
    as_profile_t p;

    (void)state;
    assert_true(make(both, 4, 16, &p) < 1);
    assert_in_range(p.key_ps[0], 0, 300);
    assert_in_range(p.key_ps[1], 73000, 77000);
    assert_int_equal(p.idle_per_mille[0], 0);
    assert_in_range(p.idle_per_mille[1], 0, 10);
    assert_in_range(p.task_ps[1], 125000, 133000);
}

/* Points of three tile rows alone make the backward of long tasks too dear: why there is key_ps. */
static void without_keys_long_tasks_are_misjudged(void **state)
{
    device_t both[] = {H200[0], H200[1]};
    as_profile_t p;

    (void)state;
    assert_true(make(both, 1, 0, &p) > 10);
    assert_int_equal(p.key_ps[1], 0);
}

static void nothing_is_made_of_keys_that_take_nothing(void **state)
{
    device_t both[] = {H200[0], H200[0]};
    as_profile_t p;

    (void)state;
    assert_true(make(both, 1, 0, &p) < 1);
    assert_true(make(both, 4, 16, &p) < 1);
    assert_in_range(p.key_ps[1], 0, 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_told_from_rows),
        cmocka_unit_test(without_keys_long_tasks_are_misjudged),
        cmocka_unit_test(nothing_is_made_of_keys_that_take_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
