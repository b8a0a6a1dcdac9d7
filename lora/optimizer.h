/* One optimizer step over a list of tensors: norm of the gradients, clipping, finiteness, AdamW
 * (kernels/op.h), without the host looking at anything, in between or afterwards. The same for an
 * adapter and for a whole model, each a *subject* of the optimizer.
 *
 * When a gradient is not finite nothing is written, then and in every later step of that subject: the
 * device remembers it, so that the host may give more steps before it knows. `nonfinite` says how
 * many elements were not, and the caller puts that adapter aside.
 *
 *   lora_optimizer_declare(&optimizer, arena, acc, num_adapters)     then commit
 *   lora_optimizer_start(&optimizer, stream)
 *   lora_optimizer_step(&optimizer, &step, stream)
 *   lora_optimizer_download(&optimizer, step.subject, stream, &landing)      waits for nothing
 *   ... when the stream has passed that:
 *   result = lora_optimizer_landed(&optimizer, &landing) */
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
    int32_t num_subjects;
    base_region_t sum, norm, factor;
    base_region_t nonfinite; /* I32 [num_subjects], found so far */
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
    int32_t subject;  /* in [0, num_subjects) */
} lora_optimizer_step_t;

/* Host memory that the result of a step goes to: of a base_staging_t, or the download waits. */
typedef struct lora_optimizer_landing {
    union {
        double wide;
        float single;
    } norm; /* in acc */
    int32_t nonfinite;
} lora_optimizer_landing_t;

typedef struct lora_optimizer_result {
    double norm;       /* of the gradients, before clipping */
    int32_t nonfinite; /* of the subject's gradients so far */
} lora_optimizer_result_t;

base_status_t lora_optimizer_declare(lora_optimizer_t *optimizer, base_arena_t *arena,
                                     kern_dtype_t acc, int32_t num_subjects) BASE_MUST_CHECK;
/* No gradient was ever not finite. */
base_status_t lora_optimizer_start(const lora_optimizer_t *optimizer,
                                   base_stream_t *stream) BASE_MUST_CHECK;
base_status_t lora_optimizer_step(const lora_optimizer_t *optimizer,
                                  const lora_optimizer_step_t *step,
                                  base_stream_t *stream) BASE_MUST_CHECK;
/* What came out of the subject's step, the last that was given: in stream order. `landing` is
 * untouched until the stream has passed. */
base_status_t lora_optimizer_download(const lora_optimizer_t *optimizer, int32_t subject,
                                      base_stream_t *stream,
                                      lora_optimizer_landing_t *landing) BASE_MUST_CHECK;
lora_optimizer_result_t lora_optimizer_landed(const lora_optimizer_t *optimizer,
                                              const lora_optimizer_landing_t *landing);

/* Fills in lists, dtype and subject of an adapter's step: its tensors, all of them decayed, and its
 * gradient as one vector; the caller fills in the rest. The lists are the set's, which has
 * LORA_ADAPTER_LISTS for each adapter, used in turn: so many of its steps may be on their way. */
void lora_optimizer_adapter(lora_adapter_set_t *set, int32_t adapter, lora_optimizer_step_t *step);

#ifdef __cplusplus
}
#endif
#endif
