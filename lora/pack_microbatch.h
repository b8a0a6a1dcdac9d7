/* One microbatch after another: the packer's step. Private to the packer. */
#ifndef CADRE_LORA_PACK_MICROBATCH_H
#define CADRE_LORA_PACK_MICROBATCH_H

#include "lora/pack_fill.h"
#include "lora/packer.h"

typedef enum lora_pack_order {
    LORA_LEAST_FAR,    /* by the share of its global batches that it has behind it, the one at work
                       not counted; then the one with least rows left of it: batches that are
                       finished make room for others to come in, batches that are merely begun
                       make all of them run dry at once */
    LORA_LONGEST_CHAIN /* by the microbatches that its batches still need one after another */
} lora_pack_order_t;

/* Batches that fit into one microbatch and are never divided. */
typedef enum lora_pack_unsplit {
    LORA_SPLIT_ANY,
    LORA_UNSPLIT_FIRST, /* that of the adapter that the microbatch starts with */
    LORA_UNSPLIT_ALL
} lora_pack_unsplit_t;

typedef struct lora_pack_policy {
    lora_pack_order_t order;
    int slack_shift; /* capacity >> this many rows may stay empty before more adapters come in */
    int together;    /* 1: batches that fit whole come first */
    lora_pack_unsplit_t unsplit;
    int start; /* which adapter's longest document the microbatch starts with: 0 the first's */
} lora_pack_policy_t;

/* How far an adapter is in the window. */
typedef struct lora_pack_adapter {
    int32_t batch, left; /* at work, absolute; documents of it without a microbatch */
    int64_t left_rows;
    int64_t ready; /* first microbatch that may hold documents of it */
} lora_pack_adapter_t;

typedef struct lora_pack_state {
    base_ctx_t *ctx;
    const lora_window_t *window;
    int32_t *microbatch; /* of each document, -1: none yet */
    int32_t documents_left;
    int32_t *sorted;     /* documents by batch, longest first */
    int32_t *order;      /* the same of batches at work: what is left of a batch at its front */
    int64_t *batch_rows; /* [batches] */
    int64_t *chain;      /* [batches + 1] microbatches from this batch of an adapter to its last */
    lora_pack_adapter_t *adapters;
    /* of the microbatch being filled */
    int64_t *keys;      /* [adapters] by which they come */
    int32_t *groups;    /* [adapters] that may come in, in their order */
    int64_t *forced;    /* [adapters] rows of each group that are in for certain */
    uint8_t *in, *best; /* [documents] */
    lora_fill_item_t *items;
    int32_t *item_document; /* [documents] -1 - group: all of the group's batch that is left */
    lora_fill_t *fill;
} lora_pack_state_t;

base_status_t lora_pack_state_init(base_ctx_t *ctx, const lora_packer_limits_t *limits,
                                   lora_pack_state_t *state) BASE_MUST_CHECK;
void lora_pack_state_deinit(lora_pack_state_t *state);

/* Borrows the window and `microbatch` [num_documents], which becomes -1. */
void lora_pack_state_begin(lora_pack_state_t *state, const lora_window_t *window,
                           int32_t *microbatch);

/* Chooses microbatch number `number`: sets groups and, of their documents that are left, `best`.
 * Gives the number of groups; 0: a pause. */
int32_t lora_pack_choose(lora_pack_state_t *state, const lora_pack_policy_t *policy,
                         int32_t number);
/* Takes what was chosen and gives the number of its adapters. */
int32_t lora_pack_take(lora_pack_state_t *state, int32_t num_groups, int32_t number);

/* Documents of a group that are left. */
const int32_t *lora_pack_left(const lora_pack_state_t *state, int32_t group, int32_t *num_p);

#endif
