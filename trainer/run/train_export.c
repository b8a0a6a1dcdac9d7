#include "trainer/run/train_export.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/safetensors_write.h"
#include "lora/adapter_folder.h"
#include "lora/export_peft.h"
#include "trainer/model/hf_weights.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ==== adapters ==== */

static base_status_t write_adapter(tr_train_t *train, const tr_inputs_t *in, int32_t j,
                                   const char *dir, double *values)
{
    const lora_layout_t *layout = train->trainer->adapters->adapters[j].layout;
    const base_config_adapter_t *c = in->configs[j];
    float *single = (float *)values; /* in place: each float lies below the double it comes from */

    BASE_TRY(tr_train_values(train, j, values));
    for (int64_t i = 0; i < layout->count; i++) {
        const float value = (float)values[i];
        memcpy(&single[i], &value, sizeof value);
    }
    const lora_export_t adapter = {.name = c->name,
                                   .layout = layout,
                                   .values = single,
                                   .alpha = c->alpha,
                                   .dropout = c->dropout,
                                   .rslora = c->rslora,
                                   .base_model = in->config->model,
                                   .base = in->folder};
    return lora_export_peft(in->ctx, dir, &adapter);
}

base_status_t tr_train_export_adapter(tr_train_t *train, const tr_inputs_t *inputs, int32_t job,
                                      const tr_run_folder_t *folder)
{
    const int64_t count = train->trainer->adapter_count[job];
    char *dir = NULL;
    base_status_t st;

    double *values = base_calloc(inputs->ctx, count, sizeof *values, "exported adapter");
    if (values == NULL) return BASE_ERR_NOMEM;
    st = tr_run_folder_adapter(folder, inputs->jobs[job]->name, &dir);
    if (st >= 0) st = write_adapter(train, inputs, job, dir, values);
    base_free(inputs->ctx, dir);
    base_free(inputs->ctx, values);
    return st;
}

bool tr_train_exported(const tr_inputs_t *inputs, int32_t job, const tr_run_folder_t *folder)
{
    const bool full = inputs->config->train.mode == BASE_CONFIG_MODE_FULL;
    char path[PATH_MAX];

    const int length =
        full ? snprintf(path, sizeof path, "%s/config.json",
                        tr_run_folder_path(folder, TR_RUN_MODEL))
             : snprintf(path, sizeof path, "%s/%s/adapter_config.json",
                        tr_run_folder_path(folder, TR_RUN_ADAPTERS), inputs->jobs[job]->name);
    return length < (int)sizeof path && base_file_kind(path) == BASE_FILE_REGULAR;
}

base_status_t tr_train_put_aside(base_ctx_t *ctx, const char *path, const char *suffix)
{
    const size_t bytes = strlen(path) + strlen(suffix) + 1;
    base_status_t st;

    if (base_file_kind(path) == BASE_FILE_NONE) return BASE_OK;
    char *aside = base_alloc(ctx, bytes, "exported earlier");
    if (aside == NULL) return BASE_ERR_NOMEM;
    (void)snprintf(aside, bytes, "%s%s", path, suffix);
    st = base_file_remove_folder(ctx, aside);
    if (st >= 0) st = base_file_rename(ctx, path, aside);
    base_free(ctx, aside);
    return st;
}

base_status_t tr_train_outdate_adapter(const tr_inputs_t *inputs, int32_t job,
                                       const tr_run_folder_t *folder)
{
    char *dir = NULL;

    if (!tr_train_exported(inputs, job, folder)) return BASE_OK;
    BASE_TRY(tr_run_folder_adapter(folder, inputs->jobs[job]->name, &dir));
    const base_status_t st = tr_train_put_aside(inputs->ctx, dir, "~before");
    base_free(inputs->ctx, dir);
    return st;
}

/* ==== gradients ==== */

#define NAME_BYTES LORA_TENSOR_NAME_BYTES

/* "dir/grad.safetensors" and "code" give "dir/grad.code.safetensors". */
static char *path_of(const tr_inputs_t *in, int32_t j, const char *path)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    const size_t bytes = strlen(path) + strlen(in->jobs[j]->name) + 2;

    if (in->num_jobs == 1) return base_strdup(in->ctx, path, "path of gradients");
    if (dot == NULL || (slash != NULL && dot < slash)) dot = path + strlen(path);
    char *full = base_alloc(in->ctx, bytes, "path of gradients");
    if (full != NULL)
        (void)snprintf(full, bytes, "%.*s.%s%s", (int)(dot - path), path, in->jobs[j]->name, dot);
    return full;
}

typedef struct dump {
    int64_t count;
    char (*names)[NAME_BYTES];
    data_safetensors_tensor_t *tensors;
    const void **data;
    float *values;
} dump_t;

static base_status_t dump_create(base_ctx_t *ctx, int64_t tensors, int64_t values, dump_t *d)
{
    *d = (dump_t){.names = base_calloc(ctx, tensors, sizeof *d->names, "gradients"),
                  .tensors = base_calloc(ctx, tensors, sizeof *d->tensors, "gradients"),
                  .data = base_calloc(ctx, tensors, sizeof *d->data, "gradients"),
                  .values = base_calloc(ctx, values, sizeof *d->values, "gradients")};
    return d->names == NULL || d->tensors == NULL || d->data == NULL || d->values == NULL
               ? BASE_ERR_NOMEM
               : BASE_OK;
}

static void dump_destroy(base_ctx_t *ctx, dump_t *d)
{
    base_free(ctx, d->values);
    base_free(ctx, d->data);
    base_free(ctx, d->tensors);
    base_free(ctx, d->names);
}

static void dump_add(dump_t *d, int32_t rank, int64_t rows, int64_t cols, const float *values)
{
    d->tensors[d->count] = (data_safetensors_tensor_t){.name = d->names[d->count],
                                                       .dtype = DATA_F32,
                                                       .rank = rank,
                                                       .shape = {rank == 1 ? cols : rows, cols}};
    d->data[d->count++] = values;
}

static void add_modules(const lora_layout_t *layout, dump_t *d)
{
    for (int64_t m = 0; m < layout->num_modules; m++) {
        const lora_module_t *module = &layout->modules[m];

        lora_tensor_name(module->layer, module->target, false, d->names[d->count]);
        dump_add(d, 2, layout->rank, module->in, d->values + module->a);
        lora_tensor_name(module->layer, module->target, true, d->names[d->count]);
        dump_add(d, 2, module->out, layout->rank, d->values + module->b);
    }
}

static void to_single(float *out, const double *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)values[i];
}

static base_status_t dump_adapter(tr_trainer_t *t, const tr_inputs_t *in, int32_t j,
                                  const char *path)
{
    const lora_layout_t *layout = t->adapters->adapters[j].layout;
    base_status_t st;
    dump_t d;

    double *values = base_calloc(in->ctx, layout->count, sizeof *values, "gradients");
    st = dump_create(in->ctx, 2 * layout->num_modules, layout->count, &d);
    if (values == NULL) st = BASE_ERR_NOMEM;
    if (st >= 0) st = tr_gradients_read_adapter(t, j, values);
    if (st >= 0) {
        to_single(d.values, values, layout->count);
        add_modules(layout, &d);
        st = data_safetensors_write(in->ctx, path, d.tensors, d.data, d.count);
    }
    dump_destroy(in->ctx, &d);
    base_free(in->ctx, values);
    return st;
}

/* A tensor's part of its fused weight's gradient. */
static base_status_t add_tensor(tr_trainer_t *t, const data_model_tensor_t *tensor, double *values,
                                float *to, dump_t *d)
{
    const tr_hf_place_t place = tr_hf_place(t->model, tensor->kind);
    const int32_t index = tr_model_weight(t->model, place.kind, tensor->layer);
    const int64_t cols = tensor->rank == 1 ? 1 : tensor->shape[1];

    BASE_TRY(tr_gradients_read(t, index, values));
    to_single(to, values + place.row * cols, place.rows * cols);
    (void)snprintf(d->names[d->count], NAME_BYTES, "%s", tensor->name);
    dump_add(d, tensor->rank, tensor->shape[0], tensor->rank == 1 ? tensor->shape[0] : cols, to);
    return BASE_OK;
}

static base_status_t dump_model(tr_trainer_t *t, const tr_inputs_t *in, const char *path)
{
    const int64_t tensors = data_model_spec_num_tensors(in->spec);
    float *to;
    base_status_t st;
    dump_t d;

    double *values =
        base_calloc(in->ctx, tr_model_largest_weight(t->model), sizeof *values, "gradients");
    st = dump_create(in->ctx, tensors, data_model_spec_parameters(in->spec), &d);
    if (values == NULL) st = BASE_ERR_NOMEM;
    to = d.values;
    for (int64_t i = 0; i < tensors && st >= 0; i++) {
        data_model_tensor_t tensor;

        data_model_spec_tensor(in->spec, i, &tensor);
        st = add_tensor(t, &tensor, values, to, &d);
        to += tensor.shape[0] * (tensor.rank == 1 ? 1 : tensor.shape[1]);
    }
    if (st >= 0) st = data_safetensors_write(in->ctx, path, d.tensors, d.data, d.count);
    dump_destroy(in->ctx, &d);
    base_free(in->ctx, values);
    return st;
}

base_status_t tr_train_dump_gradients(tr_trainer_t *trainer, const tr_inputs_t *inputs, int32_t job,
                                      const char *path)
{
    base_status_t st;

    char *full = path_of(inputs, job, path);
    if (full == NULL) return BASE_ERR_NOMEM;
    if (trainer->adapters == NULL)
        st = dump_model(trainer, inputs, full);
    else
        st = dump_adapter(trainer, inputs, job, full);
    base_free(inputs->ctx, full);
    return st;
}

base_status_t tr_train_check_dump(base_ctx_t *ctx, const char *path)
{
    const char *slash = strrchr(path, '/');
    const size_t bytes = slash == NULL ? 0 : (size_t)(slash - path);
    char *folder = base_strdup(ctx, bytes == 0 ? (slash == NULL ? "." : "/") : path, "path");
    base_status_t st = BASE_OK;

    if (folder == NULL) return BASE_ERR_NOMEM;
    if (bytes > 0) folder[bytes] = '\0';
    errno = ENOTDIR;
    if (access(folder, W_OK | X_OK) != 0 || base_file_kind(folder) != BASE_FILE_FOLDER)
        st = BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_IO_02, "--dump-gradients: %s: cannot create: %s",
                       path, strerror(errno));
    base_free(ctx, folder);
    return st;
}
