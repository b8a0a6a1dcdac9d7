/* One source, two precisions. The sources listed in KERN_REAL_SOURCES are compiled twice, with
 * KERN_REAL=float KERN_SUFFIX=f32 and with KERN_REAL=double KERN_SUFFIX=f64; statistics and sums
 * ("acc" of kernels/op.h) are real_t too.
 *
 * Only for those sources. */
#ifndef CADRE_KERNELS_CPU_REAL_H
#define CADRE_KERNELS_CPU_REAL_H

#include "base/device/device_host.h"
#include "kernels/cpu/blas.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/op.h"

#include <math.h>
#include <string.h>

typedef KERN_REAL real_t;

/* KERN_NAME(gemm) is kern_cpu_gemm_f32 or kern_cpu_gemm_f64. */
#define KERN_PASTE_(op, suffix) kern_cpu_##op##_##suffix
#define KERN_PASTE(op, suffix)  KERN_PASTE_(op, suffix)
#define KERN_NAME(op)           KERN_PASTE(op, KERN_SUFFIX)

#define real_exp(x)  _Generic((real_t)0, float : expf, double : exp)(x)
#define real_log(x)  _Generic((real_t)0, float : logf, double : log)(x)
#define real_sqrt(x) _Generic((real_t)0, float : sqrtf, double : sqrt)(x)
#define real_gemm(...)                                                                             \
    _Generic((real_t)0, float : kern_blas_sgemm, double : kern_blas_dgemm)(__VA_ARGS__)

#define REAL_INFINITY ((real_t)INFINITY)

static inline real_t *real_at(base_mem_t mem)
{
    return (real_t *)base_mem_address(mem);
}

/* Row `row` of a matrix of reals; NULL base when it is absent. */
static inline real_t *real_row(const kern_mat_t *mat, int64_t row)
{
    return real_at(mat->mem) + row * mat->pitch;
}

static inline const int32_t *int_row(const kern_mat_t *mat)
{
    return (const int32_t *)base_mem_address(mat->mem);
}

/* Sums run in 16 lanes by column number and the lanes are added in pairs: as exact as pairwise
 * summation for usual row lengths, vectorizable without -ffast-math, and one order for everyone.
 * Adding zeros changes no bit of a sum. */
#define REAL_LANES 16

static inline real_t real_add_lanes(real_t *lane)
{
    for (int width = REAL_LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
}

static inline real_t real_sum(int64_t n, const real_t *a)
{
    real_t lane[REAL_LANES] = {0};
    const int64_t body = n - n % REAL_LANES;

    for (int64_t j = 0; j < body; j += REAL_LANES)
        for (int i = 0; i < REAL_LANES; i++)
            lane[i] += a[j + i];
    for (int64_t j = body; j < n; j++)
        lane[j - body] += a[j];
    return real_add_lanes(lane);
}

static inline real_t real_dot(int64_t n, const real_t *a, const real_t *b)
{
    real_t lane[REAL_LANES] = {0};
    const int64_t body = n - n % REAL_LANES;

    for (int64_t j = 0; j < body; j += REAL_LANES)
        for (int i = 0; i < REAL_LANES; i++)
            lane[i] += a[j + i] * b[j + i];
    for (int64_t j = body; j < n; j++)
        lane[j - body] += a[j] * b[j];
    return real_add_lanes(lane);
}

#endif
