#include "kernels/cuda/attention/bwd_call.cuh"
#include "kernels/cuda/attention/bwd_sm90.cuh"

using namespace kern_attention;

namespace
{

bool is_summed(const kern_attention_bwd_t *args)
{
    return args->workspace.buffer != nullptr && kern_attention_bwd_workspace(args) > 0;
}

} // namespace

extern "C" base_status_t kern_cuda_attention_bwd(base_stream_t *s, const kern_attention_bwd_t *args)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    return run_bwd(s, args, is_summed(args), [=](bwd_params &params) {
        if (!mma_has_head_dim(args->head_dim))
            return launch_bwd_any_dim(params, args->head_dim, stream);
        bool done = false;
        const cudaError_t e = launch_bwd_sm90(params, args->head_dim, stream, &done);
        if (done || e != cudaSuccess) return e;
        return launch_bwd_mma(params, args->head_dim, stream);
    });
}

extern "C" base_status_t kern_cuda_attention_bwd_mma(base_stream_t *s,
                                                     const kern_attention_bwd_t *args)
{
    if (!mma_has_head_dim(args->head_dim)) return BASE_ERR_UNSUPPORTED;
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    return run_bwd(s, args, is_summed(args), [=](bwd_params &params) {
        return launch_bwd_mma(params, args->head_dim, stream);
    });
}
