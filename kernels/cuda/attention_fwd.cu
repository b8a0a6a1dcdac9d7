#include "kernels/cuda/attention/fwd_sm90.cuh"
#include "kernels/cuda/attention/task_batches.cuh"
#include "kernels/cuda/cuda_ops.h"

using namespace kern_attention;

namespace
{

/* launch(params) works on params.list. */
template <class Launch>
base_status_t run_fwd(base_stream_t *s, const kern_attention_fwd_t *args, Launch launch)
{
    if (args->dtype != KERN_BF16 || !mma_has_head_dim(args->head_dim)) return BASE_ERR_UNSUPPORTED;
    fwd_params p;
    p.q = kern_cuda_pointer<const __nv_bfloat16>(args->q);
    p.k = kern_cuda_pointer<const __nv_bfloat16>(args->k);
    p.v = kern_cuda_pointer<const __nv_bfloat16>(args->v);
    p.o = kern_cuda_pointer<__nv_bfloat16>(args->o);
    p.lse = kern_cuda_pointer<float>(args->lse);
    p.dims = shape_of(args->group, args->window, args->scale);
    return run_batches(
        s, "attention_fwd", args, p,
        [&p](const kern_attention_task_t &t) {
            return std::array<operand_place, 4>{{
                {"q", p.q, REAL_ALIGN, t.q, t.q_head, 0},
                {"k", p.k, REAL_ALIGN, t.kv, t.kv_head, 0},
                {"v", p.v, REAL_ALIGN, t.kv, t.kv_head, 0},
                {"o", p.o, REAL_ALIGN, t.o, t.o_head, t.o_row},
            }};
        },
        launch);
}

} // namespace

extern "C" base_status_t kern_cuda_attention_fwd(base_stream_t *s, const kern_attention_fwd_t *args)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    return run_fwd(s, args, [=](fwd_params &params) {
        bool done = false;
        const cudaError_t e = launch_fwd_sm90(params, args->head_dim, stream, &done);
        if (done || e != cudaSuccess) return e;
        return launch_fwd_mma(params, args->head_dim, stream);
    });
}

extern "C" base_status_t kern_cuda_attention_fwd_mma(base_stream_t *s,
                                                     const kern_attention_fwd_t *args)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    return run_fwd(s, args, [=](fwd_params &params) {
        return launch_fwd_mma(params, args->head_dim, stream);
    });
}
