/* A call of attention_bwd as launches. Host code. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_BWD_CALL_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_BWD_CALL_CUH

#include "kernels/cuda/attention/any_dim.cuh"
#include "kernels/cuda/attention/mma_launch.cuh"
#include "kernels/cuda/attention/task_batches.cuh"
#include "kernels/cuda/cuda_ops.h"

namespace kern_attention
{

/* launch(params) works on params.list. summed: dq in args->workspace, which there is then. */
template <class Launch>
base_status_t run_bwd(base_stream_t *s, const kern_attention_bwd_t *args, bool summed,
                      Launch launch)
{
    if (args->dtype != KERN_BF16 || !any_dim_has_head_dim(args->head_dim))
        return BASE_ERR_UNSUPPORTED;
    bwd_params p;
    p.q = kern_cuda_pointer<const __nv_bfloat16>(args->q);
    p.k = kern_cuda_pointer<const __nv_bfloat16>(args->k);
    p.v = kern_cuda_pointer<const __nv_bfloat16>(args->v);
    p.d_o = kern_cuda_pointer<const __nv_bfloat16>(args->d_o);
    p.lse = kern_cuda_pointer<const float>(args->lse);
    p.delta = kern_cuda_pointer<const float>(args->delta);
    p.dq = kern_cuda_pointer<__nv_bfloat16>(args->dq);
    p.dk = kern_cuda_pointer<float>(args->dk);
    p.dv = kern_cuda_pointer<float>(args->dv);
    p.dk_real = kern_cuda_pointer<__nv_bfloat16>(args->dk_real);
    p.dv_real = kern_cuda_pointer<__nv_bfloat16>(args->dv_real);
    p.workspace = summed ? kern_cuda_pointer<void>(args->workspace) : nullptr;
    if (reinterpret_cast<uintptr_t>(p.workspace) % BASE_ALIGN != 0)
        return BASE_FAIL(base_device_ctx(base_stream_device(s)), BASE_ERR_ARG, BASE_MSG_INT_01,
                         "attention_bwd: workspace is not at a multiple of 16 bytes");
    p.dims = shape_of(args->group, args->window, args->scale);
    return run_batches(
        s, "attention_bwd", args, p,
        [&p](const kern_attention_task_t &t) {
            const operand_place dk =
                t.real ? operand_place{"dk_real", p.dk_real, REAL_ALIGN, t.dkv, t.dkv_head, 0}
                       : operand_place{"dk", p.dk, ACC_ALIGN, t.dkv, t.dkv_head, 0};
            const operand_place dv =
                t.real ? operand_place{"dv_real", p.dv_real, REAL_ALIGN, t.dkv, t.dkv_head, 0}
                       : operand_place{"dv", p.dv, ACC_ALIGN, t.dkv, t.dkv_head, 0};
            return std::array<operand_place, 7>{{
                {"q", p.q, REAL_ALIGN, t.q, t.q_head, 0},
                {"k", p.k, REAL_ALIGN, t.kv, t.kv_head, 0},
                {"v", p.v, REAL_ALIGN, t.kv, t.kv_head, 0},
                {"d_o", p.d_o, REAL_ALIGN, t.d_o, t.d_o_head, t.d_o_row},
                {"dq", p.dq, REAL_ALIGN, t.dq, t.dq_head, 0},
                dk,
                dv,
            }};
        },
        launch);
}

} // namespace kern_attention

#endif
