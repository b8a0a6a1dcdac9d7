/* Fills one microbatch: of offered items those whose rows fill the room best.
 *
 * Items come in the order of preference, group by group; a group is what is padded together (one
 * adapter, or everything when nothing is padded). Exact dynamic programming over the sums that can
 * be reached, one bit each: of all subsets it gives one of most rows, and of those the one that
 * takes the most preferred items. Groups that are not needed are left out.
 *
 * Integers only, no allocation after creation. One thread. Private to the packer. */
#ifndef CADRE_LORA_PACK_FILL_H
#define CADRE_LORA_PACK_FILL_H

#include "base/context.h"

/* Sums are kept exactly below so many rows of room; above they are kept in multiples of a quantum,
 * items rounded up. Offers beyond the last item are not looked at. */
#define LORA_FILL_BITS   16384
#define LORA_FILL_ITEMS  256
#define LORA_FILL_GROUPS 64

typedef struct lora_fill_item {
    int64_t rows;
    int32_t group; /* ascending */
    int32_t taken; /* out */
} lora_fill_item_t;

typedef struct lora_fill_offer {
    int64_t room;  /* rows, forced ones not counted; with align > 1 of the whole microbatch */
    int64_t align; /* 1: groups are only an order of preference */
    int64_t slack; /* good enough: with so many rows empty no further group is looked at */
    int32_t num_groups, num_items;
    const int64_t *forced; /* [num_groups] rows that the group has already; all 0 with align 1 */
    lora_fill_item_t *items;
} lora_fill_offer_t;

typedef struct lora_fill lora_fill_t;

base_status_t lora_fill_create(base_ctx_t *ctx, lora_fill_t **fill_p) BASE_MUST_CHECK;
void lora_fill_destroy(lora_fill_t *fill); /* NULL is legal */

/* Sets `taken` of the items and gives their rows. */
int64_t lora_fill_solve(lora_fill_t *fill, const lora_fill_offer_t *offer);

#endif
