/* What the jobs of a run leave when they end, and what happens when that cannot be written: a full
 * disk at hour ten must not end the other jobs, nor cost this one's training. So it is a warning, and
 * tried again whenever another job ends and when all have; only what is still missing then is the
 * error of the run (RUN-10). The job's state is in every checkpoint from its end on, so that --resume
 * can make up for it.
 *
 * Rank 0. One thread. */
#ifndef CADRE_TRAINER_RUN_TRAIN_LEAVINGS_H
#define CADRE_TRAINER_RUN_TRAIN_LEAVINGS_H

#include "trainer/run/train_export.h"

typedef struct tr_train_leavings {
    tr_train_t *train;
    const tr_inputs_t *inputs;
    const tr_run_folder_t *folder;
    bool full;
    bool *missing;     /* [num_jobs] ended, and not exported */
    base_error_t last; /* why, of the last one that was tried */
} tr_train_leavings_t;

/* Borrows all; the caller calls tr_train_leavings_deinit. */
base_status_t tr_train_leavings_init(tr_train_t *train, const tr_inputs_t *inputs,
                                     const tr_run_folder_t *folder, bool full,
                                     tr_train_leavings_t *leavings) BASE_MUST_CHECK;
void tr_train_leavings_deinit(tr_train_leavings_t *leavings); /* of zeros: nothing */

/* The job has ended: exports it. Fails only where more is lost than the export (base/status.h), or where an
 * earlier export of the job could not be put aside (train_export.h). */
base_status_t tr_train_leavings_ended(tr_train_leavings_t *leavings, int32_t job) BASE_MUST_CHECK;
/* Tries again what is missing. Likewise. */
base_status_t tr_train_leavings_retry(tr_train_leavings_t *leavings) BASE_MUST_CHECK;
/* BASE_OK when nothing is missing; else RUN-10 with the status of the last reason. */
base_status_t tr_train_leavings_verdict(const tr_train_leavings_t *leavings) BASE_MUST_CHECK;

#endif
