/* Tensors of one KV head on the CPU, on which CA-tasks are timed. */
#ifndef CADRE_TRAINER_BENCH_BENCH_PLAN_RIG_H
#define CADRE_TRAINER_BENCH_BENCH_PLAN_RIG_H

#include "attention_server/cost_profile.h"

typedef struct tr_rig tr_rig_t;

/* Rows [q0, q1) of a document, and the least time that they took in each direction so far; 0: not
 * timed yet. */
typedef struct tr_timed {
    int64_t q0, q1;
    int64_t ns[AS_PROFILE_DIRECTIONS];
} tr_timed_t;

/* fp32; documents of at most max_keys rows. The caller closes it. */
base_status_t tr_rig_open(base_ctx_t *ctx, int32_t group, int32_t head_dim, int64_t max_keys,
                          tr_rig_t **rig_p) BASE_MUST_CHECK;
void tr_rig_close(tr_rig_t *rig);

/* Runs the rows once, forward and then backward (which reads the forward's lse). Time is CPU time of
 * the process: other work on the machine does not count, and with one thread it is the time that
 * they take. */
base_status_t tr_rig_time(tr_rig_t *rig, tr_timed_t *timed) BASE_MUST_CHECK;

#endif
