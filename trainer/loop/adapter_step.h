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

/* What came out of a step, where it arrives on the host: of a base_staging_t, or the step waits. */
typedef struct tr_step_landing {
    lora_optimizer_landing_t optimizer;
    union {
        double wide;
        float single;
    } loss; /* in the accumulating dtype */
} tr_step_landing_t;

typedef struct tr_step_result {
    double loss;       /* sum of the weighted losses of the global batch */
    double norm;       /* of the gradient, before clipping */
    int32_t nonfinite; /* elements of its gradients so far that are not: then nothing was changed */
} tr_step_result_t;

/* Called when the gradient has been summed over the trainers and before it is clipped: it may be
 * read (gradients.h). */
typedef struct tr_step_hook {
    base_status_t (*fn)(void *user, int32_t adapter); /* NULL: not wanted */
    void *user;
} tr_step_hook_t;

/* Sums gradient and loss over the trainers, steps, and zeroes them for the next global batch, all in
 * stream order: nothing waits. The result is in `landing` when the stream has passed, which nobody
 * touches until then; pool ranks have none, and landing may be NULL. All ranks call it.
 *
 * Of an adapter: every weight is decayed, its count of steps goes on; LORA_ADAPTER_LISTS of its steps
 * may be on their way. Of the model: matrices are decayed, biases and norms are not (as
 * transformers' Trainer), and there is one part of the loss; AdamW's t is `step`, from 1.
 *
 * A gradient that was not finite is found by the device, which leaves masters and moments alone from
 * then on. Who learns it from the result takes the count of steps back (the adapter's `step`). */
base_status_t tr_adapter_step(tr_trainer_t *trainer, int32_t adapter,
                              const tr_step_options_t *options, const tr_step_hook_t *hook,
                              tr_step_landing_t *landing) BASE_MUST_CHECK;
base_status_t tr_full_step(tr_trainer_t *trainer, int64_t step, const tr_step_options_t *options,
                           const tr_step_hook_t *hook, tr_step_landing_t *landing) BASE_MUST_CHECK;
tr_step_result_t tr_step_landed(const tr_trainer_t *trainer, const tr_step_landing_t *landing);

#endif
