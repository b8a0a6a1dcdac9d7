/* First-fit decreasing, round by round: what our packer is compared with.
 *
 * A round is the next global batch of every adapter; its documents go, longest first, into the first
 * microbatch of the round that has room. Rounds do not share microbatches. Where two batches of an
 * adapter would come too near for the pipeline's stages, the later microbatch waits. */
#ifndef CADRE_TRAINER_SIMULATE_PACK_FFD_H
#define CADRE_TRAINER_SIMULATE_PACK_FFD_H

#include "lora/pack_window.h"

/* Bins in the order in which they will run. */
typedef struct tr_bins {
    base_ctx_t *ctx;
    const lora_window_t *window;
    int32_t num_bins;
    int32_t *adapter_of, *batch_of; /* [documents] */
    int32_t *bin_of;                /* [documents] -1: none */
    int64_t *rows; /* [documents + 1][adapters] of a bin: there is at most one bin a document */
    int32_t *list; /* [documents] scratch: documents to place */
    int32_t num_list;
} tr_bins_t;

base_status_t tr_bins_create(base_ctx_t *ctx, const lora_window_t *window,
                             tr_bins_t *bins) BASE_MUST_CHECK;
void tr_bins_destroy(tr_bins_t *bins);

/* Rows of a bin as counted, with `more` rows of an adapter (-1: none). */
int64_t tr_bins_counted(const tr_bins_t *bins, int32_t bin, int32_t adapter, int64_t more);
void tr_bins_put(tr_bins_t *bins, int32_t document, int32_t bin);
/* Puts batch number `round` of the adapter on the list, if it has one. */
void tr_bins_list(tr_bins_t *bins, int32_t adapter, int32_t round);
/* Places the list in new bins by first-fit decreasing. */
void tr_bins_fit(tr_bins_t *bins);
/* Bins that are not empty, one after another, with pauses where the order asks for them. */
void tr_bins_schedule(const tr_bins_t *bins, lora_schedule_t *schedule);

int32_t tr_window_rounds(const lora_window_t *window);

/* `schedule->microbatch` is the caller's, [num_documents]. */
base_status_t tr_pack_ffd(base_ctx_t *ctx, const lora_window_t *window,
                          lora_schedule_t *schedule) BASE_MUST_CHECK;

#endif
