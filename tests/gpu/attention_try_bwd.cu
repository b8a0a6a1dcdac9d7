#include "tests/gpu/attention_try.h"

#include "kernels/cuda/attention/bwd_call.cuh"
#include "kernels/cuda/attention/dqkv_sm90_kernel.cuh"

using namespace kern_attention;

namespace
{

template <int D>
__global__ void __launch_bounds__(bwd_keys::THREADS, 1)
    dqkv_sm90_try(const __grid_constant__ bwd_sm90_params p)
{
    bwd_keys::dqkv_block<D, true>(p);
}

cudaError_t launch_fetched(const bwd_sm90_params &p, int32_t head_dim, cudaStream_t stream)
{
    return head_dim == 64 ? launch_dqkv<64>(dqkv_sm90_try<64>, p, stream)
                          : launch_dqkv<128>(dqkv_sm90_try<128>, p, stream);
}

/* On the workspace; with none as the op. */
base_status_t run(base_stream_t *s, const kern_attention_bwd_t *args, bool summed,
                  launch_dqkv_t dqkv)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    if (!summed || args->workspace.buffer == nullptr) return kern_cuda_attention_bwd(s, args);
    return run_bwd(s, args, true, [=](bwd_params &params) {
        bool done = false;
        const cudaError_t e = launch_bwd_sm90(params, args->head_dim, stream, &done, dqkv);
        return e == cudaSuccess && !done ? cudaErrorNotSupported : e;
    });
}

} // namespace

extern "C" int64_t try_bwd_summed_workspace(const kern_attention_bwd_t *args)
{
    kern_attention_bwd_t wide = *args;
    wide.window = 0;
    return kern_attention_bwd_workspace(&wide);
}

extern "C" base_status_t try_bwd_summed(base_stream_t *s, const kern_attention_bwd_t *args)
{
    return run(s, args, try_bwd_summed_workspace(args) > 0, launch_dqkv_sm90);
}

extern "C" base_status_t try_bwd_fetched(base_stream_t *s, const kern_attention_bwd_t *args)
{
    return run(s, args, try_bwd_summed_workspace(args) > 0, launch_fetched);
}
