/* Gradients, of the model's weights or of the adapters, and the adapters' losses that stand beside
 * them, between microbatches. Each adapter has its own clock: its gradient is summed over trainers
 * and zeroed when its global batch is complete, whatever the others do. */
#ifndef CADRE_TRAINER_LOOP_GRADIENTS_H
#define CADRE_TRAINER_LOOP_GRADIENTS_H

#include "trainer/loop/trainer.h"

/* Zeroes gradients and losses in stream order. Nothing to do on a pool rank. */
base_status_t tr_gradients_zero(tr_trainer_t *trainer) BASE_MUST_CHECK;

/* Sums gradients and losses over the trainers, in ascending trainer, so that every trainer holds
 * the same bits. All ranks of the group call it; pool ranks contribute nothing. In stream order;
 * blocks as comm_all_reduce says. Call it once per global batch: a second call would sum the
 * sums. */
base_status_t tr_gradients_reduce(tr_trainer_t *trainer) BASE_MUST_CHECK;

/* The same for one adapter: its gradient and its loss. */
base_status_t tr_gradients_zero_adapter(tr_trainer_t *trainer, int32_t adapter) BASE_MUST_CHECK;
base_status_t tr_gradients_reduce_adapter(tr_trainer_t *trainer, int32_t adapter) BASE_MUST_CHECK;

/* The loss alone, and reads it: for an evaluation. Waits. Pool ranks get 0. */
base_status_t tr_gradients_reduce_loss(tr_trainer_t *trainer, int32_t adapter,
                                       double *loss) BASE_MUST_CHECK;

/* Gradient of weight `index` of the model's list as rows x cols doubles, and the adapters' losses
 * as num_adapters doubles. They wait for the stream and allocate: for tests, checkpoints and the
 * end of a step. BASE_ERR_STATE on a pool rank. */
base_status_t tr_gradients_read(tr_trainer_t *trainer, int32_t index,
                                double *values) BASE_MUST_CHECK;
/* Of an adapter: its vector (lora/layout.h) as adapter_count doubles. */
base_status_t tr_gradients_read_adapter(tr_trainer_t *trainer, int32_t adapter,
                                        double *values) BASE_MUST_CHECK;
base_status_t tr_gradients_read_losses(tr_trainer_t *trainer, double *losses) BASE_MUST_CHECK;
/* One adapter's loss in the accumulating dtype, in stream order: to memory of a base_staging_t, or it
 * waits. */
base_status_t tr_gradients_download_loss(tr_trainer_t *trainer, int32_t adapter,
                                         void *to) BASE_MUST_CHECK;
/* The same; waits, and allocates nothing. */
base_status_t tr_gradients_read_loss(tr_trainer_t *trainer, int32_t adapter,
                                     double *loss) BASE_MUST_CHECK;

#endif
