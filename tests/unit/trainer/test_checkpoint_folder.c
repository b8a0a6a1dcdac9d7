/* Folders of checkpoints: what is complete, what stays, what is found damaged; and when the next one
 * is due. */
#include "tests/unit/trainer/run_fixture.h"

#include "base/memory.h"
#include "trainer/run/checkpoint_due.h"
#include "trainer/run/checkpoint_folder.h"
#include "trainer/run/checkpoint_h5.h"

#include <signal.h>
#include <sys/resource.h>

#define ROOT "checkpoints"

/* A checkpoint of two files. */
static void save(base_ctx_t *ctx, int64_t microbatch, int64_t keep)
{
    char names[2][TR_CHECKPOINT_FILE_BYTES] = {TR_CHECKPOINT_CONFIG, TR_CHECKPOINT_STATE};
    char sums[2][BASE_SHA256_HEX_BYTES];
    char *folder, *path;

    assert_int_equal(tr_checkpoint_begin(ctx, ROOT, microbatch), BASE_OK);
    assert_int_equal(tr_checkpoint_path(ctx, ROOT, microbatch, 1, &folder), BASE_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(tr_checkpoint_file(ctx, folder, names[i], &path), BASE_OK);
        assert_int_equal(base_file_write(ctx, path, names[i], 8), BASE_OK);
        assert_int_equal(tr_checkpoint_seal(ctx, folder, names[i], sums[i]), BASE_OK);
        base_free(ctx, path);
    }
    assert_int_equal(tr_checkpoint_finish(ctx, ROOT, microbatch, keep, 2, names, sums), BASE_OK);
    base_free(ctx, folder);
}

static void expect_list(base_ctx_t *ctx, const int64_t *want, int64_t num)
{
    int64_t *list, count;

    assert_int_equal(tr_checkpoint_list(ctx, ROOT, &list, &count), BASE_OK);
    assert_int_equal(count, num);
    for (int64_t i = 0; i < num; i++)
        assert_int_equal(list[i], want[i]);
    base_free(ctx, list);
}

static void last_ones_stay(void **state)
{
    run_place_t *p = *state;

    expect_list(p->ctx, NULL, 0); /* no folder yet */
    save(p->ctx, 9, 2);
    save(p->ctx, 999999, 2);
    save(p->ctx, 1000000, 2); /* not in the order of text */
    expect_list(p->ctx, (const int64_t[]){999999, 1000000}, 2);
    assert_int_equal(tr_checkpoint_verify(p->ctx, ROOT "/mb-1000000"), BASE_OK);
    /* What a killed run left, and names that are not ours. */
    assert_int_equal(base_file_make_dirs(p->ctx, ROOT "/mb-000007.tmp"), BASE_OK);
    assert_int_equal(base_file_write(p->ctx, ROOT "/mb-000007.tmp/state.h5", "x", 1), BASE_OK);
    assert_int_equal(base_file_make_dirs(p->ctx, ROOT "/mb-12x"), BASE_OK);
    expect_list(p->ctx, (const int64_t[]){999999, 1000000}, 2);
    save(p->ctx, 1000000, 2); /* again: steps that were taken back */
    assert_int_equal(base_file_kind(ROOT "/mb-000007.tmp"), BASE_FILE_NONE);
    expect_list(p->ctx, (const int64_t[]){999999, 1000000}, 2);
    assert_int_equal(tr_checkpoint_set_aside(p->ctx, ROOT, 1000000), BASE_OK);
    expect_list(p->ctx, (const int64_t[]){999999}, 1);
    assert_int_equal(base_file_kind(ROOT "/mb-1000000.damaged"), BASE_FILE_FOLDER);
    assert_int_equal(tr_checkpoint_begin(p->ctx, ROOT, 5), BASE_OK);
    tr_checkpoint_discard(p->ctx, ROOT, 5);
    assert_int_equal(base_file_kind(ROOT "/mb-000005.tmp"), BASE_FILE_NONE);
}

static void expect_damaged(base_ctx_t *ctx, const char *text)
{
    assert_int_equal(tr_checkpoint_verify(ctx, ROOT "/mb-000009"), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "RUN-06", text);
    save(ctx, 9, 2);
}

static void damage_is_found(void **state)
{
    static const char SUMS[] = ROOT "/mb-000009/SHA256SUMS";
    run_place_t *p = *state;

    save(p->ctx, 9, 2);
    assert_int_equal(base_file_write(p->ctx, ROOT "/mb-000009/state.h5", "state.h", 7), BASE_OK);
    expect_damaged(p->ctx, "mb-000009: state.h5 is not what SHA256SUMS says");
    assert_int_equal(unlink(ROOT "/mb-000009/config.yaml"), 0);
    expect_damaged(p->ctx, "mb-000009: config.yaml is missing");
    assert_int_equal(base_file_write(p->ctx, ROOT "/mb-000009/more.h5", "x", 1), BASE_OK);
    expect_damaged(p->ctx, "does not list all files");
    char *text = run_text(SUMS);
    for (size_t bytes = 0; bytes < strlen(text); bytes += 11) {
        assert_int_equal(base_file_write(p->ctx, SUMS, text, bytes), BASE_OK);
        expect_damaged(p->ctx, "SHA256SUMS");
    }
    free(text);
    assert_int_equal(unlink(SUMS), 0);
    expect_damaged(p->ctx, "SHA256SUMS is missing");
}

/* ==== files ==== */

static base_status_t write_h5(base_ctx_t *ctx, int64_t count, const float *values)
{
    tr_h5_t file, group;

    BASE_TRY(tr_h5_create(ctx, "x.h5", &file));
    base_status_t st = tr_h5_group(&file, "jobs/a", &group);
    if (st >= 0) {
        st = tr_h5_put_int(&group, "step", 7);
        if (st >= 0) st = tr_h5_put_double(&group, "loss", 0.5);
        if (st >= 0) st = tr_h5_put_text(&group, "sha", "abc");
        if (st >= 0) st = tr_h5_put_array(&group, "values", KERN_F32, count, values);
        tr_h5_leave(&group);
    }
    return tr_h5_close(&file, st);
}

static void values_come_back(void **state)
{
    const float values[] = {1.0F, -0.0F, 3.5F};
    run_place_t *p = *state;
    float back[3];
    char text[4];
    int64_t step;
    double loss;
    tr_h5_t file, group;

    assert_int_equal(write_h5(p->ctx, 3, values), BASE_OK);
    assert_int_equal(tr_h5_open(p->ctx, "x.h5", &file), BASE_OK);
    assert_int_equal(tr_h5_group(&file, "jobs/a", &group), BASE_OK);
    assert_int_equal(tr_h5_get_int(&group, "step", &step), BASE_OK);
    assert_int_equal(tr_h5_get_double(&group, "loss", &loss), BASE_OK);
    assert_int_equal(tr_h5_get_text(&group, "sha", text, sizeof text), BASE_OK);
    assert_int_equal(tr_h5_get_array(&group, "values", KERN_F32, 3, back), BASE_OK);
    assert_true(step == 7 && loss == 0.5 && strcmp(text, "abc") == 0);
    assert_memory_equal(back, values, sizeof values);
    assert_int_equal(tr_h5_get_array(&group, "values", KERN_F32, 2, back), BASE_ERR_FORMAT);
    fixture_expect_error(p->ctx, BASE_ERR_FORMAT, "RUN-06",
                         "x.h5: \"jobs/a/values\": has 3 elements, wanted 2");
    assert_int_equal(tr_h5_get_array(&group, "values", KERN_F64, 3, back), BASE_ERR_FORMAT);
    fixture_expect_error(p->ctx, BASE_ERR_FORMAT, "RUN-06", "is not of type fp64");
    assert_int_equal(tr_h5_get_int(&group, "none", &step), BASE_ERR_FORMAT);
    fixture_expect_error(p->ctx, BASE_ERR_FORMAT, "RUN-06", "\"jobs/a/none\": is missing");
    assert_int_equal(tr_h5_get_text(&group, "sha", text, 3), BASE_ERR_FORMAT);
    fixture_expect_error(p->ctx, BASE_ERR_FORMAT, "RUN-06", "right length");
    tr_h5_leave(&group);
    assert_int_equal(tr_h5_close(&file, BASE_OK), BASE_OK);
}

/* Whatever the limit: an error and no file, or a whole file; and the library lives on. */
static void full_disk(void **state)
{
    enum { COUNT = 2000 };
    run_place_t *p = *state;
    float *values = calloc(COUNT, sizeof *values);
    struct rlimit before;
    int failures = 0;

    assert_non_null(values);
    values[COUNT - 1] = 1.0F;
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    for (rlim_t bytes = 1; bytes < 16000; bytes += 333) {
        const struct rlimit small = {bytes, before.rlim_max};

        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        const base_status_t st = write_h5(p->ctx, COUNT, values);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        if (st == BASE_OK) continue;
        failures++;
        assert_int_equal(st, BASE_ERR_SPACE);
        fixture_expect_error(p->ctx, BASE_ERR_SPACE, "RUN-07",
                             "x.h5: cannot write: File too large");
        assert_int_equal(base_file_kind("x.h5"), BASE_FILE_NONE);
    }
    assert_true(failures > 10 && failures < 48);
    assert_int_equal(write_h5(p->ctx, COUNT, values), BASE_OK);
    free(values);
}

/* ==== when ==== */

static int64_t now_ns;
static int64_t test_now(void)
{
    return now_ns;
}

static void is_due(void **state)
{
    base_config_t config = {.train = {.checkpoint_every_minutes = 20}};
    tr_checkpoint_due_t due;

    (void)state;
    now_ns = 5;
    tr_checkpoint_due_init(&due, &config, test_now, 100);
    now_ns += INT64_C(20) * 60 * 1000000000 - 1;
    assert_false(tr_checkpoint_due_ask(&due));
    now_ns++;
    assert_true(tr_checkpoint_due_ask(&due));
    assert_false(tr_checkpoint_due_ask(&due)); /* asked once, until it was tried */
    assert_false(tr_checkpoint_due_here(&due, 1000000));
    tr_checkpoint_due_tried(&due, 103);
    assert_false(tr_checkpoint_due_ask(&due));
    now_ns += INT64_C(20) * 60 * 1000000000;
    assert_true(tr_checkpoint_due_ask(&due));

    config.train.checkpoint_every_minutes = 0;
    config.train.checkpoint_every_microbatches = 7;
    tr_checkpoint_due_init(&due, &config, test_now, 100);
    now_ns += INT64_C(1) << 60;
    assert_false(tr_checkpoint_due_ask(&due));
    assert_false(tr_checkpoint_due_here(&due, 106));
    assert_true(tr_checkpoint_due_here(&due, 107));
    tr_checkpoint_due_tried(&due, 110);
    assert_false(tr_checkpoint_due_here(&due, 116));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(last_ones_stay, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(damage_is_found, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(values_come_back, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(full_disk, run_setup, run_teardown),
        cmocka_unit_test(is_due),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
