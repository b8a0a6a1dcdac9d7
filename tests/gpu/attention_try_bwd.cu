#include "tests/gpu/attention_try.h"

#include "kernels/cuda/attention/bwd_call.cuh"
#include "kernels/cuda/attention/bwd_sm90.cuh"

using namespace kern_attention;

extern "C" int64_t try_bwd_summed_workspace(const kern_attention_bwd_t *args)
{
    kern_attention_bwd_t wide = *args;
    wide.window = 0;
    return kern_attention_bwd_workspace(&wide);
}

extern "C" base_status_t try_bwd_summed(base_stream_t *s, const kern_attention_bwd_t *args)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    const bool summed = args->workspace.buffer != nullptr && try_bwd_summed_workspace(args) > 0;
    if (!summed) return kern_cuda_attention_bwd(s, args);
    return run_bwd(s, args, true, [=](bwd_params &params) {
        bool done = false;
        const cudaError_t e = launch_bwd_sm90(params, args->head_dim, stream, &done);
        return e == cudaSuccess && !done ? cudaErrorNotSupported : e;
    });
}
