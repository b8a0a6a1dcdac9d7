/* One microbatch on one rank: forward, loss and backward, gradients added to what is there. */
#ifndef CADRE_TRAINER_LOOP_MICROBATCH_H
#define CADRE_TRAINER_LOOP_MICROBATCH_H

#include "trainer/loop/trainer.h"

/* Installs the batch (rows of this trainer, tasks of this rank) and runs the static program once.
 * `plans` holds one plan for each attention kind of the model (tr_model_t: window), in that order;
 * batch and plans are the same on every rank and borrowed until the next-but-one call. All ranks of
 * the group call it, in the same order; trainers and pool ranks run the same code.
 *
 * The call returns when the work is given to the compute stream. Within it nothing waits on the
 * host; at its beginning it waits for the microbatch before the last, whose host lists it uses
 * again. Allocates nothing after the first two calls unless a batch is larger than the config's
 * max_*.
 *
 * Errors: those of as_attention_microbatch and of tr_rows_install before anything is given to the
 * stream of this microbatch's program; later ones leave the gradients undefined. */
base_status_t tr_microbatch_run(tr_trainer_t *trainer, const data_batch_t *batch,
                                const as_plan_t *const *plans) BASE_MUST_CHECK;

/* The same, forward only and without dropout: losses (tr_head_losses, tr_head_sums) and no
 * gradients. */
base_status_t tr_microbatch_evaluate(tr_trainer_t *trainer, const data_batch_t *batch,
                                     const as_plan_t *const *plans) BASE_MUST_CHECK;

#endif
