/* Saves the state of a run after a microbatch: a checkpoint (checkpoint_folder.h, docs/formats.md).
 *
 * Rank 0 writes what all trainers have alike, each trainer its part of the gradients of global
 * batches at work, zeros left out. All ranks call it at the same place and learn the same outcome.
 * A checkpoint that cannot be written is an outcome and no error: those before it are there, and
 * the run can go on. */
#ifndef CADRE_TRAINER_RUN_CHECKPOINT_WRITE_H
#define CADRE_TRAINER_RUN_CHECKPOINT_WRITE_H

#include "trainer/loop/train.h"
#include "trainer/run/inputs.h"

/* How long ranks wait for each other while one reads or writes a checkpoint: a disk that is shared
 * by many may be slow. */
#define TR_CHECKPOINT_DEADLINE_MS INT64_C(3600000)

/* How long the run has run, and what it has written: rank 0 knows. */
typedef struct tr_checkpoint_clock {
    int64_t microbatch;
    int64_t metrics_bytes;
    int64_t elapsed_ns;
    const int64_t *since_step_ns; /* [num_jobs] */
} tr_checkpoint_clock_t;

/* Everything is borrowed. */
typedef struct tr_checkpoint {
    base_ctx_t *ctx;
    comm_group_t *group;
    const tr_inputs_t *inputs;
    tr_train_t *train;
    const char *root; /* output/checkpoints */
    int64_t keep;
} tr_checkpoint_t;

typedef struct tr_checkpoint_outcome {
    base_status_t status; /* of the first rank that failed; BASE_OK: saved */
    char text[512];       /* what it says */
} tr_checkpoint_outcome_t;

/* Collective. `clock` is NULL on other ranks than 0; `before`: what failed on this rank already, or
 * BASE_OK. Errors: those of the group. Waits may take as long as the slowest disk. */
base_status_t tr_checkpoint_write(const tr_checkpoint_t *checkpoint,
                                  const tr_checkpoint_clock_t *clock, base_status_t before,
                                  tr_checkpoint_outcome_t *outcome) BASE_MUST_CHECK;

#endif
