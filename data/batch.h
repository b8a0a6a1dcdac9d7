/* The layout of a microbatch: which document lies where. lora/ fills it, attention_server/ and
 * trainer/ read it.
 *
 * A microbatch has two row streams, ping and pong. Trainer t holds `trainer_rows[t]` rows of each:
 * with trainers of equal rows (in_place, pool) stream row s is row s - t m of trainer t. A document
 * lies wholly in one half, or spans both: its head in ping, its tail in pong, cut at a multiple of
 * DATA_ROW_ALIGN. A piece is the part of a document that lies in one half on one trainer:
 * contiguous both in the document and on the trainer. Rows that no piece covers are pad rows.
 *
 *   data_batch_begin(batch, n, num_trainers);
 *   batch->trainer_rows[t] = m;                        (for each trainer)
 *   data_batch_add_document(batch, &document, &d);     (for each document)
 *   data_batch_add_piece(batch, &piece);               (for each of its pieces)
 *   data_batch_finish(batch);
 *
 * The layout is a pure function of what the packer was given; every rank holds the same one. A
 * batch belongs to one thread at a time; after data_batch_finish it is only read. */
#ifndef CADRE_DATA_BATCH_H
#define CADRE_DATA_BATCH_H

#include "base/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum data_half { DATA_PING, DATA_PONG, DATA_NUM_HALVES } data_half_t;

/* Rows of a trainer are a multiple of this; cuts of a document are multiples of it from the
 * document's start, except at a trainer's edge. */
#define DATA_ROW_ALIGN 128

/* Most rows of all documents of a batch, and of a trainer: with it (q, k) pairs times KV heads fit
 * in 63 bits. */
#define DATA_MAX_ROWS (INT64_C(1) << 26)

/* One training sample. Row i is token i; its target is token i + 1, supervised when
 * loss_mask[i + 1] is 1; the last row has no target. tokens and loss_mask are host memory of `rows`
 * values, borrowed while the batch is in use; pool ranks have NULL. */
typedef struct data_document {
    int64_t rows;
    int32_t adapter;    /* index among the job's adapters */
    int64_t index;      /* in its dataset */
    int64_t supervised; /* rows with a target that is trained on; 0 where packers need not know */
    double row_weight; /* of each supervised row in the loss: 1 / supervised tokens of the adapter's
                          global batch */
    const int32_t *tokens;
    const uint8_t *loss_mask;
} data_document_t;

typedef struct data_piece {
    int32_t document; /* index in the batch */
    int32_t half;     /* data_half_t */
    int32_t trainer;
    int64_t doc_row;   /* first row in the document */
    int64_t rows;      /* > 0 */
    int64_t local_row; /* first row of the trainer in that half */
} data_piece_t;

typedef struct data_batch {
    int64_t microbatch;
    int32_t num_trainers;
    int32_t num_documents;
    int32_t num_pieces;
    int32_t capacity_documents, capacity_pieces, capacity_trainers;
    int64_t *trainer_rows; /* [num_trainers], multiples of DATA_ROW_ALIGN; written by the caller
                              between begin and finish */
    data_document_t *documents; /* [num_documents] */
    data_piece_t *pieces;       /* ascending (document, half, doc_row), ping before pong */
    int32_t *document_piece;    /* [num_documents + 1] first piece of each, and the end */
    base_ctx_t *ctx;

    /* Private to data/batch.c and to the packers, which may not allocate. */
    int64_t document_rows;     /* of all documents */
    int32_t finished;          /* 1 from data_batch_finish to data_batch_begin */
    int32_t *order;            /* [max(capacity_documents, capacity_pieces)] index array to sort */
    int32_t *document_trainer; /* [capacity_documents] packers: trainer of a whole document */
    int64_t *document_head;    /* [capacity_documents] packers: rows of the document in ping */
    int32_t *document_place;   /* [capacity_documents] packers: an order in the making */
} data_batch_t;

/* Allocates a batch of that capacity; nothing is allocated later. The caller frees it with
 * data_batch_destroy. */
base_status_t data_batch_create(base_ctx_t *ctx, int32_t max_documents, int32_t max_pieces,
                                int32_t max_trainers, data_batch_t **batch_p) BASE_MUST_CHECK;
void data_batch_destroy(data_batch_t *batch);

/* Empties the batch; trainer_rows are 0. */
base_status_t data_batch_begin(data_batch_t *batch, int64_t microbatch,
                               int32_t num_trainers) BASE_MUST_CHECK;
/* Adds a document and gives its index in the batch; adds a piece of a document that was added, in
 * any order. BASE_ERR_ARG when full or malformed, BASE_ERR_STATE when finished. */
base_status_t data_batch_add_document(data_batch_t *batch, const data_document_t *document,
                                      int32_t *index_p) BASE_MUST_CHECK;
base_status_t data_batch_add_piece(data_batch_t *batch, const data_piece_t *piece) BASE_MUST_CHECK;
/* Sorts the pieces and checks the layout: every row of every document lies in exactly one piece, no
 * two pieces share a row of a trainer, pieces lie within the trainer's rows, ping before pong with
 * the cut between them a multiple of DATA_ROW_ALIGN, other cuts multiples of it or at the end of a
 * trainer's rows, one piece per document, half and trainer, trainer_rows multiples of
 * DATA_ROW_ALIGN. n log n, no allocation. BASE_ERR_INTERNAL names the document. */
base_status_t data_batch_finish(data_batch_t *batch) BASE_MUST_CHECK;

/* The piece of `document` that holds row `doc_row`; NULL when there is no such document or row.
 * After finish. */
const data_piece_t *data_batch_piece_at(const data_batch_t *batch, int32_t document,
                                        int64_t doc_row);

/* Rows of all documents; rows on all trainers in both halves. Their difference is pad rows. */
int64_t data_batch_document_rows(const data_batch_t *batch);
int64_t data_batch_trainer_rows(const data_batch_t *batch);

/* 64-bit hash of the layout: trainers' rows, documents (length, adapter, index), pieces. Not the
 * microbatch's number, and neither tokens nor weights, which pool ranks do not have. After finish.
 */
uint64_t data_batch_hash(const data_batch_t *batch);

#ifdef __cplusplus
}
#endif
#endif
