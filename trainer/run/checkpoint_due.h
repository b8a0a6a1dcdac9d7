/* When the next checkpoint is due: train.checkpoint_every_minutes by rank 0's clock, or
 * checkpoint_every_microbatches, which every rank counts alike. The caller's memory. */
#ifndef CADRE_TRAINER_RUN_CHECKPOINT_DUE_H
#define CADRE_TRAINER_RUN_CHECKPOINT_DUE_H

#include "base/config/config.h"
#include "trainer/run/run_status.h"

typedef struct tr_checkpoint_due {
    tr_now_fn now;
    int64_t every_ns, every_microbatches; /* one of them is 0 */
    int64_t last_ns, last_microbatch;
    bool asked;
} tr_checkpoint_due_t;

/* `microbatch`: where the run begins. */
void tr_checkpoint_due_init(tr_checkpoint_due_t *due, const base_config_t *config, tr_now_fn now,
                            int64_t microbatch);
/* By the clock: true once, until it has been tried. */
bool tr_checkpoint_due_ask(tr_checkpoint_due_t *due);
/* By the count: after so many microbatches. */
bool tr_checkpoint_due_here(const tr_checkpoint_due_t *due, int64_t microbatch);
/* One was written here, or could not be: the next one is due an interval later. */
void tr_checkpoint_due_tried(tr_checkpoint_due_t *due, int64_t microbatch);

#endif
