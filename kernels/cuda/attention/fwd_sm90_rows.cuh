/* What the sm_90a forward does to accumulators between products: masks, the probabilities as an
 * operand, and the end of a row. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_ROWS_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_ROWS_CUH

#include "kernels/cuda/attention/fwd_sm90_items.cuh"
#include "kernels/cuda/attention/softmax.cuh"
#include "kernels/cuda/attention/wgmma.cuh"

namespace kern_attention
{

/* Scores of keys that a row does not see become -inf. */
__device__ __forceinline__ void mask(kern_ptx::wgmma_accumulator<SM90_KEYS> &s,
                                     const int (&rows)[2], int first_key, int window)
{
    const int key = first_key + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        /* Columns above `above` up to `last` are seen; no key is below 0. */
        const int last = rows[r] - key, above = max(rows[r] - window, -1) - key;
#pragma unroll
        for (int n = 0; n < SM90_KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (8 * n + e > last || 8 * n + e <= above) s[n][2 * r + e] = MINUS_INFINITY;
    }
}

__device__ __forceinline__ void to_operand(uint32_t (&probabilities)[SM90_KEYS / 16][4],
                                           const kern_ptx::wgmma_accumulator<SM90_KEYS> &s)
{
#pragma unroll
    for (int k = 0; k < SM90_KEYS / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            probabilities[k][i] =
                kern_ptx::pack_bf16(s[2 * k + i / 2][i % 2 * 2], s[2 * k + i / 2][i % 2 * 2 + 1]);
}

/* Four lanes hold four words each of one row: lane i gets the i-th word of each lane in place of
 * its own four, which are then 16 bytes in a row. */
__device__ __forceinline__ void transpose_quad(uint32_t (&x)[4])
{
    const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const uint32_t got = __shfl_xor_sync(~0u, odd ? x[i] : x[i + 1], 1);
        (odd ? x[i] : x[i + 1]) = got;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t got = __shfl_xor_sync(~0u, upper ? x[i] : x[i + 2], 2);
        (upper ? x[i] : x[i + 2]) = got;
    }
}

template <int D>
__device__ __forceinline__ void store(const sm90_params &p, const item_work &w, int local_row,
                                      const kern_ptx::wgmma_accumulator<D> &o,
                                      const online_softmax<1> &soft)
{
    const sm90_task &t = p.tasks[w.task];
    const int lane = threadIdx.x % 32;
    __nv_bfloat16 *o_head = p.o + t.o + w.head * t.o_head + 8 * (lane % 4);
    float *lse = p.lse + t.lse + w.head * t.lse_head;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float sum = sum_of_row(soft.sum[0][r]), factor = __frcp_rn(sum);
        const int local = local_row + 8 * r;
        const bool live = local < w.live; /* the same in four lanes; all take part in shuffles */
        const int packed = w.first_packed + local, token = p.dims.group.quotient(packed);
        __nv_bfloat16 *to = o_head + token * t.o_row + (packed - token * p.dims.group.divisor) * D;
#pragma unroll
        for (int n = 0; n < D / 8; n += 4) {
            uint32_t x[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                x[i] = kern_ptx::pack_bf16(__fmul_rn(o[n + i][2 * r], factor),
                                           __fmul_rn(o[n + i][2 * r + 1], factor));
            transpose_quad(x);
            if (live) *reinterpret_cast<uint4 *>(to + 8 * n) = make_uint4(x[0], x[1], x[2], x[3]);
        }
        if (live && lane % 4 == 0) lse[packed] = log_sum_exp(soft.max[0][r], sum, p.dims.scale);
    }
}

} // namespace kern_attention

#endif
