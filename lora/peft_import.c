#include "lora/peft_import.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"
#include "data/hf_shards.h"
#include "data/json_read.h"
#include "lora/adapter_folder.h"
#include "lora/peft_config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SHAPE_BYTES 200

struct lora_peft {
    base_ctx_t *ctx;
    lora_peft_config_t config;
    data_safetensors_t *file;
    lora_peft_info_t info;
    int64_t num_modules;
    lora_peft_module_t *modules; /* room for all linears of the base */
};

/* What opening needs besides. */
typedef struct reader {
    lora_peft_t *peft;
    const data_model_spec_t *spec;
    base_error_list_t *errors;
    const char *config_path;
} reader_t;

const char *lora_targets_text(uint32_t targets, char *text, size_t bytes)
{
    size_t used = 0;

    text[0] = '\0';
    for (int32_t t = 0; t < LORA_NUM_TARGETS && used < bytes; t++) {
        if ((targets & (1u << t)) == 0) continue;
        used += (size_t)snprintf(text + used, bytes - used, "%s%s", used > 0 ? ", " : "",
                                 lora_target_name(t));
    }
    return text;
}

/* ==== names ==== */

/* Takes PREFIX and SUFFIX off a name; false: it has not both. */
static bool strip(const char *name, const char *suffix, char *module)
{
    const size_t head = strlen(LORA_TENSOR_PREFIX);

    if (strncmp(name, LORA_TENSOR_PREFIX, head) != 0 || !base_text_ends_in(name + head, suffix))
        return false;
    const size_t length = strlen(name + head) - strlen(suffix);
    if (length >= DATA_MODEL_NAME_BYTES - 8) return false;
    memcpy(module, name + head, length);
    module[length] = '\0';
    return true;
}

static bool target_of(data_model_tensor_kind_t kind, int32_t *target)
{
    for (*target = 0; *target < LORA_NUM_TARGETS; ++*target)
        if (lora_target_tensor(*target) == kind) return true;
    return false;
}

/* What PEFT calls what it is. */
static const char *why_not(const char *name)
{
    if (strncmp(name, LORA_TENSOR_PREFIX, strlen(LORA_TENSOR_PREFIX)) != 0)
        return "does not begin with \"" LORA_TENSOR_PREFIX "\", so that PEFT would not find it";
    if (strstr(name, "lora_magnitude_vector") != NULL) return "is of DoRA, which is not supported";
    if (strstr(name, "lora_embedding_") != NULL)
        return "is an adapter of the embedding, which is not supported";
    if (strstr(name, ".bias") != NULL) return "is a bias, which adapters here do not have";
    if (strstr(name, ".lora_") == NULL)
        return "is a weight of the base (modules_to_save), which is not supported";
    return "is neither \"..." LORA_TENSOR_A_SUFFIX "\" nor \"..." LORA_TENSOR_B_SUFFIX "\"";
}

static void take_tensor(reader_t *r, const data_safetensors_entry_t *entry)
{
    char module[DATA_MODEL_NAME_BYTES], weight[DATA_MODEL_NAME_BYTES + 8];
    const char *const path = lora_peft_path(r->peft);
    const bool is_b = strip(entry->name, LORA_TENSOR_B_SUFFIX, module);
    data_model_tensor_t tensor;
    int64_t index;
    int32_t target;
    lora_peft_module_t *m;

    if (!is_b && !strip(entry->name, LORA_TENSOR_A_SUFFIX, module)) {
        DATA_ERROR(r->errors, BASE_MSG_DATA_44, path, "tensor \"%.200s\" %s", entry->name,
                   why_not(entry->name));
        return;
    }
    (void)snprintf(weight, sizeof weight, "%s.weight", module);
    index = data_model_spec_find(r->spec, weight);
    if (index >= 0) data_model_spec_tensor(r->spec, index, &tensor);
    if (index < 0 || !target_of(tensor.kind, &target)) {
        DATA_ERROR(r->errors, BASE_MSG_DATA_44, path,
                   "tensor \"%.200s\": the base has no linear layer \"%s\" within its %" PRId32
                   " layers",
                   entry->name, module, r->spec->num_layers);
        return;
    }
    if (!lora_peft_config_has_target(&r->peft->config, module))
        DATA_ERROR(r->errors, BASE_MSG_DATA_44, path,
                   "tensor \"%.200s\": \"target_modules\" of " LORA_FOLDER_CONFIG
                   " leaves its module out",
                   entry->name);
    m = &r->peft->modules[(int64_t)tensor.layer * LORA_NUM_TARGETS + target];
    if (is_b)
        m->b = entry;
    else
        m->a = entry;
}

/* ==== modules ==== */

static void check_entry(reader_t *r, const data_safetensors_entry_t *entry, int64_t rows,
                        int64_t columns, int64_t rank)
{
    const int64_t shape[] = {rows, columns};
    const char *const path = lora_peft_path(r->peft);
    char found[SHAPE_BYTES], wanted[SHAPE_BYTES];

    if (entry->rank != 2 || entry->shape[0] != rows || entry->shape[1] != columns)
        DATA_ERROR(r->errors, BASE_MSG_DATA_45, path,
                   "tensor \"%s\" has shape %s, the base and rank %" PRId64 " give %s", entry->name,
                   data_safetensors_shape_text(entry->rank, entry->shape, found, sizeof found),
                   rank, data_safetensors_shape_text(2, shape, wanted, sizeof wanted));
    if (!data_dtype_is_float(entry->dtype))
        DATA_ERROR(r->errors, BASE_MSG_DATA_45, path,
                   "tensor \"%s\" is %s; F16, BF16, F32 and F64 are supported", entry->name,
                   data_dtype_name(entry->dtype));
}

/* A module of the base of which the adapter has a tensor. */
static void check_module(reader_t *r, lora_peft_module_t *m)
{
    lora_peft_info_t *info = &r->peft->info;
    char name[DATA_MODEL_NAME_BYTES], missing[LORA_TENSOR_NAME_BYTES];

    lora_module_name(m->layer, m->target, name);
    m->rank = lora_peft_config_rank(&r->peft->config, name);
    m->scale = lora_peft_config_scale(&r->peft->config, name);
    if (m->rank > info->rank) info->rank = (int32_t)m->rank;
    if (m->a == NULL || m->b == NULL) {
        lora_tensor_name(m->layer, m->target, m->b == NULL, missing);
        DATA_ERROR(r->errors, BASE_MSG_DATA_43, lora_peft_path(r->peft),
                   "tensor \"%s\" is missing, its other half is there", missing);
    }
    if (m->a != NULL) check_entry(r, m->a, m->rank, m->in, m->rank);
    if (m->b != NULL) check_entry(r, m->b, m->out, m->rank, m->rank);
    info->parameters += m->rank * (m->in + m->out);
}

/* Each layer has to have the modules that any layer has. */
static void check_layers(reader_t *r)
{
    const lora_peft_t *peft = r->peft;
    char name[DATA_MODEL_NAME_BYTES];

    for (int64_t i = 0; i < (int64_t)r->spec->num_layers * LORA_NUM_TARGETS; i++) {
        const lora_peft_module_t *m = &peft->modules[i];

        if (m->a != NULL || m->b != NULL || (peft->info.targets & (1u << m->target)) == 0) continue;
        lora_module_name(m->layer, m->target, name);
        DATA_ERROR(r->errors, BASE_MSG_DATA_43, lora_peft_path(peft),
                   "no tensor of \"%s\", although other layers have an adapter on %s", name,
                   lora_target_name(m->target));
    }
}

static base_status_t take_modules(reader_t *r)
{
    lora_peft_t *peft = r->peft;
    const int64_t room = (int64_t)r->spec->num_layers * LORA_NUM_TARGETS;

    peft->modules = base_calloc(peft->ctx, room, sizeof *peft->modules, "modules of an adapter");
    if (peft->modules == NULL) return BASE_ERR_NOMEM;
    for (int64_t i = 0; i < data_safetensors_count(peft->file); i++)
        take_tensor(r, data_safetensors_entry(peft->file, i));
    for (int64_t i = 0; i < room; i++) {
        lora_peft_module_t *m = &peft->modules[i];

        m->layer = (int32_t)(i / LORA_NUM_TARGETS);
        m->target = (int32_t)(i % LORA_NUM_TARGETS);
        lora_target_shape(r->spec, m->target, &m->in, &m->out);
        if (m->a == NULL && m->b == NULL) continue;
        peft->info.targets |= 1u << m->target;
        check_module(r, m);
    }
    if (data_safetensors_count(peft->file) == 0)
        DATA_ERROR(r->errors, BASE_MSG_DATA_43, lora_peft_path(peft),
                   "holds no tensor: the adapter was saved empty");
    check_layers(r);
    for (int64_t i = 0; i < room; i++) /* close the gaps */
        if (peft->modules[i].a != NULL) peft->modules[peft->num_modules++] = peft->modules[i];
    return BASE_OK;
}

static void fill_info(lora_peft_t *peft)
{
    const lora_peft_config_t *config = &peft->config;
    lora_peft_info_t *info = &peft->info;

    info->alpha = config->alpha;
    info->dropout = config->dropout;
    info->rslora = config->rslora;
    info->scale = lora_scale(config->alpha, config->rank, config->rslora);
    info->base_model = config->base_model;
    for (int64_t i = 0; i < peft->num_modules; i++)
        if (peft->modules[i].rank != info->rank || peft->modules[i].scale != info->scale)
            info->patterns = true;
}

/* ==== open and close ==== */

/* Reports what is missing; true: both files are there. */
static bool looks_like_adapter(const char *dir, const char *config, const char *weights,
                               const char *pickle, const char *model, base_error_list_t *errors)
{
    if (base_file_kind(dir) != BASE_FILE_FOLDER)
        DATA_ERROR(errors, BASE_MSG_DATA_40, dir, "%s",
                   base_file_kind(dir) == BASE_FILE_NONE ? "there is no such folder"
                                                         : "is a file, not a folder");
    else if (base_file_kind(config) == BASE_FILE_NONE)
        DATA_ERROR(errors, BASE_MSG_DATA_40, dir, "%s",
                   base_file_kind(model) != BASE_FILE_NONE ? "is a model, an adapter is wanted"
                                                           : "has no " LORA_FOLDER_CONFIG);
    else if (base_file_kind(weights) != BASE_FILE_NONE)
        return true;
    else if (base_file_kind(pickle) != BASE_FILE_NONE)
        DATA_ERROR(errors, BASE_MSG_DATA_41, dir,
                   "has only " LORA_FOLDER_PICKLE ", a pickle, which can run code when it is read");
    else
        DATA_ERROR(errors, BASE_MSG_DATA_40, dir, "has no " LORA_FOLDER_WEIGHTS);
    return false;
}

/* A fault that went to the list does not end the reading; one that was recorded at once does. */
static base_status_t go_on(const reader_t *r, base_status_t st, size_t before, bool *good)
{
    *good = st >= 0;
    return st == BASE_ERR_FORMAT && r->errors->count > before ? BASE_OK : st;
}

static base_status_t open_files(reader_t *r, const char *weights)
{
    lora_peft_t *peft = r->peft;
    const size_t before = r->errors->count;
    bool config_good, weights_good;
    size_t between;

    BASE_TRY(go_on(r, lora_peft_config_read(peft->ctx, r->config_path, r->errors, &peft->config),
                   before, &config_good));
    between = r->errors->count;
    BASE_TRY(go_on(r, data_safetensors_open(peft->ctx, weights, r->errors, &peft->file), between,
                   &weights_good));
    if (!config_good || !weights_good) return BASE_OK;
    BASE_TRY(take_modules(r));
    fill_info(peft);
    return BASE_OK;
}

static base_status_t open_all(reader_t *r, const char *dir)
{
    base_ctx_t *ctx = r->peft->ctx;
    char *const config = data_hf_shards_path(ctx, dir, LORA_FOLDER_CONFIG);
    char *const weights = data_hf_shards_path(ctx, dir, LORA_FOLDER_WEIGHTS);
    char *const pickle = data_hf_shards_path(ctx, dir, LORA_FOLDER_PICKLE);
    char *const model = data_hf_shards_path(ctx, dir, "config.json");
    base_status_t st = BASE_ERR_NOMEM;

    r->config_path = config;
    if (config != NULL && weights != NULL && pickle != NULL && model != NULL)
        st = looks_like_adapter(dir, config, weights, pickle, model, r->errors)
                 ? open_files(r, weights)
                 : BASE_OK;
    base_free(ctx, model);
    base_free(ctx, pickle);
    base_free(ctx, weights);
    base_free(ctx, config);
    return st;
}

base_status_t lora_peft_open(base_ctx_t *ctx, const char *dir, const data_model_spec_t *spec,
                             base_error_list_t *errors, lora_peft_t **peft_p)
{
    base_error_list_t own, *list = errors != NULL ? errors : &own;
    const size_t before = errors != NULL ? errors->count : 0;
    lora_peft_t *peft = base_calloc(ctx, 1, sizeof *peft, dir);
    reader_t r = {.peft = peft, .spec = spec, .errors = list};
    base_status_t st;

    if (peft == NULL) return BASE_ERR_NOMEM;
    peft->ctx = ctx;
    base_text_pool_init(&peft->config.pool, ctx);
    base_error_list_init(&own, ctx);
    st = open_all(&r, dir);
    if (st >= 0 && list->pool.failed) st = BASE_ERR_NOMEM;
    if (st >= 0 && list->count > before)
        st = errors != NULL ? BASE_ERR_FORMAT : data_errors_finish(&own);
    base_error_list_deinit(&own);
    if (st < 0) {
        lora_peft_close(peft);
        return st;
    }
    *peft_p = peft;
    return BASE_OK;
}

void lora_peft_close(lora_peft_t *peft)
{
    if (peft == NULL) return;
    base_free(peft->ctx, peft->modules);
    data_safetensors_close(peft->file);
    lora_peft_config_deinit(&peft->config);
    base_free(peft->ctx, peft);
}

base_ctx_t *lora_peft_ctx(const lora_peft_t *peft)
{
    return peft->ctx;
}

const data_safetensors_t *lora_peft_file(const lora_peft_t *peft)
{
    return peft->file;
}

const char *lora_peft_path(const lora_peft_t *peft)
{
    return data_safetensors_path(peft->file);
}

const lora_peft_info_t *lora_peft_info(const lora_peft_t *peft)
{
    return &peft->info;
}

int64_t lora_peft_num_modules(const lora_peft_t *peft)
{
    return peft->num_modules;
}

const lora_peft_module_t *lora_peft_module(const lora_peft_t *peft, int64_t index)
{
    return &peft->modules[index];
}
