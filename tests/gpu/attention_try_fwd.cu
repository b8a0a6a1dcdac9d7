#include "tests/gpu/attention_try.h"

#include "kernels/cuda/attention/fwd_call.cuh"
#include "kernels/cuda/attention/fwd_sm90_kernel.cuh"

using namespace kern_attention;

namespace
{

template <int D, int CONSUMERS, bool TURNS, bool MIXED = false>
__global__ void __launch_bounds__(fwd_sm90_kernel::THREADS<CONSUMERS>, 1)
    fwd_sm90_try(const __grid_constant__ sm90_params p)
{
    fwd_sm90_kernel::fwd_block<D, CONSUMERS, TURNS, MIXED>(p);
}

template <int D, int CONSUMERS, bool TURNS, bool MIXED = false>
cudaError_t launch(const sm90_params &params, int processors, cudaStream_t stream)
{
    constexpr int BYTES = fwd_sm90_kernel::SHARED_BYTES<D, CONSUMERS>;
    constexpr int THREADS = fwd_sm90_kernel::THREADS<CONSUMERS>;
    const auto kernel = fwd_sm90_try<D, CONSUMERS, TURNS, MIXED>;
    const cudaError_t e =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (e != cudaSuccess) return e;
    const int blocks = std::min(params.num_items, processors);
    kernel<<<static_cast<unsigned>(blocks), THREADS, BYTES, stream>>>(params);
    return cudaGetLastError();
}

template <int D, int CONSUMERS, bool TURNS, bool MIXED = false>
base_status_t run(base_stream_t *s, const kern_attention_fwd_t *args)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    if (args->head_dim != D) return kern_cuda_attention_fwd(s, args);
    return run_fwd(s, args, [=](fwd_params &params) {
        bool done = false;
        const cudaError_t e =
            launch_pieces(params, D, whole_tiles(D, fwd_sm90_kernel::ROWS<CONSUMERS>), &done,
                          [=](const sm90_params &piece, int processors) {
                              return launch<D, CONSUMERS, TURNS, MIXED>(piece, processors, stream);
                          });
        if (done || e != cudaSuccess) return e;
        return launch_fwd_mma(params, D, stream);
    });
}

/* Blocks in clusters of two. */
template <int D, int CONSUMERS, bool TURNS, bool MIXED>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(fwd_sm90_kernel::THREADS<CONSUMERS>, 1)
    fwd_sm90_pair(const __grid_constant__ sm90_params p)
{
    fwd_sm90_kernel::fwd_block<D, CONSUMERS, TURNS, MIXED, true>(p);
}

template <bool MIXED>
cudaError_t launch_pair(const sm90_params &params, int processors, cudaStream_t stream)
{
    constexpr int BYTES = fwd_sm90_kernel::SHARED_BYTES<128, 2>;
    const auto kernel = fwd_sm90_pair<128, 2, true, MIXED>;
    const cudaError_t e =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (e != cudaSuccess) return e;
    const int pairs = std::min(params.num_items, processors / 2);
    kernel<<<static_cast<unsigned>(2 * pairs), fwd_sm90_kernel::THREADS<2>, BYTES, stream>>>(
        params);
    return cudaGetLastError();
}

template <bool MIXED> base_status_t run_pair(base_stream_t *s, const kern_attention_fwd_t *args)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    if (args->head_dim != 128) return kern_cuda_attention_fwd(s, args);
    return run_fwd(s, args, [=](fwd_params &params) {
        bool done = false;
        const cudaError_t e =
            launch_pieces(params, 128, {2 * FWD_SM90_ROWS, FWD_SM90_ROWS, 1}, &done,
                          [=](const sm90_params &piece, int processors) {
                              return launch_pair<MIXED>(piece, processors, stream);
                          });
        if (done || e != cudaSuccess) return e;
        return launch_fwd_mma(params, 128, stream);
    });
}

} // namespace

extern "C" base_status_t try_fwd_pair(base_stream_t *s, const kern_attention_fwd_t *args)
{
    return run_pair<false>(s, args);
}

extern "C" base_status_t try_fwd_pair_mixed(base_stream_t *s, const kern_attention_fwd_t *args)
{
    return run_pair<true>(s, args);
}

extern "C" base_status_t try_fwd_wide(base_stream_t *s, const kern_attention_fwd_t *args)
{
    return run<64, 3, true>(s, args);
}

extern "C" base_status_t try_fwd_wide_free(base_stream_t *s, const kern_attention_fwd_t *args)
{
    return run<64, 3, false>(s, args);
}

extern "C" base_status_t try_fwd_mixed(base_stream_t *s, const kern_attention_fwd_t *args)
{
    return args->head_dim == 64 ? run<64, 3, true, true>(s, args)
                                : run<128, 2, true, true>(s, args);
}

extern "C" base_status_t try_fwd_free(base_stream_t *s, const kern_attention_fwd_t *args)
{
    return args->head_dim == 64 ? run<64, 2, false>(s, args) : run<128, 2, false>(s, args);
}
