/* Runs a set of CA-tasks on a device and times it: what `cadre bench attention` and its profile
 * share.
 *
 *   tr_attention_rig_open(ctx, BASE_DEVICE_CUDA, &TR_ATTENTION_PRODUCT, &rig);
 *   tr_attention_rig_load(rig, &shape, &set);
 *   tr_attention_rig_time(rig, AS_PROFILE_FORWARD, &time);       as often as wanted
 *   tr_attention_rig_close(rig);
 *
 * Operands lie as a trainer has them, or where a task has not all heads as a server has; keys of a
 * document once for all its tasks, dk and dv of each task by themselves, in fp32 where another task of the
 * set has gradients for the same keys. Values are random and normal
 * (a block of some megabytes over and over, so that a large set costs nothing). bf16 on cuda, fp32 on
 * the CPU. Where a set fits the device's caches several copies of it are taken by turns.
 *
 * The forward is one call of the op. The backward is delta = rowsum(d_o o), one call of the op with
 * its workspace, and dk, dv converted to the compute dtype where they are not yet: what a layer waits for. A time is wall
 * time of so many calls that they take some milliseconds, from an idle stream until it is idle again,
 * divided by their number; the device is kept busy meanwhile. One thread. */
#ifndef CADRE_TRAINER_BENCH_BENCH_ATTENTION_RIG_H
#define CADRE_TRAINER_BENCH_BENCH_ATTENTION_RIG_H

#include "kernels/op.h"
#include "trainer/bench/bench_attention_case.h"

/* What runs: the ops, or others of the same arguments that are tried in their place. */
typedef struct tr_attention_ops {
    const char *name;
    base_status_t (*forward)(base_stream_t *s, const kern_attention_fwd_t *args);
    base_status_t (*backward)(base_stream_t *s, const kern_attention_bwd_t *args);
    int64_t (*workspace)(const kern_attention_bwd_t *args); /* bytes for `backward` */
} tr_attention_ops_t;

extern const tr_attention_ops_t TR_ATTENTION_PRODUCT; /* kernels/op.h */

typedef struct tr_attention_time {
    int64_t call_ns; /* of one call */
    int64_t host_ns; /* of it, until the call returned */
} tr_attention_time_t;

typedef struct tr_attention_rig tr_attention_rig_t;

/* DEV-01 where the device is not there. Borrows ops. */
base_status_t tr_attention_rig_open(base_ctx_t *ctx, base_device_kind_t kind,
                                    const tr_attention_ops_t *ops,
                                    tr_attention_rig_t **rig_p) BASE_MUST_CHECK;
void tr_attention_rig_close(tr_attention_rig_t *rig); /* NULL is legal */
const char *tr_attention_rig_device(const tr_attention_rig_t *rig);
kern_dtype_t tr_attention_rig_dtype(const tr_attention_rig_t *rig);
bool tr_attention_rig_is_gpu(const tr_attention_rig_t *rig);

/* Replaces the set before; runs it once in each direction and finds out how many calls a time takes.
 * The set is not needed afterwards. MEM-01 when it does not fit the device. */
base_status_t tr_attention_rig_load(tr_attention_rig_t *rig, const tr_attention_shape_t *shape,
                                    const tr_attention_set_t *set) BASE_MUST_CHECK;
/* Bytes that tr_attention_rig_load would take, without further copies and workspace. */
int64_t tr_attention_set_bytes(kern_dtype_t dtype, const tr_attention_shape_t *shape,
                               const tr_attention_set_t *set);

/* direction: AS_PROFILE_FORWARD or AS_PROFILE_BACKWARD. */
base_status_t tr_attention_rig_time(tr_attention_rig_t *rig, int direction,
                                    tr_attention_time_t *time) BASE_MUST_CHECK;

#endif
