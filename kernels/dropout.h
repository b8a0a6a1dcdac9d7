/* The mask of LoRA dropout: regenerated wherever it is needed, never stored. kernels/op.h ("LoRA")
 * says what it is a function of; this is that text as code, for C17, C++17 and CUDA, with the same
 * bits everywhere.
 *
 *   const base_philox_key_t key = kern_dropout_key(seed, step, layer, module);
 *   const uint32_t threshold = kern_dropout_threshold(p);
 *   const base_philox_t r = kern_dropout_words(key, document, position, kern_dropout_block(column));
 *   const uint32_t limit = kern_dropout_limit(r, threshold);
 *   if (kern_dropout_keeps(r, limit, column)) ...
 *
 * One block of Philox serves sixteen columns, a byte each, since a GPU that makes a mask is limited
 * by the multiplications of Philox and by comparisons, of which it makes four at once. A byte
 * alone would meet p to 2^-9: the limit that a block's bytes are held against is one more in as
 * many blocks as p's next eight bits say. p = 0 has threshold 0, and keeps all without a mask.
 *
 * What the limit is decided by, the exclusive or of the first bytes of four words, is uniform whatever
 * any three of them are. So an element is dropped with probability threshold / 2^16 exactly, and any
 * set of elements that lacks one of those four columns is distributed as if the limit were drawn
 * apart. Two elements of a block then have a correlation of at most 2^-18 / (p (1 - p)): 4e-5 at p =
 * 0.1; blocks are independent. */
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

#define KERN_DROPOUT_LARGEST 0xff00u /* so that a limit fits into a byte */

/* p in [0, 1); above 255 / 256 it is taken for that. Host and device agree: p 2^16 is exact in
 * double. */
BASE_PHILOX_INLINE uint32_t kern_dropout_threshold(double p)
{
    const double scaled = p * 65536.0 + 0.5;

    return scaled >= (double)KERN_DROPOUT_LARGEST ? KERN_DROPOUT_LARGEST : (uint32_t)scaled;
}

/* 1 / (1 - p) for the p that the threshold stands for, so that means are those without dropout. */
BASE_PHILOX_INLINE double kern_dropout_factor(double p)
{
    return 65536.0 / (65536.0 - (double)kern_dropout_threshold(p));
}

/* Of 64 columns four blocks have, in turns, eight of the first 32 and eight of the last: so a lane
 * of a GPU has all 16 of a block in two pieces that its neighbours' continue. */
BASE_PHILOX_INLINE uint32_t kern_dropout_block(int64_t column)
{
    return (uint32_t)(column / 64 * 4 + column % 32 / 8);
}

BASE_PHILOX_INLINE base_philox_t kern_dropout_words(base_philox_key_t key, int64_t document,
                                                    int32_t position, uint32_t block)
{
    const uint64_t d = (uint64_t)document;

    return base_philox_rounds(BASE_PHILOX_FEWEST_ROUNDS, key, (uint32_t)(d & 0xffffffffu),
                              (uint32_t)(d >> 32), (uint32_t)position, block);
}

/* That of a column: bytes of the first 32 columns in words 0 and 1, of the last in 2 and 3, lower
 * ones first. */
BASE_PHILOX_INLINE uint32_t kern_dropout_byte(base_philox_t words, int64_t column)
{
    const int n = (int)(column % 64 / 32 * 8 + column % 8);

    return words.word[n / 4] >> n % 4 * 8 & 0xffu;
}

/* threshold / 2^8, rounded down or up; at most 255. */
BASE_PHILOX_INLINE uint32_t kern_dropout_limit(base_philox_t words, uint32_t threshold)
{
    const uint32_t mixed = words.word[0] ^ words.word[1] ^ words.word[2] ^ words.word[3];

    return (threshold >> 8) + (mixed < threshold << 24);
}

BASE_PHILOX_INLINE int kern_dropout_keeps(base_philox_t words, uint32_t limit, int64_t column)
{
    return kern_dropout_byte(words, column) >= limit;
}

#endif
