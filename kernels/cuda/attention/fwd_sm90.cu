/* The forward on sm_90a: 128 packed rows a block, two consumers that take turns. */
#include "kernels/cuda/attention/fwd_sm90_kernel.cuh"

namespace kern_attention
{
namespace
{

constexpr int CONSUMERS = 2;

template <int D>
__global__ void __launch_bounds__(fwd_sm90_kernel::THREADS<CONSUMERS>, 1)
    fwd_sm90(const __grid_constant__ sm90_params p)
{
    fwd_sm90_kernel::fwd_block<D, CONSUMERS, true>(p);
}

template <int D> cudaError_t launch(const sm90_params &params, int processors, cudaStream_t stream)
{
    constexpr int BYTES = fwd_sm90_kernel::SHARED_BYTES<D, CONSUMERS>;
    const cudaError_t e =
        cudaFuncSetAttribute(fwd_sm90<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (e != cudaSuccess) return e;
    const int blocks = std::min(params.num_items, processors);
    fwd_sm90<D>
        <<<static_cast<unsigned>(blocks), fwd_sm90_kernel::THREADS<CONSUMERS>, BYTES, stream>>>(
            params);
    return cudaGetLastError();
}

} // namespace

cudaError_t launch_fwd_sm90(const fwd_params &p, int32_t head_dim, cudaStream_t stream, bool *done)
{
    return launch_pieces(p, head_dim, fwd_sm90_kernel::ROWS<CONSUMERS>, done,
                         [=](const sm90_params &params, int processors) {
                             return head_dim == 64 ? launch<64>(params, processors, stream)
                                                   : launch<128>(params, processors, stream);
                         });
}

} // namespace kern_attention
