/* Which matrix products share an algorithm where a device has several for each (kernels/cuda/gemm_plans.h).
 *
 * The key is everything that the choice may depend on: N, transposes, dtypes, accumulation, pitches, alignment, and
 * M and K in steps, so that neither the rows of a microbatch nor the adapters that meet in it, whose columns
 * lengthen K, make a new one each time. M goes up to the next power of two, K to the next eighth of one. So it can be
 * said before the first microbatch which keys a run will have (trainer/model/product_search.h); any device's products
 * have them, which is how that is tested where there is no choice. */
#ifndef CADRE_KERNELS_GEMM_KEY_H
#define CADRE_KERNELS_GEMM_KEY_H

#include "kernels/op.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KERN_GEMM_LEAST_ROWS 16 /* fewer are of the same key */

/* No bytes between the fields: compared and hashed as bytes. */
typedef struct kern_gemm_key {
    int64_t m_bound, n, k_bound, a_pitch, b_pitch, c_pitch;
    int32_t transpose_a, transpose_b, accumulate, c_dtype;
    int32_t a_align, b_align, c_align, used;
} kern_gemm_key_t;

/* M, N, K > 0. used is 1. */
kern_gemm_key_t kern_gemm_key_of(const kern_gemm_t *args);

int64_t kern_gemm_rows_bound(int64_t rows);
int64_t kern_gemm_depth_bound(int64_t k);
/* The largest K with a bound below that of k; 0: there is none. */
int64_t kern_gemm_depth_below(int64_t k);

/* The largest K that products with this key can have: operands do not overlap their own rows. */
int64_t kern_gemm_key_depth(const kern_gemm_key_t *key);

#ifdef __cplusplus
}
#endif
#endif
