/* What `cadre plan` writes. */
#ifndef CADRE_TRAINER_RUN_MEMORY_REPORT_H
#define CADRE_TRAINER_RUN_MEMORY_REPORT_H

#include "trainer/loop/trainer.h"
#include "trainer/run/inputs.h"
#include "trainer/run/memory_plan.h"

/* Pad rows above this share are worth a warning. */
#define TR_PAD_SHARE_MAX 0.05

typedef struct tr_memory_report {
    const tr_memory_plan_t *plan;
    int num_ranks;
    tr_memory_limit_t limit;
    int64_t total; /* of all ranks, at their highest */
    const tr_inputs_t *inputs;
    const tr_trainer_t *trainer; /* rank 0's */
    const tr_lot_options_t *lots;
    tr_epoch_estimate_t epoch;
    int64_t would_fit; /* it does not fit: with about so many rows it would; 0: with none */
} tr_memory_report_t;

/* A warning goes to `err` of the plan. */
void tr_memory_report_text(const tr_memory_report_t *report);

/* {"fits": true, "total_bytes", "available_bytes", "limit": "MemAvailable of /proc/meminfo",
 *  "tokens_per_trainer", "longest_document", "tokens_that_fit" (null when it fits or none do),
 *  "ranks": [{"rank", "device_bytes", "driver_bytes", "host_bytes", "transient_bytes", "total_bytes"}],
 *  "owners": [{"owner", "bytes"}],
 *  "regions": [{"owner", "name", "count", "bytes"}],        largest first; with --regions all
 *  "adapters": [{"adapter", "documents", "steps", "trainable_parameters"}],
 *  "epoch": {"microbatches", "whole", "pad_share"}}
 * A limit that is not known is null. */
base_status_t tr_memory_report_json(base_ctx_t *ctx,
                                    const tr_memory_report_t *report) BASE_MUST_CHECK;

#endif
