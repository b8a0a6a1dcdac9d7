/* `cadre bench plan`: the planner beside DistCA's, on drawn layouts; no GPU is needed. */
#ifndef CADRE_TRAINER_BENCH_BENCH_PLAN_H
#define CADRE_TRAINER_BENCH_BENCH_PLAN_H

#include "attention_server/cost_profile.h"

#include <stdio.h>

typedef struct tr_bench_plan {
    const as_profile_t *profile; /* NULL: the derived one of an H200, group 4, head dim 128 */
    int32_t draws;
    int32_t max_servers; /* of 4 to 512; fewer take less time */
    int json;            /* 1: one object a line instead of tables */
} tr_bench_plan_t;

/* Writes to `out` as it goes. */
base_status_t tr_bench_plan(base_ctx_t *ctx, const tr_bench_plan_t *options,
                            FILE *out) BASE_MUST_CHECK;

#endif
