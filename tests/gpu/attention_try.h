/* The attention kernels that attention_check and attention_bench take by --ops NAME: the ops, those on mma.sync, and the room for
 * variants that are not taken (yet), which are held to the same tests and timed beside the ops; none at present.
 * docs/kernels/attention.md says what is expected of each. One that proves itself goes to kernels/cuda; one that does not goes. */
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

#ifdef __cplusplus
}
#endif

#endif
