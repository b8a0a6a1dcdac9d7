#include "data/hf_folder.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/text.h"
#include "data/hf_config.h"
#include "data/hf_shards.h"
#include "data/json_read.h"

#include <inttypes.h>
#include <string.h>

#define CHUNK_BYTES (INT64_C(1) << 20)
#define HASH_BYTES  INT64_C(4096)
#define SHAPE_BYTES 200
#define LM_HEAD     "lm_head.weight"
#define INV_FREQ    ".rotary_emb.inv_freq"

typedef struct place {
    const data_safetensors_t *file;
    const data_safetensors_entry_t *entry;
} place_t;

struct data_hf_folder {
    base_ctx_t *ctx;
    data_model_spec_t spec;
    data_hf_shards_t shards;
    place_t *places; /* of each tensor of the spec's list */
};

/* ==== comparison with the spec ==== */

static bool same_shape(const data_model_tensor_t *tensor, const data_safetensors_entry_t *entry)
{
    if (tensor->rank != entry->rank) return false;
    for (int32_t i = 0; i < tensor->rank; i++)
        if (tensor->shape[i] != entry->shape[i]) return false;
    return true;
}

static void check_tensor(data_hf_folder_t *folder, const char *path, int64_t index,
                         base_error_list_t *errors)
{
    place_t *place = &folder->places[index];
    char found[SHAPE_BYTES], wanted[SHAPE_BYTES];
    data_model_tensor_t tensor;

    data_model_spec_tensor(&folder->spec, index, &tensor);
    data_safetensors_shape_text(tensor.rank, tensor.shape, wanted, sizeof wanted);
    place->entry = data_hf_shards_find(&folder->shards, tensor.name, &place->file);
    if (place->entry == NULL) {
        DATA_ERROR(errors, BASE_MSG_DATA_07, path, "tensor \"%s\" of shape %s is in no file",
                   tensor.name, wanted);
        return;
    }
    data_safetensors_shape_text(place->entry->rank, place->entry->shape, found, sizeof found);
    if (!same_shape(&tensor, place->entry))
        DATA_ERROR(errors, BASE_MSG_DATA_09, data_safetensors_path(place->file),
                   "tensor \"%s\" has shape %s, config.json gives %s", tensor.name, found, wanted);
    if (!data_dtype_is_float(place->entry->dtype))
        DATA_ERROR(errors, BASE_MSG_DATA_09, data_safetensors_path(place->file),
                   "tensor \"%s\" is %s; F16, BF16, F32 and F64 are supported", tensor.name,
                   data_dtype_name(place->entry->dtype));
}

/* *same: both tensors hold the same bytes. */
static base_status_t compare_bytes(base_ctx_t *ctx, place_t a, place_t b, bool *same)
{
    char *buffer = base_alloc(ctx, 2 * CHUNK_BYTES, "comparison of two tensors");
    base_status_t st = BASE_OK;

    if (buffer == NULL) return BASE_ERR_NOMEM;
    *same = a.entry->dtype == b.entry->dtype && a.entry->bytes == b.entry->bytes;
    for (int64_t at = 0; *same && at < a.entry->bytes; at += CHUNK_BYTES) {
        const int64_t left = a.entry->bytes - at, bytes = left < CHUNK_BYTES ? left : CHUNK_BYTES;

        BASE_TRY_GOTO(data_safetensors_read(a.file, a.entry, at, bytes, buffer), st,
                      out_free_buffer);
        BASE_TRY_GOTO(data_safetensors_read(b.file, b.entry, at, bytes, buffer + CHUNK_BYTES), st,
                      out_free_buffer);
        *same = memcmp(buffer, buffer + CHUNK_BYTES, (size_t)bytes) == 0;
    }
out_free_buffer:
    base_free(ctx, buffer);
    return st;
}

static base_status_t check_tied_head(const data_hf_folder_t *folder, place_t head,
                                     base_error_list_t *errors)
{
    const place_t embedding =
        folder->places[data_model_spec_index(&folder->spec, DATA_TENSOR_EMBEDDING, -1)];
    bool same = false;

    if (embedding.entry == NULL) return BASE_OK; /* reported as missing */
    BASE_TRY(compare_bytes(folder->ctx, head, embedding, &same));
    if (!same)
        DATA_ERROR(errors, BASE_MSG_DATA_08, data_safetensors_path(head.file),
                   "tensor \"" LM_HEAD "\" differs from \"model.embed_tokens.weight\", although "
                   "\"tie_word_embeddings\" is true");
    return BASE_OK;
}

static base_status_t check_extra(const data_hf_folder_t *folder, base_error_list_t *errors)
{
    for (int64_t f = 0; f < folder->shards.count; f++) {
        const data_safetensors_t *file = folder->shards.files[f];

        for (int64_t i = 0; i < data_safetensors_count(file); i++) {
            const data_safetensors_entry_t *entry = data_safetensors_entry(file, i);

            if (data_model_spec_find(&folder->spec, entry->name) >= 0) continue;
            if (base_text_ends_in(entry->name, INV_FREQ)) continue;
            if (folder->spec.tied && strcmp(entry->name, LM_HEAD) == 0)
                BASE_TRY(check_tied_head(folder, (place_t){file, entry}, errors));
            else
                DATA_ERROR(errors, BASE_MSG_DATA_08, data_safetensors_path(file),
                           "tensor \"%.200s\" is not part of this %s model with %" PRId32 " layers",
                           entry->name, data_model_family_name(folder->spec.family),
                           folder->spec.num_layers);
        }
    }
    return BASE_OK;
}

static base_status_t compare(data_hf_folder_t *folder, const char *path, base_error_list_t *errors)
{
    const int64_t count = data_model_spec_num_tensors(&folder->spec);

    folder->places = base_calloc(folder->ctx, count, sizeof *folder->places, "tensors");
    if (folder->places == NULL) return BASE_ERR_NOMEM;
    for (int64_t i = 0; i < count; i++)
        check_tensor(folder, path, i, errors);
    return check_extra(folder, errors);
}

/* ==== open and close ==== */

/* What is said first about a path that is no model folder at all; false: reported. */
static bool looks_like_model(const char *path, const char *config, const char *adapter,
                             base_error_list_t *errors)
{
    if (base_file_kind(path) != BASE_FILE_FOLDER)
        DATA_ERROR(errors, BASE_MSG_DATA_01, path, "%s",
                   base_file_kind(path) == BASE_FILE_NONE ? "there is no such folder"
                                                          : "is a file, not a folder");
    else if (base_file_kind(config) != BASE_FILE_NONE)
        return true;
    else if (base_file_kind(adapter) != BASE_FILE_NONE)
        DATA_ERROR(errors, BASE_MSG_DATA_01, path, "is an adapter, a base model is wanted");
    else
        DATA_ERROR(errors, BASE_MSG_DATA_01, path, "has no config.json");
    return false;
}

/* A fault that is in the list does not end the reading. */
static base_status_t go_on(base_status_t st, const base_error_list_t *errors, size_t before,
                           bool *good)
{
    *good = st >= 0;
    return st == BASE_ERR_FORMAT && errors->count > before ? BASE_OK : st;
}

static base_status_t open_all(data_hf_folder_t *folder, const char *path, base_error_list_t *errors)
{
    char *config = data_hf_shards_path(folder->ctx, path, "config.json");
    char *adapter = data_hf_shards_path(folder->ctx, path, "adapter_config.json");
    base_status_t st = BASE_ERR_NOMEM;
    const size_t before = errors->count;
    bool config_good, shards_good;

    if (config == NULL || adapter == NULL) goto out_free_paths;
    st = BASE_OK;
    if (!looks_like_model(path, config, adapter, errors)) goto out_free_paths;
    BASE_TRY_GOTO(go_on(data_hf_config_read(folder->ctx, config, errors, &folder->spec), errors,
                        before, &config_good),
                  st, out_free_paths);
    const size_t between = errors->count;
    BASE_TRY_GOTO(go_on(data_hf_shards_open(folder->ctx, path, errors, &folder->shards), errors,
                        between, &shards_good),
                  st, out_free_paths);
    if (config_good && shards_good) st = compare(folder, path, errors);
out_free_paths:
    base_free(folder->ctx, adapter);
    base_free(folder->ctx, config);
    return st;
}

base_status_t data_hf_folder_open(base_ctx_t *ctx, const char *path, base_error_list_t *errors,
                                  data_hf_folder_t **folder_p)
{
    base_error_list_t own, *list = errors != NULL ? errors : &own;
    const size_t before = errors != NULL ? errors->count : 0;
    data_hf_folder_t *folder = base_calloc(ctx, 1, sizeof *folder, path);
    base_status_t st;

    if (folder == NULL) return BASE_ERR_NOMEM;
    base_error_list_init(&own, ctx);
    folder->ctx = ctx;
    folder->shards.ctx = ctx;
    st = open_all(folder, path, list);
    if (st >= 0 && list->pool.failed) st = BASE_ERR_NOMEM;
    if (st >= 0 && list->count > before)
        st = errors != NULL ? BASE_ERR_FORMAT : data_errors_finish(&own);
    base_error_list_deinit(&own);
    if (st < 0) {
        data_hf_folder_close(folder);
        return st;
    }
    *folder_p = folder;
    return BASE_OK;
}

void data_hf_folder_close(data_hf_folder_t *folder)
{
    if (folder == NULL) return;
    base_free(folder->ctx, folder->places);
    data_hf_shards_close(&folder->shards);
    base_free(folder->ctx, folder);
}

/* ==== reading ==== */

const data_model_spec_t *data_hf_folder_spec(const data_hf_folder_t *folder)
{
    return &folder->spec;
}

const data_safetensors_entry_t *data_hf_folder_entry(const data_hf_folder_t *folder, int64_t index)
{
    return folder->places[index].entry;
}

base_status_t data_hf_folder_read_raw(const data_hf_folder_t *folder, int64_t index, int64_t row,
                                      int64_t num_rows, void *to)
{
    const place_t *place = &folder->places[index];

    return data_safetensors_read_rows(place->file, place->entry, row, num_rows, to);
}

/* Rows, a megabyte at a time, to float or to double: one of the two is NULL. */
static base_status_t convert_rows(const data_hf_folder_t *folder, int64_t index, int64_t row,
                                  int64_t num_rows, float *narrow, double *wide)
{
    const place_t *place = &folder->places[index];
    const data_dtype_t dtype = place->entry->dtype;
    const int64_t size = data_dtype_bytes(dtype);
    const int64_t rows = place->entry->shape[0], row_bytes = place->entry->bytes / rows;
    base_status_t st = BASE_OK;
    char *buffer;

    /* Refuses a range that is not there. */
    BASE_TRY(data_safetensors_read_rows(place->file, place->entry, row, 0, NULL));
    if (num_rows < 0 || num_rows > rows - row)
        return data_safetensors_read_rows(place->file, place->entry, row, num_rows, NULL);
    buffer = base_alloc(folder->ctx, (size_t)CHUNK_BYTES, "conversion of a tensor");
    if (buffer == NULL) return BASE_ERR_NOMEM;
    for (int64_t at = 0; at < num_rows * row_bytes; at += CHUNK_BYTES) {
        const int64_t left = num_rows * row_bytes - at;
        const int64_t bytes = left < CHUNK_BYTES ? left : CHUNK_BYTES;

        BASE_TRY_GOTO(
            data_safetensors_read(place->file, place->entry, row * row_bytes + at, bytes, buffer),
            st, out_free_buffer);
        if (narrow != NULL)
            data_dtype_to_float(dtype, buffer, narrow + at / size, bytes / size);
        else
            data_dtype_to_double(dtype, buffer, wide + at / size, bytes / size);
    }
out_free_buffer:
    base_free(folder->ctx, buffer);
    return st;
}

base_status_t data_hf_folder_read_float(const data_hf_folder_t *folder, int64_t index, int64_t row,
                                        int64_t num_rows, float *to)
{
    if (folder->places[index].entry->dtype == DATA_F32)
        return data_hf_folder_read_raw(folder, index, row, num_rows, to);
    return convert_rows(folder, index, row, num_rows, to, NULL);
}

base_status_t data_hf_folder_read_double(const data_hf_folder_t *folder, int64_t index, int64_t row,
                                         int64_t num_rows, double *to)
{
    if (folder->places[index].entry->dtype == DATA_F64)
        return data_hf_folder_read_raw(folder, index, row, num_rows, to);
    return convert_rows(folder, index, row, num_rows, NULL, to);
}

/* ==== hash ==== */

static base_status_t hash_tensor(place_t place, base_hash_t *hash)
{
    const data_safetensors_entry_t *entry = place.entry;
    const int64_t bytes = entry->bytes < HASH_BYTES ? entry->bytes : HASH_BYTES;
    char buffer[HASH_BYTES];
    base_hash_t h = *hash;

    h = base_hash_string(h, entry->name);
    h = base_hash_string(h, data_dtype_name(entry->dtype));
    h = base_hash_i64(h, entry->rank);
    h = base_hash_i64_array(h, entry->shape, entry->rank);
    BASE_TRY(data_safetensors_read(place.file, entry, 0, bytes, buffer));
    h = base_hash_bytes(h, buffer, (size_t)bytes);
    BASE_TRY(data_safetensors_read(place.file, entry, entry->bytes - bytes, bytes, buffer));
    *hash = base_hash_bytes(h, buffer, (size_t)bytes);
    return BASE_OK;
}

base_status_t data_hf_folder_hash(const data_hf_folder_t *folder, uint64_t *hash)
{
    base_hash_t h = base_hash_u64(BASE_HASH_START, data_model_spec_hash(&folder->spec));

    for (int64_t i = 0; i < data_model_spec_num_tensors(&folder->spec); i++)
        BASE_TRY(hash_tensor(folder->places[i], &h));
    *hash = h;
    return BASE_OK;
}
