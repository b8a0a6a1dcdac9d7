#include "tests/gpu/attention_try.h"

#include "kernels/cuda/attention/bwd_call.cuh"
#include "tests/gpu/attention_try_late.cuh"

using namespace kern_attention;

namespace
{

template <int D, bool FETCH, class CONSUMER>
__global__ void __launch_bounds__(bwd_keys::THREADS, 1)
    dqkv_sm90_try(const __grid_constant__ bwd_sm90_params p)
{
    bwd_keys::dqkv_block<D, FETCH, CONSUMER>(p);
}

template <int D, bool FETCH, class CONSUMER>
cudaError_t launch(const bwd_sm90_params &p, cudaStream_t stream)
{
    return launch_dqkv<D>(dqkv_sm90_try<D, FETCH, CONSUMER>, p, stream);
}

cudaError_t launch_fetched(const bwd_sm90_params &p, int32_t head_dim, cudaStream_t stream)
{
    return head_dim == 64 ? launch<64, true, bwd_keys::consumer<64, true>>(p, stream)
                          : launch<128, true, bwd_keys::consumer<128, true>>(p, stream);
}

template <bool FETCH, bool DK_FIRST>
cudaError_t launch_late(const bwd_sm90_params &p, int32_t head_dim, cudaStream_t stream)
{
    return head_dim == 64
               ? launch_dqkv_sm90(p, head_dim, stream)
               : launch<128, FETCH, bwd_keys::consumer_late<128, FETCH, DK_FIRST>>(p, stream);
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

extern "C" base_status_t try_bwd_late(base_stream_t *s, const kern_attention_bwd_t *args)
{
    return run(s, args, kern_attention_bwd_workspace(args) > 0, launch_late<false, false>);
}

extern "C" base_status_t try_bwd_late_dk(base_stream_t *s, const kern_attention_bwd_t *args)
{
    return run(s, args, kern_attention_bwd_workspace(args) > 0, launch_late<false, true>);
}

extern "C" base_status_t try_bwd_late_fetched(base_stream_t *s, const kern_attention_bwd_t *args)
{
    return run(s, args, kern_attention_bwd_workspace(args) > 0, launch_late<true, true>);
}
