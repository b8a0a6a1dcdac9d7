/* Lower bounds on the number of microbatches: no schedule can have fewer.
 *
 *   volume   rows over capacity
 *   L2       Martello and Toth (1990): documents above half the capacity cannot share, and what is
 *            not small does not fit beside them
 *   dual     Fekete and Schepers' (2001) dual feasible functions: documents just above a third (a
 *            fourth, ...) of the capacity share with one (two, ...) of their like at most
 *   chain    of each adapter: its batches need microbatches of their own, one batch after another,
 *            with stages - 1 between; and others' documents that stand alone need theirs beside
 *   columns  batches need at least so many microbatches, each with the adapter's rank: L2 and dual of
 *            ranks in columns; and adapters beside whose rank no other fits share with none
 *
 * Pure functions in integers. */
#ifndef CADRE_LORA_BOUND_H
#define CADRE_LORA_BOUND_H

#include "lora/pack_window.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lora_bounds {
    int64_t volume, l2, dual, chain, columns;
    int64_t best; /* the largest */
} lora_bounds_t;

int64_t lora_bound_volume(const int64_t *rows, int64_t num, int64_t capacity);

/* `sorted` is descending; rows above the capacity count as the capacity. At least as large as the
 * volume bound. Linear. */
int64_t lora_bound_l2(const int64_t *sorted, int64_t num, int64_t capacity);

/* In any order; linear. */
int64_t lora_bound_dual(const int64_t *rows, int64_t num, int64_t capacity);

/* Bounds of a whole window. Allocates its scratch. Errors: BASE_ERR_NOMEM. */
base_status_t lora_bound_window(base_ctx_t *ctx, const lora_window_t *window,
                                lora_bounds_t *bounds) BASE_MUST_CHECK;
/* The same in the caller's scratch, of 2 * num_documents numbers. */
void lora_bound_window_in(const lora_window_t *window, int64_t *scratch, lora_bounds_t *bounds);

#ifdef __cplusplus
}
#endif
#endif
