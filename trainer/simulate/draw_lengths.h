/* Document lengths of the two distributions that DistCA was evaluated on, drawn from the histograms
 * of its published length files: bins with their share of documents and of tokens. Within a bin the
 * lengths are uniform below and above the bin's mean, in the proportion that keeps the mean. */
#ifndef CADRE_TRAINER_SIMULATE_DRAW_LENGTHS_H
#define CADRE_TRAINER_SIMULATE_DRAW_LENGTHS_H

#include <stdint.h>

typedef enum tr_lengths { TR_LENGTHS_PRETRAIN, TR_LENGTHS_PROLONG, TR_NUM_LENGTHS } tr_lengths_t;

/* "pretrain", "prolong" */
const char *tr_lengths_name(tr_lengths_t lengths);

typedef struct tr_draw {
    tr_lengths_t lengths;
    /* 0: natural. 1: as DistCA's benchmark scales them: half of the documents below 64 k, four
     * times those above; pretrain: every length times max_rows / 64 k; prolong: documents above
     * 64 k become max_rows with probability 0.3. */
    int scaled;
    int64_t max_rows; /* longer ones are cut */
    uint64_t seed;
} tr_draw_t;

/* Rows of document `index` of the draw: each is independent of the others, so their order is
 * shuffled. */
int64_t tr_draw_rows(const tr_draw_t *draw, uint32_t index);

#endif
