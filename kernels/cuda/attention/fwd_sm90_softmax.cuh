/* Softmax of the sm_90a forward: as softmax.cuh's, but what a row's exponentials are relative to, its reference, is
 * not its largest score but the largest one at the time when that last grew by more than a factor of 2^HEADROOM. bf16 and
 * fp32 hold probabilities of 2^HEADROOM as well as those of 1. So most tiles need no maximum over the four lanes of a
 * row but one vote of the warp, no factors, and o stays as it is.
 *
 * Bits: when a row's reference moves depends on the scores of the row alone, tile by tile; the vote only says whether
 * somebody has to look. A tile of which the row sees nothing moves nothing and adds +0. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_SOFTMAX_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_SOFTMAX_CUH

#include "kernels/cuda/attention/softmax.cuh"

namespace kern_attention
{

/* Of a warp's 16 rows; thread l has rows l / 4 and l / 4 + 8. */
struct steady_softmax {
    static constexpr float HEADROOM = 8.0f;

    float max[1][2]; /* the reference, not scaled */
    float sum[1][2]; /* of exp(scaled score - reference), this thread's columns only */
    float limit[2];  /* a score above it moves the reference */
    bool moved;      /* that of some row of the warp */

    __device__ __forceinline__ void begin()
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            max[0][r] = limit[r] = MINUS_INFINITY;
            sum[0][r] = 0.0f;
        }
    }

    __device__ __forceinline__ void move(const float (&largest_here)[2], float scale_log2,
                                         float (&shrink)[1][2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float largest = max_of_row(largest_here[r]);
            if (!(largest > limit[r]))
                continue; /* so is -inf, of which nothing may be subtracted */
            shrink[0][r] = kern_ptx::exp2_approx(
                __fadd_rn(__fmul_rn(max[0][r], scale_log2), -__fmul_rn(largest, scale_log2)));
            max[0][r] = largest;
            limit[r] = __fadd_rn(largest, __fdividef(HEADROOM, scale_log2));
        }
    }

    /* Scores of a tile -> probabilities relative to the reference. What was summed so far is multiplied by `shrink`,
     * which is 1 unless moved. */
    template <int N>
    __device__ __forceinline__ void take(accumulator<1, N> &s, float scale_log2,
                                         float (&shrink)[1][2])
    {
        float largest[2] = {s[0][0][0], s[0][0][2]};
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                largest[e / 2] = fmaxf(largest[e / 2], s[0][n][e]);
        shrink[0][0] = shrink[0][1] = 1.0f;
        moved = __any_sync(~0u, largest[0] > limit[0] || largest[1] > limit[1]);
        if (moved) move(largest, scale_log2, shrink);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float zero =
                max[0][r] == MINUS_INFINITY ? 0.0f : __fmul_rn(max[0][r], scale_log2);
            float added = 0.0f;
#pragma unroll
            for (int n = 0; n < N / 8; n++)
#pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; e++) {
                    s[0][n][e] = kern_ptx::exp2_approx(__fmaf_rn(s[0][n][e], scale_log2, -zero));
                    added = __fadd_rn(added, s[0][n][e]);
                }
            sum[0][r] = __fmaf_rn(sum[0][r], shrink[0][r], added);
        }
    }
};

} // namespace kern_attention

#endif
