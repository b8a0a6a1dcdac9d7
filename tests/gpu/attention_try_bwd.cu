#include "tests/gpu/attention_try.h"

#include "kernels/cuda/attention/bwd_call.cuh"
#include "kernels/cuda/attention/dqkv_sm90_kernel.cuh"

using namespace kern_attention;

namespace
{

template <int D, bool FETCH>
__global__ void __launch_bounds__(bwd_keys::THREADS, 1)
    dqkv_sm90_try(const __grid_constant__ bwd_sm90_params p)
{
    bwd_keys::dqkv_block<D, FETCH>(p);
}

cudaError_t launch_fetched(const bwd_sm90_params &p, int32_t head_dim, cudaStream_t stream)
{
    return head_dim == 64 ? launch_dqkv<64>(dqkv_sm90_try<64, true>, p, stream)
                          : launch_dqkv_sm90(p, head_dim, stream);
}

base_status_t run(base_stream_t *s, const kern_attention_bwd_t *args, launch_dqkv_t dqkv)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    if (args->workspace.buffer == nullptr || kern_attention_bwd_workspace(args) == 0)
        return kern_cuda_attention_bwd(s, args);
    return run_bwd(s, args, true, [=](bwd_params &params) {
        bool done = false;
        const cudaError_t e = launch_bwd_sm90(params, args->head_dim, stream, &done, dqkv);
        return e == cudaSuccess && !done ? cudaErrorNotSupported : e;
    });
}

} // namespace

extern "C" base_status_t try_bwd_fetched(base_stream_t *s, const kern_attention_bwd_t *args)
{
    return run(s, args, launch_fetched);
}
