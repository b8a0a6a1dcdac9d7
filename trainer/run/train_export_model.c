/* The model itself as a Hugging Face folder, out of the fused weights. */
#include "base/file.h"
#include "base/memory.h"
#include "data/hf_write.h"
#include "trainer/model/hf_weights.h"
#include "trainer/run/train_export.h"

#include <stdio.h>
#include <string.h>

typedef struct source {
    const tr_trainer_t *trainer;
} source_t;

static base_status_t read_rows(void *arg, int64_t index, const data_model_tensor_t *tensor,
                               int64_t row, int64_t num_rows, float *to)
{
    const source_t *s = arg;
    const int64_t count = num_rows * (tensor->rank == 1 ? 1 : tensor->shape[1]);
    base_ctx_t *ctx = s->trainer->ctx;

    (void)index;
    double *values = base_calloc(ctx, count, sizeof *values, "exported model");
    if (values == NULL) return BASE_ERR_NOMEM;
    const base_status_t st =
        tr_hf_weights_read(s->trainer->weights, tensor, row, num_rows, s->trainer->stream, values);
    for (int64_t i = 0; i < count && st >= 0; i++)
        to[i] = (float)values[i];
    base_free(ctx, values);
    return st;
}

base_status_t tr_train_export_model(tr_trainer_t *trainer, const tr_inputs_t *inputs,
                                    const tr_run_folder_t *folder)
{
    source_t source = {.trainer = trainer};
    const char *base = inputs->config->model;
    const size_t bytes = strlen(base) + sizeof "/config.json";

    BASE_TRY(tr_train_put_aside(inputs->ctx, tr_run_folder_path(folder, TR_RUN_MODEL), ".before"));
    char *config = base_alloc(inputs->ctx, bytes, "exported model");
    if (config == NULL) return BASE_ERR_NOMEM;
    (void)snprintf(config, bytes, "%s/config.json", base);
    const data_hf_write_options_t options = {
        .dtype = DATA_F32, .files_from = base, .config_from = config};
    const base_status_t st = data_hf_write(inputs->ctx, tr_run_folder_path(folder, TR_RUN_MODEL),
                                           inputs->spec, &options, read_rows, &source);
    base_free(inputs->ctx, config);
    return st;
}
