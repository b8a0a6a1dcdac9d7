/* `cadre score`: what a model, with or without an adapter, loses on a dataset. */
#ifndef CADRE_TRAINER_RUN_SCORE_REPORT_H
#define CADRE_TRAINER_RUN_SCORE_REPORT_H

#include "comm/comm.h"
#include "trainer/run/score_inputs.h"

typedef struct tr_score {
    tr_score_sources_t sources;
    int64_t tokens_per_trainer; /* rows of a microbatch; 0: as many as suit */
    bool per_document, json;
    FILE *out, *err;
    bool reported; /* written: faults were printed already */
} tr_score_t;

/* A comm_rank_fn for one rank; `user` is a tr_score_t. Writes to `out`:
 *
 *   {"documents": 12, "tokens": 3201, "supervised_tokens": 2800, "loss": 1.93, "perplexity": 6.89,
 *    "per_document": [{"document": 0, "line": 1, "tokens": 300, "supervised_tokens": 299,
 *                      "loss": 1.71}, ...]}
 *
 * or the same as text. Losses are means over supervised tokens, in nats. */
base_status_t tr_score_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user);

#endif
