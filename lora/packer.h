/* The packer: which documents come together in a microbatch (lora/pack_window.h says what is asked).
 *
 *   lora_packer_t *packer;
 *   BASE_TRY(lora_packer_create(ctx, &limits, &packer));
 *   BASE_TRY(lora_packer_run(packer, &window, &schedule));          a whole window
 *   BASE_TRY(lora_packer_next(packer, &window, &schedule));         its first microbatch only
 *
 * Aims, in this order: fewest microbatches, few adapters in each, supervised rows spread evenly. A
 * microbatch starts with the adapter that is least far (or has most microbatches before it), takes
 * along batches that fit whole, and fills the rest by exact subset sums (lora/pack_fill.h), looking
 * at further adapters only while rows stay empty. `run` does so under each of a few policies and
 * keeps the best schedule; `next` takes the first microbatch by the first policy, so that a
 * training loop asks anew at each microbatch, with adapters that came and without those that went.
 * Both then exchange documents of a batch so that supervised rows are spread (lora/pack_level.h).
 *
 * A pure function of window and limits, in integers, with total orders: every rank gets the same
 * schedule. Nothing is allocated after creation. One thread. */
#ifndef CADRE_LORA_PACKER_H
#define CADRE_LORA_PACKER_H

#include "lora/pack_window.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lora_packer_limits {
    int32_t max_adapters, max_batches, max_documents; /* of a window */
} lora_packer_limits_t;

typedef struct lora_packer lora_packer_t;

base_status_t lora_packer_create(base_ctx_t *ctx, const lora_packer_limits_t *limits,
                                 lora_packer_t **packer_p) BASE_MUST_CHECK;
void lora_packer_destroy(lora_packer_t *packer); /* NULL is legal */

/* Errors of both: those of lora_window_check; BASE_ERR_ARG (INT-01) when the window is larger than
 * the limits. */
base_status_t lora_packer_run(lora_packer_t *packer, const lora_window_t *window,
                              lora_schedule_t *schedule) BASE_MUST_CHECK;
/* One microbatch: 0 for its documents, -1 for all others. Empty when every adapter has to pause. */
base_status_t lora_packer_next(lora_packer_t *packer, const lora_window_t *window,
                               lora_schedule_t *schedule) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
