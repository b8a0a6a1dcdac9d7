/* `cadre bench attention`: speed of the attention ops on the cases of bench_attention_case.h, in
 * turns with those of others, and the cost profile that the planner reads.
 *
 * Of each case several rounds: some times of the forward, some of the backward, and the same of the
 * peers; medians over all rounds. TFLOP/s count visible pairs. A ratio is the peer's median over ours:
 * 1.03 says that we are faster by 3 %. */
#ifndef CADRE_TRAINER_BENCH_BENCH_ATTENTION_H
#define CADRE_TRAINER_BENCH_BENCH_ATTENTION_H

#include "trainer/bench/bench_attention_rig.h"

#include <stdio.h>

typedef struct tr_bench_attention {
    base_device_kind_t device;
    const tr_attention_ops_t *ops;
    const char *only;        /* cases whose name contains it; NULL: all */
    int64_t shrink;          /* lengths are divided by it */
    int32_t rounds, samples; /* of a round and direction; together at most TR_PEER_MAX_SAMPLES */
    const char *peer;        /* command (bench_attention_peer.h); NULL: none */
    const char *json;        /* file for the raw results; NULL: none */
    const char *profile;     /* file for the cost profile; NULL: it is not measured */
    int64_t max_keys;        /* longest context of the profile, a multiple of 128, 512 or more */
    int32_t group, head_dim; /* of the profile */
    bool cases;              /* false: the profile only */
    FILE *out;               /* the table */
    bool met; /* written: no case falls short of what is wanted of it (nor, with a profile, do more
                 than 5 % lie between a task and what the profile foretells) */
} tr_bench_attention_t;

base_status_t tr_bench_attention(base_ctx_t *ctx, tr_bench_attention_t *bench) BASE_MUST_CHECK;

#endif
