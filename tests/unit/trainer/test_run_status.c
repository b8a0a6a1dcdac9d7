#include "tests/unit/trainer/run_fixture.h"

#include "trainer/run/run_status.h"

#include <time.h>

/* The test's own clock. */
static int64_t now_ns;
static int64_t test_now(void)
{
    return now_ns;
}

#define SECOND INT64_C(1000000000)

static void throttled(void **state)
{
    run_place_t *p = *state;
    tr_run_status_t *status = NULL;

    now_ns = 100 * SECOND;
    assert_int_equal(tr_run_status_create(p->ctx, "status.json", test_now, 7, &status), BASE_OK);
    run_expect_piece("status.json", "{\"state\":\"running\",\"microbatch\":7,\"time\":\"20");
    run_expect_piece("status.json", "\"error\":null}\n");
    /* Called every second for a minute: written often enough that a reader may give up after 10 s,
     * and not each time. */
    int writes = 0;
    for (int i = 1; i <= 60; i++) {
        now_ns += SECOND;
        assert_int_equal(unlink("status.json"), 0);
        assert_int_equal(tr_run_status_update(status, 7 + i), BASE_OK);
        if (base_file_kind("status.json") == BASE_FILE_REGULAR) {
            writes++;
            assert_true(i % 5 == 0);
        } else {
            assert_int_equal(base_file_write(p->ctx, "status.json", "", 0), BASE_OK);
        }
    }
    assert_int_equal(writes, 12);
    tr_run_status_destroy(status);
    tr_run_status_destroy(NULL);
    run_expect_piece("status.json", "\"microbatch\":67,");
}

static void ends(void **state)
{
    run_place_t *p = *state;
    tr_run_status_t *status = NULL;
    base_error_t error;

    assert_int_equal(tr_run_status_create(p->ctx, "status.json", test_now, 0, &status), BASE_OK);
    assert_int_equal(tr_run_status_set(status, TR_RUN_STATE_SAVED, 12, NULL), BASE_OK);
    run_expect_piece("status.json", "\"saved\",\"microbatch\":12,");
    assert_int_equal(tr_run_status_set(status, TR_RUN_STATE_DONE, 13, NULL), BASE_OK);
    run_expect_piece("status.json", "\"done\",\"microbatch\":13,");
    (void)BASE_FAIL(p->ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_07, "a \"b\"");
    assert_true(base_ctx_error(p->ctx, &error));
    base_ctx_clear_error(p->ctx);
    assert_int_equal(tr_run_status_set(status, TR_RUN_STATE_FAILED, 13, &error), BASE_OK);
    run_expect_piece("status.json", "\"failed\",");
    run_expect_piece("status.json", "\"error\":\"DATA-07: a \\\"b\\\"\"}");
    /* The longest sentence there can be, of bytes that are written as six each. */
    memset(error.text, 1, sizeof error.text - 1);
    assert_int_equal(tr_run_status_set(status, TR_RUN_STATE_FAILED, 13, &error), BASE_OK);
    tr_run_status_destroy(status);
    assert_null(tr_run_state_word(TR_RUN_STATE_COUNT));
}

/* A failed write is reported, and the next call tries again at once. */
static void refused(void **state)
{
    run_place_t *p = *state;
    tr_run_status_t *status = NULL;

    assert_int_equal(tr_run_status_create(p->ctx, "no/status.json", test_now, 0, &status),
                     BASE_ERR_IO);
    fixture_expect_error(p->ctx, BASE_ERR_IO, "IO-02", "no/status.json: cannot create");
    assert_int_equal(tr_run_status_create(p->ctx, "status.json", test_now, 0, &status), BASE_OK);
    assert_int_equal(symlink("/dev/full", "status.json.tmp-0000"), 0);
    now_ns += 6 * SECOND;
    assert_int_equal(tr_run_status_update(status, 1), BASE_ERR_SPACE);
    fixture_expect_error(p->ctx, BASE_ERR_SPACE, "IO-02",
                         "status.json: cannot write: No space left");
    run_expect_piece("status.json", "\"microbatch\":0,"); /* the old one, whole */
    assert_int_equal(tr_run_status_update(status, 2), BASE_OK);
    run_expect_piece("status.json", "\"microbatch\":2,");
    tr_run_status_destroy(status);
}

/* Nobody updates, and the file is written again all the same: it was taken away. What a failed
 * write says is kept from the run. */
static void beats(void **state)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    run_place_t *p = *state;
    tr_run_status_t *status = NULL;

    assert_int_equal(tr_run_status_create(p->ctx, "status.json", test_now, 7, &status), BASE_OK);
    now_ns += 6 * SECOND;
    assert_int_equal(unlink("status.json"), 0);
    assert_int_equal(symlink("/dev/full", "status.json.tmp-0000"), 0);
    assert_int_equal(tr_run_status_beat(status, 1000000), BASE_OK);
    for (int i = 0; i < 6000 && base_file_kind("status.json") == BASE_FILE_NONE; i++)
        (void)nanosleep(&pause, NULL);
    run_expect_piece("status.json", "\"running\",\"microbatch\":7,");
    assert_int_equal(tr_run_status_set(status, TR_RUN_STATE_DONE, 9, NULL), BASE_OK);
    tr_run_status_destroy(status);
    run_expect_piece("status.json", "\"done\",\"microbatch\":9,");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(throttled, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(ends, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(refused, run_setup, run_teardown),
        cmocka_unit_test_setup_teardown(beats, run_setup, run_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
