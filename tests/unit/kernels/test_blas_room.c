/* Room for OpenBLAS's buffers is address space: it may be more than the machine's memory, where the kernel does not count what is
 * only reserved. That none is an error is seen under `ulimit -v` (tests/cli/cli_train.sh). */
#include "kernels/cpu/blas.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>

#define BUFFER_MIB 128 /* at least, of a thread */

/* Or each page that may be written counts, or somebody has set a limit. */
static int address_space_is_free(void)
{
    FILE *file = fopen("/proc/sys/vm/overcommit_memory", "r");
    struct rlimit limit;
    int policy = 2;

    if (file == NULL) return 0;
    if (fscanf(file, "%d", &policy) != 1) policy = 2;
    (void)fclose(file);
    return policy != 2 && getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY;
}

static void test_more_than_the_memory(void **state)
{
    base_ctx_t *ctx;
    struct sysinfo info;

    (void)state;
    if (!address_space_is_free()) skip();
    assert_int_equal(base_ctx_create(0, 1, NULL, &ctx), BASE_OK);
    assert_int_equal(sysinfo(&info), 0);
    const uint64_t mib = ((uint64_t)info.totalram + info.totalswap) * info.mem_unit >> 20;
    assert_int_equal(kern_blas_check_room(ctx, (int)(mib / BUFFER_MIB) + 1), BASE_OK);
    base_ctx_destroy(ctx);
}

/* 270 TiB, more than a process has with 48 bits of address. */
static void test_more_than_there_is(void **state)
{
    base_ctx_t *ctx;
    base_error_t error;

    (void)state;
    assert_int_equal(base_ctx_create(0, 1, NULL, &ctx), BASE_OK);
    assert_int_equal(kern_blas_check_room(ctx, 2200000), BASE_ERR_NOMEM);
    assert_true(base_ctx_error(ctx, &error));
    assert_int_equal(error.status, BASE_ERR_NOMEM);
    base_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_more_than_the_memory),
                                       cmocka_unit_test(test_more_than_there_is)};

    return cmocka_run_group_tests_name("blas_room", tests, NULL, NULL);
}
