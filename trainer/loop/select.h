/* Which documents come next: fills a lot from the jobs' global batches.
 *
 * The job that is least far, as a share of its steps, comes first and gives documents, in its
 * order, until its batch is used up or its next document does not fit; then the next job. So jobs
 * of the same length end together, microbatches hold few adapters, and the last places go to whose
 * documents fit. The ranks of a microbatch's adapters stay within rank_columns.
 *
 * To be replaced by the packer; a pure function of the jobs' states, in integers. */
#ifndef CADRE_TRAINER_LOOP_SELECT_H
#define CADRE_TRAINER_LOOP_SELECT_H

#include "trainer/loop/job.h"
#include "trainer/loop/lot.h"

/* Begins, fills and finishes the lot. `chosen` (of num_jobs, the caller's) is set to 1 for jobs
 * that are in it. rank_columns 0: ranks do not matter (train.mode full). There is at least one
 * running job; each has documents left in its batch. Errors: those of reading, packing and
 * planning. */
base_status_t tr_select_fill(tr_job_t *const *jobs, int32_t num_jobs, int64_t rank_columns,
                             int64_t microbatch, tr_lot_t *lot, int *chosen) BASE_MUST_CHECK;

#endif
