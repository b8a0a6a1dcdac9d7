/* How many microbatches a run will take and how full they are, by packing them without training,
 * with the fast packer whatever batch.packer says. */
#ifndef CADRE_TRAINER_RUN_EPOCH_ESTIMATE_H
#define CADRE_TRAINER_RUN_EPOCH_ESTIMATE_H

#include "trainer/loop/horizon.h"

/* More are not packed: then `whole` is 0 and the shares are those of the first ones. */
#define TR_EPOCH_MICROBATCHES 500

/* Of so many of the first microbatches it is said what their plans reach. */
#define TR_EPOCH_PLANS 8

/* One layer of each attention kind, forward and backward: the server that is busy longest, and what
 * no plan is below (as_score_t). */
typedef struct tr_epoch_plan {
    int64_t document_rows;
    int64_t makespan_ns, bound_ns;
    int32_t tasks, remote; /* of those: not where their rows are */
} tr_epoch_plan_t;

typedef struct tr_epoch_estimate {
    int64_t microbatches;   /* until every job has seen its data once, or has ended */
    int64_t rows, pad_rows; /* of all trainers, in them */
    int whole;
    int32_t num_plans;
    tr_epoch_plan_t plans[TR_EPOCH_PLANS];
} tr_epoch_estimate_t;

/* Achieved above the bound, per cent. */
double tr_epoch_plan_gap(const tr_epoch_plan_t *plan);

/* Moves the jobs' orders, and nothing else of them. Lots without tokens are enough. */
base_status_t tr_epoch_estimate(base_ctx_t *ctx, tr_job_t *const *jobs, int32_t num_jobs,
                                int64_t rank_columns, const tr_lot_options_t *lots,
                                tr_epoch_estimate_t *estimate) BASE_MUST_CHECK;

#endif
