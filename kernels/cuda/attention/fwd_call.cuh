/* A call of attention_fwd as launches. Host code. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_FWD_CALL_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_FWD_CALL_CUH

#include "kernels/cuda/attention/any_dim.cuh"
#include "kernels/cuda/attention/mma_launch.cuh"
#include "kernels/cuda/attention/task_batches.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace kern_attention
{

/* launch(params) works on params.list. */
template <class Launch>
base_status_t run_fwd(base_stream_t *s, const kern_attention_fwd_t *args, Launch launch)
{
    if (args->dtype != KERN_BF16 || !any_dim_has_head_dim(args->head_dim))
        return BASE_ERR_UNSUPPORTED;
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

} // namespace kern_attention

#endif
