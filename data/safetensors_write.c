#include "data/safetensors_write.h"

#include "base/file.h"
#include "base/json_write.h"
#include "base/memory.h"
#include "base/sort.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LENGTH_BYTES 8
#define ALIGN        8
/* Of one tensor in the header besides its name: keys, dtype, 8 dimensions, two offsets. */
#define ENTRY_BYTES 320

/* A tensor's place in the file. */
typedef struct slot {
    int64_t index; /* in the caller's list */
    int64_t bytes;
} slot_t;

struct data_safetensors_writer {
    base_ctx_t *ctx;
    char *path;
    base_file_t *file;
    const data_safetensors_tensor_t *tensors; /* borrowed */
    slot_t *slots;                            /* in the order of the file */
    int64_t count;
    int64_t at;      /* slot that is written */
    int64_t written; /* bytes of it */
};

/* ==== checks ==== */

static int reference_order(const void *a, const void *b, const void *arg)
{
    const data_safetensors_tensor_t *tensors = arg;
    const data_safetensors_tensor_t *x = &tensors[((const slot_t *)a)->index];
    const data_safetensors_tensor_t *y = &tensors[((const slot_t *)b)->index];
    const int by_dtype = base_compare_i64((int64_t)y->dtype, (int64_t)x->dtype);

    return by_dtype != 0 ? by_dtype : strcmp(x->name, y->name);
}

static int name_order(const void *a, const void *b, const void *arg)
{
    const data_safetensors_tensor_t *tensors = arg;

    return strcmp(tensors[((const slot_t *)a)->index].name,
                  tensors[((const slot_t *)b)->index].name);
}

/* False: the format cannot hold it. */
static bool size_of(const data_safetensors_tensor_t *tensor, int64_t *bytes)
{
    if (data_dtype_name(tensor->dtype) == NULL) return false;
    if (tensor->rank < 0 || tensor->rank > DATA_SAFETENSORS_MAX_RANK) return false;
    if (strcmp(tensor->name, "__metadata__") == 0) return false;
    *bytes = data_dtype_bytes(tensor->dtype);
    for (int32_t i = 0; i < tensor->rank; i++)
        if (tensor->shape[i] < 0 || __builtin_mul_overflow(*bytes, tensor->shape[i], bytes))
            return false;
    return true;
}

/* Fills and sorts the slots. *header_bytes is enough for the header. */
static base_status_t lay_out(data_safetensors_writer_t *w, size_t *header_bytes)
{
    int64_t total = 0;

    *header_bytes = ENTRY_BYTES;
    for (int64_t i = 0; i < w->count; i++) {
        w->slots[i].index = i;
        if (!size_of(&w->tensors[i], &w->slots[i].bytes) ||
            __builtin_add_overflow(total, w->slots[i].bytes, &total))
            return BASE_FAIL(w->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "%s: tensor \"%.200s\" cannot stand in a safetensors file", w->path,
                             w->tensors[i].name);
        /* A byte of a name takes at most six: \u001f. */
        *header_bytes += ENTRY_BYTES + 6 * strlen(w->tensors[i].name);
    }
    base_sort(w->slots, w->count, sizeof *w->slots, name_order, w->tensors);
    for (int64_t i = 1; i < w->count; i++)
        if (name_order(&w->slots[i - 1], &w->slots[i], w->tensors) == 0)
            return BASE_FAIL(w->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "%s: two tensors are called \"%.200s\"", w->path,
                             w->tensors[w->slots[i].index].name);
    base_sort(w->slots, w->count, sizeof *w->slots, reference_order, w->tensors);
    return BASE_OK;
}

/* ==== header ==== */

static void put_header(const data_safetensors_writer_t *w, base_json_t *j)
{
    int64_t offset = 0;

    base_json_begin_object(j);
    base_json_key(j, "__metadata__");
    base_json_begin_object(j);
    base_json_put_string(j, "format", "pt");
    base_json_end(j);
    for (int64_t s = 0; s < w->count; s++) {
        const data_safetensors_tensor_t *tensor = &w->tensors[w->slots[s].index];

        base_json_key(j, tensor->name);
        base_json_begin_object(j);
        base_json_put_string(j, "dtype", data_dtype_name(tensor->dtype));
        base_json_put_ints(j, "shape", tensor->shape, tensor->rank);
        base_json_key(j, "data_offsets");
        base_json_begin_array(j);
        base_json_int(j, offset);
        offset += w->slots[s].bytes;
        base_json_int(j, offset);
        base_json_end(j);
        base_json_end(j);
    }
    base_json_end(j);
}

static base_status_t put_bytes(const data_safetensors_writer_t *w, const void *data, size_t bytes)
{
    if (bytes == 0 || fwrite(data, 1, bytes, base_file_stream(w->file)) == bytes) return BASE_OK;
    return BASE_FAIL(w->ctx, base_file_status(errno), BASE_MSG_IO_02, "%s: cannot write: %s",
                     w->path, strerror(errno));
}

static base_status_t write_header(const data_safetensors_writer_t *w, size_t room)
{
    unsigned char length[LENGTH_BYTES];
    base_json_t j;
    size_t padded;
    char *text = base_alloc(w->ctx, room + ALIGN, w->path);
    base_status_t st;

    if (text == NULL) return BASE_ERR_NOMEM;
    base_json_to_buffer(&j, text, room);
    put_header(w, &j);
    BASE_TRY_GOTO(base_json_finish(&j, w->ctx, w->path), st, out_free_text);
    padded = (j.bytes + ALIGN - 1) / ALIGN * ALIGN;
    memset(text + j.bytes, ' ', padded - j.bytes);
    if (padded > (size_t)DATA_SAFETENSORS_MAX_HEADER) {
        st = BASE_FAIL(w->ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s: a header of %zu bytes", w->path,
                       padded);
        goto out_free_text;
    }
    for (int i = 0; i < LENGTH_BYTES; i++)
        length[i] = (unsigned char)((uint64_t)padded >> (8 * i));
    BASE_TRY_GOTO(put_bytes(w, length, LENGTH_BYTES), st, out_free_text);
    st = put_bytes(w, text, padded);
out_free_text:
    base_free(w->ctx, text);
    return st;
}

/* ==== the writer ==== */

static void writer_free(data_safetensors_writer_t *w)
{
    base_free(w->ctx, w->slots);
    base_free(w->ctx, w->path);
    base_free(w->ctx, w);
}

static void skip_complete(data_safetensors_writer_t *w)
{
    while (w->at < w->count && w->written == w->slots[w->at].bytes) {
        w->at++;
        w->written = 0;
    }
}

base_status_t data_safetensors_create(base_ctx_t *ctx, const char *path,
                                      const data_safetensors_tensor_t *tensors, int64_t count,
                                      data_safetensors_writer_t **writer_p)
{
    data_safetensors_writer_t *w = base_calloc(ctx, 1, sizeof *w, path);
    size_t header_bytes;
    base_status_t st = BASE_ERR_NOMEM;

    if (w == NULL) return BASE_ERR_NOMEM;
    *w = (data_safetensors_writer_t){.ctx = ctx, .tensors = tensors, .count = count};
    w->path = base_strdup(ctx, path, path);
    w->slots = base_calloc(ctx, count, sizeof *w->slots, path);
    if (w->path == NULL || w->slots == NULL) goto err_free;
    BASE_TRY_GOTO(lay_out(w, &header_bytes), st, err_free);
    BASE_TRY_GOTO(base_file_create(ctx, path, &w->file), st, err_free);
    BASE_TRY_GOTO(write_header(w, header_bytes), st, err_discard);
    skip_complete(w);
    *writer_p = w;
    return BASE_OK;
err_discard:
    base_file_discard(w->file);
err_free:
    writer_free(w);
    return st;
}

int64_t data_safetensors_next(const data_safetensors_writer_t *writer)
{
    return writer->at < writer->count ? writer->slots[writer->at].index : -1;
}

base_status_t data_safetensors_append(data_safetensors_writer_t *writer, const void *data,
                                      int64_t bytes)
{
    const int64_t left =
        writer->at < writer->count ? writer->slots[writer->at].bytes - writer->written : 0;

    if (bytes < 0 || bytes > left)
        return BASE_FAIL(writer->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: %" PRId64 " bytes for a tensor that has %" PRId64 " left",
                         writer->path, bytes, left);
    BASE_TRY(put_bytes(writer, data, (size_t)bytes));
    writer->written += bytes;
    skip_complete(writer);
    return BASE_OK;
}

base_status_t data_safetensors_commit(data_safetensors_writer_t *writer)
{
    base_status_t st;

    if (writer->at < writer->count) {
        st = BASE_FAIL(writer->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                       "%s: tensor \"%.200s\" is not complete", writer->path,
                       writer->tensors[data_safetensors_next(writer)].name);
        data_safetensors_discard(writer);
        return st;
    }
    st = base_file_commit(writer->file);
    writer_free(writer);
    return st;
}

void data_safetensors_discard(data_safetensors_writer_t *writer)
{
    if (writer == NULL) return;
    base_file_discard(writer->file);
    writer_free(writer);
}

base_status_t data_safetensors_write(base_ctx_t *ctx, const char *path,
                                     const data_safetensors_tensor_t *tensors,
                                     const void *const *data, int64_t count)
{
    data_safetensors_writer_t *w;

    BASE_TRY(data_safetensors_create(ctx, path, tensors, count, &w));
    for (int64_t i = data_safetensors_next(w); i >= 0; i = data_safetensors_next(w)) {
        const base_status_t st = data_safetensors_append(w, data[i], w->slots[w->at].bytes);

        if (st < 0) {
            data_safetensors_discard(w);
            return st;
        }
    }
    return data_safetensors_commit(w);
}
