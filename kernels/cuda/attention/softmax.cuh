/* Softmax over a row's keys, tile by tile, and its inverse in the backward.
 *
 * Bits. A row's result must not depend on how its document was cut. Its keys come in tiles on
 * the document's grid, ascending; which tiles are visited depends on the tile's other rows, so a
 * tile of which the row sees nothing must leave it as it is: its probabilities are exp2(-inf) =
 * +0, the factor is exp2(0) = 1, sums get + 0 and are never -0. That holds only if the compiler
 * fuses no product into a sum behind our back, hence the explicit intrinsics. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_SOFTMAX_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_SOFTMAX_CUH

#include "kernels/cuda/attention/ptx.cuh"
#include "kernels/cuda/attention/tile.cuh"

namespace kern_attention
{

constexpr float MINUS_INFINITY = -__builtin_huge_valf();
constexpr float LOG2_E = 1.44269504088896340736f;

/* Maximum and sum over the four lanes that share a row. */
__device__ __forceinline__ float max_of_row(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

__device__ __forceinline__ float sum_of_row(float x)
{
    x = __fadd_rn(x, __shfl_xor_sync(~0u, x, 1));
    return __fadd_rn(x, __shfl_xor_sync(~0u, x, 2));
}

/* Of a warp's 16 M rows; thread l has rows l / 4 and l / 4 + 8 of each 16. */
template <int M> struct online_softmax {
    float max[M][2]; /* largest score so far, not scaled */
    float sum[M][2]; /* of exp(scaled score - max), this thread's columns only */

    __device__ __forceinline__ void begin()
    {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                max[m][r] = MINUS_INFINITY;
                sum[m][r] = 0.0f;
            }
    }

    /* Scores of a tile -> probabilities relative to the new maximum. What was summed so far is
     * multiplied by `shrink`. */
    template <int N>
    __device__ __forceinline__ void take(accumulator<M, N> &s, float scale_log2,
                                         float (&shrink)[M][2])
    {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                float largest = max[m][r];
#pragma unroll
                for (int n = 0; n < N / 8; n++)
                    largest = fmaxf(largest, fmaxf(s[m][n][2 * r], s[m][n][2 * r + 1]));
                largest = max_of_row(largest);
                /* Nothing seen yet: (-inf) - (-inf) would be NaN. */
                const float zero =
                    largest == MINUS_INFINITY ? 0.0f : __fmul_rn(largest, scale_log2);
                shrink[m][r] =
                    kern_ptx::exp2_approx(__fadd_rn(__fmul_rn(max[m][r], scale_log2), -zero));
                max[m][r] = largest;
                float added = 0.0f;
#pragma unroll
                for (int n = 0; n < N / 8; n++)
#pragma unroll
                    for (int e = 2 * r; e < 2 * r + 2; e++) {
                        const float x = __fmaf_rn(s[m][n][e], scale_log2, -zero);
                        s[m][n][e] = kern_ptx::exp2_approx(x);
                        added = __fadd_rn(added, s[m][n][e]);
                    }
                sum[m][r] = __fmaf_rn(sum[m][r], shrink[m][r], added);
            }
    }

    __device__ __forceinline__ static bool shrinks(const float (&shrink)[M][2])
    {
        bool any = false;
#pragma unroll
        for (int m = 0; m < M; m++)
            any |= shrink[m][0] != 1.0f || shrink[m][1] != 1.0f;
        return __any_sync(~0u, any);
    }
};

/* The natural logarithm of the sum of exponentials of the scaled scores. */
__device__ __forceinline__ float log_sum_exp(float max, float sum, float scale)
{
    return __fmaf_rn(max, scale, logf(sum));
}

/* The backward's row statistics: minus_lse = -lse log2(e). */
__device__ __forceinline__ float minus_lse_log2(float lse)
{
    return __fmul_rn(lse, -LOG2_E);
}

/* Score s and dp = d_o . v of one (row, key) -> p = exp(scaled s - lse), and ds / scale = p (dp
 * - delta). s = -inf gives p = ds = 0. */
__device__ __forceinline__ void gradient_of_score(float &s, float &dp, float scale_log2,
                                                  float minus_lse, float delta)
{
    s = kern_ptx::exp2_approx(__fmaf_rn(s, scale_log2, minus_lse));
    dp = __fmul_rn(s, __fadd_rn(dp, -delta));
}

} // namespace kern_attention

#endif
