#include "trainer/run/train_report.h"

#include "base/clock.h"
#include "base/memory.h"
#include "trainer/run/metrics.h"
#include "trainer/run/progress.h"
#include "trainer/run/run_status.h"

#include <math.h>
#include <string.h>

struct tr_train_report {
    base_ctx_t *ctx;
    const tr_inputs_t *inputs;
    const tr_trainer_t *trainer;
    const tr_run_folder_t *folder;
    FILE *out, *err;
    tr_metrics_t *metrics;
    tr_run_status_t *status;
    tr_progress_t *progress;
    int64_t microbatch;
    int64_t start_ns;
    int64_t *step_ns;                   /* [num_jobs] when the last step ended */
    int64_t *since_ns;                  /* [num_jobs] for checkpoints */
    int64_t *tokens;                    /* [num_jobs] at that time */
    int64_t (*part_ns)[BASE_NUM_PARTS]; /* [num_jobs] likewise */
    tr_run_table_split_t *splits;       /* [num_splits] of the ranks, at the end */
    int64_t num_splits;
    tr_train_waits_t waits;
    int64_t device_bytes; /* 0: not known */
    char **folders;       /* [num_jobs] where it was exported, or NULL */
};

static double seconds(int64_t ns)
{
    return (double)ns * 1e-9;
}

static int is_full(const tr_train_report_t *r)
{
    return r->inputs->config->train.mode == BASE_CONFIG_MODE_FULL;
}

/* Of the documents that the job is evaluated on. */
static int64_t eval_supervised(const tr_job_t *job)
{
    int64_t sum = 0;

    for (int64_t n = 0; n < job->eval_documents; n++) {
        int64_t index;
        const data_dataset_t *dataset = tr_job_eval_document(job, n, &index);

        sum += data_dataset_supervised(dataset, index);
    }
    return sum;
}

/* Without those that are held out. */
static int64_t training_supervised(const tr_job_t *job)
{
    const int64_t held_out = job->eval == NULL ? eval_supervised(job) : 0;

    return data_dataset_num_supervised(job->data) - held_out;
}

static base_status_t print_plan(tr_train_report_t *r)
{
    const tr_inputs_t *in = r->inputs;

    tr_run_table_plan_t *rows = base_calloc(r->ctx, in->num_jobs, sizeof *rows, "table");
    if (rows == NULL) return BASE_ERR_NOMEM;
    for (int32_t j = 0; j < in->num_jobs; j++) {
        const tr_job_t *job = in->jobs[j];
        const base_config_adapter_t *c = job->config;

        rows[j] = (tr_run_table_plan_t){.name = job->name,
                                        .documents = job->training_documents,
                                        .supervised_tokens = training_supervised(job),
                                        .steps = job->total_steps,
                                        .trainable_parameters =
                                            is_full(r) ? tr_model_parameters(r->trainer->model)
                                                       : r->trainer->adapter_count[j]};
        if (is_full(r)) continue;
        rows[j].rank = c->rank;
        rows[j].scale = lora_scale(c->alpha, c->rank, c->rslora);
    }
    tr_run_table_plan(r->err, rows, in->num_jobs);
    base_free(r->ctx, rows);
    return BASE_OK;
}

/* A global batch never reaches over the end of an epoch: one larger than the dataset is not what it says. */
static void warn_of_short_batches(const tr_train_report_t *r)
{
    for (int32_t j = 0; j < r->inputs->num_jobs; j++) {
        const tr_job_t *job = r->inputs->jobs[j];
        const int64_t wanted = job->config->global_batch_documents;
        char key[BASE_LOG_KEY_BYTES];

        if (wanted <= job->training_documents) continue;
        (void)snprintf(key, sizeof key, "batch:%.40s", job->name);
        base_log_warn(base_ctx_log(r->ctx), key,
                      "%s: global_batch_documents is %lld, there are %lld documents to train on: "
                      "each step has %lld and is an epoch",
                      job->name, (long long)wanted, (long long)job->training_documents,
                      (long long)job->training_documents);
    }
}

static base_status_t start_progress(tr_train_report_t *r)
{
    const tr_inputs_t *in = r->inputs;
    tr_progress_options_t options;

    tr_progress_job_t *jobs = base_calloc(r->ctx, in->num_jobs, sizeof *jobs, "progress");
    if (jobs == NULL) return BASE_ERR_NOMEM;
    for (int32_t j = 0; j < in->num_jobs; j++)
        jobs[j] = (tr_progress_job_t){.name = in->jobs[j]->name,
                                      .first_step = in->jobs[j]->step,
                                      .total_steps = in->jobs[j]->total_steps};
    tr_progress_for(r->err, base_clock_ns, &options);
    const base_status_t st = tr_progress_create(r->ctx, &options, jobs, in->num_jobs, &r->progress);
    base_free(r->ctx, jobs);
    if (st < 0) return st;
    base_log_set_terminal(base_ctx_log(r->ctx), tr_progress_log, r->progress,
                          base_log_wants_colour(2));
    return BASE_OK;
}

/* The numbers of steps that are taken back go. */
static base_status_t open_metrics(tr_train_report_t *r, const tr_checkpoint_clock_t *past)
{
    const char *path = tr_run_folder_path(r->folder, TR_RUN_METRICS);
    int64_t found;

    BASE_TRY(tr_metrics_open(r->ctx, path, &r->metrics));
    if (past == NULL) return BASE_OK;
    BASE_TRY(tr_metrics_cut(r->metrics, past->metrics_bytes, &found));
    if (found < past->metrics_bytes)
        base_log_warn(
            base_ctx_log(r->ctx), "metrics",
            "%s: has %lld bytes, %lld when the checkpoint was written; records are missing", path,
            (long long)found, (long long)past->metrics_bytes);
    return BASE_OK;
}

static base_status_t start(tr_train_report_t *r, const tr_checkpoint_clock_t *past)
{
    const int64_t jobs = r->inputs->num_jobs;

    r->step_ns = base_calloc(r->ctx, jobs, sizeof *r->step_ns, "report");
    r->since_ns = base_calloc(r->ctx, jobs, sizeof *r->since_ns, "report");
    r->tokens = base_calloc(r->ctx, jobs, sizeof *r->tokens, "report");
    r->folders = base_calloc(r->ctx, jobs, sizeof *r->folders, "report");
    r->part_ns = base_calloc(r->ctx, jobs, sizeof *r->part_ns, "report");
    if (r->step_ns == NULL || r->since_ns == NULL || r->tokens == NULL || r->folders == NULL ||
        r->part_ns == NULL)
        return BASE_ERR_NOMEM;
    BASE_TRY(print_plan(r));
    warn_of_short_batches(r);
    BASE_TRY(open_metrics(r, past));
    BASE_TRY(tr_run_status_create(r->ctx, tr_run_folder_path(r->folder, TR_RUN_STATUS),
                                  base_clock_ns, r->microbatch, &r->status));
    BASE_TRY(tr_run_status_beat(r->status, TR_RUN_STATUS_INTERVAL_NS));
    BASE_TRY(start_progress(r));
    const int64_t now = base_clock_ns();
    r->start_ns = now - (past != NULL ? past->elapsed_ns : 0);
    for (int64_t j = 0; j < jobs; j++) {
        r->step_ns[j] = now - (past != NULL ? past->since_step_ns[j] : 0);
        r->tokens[j] = r->inputs->jobs[j]->tokens;
        base_meter_read(&r->trainer->meter, r->part_ns[j]);
    }
    return BASE_OK;
}

base_status_t tr_train_report_create(base_ctx_t *ctx, const tr_inputs_t *inputs,
                                     const tr_trainer_t *trainer, const tr_run_folder_t *folder,
                                     const tr_checkpoint_clock_t *past, FILE *out, FILE *err,
                                     tr_train_report_t **report_p)
{
    tr_train_report_t *r = base_calloc(ctx, 1, sizeof *r, "report");
    if (r == NULL) return BASE_ERR_NOMEM;
    r->ctx = ctx;
    r->inputs = inputs;
    r->trainer = trainer;
    r->folder = folder;
    r->out = out;
    r->err = err;
    r->microbatch = past != NULL ? past->microbatch : 0;
    const base_status_t st = start(r, past);
    if (st < 0) {
        (void)tr_train_report_close(r, st, false);
        return st;
    }
    *report_p = r;
    return BASE_OK;
}

/* What others look at may be out of date for a while; a full disk ends no training. */
static base_status_t update_status(tr_train_report_t *r, int64_t microbatch)
{
    const base_status_t st = tr_run_status_update(r->status, microbatch);
    base_error_t error;

    if (st >= 0 || base_status_scope(st) != BASE_SCOPE_CALL || !base_ctx_error(r->ctx, &error))
        return st;
    base_log_warn(base_ctx_log(r->ctx), "status", "IO-02: %.300s; it is not up to date",
                  error.text);
    base_ctx_clear_error(r->ctx);
    return BASE_OK;
}

base_status_t tr_train_report_microbatch(tr_train_report_t *report, int64_t microbatch,
                                         int64_t document_rows)
{
    report->microbatch = microbatch;
    tr_progress_tokens(report->progress, document_rows);
    return update_status(report, microbatch);
}

/* The parts of a step that took `took` seconds, by the stream's account `now`; the job's account
 * begins anew. */
static void take_parts(tr_train_report_t *r, int32_t job, double took,
                       const int64_t now[BASE_NUM_PARTS], double part_s[])
{
    const int measured = base_stream_measured(r->trainer->stream);
    double counted = 0.0;

    for (int p = BASE_PART_NONE + 1; p < BASE_NUM_PARTS; p++) {
        part_s[p] = measured ? seconds(now[p] - r->part_ns[job][p]) : (double)NAN;
        counted += part_s[p];
    }
    part_s[BASE_PART_NONE] = took > counted ? took - counted : measured ? 0.0 : (double)NAN;
    memcpy(r->part_ns[job], now, sizeof r->part_ns[job]);
}

base_status_t tr_train_report_step(tr_train_report_t *report, int32_t job,
                                   const tr_train_step_t *step)
{
    tr_train_report_t *r = report;
    const tr_job_t *of = r->inputs->jobs[job];
    const tr_step_given_t *given = step->given;
    const int64_t now = given->given_ns; /* the device is behind by the same each time */
    const double took = seconds(now - r->step_ns[job]);
    tr_metrics_step_t record = {
        .adapter = of->name,
        .step = given->step,
        .total_steps = of->total_steps,
        .epoch = tr_job_epoch(of),
        .loss = step->loss,
        .grad_norm = step->norm,
        .learning_rate = given->learning_rate,
        .tokens = of->tokens,
        .supervised_tokens = of->supervised_tokens,
        .microbatch = given->microbatch,
        .step_time_s = took,
        .elapsed_s = seconds(now - r->start_ns),
        .tokens_per_second = took > 0.0 ? (double)(of->tokens - r->tokens[job]) / took : 0.0,
        .pad_share = given->rows > 0 ? (double)given->pad_rows / (double)given->rows : 0.0};

    take_parts(r, job, took, given->part_ns, record.part_s);
    r->step_ns[job] = now;
    r->tokens[job] = of->tokens;
    tr_progress_step(r->progress, job, given->step, step->loss);
    return tr_metrics_step(r->metrics, &record);
}

base_status_t tr_train_report_evaluated(tr_train_report_t *report, int32_t job, double loss)
{
    tr_train_report_t *r = report;
    const tr_job_t *of = r->inputs->jobs[job];
    const int64_t now = base_clock_ns();
    const tr_metrics_eval_t record = {.adapter = of->name,
                                      .step = of->step,
                                      .epoch = tr_job_epoch(of),
                                      .eval_loss = loss,
                                      .eval_documents = of->eval_documents,
                                      .eval_supervised_tokens = eval_supervised(of),
                                      .eval_time_s = seconds(now - r->step_ns[job]),
                                      .elapsed_s = seconds(now - r->start_ns)};
    r->step_ns[job] = now; /* the next step's time does not count the evaluation */
    base_meter_read(&r->trainer->meter, r->part_ns[job]);
    return tr_metrics_eval(r->metrics, &record);
}

/* Why an adapter was put aside, what is left of it, and what helps. */
static void say_quarantined(const tr_train_report_t *r, const tr_job_t *job)
{
    base_error_t error = {.status = BASE_ERR_FORMAT, .message = BASE_MSG_RUN_09};
    char kept[64];

    if (!isnan(job->best_eval))
        (void)snprintf(kept, sizeof kept, "its best evaluation is exported");
    else if (job->step > 0)
        (void)snprintf(kept, sizeof kept, "it is exported as of step %lld", (long long)job->step);
    else
        (void)snprintf(kept, sizeof kept, "it is exported as it began");
    (void)snprintf(error.text, sizeof error.text,
                   "%s: the gradient of step %lld is not finite, so it is not trained further; %s",
                   job->name, (long long)job->step + 1, kept);
    base_log_error(base_ctx_log(r->ctx), &error);
}

void tr_train_report_ended(tr_train_report_t *report, int32_t job)
{
    const tr_job_t *of = report->inputs->jobs[job];

    tr_progress_job_end(report->progress, job, tr_job_state_word(of->state));
    if (of->state == TR_JOB_QUARANTINED) say_quarantined(report, of);
}

base_status_t tr_train_report_exported(tr_train_report_t *report)
{
    tr_train_report_t *r = report;

    for (int32_t j = 0; j < r->inputs->num_jobs; j++) {
        if (r->inputs->jobs[j]->state == TR_JOB_RUNNING) continue;
        if (!is_full(r)) {
            BASE_TRY(tr_run_folder_adapter(r->folder, r->inputs->jobs[j]->name, &r->folders[j]));
            continue;
        }
        r->folders[j] = base_strdup(r->ctx, tr_run_folder_path(r->folder, TR_RUN_MODEL), "report");
        if (r->folders[j] == NULL) return BASE_ERR_NOMEM;
    }
    return BASE_OK;
}

base_status_t tr_train_report_split(tr_train_report_t *report, const tr_run_table_split_t *rows,
                                    int64_t num_rows)
{
    report->splits =
        base_calloc(report->ctx, num_rows, sizeof *report->splits, "split of the time");
    if (report->splits == NULL) return BASE_ERR_NOMEM;
    memcpy(report->splits, rows, (size_t)num_rows * sizeof *rows);
    report->num_splits = num_rows;
    return BASE_OK;
}

void tr_train_report_waits(tr_train_report_t *report, const tr_train_waits_t *waits)
{
    report->waits = *waits;
}

void tr_train_report_device(tr_train_report_t *report, int64_t used_bytes)
{
    report->device_bytes = used_bytes;
}

static base_status_t print_results(tr_train_report_t *r)
{
    const tr_inputs_t *in = r->inputs;
    const char *data = in->num_datasets > 0 ? in->datasets[0].path : NULL;

    tr_run_table_result_t *rows = base_calloc(r->ctx, in->num_jobs, sizeof *rows, "table");
    if (rows == NULL) return BASE_ERR_NOMEM;
    for (int32_t j = 0; j < in->num_jobs; j++) {
        const tr_job_t *job = in->jobs[j];
        rows[j] = (tr_run_table_result_t){.name = job->name,
                                          .steps = job->step,
                                          .total_steps = job->total_steps,
                                          .first_loss = job->first_loss,
                                          .last_loss = job->last_loss,
                                          .eval_loss = job->best_eval,
                                          .folder = r->folders[j]};
    }
    tr_run_table_results(r->out, rows, in->num_jobs, in->config->model, is_full(r), data);
    if (r->num_splits > 0 && r->splits[0].microbatches > 0) {
        (void)fputs("\nwhere the time went:\n", r->out);
        tr_run_table_split(r->out, r->splits, r->num_splits);
    }
    (void)fprintf(
        r->out,
        "\nhost waits between microbatches: %lld; for late results: %lld; for results at "
        "saves, evaluations and the end: %lld; for the microbatch before the last: %lld\n",
        (long long)r->waits.all, (long long)r->waits.results, (long long)r->waits.settled,
        (long long)r->waits.slots);
    (void)fprintf(r->out, "requests for memory inside microbatches: %lld\n",
                  (long long)r->waits.allocations);
    if (r->device_bytes > 0)
        (void)fprintf(r->out,
                      "device memory in use by the driver's count: %.1f MiB at most on a rank\n",
                      (double)r->device_bytes / (1 << 20));
    base_free(r->ctx, rows);
    return BASE_OK;
}

static void print_saved(const tr_train_report_t *r)
{
    (void)fprintf(r->err,
                  "cadre: saved after microbatch %lld in %s; the same command with --resume goes "
                  "on\n",
                  (long long)r->microbatch, tr_run_folder_path(r->folder, TR_RUN_CHECKPOINTS));
}

static base_status_t last_status(tr_train_report_t *r, base_status_t outcome, bool saved)
{
    base_error_t error;

    if (r->status == NULL) return BASE_OK;
    if (outcome >= 0)
        return tr_run_status_set(r->status, saved ? TR_RUN_STATE_SAVED : TR_RUN_STATE_DONE,
                                 r->microbatch, NULL);
    const int recorded = base_ctx_error(r->ctx, &error);
    return tr_run_status_set(r->status, TR_RUN_STATE_FAILED, r->microbatch,
                             recorded ? &error : NULL);
}

base_status_t tr_train_report_clock(tr_train_report_t *report, tr_checkpoint_clock_t *clock)
{
    tr_train_report_t *r = report;
    const int64_t now = base_clock_ns();

    *clock = (tr_checkpoint_clock_t){
        .microbatch = r->microbatch, .elapsed_ns = now - r->start_ns, .since_step_ns = r->since_ns};
    for (int32_t j = 0; j < r->inputs->num_jobs; j++)
        r->since_ns[j] = now - r->step_ns[j];
    return tr_metrics_sync(r->metrics, &clock->metrics_bytes);
}

base_status_t tr_train_report_close(tr_train_report_t *report, base_status_t outcome, bool saved)
{
    tr_train_report_t *r = report;
    base_status_t st = BASE_OK;

    if (r == NULL) return BASE_OK;
    if (r->progress != NULL)
        base_log_set_terminal(base_ctx_log(r->ctx), base_log_to_stderr, NULL,
                              base_log_wants_colour(2));
    tr_progress_destroy(r->progress);
    if (outcome >= 0 && saved)
        print_saved(r);
    else if (outcome >= 0)
        st = print_results(r);
    base_log_summary(base_ctx_log(r->ctx));
    const base_status_t written = last_status(r, outcome, saved);
    tr_run_status_destroy(r->status);
    const base_status_t closed = tr_metrics_close(r->metrics);
    for (int32_t j = 0; r->folders != NULL && j < r->inputs->num_jobs; j++)
        base_free(r->ctx, r->folders[j]);
    base_free(r->ctx, r->folders);
    base_free(r->ctx, r->tokens);
    base_free(r->ctx, r->since_ns);
    base_free(r->ctx, r->step_ns);
    base_free(r->ctx, r->part_ns);
    base_free(r->ctx, r->splits);
    base_free(r->ctx, r);
    st = st < 0 ? st : written;
    return st < 0 ? st : closed;
}
