/* dq, dk and dv on sm_90a with a workspace: the kernel of the op. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_DQKV_SM90_OP_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_DQKV_SM90_OP_CUH

#include "kernels/cuda/attention/dqkv_sm90_kernel.cuh"

namespace kern_attention
{

/* Head dim 64 is 2 % slower with it. */
template <int D> constexpr bool DQKV_FETCH = D == 128;

template <int D>
__global__ void __launch_bounds__(bwd_keys::THREADS, 1)
    dqkv_sm90(const __grid_constant__ bwd_sm90_params p)
{
    bwd_keys::dqkv_block<D, DQKV_FETCH<D>>(p);
}

template <int D> cudaError_t launch_dqkv_sm90(const bwd_sm90_params &params, cudaStream_t stream)
{
    return launch_dqkv<D>(dqkv_sm90<D>, params, stream);
}

} // namespace kern_attention

#endif
