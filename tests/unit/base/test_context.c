/* Linked with -Wl,--wrap=calloc: a context has no counters yet that could fail its own memory. */
#include "tests/support/ctx_fixture.h"

#include <pthread.h>
#include <stdio.h>

/* Number of calls until one fails; 0: never. A test program may keep a global. */
static int fail_in;

void *__wrap_calloc(size_t count, size_t bytes);
void *__real_calloc(size_t count, size_t bytes);

void *__wrap_calloc(size_t count, size_t bytes)
{
    if (fail_in > 0 && --fail_in == 0) return NULL;
    return __real_calloc(count, bytes);
}

static void create_checks_and_keeps(void **state)
{
    base_ctx_t *ctx = NULL;

    (void)state;
    assert_int_equal(base_ctx_create(-1, 2, NULL, &ctx), BASE_ERR_ARG);
    assert_int_equal(base_ctx_create(2, 2, NULL, &ctx), BASE_ERR_ARG);
    assert_int_equal(base_ctx_create(0, 0, NULL, &ctx), BASE_ERR_ARG);
    assert_null(ctx);
    assert_int_equal(base_ctx_create(1, 3, NULL, &ctx), BASE_OK);
    assert_int_equal(base_ctx_rank(ctx), 1);
    assert_int_equal(base_ctx_size(ctx), 3);
    assert_null(base_ctx_log(ctx));
    assert_null(base_ctx_trace(ctx));
    assert_non_null(base_ctx_memory(ctx));
    assert_int_equal(base_memory_calls(base_ctx_memory(ctx)), 0);
    base_ctx_destroy(ctx);
    base_ctx_destroy(NULL);
}

static void create_survives_each_missing_block(void **state)
{
    base_ctx_t *ctx = NULL;
    base_status_t st = BASE_ERR_NOMEM;
    int n;

    (void)state;
    for (n = 1; st == BASE_ERR_NOMEM; n++) {
        fail_in = n;
        st = base_ctx_create(0, 1, NULL, &ctx);
        if (st < 0) assert_null(ctx);
    }
    fail_in = 0;
    assert_int_equal(st, BASE_OK);
    assert_int_equal(n, 4); /* the context and its counters */
    base_ctx_destroy(ctx);
}

static void first_error_stays(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_error_t error;

    (void)state;
    assert_false(base_ctx_error(ctx, &error));
    assert_int_equal(BASE_FAIL(ctx, BASE_ERR_FORMAT, BASE_MSG_INT_01, "a.c: row %d: no", 7),
                     BASE_ERR_FORMAT);
    assert_int_equal(BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_MEM_01, "later"), BASE_ERR_IO);
    assert_true(base_ctx_error(ctx, &error));
    assert_int_equal(error.status, BASE_ERR_FORMAT);
    assert_int_equal(error.message, BASE_MSG_INT_01);
    assert_int_equal(error.rank, 0);
    assert_string_equal(error.text, "a.c: row 7: no");
    assert_non_null(strstr(error.file, "test_context.c"));
    assert_true(error.line > 0);
    base_ctx_clear_error(ctx);
    assert_false(base_ctx_error(ctx, &error));
    (void)BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_MEM_01, "later");
    fixture_expect_error(ctx, BASE_ERR_IO, "MEM-01", "later");
    fixture_ctx_end(ctx);
}

static void long_text_is_cut(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_error_t error;

    (void)state;
    (void)BASE_FAIL(ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01, "%4000d", 1);
    assert_true(base_ctx_error(ctx, &error));
    assert_int_equal(strlen(error.text), BASE_ERROR_TEXT_BYTES - 1);
    fixture_ctx_end(ctx);
}

static void *fail_often(void *arg)
{
    for (int i = 0; i < 1000; i++)
        (void)BASE_FAIL(arg, BASE_ERR_PEER, BASE_MSG_COMM_01, "rank %d: thread", i);
    return NULL;
}

static void threads_record_one_error(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    pthread_t thread[4];
    base_error_t error;

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, fail_often, ctx), 0);
    for (int i = 0; i < 100; i++)
        (void)base_ctx_error(ctx, &error);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_true(base_ctx_error(ctx, &error));
    assert_string_equal(error.text, "rank 0: thread");
    fixture_ctx_end(ctx);
}

static void stop_flag_and_deadline(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    int32_t flag = 0;

    (void)state;
    assert_false(base_ctx_stop_requested(ctx));
    base_ctx_set_stop_flag(ctx, &flag);
    assert_false(base_ctx_stop_requested(ctx));
    __atomic_store_n(&flag, 1, __ATOMIC_RELEASE);
    assert_true(base_ctx_stop_requested(ctx));
    base_ctx_set_stop_flag(ctx, NULL);
    assert_false(base_ctx_stop_requested(ctx));

    assert_int_equal(base_ctx_deadline_ms(ctx), 120000);
    base_ctx_set_deadline_ms(ctx, 50);
    assert_int_equal(base_ctx_deadline_ms(ctx), 50);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_checks_and_keeps),
        cmocka_unit_test(create_survives_each_missing_block),
        cmocka_unit_test(first_error_stays),
        cmocka_unit_test(long_text_is_cut),
        cmocka_unit_test(threads_record_one_error),
        cmocka_unit_test(stop_flag_and_deadline),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
