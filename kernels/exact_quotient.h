/* Quotients and square roots with the bits of IEEE division and sqrt, out of an approximation that a
 * GPU has in one instruction and multiplications and additions that are fused: no branch, so that
 * several of them overlap. What a caller owes is a range in which no step overflows or loses bits.
 * For C17, C++17 and CUDA; tests/unit/kernels/test_exact_quotient.c tries every mantissa.
 *
 * Why the bits are right. With q within about half an ulp of a / b, a - b q is exact, and q' = q +
 * (a - b q) r, before it is rounded, misses a / b by |a / b - q| |1 - b r|: (1/2 ulp) (B 2^-48) when
 * B is b's mantissa in [2^23, 2^24) and r its reciprocal to half an ulp. No quotient of two floats
 * comes closer to the middle of two others than ulp / (2 B). So q' is rounded as a / b is, unless
 * B^2 2^-48 is 1 to within what the two "halves" are more than halves: the last 64 mantissas, which
 * KERN_EXACT_MANTISSAS leaves out. (Markstein, "Computation of elementary functions on the IBM RISC
 * System/6000", 1990, has the theorem for an r that is the rounded reciprocal.) */
#ifndef CADRE_KERNELS_EXACT_QUOTIENT_H
#define CADRE_KERNELS_EXACT_QUOTIENT_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define KERN_EXACT_INLINE static __host__ __device__ __forceinline__
#else
#define KERN_EXACT_INLINE static inline
#endif

/* Mantissas (bits 0 to 22) of divisors are below this. */
#define KERN_EXACT_MANTISSAS 0x7fffc0u

KERN_EXACT_INLINE uint32_t kern_exact_bits(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Is |x| 0 or in [low, high]? low >= 2^-126, high is finite. NaN: no. */
KERN_EXACT_INLINE int kern_exact_between(float x, float low, float high)
{
    const uint32_t above = (kern_exact_bits(x) & 0x7fffffffu) - kern_exact_bits(low);

    return (above <= kern_exact_bits(high) - kern_exact_bits(low)) | (x == 0.0f);
}

KERN_EXACT_INLINE int kern_exact_divisor(float b)
{
    return (kern_exact_bits(b) & 0x7fffffu) < KERN_EXACT_MANTISSAS;
}

/* sqrt(x), x = 0 or in [2^-101, 2^126]; y is 1 / sqrt(x) to within 3 ulp (x = 0: anything). */
KERN_EXACT_INLINE float kern_exact_root(float x, float y)
{
    float root = x * y, lean = 0.5f * y;
    const float error = fmaf(-root, lean, 0.5f);

    root = fmaf(root, error, root);
    lean = fmaf(lean, error, lean);
    root = fmaf(fmaf(-root, root, x), lean, root);
    return x == 0.0f ? x : root;
}

/* a / b, where r is 1 / b rounded once, so that one r serves many a. */
KERN_EXACT_INLINE float kern_exact_quotient_by(float a, float b, float r)
{
    const float first = a * r, second = fmaf(fmaf(-b, first, a), r, first);

    return a == 0.0f ? first : fmaf(fmaf(-b, second, a), r, second);
}

/* a / b, where r is 1 / b to within 2 ulp. Of this and the one above: b > 0, b's mantissa as
 * kern_exact_divisor wants it, b in [2^-60, 2^31]; a = 0 or |a| in [2^-95, 2^62]. */
KERN_EXACT_INLINE float kern_exact_quotient(float a, float b, float r)
{
    return kern_exact_quotient_by(a, b, fmaf(r, fmaf(-b, r, 1.0f), r));
}

#endif
