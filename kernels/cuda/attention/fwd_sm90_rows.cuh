/* The end of a row in the sm_90a forward. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_ROWS_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_ROWS_CUH

#include "kernels/cuda/attention/fwd_sm90_items.cuh"
#include "kernels/cuda/attention/fwd_sm90_softmax.cuh"
#include "kernels/cuda/attention/sm90_fragments.cuh"

namespace kern_attention
{

template <int D>
__device__ __forceinline__ void store(const sm90_params &p, const item_work &w, int local_row,
                                      const wgmma_accumulator<D> &o, const steady_softmax &soft)
{
    const sm90_task &t = p.tasks[w.task];
    __nv_bfloat16 *o_head = p.o + t.o + w.head * t.o_head;
    float *lse = p.lse + t.lse + w.head * t.lse_head;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float sum = sum_of_row(soft.sum[0][r]), factor = __frcp_rn(sum);
        const int local = local_row + 8 * r;
        const bool live = local < w.live; /* the same in four lanes; all take part in shuffles */
        const int packed = w.first_packed + local, token = p.dims.group.quotient(packed);
        store_row<D>(o_head + token * t.o_row + (packed - token * p.dims.group.divisor) * D, o, r,
                     factor, live);
        if (live && threadIdx.x % 4 == 0)
            lse[packed] = log_sum_exp(soft.max[0][r], sum, p.dims.scale);
    }
}

} // namespace kern_attention

#endif
