#include "kernels/cuda/attention/fwd_call.cuh"
#include "kernels/cuda/attention/fwd_sm90.cuh"

using namespace kern_attention;

extern "C" int kern_cuda_attention_has_head_dim(int64_t head_dim)
{
    return any_dim_has_head_dim(head_dim);
}

extern "C" base_status_t kern_cuda_attention_fwd(base_stream_t *s, const kern_attention_fwd_t *args)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    return run_fwd(s, args, [=](fwd_params &params) {
        if (!mma_has_head_dim(args->head_dim))
            return launch_fwd_any_dim(params, args->head_dim, stream);
        bool done = false;
        const cudaError_t e = launch_fwd_sm90(params, args->head_dim, stream, &done);
        if (done || e != cudaSuccess) return e;
        return launch_fwd_mma(params, args->head_dim, stream);
    });
}

extern "C" base_status_t kern_cuda_attention_fwd_mma(base_stream_t *s,
                                                     const kern_attention_fwd_t *args)
{
    if (!mma_has_head_dim(args->head_dim)) return BASE_ERR_UNSUPPORTED;
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    return run_fwd(s, args, [=](fwd_params &params) {
        return launch_fwd_mma(params, args->head_dim, stream);
    });
}
