/* The checkpoints of a training run: when one is written, what happens when it cannot be, and the
 * end of a run that was asked to stop.
 *
 * All ranks create one and call the same functions at the same places; rank 0 has the clock and
 * speaks. Borrows everything. One thread. */
#ifndef CADRE_TRAINER_RUN_TRAIN_CHECKPOINTS_H
#define CADRE_TRAINER_RUN_TRAIN_CHECKPOINTS_H

#include "trainer/run/checkpoint_due.h"
#include "trainer/run/checkpoint_write.h"
#include "trainer/run/signals.h"
#include "trainer/run/train_report.h"

typedef struct tr_train_checkpoints {
    tr_checkpoint_t checkpoint;
    tr_checkpoint_due_t due;
    tr_train_report_t *report; /* NULL on other ranks than 0 */
    const tr_signals_t *signals;
    bool stopped; /* saved because it was asked to stop: jobs are left */
    int64_t said_ns;
} tr_train_checkpoints_t;

/* tr_train_t has its microbatch. */
void tr_train_checkpoints_init(tr_train_checkpoints_t *checkpoints,
                               const tr_checkpoint_t *checkpoint, const base_config_t *config,
                               tr_train_report_t *report, const tr_signals_t *signals);

/* For tr_train_events_t: what this rank wants; and what is to be done after a microbatch. A
 * checkpoint that cannot be written is a warning, unless the run is to stop here: then it is the
 * error of the run (RUN-07; BASE_ERR_SPACE when a disk is full). */
uint64_t tr_train_checkpoints_wants(tr_train_checkpoints_t *checkpoints);
base_status_t tr_train_checkpoints_boundary(tr_train_checkpoints_t *checkpoints,
                                            uint64_t events) BASE_MUST_CHECK;
/* All jobs have ended: a last one, from which the run can go on with more steps. Not of a model
 * with evaluations, whose weights are its best again and not its last. */
base_status_t tr_train_checkpoints_end(tr_train_checkpoints_t *checkpoints) BASE_MUST_CHECK;

#endif
