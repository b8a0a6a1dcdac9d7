#include "tests/gpu/attention_try.h"

#include "kernels/cuda/attention/fwd_call.cuh"
#include "kernels/cuda/attention/fwd_sm90_kernel.cuh"

using namespace kern_attention;

namespace
{

/* Blocks in clusters of two. */
template <int D>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(fwd_sm90_kernel::THREADS<2>, 1)
    fwd_sm90_pair(const __grid_constant__ sm90_params p)
{
    fwd_sm90_kernel::fwd_block<D, 2, true>(p);
}

cudaError_t launch_pair(const sm90_params &params, int processors, cudaStream_t stream)
{
    constexpr int BYTES = fwd_sm90_kernel::SHARED_BYTES<128, 2>;
    const auto kernel = fwd_sm90_pair<128>;
    const cudaError_t e =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (e != cudaSuccess) return e;
    const int pairs = std::min(params.num_items, processors / 2);
    kernel<<<static_cast<unsigned>(2 * pairs), fwd_sm90_kernel::THREADS<2>, BYTES, stream>>>(
        params);
    return cudaGetLastError();
}

} // namespace

extern "C" base_status_t try_fwd_pair(base_stream_t *s, const kern_attention_fwd_t *args)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    if (args->head_dim != 128) return kern_cuda_attention_fwd(s, args);
    return run_fwd(s, args, [=](fwd_params &params) {
        bool done = false;
        const cudaError_t e =
            launch_pieces(params, 128, {2 * FWD_SM90_ROWS<128>, FWD_SM90_ROWS<128>, 1}, &done,
                          [=](const sm90_params &piece, int processors) {
                              return launch_pair(piece, processors, stream);
                          });
        if (done || e != cudaSuccess) return e;
        return launch_fwd_mma(params, 128, stream);
    });
}
