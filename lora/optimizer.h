/* One optimizer step over a list of tensors: norm of the gradients, clipping, finiteness, AdamW
 * (kernels/op.h), without the host looking at anything in between. The same for an adapter and for
 * a whole model.
 *
 * When a gradient is not finite nothing is written: `nonfinite` says how many elements were not,
 * and the caller puts that adapter aside.
 *
 *   lora_optimizer_declare(&optimizer, arena, acc)     then commit
 *   lora_optimizer_step(&optimizer, &step, stream)
 *   lora_optimizer_read(&optimizer, ctx, stream, &result)      waits */
#ifndef CADRE_LORA_OPTIMIZER_H
#define CADRE_LORA_OPTIMIZER_H

#include "base/arena.h"
#include "kernels/op.h"
#include "lora/adapter_set.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lora_optimizer {
    const base_arena_t *arena;
    kern_dtype_t acc;
    base_region_t sum, norm, factor, nonfinite;
} lora_optimizer_t;

/* Tensors [0, num_decayed) get weight decay, the rest none. Lists stay unchanged until the stream
 * has passed the step. */
typedef struct lora_optimizer_step {
    kern_dtype_t dtype; /* of the copies */
    int64_t num_gradients;
    const kern_mat_t *gradients; /* all of them, in the fixed order of the norm */
    int64_t num_tensors, num_decayed;
    const kern_adamw_tensor_t *tensors;
    double learning_rate, beta1, beta2, eps, weight_decay;
    double clip_norm; /* 0: never clipped */
    int64_t step;     /* AdamW's t, from 1 */
} lora_optimizer_step_t;

typedef struct lora_optimizer_result {
    double norm; /* of the gradients, before clipping */
    int32_t nonfinite;
} lora_optimizer_result_t;

base_status_t lora_optimizer_declare(lora_optimizer_t *optimizer, base_arena_t *arena,
                                     kern_dtype_t acc) BASE_MUST_CHECK;
base_status_t lora_optimizer_step(const lora_optimizer_t *optimizer,
                                  const lora_optimizer_step_t *step,
                                  base_stream_t *stream) BASE_MUST_CHECK;
/* What came out of the last step; waits for the stream. */
base_status_t lora_optimizer_read(const lora_optimizer_t *optimizer, base_stream_t *stream,
                                  lora_optimizer_result_t *result) BASE_MUST_CHECK;

/* Fills tensors of an adapter's step from the set (all of them decayed) and gives their number and
 * the gradient as one vector; the caller fills in the rest. The list is the set's: one step of an
 * adapter at a time. */
void lora_optimizer_adapter(lora_adapter_set_t *set, int32_t adapter, kern_mat_t *gradient,
                            lora_optimizer_step_t *step);

#ifdef __cplusplus
}
#endif
#endif
