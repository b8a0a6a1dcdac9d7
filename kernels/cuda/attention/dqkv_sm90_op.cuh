/* dq, dk and dv on sm_90a with a workspace: the kernel of the op. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_DQKV_SM90_OP_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_DQKV_SM90_OP_CUH

#include "kernels/cuda/attention/dqkv_sm90_kernel.cuh"

namespace kern_attention
{

template <int D>
__global__ void __launch_bounds__(bwd_keys::THREADS, 1)
    dqkv_sm90(const __grid_constant__ bwd_sm90_params p)
{
    bwd_keys::dqkv_block<D>(p);
}

template <int D> cudaError_t launch_dqkv_sm90(const bwd_sm90_params &params, cudaStream_t stream)
{
    constexpr int BYTES = bwd_keys::dqkv_arena<D>::BYTES;
    cudaError_t e =
        cudaFuncSetAttribute(dqkv_sm90<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (e == cudaSuccess)
        e = cudaMemsetAsync(params.turns, 0, (1 + static_cast<size_t>(num_slots(params))) * 4,
                            stream);
    if (e != cudaSuccess) return e;
    dqkv_sm90<D>
        <<<static_cast<unsigned>(num_key_items(params)), bwd_keys::THREADS, BYTES, stream>>>(
            params);
    return cudaGetLastError();
}

} // namespace kern_attention

#endif
