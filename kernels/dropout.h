/* The mask of LoRA dropout: regenerated wherever it is needed, never stored. kernels/op.h ("LoRA")
 * says what it is a function of; this is that text as code, for C17, C++17 and CUDA, with the same
 * bits everywhere.
 *
 *   const base_philox_key_t key = kern_dropout_key(seed, step, layer, module);
 *   const uint32_t threshold = kern_dropout_threshold(p);
 *   const base_philox_t r = kern_dropout_words(key, document, position, column / 8);
 *   if (kern_dropout_keeps(kern_dropout_number(r, column % 8), threshold)) ...
 *
 * One block of Philox serves eight columns, 16 bits each, since a GPU that makes a mask is limited by
 * the multiplications of Philox. p = 0 has threshold 0 and keeps all. */
#ifndef CADRE_KERNELS_DROPOUT_H
#define CADRE_KERNELS_DROPOUT_H

#include "base/philox.h"

/* Last counter word of the derivation: no other use of an adapter's seed has it. */
#define KERN_DROPOUT_USE 0x44u

/* Layer and module go into a key of their own, since documents (64 bits), positions and columns
 * fill the counter. */
BASE_PHILOX_INLINE base_philox_key_t kern_dropout_key(uint64_t seed, uint32_t step, uint32_t layer,
                                                      uint32_t module)
{
    const base_philox_t r =
        base_philox(base_philox_key(seed), step, layer, module, KERN_DROPOUT_USE);
    base_philox_key_t key;

    key.word[0] = r.word[0];
    key.word[1] = r.word[1];
    return key;
}

/* p in [0, 1). Host and device agree: p 2^16 is exact in double. */
BASE_PHILOX_INLINE uint32_t kern_dropout_threshold(double p)
{
    const double scaled = p * 65536.0 + 0.5;

    return scaled >= 65535.0 ? 65535u : (uint32_t)scaled;
}

/* 1 / (1 - p) for the p that the threshold stands for, so that means are those without dropout. */
BASE_PHILOX_INLINE double kern_dropout_factor(double p)
{
    return 65536.0 / (65536.0 - (double)kern_dropout_threshold(p));
}

/* The numbers of columns 8 octet ... 8 octet + 7. */
BASE_PHILOX_INLINE base_philox_t kern_dropout_words(base_philox_key_t key, int64_t document,
                                                    int32_t position, uint32_t octet)
{
    const uint64_t d = (uint64_t)document;

    return base_philox_rounds(BASE_PHILOX_FEWEST_ROUNDS, key, (uint32_t)(d & 0xffffffffu),
                              (uint32_t)(d >> 32), (uint32_t)position, octet);
}

/* That of column 8 octet + n: the lower half of a word, then the upper one. */
BASE_PHILOX_INLINE uint32_t kern_dropout_number(base_philox_t words, int n)
{
    return n % 2 == 0 ? words.word[n / 2] & 0xffffu : words.word[n / 2] >> 16;
}

BASE_PHILOX_INLINE int kern_dropout_keeps(uint32_t number, uint32_t threshold)
{
    return number >= threshold;
}

#endif
