#include "trainer/run/inputs.h"

#include "base/memory.h"
#include "data/json_read.h"
#include "lora/peft_import.h"
#include "trainer/run/prepared.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static base_status_t open_model(tr_inputs_t *in, base_error_list_t *errors)
{
    const char *path = in->config->model;
    uint64_t hash;

    const base_status_t st = data_hf_folder_open(in->ctx, path, errors, &in->folder);
    if (st == BASE_ERR_FORMAT) return BASE_OK; /* in the list */
    BASE_TRY(st);
    in->spec = data_hf_folder_spec(in->folder);
    BASE_TRY(data_hf_folder_hash(in->folder, &hash));
    (void)snprintf(in->model_hash, sizeof in->model_hash, "%016" PRIx64, hash);
    return data_dataset_tokenizer_sha256(in->ctx, path, in->tokenizer_sha256);
}

/* Without a model there is nothing to compare it with. */
static base_status_t read_profile(tr_inputs_t *in, base_error_list_t *errors)
{
    const char *path = in->config->attention.cost_profile;
    const base_error_place_t place = {.source = path};

    if (path == NULL || in->spec == NULL) return BASE_OK;
    in->profile = base_calloc(in->ctx, 1, sizeof *in->profile, "attention profile");
    if (in->profile == NULL) return BASE_ERR_NOMEM;
    const base_status_t st = as_profile_read(in->ctx, path, errors, in->profile);
    if (st < 0) return st == BASE_ERR_FORMAT ? BASE_OK : st;
    const int32_t group = in->spec->num_q_heads / in->spec->num_kv_heads;
    if (in->profile->group != group || in->profile->head_dim != in->spec->head_dim)
        base_error_list_add(errors, BASE_MSG_CONF_04, place,
                            "attention.cost_profile: made for %" PRId32 " query heads of %" PRId32
                            " lanes for each KV head, the model has %" PRId32 " of %" PRId32,
                            in->profile->group, in->profile->head_dim, group, in->spec->head_dim);
    return BASE_OK;
}

/* Path of a set that is ready; NULL with the fault in `errors`, or when the job names none. */
static base_status_t find_set(tr_inputs_t *in, int32_t j, tr_prepared_set_t set,
                              const char *prepare_words, base_error_list_t *errors, char **path_p)
{
    *path_p = NULL;
    if (tr_prepared_source(in->configs[j], set) == NULL) return BASE_OK;
    const base_status_t st =
        tr_prepared_check(in->ctx, in->config, in->configs[j], set, prepare_words, errors, path_p);
    /* Without a model its tokenizer is missing too: the list says more. */
    if (in->spec != NULL || (st != BASE_ERR_IO && st != BASE_ERR_FORMAT)) return st;
    base_ctx_clear_error(in->ctx);
    return BASE_OK;
}

static void note_dataset(tr_inputs_t *in, int32_t j, const char *use, const data_dataset_t *data)
{
    const data_dataset_attributes_t *a = data_dataset_attributes(data);

    in->datasets[in->num_datasets++] =
        (tr_manifest_dataset_t){.adapter = in->jobs[j]->name,
                                .use = use,
                                .path = data_dataset_path(data),
                                .content_sha256 = a->content_sha256,
                                .documents = data_dataset_num_documents(data),
                                .tokens = data_dataset_num_tokens(data),
                                .supervised_tokens = data_dataset_num_supervised(data)};
}

bool tr_init_is_folder(const char *init)
{
    return strchr(init, '/') != NULL;
}

/* The folder that it begins with: what can be wrong with it but for its values, long before they are read. */
static base_status_t check_init(tr_inputs_t *in, int32_t j, base_error_list_t *errors)
{
    const base_config_adapter_t *config = in->configs[j];
    lora_peft_t *peft;

    if (in->spec == NULL || in->config->train.mode == BASE_CONFIG_MODE_FULL ||
        !tr_init_is_folder(config->init))
        return BASE_OK;
    base_status_t st = lora_peft_open(in->ctx, config->init, in->spec, errors, &peft);
    if (st == BASE_ERR_FORMAT) return BASE_OK; /* in the list */
    BASE_TRY(st);
    st = lora_peft_match(peft, (int32_t)config->rank, config->targets);
    lora_peft_close(peft);
    return st;
}

static base_status_t open_job(tr_inputs_t *in, int32_t j, const char *prepare_words,
                              base_error_list_t *errors)
{
    const base_config_adapter_t *config = in->configs[j];
    const char *name = in->config->train.mode == BASE_CONFIG_MODE_FULL ? "model" : config->name;
    char *data = NULL, *eval = NULL;
    base_status_t st;

    BASE_TRY(check_init(in, j, errors));
    BASE_TRY_GOTO(find_set(in, j, TR_PREPARED_DATA, prepare_words, errors, &data), st, out);
    BASE_TRY_GOTO(find_set(in, j, TR_PREPARED_EVAL, prepare_words, errors, &eval), st, out);
    /* Without a model there is nothing to compare datasets with. */
    if (in->spec == NULL || data == NULL || (config->eval != NULL && eval == NULL)) goto out;
    BASE_TRY_GOTO(tr_job_open(in->ctx, config, name, data, eval, in->tokenizer_sha256,
                              in->spec->vocab, errors, &in->jobs[j]),
                  st, out);
    if (in->jobs[j] == NULL) goto out;
    note_dataset(in, j, "train", in->jobs[j]->data);
    if (in->jobs[j]->eval != NULL) note_dataset(in, j, "eval", in->jobs[j]->eval);
    if (tr_job_max_rows(in->jobs[j]) > in->longest) in->longest = tr_job_max_rows(in->jobs[j]);
out:
    base_free(in->ctx, data);
    base_free(in->ctx, eval);
    return st;
}

static base_status_t open_all(tr_inputs_t *in, const char *prepare_words, base_error_list_t *errors)
{
    const base_config_t *c = in->config;
    const int full = c->train.mode == BASE_CONFIG_MODE_FULL;

    in->num_jobs = full ? 1 : (int32_t)c->num_adapters;
    in->configs = base_calloc(in->ctx, in->num_jobs, sizeof *in->configs, "jobs");
    in->jobs = base_calloc(in->ctx, in->num_jobs, sizeof *in->jobs, "jobs");
    in->datasets = base_calloc(in->ctx, 2 * (int64_t)in->num_jobs, sizeof *in->datasets, "jobs");
    if (in->configs == NULL || in->jobs == NULL || in->datasets == NULL) return BASE_ERR_NOMEM;
    BASE_TRY(open_model(in, errors));
    BASE_TRY(read_profile(in, errors));
    for (int32_t j = 0; j < in->num_jobs; j++) {
        in->configs[j] = full ? &c->full : &c->adapters[j];
        BASE_TRY(open_job(in, j, prepare_words, errors));
    }
    return data_errors_finish(errors);
}

base_status_t tr_inputs_open(base_ctx_t *ctx, const base_config_t *config,
                             const char *prepare_words, base_error_list_t *errors,
                             tr_inputs_t **inputs_p)
{
    tr_inputs_t *in = base_calloc(ctx, 1, sizeof *in, "inputs");
    if (in == NULL) return BASE_ERR_NOMEM;
    in->ctx = ctx;
    in->config = config;
    const base_status_t st = open_all(in, prepare_words, errors);
    if (st < 0) {
        tr_inputs_close(in);
        return st;
    }
    *inputs_p = in;
    return BASE_OK;
}

void tr_inputs_close(tr_inputs_t *inputs)
{
    if (inputs == NULL) return;
    for (int32_t j = 0; inputs->jobs != NULL && j < inputs->num_jobs; j++)
        tr_job_close(inputs->jobs[j]);
    data_hf_folder_close(inputs->folder);
    base_free(inputs->ctx, inputs->profile);
    base_free(inputs->ctx, inputs->datasets);
    base_free(inputs->ctx, inputs->jobs);
    base_free(inputs->ctx, inputs->configs);
    base_free(inputs->ctx, inputs);
}

static void check_dataset(const data_dataset_t *dataset, int64_t trainers, int64_t rows, int whole,
                          base_error_list_t *errors)
{
    const int64_t fits = whole ? rows : trainers * rows;
    const base_error_place_t place = {.source = data_dataset_path(dataset)};

    for (int64_t i = 0; i < data_dataset_num_documents(dataset); i++) {
        const int64_t found = data_dataset_rows(dataset, i);

        if (found <= fits) continue;
        if (whole)
            base_error_list_add(errors, BASE_MSG_PLAN_01, place,
                                "document %lld (line %lld of its JSONL) has %lld rows, a trainer "
                                "holds %lld, and with placement local a document lies on one",
                                (long long)i, (long long)data_dataset_line(dataset, i),
                                (long long)found, (long long)rows);
        else
            base_error_list_add(errors, BASE_MSG_PLAN_01, place,
                                "document %lld (line %lld of its JSONL) has %lld rows, %lld "
                                "trainers of %lld rows hold %lld; %lld trainers would do",
                                (long long)i, (long long)data_dataset_line(dataset, i),
                                (long long)found, (long long)trainers, (long long)rows,
                                (long long)fits, (long long)((found + rows - 1) / rows));
    }
}

base_status_t tr_inputs_check_rows(const tr_inputs_t *inputs, int64_t trainers, int64_t rows,
                                   int whole, base_error_list_t *errors)
{
    for (int32_t j = 0; j < inputs->num_jobs; j++) {
        check_dataset(inputs->jobs[j]->data, trainers, rows, whole, errors);
        if (inputs->jobs[j]->eval != NULL)
            check_dataset(inputs->jobs[j]->eval, trainers, rows, whole, errors);
    }
    return data_errors_finish(errors);
}
