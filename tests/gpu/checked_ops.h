/* kern_<op>_run for the cuda device only: checks and calls the implementation, without the
 * registry, whose CPU side would bring OpenBLAS along. */
#ifndef CADRE_TESTS_GPU_CHECKED_OPS_H
#define CADRE_TESTS_GPU_CHECKED_OPS_H

#include "kernels/op.h"

#ifdef __cplusplus
extern "C" {
#endif

base_status_t checked_attention_fwd(base_stream_t *s, const kern_attention_fwd_t *args);
base_status_t checked_attention_fwd_mma(base_stream_t *s, const kern_attention_fwd_t *args);
base_status_t checked_attention_bwd(base_stream_t *s, const kern_attention_bwd_t *args);
base_status_t checked_attention_bwd_mma(base_stream_t *s, const kern_attention_bwd_t *args);
base_status_t checked_attention_delta(base_stream_t *s, const kern_attention_delta_t *args);
base_status_t checked_partial_sum(base_stream_t *s, const kern_partial_sum_t *args);

#ifdef __cplusplus
}
#endif
#endif
