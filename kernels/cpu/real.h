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
#include <stdint.h>
#include <string.h>

typedef KERN_REAL real_t;

/* KERN_NAME(gemm) is kern_cpu_gemm_f32 or kern_cpu_gemm_f64. */
#define KERN_PASTE_(op, suffix) kern_cpu_##op##_##suffix
#define KERN_PASTE(op, suffix)  KERN_PASTE_(op, suffix)
#define KERN_NAME(op)           KERN_PASTE(op, KERN_SUFFIX)

#define real_exp(x)  _Generic((real_t)0, float : real_exp_f32, double : exp)(x)
#define real_log(x)  _Generic((real_t)0, float : logf, double : log)(x)
#define real_sqrt(x) _Generic((real_t)0, float : sqrtf, double : sqrt)(x)
#define real_gemm(...)                                                                             \
    _Generic((real_t)0, float : kern_blas_sgemm, double : kern_blas_dgemm)(__VA_ARGS__)

/* e^x in fp32 without a branch or a call, so that compilers make vectors of loops over it: libm's
 * took half the time of attention. x = k ln 2 + r, |r| <= ln 2 / 2, with ln 2 in two parts; a
 * polynomial of degree 6 in r (coefficients of Moshier's Cephes), and k into the exponent. Every
 * operation is IEEE's, so an element has the same bits wherever it stands in a loop. The relative
 * error is below 1.5 2^-24 (tests/unit/kernels/test_real_exp.c); a result below 2^-126 is 0, x above
 * 88.3762 gives infinity, NaN stays NaN. */
static inline float real_exp_f32(float x)
{
    const float magic = 12582912.0F; /* 1.5 2^23: what is added to it is rounded to integers */
    const float t = x * 1.44269504F + magic, k = t - magic;
    const float r = x - k * 0.693359375F - k * -2.12194440e-4F;
    const uint32_t above = (uint32_t)(x < -87.33654F) - 1u; /* all ones: not below */
    const uint32_t below = (uint32_t)(x > 88.3762F) - 1u;
    uint32_t bits, base;
    float p = 1.9875691500e-4F, scale;

    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * (r * r) + r + 1.0F;
    memcpy(&bits, &t, sizeof bits);
    memcpy(&base, &magic, sizeof base);
    bits = (bits - base + 127u) << 23;
    memcpy(&scale, &bits, sizeof scale);
    p *= scale;
    memcpy(&bits, &p, sizeof bits);
    bits = (bits & above & below) | (0x7f800000u & ~below);
    memcpy(&p, &bits, sizeof p);
    return p;
}

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

/* The largest of `max` and a[0 ... n - 1]; elements that are NaN are passed over. */
static inline real_t real_max(int64_t n, const real_t *a, real_t max)
{
    const int64_t body = n - n % REAL_LANES;
    real_t lane[REAL_LANES];

    for (int i = 0; i < REAL_LANES; i++)
        lane[i] = max;
    for (int64_t j = 0; j < body; j += REAL_LANES)
        for (int i = 0; i < REAL_LANES; i++)
            lane[i] = a[j + i] > lane[i] ? a[j + i] : lane[i];
    for (int64_t j = body; j < n; j++)
        lane[j - body] = a[j] > lane[j - body] ? a[j] : lane[j - body];
    for (int i = 0; i < REAL_LANES; i++)
        max = lane[i] > max ? lane[i] : max;
    return max;
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
