/* Counter-based random numbers: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, SC'11), or with fewer
 * rounds where very many are needed.
 *
 * A number is a pure function of (key, counter): no state, nothing stored, the same bits on CPU and
 * GPU and in any order. The owner of a use spells out what key and counter words mean, in one
 * place, so that two uses never share numbers: the key is a seed; the counter names the thing that
 * is drawn (design: dropout, shuffles, initial values).
 *
 *   const base_philox_key_t key = base_philox_key(seed);
 *   const base_philox_t r = base_philox(key, document, position, layer, module);
 *   const float u = base_philox_float(r.word[0]);                     one of four words of 32 bits
 *
 * All of it is inline, for C17, C++17 and CUDA. Integers and uniform numbers have the same bits
 * everywhere; base_philox_normal2 goes through the host's log, cos and sin and has them on one libm
 * only. */
#ifndef CADRE_BASE_PHILOX_H
#define CADRE_BASE_PHILOX_H

#include <stdint.h>

#if defined(__CUDACC__)
#define BASE_PHILOX_INLINE static __host__ __device__ __forceinline__
#else
#define BASE_PHILOX_INLINE static inline
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct base_philox_seed {
    uint32_t word[2];
} base_philox_key_t;

typedef struct base_philox_block {
    uint32_t word[4];
} base_philox_t;

BASE_PHILOX_INLINE base_philox_key_t base_philox_key(uint64_t seed)
{
    base_philox_key_t key;

    key.word[0] = (uint32_t)(seed & 0xffffffffu);
    key.word[1] = (uint32_t)(seed >> 32);
    return key;
}

/* Both halves of a product. On a GPU in one instruction, which the compiler would make two of. */
BASE_PHILOX_INLINE void base_philox_multiply(uint32_t a, uint32_t b, uint32_t *high, uint32_t *low)
{
#if defined(__CUDA_ARCH__)
    asm("{ .reg .b64 product; mul.wide.u32 product, %2, %3; mov.b64 {%0, %1}, product; }"
        : "=r"(*low), "=r"(*high)
        : "r"(a), "r"(b));
#else
    const uint64_t product = (uint64_t)a * b;

    *high = (uint32_t)(product >> 32);
    *low = (uint32_t)(product & 0xffffffffu);
#endif
}

/* Seven rounds are the fewest with which its authors found no fault of 4x32 in BigCrush; ten have a
 * margin. */
#define BASE_PHILOX_FEWEST_ROUNDS 7

BASE_PHILOX_INLINE base_philox_t base_philox_rounds(int rounds, base_philox_key_t key, uint32_t c0,
                                                    uint32_t c1, uint32_t c2, uint32_t c3)
{
    uint32_t k0 = key.word[0], k1 = key.word[1];
    base_philox_t out;

    for (int round = 0; round < rounds; round++) {
        uint32_t high0, low0, high1, low1;

        base_philox_multiply(c0, 0xD2511F53u, &high0, &low0);
        base_philox_multiply(c2, 0xCD9E8D57u, &high1, &low1);
        c0 = high1 ^ c1 ^ k0;
        c2 = high0 ^ c3 ^ k1;
        c1 = low1;
        c3 = low0;
        k0 += 0x9E3779B9u; /* Weyl sequences: golden ratio, sqrt(3) - 1 */
        k1 += 0xBB67AE85u;
    }
    out.word[0] = c0;
    out.word[1] = c1;
    out.word[2] = c2;
    out.word[3] = c3;
    return out;
}

BASE_PHILOX_INLINE base_philox_t base_philox(base_philox_key_t key, uint32_t c0, uint32_t c1,
                                             uint32_t c2, uint32_t c3)
{
    return base_philox_rounds(10, key, c0, c1, c2, c3);
}

/* Uniform in [0, 1): the upper 24 bits of a word times 2^-24, exact. */
BASE_PHILOX_INLINE float base_philox_float(uint32_t word)
{
    return (float)(word >> 8) * (1.0f / 16777216.0f);
}

/* Uniform in [0, 1): the upper 53 bits of hi:lo times 2^-53, exact. */
BASE_PHILOX_INLINE double base_philox_double(uint32_t hi, uint32_t lo)
{
    const uint64_t bits = ((uint64_t)hi << 32 | lo) >> 11;

    return (double)bits * (1.0 / 9007199254740992.0);
}

/* An integer in [0, bound): floor(hi:lo * bound / 2^64). 0 for bound 0. The chance of each value is
 * 1/bound to within 2^-64; no second draw is ever needed, so one counter gives one number. */
BASE_PHILOX_INLINE uint64_t base_philox_below(uint32_t hi, uint32_t lo, uint64_t bound)
{
    const uint64_t b_lo = bound & 0xffffffffu, b_hi = bound >> 32;
    const uint64_t mid = (uint64_t)hi * b_lo + ((uint64_t)lo * b_lo >> 32);
    const uint64_t mid2 = (uint64_t)lo * b_hi + (mid & 0xffffffffu);

    return (uint64_t)hi * b_hi + (mid >> 32) + (mid2 >> 32);
}

/* Two independent standard normal numbers from the four words (Box-Muller in double). Host only. */
void base_philox_normal2(base_philox_t r, double normal[2]);

#ifdef __cplusplus
}
#endif
#endif
