#include "data/hf_write.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "data/hf_folder.h"
#include "data/hf_write_config.h"
#include "data/safetensors_write.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PIECE_BYTES    (INT64_C(4) << 20)
#define MAX_FILE_BYTES (INT64_C(1) << 30)
#define SUFFIX_BYTES   32

static const char *const copied_files[] = {
    "tokenizer.json",    "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "tokenizer.model",       "vocab.json",
    "merges.txt",        "chat_template.jinja",   "generation_config.json",
};
#define NUM_COPIED_FILES (sizeof copied_files / sizeof *copied_files)

/* A folder being written. */
typedef struct writing {
    base_ctx_t *ctx;
    const data_model_spec_t *spec;
    const data_hf_write_options_t *options;
    data_hf_rows_fn rows;
    void *arg;
    char *path;      /* without slashes at its end */
    char *temporary; /* the folder beside it */
    int64_t num_tensors;
    data_model_tensor_t *tensors;
    base_hash_t *hashes; /* of each tensor's bytes */
} writing_t;

static char *join(base_ctx_t *ctx, const char *folder, const char *name)
{
    const size_t room = strlen(folder) + strlen(name) + 2;
    char *path = base_alloc(ctx, room, "path");

    if (path != NULL) (void)snprintf(path, room, "%s/%s", folder, name);
    return path;
}

/* ==== folders ==== */

/* Whether the folder holds anything; one that cannot be listed does. */
static bool is_empty(const char *path)
{
    DIR *folder = opendir(path);
    const struct dirent *entry;
    bool empty = folder != NULL;

    while (empty && (entry = readdir(folder)) != NULL)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    if (folder != NULL) (void)closedir(folder);
    return empty;
}

base_status_t data_hf_write_check_path(base_ctx_t *ctx, const char *path)
{
    const base_file_kind_t kind = base_file_kind(path);

    if (kind == BASE_FILE_NONE || (kind == BASE_FILE_FOLDER && is_empty(path))) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_DATA_16, "%s: %s", path,
                     kind == BASE_FILE_FOLDER ? "the folder is not empty"
                                              : "a file stands where the folder should be");
}

/* Removes our temporary folder, which holds plain files only. */
static void remove_folder(base_ctx_t *ctx, const char *path)
{
    DIR *folder = opendir(path);
    const struct dirent *entry;

    if (folder == NULL) return;
    while ((entry = readdir(folder)) != NULL) {
        char *file = join(ctx, path, entry->d_name);

        if (file != NULL) (void)unlink(file); /* fails for . and .. */
        base_free(ctx, file);
    }
    (void)closedir(folder);
    (void)rmdir(path);
}

/* ==== tensors ==== */

static int64_t cols_of(const data_model_tensor_t *tensor)
{
    return tensor->rank == 2 ? tensor->shape[1] : 1;
}

/* `raw` holds the numbers in the dtype that is written. */
static base_status_t convert(const writing_t *w, const data_model_tensor_t *tensor, int64_t row,
                             const float *values, int64_t count, void *raw)
{
    const data_dtype_t dtype = w->options->dtype;

    data_dtype_from_float(dtype, values, raw, count);
    for (int64_t i = 0; i < count; i++) {
        float written = values[i];

        if (dtype == DATA_BF16) data_dtype_to_float(dtype, (const uint16_t *)raw + i, &written, 1);
        if (isfinite(written)) continue;
        return BASE_FAIL(w->ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_17,
                         "%s: tensor \"%s\": row %" PRId64 ", column %" PRId64 " is %g as %s",
                         w->path, tensor->name, row + i / cols_of(tensor), i % cols_of(tensor),
                         (double)values[i], data_dtype_name(dtype));
    }
    return BASE_OK;
}

/* One tensor, a piece at a time; `values` and `raw` have room for `room` numbers. */
static base_status_t write_tensor(const writing_t *w, data_safetensors_writer_t *file,
                                  int64_t index, float *values, void *raw, int64_t room)
{
    const data_model_tensor_t *tensor = &w->tensors[index];
    const int64_t cols = cols_of(tensor), size = data_dtype_bytes(w->options->dtype);
    const int64_t step = room / cols;
    base_hash_t hash = BASE_HASH_START;

    for (int64_t row = 0; row < tensor->shape[0]; row += step) {
        const int64_t left = tensor->shape[0] - row, n = left < step ? left : step;

        BASE_TRY(w->rows(w->arg, index, tensor, row, n, values));
        BASE_TRY(convert(w, tensor, row, values, n * cols, raw));
        hash = base_hash_bytes(hash, raw, (size_t)(n * cols * size));
        BASE_TRY(data_safetensors_append(file, raw, n * cols * size));
    }
    w->hashes[index] = hash;
    return BASE_OK;
}

static base_status_t write_tensors(const writing_t *w, data_safetensors_writer_t *file)
{
    int64_t room = PIECE_BYTES / (int64_t)sizeof(float), index;
    base_status_t st = BASE_ERR_NOMEM;
    float *values;
    void *raw;

    for (int64_t i = 0; i < w->num_tensors; i++)
        if (cols_of(&w->tensors[i]) > room) room = cols_of(&w->tensors[i]);
    values = base_calloc(w->ctx, room, sizeof *values, "rows of a tensor");
    raw = base_calloc(w->ctx, room, sizeof *values, "rows of a tensor");
    if (values != NULL && raw != NULL) {
        st = BASE_OK;
        while (st >= 0 && (index = data_safetensors_next(file)) >= 0)
            st = write_tensor(w, file, index, values, raw, room);
    }
    base_free(w->ctx, raw);
    base_free(w->ctx, values);
    return st;
}

static base_status_t write_safetensors(const writing_t *w)
{
    data_safetensors_tensor_t *list =
        base_calloc(w->ctx, w->num_tensors, sizeof *list, "list of tensors");
    char *path = join(w->ctx, w->temporary, "model.safetensors");
    data_safetensors_writer_t *file = NULL;
    base_status_t st = BASE_ERR_NOMEM;

    if (list == NULL || path == NULL) goto out_free;
    for (int64_t i = 0; i < w->num_tensors; i++)
        list[i] =
            (data_safetensors_tensor_t){.name = w->tensors[i].name,
                                        .dtype = w->options->dtype,
                                        .rank = w->tensors[i].rank,
                                        .shape = {w->tensors[i].shape[0], w->tensors[i].shape[1]}};
    BASE_TRY_GOTO(data_safetensors_create(w->ctx, path, list, w->num_tensors, &file), st, out_free);
    st = write_tensors(w, file);
    if (st >= 0)
        st = data_safetensors_commit(file);
    else
        data_safetensors_discard(file);
out_free:
    base_free(w->ctx, path);
    base_free(w->ctx, list);
    return st;
}

/* ==== the other files ==== */

static base_status_t copy_file(const writing_t *w, const char *name)
{
    char *from = join(w->ctx, w->options->files_from, name), *to = join(w->ctx, w->temporary, name);
    base_status_t st = BASE_OK;
    size_t bytes;
    char *data;

    if (from == NULL || to == NULL)
        st = BASE_ERR_NOMEM;
    else if (base_file_kind(from) != BASE_FILE_NONE) {
        st = base_file_read(w->ctx, from, MAX_FILE_BYTES, &data, &bytes);
        if (st >= 0) {
            st = base_file_write(w->ctx, to, data, bytes);
            base_free(w->ctx, data);
        }
    }
    base_free(w->ctx, to);
    base_free(w->ctx, from);
    return st;
}

static base_status_t write_config(const writing_t *w)
{
    data_hf_carried_t carried;
    base_status_t st;
    char *path;

    BASE_TRY(data_hf_carried_read(w->ctx, w->options->config_from, &carried));
    path = join(w->ctx, w->temporary, "config.json");
    if (path == NULL) return BASE_ERR_NOMEM;
    st = data_hf_config_write(w->ctx, path, w->spec, w->options->dtype, &carried);
    base_free(w->ctx, path);
    return st;
}

/* ==== comparison ==== */

static base_status_t compare_tensor(const writing_t *w, const data_hf_folder_t *folder,
                                    int64_t index, void *piece)
{
    const data_safetensors_entry_t *entry = data_hf_folder_entry(folder, index);
    const int64_t rows = entry->shape[0], row_bytes = entry->bytes / rows;
    const int64_t step = row_bytes < PIECE_BYTES ? PIECE_BYTES / row_bytes : 1;
    base_hash_t hash = BASE_HASH_START;

    for (int64_t row = 0; row < rows; row += step) {
        const int64_t n = rows - row < step ? rows - row : step;

        BASE_TRY(data_hf_folder_read_raw(folder, index, row, n, piece));
        hash = base_hash_bytes(hash, piece, (size_t)(n * row_bytes));
    }
    if (entry->dtype == w->options->dtype && hash == w->hashes[index]) return BASE_OK;
    return BASE_FAIL(w->ctx, BASE_ERR_IO, BASE_MSG_IO_02,
                     "%s: tensor \"%s\" was read back as %s with hash %016" PRIx64
                     ", written as %s with %016" PRIx64,
                     w->path, entry->name, data_dtype_name(entry->dtype), hash,
                     data_dtype_name(w->options->dtype), w->hashes[index]);
}

static base_status_t compare(const writing_t *w)
{
    data_hf_folder_t *folder = NULL;
    int64_t room = PIECE_BYTES;
    base_status_t st = BASE_OK;
    void *piece = NULL;

    BASE_TRY(data_hf_folder_open(w->ctx, w->temporary, NULL, &folder));
    for (int64_t i = 0; i < w->num_tensors; i++)
        if (cols_of(&w->tensors[i]) * (int64_t)sizeof(float) > room)
            room = cols_of(&w->tensors[i]) * (int64_t)sizeof(float);
    if (!data_hf_config_same(w->spec, data_hf_folder_spec(folder)))
        st = BASE_FAIL(w->ctx, BASE_ERR_IO, BASE_MSG_IO_02,
                       "%s: config.json was read back as another model", w->path);
    if (st >= 0) {
        piece = base_alloc(w->ctx, (size_t)room, "comparison of a tensor");
        if (piece == NULL) st = BASE_ERR_NOMEM;
    }
    for (int64_t i = 0; st >= 0 && i < w->num_tensors; i++)
        st = compare_tensor(w, folder, i, piece);
    base_free(w->ctx, piece);
    data_hf_folder_close(folder);
    return st;
}

/* ==== all of it ==== */

static base_status_t prepare(writing_t *w, const char *path)
{
    const size_t room = strlen(path) + SUFFIX_BYTES;
    size_t length;

    w->num_tensors = data_model_spec_num_tensors(w->spec);
    w->path = base_strdup(w->ctx, path, path);
    w->temporary = base_alloc(w->ctx, room, path);
    w->tensors = base_calloc(w->ctx, w->num_tensors, sizeof *w->tensors, "tensors");
    w->hashes = base_calloc(w->ctx, w->num_tensors, sizeof *w->hashes, "hashes of tensors");
    if (w->path == NULL || w->temporary == NULL || w->tensors == NULL || w->hashes == NULL)
        return BASE_ERR_NOMEM;
    for (length = strlen(path); length > 1 && path[length - 1] == '/'; length--)
        w->path[length - 1] = '\0';
    (void)snprintf(w->temporary, room, "%s.tmp-%04d", w->path, base_ctx_rank(w->ctx));
    for (int64_t i = 0; i < w->num_tensors; i++)
        data_model_spec_tensor(w->spec, i, &w->tensors[i]);
    return BASE_OK;
}

static base_status_t write_all(const writing_t *w)
{
    remove_folder(w->ctx, w->temporary); /* of a run that died */
    BASE_TRY(base_file_make_dirs(w->ctx, w->temporary));
    BASE_TRY(write_config(w));
    for (size_t i = 0; i < NUM_COPIED_FILES && w->options->files_from != NULL; i++)
        BASE_TRY(copy_file(w, copied_files[i]));
    BASE_TRY(write_safetensors(w));
    BASE_TRY(compare(w));
    return base_file_rename(w->ctx, w->temporary, w->path);
}

base_status_t data_hf_write(base_ctx_t *ctx, const char *path, const data_model_spec_t *spec,
                            const data_hf_write_options_t *options, data_hf_rows_fn rows, void *arg)
{
    writing_t w = {.ctx = ctx, .spec = spec, .options = options, .rows = rows, .arg = arg};
    const char *field = data_model_spec_check(spec);
    base_status_t st;

    if (field != NULL || (options->dtype != DATA_F32 && options->dtype != DATA_BF16))
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s: %s is out of range", path,
                         field != NULL ? field : "dtype");
    BASE_TRY(data_hf_write_check_path(ctx, path));
    st = prepare(&w, path);
    if (st >= 0) {
        st = write_all(&w);
        if (st < 0) remove_folder(ctx, w.temporary);
    }
    base_free(ctx, w.hashes);
    base_free(ctx, w.tensors);
    base_free(ctx, w.temporary);
    base_free(ctx, w.path);
    return st;
}
