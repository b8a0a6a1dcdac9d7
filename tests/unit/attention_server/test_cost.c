#include "tests/support/ctx_fixture.h"

#include "attention_server/cost.h"
#include "base/file.h"

#include <stdio.h>

static as_profile_t small_profile(void)
{
    return (as_profile_t){.device = "a device",
                          .source = "a test",
                          .dtype = "fp32",
                          .group = 4,
                          .head_dim = 64,
                          .row_grain = 32,
                          .num_points = 3,
                          .keys = {128, 256, 1024},
                          .tile_row_ps = {{1500, 2500, 14500}, {4000, 7000, 43000}},
                          .task_ps = {700, 1300}};
}

static void points_are_joined_by_lines(void **state)
{
    const as_profile_t p = small_profile();

    (void)state;
    assert_int_equal(as_profile_tile_row_ps(&p, 0, 128), 1500);
    assert_int_equal(as_profile_tile_row_ps(&p, 0, 192), 2000);
    assert_int_equal(as_profile_tile_row_ps(&p, 0, 256), 2500);
    assert_int_equal(as_profile_tile_row_ps(&p, 0, 640), 2500 + 384 * 12000 / 768);
    assert_int_equal(as_profile_tile_row_ps(&p, 1, 2048), 43000 + 1024 * 36000 / 768);
    assert_int_equal(as_profile_tile_row_ps(&p, 0, 64), 1000);
}

/* Of any task, by adding up its tile rows one by one. */
static int64_t added_up(const as_profile_t *p, int direction, int64_t q0, int64_t q1,
                        int64_t window)
{
    int64_t ps = 0;

    for (int64_t i = q0 / 128; i * 128 < q1; i++)
        ps += as_profile_tile_row_ps(p, direction,
                                     (i + 1) * 128 - as_task_first_key(i * 128, window));
    return ps / 1000;
}

static void tasks_are_sums_of_tile_rows(void **state)
{
    static const int64_t windows[] = {0, 1, 128, 300, 100000};
    const as_profile_t p = small_profile();
    base_ctx_t *ctx = fixture_ctx();

    (void)state;
    for (size_t w = 0; w < sizeof windows / sizeof windows[0]; w++) {
        as_cost_t *c;

        assert_int_equal(as_cost_create(ctx, &p, windows[w], 4000, &c), BASE_OK);
        for (int64_t q0 = 0; q0 < 3968; q0 += 384)
            for (int64_t q1 = q0 + 128; q1 <= 3968; q1 += 640)
                for (int d = 0; d < 2; d++) {
                    const as_task_t task = {.q0 = q0, .q1 = q1, .h0 = 1, .h1 = 4};
                    const int64_t ns = as_cost_rows(c, (as_cost_kind_t)d, q0, q1);

                    assert_in_range(ns + 2 - added_up(&p, d, q0, q1, windows[w]), 0, 4);
                    assert_int_equal(as_cost_task(c, (as_cost_kind_t)d, &task), 1 + 3 * ns);
                }
        assert_int_equal(as_cost_rows(c, AS_COST_BOTH, 256, 1024),
                         as_cost_rows(c, AS_COST_FORWARD, 256, 1024) +
                             as_cost_rows(c, AS_COST_BACKWARD, 256, 1024));
        as_cost_destroy(c);
    }
    fixture_ctx_end(ctx);
}

static void parts_of_tile_rows_are_rounded(void **state)
{
    as_profile_t p = small_profile();
    base_ctx_t *ctx = fixture_ctx();
    as_cost_t *c;

    (void)state;
    for (int i = 0; i < p.num_points; i++)
        p.tile_row_ps[0][i] = p.tile_row_ps[1][i] = 128000;
    assert_int_equal(as_cost_create(ctx, &p, 0, 1000, &c), BASE_OK);
    assert_int_equal(as_cost_rows(c, AS_COST_FORWARD, 0, 1), 32);
    assert_int_equal(as_cost_rows(c, AS_COST_FORWARD, 31, 33), 64);
    assert_int_equal(as_cost_rows(c, AS_COST_FORWARD, 100, 300), 224);
    assert_int_equal(as_cost_rows(c, AS_COST_FORWARD, 100, 1000), 928);
    as_cost_destroy(c);

    p.row_grain = 1;
    p.idle_per_mille[0] = 500;
    assert_int_equal(as_cost_create(ctx, &p, 0, 1000, &c), BASE_OK);
    assert_int_equal(as_cost_rows(c, AS_COST_FORWARD, 0, 128), 128);
    assert_int_equal(as_cost_rows(c, AS_COST_FORWARD, 0, 28), 28 + 50);
    assert_int_equal(as_cost_rows(c, AS_COST_FORWARD, 28, 156), 128 + 14 + 50);
    assert_int_equal(as_cost_rows(c, AS_COST_BACKWARD, 28, 156), 128);
    assert_int_equal(as_cost_rows(c, AS_COST_BOTH, 28, 156), 256 + 14 + 50);
    as_cost_destroy(c);
    fixture_ctx_end(ctx);
}

/* Once for each task, by tiles of 128 from its first key to its last row. */
static void keys_count_once_for_each_task(void **state)
{
    as_profile_t p = small_profile();
    base_ctx_t *ctx = fixture_ctx();
    as_cost_t *without, *c;

    (void)state;
    assert_int_equal(as_cost_create(ctx, &p, 300, 4000, &without), BASE_OK);
    p.key_ps[1] = 5000;
    assert_int_equal(as_cost_create(ctx, &p, 300, 4000, &c), BASE_OK);
    for (int64_t q0 = 0; q0 < 2048; q0 += 96) {
        const int64_t first = as_task_first_key(q0, 300), q1 = q0 + 200;
        const int64_t keys = 5 * ((q1 + 127) / 128 - first / 128);

        assert_int_equal(as_cost_rows(c, AS_COST_FORWARD, q0, q1),
                         as_cost_rows(without, AS_COST_FORWARD, q0, q1));
        assert_int_equal(as_cost_rows(c, AS_COST_BACKWARD, q0, q1),
                         as_cost_rows(without, AS_COST_BACKWARD, q0, q1) + keys);
        assert_int_equal(as_cost_rows(c, AS_COST_BOTH, q0, q1),
                         as_cost_rows(without, AS_COST_BOTH, q0, q1) + keys);
    }
    as_cost_destroy(without);
    as_cost_destroy(c);
    fixture_ctx_end(ctx);
}

static void too_slow_a_device_is_refused(void **state)
{
    as_profile_t p = small_profile();
    base_ctx_t *ctx = fixture_ctx();
    as_cost_t *c;

    (void)state;
    p.tile_row_ps[1][2] = AS_PROFILE_MAX_PS;
    assert_int_equal(as_cost_create(ctx, &p, 0, DATA_MAX_ROWS, &c), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "more than a plan can add up");
    assert_int_equal(as_cost_create(ctx, &p, 0, 0, &c), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "documents of 0 rows");
    fixture_ctx_end(ctx);
}

/* ==== the file ==== */

#define PATH "profile.json"

static void write_text(base_ctx_t *ctx, const char *text)
{
    assert_int_equal(base_file_write(ctx, PATH, text, strlen(text)), BASE_OK);
}

static void read_back(void **state)
{
    as_profile_t p = small_profile();
    base_ctx_t *ctx = fixture_ctx();
    base_error_list_t errors;
    as_profile_t q;
    base_json_t j;
    char text[2048];

    (void)state;
    p.key_ps[0] = 17;
    p.key_ps[1] = 60000;
    base_error_list_init(&errors, ctx);
    base_json_to_buffer(&j, text, sizeof text);
    as_profile_write(&p, &j);
    assert_int_equal(base_json_finish(&j, ctx, PATH), BASE_OK);
    write_text(ctx, text);
    assert_int_equal(as_profile_read(ctx, PATH, &errors, &q), BASE_OK);
    assert_memory_equal(&p, &q, sizeof p);
    base_error_list_deinit(&errors);
    fixture_ctx_end(ctx);
}

static void expect_faults(const char *text, size_t count, const char *id, const char *first)
{
    base_ctx_t *ctx = fixture_ctx();
    base_error_list_t errors;
    as_profile_t p;

    write_text(ctx, text);
    base_error_list_init(&errors, ctx);
    assert_int_equal(as_profile_read(ctx, PATH, &errors, &p), BASE_ERR_FORMAT);
    assert_int_equal(errors.count, count);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, id, first);
    base_error_list_deinit(&errors);
    fixture_ctx_end(ctx);
}

#define HEAD                                                                                       \
    "{\"format\": \"cadre-attention-profile-1\", \"device\": \"d\", \"origin\": \"measured\","     \
    " \"source\": \"s\", \"dtype\": \"bf16\", \"group\": 4, \"head_dim\": 128,"
#define REST                                                                                       \
    "\"forward_idle_per_mille\": 0, \"backward_idle_per_mille\": 0,"                               \
    " \"task_forward_ps\": 0, \"task_backward_ps\": 0}"

static void keys_may_be_missing(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_error_list_t errors;
    as_profile_t p;

    (void)state;
    write_text(ctx, HEAD "\"row_grain\": 32, \"keys\": [128, 256], \"forward_ps\": [1, 2],"
                         "\"backward_ps\": [1, 2]," REST);
    base_error_list_init(&errors, ctx);
    assert_int_equal(as_profile_read(ctx, PATH, &errors, &p), BASE_OK);
    assert_int_equal(p.key_ps[0], 0);
    assert_int_equal(p.key_ps[1], 0);
    base_error_list_deinit(&errors);
    fixture_ctx_end(ctx);
}

static void faults_are_named(void **state)
{
    (void)state;
    expect_faults(HEAD "\"key_backward_ps\": -1, \"row_grain\": 32, \"keys\": [128, 256],"
                       "\"forward_ps\": [1, 2], \"backward_ps\": [1, 2]," REST,
                  1, "DATA-04", "key_backward_ps");
    expect_faults("{\"format\": }", 1, "DATA-02", PATH ":1:");
    expect_faults("{}", 13, "DATA-03", "format");
    expect_faults(HEAD "\"row_grain\": 48, \"keys\": [128, 256], \"forward_ps\": [1, 2],"
                       "\"backward_ps\": [1, 2]," REST,
                  1, "DATA-04", "\"row_grain\": is 48, want a divisor of 128");
    expect_faults(HEAD "\"row_grain\": 32, \"keys\": [128], \"forward_ps\": [1],"
                       "\"backward_ps\": [1]," REST,
                  1, "DATA-04", "\"keys\": has 1 elements");
    expect_faults(HEAD "\"row_grain\": 32, \"keys\": [64, 64], \"forward_ps\": [1, 2, 3],"
                       "\"backward_ps\": [1, 0]," REST,
                  4, "DATA-04", "\"keys\": begins with 64, want 128");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(points_are_joined_by_lines),
        cmocka_unit_test(tasks_are_sums_of_tile_rows),
        cmocka_unit_test(parts_of_tile_rows_are_rounded),
        cmocka_unit_test(keys_count_once_for_each_task),
        cmocka_unit_test(too_slow_a_device_is_refused),
        cmocka_unit_test(read_back),
        cmocka_unit_test(keys_may_be_missing),
        cmocka_unit_test(faults_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
