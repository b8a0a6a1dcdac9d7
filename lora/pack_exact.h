/* The exact packer: fewest microbatches for a window, then fewest adapters in them, as a
 * mixed-integer program. For windows of some tens of documents; larger ones end at a limit
 * with the schedule that they began with or a better one. */
#ifndef CADRE_LORA_PACK_EXACT_H
#define CADRE_LORA_PACK_EXACT_H

#include "lora/pack_window.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of the search; 0: none. */
typedef struct lora_exact_limits {
    double seconds;
    int32_t nodes;
} lora_exact_limits_t;

typedef struct lora_exact_result {
    int64_t bound; /* no schedule has fewer microbatches; at least lora_bound_window's */
    int proven;    /* 1: the schedule has the fewest microbatches */
} lora_exact_result_t;

/* `schedule` is a legal one (the packer's) and is replaced by a better one when there is one; where
 * it meets the bound already nothing is solved. Takes memory. A function of its arguments
 * unless the limit of time ends it; what lora/milp.h says of threads holds. Ranks call it through
 * lora/pack_process.h. Errors: those of lora_window_check and
 * lora_schedule_judge; BASE_ERR_NOMEM. */
base_status_t lora_pack_exact(base_ctx_t *ctx, const lora_window_t *window,
                              const lora_exact_limits_t *limits, lora_schedule_t *schedule,
                              lora_exact_result_t *result) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
