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

/* attention_try_fwd.cu: head dim 64 on blocks of 192 rows and three consumers, in turns or each when it can (128: as
 * the op); a quarter of the exponentials on the multiply-add pipe, head dim 64 on blocks of 192 rows; the op's blocks
 * without turns; head dim 128 in pairs of blocks that share what they read of keys and values (64: as the op), also
 * with mixed exponentials. */
base_status_t try_fwd_wide(base_stream_t *s, const kern_attention_fwd_t *args);
base_status_t try_fwd_wide_free(base_stream_t *s, const kern_attention_fwd_t *args);
base_status_t try_fwd_mixed(base_stream_t *s, const kern_attention_fwd_t *args);
base_status_t try_fwd_free(base_stream_t *s, const kern_attention_fwd_t *args);
base_status_t try_fwd_pair(base_stream_t *s, const kern_attention_fwd_t *args);
base_status_t try_fwd_pair_mixed(base_stream_t *s, const kern_attention_fwd_t *args);

/* attention_try_bwd.cu: five products and a workspace also where windows are narrow; the same with the
 * sum of dq brought to shared memory for the block that adds last. */
base_status_t try_bwd_summed(base_stream_t *s, const kern_attention_bwd_t *args);
base_status_t try_bwd_fetched(base_stream_t *s, const kern_attention_bwd_t *args);
/* Five products, head dim 128 (64: as the op): dq leaves a turn later, under the next scores; and dk's products
 * before ds goes to shared memory; and the sum fetched. */
base_status_t try_bwd_late(base_stream_t *s, const kern_attention_bwd_t *args);
base_status_t try_bwd_late_dk(base_stream_t *s, const kern_attention_bwd_t *args);
base_status_t try_bwd_late_fetched(base_stream_t *s, const kern_attention_bwd_t *args);
int64_t try_bwd_summed_workspace(const kern_attention_bwd_t *args);

#ifdef __cplusplus
}
#endif

#endif
