#include "lora/export_peft.h"

#include "base/memory.h"
#include "data/hf_shards.h"
#include "data/json_read.h"
#include "data/safetensors_write.h"
#include "lora/adapter_folder.h"
#include "lora/adapter_verify.h"
#include "lora/peft_config.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define CHUNK INT64_C(65536) /* elements */

/* ==== tensors: two of each module, A and B ==== */

typedef struct tensor_list {
    base_ctx_t *ctx;
    int64_t count;
    char (*names)[LORA_TENSOR_NAME_BYTES];
    data_safetensors_tensor_t *tensors;
    float *chunk;
    float *found; /* comparison: as much again */
} tensor_list_t;

static void list_destroy(tensor_list_t *list)
{
    base_free(list->ctx, list->found);
    base_free(list->ctx, list->chunk);
    base_free(list->ctx, list->tensors);
    base_free(list->ctx, list->names);
}

/* Ended with list_destroy in any case. */
static base_status_t list_create(base_ctx_t *ctx, const lora_export_t *a, tensor_list_t *list)
{
    *list = (tensor_list_t){.ctx = ctx, .count = 2 * a->layout->num_modules};
    list->names = base_calloc(ctx, list->count, sizeof *list->names, "names of an adapter");
    list->tensors = base_calloc(ctx, list->count, sizeof *list->tensors, "names of an adapter");
    list->chunk = base_calloc(ctx, CHUNK, sizeof *list->chunk, "export of an adapter");
    list->found = base_calloc(ctx, CHUNK, sizeof *list->found, "export of an adapter");
    if (list->names == NULL || list->tensors == NULL || list->chunk == NULL || list->found == NULL)
        return BASE_ERR_NOMEM;
    for (int64_t i = 0; i < list->count; i++) {
        const lora_module_t *m = &a->layout->modules[i / 2];
        data_safetensors_tensor_t *t = &list->tensors[i];

        lora_tensor_name(m->layer, m->target, i % 2 == 1, list->names[i]);
        *t = (data_safetensors_tensor_t){.name = list->names[i], .dtype = DATA_F32, .rank = 2};
        t->shape[0] = i % 2 == 1 ? m->out : a->layout->rank;
        t->shape[1] = i % 2 == 1 ? a->layout->rank : m->in;
    }
    return BASE_OK;
}

static int64_t num_elements(const data_safetensors_tensor_t *t)
{
    return t->shape[0] * t->shape[1];
}

static double full_scale(const lora_export_t *a)
{
    return lora_scale(a->alpha, a->layout->rank, a->rslora);
}

/* Elements [from, from + count) of tensor `index`, as they stand in the file. */
static void fill(const lora_export_t *a, int64_t index, int64_t from, int64_t count, float *to)
{
    const lora_module_t *m = &a->layout->modules[index / 2];
    const bool is_b = index % 2 == 1;
    const float *values = a->values + (is_b ? m->b : m->a) + from;
    const double factor = is_b && !a->faithful ? full_scale(a) : 1.0;

    for (int64_t i = 0; i < count; i++)
        to[i] = (float)((double)values[i] * factor);
}

static lora_peft_words_t words_of(const lora_export_t *a)
{
    return (lora_peft_words_t){.rank = a->layout->rank,
                               .alpha = a->faithful ? a->alpha : (double)a->layout->rank,
                               .dropout = a->dropout,
                               .rslora = a->faithful && a->rslora,
                               .targets = a->layout->targets,
                               .base_model = a->base_model};
}

/* ==== before anything is written ==== */

static base_status_t check_base(base_ctx_t *ctx, const lora_export_t *a)
{
    base_error_list_t errors;
    base_status_t st;

    base_error_list_init(&errors, ctx);
    for (int64_t i = 0; i < a->layout->num_modules; i++) {
        const lora_module_t *m = &a->layout->modules[i];

        lora_adapter_check_base(a->base, a->name, m->layer, m->target, m->in, m->out, &errors);
    }
    st = data_errors_finish(&errors);
    base_error_list_deinit(&errors);
    return st;
}

static base_status_t check_tensor(const tensor_list_t *list, const char *place,
                                  const lora_export_t *a, int64_t index)
{
    const int64_t count = num_elements(&list->tensors[index]);

    for (int64_t at = 0; at < count; at += CHUNK) {
        const int64_t n = count - at < CHUNK ? count - at : CHUNK;

        fill(a, index, at, n, list->chunk);
        for (int64_t i = 0; i < n; i++)
            if (!isfinite(list->chunk[i]))
                return BASE_FAIL(list->ctx, BASE_ERR_FORMAT, BASE_MSG_DATA_47,
                                 "%s: tensor \"%s\": element %" PRId64
                                 " is not finite; nothing is written",
                                 place, list->names[index], at + i);
    }
    return BASE_OK;
}

base_status_t lora_export_check_finite(base_ctx_t *ctx, const char *place, const lora_export_t *a)
{
    tensor_list_t list;
    base_status_t st = list_create(ctx, a, &list);

    for (int64_t i = 0; st >= 0 && i < list.count; i++)
        st = check_tensor(&list, place, a, i);
    list_destroy(&list);
    return st;
}

/* ==== writing ==== */

static base_status_t write_weights(const tensor_list_t *list, const char *path,
                                   const lora_export_t *a)
{
    data_safetensors_writer_t *writer;
    base_status_t st;

    BASE_TRY(data_safetensors_create(list->ctx, path, list->tensors, list->count, &writer));
    for (int64_t t; (t = data_safetensors_next(writer)) >= 0;) {
        const int64_t count = num_elements(&list->tensors[t]);

        for (int64_t at = 0; at < count; at += CHUNK) {
            const int64_t n = count - at < CHUNK ? count - at : CHUNK;

            fill(a, t, at, n, list->chunk);
            BASE_TRY_GOTO(
                data_safetensors_append(writer, list->chunk, n * (int64_t)sizeof *list->chunk), st,
                err_discard);
        }
    }
    return data_safetensors_commit(writer);
err_discard:
    data_safetensors_discard(writer);
    return st;
}

/* ==== comparing ==== */

static base_status_t differ(base_ctx_t *ctx, const char *path, const char *what, const char *name)
{
    return BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_DATA_49, "%s: %s \"%s\" is not what was exported",
                     path, what, name);
}

static base_status_t compare_tensor(const tensor_list_t *list, const data_safetensors_t *file,
                                    const lora_export_t *a, int64_t index)
{
    const data_safetensors_tensor_t *t = &list->tensors[index];
    const data_safetensors_entry_t *entry = data_safetensors_find(file, t->name);
    const char *const path = data_safetensors_path(file);
    const int64_t count = num_elements(t), size = (int64_t)sizeof *list->chunk;

    if (entry == NULL) return differ(list->ctx, path, "missing tensor", t->name);
    if (entry->dtype != t->dtype || entry->rank != t->rank || entry->shape[0] != t->shape[0] ||
        entry->shape[1] != t->shape[1])
        return differ(list->ctx, path, "shape or dtype of tensor", t->name);
    for (int64_t at = 0; at < count; at += CHUNK) {
        const int64_t n = count - at < CHUNK ? count - at : CHUNK;

        BASE_TRY(data_safetensors_read(file, entry, at * size, n * size, list->found));
        fill(a, index, at, n, list->chunk);
        if (memcmp(list->found, list->chunk, (size_t)(n * size)) != 0)
            return differ(list->ctx, path, "content of tensor", t->name);
    }
    return BASE_OK;
}

static base_status_t compare_weights(const tensor_list_t *list, const char *path,
                                     const lora_export_t *a)
{
    data_safetensors_t *file;
    base_status_t st = BASE_OK;

    BASE_TRY(data_safetensors_open(list->ctx, path, NULL, &file));
    if (data_safetensors_count(file) != list->count)
        st = BASE_FAIL(list->ctx, BASE_ERR_IO, BASE_MSG_DATA_49,
                       "%s: %" PRId64 " tensors, %" PRId64 " were exported", path,
                       data_safetensors_count(file), list->count);
    for (int64_t i = 0; st >= 0 && i < list->count; i++)
        st = compare_tensor(list, file, a, i);
    data_safetensors_close(file);
    return st;
}

static base_status_t compare_config(base_ctx_t *ctx, const char *path, const lora_export_t *a)
{
    const lora_peft_words_t words = words_of(a);
    base_error_list_t errors;
    lora_peft_config_t config;
    base_status_t st;

    base_error_list_init(&errors, ctx);
    st = lora_peft_config_read(ctx, path, &errors, &config);
    if (st >= 0 && (config.rank != words.rank || config.alpha != words.alpha ||
                    config.rslora != words.rslora || config.dropout != words.dropout ||
                    config.num_ranks > 0 || config.num_alphas > 0))
        st = differ(ctx, path, "a number of", "adapter_config.json");
    for (int64_t i = 0; st >= 0 && i < a->layout->num_modules; i++) {
        char name[DATA_MODEL_NAME_BYTES];

        lora_module_name(a->layout->modules[i].layer, a->layout->modules[i].target, name);
        if (!lora_peft_config_has_target(&config, name))
            st = differ(ctx, path, "\"target_modules\" without", name);
    }
    if (st == BASE_ERR_FORMAT && errors.count > 0) st = data_errors_finish(&errors);
    lora_peft_config_deinit(&config);
    base_error_list_deinit(&errors);
    return st;
}

/* ==== the folder ==== */

typedef struct paths {
    char *weights, *config, *readme;
} paths_t;

static void paths_destroy(base_ctx_t *ctx, paths_t *p)
{
    base_free(ctx, p->readme);
    base_free(ctx, p->config);
    base_free(ctx, p->weights);
}

static base_status_t paths_create(base_ctx_t *ctx, const char *folder, paths_t *p)
{
    p->weights = data_hf_shards_path(ctx, folder, LORA_FOLDER_WEIGHTS);
    p->config = data_hf_shards_path(ctx, folder, LORA_FOLDER_CONFIG);
    p->readme = data_hf_shards_path(ctx, folder, LORA_FOLDER_README);
    return p->weights == NULL || p->config == NULL || p->readme == NULL ? BASE_ERR_NOMEM : BASE_OK;
}

base_status_t lora_export_compare(base_ctx_t *ctx, const char *dir, const lora_export_t *a)
{
    tensor_list_t list;
    paths_t paths;
    base_status_t st;

    st = list_create(ctx, a, &list);
    if (paths_create(ctx, dir, &paths) < 0) st = BASE_ERR_NOMEM;
    if (st >= 0) st = compare_weights(&list, paths.weights, a);
    if (st >= 0) st = compare_config(ctx, paths.config, a);
    paths_destroy(ctx, &paths);
    list_destroy(&list);
    return st;
}

static base_status_t write_folder(base_ctx_t *ctx, const lora_folder_t *folder,
                                  const lora_export_t *a)
{
    const lora_peft_words_t words = words_of(a);
    tensor_list_t list;
    paths_t paths;
    base_status_t st;

    st = list_create(ctx, a, &list);
    if (paths_create(ctx, folder->temporary, &paths) < 0) st = BASE_ERR_NOMEM;
    if (st >= 0) st = write_weights(&list, paths.weights, a);
    if (st >= 0) st = lora_peft_config_write(ctx, paths.config, &words);
    if (st >= 0) st = lora_export_readme(ctx, paths.readme, folder->dir, a);
    paths_destroy(ctx, &paths);
    list_destroy(&list);
    return st;
}

base_status_t lora_export_peft(base_ctx_t *ctx, const char *dir, const lora_export_t *a)
{
    lora_folder_t folder;
    base_status_t st;

    BASE_TRY(check_base(ctx, a));
    BASE_TRY(lora_export_check_finite(ctx, dir, a));
    BASE_TRY(lora_folder_begin(ctx, dir, &folder));
    BASE_TRY_GOTO(write_folder(ctx, &folder, a), st, err_discard);
    BASE_TRY_GOTO(lora_export_compare(ctx, folder.temporary, a), st, err_discard);
    return lora_folder_commit(&folder);
err_discard:
    lora_folder_discard(&folder);
    return st;
}
