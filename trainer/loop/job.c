#include "trainer/loop/job.h"

#include "base/memory.h"
#include "lora/learning_rate.h"

#include <math.h>

const char *tr_job_state_word(tr_job_state_t state)
{
    switch (state) {
    case TR_JOB_RUNNING:
        return "running";
    case TR_JOB_DONE:
        return "done";
    case TR_JOB_STOPPED:
        return "stopped early";
    case TR_JOB_QUARANTINED:
        return "not finite";
    }
    return "unknown";
}

/* ==== data ==== */

/* Opens a dataset that fits the model; NULL when it has faults, which are in `errors`. */
static base_status_t open_dataset(base_ctx_t *ctx, const char *path, const char *tokenizer_sha256,
                                  int64_t vocab, base_error_list_t *errors, data_dataset_t **ds_p)
{
    base_status_t st;

    *ds_p = NULL;
    st = data_dataset_open(ctx, path, errors, ds_p);
    if (st == BASE_ERR_FORMAT) return BASE_OK;
    BASE_TRY(st);
    st = data_dataset_match(*ds_p, tokenizer_sha256, vocab, errors);
    if (st >= 0) return BASE_OK;
    data_dataset_close(*ds_p);
    *ds_p = NULL;
    return st == BASE_ERR_FORMAT ? BASE_OK : st;
}

/* Steps of an epoch: its last batch may be short. */
static int64_t epoch_steps(const tr_job_t *job)
{
    const int64_t batch = job->config->global_batch_documents;

    return (job->training_documents + batch - 1) / batch;
}

static base_status_t start(tr_job_t *job)
{
    const base_config_adapter_t *c = job->config;
    const data_order_options_t order = {.source = data_dataset_path(job->data),
                                        .seed = (uint64_t)c->seed,
                                        .num_documents = data_dataset_num_documents(job->data),
                                        .eval_documents = job->eval == NULL ? c->eval_documents : 0,
                                        .shuffle = c->order == BASE_CONFIG_ORDER_SHUFFLE};

    BASE_TRY(data_order_create(job->ctx, &order, &job->order));
    job->training_documents = data_order_num_train(job->order);
    job->eval_documents =
        job->eval != NULL ? data_dataset_num_documents(job->eval) : data_order_num_eval(job->order);
    job->total_steps = c->epochs > 0 ? c->epochs * epoch_steps(job) : c->steps;
    job->warmup = lora_learning_rate_warmup(c, job->total_steps);
    return BASE_OK;
}

base_status_t tr_job_open(base_ctx_t *ctx, const base_config_adapter_t *config, const char *name,
                          const char *data_path, const char *eval_path,
                          const char *tokenizer_sha256, int64_t vocab, base_error_list_t *errors,
                          tr_job_t **job_p)
{
    base_status_t st;

    *job_p = NULL;
    tr_job_t *job = base_calloc(ctx, 1, sizeof *job, "job");
    if (job == NULL) return BASE_ERR_NOMEM;
    job->ctx = ctx;
    job->config = config;
    job->name = name;
    job->end_at = -1;
    job->first_loss = job->last_loss = job->best_eval = job->last_eval = (double)NAN;
    BASE_TRY_GOTO(open_dataset(ctx, data_path, tokenizer_sha256, vocab, errors, &job->data), st,
                  err_close);
    if (eval_path != NULL)
        BASE_TRY_GOTO(open_dataset(ctx, eval_path, tokenizer_sha256, vocab, errors, &job->eval), st,
                      err_close);
    st = BASE_OK;
    if (job->data == NULL || (eval_path != NULL && job->eval == NULL)) goto err_close;
    BASE_TRY_GOTO(start(job), st, err_close);
    *job_p = job;
    return BASE_OK;
err_close:
    tr_job_close(job);
    return st;
}

void tr_job_close(tr_job_t *job)
{
    if (job == NULL) return;
    data_order_destroy(job->order);
    data_dataset_close(job->eval);
    data_dataset_close(job->data);
    base_free(job->ctx, job);
}

int64_t tr_job_max_rows(const tr_job_t *job)
{
    const int64_t data = data_dataset_max_rows(job->data);
    const int64_t eval = job->eval != NULL ? data_dataset_max_rows(job->eval) : 0;

    return data > eval ? data : eval;
}

/* ==== steps ==== */

tr_step_options_t tr_job_step_options(const tr_job_t *job)
{
    const base_config_adapter_t *c = job->config;

    return (tr_step_options_t){.learning_rate = lora_learning_rate_at(
                                   (base_config_schedule_t)c->schedule, c->learning_rate, job->step,
                                   job->warmup, job->total_steps),
                               .beta1 = c->betas[0],
                               .beta2 = c->betas[1],
                               .eps = c->eps,
                               .weight_decay = c->weight_decay,
                               .clip_norm = c->clip_norm};
}

void tr_job_step_given(tr_job_t *job)
{
    job->step++;
}

void tr_job_stepped(tr_job_t *job, const tr_step_result_t *result, int64_t documents, int64_t rows,
                    int64_t supervised)
{
    if (result->nonfinite > 0) {
        job->verdict = TR_JOB_QUARANTINED;
        job->step = job->reported;
        return;
    }
    if (isnan(job->first_loss)) job->first_loss = result->loss;
    job->last_loss = result->loss;
    job->documents += documents;
    job->tokens += rows;
    job->supervised_tokens += supervised;
    job->reported++;
    if (job->reported == job->total_steps && job->eval_documents == 0) job->verdict = TR_JOB_DONE;
}

double tr_job_epoch(const tr_job_t *job)
{
    return (double)job->documents / (double)job->training_documents;
}

/* ==== evaluation ==== */

const data_dataset_t *tr_job_eval_document(const tr_job_t *job, int64_t n, int64_t *index)
{
    if (job->eval != NULL) {
        *index = n;
        return job->eval;
    }
    *index = data_order_eval(job->order, n);
    return job->data;
}

int tr_job_evaluated(tr_job_t *job, double loss)
{
    const int better = isnan(job->best_eval) || loss < job->best_eval;
    const int64_t patience = job->config->early_stopping_patience;

    job->last_eval = loss;
    job->evals_without_gain = better ? 0 : job->evals_without_gain + 1;
    if (better) job->best_eval = loss;
    if (job->step == job->total_steps)
        job->verdict = TR_JOB_DONE;
    else if (patience > 0 && job->evals_without_gain >= patience)
        job->verdict = TR_JOB_STOPPED;
    return better;
}
