#include "tests/gpu/attention_try_lazy.cuh"

#include "kernels/cuda/attention/fwd_call.cuh"
#include "kernels/cuda/attention/fwd_sm90_kernel.cuh"
#include "tests/gpu/attention_try.h"

using namespace kern_attention;

namespace
{

template <int D> constexpr int CONSUMERS = FWD_SM90_ROWS<D> / fwd_sm90_kernel::GROUP_ROWS;

template <int D, class SOFTMAX>
__global__ void __launch_bounds__(fwd_sm90_kernel::THREADS<CONSUMERS<D>>, 1)
    fwd_sm90_try(const __grid_constant__ sm90_params p)
{
    fwd_sm90_kernel::fwd_block<D, CONSUMERS<D>, false, SOFTMAX>(p);
}

template <int D, class SOFTMAX>
cudaError_t launch(const sm90_params &params, int processors, cudaStream_t stream)
{
    constexpr int BYTES = fwd_sm90_kernel::SHARED_BYTES<D, CONSUMERS<D>>;
    const auto kernel = fwd_sm90_try<D, SOFTMAX>;
    const cudaError_t e =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (e != cudaSuccess) return e;
    const int blocks = std::min(params.num_items, processors);
    kernel<<<static_cast<unsigned>(blocks), fwd_sm90_kernel::THREADS<CONSUMERS<D>>, BYTES,
             stream>>>(params);
    return cudaGetLastError();
}

template <int D, class SOFTMAX>
base_status_t run_dim(base_stream_t *s, const kern_attention_fwd_t *args)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    return run_fwd(s, args, [=](fwd_params &params) {
        bool done = false;
        const cudaError_t e =
            launch_pieces(params, D, whole_tiles(D, FWD_SM90_ROWS<D>), &done,
                          [=](const sm90_params &piece, int processors) {
                              return launch<D, SOFTMAX>(piece, processors, stream);
                          });
        if (done || e != cudaSuccess) return e;
        return launch_fwd_mma(params, D, stream);
    });
}

template <class SOFTMAX> base_status_t run(base_stream_t *s, const kern_attention_fwd_t *args)
{
    return args->head_dim == 64 ? run_dim<64, SOFTMAX>(s, args) : run_dim<128, SOFTMAX>(s, args);
}

} // namespace

extern "C" base_status_t try_fwd_held(base_stream_t *s, const kern_attention_fwd_t *args)
{
    return run<held_softmax>(s, args);
}

extern "C" base_status_t try_fwd_lazy(base_stream_t *s, const kern_attention_fwd_t *args)
{
    return run<lazy_softmax>(s, args);
}
