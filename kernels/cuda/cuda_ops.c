#include "kernels/cuda/cuda_ops.h"

static const kern_ops_t CUDA_OPS = {
    .device = "cuda",
    .attention_fwd = kern_cuda_attention_fwd,
    .attention_bwd = kern_cuda_attention_bwd,
    .attention_delta = kern_cuda_attention_delta,
    .partial_sum = kern_cuda_partial_sum,
};

const kern_ops_t *kern_cuda_ops(void)
{
    return &CUDA_OPS;
}
