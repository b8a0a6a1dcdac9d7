/* The op table of the cuda device, and the functions in it: one op a file, same stems as
 * kernels/cpu. bf16 storage, fp32 accumulation; another dtype is BASE_ERR_UNSUPPORTED without a
 * text (kernels/op_registry.c writes it).
 *
 * Every entry is called with arguments that kernels/op_check.c has passed, queues its kernels on
 * the stream and returns; it allocates nothing and waits for nothing (the first call of a stream
 * that needs scratch memory or cuBLASLt apart: stream_state.h). Lists that arguments point
 * to are copied into kernel parameters, so on cuda they are free when the call returns. */
#ifndef CADRE_KERNELS_CUDA_CUDA_OPS_H
#define CADRE_KERNELS_CUDA_CUDA_OPS_H

#include "kernels/op.h"

#ifdef __cplusplus
extern "C" {
#endif

const kern_ops_t *kern_cuda_ops(void); /* NULL in builds without CUDA */

/* Head dims that are multiples of 8, others BASE_ERR_UNSUPPORTED; fast with 64 and 128. Addresses and strides of q, k, v, o, d_o, dq,
 * dk, dv are multiples of 16 bytes; q_row0 + q_rows and q_rows R are at most 2^31 - 4097; else
 * BASE_ERR_ARG. */
int kern_cuda_attention_has_head_dim(int64_t head_dim);
base_status_t kern_cuda_attention_fwd(base_stream_t *s, const kern_attention_fwd_t *args);
base_status_t kern_cuda_attention_bwd(base_stream_t *s, const kern_attention_bwd_t *args);

/* On mma.sync also where another kernel is faster: tests hold one against the other. */
base_status_t kern_cuda_attention_fwd_mma(base_stream_t *s, const kern_attention_fwd_t *args);
base_status_t kern_cuda_attention_bwd_mma(base_stream_t *s, const kern_attention_bwd_t *args);

/* head_dim a multiple of 8; rows of o and d_o begin at multiples of 16 bytes. */
base_status_t kern_cuda_attention_delta(base_stream_t *s, const kern_attention_delta_t *args);

/* Places and strides are multiples of 16 bytes; a sum has at most 1024 parts. */
base_status_t kern_cuda_partial_sum(base_stream_t *s, const kern_partial_sum_t *args);

/* The ops below take any pitch and place. Rows that begin at multiples of 16 bytes and widths that
 * are multiples of 8 elements run at the speed of memory, others element by element. */

/* bf16 by bf16 into bf16 or fp32, through cuBLASLt. Which algorithm a shape has, and where it is
 * kept: gemm_plans.h, stream_state.h. The first product of a stream loads the library and
 * allocates. */
base_status_t kern_cuda_gemm(base_stream_t *s, const kern_gemm_t *args);
base_status_t kern_cuda_gemm_search(base_stream_t *s, const kern_gemm_t *args);
base_status_t kern_cuda_gemm_search_new(base_stream_t *s, int on);
base_status_t kern_cuda_gemm_choices_save(base_stream_t *s, void *to, int64_t room, int64_t *bytes);
base_status_t kern_cuda_gemm_choices_load(base_stream_t *s, const void *from, int64_t bytes,
                                          int64_t *taken);

base_status_t kern_cuda_add(base_stream_t *s, const kern_add_t *args);
base_status_t kern_cuda_convert(base_stream_t *s, const kern_convert_t *args);
base_status_t kern_cuda_bias_add(base_stream_t *s, const kern_bias_add_t *args);
base_status_t kern_cuda_column_sum(base_stream_t *s, const kern_column_sum_t *args);

/* A token outside the vocabulary: NaN in its row of out; nothing in dtable. */
base_status_t kern_cuda_embedding_fwd(base_stream_t *s, const kern_embedding_fwd_t *args);
base_status_t kern_cuda_embedding_bwd(base_stream_t *s, const kern_embedding_bwd_t *args);

base_status_t kern_cuda_rmsnorm_fwd(base_stream_t *s, const kern_rmsnorm_fwd_t *args);
base_status_t kern_cuda_add_rmsnorm_fwd(base_stream_t *s, const kern_add_rmsnorm_fwd_t *args);
base_status_t kern_cuda_rmsnorm_bwd(base_stream_t *s, const kern_rmsnorm_bwd_t *args);
base_status_t kern_cuda_head_norm_fwd(base_stream_t *s, const kern_head_norm_fwd_t *args);
base_status_t kern_cuda_head_norm_bwd(base_stream_t *s, const kern_head_norm_bwd_t *args);

/* A position outside the table: NaN in the row's q and k. */
base_status_t kern_cuda_rope_table(base_stream_t *s, const kern_rope_table_t *args);
base_status_t kern_cuda_rope_fwd(base_stream_t *s, const kern_rope_fwd_t *args);
base_status_t kern_cuda_rope_bwd(base_stream_t *s, const kern_rope_bwd_t *args);

base_status_t kern_cuda_swiglu_fwd(base_stream_t *s, const kern_swiglu_fwd_t *args);
base_status_t kern_cuda_swiglu_bwd(base_stream_t *s, const kern_swiglu_bwd_t *args);

/* A listed row or a target that does not exist: loss NaN and no gradient. */
base_status_t kern_cuda_loss_linear_ce(base_stream_t *s, const kern_loss_linear_ce_t *args);
/* A value of a segment that does not exist is left out. */
base_status_t kern_cuda_loss_sum(base_stream_t *s, const kern_loss_sum_t *args);

base_status_t kern_cuda_lora_s(base_stream_t *s, const kern_lora_s_t *args);
base_status_t kern_cuda_lora_ds(base_stream_t *s, const kern_lora_ds_t *args);
base_status_t kern_cuda_lora_da(base_stream_t *s, const kern_lora_da_t *args);
base_status_t kern_cuda_lora_db(base_stream_t *s, const kern_lora_db_t *args);
base_status_t kern_cuda_lora_dy(base_stream_t *s, const kern_lora_dy_t *args);
/* An adapter whose ranks in the route come to more than 96: dx is rounded between each 96. */
base_status_t kern_cuda_lora_dx_dropout(base_stream_t *s, const kern_lora_dx_dropout_t *args);

base_status_t kern_cuda_vector_sum(base_stream_t *s, const kern_vector_sum_t *args);
base_status_t kern_cuda_grad_norm(base_stream_t *s, const kern_grad_norm_t *args);
base_status_t kern_cuda_clip_factor(base_stream_t *s, const kern_clip_factor_t *args);
base_status_t kern_cuda_finite_check(base_stream_t *s, const kern_finite_check_t *args);
/* Copies bf16 or fp32; masters, m, v with the bits of the fp32 CPU op. */
base_status_t kern_cuda_adamw(base_stream_t *s, const kern_adamw_t *args);

#ifdef __cplusplus
}
#endif
#endif
