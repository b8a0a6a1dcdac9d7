/* Ops of several ranks in one process at once: the same bits as alone, without help from the
 * environment. */
#include "tests/support/op_fixture.h"

#include <pthread.h>
#include <stdlib.h>

#define NUM_THREADS 4
#define NUM_ROUNDS  6
#define ORDER       160 /* large enough for OpenBLAS to split a product over threads, if it may */

/* What a thread made: it must not fail inside, since cmocka's asserts are for the main thread. */
typedef struct member {
    pthread_t thread;
    const double *a, *b;
    double c[ORDER * ORDER];
    base_status_t st;
} member_t;

static base_status_t multiply(base_ctx_t *ctx, member_t *m, base_device_t **dev_p,
                              base_buffer_t **buf_p, base_stream_t **s_p)
{
    const int64_t bytes = ORDER * ORDER * 8;

    BASE_TRY(base_device_open(ctx, BASE_DEVICE_CPU, 0, dev_p));
    BASE_TRY(base_buffer_alloc(*dev_p, BASE_MEMORY_DEVICE, 3 * bytes, "matrices", buf_p));
    BASE_TRY(base_stream_create(*dev_p, BASE_STREAM_COMPUTE, "compute", s_p));
    BASE_TRY(base_upload(*s_p, base_mem(*buf_p, 0), m->a, bytes));
    BASE_TRY(base_upload(*s_p, base_mem(*buf_p, bytes), m->b, bytes));
    for (int i = 0; i < NUM_ROUNDS; i++) {
        const kern_gemm_t args = {
            kern_mat(base_mem(*buf_p, 0), ORDER, ORDER, ORDER, KERN_F64),
            kern_mat(base_mem(*buf_p, bytes), ORDER, ORDER, ORDER, KERN_F64),
            kern_mat(base_mem(*buf_p, 2 * bytes), ORDER, ORDER, ORDER, KERN_F64),
            0,
            1,
            i > 0};

        BASE_TRY(kern_gemm_run(*s_p, &args));
    }
    BASE_TRY(base_download(*s_p, m->c, base_mem(*buf_p, 2 * bytes), bytes));
    return base_stream_sync(*s_p);
}

static void *member_main(void *arg)
{
    member_t *m = arg;
    base_ctx_t *ctx = NULL;
    base_device_t *dev = NULL;
    base_buffer_t *buf = NULL;
    base_stream_t *s = NULL;

    m->st = base_ctx_create(0, 1, NULL, &ctx);
    if (m->st < 0) return NULL;
    m->st = multiply(ctx, m, &dev, &buf, &s);
    base_stream_destroy(s);
    base_buffer_free(buf);
    base_device_close(dev);
    base_ctx_destroy(ctx);
    return NULL;
}

static void test_threads(void **state)
{
    double *a = op_doubles(ORDER * ORDER), *b = op_doubles(ORDER * ORDER);
    member_t *members = calloc(NUM_THREADS + 1, sizeof *members);

    (void)state;
    assert_non_null(members);
    op_random_fill(1, ORDER * ORDER, a);
    op_random_fill(2, ORDER * ORDER, b);
    for (int i = 0; i <= NUM_THREADS; i++) {
        members[i].a = a;
        members[i].b = b;
    }
    /* First together, so that the first call of the process is made by several threads. */
    for (int i = 0; i < NUM_THREADS; i++)
        assert_int_equal(pthread_create(&members[i].thread, NULL, member_main, &members[i]), 0);
    for (int i = 0; i < NUM_THREADS; i++)
        assert_int_equal(pthread_join(members[i].thread, NULL), 0);
    (void)member_main(&members[NUM_THREADS]);
    for (int i = 0; i <= NUM_THREADS; i++) {
        assert_int_equal(members[i].st, BASE_OK);
        assert_memory_equal(members[i].c, members[NUM_THREADS].c, sizeof members[i].c);
    }
    free(members);
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
