/* `cadre bench attention --profile`: the cost profile of a device that is kept busy, and the raw times
 * over q rows, prefix and heads. */
#ifndef CADRE_TRAINER_BENCH_BENCH_ATTENTION_PROFILE_H
#define CADRE_TRAINER_BENCH_BENCH_ATTENTION_PROFILE_H

#include "base/json_write.h"
#include "trainer/bench/bench_attention_rig.h"
#include "trainer/bench/bench_plan_profile.h"

#define TR_ATTENTION_HELD_OUT 16

typedef struct tr_attention_profile {
    int32_t group, head_dim;
    int64_t max_keys; /* a multiple of 128, 512 or more */
} tr_attention_profile_t;

/* Times each task as so many equal ones, each of a document of its own, that the device is full; its
 * time is that of one of them and one KV head. */
base_status_t
tr_attention_profile_make(base_ctx_t *ctx, tr_attention_rig_t *rig,
                          const tr_attention_profile_t *options, as_profile_t *profile,
                          tr_held_out_t held_out[TR_ATTENTION_HELD_OUT]) BASE_MUST_CHECK;

/* Writes an array, one object for each number of q rows, prefix and number of KV heads: times of one
 * task and one head, and how many equal tasks were in a call. */
base_status_t tr_attention_grid(base_ctx_t *ctx, tr_attention_rig_t *rig,
                                const tr_attention_profile_t *options,
                                base_json_t *j) BASE_MUST_CHECK;

#endif
