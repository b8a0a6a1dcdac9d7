/* The kernels on mma.sync (sm_80 and later; the first rung of docs/kernels/attention.md) and
 * their launches: one launch works on the tasks of one list. head_dim 64 and 128, any group, any
 * window. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_MMA_LAUNCH_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_MMA_LAUNCH_CUH

#include "kernels/cuda/attention/task_list.cuh"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace kern_attention
{

struct fwd_params {
    const __nv_bfloat16 *q, *k, *v;
    __nv_bfloat16 *o;
    float *lse;
    shape dims;
    task_list list;
};

struct bwd_params {
    const __nv_bfloat16 *q, *k, *v, *d_o;
    const float *lse, *delta;
    __nv_bfloat16 *dq;
    float *dk, *dv;
    __nv_bfloat16 *dk_real, *dv_real; /* of tasks that are real */
    void *workspace;                  /* of the op, or null */
    shape dims;
    task_list list; /* its items: packed rows */
    int32_t first_key_item[MAX_TASKS + 1];
};

/* What a launch may pass by value on sm_70 and later. */
constexpr size_t MAX_PARAMETER_BYTES = 32764;
static_assert(sizeof(fwd_params) <= MAX_PARAMETER_BYTES &&
                  sizeof(bwd_params) <= MAX_PARAMETER_BYTES,
              "MAX_TASKS is too large");

constexpr bool mma_has_head_dim(int32_t head_dim)
{
    return head_dim == 64 || head_dim == 128;
}

/* These fill in the list's items. The current device must be the stream's. No task of the list
 * is empty. One file of instances/ has each. */
template <int D> cudaError_t launch_fwd_mma(fwd_params &p, cudaStream_t stream);
template <int D> cudaError_t launch_bwd_mma(bwd_params &p, cudaStream_t stream);
/* Not also in the files that have the other head dim and see the kernel. */
extern template cudaError_t launch_fwd_mma<64>(fwd_params &, cudaStream_t);
extern template cudaError_t launch_fwd_mma<128>(fwd_params &, cudaStream_t);
extern template cudaError_t launch_bwd_mma<64>(bwd_params &, cudaStream_t);
extern template cudaError_t launch_bwd_mma<128>(bwd_params &, cudaStream_t);

inline cudaError_t launch_fwd_mma(fwd_params &p, int32_t head_dim, cudaStream_t stream)
{
    return head_dim == 64 ? launch_fwd_mma<64>(p, stream) : launch_fwd_mma<128>(p, stream);
}

inline cudaError_t launch_bwd_mma(bwd_params &p, int32_t head_dim, cudaStream_t stream)
{
    return head_dim == 64 ? launch_bwd_mma<64>(p, stream) : launch_bwd_mma<128>(p, stream);
}

} // namespace kern_attention

#endif
