#include "lora/pack.h"

#include "base/sort.h"
#include "lora/pack_spread.h"

#include <inttypes.h>

/* Trainers [first, first + count) that share two streams: all of them, or one when documents stay
 * whole. */
typedef struct group {
    int32_t first;
    int32_t count;
    int64_t stream_rows; /* most rows of a half on all of them */
    int64_t rows;        /* of its documents */
} group_t;

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ==== orders: index arrays, ties by the order given ==== */

static int by_length(const void *a, const void *b, const void *arg)
{
    const data_document_t *documents = arg;
    const int32_t i = *(const int32_t *)a;
    const int32_t j = *(const int32_t *)b;
    const int c = base_compare_i64(documents[j].rows, documents[i].rows);

    return c != 0 ? c : base_compare_i64(i, j);
}

static int by_adapter(const void *a, const void *b, const void *arg)
{
    const data_document_t *documents = arg;
    const int32_t i = *(const int32_t *)a;
    const int32_t j = *(const int32_t *)b;
    const int c = base_compare_i64(documents[i].adapter, documents[j].adapter);

    return c != 0 ? c : base_compare_i64(i, j);
}

static void sort_documents(data_batch_t *batch, base_compare_fn compare)
{
    for (int32_t i = 0; i < batch->num_documents; i++)
        batch->order[i] = i;
    base_sort(batch->order, batch->num_documents, sizeof *batch->order, compare, batch->documents);
}

/* ==== what cannot fit ==== */

static base_status_t check_pack(base_ctx_t *ctx, const lora_pack_t *pack)
{
    if (pack->num_trainers < 1 || pack->num_documents < 1 || pack->tokens_per_trainer < 1 ||
        pack->tokens_per_trainer > DATA_MAX_ROWS ||
        pack->tokens_per_trainer % (2 * DATA_ROW_ALIGN) != 0)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "microbatch %" PRId64 ": %" PRId32 " documents on %" PRId32
                         " trainers of %" PRId64 " rows, want at least 1, 1 and a multiple of %d",
                         pack->microbatch, pack->num_documents, pack->num_trainers,
                         pack->tokens_per_trainer, 2 * DATA_ROW_ALIGN);

    const int64_t trainers = pack->whole_documents ? 1 : pack->num_trainers;
    for (int32_t i = 0; i < pack->num_documents; i++) {
        const data_document_t *d = &pack->documents[i];

        if (d->rows <= trainers * pack->tokens_per_trainer) continue;
        if (pack->whole_documents)
            return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_PLAN_01,
                             "document %" PRId64 " of adapter %" PRId32 " has %" PRId64
                             " rows, a trainer holds %" PRId64
                             ": placement local cuts no document, no number of "
                             "trainers fits it",
                             d->index, d->adapter, d->rows, pack->tokens_per_trainer);
        return BASE_FAIL(
            ctx, BASE_ERR_ARG, BASE_MSG_PLAN_01,
            "document %" PRId64 " of adapter %" PRId32 " has %" PRId64 " rows, %" PRId32
            " trainer%s of %" PRId64 " rows hold%s %" PRId64 ": needs %" PRId64 " trainers",
            d->index, d->adapter, d->rows, pack->num_trainers, pack->num_trainers == 1 ? "" : "s",
            pack->tokens_per_trainer, pack->num_trainers == 1 ? "s" : "",
            trainers * pack->tokens_per_trainer, (d->rows - 1) / pack->tokens_per_trainer + 1);
    }
    return BASE_OK;
}

static base_status_t fail_full(base_ctx_t *ctx, const lora_pack_t *pack, const data_batch_t *batch)
{
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_PLAN_01,
                     "microbatch %" PRId64 ": %" PRId32 " documents of %" PRId64
                     " rows do not fit %" PRId32 " trainer%s of %" PRId64 " rows%s",
                     pack->microbatch, pack->num_documents, data_batch_document_rows(batch),
                     pack->num_trainers, pack->num_trainers == 1 ? "" : "s",
                     pack->tokens_per_trainer,
                     pack->whole_documents ? ", each document whole on one of them" : "");
}

/* ==== placing ==== */

/* Longest first to the emptiest trainer. trainer_rows serves as the count of document rows until the
 * trainer's group is laid out. 0: they do not fit so. With another way in hand every trainer keeps
 * the margin with which halves can always be filled. */
static int spread_evenly(const lora_pack_t *pack, data_batch_t *batch)
{
    const int64_t margin = pack->trainers != NULL ? DATA_ROW_ALIGN - 1 : 0;
    int64_t *rows = batch->trainer_rows;

    for (int32_t i = 0; i < batch->num_documents; i++) {
        const int32_t d = batch->order[i];
        const int64_t more = batch->documents[d].rows;
        int32_t emptiest = 0;

        for (int32_t t = 1; t < batch->num_trainers; t++) {
            if (rows[t] < rows[emptiest]) emptiest = t;
        }
        const int64_t most = pack->tokens_per_trainer - (rows[emptiest] > 0 ? margin : 0);
        if (rows[emptiest] + more > most) return 0;
        rows[emptiest] += more;
        batch->document_trainer[d] = emptiest;
    }
    return 1;
}

static base_status_t choose_trainers(base_ctx_t *ctx, const lora_pack_t *pack, data_batch_t *batch)
{
    if (spread_evenly(pack, batch)) return BASE_OK;
    if (pack->trainers == NULL) return fail_full(ctx, pack, batch);
    for (int32_t t = 0; t < batch->num_trainers; t++)
        batch->trainer_rows[t] = 0;
    for (int32_t d = 0; d < batch->num_documents; d++) {
        batch->document_trainer[d] = pack->trainers[d];
        batch->trainer_rows[pack->trainers[d]] += batch->documents[d].rows;
    }
    for (int32_t t = 0; t < batch->num_trainers; t++)
        if (batch->trainer_rows[t] > pack->tokens_per_trainer) return fail_full(ctx, pack, batch);
    return BASE_OK;
}

/* Rows of the spanning document in ping, so that the fuller half has least rows; half_rows are
 * those of the others. A head of all rows puts the document into ping, one of none into pong. */
static int64_t choose_head(int64_t rows, const int64_t half_rows[DATA_NUM_HALVES])
{
    const int64_t level = (half_rows[DATA_PONG] + rows - half_rows[DATA_PING]) / 2;
    const int64_t low = level <= 0 ? 0 : level / DATA_ROW_ALIGN * DATA_ROW_ALIGN;
    const int64_t high = low + DATA_ROW_ALIGN < rows ? low + DATA_ROW_ALIGN : rows;
    const int64_t fuller_low =
        max_i64(half_rows[DATA_PING] + low, half_rows[DATA_PONG] + rows - low);
    const int64_t fuller_high =
        max_i64(half_rows[DATA_PING] + high, half_rows[DATA_PONG] + rows - high);

    return fuller_low < fuller_high ? low : high;
}

/* Sets document_head of the group's documents and gives the rows of the fuller half. `order` is
 * longest first.
 *
 * The first document longer than half of all rows, or that fits into neither half, is set aside to
 * span. There is at most one: with p and q rows in the halves, a document of s rows set aside
 * because min(p, q) + s > stream, and a later r <= s with min(p, q) + r > stream, the rows would be
 * at least p + q + s + r > 2 stream - r + s >= 2 stream. */
static base_status_t choose_halves(base_ctx_t *ctx, const lora_pack_t *pack, const group_t *group,
                                   data_batch_t *batch, int64_t *fuller_p)
{
    int64_t half_rows[DATA_NUM_HALVES] = {0, 0};
    int32_t spanning = -1;

    for (int32_t i = 0; i < batch->num_documents; i++) {
        const int32_t d = batch->order[i];
        const int64_t rows = batch->documents[d].rows;
        const int32_t half = half_rows[DATA_PONG] < half_rows[DATA_PING] ? DATA_PONG : DATA_PING;

        if (pack->whole_documents && batch->document_trainer[d] != group->first) continue;
        if (2 * rows > group->rows || half_rows[half] + rows > group->stream_rows) {
            if (spanning >= 0) return fail_full(ctx, pack, batch);
            spanning = d;
            continue;
        }
        half_rows[half] += rows;
        batch->document_head[d] = half == DATA_PING ? rows : 0;
    }
    if (spanning >= 0) {
        const int64_t rows = batch->documents[spanning].rows;
        const int64_t head = choose_head(rows, half_rows);

        batch->document_head[spanning] = head;
        half_rows[DATA_PING] += head;
        half_rows[DATA_PONG] += rows - head;
    }
    *fuller_p = max_i64(half_rows[DATA_PING], half_rows[DATA_PONG]);
    return *fuller_p <= group->stream_rows ? BASE_OK : fail_full(ctx, pack, batch);
}

/* ==== laying out ==== */

/* Rows [doc_row, doc_end) of document d from stream row `stream_row` on, cut where a trainer's rows
 * end. */
static base_status_t lay_document(data_batch_t *batch, const group_t *group, int32_t half,
                                  int32_t d, int64_t doc_row, int64_t doc_end, int64_t stream_row)
{
    const int64_t m = batch->trainer_rows[group->first];

    while (doc_row < doc_end) {
        const int64_t local_row = stream_row % m;
        const int64_t room = m - local_row;
        const int64_t rows = doc_end - doc_row < room ? doc_end - doc_row : room;
        const data_piece_t piece = {
            .document = d,
            .half = half,
            .trainer = group->first + (int32_t)(stream_row / m),
            .doc_row = doc_row,
            .rows = rows,
            .local_row = local_row,
        };

        BASE_TRY(data_batch_add_piece(batch, &piece));
        doc_row += rows;
        stream_row += rows;
    }
    return BASE_OK;
}

/* `order` is by adapter. */
static base_status_t lay_group(const lora_pack_t *pack, const group_t *group, data_batch_t *batch)
{
    for (int32_t half = 0; half < DATA_NUM_HALVES; half++) {
        int64_t stream_row = 0;

        for (int32_t i = 0; i < batch->num_documents; i++) {
            const int32_t d = batch->order[i];
            const int64_t head = batch->document_head[d];
            const int64_t begin = half == DATA_PING ? 0 : head;
            const int64_t end = half == DATA_PING ? head : batch->documents[d].rows;

            if (pack->whole_documents && batch->document_trainer[d] != group->first) continue;
            BASE_TRY(lay_document(batch, group, half, d, begin, end, stream_row));
            stream_row += end - begin;
        }
    }
    return BASE_OK;
}

static base_status_t pack_group(base_ctx_t *ctx, const lora_pack_t *pack, const group_t *group,
                                data_batch_t *batch)
{
    int64_t fuller = 0;

    sort_documents(batch, by_length);
    BASE_TRY(choose_halves(ctx, pack, group, batch, &fuller));

    /* A trainer without documents has pad rows only, so that no dense op meets a stream of no rows.
     */
    const int64_t m = lora_pack_aligned(max_i64(1, (fuller + group->count - 1) / group->count));
    for (int32_t t = group->first; t < group->first + group->count; t++)
        batch->trainer_rows[t] = m;
    sort_documents(batch, by_adapter);
    if (group->count > 1) lora_pack_spread(batch);
    return lay_group(pack, group, batch);
}

base_status_t lora_pack_fast(base_ctx_t *ctx, const lora_pack_t *pack, data_batch_t *batch)
{
    BASE_TRY(check_pack(ctx, pack));
    BASE_TRY(data_batch_begin(batch, pack->microbatch, pack->num_trainers));
    for (int32_t i = 0; i < pack->num_documents; i++) {
        int32_t index;

        BASE_TRY(data_batch_add_document(batch, &pack->documents[i], &index));
    }

    group_t group = {
        .first = 0,
        .count = pack->whole_documents ? 1 : pack->num_trainers,
        .stream_rows =
            (pack->whole_documents ? 1 : pack->num_trainers) * (pack->tokens_per_trainer / 2),
        .rows = data_batch_document_rows(batch),
    };
    if (!pack->whole_documents) {
        BASE_TRY(pack_group(ctx, pack, &group, batch));
        return data_batch_finish(batch);
    }
    sort_documents(batch, by_length);
    BASE_TRY(choose_trainers(ctx, pack, batch));
    for (; group.first < pack->num_trainers; group.first++) {
        group.rows = batch->trainer_rows[group.first];
        BASE_TRY(pack_group(ctx, pack, &group, batch));
    }
    return data_batch_finish(batch);
}
