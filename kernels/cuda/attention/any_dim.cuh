/* Core attention for head dims that are neither 64 nor 128: any multiple of 8 up to 256. A warp for each packed row, or each key, with
 * plain multiplications and no matrix engine: so that a model of any shape runs, slowly. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_ANY_DIM_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_ANY_DIM_CUH

#include "kernels/cuda/attention/mma_launch.cuh"

namespace kern_attention
{

constexpr bool any_dim_has_head_dim(int64_t head_dim)
{
    return head_dim > 0 && head_dim % 8 == 0 && head_dim <= KERN_ATTENTION_MAX_HEAD_DIM;
}

/* As the launches of mma_launch.cuh. */
cudaError_t launch_fwd_any_dim(fwd_params &p, int32_t head_dim, cudaStream_t stream);
cudaError_t launch_bwd_any_dim(bwd_params &p, int32_t head_dim, cudaStream_t stream);

} // namespace kern_attention

#endif
