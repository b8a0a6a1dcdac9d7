#include "tests/support/ctx_fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void blocks_are_counted(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_memory_t *memory = base_ctx_memory(ctx);
    char *a = base_alloc(ctx, 100, "a");
    int64_t *b = base_calloc(ctx, 50, sizeof *b, "b");

    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal((uintptr_t)a % 16, 0);
    for (int i = 0; i < 50; i++)
        assert_int_equal(b[i], 0);
    assert_int_equal(base_memory_live(memory, BASE_RESOURCE_HOST), 2);
    assert_int_equal(base_memory_bytes(memory, BASE_RESOURCE_HOST), 500);
    assert_int_equal(base_memory_calls(memory), 2);
    base_free(ctx, a);
    base_free(ctx, NULL);
    assert_int_equal(base_memory_bytes(memory, BASE_RESOURCE_HOST), 400);
    assert_int_equal(base_memory_peak(memory, BASE_RESOURCE_HOST), 500);
    base_free(ctx, b);
    assert_int_equal(base_memory_live_total(memory), 0);
    assert_int_equal(base_memory_bytes(memory, BASE_RESOURCE_HOST), 0);
    assert_int_equal(base_memory_calls(memory), 2);
    fixture_ctx_end(ctx);
}

static void realloc_keeps_contents_and_counts(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_memory_t *memory = base_ctx_memory(ctx);
    int *p = base_realloc(ctx, NULL, 4, sizeof *p, "p");
    int *q;

    (void)state;
    assert_non_null(p);
    for (int i = 0; i < 4; i++)
        p[i] = i;
    q = base_realloc(ctx, p, 4000, sizeof *q, "p");
    assert_non_null(q);
    for (int i = 0; i < 4; i++)
        assert_int_equal(q[i], i);
    assert_int_equal(base_memory_bytes(memory, BASE_RESOURCE_HOST), 4000 * (int64_t)sizeof *q);
    assert_int_equal(base_memory_live(memory, BASE_RESOURCE_HOST), 1);
    assert_int_equal(base_memory_calls(memory), 2);

    /* A refused one leaves the old block. */
    base_memory_fail_at(memory, 1);
    assert_null(base_realloc(ctx, q, 8000, sizeof *q, "larger"));
    fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "larger");
    assert_int_equal(q[3], 3);
    assert_null(base_realloc(ctx, q, INT64_MAX, sizeof *q, "huge"));
    fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "huge");
    assert_int_equal(base_memory_bytes(memory, BASE_RESOURCE_HOST), 4000 * (int64_t)sizeof *q);
    base_free(ctx, q);
    fixture_ctx_end(ctx);
}

static void empty_blocks_and_strings(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    void *a = base_alloc(ctx, 0, "a"), *b = base_calloc(ctx, 0, 8, "b");
    char *s = base_strdup(ctx, "legal", "name");

    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    assert_ptr_not_equal(a, b);
    assert_string_equal(s, "legal");
    base_memory_fail_at(base_ctx_memory(ctx), 1);
    assert_null(base_strdup(ctx, "x", "second name"));
    fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "rank 0: second name: 2 bytes");
    base_free(ctx, s);
    base_free(ctx, b);
    base_free(ctx, a);
    fixture_ctx_end(ctx);
}

static void sizes_that_do_not_exist(void **state)
{
    base_ctx_t *ctx = fixture_ctx();

    (void)state;
    assert_null(base_calloc(ctx, -1, 4, "negative"));
    fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "negative: -1 elements");
    assert_null(base_calloc(ctx, INT64_MAX, INT64_MAX, "product"));
    fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "product");
    assert_null(base_alloc(ctx, SIZE_MAX, "everything"));
    fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "everything");
    assert_int_equal(base_memory_live_total(base_ctx_memory(ctx)), 0);
    fixture_ctx_end(ctx);
}

static void the_nth_request_fails_once(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    void *p[4];

    (void)state;
    base_memory_fail_at(base_ctx_memory(ctx), 3);
    for (int i = 0; i < 4; i++)
        p[i] = base_alloc(ctx, 8, "p");
    assert_non_null(p[0]);
    assert_non_null(p[1]);
    assert_null(p[2]);
    assert_non_null(p[3]);
    for (int i = 0; i < 4; i++)
        base_free(ctx, p[i]);
    base_memory_fail_at(base_ctx_memory(ctx), 1);
    base_memory_fail_at(base_ctx_memory(ctx), 0);
    p[0] = base_alloc(ctx, 8, "p");
    assert_non_null(p[0]);
    base_free(ctx, p[0]);
    base_ctx_clear_error(ctx);
    fixture_ctx_end(ctx);
}

static void other_memory_and_objects(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_memory_t *memory = base_ctx_memory(ctx);

    (void)state;
    assert_int_equal(base_memory_count_alloc(memory, BASE_RESOURCE_DEVICE, 1000), BASE_OK);
    assert_int_equal(base_memory_count_alloc(memory, BASE_RESOURCE_PINNED, 10), BASE_OK);
    assert_int_equal(base_memory_count_alloc(memory, BASE_RESOURCE_STREAM, 1), BASE_ERR_ARG);
    assert_int_equal(base_memory_count_alloc(memory, BASE_RESOURCE_DEVICE, -1), BASE_ERR_ARG);
    base_memory_fail_at(memory, 1);
    assert_int_equal(base_memory_count_alloc(memory, BASE_RESOURCE_DEVICE, 1), BASE_ERR_NOMEM);
    assert_int_equal(base_memory_live(memory, BASE_RESOURCE_DEVICE), 1);
    base_memory_count_open(memory, BASE_RESOURCE_STREAM);
    base_memory_count_open(memory, BASE_RESOURCE_STREAM);
    assert_int_equal(base_memory_live(memory, BASE_RESOURCE_STREAM), 2);
    assert_int_equal(base_memory_live_total(memory), 4);
    assert_int_equal(base_memory_calls(memory), 3);
    base_memory_count_close(memory, BASE_RESOURCE_STREAM);
    base_memory_count_close(memory, BASE_RESOURCE_STREAM);
    base_memory_count_free(memory, BASE_RESOURCE_DEVICE, 1000);
    base_memory_count_free(memory, BASE_RESOURCE_PINNED, 10);
    assert_int_equal(base_memory_peak(memory, BASE_RESOURCE_DEVICE), 1000);
    fixture_ctx_end(ctx);
}

static void report_names_what_was_used(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    void *p = base_alloc(ctx, 123, "p");
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);

    (void)state;
    assert_non_null(out);
    base_memory_report(base_ctx_memory(ctx), out);
    assert_int_equal(fclose(out), 0);
    assert_non_null(strstr(text, "host memory"));
    assert_non_null(strstr(text, "123 bytes"));
    assert_null(strstr(text, "streams"));
    free(text);
    base_free(ctx, p);
    assert_string_equal(base_resource_word(BASE_RESOURCE_H5), "HDF5 handles");
    assert_null(base_resource_word(BASE_RESOURCE_COUNT));
    fixture_ctx_end(ctx);
}

static void *churn(void *arg)
{
    base_ctx_t *ctx = arg;

    for (int i = 0; i < 2000; i++) {
        void *p = base_alloc(ctx, 64, "churn");
        void *q = p != NULL ? base_realloc(ctx, p, 128, 1, "churn") : NULL;

        base_free(ctx, q != NULL ? q : p);
    }
    return NULL;
}

static void threads_count_exactly(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_memory_t *memory = base_ctx_memory(ctx);
    pthread_t thread[4];

    (void)state;
    base_memory_fail_at(memory, 5000); /* one of the requests fails, whoever makes it */
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, churn, ctx), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(base_memory_bytes(memory, BASE_RESOURCE_HOST), 0);
    /* 16000 requests, or one less when an alloc failed and had nothing to resize. */
    assert_in_range(base_memory_calls(memory), 15999, 16000);
    assert_in_range(base_memory_peak(memory, BASE_RESOURCE_HOST), 128, 4 * 128);
    fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "churn");
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_counted),
        cmocka_unit_test(realloc_keeps_contents_and_counts),
        cmocka_unit_test(empty_blocks_and_strings),
        cmocka_unit_test(sizes_that_do_not_exist),
        cmocka_unit_test(the_nth_request_fails_once),
        cmocka_unit_test(other_memory_and_objects),
        cmocka_unit_test(report_names_what_was_used),
        cmocka_unit_test(threads_count_exactly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
