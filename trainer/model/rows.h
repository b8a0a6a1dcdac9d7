/* What the model needs to know of a trainer's rows in one microbatch: tokens, positions, and which
 * rows are supervised with what target, weight and adapter. All of it comes from the batch; device
 * regions (owner "trainer", "rows.*") hold it.
 *
 * Row r of a half that piece p covers is row i = p.doc_row + r - p.local_row of its document; its
 * position is i, and it is supervised when i + 1 is a row of the document with loss_mask 1. The
 * target comes from the document's own tokens, so the last row of a trainer has one too when the
 * next row lies on another trainer. Rows that no piece covers are pad rows: token 0, position 0,
 * never supervised. So nothing flows back into them: the loss gives them dx = 0, the seam dq = dk =
 * dv = 0, and every weight gradient sums products with those zeros.
 *
 * Host staging is kept twice: the upload of one microbatch may still be pending when the next is
 * prepared; the third waits for the first (tr_rows_install), which as_attention_microbatch has done
 * already.
 *
 * Borrows model, arena and stream. One thread. */
#ifndef CADRE_TRAINER_MODEL_ROWS_H
#define CADRE_TRAINER_MODEL_ROWS_H

#include "base/arena.h"
#include "base/device/staging.h"
#include "data/batch.h"
#include "trainer/model/model.h"

#define TR_ROWS_STAGES 2

/* Host values of one half, [max_rows] each. */
typedef struct tr_rows_staging {
    int32_t *tokens, *positions;              /* of every row */
    int32_t *documents;                       /* two words a row: its index in its dataset */
    int32_t *supervised, *targets, *adapters; /* of the supervised ones, ascending rows */
    void *weights;                            /* acc dtype */
    base_staging_t staging;                   /* all of the above */
    int32_t *supervised_documents; /* index in the batch of each supervised row's; not uploaded */
} tr_rows_staging_t;

typedef struct tr_rows_half {
    int64_t rows, num_supervised; /* of the installed microbatch */
    base_region_t tokens, positions, documents, supervised, targets, adapters, weights;
} tr_rows_half_t;

typedef struct tr_rows {
    const tr_model_t *model;
    const base_arena_t *arena;
    base_stream_t *stream;
    int64_t max_rows;
    int32_t num_adapters;
    int64_t installs; /* microbatches so far */
    tr_rows_half_t half[DATA_NUM_HALVES];
    tr_rows_staging_t staging[TR_ROWS_STAGES][DATA_NUM_HALVES];
    base_event_t *uploaded[TR_ROWS_STAGES];
    int32_t *row_document; /* [max_rows] scratch: document of each row, -1 for pad rows */
    base_ctx_t *ctx;
} tr_rows_t;

/* Declares the regions and allocates the staging for halves of up to max_rows rows. The caller
 * frees *rows_p with tr_rows_destroy. */
base_status_t tr_rows_create(const tr_model_t *model, base_arena_t *arena, base_stream_t *stream,
                             int64_t max_rows, int32_t num_adapters,
                             tr_rows_t **rows_p) BASE_MUST_CHECK;
void tr_rows_destroy(tr_rows_t *rows); /* the stream must have been synchronised; NULL is legal */

/* Reads trainer `trainer`'s rows out of the batch and gives their upload to the stream. The batch
 * is not needed afterwards. Allocates nothing. BASE_ERR_ARG (INT-01) when the trainer has more rows
 * than there is room for, a document is longer than max_positions, a token or adapter out of range:
 * whoever made the batch had to check. */
base_status_t tr_rows_install(tr_rows_t *rows, const data_batch_t *batch,
                              int32_t trainer) BASE_MUST_CHECK;

/* Host list of the installed microbatch: to which document of the batch each supervised row belongs
 * ([num_supervised]). */
const int32_t *tr_rows_supervised_documents(const tr_rows_t *rows, data_half_t half);

/* Operands of the installed microbatch: (1, rows) and (1, num_supervised). */
kern_mat_t tr_rows_tokens(const tr_rows_t *rows, data_half_t half);
kern_mat_t tr_rows_positions(const tr_rows_t *rows, data_half_t half);
kern_mat_t tr_rows_documents(const tr_rows_t *rows,
                             data_half_t half); /* (rows, 2): low, high word */
kern_mat_t tr_rows_supervised(const tr_rows_t *rows, data_half_t half);
kern_mat_t tr_rows_targets(const tr_rows_t *rows, data_half_t half);
kern_mat_t tr_rows_adapters(const tr_rows_t *rows, data_half_t half);
kern_mat_t tr_rows_weights(const tr_rows_t *rows, data_half_t half); /* acc */

#endif
