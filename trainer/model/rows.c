#include "trainer/model/rows.h"

#include "base/memory.h"

#include <stdio.h>

static base_status_t declare(tr_rows_t *r, base_arena_t *arena, data_half_t half, const char *what,
                             int64_t row_bytes, base_region_t *region)
{
    char name[48];

    (void)snprintf(name, sizeof name, "rows.%s.%s", what, half == DATA_PING ? "ping" : "pong");
    return base_arena_declare(arena, "trainer", name, r->max_rows * row_bytes, BASE_LIFETIME_RUN,
                              region);
}

static base_status_t declare_half(tr_rows_t *r, base_arena_t *arena, data_half_t half)
{
    tr_rows_half_t *h = &r->half[half];

    const int64_t word = (int64_t)sizeof(int32_t);

    BASE_TRY(declare(r, arena, half, "tokens", word, &h->tokens));
    BASE_TRY(declare(r, arena, half, "positions", word, &h->positions));
    BASE_TRY(declare(r, arena, half, "documents", 2 * word, &h->documents));
    BASE_TRY(declare(r, arena, half, "supervised", word, &h->supervised));
    BASE_TRY(declare(r, arena, half, "targets", word, &h->targets));
    BASE_TRY(declare(r, arena, half, "adapters", word, &h->adapters));
    return declare(r, arena, half, "weights", kern_dtype_bytes(r->model->acc), &h->weights);
}

/* One piece for all arrays of a stage and half; weights first, since they may be doubles. */
static base_status_t create_staging(tr_rows_t *r, tr_rows_staging_t *s)
{
    const int64_t weights = r->max_rows * kern_dtype_bytes(r->model->acc);
    int32_t **const arrays[] = {&s->tokens,  &s->positions, &s->supervised,
                                &s->targets, &s->adapters,  &s->documents};
    const int64_t num = (int64_t)(sizeof arrays / sizeof arrays[0]) + 1; /* documents are pairs */

    BASE_TRY(base_staging_create(base_stream_device(r->stream),
                                 weights + num * r->max_rows * (int64_t)sizeof(int32_t),
                                 "rows staging", &s->staging));
    s->weights = s->staging.memory;
    for (int64_t i = 0; i < num - 1; i++)
        *arrays[i] = (int32_t *)((unsigned char *)s->staging.memory + weights) + i * r->max_rows;
    s->supervised_documents =
        base_calloc(r->ctx, r->max_rows, sizeof *s->supervised_documents, "rows staging");
    return s->supervised_documents == NULL ? BASE_ERR_NOMEM : BASE_OK;
}

base_status_t tr_rows_create(const tr_model_t *model, base_arena_t *arena, base_stream_t *stream,
                             int64_t max_rows, int32_t num_adapters, tr_rows_t **rows_p)
{
    base_ctx_t *ctx = model->ctx;
    base_status_t st;

    tr_rows_t *r = base_calloc(ctx, 1, sizeof *r, "rows");
    if (r == NULL) return BASE_ERR_NOMEM;
    r->ctx = ctx;
    r->model = model;
    r->arena = arena;
    r->stream = stream;
    r->max_rows = max_rows;
    r->num_adapters = num_adapters;
    for (int h = 0; h < DATA_NUM_HALVES; h++) {
        BASE_TRY_GOTO(declare_half(r, arena, (data_half_t)h), st, err_destroy);
        for (int i = 0; i < TR_ROWS_STAGES; i++)
            BASE_TRY_GOTO(create_staging(r, &r->staging[i][h]), st, err_destroy);
    }
    for (int i = 0; i < TR_ROWS_STAGES; i++)
        BASE_TRY_GOTO(base_event_create(base_stream_device(stream), &r->uploaded[i]), st,
                      err_destroy);
    r->row_document = base_calloc(ctx, max_rows, sizeof *r->row_document, "rows scratch");
    if (r->row_document == NULL) {
        st = BASE_ERR_NOMEM;
        goto err_destroy;
    }
    *rows_p = r;
    return BASE_OK;
err_destroy:
    tr_rows_destroy(r);
    return st;
}

void tr_rows_destroy(tr_rows_t *rows)
{
    if (rows == NULL) return;
    base_free(rows->ctx, rows->row_document);
    for (int i = 0; i < TR_ROWS_STAGES; i++) {
        if (rows->uploaded[i] != NULL) base_event_destroy(rows->uploaded[i]);
        for (int h = 0; h < DATA_NUM_HALVES; h++) {
            tr_rows_staging_t *s = &rows->staging[i][h];
            base_free(rows->ctx, s->supervised_documents);
            base_staging_destroy(&s->staging);
        }
    }
    base_free(rows->ctx, rows);
}

/* The staging's last upload has passed. Normally it has, long since: as_attention_microbatch waited
 * for the same microbatch. */
static base_status_t wait_uploaded(tr_rows_t *r, int stage)
{
    return base_event_wait(r->uploaded[stage],
                           "rows: the upload of the microbatch before the last");
}

/* Tokens and positions of a half's rows, and which document each belongs to. */
static base_status_t place_pieces(tr_rows_t *r, const data_batch_t *batch, int32_t trainer,
                                  data_half_t half, tr_rows_staging_t *s)
{
    const int64_t rows = r->half[half].rows;
    const int32_t vocab = r->model->config.vocab;

    for (int64_t i = 0; i < rows; i++) {
        r->row_document[i] = -1;
        s->tokens[i] = 0;
        s->positions[i] = 0;
        s->documents[2 * i] = s->documents[2 * i + 1] = 0;
    }
    for (int32_t p = 0; p < batch->num_pieces; p++) {
        const data_piece_t *piece = &batch->pieces[p];
        const data_document_t *doc = &batch->documents[piece->document];

        if (piece->trainer != trainer || piece->half != (int32_t)half) continue;
        for (int64_t i = 0; i < piece->rows; i++) {
            const int64_t row = piece->local_row + i;
            const int32_t token = doc->tokens[piece->doc_row + i];

            if (token < 0 || token >= vocab)
                return BASE_FAIL(
                    r->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                    "microbatch %lld: document %lld of adapter %d, row %lld: token %d, "
                    "want 0 to %d",
                    (long long)batch->microbatch, (long long)doc->index, doc->adapter,
                    (long long)(piece->doc_row + i), token, vocab - 1);
            r->row_document[row] = piece->document;
            s->tokens[row] = token;
            s->positions[row] = (int32_t)(piece->doc_row + i);
            s->documents[2 * row] = (int32_t)(uint32_t)((uint64_t)doc->index & 0xffffffffu);
            s->documents[2 * row + 1] = (int32_t)((uint64_t)doc->index >> 32);
        }
    }
    return BASE_OK;
}

static base_status_t list_supervised(tr_rows_t *r, const data_batch_t *batch, data_half_t half,
                                     tr_rows_staging_t *s)
{
    int64_t n = 0;

    for (int64_t i = 0; i < r->half[half].rows; i++) {
        if (r->row_document[i] < 0) continue;
        const data_document_t *doc = &batch->documents[r->row_document[i]];
        const int64_t next = (int64_t)s->positions[i] + 1;

        if (next >= doc->rows || doc->loss_mask[next] == 0) continue;
        if (doc->tokens[next] < 0 || doc->tokens[next] >= r->model->config.vocab)
            return BASE_FAIL(r->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "microbatch %lld: document %lld of adapter %d, row %lld: token %d, "
                             "want 0 to %d",
                             (long long)batch->microbatch, (long long)doc->index, doc->adapter,
                             (long long)next, doc->tokens[next], r->model->config.vocab - 1);
        s->supervised[n] = (int32_t)i;
        s->targets[n] = doc->tokens[next];
        s->adapters[n] = doc->adapter;
        s->supervised_documents[n] = r->row_document[i];
        if (r->model->acc == KERN_F64)
            ((double *)s->weights)[n] = doc->row_weight;
        else
            ((float *)s->weights)[n] = (float)doc->row_weight;
        n++;
    }
    r->half[half].num_supervised = n;
    return BASE_OK;
}

static base_status_t upload(tr_rows_t *r, base_region_t region, const void *values, int64_t bytes)
{
    if (bytes == 0) return BASE_OK;
    return base_upload(r->stream, base_arena_mem(r->arena, region), values, bytes);
}

static base_status_t upload_half(tr_rows_t *r, data_half_t half, const tr_rows_staging_t *s)
{
    const tr_rows_half_t *h = &r->half[half];
    const int64_t i32 = kern_dtype_bytes(KERN_I32);

    BASE_TRY(upload(r, h->tokens, s->tokens, h->rows * i32));
    BASE_TRY(upload(r, h->positions, s->positions, h->rows * i32));
    BASE_TRY(upload(r, h->documents, s->documents, 2 * h->rows * i32));
    BASE_TRY(upload(r, h->supervised, s->supervised, h->num_supervised * i32));
    BASE_TRY(upload(r, h->targets, s->targets, h->num_supervised * i32));
    BASE_TRY(upload(r, h->adapters, s->adapters, h->num_supervised * i32));
    return upload(r, h->weights, s->weights, h->num_supervised * kern_dtype_bytes(r->model->acc));
}

static base_status_t check_batch(const tr_rows_t *r, const data_batch_t *batch, int32_t trainer)
{
    if (batch->trainer_rows[trainer] > r->max_rows)
        return BASE_FAIL(r->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "microbatch %lld: trainer %d has %lld rows in a half, want at most %lld",
                         (long long)batch->microbatch, trainer,
                         (long long)batch->trainer_rows[trainer], (long long)r->max_rows);
    for (int32_t d = 0; d < batch->num_documents; d++) {
        const data_document_t *doc = &batch->documents[d];
        if (doc->rows > r->model->config.max_positions || doc->adapter < 0 ||
            doc->adapter >= r->num_adapters)
            return BASE_FAIL(r->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "microbatch %lld: document %lld of adapter %d has %lld rows, want at "
                             "most %lld and adapters below %d",
                             (long long)batch->microbatch, (long long)doc->index, doc->adapter,
                             (long long)doc->rows, (long long)r->model->config.max_positions,
                             r->num_adapters);
    }
    return BASE_OK;
}

base_status_t tr_rows_install(tr_rows_t *rows, const data_batch_t *batch, int32_t trainer)
{
    const int stage = (int)(rows->installs % TR_ROWS_STAGES);

    BASE_TRY(check_batch(rows, batch, trainer));
    if (rows->installs >= TR_ROWS_STAGES) BASE_TRY(wait_uploaded(rows, stage));
    for (int h = 0; h < DATA_NUM_HALVES; h++) {
        tr_rows_staging_t *s = &rows->staging[stage][h];

        rows->half[h].rows = batch->trainer_rows[trainer];
        BASE_TRY(place_pieces(rows, batch, trainer, (data_half_t)h, s));
        BASE_TRY(list_supervised(rows, batch, (data_half_t)h, s));
        BASE_TRY(upload_half(rows, (data_half_t)h, s));
    }
    BASE_TRY(base_event_record(rows->uploaded[stage], rows->stream));
    rows->installs++;
    return BASE_OK;
}

const int32_t *tr_rows_supervised_documents(const tr_rows_t *rows, data_half_t half)
{
    return rows->staging[(rows->installs - 1) % TR_ROWS_STAGES][half].supervised_documents;
}

static kern_mat_t vec(const tr_rows_t *r, base_region_t region, int64_t count, kern_dtype_t dtype)
{
    return kern_vec(base_arena_mem(r->arena, region), count, dtype);
}

kern_mat_t tr_rows_tokens(const tr_rows_t *rows, data_half_t half)
{
    return vec(rows, rows->half[half].tokens, rows->half[half].rows, KERN_I32);
}

kern_mat_t tr_rows_positions(const tr_rows_t *rows, data_half_t half)
{
    return vec(rows, rows->half[half].positions, rows->half[half].rows, KERN_I32);
}

kern_mat_t tr_rows_documents(const tr_rows_t *rows, data_half_t half)
{
    return kern_mat(base_arena_mem(rows->arena, rows->half[half].documents), rows->half[half].rows,
                    2, 2, KERN_I32);
}

kern_mat_t tr_rows_supervised(const tr_rows_t *rows, data_half_t half)
{
    return vec(rows, rows->half[half].supervised, rows->half[half].num_supervised, KERN_I32);
}

kern_mat_t tr_rows_targets(const tr_rows_t *rows, data_half_t half)
{
    return vec(rows, rows->half[half].targets, rows->half[half].num_supervised, KERN_I32);
}

kern_mat_t tr_rows_adapters(const tr_rows_t *rows, data_half_t half)
{
    return vec(rows, rows->half[half].adapters, rows->half[half].num_supervised, KERN_I32);
}

kern_mat_t tr_rows_weights(const tr_rows_t *rows, data_half_t half)
{
    return vec(rows, rows->half[half].weights, rows->half[half].num_supervised, rows->model->acc);
}
