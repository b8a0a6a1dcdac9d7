/* How many microbatches a run will take and how full they are, by packing them without training. */
#ifndef CADRE_TRAINER_RUN_EPOCH_ESTIMATE_H
#define CADRE_TRAINER_RUN_EPOCH_ESTIMATE_H

#include "trainer/loop/select.h"

/* More are not packed: then `whole` is 0 and the shares are those of the first ones. */
#define TR_EPOCH_MICROBATCHES 500

typedef struct tr_epoch_estimate {
    int64_t microbatches;   /* until every job has seen its data once, or has ended */
    int64_t rows, pad_rows; /* of all trainers, in them */
    int whole;
} tr_epoch_estimate_t;

/* Spends the jobs: they are as after training afterwards. Lots without tokens are enough. */
base_status_t tr_epoch_estimate(base_ctx_t *ctx, tr_job_t *const *jobs, int32_t num_jobs,
                                int64_t rank_columns, const tr_lot_options_t *lots,
                                tr_epoch_estimate_t *estimate) BASE_MUST_CHECK;

#endif
