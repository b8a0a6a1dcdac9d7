#include "trainer/loop/train.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

base_status_t tr_train_create(base_ctx_t *ctx, tr_trainer_t *trainer, tr_job_t *const *jobs,
                              int32_t num_jobs, const tr_lot_options_t *lots,
                              const tr_train_options_t *options, const tr_train_events_t *events,
                              tr_train_t **train_p)
{
    base_status_t st = BASE_ERR_NOMEM;

    tr_train_t *t = base_calloc(ctx, 1, sizeof *t, "training loop");
    if (t == NULL) return BASE_ERR_NOMEM;
    t->ctx = ctx;
    t->trainer = trainer;
    t->options = *options;
    t->events = *events;
    t->num_jobs = num_jobs;
    t->jobs = jobs;
    t->chosen = base_calloc(ctx, num_jobs, sizeof *t->chosen, "training loop");
    t->rows = base_calloc(ctx, num_jobs, sizeof *t->rows, "training loop");
    t->pad_rows = base_calloc(ctx, num_jobs, sizeof *t->pad_rows, "training loop");
    t->best = base_calloc(ctx, num_jobs, sizeof *t->best, "training loop");
    if (t->chosen == NULL || t->rows == NULL || t->pad_rows == NULL || t->best == NULL)
        goto err_destroy;
    for (int i = 0; i < 2; i++)
        BASE_TRY_GOTO(tr_lot_create(ctx, lots, t->lots[0], &t->lots[i]), st, err_destroy);
    BASE_TRY_GOTO(tr_control_create(trainer, &t->control), st, err_destroy);
    for (int32_t j = 0; j < num_jobs && trainer->index >= 0; j++) {
        const int64_t count =
            options->full ? tr_model_parameters(trainer->model) : trainer->adapter_count[j];

        if (jobs[j]->eval_documents == 0) continue;
        t->best[j] = base_calloc(ctx, count, sizeof **t->best, "best values");
        if (t->best[j] == NULL) {
            st = BASE_ERR_NOMEM;
            goto err_destroy;
        }
    }
    *train_p = t;
    return BASE_OK;
err_destroy:
    tr_train_destroy(t);
    return st;
}

void tr_train_destroy(tr_train_t *train)
{
    if (train == NULL) return;
    for (int32_t j = 0; train->best != NULL && j < train->num_jobs; j++)
        base_free(train->ctx, train->best[j]);
    tr_control_destroy(train->control);
    for (int i = 0; i < 2; i++)
        tr_lot_destroy(train->lots[i]);
    base_free(train->ctx, train->best);
    base_free(train->ctx, train->pad_rows);
    base_free(train->ctx, train->rows);
    base_free(train->ctx, train->chosen);
    base_free(train->ctx, train);
}

static tr_lot_t *next_lot(tr_train_t *t)
{
    return t->lots[t->microbatch % 2];
}

/* ==== evaluation ==== */

/* As many documents as fit, from number `first` on; returns the first that is left. */
static base_status_t fill_evaluation(tr_train_t *t, int32_t j, int64_t first, double weight,
                                     int64_t *next)
{
    const tr_job_t *job = t->jobs[j];
    tr_lot_t *lot = next_lot(t);
    int64_t n = first;

    tr_lot_begin(lot, t->microbatch);
    for (; n < job->eval_documents; n++) {
        int64_t index;
        const data_dataset_t *dataset = tr_job_eval_document(job, n, &index);

        if (!tr_lot_fits(lot, data_dataset_rows(dataset, index))) break;
        BASE_TRY(tr_lot_add(lot, dataset, index, j, weight));
    }
    for (;;) {
        const base_status_t st = tr_lot_finish(lot);

        *next = n;
        if (st != BASE_ERR_ARG || lot->num_documents == 1 ||
            lot->options.plans.topology->placement != AS_LOCAL)
            return st;
        base_ctx_clear_error(t->ctx);
        tr_lot_drop(lot);
        n--;
    }
}

base_status_t tr_train_evaluate(tr_train_t *train, int32_t job, double *loss)
{
    const tr_job_t *of = train->jobs[job];
    int64_t supervised = 0;

    for (int64_t n = 0; n < of->eval_documents; n++) {
        int64_t index;
        const data_dataset_t *dataset = tr_job_eval_document(of, n, &index);
        supervised += data_dataset_supervised(dataset, index);
    }
    for (int64_t n = 0; n < of->eval_documents;) {
        BASE_TRY(fill_evaluation(train, job, n, 1.0 / (double)supervised, &n));
        BASE_TRY(tr_microbatch_evaluate(train->trainer, next_lot(train)->batch,
                                        tr_lot_plans(next_lot(train))));
        train->microbatch++;
    }
    BASE_TRY(tr_gradients_reduce_loss(train->trainer, job, loss));
    return tr_control_share(train->control, "evaluation", loss, sizeof *loss);
}

/* All weights of the model, one after the other. */
static base_status_t read_model(const tr_trainer_t *t, double *values)
{
    for (int32_t i = 0; i < t->model->num_weights; i++) {
        BASE_TRY(tr_weights_read(t->weights, i, t->stream, values));
        values += t->model->weights[i].rows * t->model->weights[i].cols;
    }
    return BASE_OK;
}

static base_status_t write_model(const tr_trainer_t *t, const double *values)
{
    for (int32_t i = 0; i < t->model->num_weights; i++) {
        BASE_TRY(tr_weights_write(t->weights, i, t->stream, values));
        values += t->model->weights[i].rows * t->model->weights[i].cols;
    }
    return BASE_OK;
}

static base_status_t keep_best(tr_train_t *t, int32_t j)
{
    if (t->best[j] == NULL) return BASE_OK;
    if (t->options.full) return read_model(t->trainer, t->best[j]);
    return lora_adapter_set_read(t->trainer->adapters, j, t->trainer->stream, t->best[j]);
}

/* A model that has ended is its best self again; adapters are asked for (tr_train_values). */
static base_status_t restore_best(tr_train_t *t, int32_t j)
{
    if (!t->options.full || t->best[j] == NULL || isnan(t->jobs[j]->best_eval)) return BASE_OK;
    return write_model(t->trainer, t->best[j]);
}

static base_status_t evaluate(tr_train_t *t, int32_t j)
{
    double loss;

    BASE_TRY(tr_train_evaluate(t, j, &loss));
    const int best = tr_job_evaluated(t->jobs[j], loss);
    if (best) BASE_TRY(keep_best(t, j));
    return t->events.evaluated == NULL ? BASE_OK
                                       : t->events.evaluated(t->events.user, j, loss, best);
}

base_status_t tr_train_values(tr_train_t *train, int32_t job, double *values)
{
    const int64_t count = train->trainer->adapter_count[job];

    if (train->best[job] != NULL && !isnan(train->jobs[job]->best_eval)) {
        memcpy(values, train->best[job], (size_t)count * sizeof *values);
        return BASE_OK;
    }
    return lora_adapter_set_read(train->trainer->adapters, job, train->trainer->stream, values);
}

/* ==== steps ==== */

static base_status_t share_result(tr_train_t *t, tr_step_result_t *result)
{
    double values[3] = {result->loss, result->norm, (double)result->nonfinite};

    BASE_TRY(tr_control_share(t->control, "step", values, sizeof values));
    *result =
        (tr_step_result_t){.loss = values[0], .norm = values[1], .nonfinite = (int32_t)values[2]};
    return BASE_OK;
}

static base_status_t step(tr_train_t *t, int32_t j)
{
    tr_job_t *job = t->jobs[j];
    const tr_step_options_t options = tr_job_step_options(job);
    tr_step_hook_t hook = {.fn = t->events.gradient, .user = t->events.user};
    tr_step_result_t result;

    if (t->options.full)
        BASE_TRY(tr_full_step(t->trainer, job->step + 1, &options, &hook, &result));
    else
        BASE_TRY(tr_adapter_step(t->trainer, j, &options, &hook, &result));
    BASE_TRY(share_result(t, &result));
    tr_job_stepped(job, &result);
    const tr_train_step_t record = {.step = job->step,
                                    .loss = result.loss,
                                    .norm = result.norm,
                                    .learning_rate = options.learning_rate,
                                    .microbatch = t->microbatch - 1,
                                    .rows = t->rows[j],
                                    .pad_rows = t->pad_rows[j]};
    t->rows[j] = t->pad_rows[j] = 0;
    if (t->events.step != NULL && job->state != TR_JOB_QUARANTINED)
        BASE_TRY(t->events.step(t->events.user, j, &record));
    if (tr_job_eval_due(job)) BASE_TRY(evaluate(t, j));
    if (job->state == TR_JOB_RUNNING) return BASE_OK;
    BASE_TRY(restore_best(t, j));
    return t->events.ended == NULL ? BASE_OK : t->events.ended(t->events.user, j);
}

/* Tells the others what this rank is about to do and wants, and learns what is to happen after this
 * microbatch. */
static base_status_t agree(tr_train_t *t, const tr_lot_t *lot)
{
    const as_plan_t *const *plans = tr_lot_plans(lot);
    const uint64_t wanted = t->events.wants != NULL ? t->events.wants(t->events.user) : 0;
    uint64_t hash = 0;

    for (int32_t k = 0; k < lot->options.plans.num_kinds; k++)
        hash = hash * UINT64_C(0x9E3779B97F4A7C15) + plans[k]->hash;
    return tr_control_microbatch(t->control, t->microbatch, hash, wanted, &t->agreed);
}

static base_status_t run_microbatch(tr_train_t *t)
{
    tr_lot_t *lot = next_lot(t);

    BASE_TRY(tr_select_fill(t->jobs, t->num_jobs, t->options.rank_columns, t->microbatch, lot,
                            t->chosen));
    BASE_TRY(agree(t, lot));
    BASE_TRY(tr_microbatch_run(t->trainer, lot->batch, tr_lot_plans(lot)));
    t->microbatch++;
    const int64_t rows = data_batch_trainer_rows(lot->batch);
    const int64_t document_rows = data_batch_document_rows(lot->batch);
    for (int32_t j = 0; j < t->num_jobs; j++) {
        t->rows[j] += t->chosen[j] ? rows : 0;
        t->pad_rows[j] += t->chosen[j] ? rows - document_rows : 0;
    }
    if (t->events.microbatch != NULL)
        BASE_TRY(t->events.microbatch(t->events.user, t->microbatch, document_rows));
    for (int32_t j = 0; j < t->num_jobs; j++) {
        if (t->chosen[j] && tr_job_batch_complete(t->jobs[j])) BASE_TRY(step(t, j));
    }
    if (t->agreed == 0 || t->events.agreed == NULL) return BASE_OK;
    return t->events.agreed(t->events.user, t->agreed);
}

static int any_running(const tr_train_t *t)
{
    for (int32_t j = 0; j < t->num_jobs; j++) {
        if (t->jobs[j]->state == TR_JOB_RUNNING) return 1;
    }
    return 0;
}

base_status_t tr_train_run(tr_train_t *train)
{
    BASE_TRY(tr_gradients_zero(train->trainer));
    train->agreed = 0;
    while (any_running(train) && (train->agreed & TR_CONTROL_END) == 0) {
        if (base_ctx_stop_requested(train->ctx))
            return BASE_FAIL(train->ctx, BASE_ERR_PEER, BASE_MSG_COMM_01,
                             "microbatch %lld: asked to stop", (long long)train->microbatch);
        if (train->options.max_microbatches > 0 &&
            train->microbatch >= train->options.max_microbatches)
            break;
        BASE_TRY(run_microbatch(train));
    }
    BASE_TRY(tr_control_finish(train->control));
    return tr_trainer_sync(train->trainer);
}
