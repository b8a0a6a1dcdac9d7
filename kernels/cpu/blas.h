/* GEMM of OpenBLAS, on one thread per call, from any number of threads at once.
 *
 * Why one thread: the cores belong to the ranks, and a product that is split over threads differs
 * in bits with their number. openblas_set_num_threads is state of the process; each call here makes
 * sure of it, which is a load and a compare once it holds, so no order of initialisation matters.
 * (launch/run starts ranks with OPENBLAS_NUM_THREADS=1: then OpenBLAS never makes its pool, a thread
 * for each core of the machine in each rank.)
 *
 * Needs a flavour of OpenBLAS that may be called from several threads
 * (cmake/CadreDependencies.cmake). */
#ifndef CADRE_KERNELS_CPU_BLAS_H
#define CADRE_KERNELS_CPU_BLAS_H

#include "base/context.h"

#include <stdint.h>

/* OpenBLAS takes a buffer of address space for each thread that multiplies, at its first product, and tries for ever
 * when there is none, as under `ulimit -v`. BASE_ERR_NOMEM (MEM-01) when there is no room for those of so many
 * threads now: to be asked when all other memory has been taken and none of them has multiplied, by one thread of
 * the process. */
base_status_t kern_blas_check_room(base_ctx_t *ctx, int threads) BASE_MUST_CHECK;

/* c (m,n) = alpha op(a) op(b) + beta c, row-major, leading dimensions in elements; op transposes
 * when its flag is set: op(a) is (m,k), op(b) is (k,n). beta = 0 writes c without reading it. Every
 * dimension and leading dimension fits an int (kern_gemm_check). m, n or k = 0 is legal. */
void kern_blas_sgemm(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                     const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                     int64_t ldc);
void kern_blas_dgemm(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k,
                     double alpha, const double *a, int64_t lda, const double *b, int64_t ldb,
                     double beta, double *c, int64_t ldc);

#endif
