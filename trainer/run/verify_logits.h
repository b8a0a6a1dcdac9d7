/* `cadre verify`: does an adapter fit its base, and does it change what the base says.
 *
 * Static first (lora/adapter_verify.h), then the logits of base and base with adapter on the same
 * tokens, through the trainer's own forward pass (users' complaint 18: a server that runs the base
 * and says nothing). */
#ifndef CADRE_TRAINER_RUN_VERIFY_LOGITS_H
#define CADRE_TRAINER_RUN_VERIFY_LOGITS_H

#include "comm/comm.h"
#include "trainer/run/score_inputs.h"

/* Rows of the text that is compared: the head of the first document of the data, or so many tokens
 * that are drawn at random. */
#define TR_VERIFY_DOCUMENT_ROWS 256
#define TR_VERIFY_RANDOM_ROWS   64

typedef struct tr_verify {
    tr_score_sources_t sources;
    bool json;
    FILE *out, *err;
    bool reported;     /* written: faults were printed already */
    bool does_nothing; /* written: all logits are the base's, bit for bit */
} tr_verify_t;

/* A comm_rank_fn for one rank; `user` is a tr_verify_t. Writes the answer to `out`, with the lines
 * that serve the adapter. BASE_ERR_FORMAT when the adapter does not fit, and DATA-17 when logits
 * are not finite. */
base_status_t tr_verify_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user);

#endif
