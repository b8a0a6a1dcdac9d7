/* `cadre bench profile`: times core attention of this machine's CPU and makes the profile that the
 * planner needs (attention_server/cost_profile.h). */
#ifndef CADRE_TRAINER_BENCH_BENCH_PLAN_PROFILE_H
#define CADRE_TRAINER_BENCH_BENCH_PLAN_PROFILE_H

#include "attention_server/cost_profile.h"

#define TR_MAX_HELD_OUT 32

typedef struct tr_bench_profile {
    int32_t group, head_dim; /* fp32 */
    int64_t max_keys;        /* longest context that is timed, a multiple of 128 */
    int32_t num_held_out;    /* tasks that are timed to see how well the profile foretells them */
} tr_bench_profile_t;

/* One task that the profile was not made from. */
typedef struct tr_held_out {
    int64_t q0, q1;
    int64_t measured_ns[AS_PROFILE_DIRECTIONS], predicted_ns[AS_PROFILE_DIRECTIONS];
} tr_held_out_t;

/* Times are CPU time of the process, the least of several runs: other work on the machine does not
 * count, and with one thread (OMP_NUM_THREADS=1) it is the time that a task takes. `held_out` has
 * num_held_out entries. */
base_status_t tr_bench_profile(base_ctx_t *ctx, const tr_bench_profile_t *options,
                               as_profile_t *profile, tr_held_out_t *held_out) BASE_MUST_CHECK;

#endif
