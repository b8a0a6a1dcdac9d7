/* `cadre bench profile` and `cadre bench attention --profile`: time core attention of this machine and
 * make the profile that the planner needs (attention_server/cost_profile.h). */
#ifndef CADRE_TRAINER_BENCH_BENCH_PLAN_PROFILE_H
#define CADRE_TRAINER_BENCH_BENCH_PLAN_PROFILE_H

#include "trainer/bench/bench_plan_rig.h"

#include <stdio.h>

#define TR_MAX_HELD_OUT 32

/* What is timed, and how. */
typedef struct tr_profile_device {
    const char *name, *dtype,
        *command;          /* of the profile: device, dtype, and before the commit the source */
    int32_t row_grain;     /* 1: what rows cost that are not there is measured */
    int32_t rounds;        /* times of each task, of which the least counts */
    int64_t max_held_rows; /* of a task that is held out */
    int32_t each_side; /* of a point: tile rows of its task before and behind its own, 1 or more */
    int32_t
        many; /* tile rows that tell what a task's keys take once from what rows take; 0: nothing */
    /* Takes one time of one KV head of a task in both directions and keeps the least so far. */
    base_status_t (*time)(void *rig, tr_timed_t *timed);
    void *rig;
} tr_profile_device_t;

typedef struct tr_bench_profile {
    int32_t group, head_dim;
    int64_t max_keys;     /* longest context that is timed, a multiple of 128, at least 512 */
    int32_t num_held_out; /* tasks that are timed to see how well the profile foretells them */
} tr_bench_profile_t;

/* One task that the profile was not made from. */
typedef struct tr_held_out {
    int64_t q0, q1;
    int64_t measured_ns[AS_PROFILE_DIRECTIONS], predicted_ns[AS_PROFILE_DIRECTIONS];
} tr_held_out_t;

/* `held_out` has num_held_out entries. */
base_status_t tr_profile_make(base_ctx_t *ctx, const tr_bench_profile_t *options,
                              const tr_profile_device_t *device, as_profile_t *profile,
                              tr_held_out_t *held_out) BASE_MUST_CHECK;

/* The same of this CPU, fp32. Times are CPU time of the process: other work on the machine does not
 * count, and since a rank works on one thread it is the time that a task takes. */
base_status_t tr_bench_profile(base_ctx_t *ctx, const tr_bench_profile_t *options,
                               as_profile_t *profile, tr_held_out_t *held_out) BASE_MUST_CHECK;

/* Prints what was held out; gives the worst error, per cent. */
double tr_held_out_print(FILE *out, const tr_held_out_t *held_out, int32_t count);

/* Writes the profile to a file, or to `out` when path is NULL. */
base_status_t tr_profile_save(base_ctx_t *ctx, const char *path, FILE *out,
                              const as_profile_t *profile) BASE_MUST_CHECK;

#endif
