#include "data/dataset.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "data/dataset_file.h"
#include "data/json_read.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PIECE_ELEMENTS (INT64_C(1) << 18)

/* ==== what is known without reading ==== */

const char *data_dataset_path(const data_dataset_t *ds)
{
    return ds->path;
}

const data_dataset_attributes_t *data_dataset_attributes(const data_dataset_t *ds)
{
    return &ds->attributes;
}

int64_t data_dataset_num_documents(const data_dataset_t *ds)
{
    return ds->attributes.num_documents;
}

int64_t data_dataset_num_tokens(const data_dataset_t *ds)
{
    return ds->attributes.num_tokens;
}

int64_t data_dataset_num_supervised(const data_dataset_t *ds)
{
    return ds->attributes.num_supervised;
}

int64_t data_dataset_max_rows(const data_dataset_t *ds)
{
    return ds->max_rows;
}

int64_t data_dataset_rows(const data_dataset_t *ds, int64_t i)
{
    assert(i >= 0 && i < ds->attributes.num_documents);
    return ds->offsets[i + 1] - ds->offsets[i];
}

int64_t data_dataset_supervised(const data_dataset_t *ds, int64_t i)
{
    assert(ds->supervised != NULL && i >= 0 && i < ds->attributes.num_documents);
    return ds->supervised[i];
}

int64_t data_dataset_line(const data_dataset_t *ds, int64_t i)
{
    assert(ds->line != NULL && i >= 0 && i < ds->attributes.num_documents);
    return ds->line[i];
}

uint64_t data_dataset_hash(const data_dataset_t *ds)
{
    base_hash_t h = base_hash_string(BASE_HASH_START, ds->attributes.content_sha256);

    h = base_hash_i64(h, ds->attributes.vocab_size);
    return base_hash_i64_array(h, ds->offsets, ds->attributes.num_documents + 1);
}

/* ==== match ==== */

base_status_t data_dataset_match(const data_dataset_t *ds, const char *tokenizer_sha256,
                                 int64_t vocab, base_error_list_t *errors)
{
    const data_dataset_attributes_t *a = &ds->attributes;
    base_error_list_t own, *list = errors != NULL ? errors : &own;
    const size_t before = errors != NULL ? errors->count : 0;
    base_status_t st = BASE_OK;

    base_error_list_init(&own, ds->ctx);
    if (strcmp(a->tokenizer_sha256, tokenizer_sha256) != 0)
        DATA_ERROR(list, BASE_MSG_DATA_13, ds->path,
                   "was made with a tokenizer.json of SHA-256 %.64s, the model's is %.64s",
                   a->tokenizer_sha256, tokenizer_sha256);
    if (a->vocab_size != vocab)
        DATA_ERROR(list, BASE_MSG_DATA_13, ds->path,
                   "was made for a vocab_size of %" PRId64 ", the model's is %" PRId64,
                   a->vocab_size, vocab);
    if (list->pool.failed)
        st = BASE_ERR_NOMEM;
    else if (list->count > before)
        st = errors != NULL ? BASE_ERR_FORMAT : data_errors_finish(&own);
    base_error_list_deinit(&own);
    return st;
}

base_status_t data_dataset_tokenizer_sha256(base_ctx_t *ctx, const char *folder,
                                            char hex[BASE_SHA256_HEX_BYTES])
{
    const size_t room = strlen(folder) + sizeof "/tokenizer.json";
    char *path = base_alloc(ctx, room, "path of a tokenizer");
    base_status_t st;

    if (path == NULL) return BASE_ERR_NOMEM;
    (void)snprintf(path, room, "%s/tokenizer.json", folder);
    st =
        base_file_kind(path) == BASE_FILE_NONE
            ? BASE_FAIL(ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_30,
                        "%s: no such file; it tells whether data was prepared for this model", path)
            : base_sha256_file(ctx, path, hex);
    base_free(ctx, path);
    return st;
}

/* ==== reading ==== */

static base_status_t read_plain(const data_dataset_t *ds, const char *name, int64_t offset,
                                int64_t bytes, void *to)
{
    for (int64_t at = 0; at < bytes;) {
        const ssize_t got = pread(ds->fd, (char *)to + at, (size_t)(bytes - at), offset + at);

        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return BASE_FAIL(ds->ctx, BASE_ERR_IO, BASE_MSG_IO_01, "%s: cannot read: %s", ds->path,
                             strerror(errno));
        if (got == 0)
            return BASE_FAIL(ds->ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_12,
                             "%s: dataset \"%s\" ends at byte %" PRId64 " of the file, wanted are "
                             "bytes up to %" PRId64,
                             ds->path, name, offset + at, offset + bytes);
        at += got;
    }
    return BASE_OK;
}

static base_status_t read_through_h5(const data_dataset_t *ds, const char *name,
                                     const data_h5_array_t *array, hid_t type, int64_t from,
                                     int64_t count, void *to)
{
    char reason[DATA_H5_REASON_BYTES];
    data_h5_quiet_t quiet;
    bool good;

    (void)pthread_mutex_lock(ds->lock);
    data_h5_quiet_begin(&quiet);
    good = data_h5_array_read(array, type, from, count, to, reason);
    data_h5_quiet_end(&quiet);
    (void)pthread_mutex_unlock(ds->lock);
    if (good) return BASE_OK;
    return BASE_FAIL(ds->ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_12,
                     "%s: dataset \"%s\": elements %" PRId64 " to %" PRId64 " cannot be read: %s",
                     ds->path, name, from, from + count - 1, reason);
}

static base_status_t read_tokens(const data_dataset_t *ds, int64_t from, int64_t count, int32_t *to)
{
    const int64_t size = sizeof *to;

    if (ds->tokens.offset >= 0)
        return read_plain(ds, "/tokens", ds->tokens.offset + from * size, count * size, to);
    return read_through_h5(ds, "/tokens", &ds->tokens, H5T_NATIVE_INT32, from, count, to);
}

static base_status_t read_mask(const data_dataset_t *ds, int64_t from, int64_t count, uint8_t *to)
{
    if (ds->mask.offset >= 0)
        return read_plain(ds, "/loss_mask", ds->mask.offset + from, count, to);
    return read_through_h5(ds, "/loss_mask", &ds->mask, H5T_NATIVE_UINT8, from, count, to);
}

static base_status_t check_document(const data_dataset_t *ds, int64_t i, const int32_t *tokens,
                                    const uint8_t *mask)
{
    const int64_t rows = data_dataset_rows(ds, i), vocab = ds->attributes.vocab_size;
    int64_t ones = 0;

    for (int64_t r = 0; r < rows; r++) {
        if (tokens[r] < 0 || tokens[r] >= vocab)
            return BASE_FAIL(ds->ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_12,
                             "%s: document %" PRId64 ": row %" PRId64 " is token %" PRId32
                             ", the vocabulary has %" PRId64,
                             ds->path, i, r, tokens[r], vocab);
        if (mask[r] > (r > 0))
            return BASE_FAIL(ds->ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_12,
                             "%s: document %" PRId64 ": row %" PRId64 " has loss_mask %d, "
                             "wanted %s",
                             ds->path, i, r, mask[r],
                             r > 0 ? "0 or 1" : "0, as in every first row");
        ones += mask[r];
    }
    if (ones != ds->supervised[i])
        return BASE_FAIL(ds->ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_12,
                         "%s: document %" PRId64 ": loss_mask has %" PRId64
                         " ones, \"/supervised\" says %" PRId32,
                         ds->path, i, ones, ds->supervised[i]);
    return BASE_OK;
}

base_status_t data_dataset_read(const data_dataset_t *ds, int64_t i, int32_t *tokens, uint8_t *mask)
{
    if (ds->supervised == NULL)
        return BASE_FAIL(ds->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                         "%s: read, but only the offsets were opened", ds->path);
    if (i < 0 || i >= ds->attributes.num_documents)
        return BASE_FAIL(ds->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: document %" PRId64 " of %" PRId64, ds->path, i,
                         ds->attributes.num_documents);
    BASE_TRY(read_tokens(ds, ds->offsets[i], data_dataset_rows(ds, i), tokens));
    BASE_TRY(read_mask(ds, ds->offsets[i], data_dataset_rows(ds, i), mask));
    return check_document(ds, i, tokens, mask);
}

/* ==== verify ==== */

/* A piece of tokens (mask NULL) or of masks (tokens NULL) into the hash. */
static base_status_t hash_array(const data_dataset_t *ds, base_sha256_t *h, int32_t *tokens,
                                uint8_t *mask)
{
    const int64_t count = ds->attributes.num_tokens;

    for (int64_t at = 0; at < count; at += PIECE_ELEMENTS) {
        const int64_t left = count - at, n = left < PIECE_ELEMENTS ? left : PIECE_ELEMENTS;

        if (tokens != NULL) {
            BASE_TRY(read_tokens(ds, at, n, tokens));
            base_sha256_update(h, tokens, (size_t)n * sizeof *tokens);
        } else {
            BASE_TRY(read_mask(ds, at, n, mask));
            base_sha256_update(h, mask, (size_t)n);
        }
    }
    return BASE_OK;
}

base_status_t data_dataset_verify(const data_dataset_t *ds)
{
    char hex[BASE_SHA256_HEX_BYTES];
    base_sha256_t h;
    base_status_t st;
    void *piece;

    if (ds->supervised == NULL)
        return BASE_FAIL(ds->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                         "%s: verify, but only the offsets were opened", ds->path);
    piece = base_calloc(ds->ctx, PIECE_ELEMENTS, sizeof(int32_t), "check of a dataset");
    if (piece == NULL) return BASE_ERR_NOMEM;
    base_sha256_init(&h);
    base_sha256_update(&h, ds->offsets,
                       (size_t)(ds->attributes.num_documents + 1) * sizeof *ds->offsets);
    BASE_TRY_GOTO(hash_array(ds, &h, piece, NULL), st, out_free_piece);
    BASE_TRY_GOTO(hash_array(ds, &h, NULL, piece), st, out_free_piece);
    base_sha256_finish(&h, hex);
    if (strcmp(hex, ds->attributes.content_sha256) != 0)
        st = BASE_FAIL(ds->ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_12,
                       "%s: the content has SHA-256 %s, \"content_sha256\" is %.64s", ds->path, hex,
                       ds->attributes.content_sha256);
out_free_piece:
    base_free(ds->ctx, piece);
    return st;
}
