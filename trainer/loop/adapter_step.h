/* An optimizer step: of one adapter when its global batch is complete, or of the model itself
 * (train.mode full). */
#ifndef CADRE_TRAINER_LOOP_ADAPTER_STEP_H
#define CADRE_TRAINER_LOOP_ADAPTER_STEP_H

#include "trainer/loop/gradients.h"

/* AdamW's numbers for this step. */
typedef struct tr_step_options {
    double learning_rate, beta1, beta2, eps, weight_decay;
    double clip_norm; /* 0: never clipped */
} tr_step_options_t;

/* What an optimizer step reports. Pool ranks get zeros. */
typedef struct tr_step_result {
    double loss;       /* sum of the weighted losses of the global batch */
    double norm;       /* of the gradient, before clipping */
    int32_t nonfinite; /* elements of the gradient that are not: then nothing was changed */
} tr_step_result_t;

/* Called when the gradient has been summed over the trainers and before it is clipped: it may be
 * read (gradients.h). */
typedef struct tr_step_hook {
    base_status_t (*fn)(void *user, int32_t adapter); /* NULL: not wanted */
    void *user;
} tr_step_hook_t;

/* Sums gradient and loss over the trainers, steps, reports, and zeroes them for the next global
 * batch. Waits for the stream. All ranks call it.
 *
 * Of an adapter: every weight is decayed. Of the model: matrices are decayed, biases and norms are
 * not (as transformers' Trainer), and there is one part of the loss; AdamW's t is `step`, from 1.
 */
base_status_t tr_adapter_step(tr_trainer_t *trainer, int32_t adapter,
                              const tr_step_options_t *options, const tr_step_hook_t *hook,
                              tr_step_result_t *result) BASE_MUST_CHECK;
base_status_t tr_full_step(tr_trainer_t *trainer, int64_t step, const tr_step_options_t *options,
                           const tr_step_hook_t *hook, tr_step_result_t *result) BASE_MUST_CHECK;

#endif
