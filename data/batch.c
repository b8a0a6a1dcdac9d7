#include "data/batch.h"

#include "base/hash.h"
#include "base/memory.h"
#include "base/sort.h"

#include <inttypes.h>
#include <string.h>

#define FAIL_LAYOUT(batch, ...)                                                                    \
    BASE_FAIL((batch)->ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01, __VA_ARGS__)
#define FAIL_ARG(batch, ...) BASE_FAIL((batch)->ctx, BASE_ERR_ARG, BASE_MSG_INT_01, __VA_ARGS__)

static const char *half_word(int32_t half)
{
    return half == DATA_PING ? "ping" : "pong";
}

static int64_t piece_end(const data_piece_t *p)
{
    return p->doc_row + p->rows;
}

base_status_t data_batch_create(base_ctx_t *ctx, int32_t max_documents, int32_t max_pieces,
                                int32_t max_trainers, data_batch_t **batch_p)
{
    if (max_documents < 1 || max_pieces < 1 || max_trainers < 1 || max_documents == INT32_MAX)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "batch for %" PRId32 " documents, %" PRId32 " pieces, %" PRId32
                         " trainers",
                         max_documents, max_pieces, max_trainers);

    data_batch_t *b = base_calloc(ctx, 1, sizeof *b, "batch");
    if (b == NULL) return BASE_ERR_NOMEM;
    b->ctx = ctx;
    b->capacity_documents = max_documents;
    b->capacity_pieces = max_pieces;
    b->capacity_trainers = max_trainers;

    const int32_t max_order = max_documents > max_pieces ? max_documents : max_pieces;
    if ((b->trainer_rows =
             base_calloc(ctx, max_trainers, sizeof *b->trainer_rows, "batch: trainers")) == NULL ||
        (b->documents =
             base_calloc(ctx, max_documents, sizeof *b->documents, "batch: documents")) == NULL ||
        (b->pieces = base_calloc(ctx, max_pieces, sizeof *b->pieces, "batch: pieces")) == NULL ||
        (b->document_piece = base_calloc(ctx, (int64_t)max_documents + 1, sizeof *b->document_piece,
                                         "batch: piece index")) == NULL ||
        (b->order = base_calloc(ctx, max_order, sizeof *b->order, "batch: order")) == NULL ||
        (b->document_trainer = base_calloc(ctx, max_documents, sizeof *b->document_trainer,
                                           "batch: document trainers")) == NULL ||
        (b->document_head =
             base_calloc(ctx, max_documents, sizeof *b->document_head, "batch: heads")) == NULL ||
        (b->document_place =
             base_calloc(ctx, max_documents, sizeof *b->document_place, "batch: places")) == NULL) {
        data_batch_destroy(b);
        return BASE_ERR_NOMEM;
    }
    *batch_p = b;
    return BASE_OK;
}

void data_batch_destroy(data_batch_t *batch)
{
    if (batch == NULL) return;
    base_free(batch->ctx, batch->document_place);
    base_free(batch->ctx, batch->document_head);
    base_free(batch->ctx, batch->document_trainer);
    base_free(batch->ctx, batch->order);
    base_free(batch->ctx, batch->document_piece);
    base_free(batch->ctx, batch->pieces);
    base_free(batch->ctx, batch->documents);
    base_free(batch->ctx, batch->trainer_rows);
    base_free(batch->ctx, batch);
}

base_status_t data_batch_begin(data_batch_t *batch, int64_t microbatch, int32_t num_trainers)
{
    if (num_trainers < 1 || num_trainers > batch->capacity_trainers)
        return FAIL_ARG(batch, "microbatch %" PRId64 ": %" PRId32 " trainers, want 1 to %" PRId32,
                        microbatch, num_trainers, batch->capacity_trainers);
    batch->microbatch = microbatch;
    batch->num_trainers = num_trainers;
    batch->num_documents = 0;
    batch->num_pieces = 0;
    batch->finished = 0;
    batch->document_rows = 0;
    memset(batch->trainer_rows, 0, (size_t)num_trainers * sizeof *batch->trainer_rows);
    return BASE_OK;
}

static base_status_t check_open(const data_batch_t *batch)
{
    if (batch->finished || batch->num_trainers == 0)
        return BASE_FAIL(batch->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                         "microbatch %" PRId64 ": batch is not open: call data_batch_begin first",
                         batch->microbatch);
    return BASE_OK;
}

base_status_t data_batch_add_document(data_batch_t *batch, const data_document_t *document,
                                      int32_t *index_p)
{
    BASE_TRY(check_open(batch));
    if (batch->num_documents == batch->capacity_documents)
        return FAIL_ARG(batch, "microbatch %" PRId64 ": batch is full with %" PRId32 " documents",
                        batch->microbatch, batch->num_documents);
    if (document->adapter < 0 || document->index < 0)
        return FAIL_ARG(
            batch,
            "microbatch %" PRId64 ": document %" PRId32 ": adapter %" PRId32 ", index %" PRId64,
            batch->microbatch, batch->num_documents, document->adapter, document->index);

    const int64_t room = DATA_MAX_ROWS - batch->document_rows;
    if (document->rows < 1 || document->rows > room)
        return FAIL_ARG(batch,
                        "microbatch %" PRId64 ": document %" PRId32 ": %" PRId64
                        " rows, want 1 to %" PRId64,
                        batch->microbatch, batch->num_documents, document->rows, room);
    *index_p = batch->num_documents;
    batch->documents[batch->num_documents++] = *document;
    batch->document_rows += document->rows;
    return BASE_OK;
}

base_status_t data_batch_add_piece(data_batch_t *batch, const data_piece_t *piece)
{
    BASE_TRY(check_open(batch));
    if (batch->num_pieces == batch->capacity_pieces)
        return FAIL_ARG(batch, "microbatch %" PRId64 ": batch is full with %" PRId32 " pieces",
                        batch->microbatch, batch->num_pieces);
    if (piece->document < 0 || piece->document >= batch->num_documents || piece->trainer < 0 ||
        piece->trainer >= batch->num_trainers || piece->half < 0 || piece->half >= DATA_NUM_HALVES)
        return FAIL_ARG(batch,
                        "microbatch %" PRId64 ": piece of document %" PRId32 " of %" PRId32
                        " on trainer %" PRId32 " of %" PRId32 ", half %" PRId32,
                        batch->microbatch, piece->document, batch->num_documents, piece->trainer,
                        batch->num_trainers, piece->half);

    const int64_t doc_rows = batch->documents[piece->document].rows;
    if (piece->rows < 1 || piece->rows > doc_rows || piece->doc_row < 0 ||
        piece->doc_row > doc_rows - piece->rows || piece->local_row < 0 ||
        piece->local_row > DATA_MAX_ROWS)
        return FAIL_ARG(batch,
                        "microbatch %" PRId64 ": document %" PRId32 ": piece of %" PRId64
                        " rows from row %" PRId64 " at local row %" PRId64
                        ", the document has %" PRId64,
                        batch->microbatch, piece->document, piece->rows, piece->doc_row,
                        piece->local_row, doc_rows);
    batch->pieces[batch->num_pieces++] = *piece;
    return BASE_OK;
}

/* ==== finish ==== */

static int by_document(const void *a, const void *b, const void *arg)
{
    const data_piece_t *x = a, *y = b;
    int c = base_compare_i64(x->document, y->document);

    (void)arg;
    if (c == 0) c = base_compare_i64(x->half, y->half);
    if (c == 0) c = base_compare_i64(x->doc_row, y->doc_row);
    return c != 0 ? c : base_compare_i64(x->trainer, y->trainer);
}

/* The next two compare indices of pieces; ties, which are errors, in the order of the pieces. */
static int by_part(const void *a, const void *b, const void *arg)
{
    const data_batch_t *batch = arg;
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    const data_piece_t *x = &batch->pieces[i], *y = &batch->pieces[j];
    int c = base_compare_i64(x->document, y->document);

    if (c == 0) c = base_compare_i64(x->half, y->half);
    if (c == 0) c = base_compare_i64(x->trainer, y->trainer);
    return c != 0 ? c : base_compare_i64(i, j);
}

static int by_place(const void *a, const void *b, const void *arg)
{
    const data_batch_t *batch = arg;
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    const data_piece_t *x = &batch->pieces[i], *y = &batch->pieces[j];
    int c = base_compare_i64(x->trainer, y->trainer);

    if (c == 0) c = base_compare_i64(x->half, y->half);
    if (c == 0) c = base_compare_i64(x->local_row, y->local_row);
    return c != 0 ? c : base_compare_i64(i, j);
}

static void sort_order(data_batch_t *batch, base_compare_fn compare)
{
    for (int32_t i = 0; i < batch->num_pieces; i++)
        batch->order[i] = i;
    base_sort(batch->order, batch->num_pieces, sizeof *batch->order, compare, batch);
}

/* Pieces are sorted; fills document_piece. A document without a piece gets an empty range. */
static void index_pieces(data_batch_t *batch)
{
    int32_t p = 0;

    for (int32_t d = 0; d < batch->num_documents; d++) {
        batch->document_piece[d] = p;
        while (p < batch->num_pieces && batch->pieces[p].document == d)
            p++;
    }
    batch->document_piece[batch->num_documents] = p;
}

static base_status_t check_trainers(const data_batch_t *batch)
{
    for (int32_t t = 0; t < batch->num_trainers; t++) {
        const int64_t rows = batch->trainer_rows[t];

        if (rows < 0 || rows > DATA_MAX_ROWS || rows % DATA_ROW_ALIGN != 0)
            return FAIL_LAYOUT(batch,
                               "microbatch %" PRId64 ": trainer %" PRId32 " has %" PRId64
                               " rows, want a multiple of %d",
                               batch->microbatch, t, rows, DATA_ROW_ALIGN);
    }
    for (int32_t i = 0; i < batch->num_pieces; i++) {
        const data_piece_t *p = &batch->pieces[i];

        if (p->local_row + p->rows > batch->trainer_rows[p->trainer])
            return FAIL_LAYOUT(batch,
                               "microbatch %" PRId64 ": document %" PRId32
                               ": piece lies at rows [%" PRId64 ", %" PRId64 ") of trainer %" PRId32
                               ", which has %" PRId64,
                               batch->microbatch, p->document, p->local_row, p->local_row + p->rows,
                               p->trainer, batch->trainer_rows[p->trainer]);
    }
    return BASE_OK;
}

/* The cut between two adjacent pieces of a document. */
static base_status_t check_cut(const data_batch_t *batch, const data_piece_t *before,
                               const data_piece_t *after)
{
    const int64_t cut = after->doc_row;

    if (cut % DATA_ROW_ALIGN == 0) return BASE_OK;
    if (before->half != after->half)
        return FAIL_LAYOUT(batch,
                           "microbatch %" PRId64 ": document %" PRId32
                           ": its head in ping has %" PRId64 " rows, want a multiple of %d",
                           batch->microbatch, before->document, cut, DATA_ROW_ALIGN);
    if (before->local_row + before->rows != batch->trainer_rows[before->trainer])
        return FAIL_LAYOUT(
            batch,
            "microbatch %" PRId64 ": document %" PRId32 ": cut at row %" PRId64
            ", neither a multiple of %d nor at the end of trainer %" PRId32 "'s rows",
            batch->microbatch, before->document, cut, DATA_ROW_ALIGN, before->trainer);
    return BASE_OK;
}

/* Row `row` does not follow the pieces before it: says why. */
static base_status_t fail_row(const data_batch_t *batch, int32_t d, int64_t row)
{
    for (int32_t i = batch->document_piece[d]; i < batch->document_piece[d + 1]; i++) {
        if (batch->pieces[i].doc_row <= row && row < piece_end(&batch->pieces[i]))
            return FAIL_LAYOUT(batch,
                               "microbatch %" PRId64 ": document %" PRId32 ": row %" PRId64
                               " lies in pong, later rows in ping",
                               batch->microbatch, d, row);
    }
    return FAIL_LAYOUT(batch,
                       "microbatch %" PRId64 ": document %" PRId32 ": row %" PRId64 " of %" PRId64
                       " is in no piece",
                       batch->microbatch, d, row, batch->documents[d].rows);
}

/* Each row once. The pieces are in ascending (half, doc_row): where they tile the document, ping
 * lies before pong. */
static base_status_t check_document(const data_batch_t *batch, int32_t d)
{
    const int32_t first = batch->document_piece[d];
    const int32_t end = batch->document_piece[d + 1];
    int64_t row = 0;

    for (int32_t i = first; i < end; i++) {
        const data_piece_t *p = &batch->pieces[i];

        if (p->doc_row < row)
            return FAIL_LAYOUT(batch,
                               "microbatch %" PRId64 ": document %" PRId32 ": rows [%" PRId64
                               ", %" PRId64 ") are in two pieces",
                               batch->microbatch, d, p->doc_row,
                               row < piece_end(p) ? row : piece_end(p));
        if (p->doc_row > row) break;
        if (i > first) BASE_TRY(check_cut(batch, p - 1, p));
        row = piece_end(p);
    }
    if (row != batch->documents[d].rows) return fail_row(batch, d, row);
    return BASE_OK;
}

static base_status_t check_places(data_batch_t *batch)
{
    sort_order(batch, by_part);
    for (int32_t i = 1; i < batch->num_pieces; i++) {
        const data_piece_t *a = &batch->pieces[batch->order[i - 1]];
        const data_piece_t *b = &batch->pieces[batch->order[i]];

        if (a->document == b->document && a->half == b->half && a->trainer == b->trainer)
            return FAIL_LAYOUT(batch,
                               "microbatch %" PRId64 ": document %" PRId32
                               ": two pieces in %s on trainer %" PRId32 ", from rows %" PRId64
                               " and %" PRId64,
                               batch->microbatch, a->document, half_word(a->half), a->trainer,
                               a->doc_row, b->doc_row);
    }
    sort_order(batch, by_place);
    for (int32_t i = 1; i < batch->num_pieces; i++) {
        const data_piece_t *a = &batch->pieces[batch->order[i - 1]];
        const data_piece_t *b = &batch->pieces[batch->order[i]];

        if (a->trainer == b->trainer && a->half == b->half && b->local_row < a->local_row + a->rows)
            return FAIL_LAYOUT(batch,
                               "microbatch %" PRId64 ": documents %" PRId32 " and %" PRId32
                               " share row %" PRId64 " of trainer %" PRId32 " in %s",
                               batch->microbatch, a->document, b->document, b->local_row,
                               a->trainer, half_word(a->half));
    }
    return BASE_OK;
}

base_status_t data_batch_finish(data_batch_t *batch)
{
    BASE_TRY(check_open(batch));
    base_sort(batch->pieces, batch->num_pieces, sizeof *batch->pieces, by_document, NULL);
    index_pieces(batch);
    BASE_TRY(check_trainers(batch));
    for (int32_t d = 0; d < batch->num_documents; d++)
        BASE_TRY(check_document(batch, d));
    BASE_TRY(check_places(batch));
    batch->finished = 1;
    return BASE_OK;
}

/* ==== questions ==== */

const data_piece_t *data_batch_piece_at(const data_batch_t *batch, int32_t document,
                                        int64_t doc_row)
{
    if (document < 0 || document >= batch->num_documents || doc_row < 0 ||
        doc_row >= batch->documents[document].rows)
        return NULL;

    /* The last piece that begins at or before doc_row. The document's first begins at 0, so there
     * is one. */
    int32_t low = batch->document_piece[document];
    int32_t high = batch->document_piece[document + 1];
    while (high - low > 1) {
        const int32_t middle = low + (high - low) / 2;

        if (batch->pieces[middle].doc_row <= doc_row)
            low = middle;
        else
            high = middle;
    }
    return &batch->pieces[low];
}

int64_t data_batch_document_rows(const data_batch_t *batch)
{
    return batch->document_rows;
}

int64_t data_batch_trainer_rows(const data_batch_t *batch)
{
    int64_t rows = 0;

    for (int32_t t = 0; t < batch->num_trainers; t++)
        rows += batch->trainer_rows[t];
    return rows * DATA_NUM_HALVES;
}

uint64_t data_batch_hash(const data_batch_t *batch)
{
    base_hash_t h = BASE_HASH_START;

    h = base_hash_i64(h, batch->num_trainers);
    h = base_hash_i64_array(h, batch->trainer_rows, batch->num_trainers);
    h = base_hash_i64(h, batch->num_documents);
    for (int32_t d = 0; d < batch->num_documents; d++) {
        h = base_hash_i64(h, batch->documents[d].rows);
        h = base_hash_i64(h, batch->documents[d].adapter);
        h = base_hash_i64(h, batch->documents[d].index);
    }
    h = base_hash_i64(h, batch->num_pieces);
    for (int32_t i = 0; i < batch->num_pieces; i++) {
        const data_piece_t *p = &batch->pieces[i];

        h = base_hash_i64(h, p->document);
        h = base_hash_i64(h, p->half);
        h = base_hash_i64(h, p->trainer);
        h = base_hash_i64(h, p->doc_row);
        h = base_hash_i64(h, p->rows);
        h = base_hash_i64(h, p->local_row);
    }
    return h;
}
