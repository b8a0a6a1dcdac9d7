/* The forward on sm_90a: the kernel of the op. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_OP_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_OP_CUH

#include "kernels/cuda/attention/fwd_sm90_kernel.cuh"

namespace kern_attention
{

template <int D> constexpr int FWD_SM90_CONSUMERS = FWD_SM90_ROWS<D> / fwd_sm90_kernel::GROUP_ROWS;

template <int D>
__global__ void __launch_bounds__(fwd_sm90_kernel::THREADS<FWD_SM90_CONSUMERS<D>>, 1)
    fwd_sm90(const __grid_constant__ sm90_params p)
{
    fwd_sm90_kernel::fwd_block<D, FWD_SM90_CONSUMERS<D>>(p);
}

template <int D>
cudaError_t launch_fwd_sm90(const sm90_params &params, int processors, cudaStream_t stream)
{
    constexpr int BYTES = fwd_sm90_kernel::SHARED_BYTES<D, FWD_SM90_CONSUMERS<D>>;
    constexpr int THREADS = fwd_sm90_kernel::THREADS<FWD_SM90_CONSUMERS<D>>;
    const cudaError_t e =
        cudaFuncSetAttribute(fwd_sm90<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (e != cudaSuccess) return e;
    const int blocks = std::min(params.num_items, processors);
    fwd_sm90<D><<<static_cast<unsigned>(blocks), THREADS, BYTES, stream>>>(params);
    return cudaGetLastError();
}

} // namespace kern_attention

#endif
