/* dq, dk and dv on sm_90a with a workspace. */
#include "kernels/cuda/attention/dqkv_sm90_kernel.cuh"

namespace kern_attention
{
namespace
{

template <int D>
__global__ void __launch_bounds__(bwd_keys::THREADS, 1)
    dqkv_sm90(const __grid_constant__ bwd_sm90_params p)
{
    bwd_keys::dqkv_block<D, false, bwd_keys::consumer<D, false>>(p);
}

template <int D> cudaError_t launch(const bwd_sm90_params &params, cudaStream_t stream)
{
    return launch_dqkv<D>(dqkv_sm90<D>, params, stream);
}

} // namespace

cudaError_t launch_dqkv_sm90(const bwd_sm90_params &p, int32_t head_dim, cudaStream_t stream)
{
    return head_dim == 64 ? launch<64>(p, stream) : launch<128>(p, stream);
}

} // namespace kern_attention
