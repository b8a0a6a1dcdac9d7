/* Packing: places the documents of a microbatch in the two halves and on the trainers.
 *
 * A pure function of its arguments, in integers, with total tie-break orders: every rank computes
 * the same layout. Which documents come together in a microbatch is lora/packer.h's question. */
#ifndef CADRE_LORA_PACK_H
#define CADRE_LORA_PACK_H

#include "data/batch.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lora_pack {
    int64_t microbatch;
    int32_t num_trainers;
    int64_t tokens_per_trainer; /* most rows on a trainer, both halves together; multiple of 2
                                   DATA_ROW_ALIGN */
    int whole_documents; /* 1 (placement local): each document whole on one trainer; trainers may be
                            unequal */
    int32_t num_documents;
    const data_document_t *documents;
    /* With whole_documents: a trainer for each document on which they fit, for when they do not
     * when they are spread evenly; NULL: there is none. */
    const int32_t *trainers;
} lora_pack_t;

/* Fills `batch`. Cutting packer: the documents go, longest first, to the emptier half (ping when
 * equal). One that is longer than half of all documents' rows, or that fits into neither half,
 * spans both, cut at the multiple of DATA_ROW_ALIGN that levels the halves best; there is never a
 * second one. The rows of a half are sorted by adapter; within an adapter documents with many and with
 * few supervised rows alternate, so that those of the loss are spread over the trainers
 * (lora/pack_spread.h), else they lie in the order given. Every trainer gets
 * m = the fuller half's rows / trainers, rounded up to DATA_ROW_ALIGN. Documents of together at
 * most num_trainers * tokens_per_trainer - DATA_ROW_ALIGN + 1 rows always fit, and without that margin
 * a single one, or documents whose rows fit when each one's are rounded up (lora_pack_aligned): then the
 * cut can lie where both halves are full.
 *
 * With whole_documents the documents go, longest first, to the emptiest trainer, and each trainer's
 * halves are filled as above, so that one document of each trainer may span; a trainer without
 * documents has DATA_ROW_ALIGN pad rows. Whether documents of nearly num_trainers *
 * tokens_per_trainer rows fit depends on their lengths; with `trainers` they do when on each trainer
 * they are of one of these three kinds.
 *
 * PLAN-01 (BASE_ERR_ARG) when the documents do not fit; for a document that can never fit it names
 * the number of trainers that would do. The batch needs num_documents + 2 num_trainers pieces at
 * most. No allocation. */
base_status_t lora_pack_fast(base_ctx_t *ctx, const lora_pack_t *pack,
                             data_batch_t *batch) BASE_MUST_CHECK;

/* Rounded up to DATA_ROW_ALIGN. */
static inline int64_t lora_pack_aligned(int64_t rows)
{
    return (rows + DATA_ROW_ALIGN - 1) / DATA_ROW_ALIGN * DATA_ROW_ALIGN;
}

#ifdef __cplusplus
}
#endif
#endif
