/* The op table of the cuda device, and the functions in it: one op a file, same stems as
 * kernels/cpu. bf16 storage, fp32 accumulation; another dtype is BASE_ERR_UNSUPPORTED without a
 * text (kernels/op_registry.c writes it).
 *
 * Every entry is called with arguments that kernels/op_check.c has passed, queues its kernels on
 * the stream and returns; it allocates nothing and waits for nothing. Lists that arguments point
 * to are copied into kernel parameters, so on cuda they are free when the call returns. */
#ifndef CADRE_KERNELS_CUDA_CUDA_OPS_H
#define CADRE_KERNELS_CUDA_CUDA_OPS_H

#include "kernels/op.h"

#ifdef __cplusplus
extern "C" {
#endif

const kern_ops_t *kern_cuda_ops(void); /* NULL in builds without CUDA */

/* Head dims 64 and 128, others BASE_ERR_UNSUPPORTED. Addresses and strides of q, k, v, o, d_o, dq,
 * dk, dv are multiples of 16 bytes; q_row0 + q_rows and q_rows R are at most 2^31 - 4097; else
 * BASE_ERR_ARG. */
base_status_t kern_cuda_attention_fwd(base_stream_t *s, const kern_attention_fwd_t *args);
base_status_t kern_cuda_attention_bwd(base_stream_t *s, const kern_attention_bwd_t *args);

/* On mma.sync also where another kernel is faster: tests hold one against the other. */
base_status_t kern_cuda_attention_fwd_mma(base_stream_t *s, const kern_attention_fwd_t *args);
base_status_t kern_cuda_attention_bwd_mma(base_stream_t *s, const kern_attention_bwd_t *args);

/* head_dim a multiple of 8; rows of o and d_o begin at multiples of 16 bytes. */
base_status_t kern_cuda_attention_delta(base_stream_t *s, const kern_attention_delta_t *args);

/* Places and strides are multiples of 16 bytes; a sum has at most 1024 parts. */
base_status_t kern_cuda_partial_sum(base_stream_t *s, const kern_partial_sum_t *args);

#ifdef __cplusplus
}
#endif
#endif
