/* In place of kernels/cpu/blas.c, so that a test program for a GPU host needs no OpenBLAS there. */
#include "kernels/cpu/blas.h"

#define PLAIN(name, real)                                                                          \
    void name(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, real alpha,       \
              const real *a, int64_t lda, const real *b, int64_t ldb, real beta, real *c,          \
              int64_t ldc)                                                                         \
    {                                                                                              \
        for (int64_t i = 0; i < m; i++)                                                            \
            for (int64_t j = 0; j < n; j++) {                                                      \
                real sum = 0;                                                                      \
                for (int64_t l = 0; l < k; l++)                                                    \
                    sum += (transpose_a ? a[l * lda + i] : a[i * lda + l]) *                       \
                           (transpose_b ? b[j * ldb + l] : b[l * ldb + j]);                        \
                c[i * ldc + j] = alpha * sum + (beta != 0 ? beta * c[i * ldc + j] : 0);            \
            }                                                                                      \
    }
PLAIN(kern_blas_sgemm, float)
PLAIN(kern_blas_dgemm, double)
