#include "kernels/cuda/cuda_ops.h"

static const kern_ops_t CUDA_OPS = {
    .device = "cuda",
    .gemm = kern_cuda_gemm,
    .add = kern_cuda_add,
    .bias_add = kern_cuda_bias_add,
    .column_sum = kern_cuda_column_sum,
    .embedding_fwd = kern_cuda_embedding_fwd,
    .embedding_bwd = kern_cuda_embedding_bwd,
    .rmsnorm_fwd = kern_cuda_rmsnorm_fwd,
    .add_rmsnorm_fwd = kern_cuda_add_rmsnorm_fwd,
    .rmsnorm_bwd = kern_cuda_rmsnorm_bwd,
    .head_norm_fwd = kern_cuda_head_norm_fwd,
    .head_norm_bwd = kern_cuda_head_norm_bwd,
    .rope_table = kern_cuda_rope_table,
    .rope_fwd = kern_cuda_rope_fwd,
    .rope_bwd = kern_cuda_rope_bwd,
    .swiglu_fwd = kern_cuda_swiglu_fwd,
    .swiglu_bwd = kern_cuda_swiglu_bwd,
    .loss_linear_ce = kern_cuda_loss_linear_ce,
    .loss_sum = kern_cuda_loss_sum,
    .lora_s = kern_cuda_lora_s,
    .lora_ds = kern_cuda_lora_ds,
    .lora_da = kern_cuda_lora_da,
    .lora_db = kern_cuda_lora_db,
    .lora_dy = kern_cuda_lora_dy,
    .lora_dx_dropout = kern_cuda_lora_dx_dropout,
    .grad_norm = kern_cuda_grad_norm,
    .clip_factor = kern_cuda_clip_factor,
    .finite_check = kern_cuda_finite_check,
    .adamw = kern_cuda_adamw,
    .convert = kern_cuda_convert,
    .gemm_search = kern_cuda_gemm_search,
    .gemm_search_new = kern_cuda_gemm_search_new,
    .gemm_choices_save = kern_cuda_gemm_choices_save,
    .gemm_choices_load = kern_cuda_gemm_choices_load,
    .attention_has_head_dim = kern_cuda_attention_has_head_dim,
    .attention_fwd = kern_cuda_attention_fwd,
    .attention_bwd = kern_cuda_attention_bwd,
    .attention_delta = kern_cuda_attention_delta,
    .partial_sum = kern_cuda_partial_sum,
    .vector_sum = kern_cuda_vector_sum,
};

const kern_ops_t *kern_cuda_ops(void)
{
    return &CUDA_OPS;
}
