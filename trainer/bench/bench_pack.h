/* `cadre bench pack`: the packer beside first-fit decreasing and LoRAFusion's, in LoRAFusion's
 * setting and as we run it; no GPU is needed. docs/packing.md explains the columns. */
#ifndef CADRE_TRAINER_BENCH_BENCH_PACK_H
#define CADRE_TRAINER_BENCH_BENCH_PACK_H

#include "base/context.h"

#include <stdio.h>

typedef struct tr_bench_pack {
    int32_t samples;        /* of each of the four adapters */
    int32_t solver_samples; /* the same where LoRAFusion's programs are solved; 0: not at all */
    int32_t solver_seconds; /* limit of each program */
    uint64_t seed;
    int json; /* 1: one object a line instead of tables */
} tr_bench_pack_t;

/* Writes to `out` as it goes. */
base_status_t tr_bench_pack(base_ctx_t *ctx, const tr_bench_pack_t *options,
                            FILE *out) BASE_MUST_CHECK;

#endif
