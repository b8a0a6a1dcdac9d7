/* Variants of the attention kernels that are not taken (yet): attention_check holds them to the same
 * tests as the ops, attention_bench times them beside the ops. docs/kernels/attention.md says what is
 * expected of each. One that proves itself goes to kernels/cuda; one that does not goes. */
#ifndef CADRE_TESTS_GPU_ATTENTION_TRY_H
#define CADRE_TESTS_GPU_ATTENTION_TRY_H

#include "trainer/bench/bench_attention_rig.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All of them; the first is the ops, without the registry, which knows the CPU's too. */
const tr_attention_ops_t *const *gpu_attention_ops(int *count);
/* The one of that name, or NULL. */
const tr_attention_ops_t *gpu_attention_ops_find(const char *name);

/* attention_try_bwd.cu: head dim 64 with the sum of dq brought to shared memory for the block that adds last, as head dim 128
 * has it. */
base_status_t try_bwd_fetched(base_stream_t *s, const kern_attention_bwd_t *args);

#ifdef __cplusplus
}
#endif

#endif
