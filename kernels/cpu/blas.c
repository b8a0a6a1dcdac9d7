#include "kernels/cpu/blas.h"

#include <cblas.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* Of one thread: 128 MiB and some pages in Debian's and Ubuntu's builds. */
#define BUFFER_BYTES ((size_t)129 << 20)

base_status_t kern_blas_check_room(base_ctx_t *ctx, int threads)
{
    const size_t bytes = (size_t)threads * BUFFER_BYTES;
    /* Address space is asked for, not memory: as many buffers in one piece may be more than a small machine has, and the
     * kernel would refuse it what it grants them one by one. */
    void *room = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (room == MAP_FAILED)
        return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                         "rank %d: no room for the buffers of OpenBLAS, %zu MiB of address space "
                         "(ulimit -v): %s",
                         base_ctx_rank(ctx), bytes >> 20, strerror(errno));
    (void)munmap(room, bytes);
    return BASE_OK;
}

/* Two threads that set it at the same time both write 1. */
static void use_one_thread(void)
{
    if (openblas_get_num_threads() != 1) openblas_set_num_threads(1);
}

static CBLAS_TRANSPOSE flag(int transpose)
{
    return transpose ? CblasTrans : CblasNoTrans;
}

/* BLAS wants a leading dimension of at least 1 and of at least the row, also where nothing is read.
 */
static blasint leading(int64_t ld)
{
    return ld > 0 ? (blasint)ld : 1;
}

void kern_blas_sgemm(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                     const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                     int64_t ldc)
{
    if (m == 0 || n == 0) return;
    use_one_thread();
    cblas_sgemm(CblasRowMajor, flag(transpose_a), flag(transpose_b), (blasint)m, (blasint)n,
                (blasint)k, alpha, a, leading(lda), b, leading(ldb), beta, c, leading(ldc));
}

void kern_blas_dgemm(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k,
                     double alpha, const double *a, int64_t lda, const double *b, int64_t ldb,
                     double beta, double *c, int64_t ldc)
{
    if (m == 0 || n == 0) return;
    use_one_thread();
    cblas_dgemm(CblasRowMajor, flag(transpose_a), flag(transpose_b), (blasint)m, (blasint)n,
                (blasint)k, alpha, a, leading(lda), b, leading(ldb), beta, c, leading(ldc));
}
