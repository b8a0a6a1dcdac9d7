#include "trainer/run/score_inputs.h"

#include "base/memory.h"
#include "data/json_read.h"

#include <string.h>

/* Faults that are in the list already end nothing. Those of the file system, which are recorded at
 * once, join the list: their text begins with the place, as a list's does. */
static base_status_t gather(base_error_list_t *errors, base_ctx_t *ctx, base_status_t st)
{
    base_error_t error;

    if (st != BASE_ERR_FORMAT && st != BASE_ERR_IO && st != BASE_ERR_CONFIG) return st;
    if (!base_ctx_error(ctx, &error)) return BASE_OK;
    char *rest = strstr(error.text, ": ");
    if (rest == NULL) return st;
    *rest = '\0';
    DATA_ERROR(errors, error.message, error.text, "%s", rest + 2);
    base_ctx_clear_error(ctx);
    return BASE_OK;
}

static base_status_t open_adapter(tr_score_inputs_t *in, const char *dir, base_error_list_t *errors)
{
    BASE_TRY(gather(errors, in->ctx,
                    lora_adapter_verify(in->ctx, dir, in->folder, errors, &in->verified)));
    if (in->verified == NULL) return BASE_OK;
    return lora_peft_open(in->ctx, dir, data_hf_folder_spec(in->folder), NULL, &in->adapter);
}

static base_status_t match(tr_score_inputs_t *in, const char *model, base_error_list_t *errors)
{
    char sha256[BASE_SHA256_HEX_BYTES];

    BASE_TRY(data_dataset_tokenizer_sha256(in->ctx, model, sha256));
    if (in->dataset == NULL) return BASE_OK;
    return data_dataset_match(in->dataset, sha256, data_hf_folder_spec(in->folder)->vocab, errors);
}

static base_status_t open_all(tr_score_inputs_t *in, const tr_score_sources_t *s,
                              base_error_list_t *errors)
{
    base_ctx_t *ctx = in->ctx;

    BASE_TRY(gather(errors, ctx, data_hf_folder_open(ctx, s->model, errors, &in->folder)));
    if (s->data != NULL)
        BASE_TRY(gather(errors, ctx, data_dataset_open(ctx, s->data, errors, &in->dataset)));
    if (s->adapter != NULL && in->folder != NULL) BASE_TRY(open_adapter(in, s->adapter, errors));
    if (s->data != NULL && in->folder != NULL)
        BASE_TRY(gather(errors, ctx, match(in, s->model, errors)));
    return data_errors_finish(errors);
}

base_status_t tr_score_inputs_open(base_ctx_t *ctx, const tr_score_sources_t *sources, FILE *err,
                                   bool *reported, tr_score_inputs_t **inputs_p)
{
    base_error_list_t errors;

    tr_score_inputs_t *in = base_calloc(ctx, 1, sizeof *in, "inputs");
    if (in == NULL) return BASE_ERR_NOMEM;
    in->ctx = ctx;
    base_error_list_init(&errors, ctx);
    const base_status_t st = open_all(in, sources, &errors);
    if (st < 0 && errors.count > 1) {
        base_error_list_print(&errors, err);
        *reported = true;
    }
    base_error_list_deinit(&errors);
    if (st < 0) {
        tr_score_inputs_close(in);
        return st;
    }
    *inputs_p = in;
    return BASE_OK;
}

void tr_score_inputs_close(tr_score_inputs_t *inputs)
{
    if (inputs == NULL) return;
    data_dataset_close(inputs->dataset);
    lora_verify_destroy(inputs->verified);
    lora_peft_close(inputs->adapter);
    data_hf_folder_close(inputs->folder);
    base_free(inputs->ctx, inputs);
}
