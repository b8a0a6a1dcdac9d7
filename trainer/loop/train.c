#include "trainer/loop/train.h"

#include "base/clock.h"
#include "base/memory.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ==== life ==== */

static base_status_t allocate(tr_train_t *t)
{
    base_ctx_t *ctx = t->ctx;

    t->rows = base_calloc(ctx, t->num_jobs, sizeof *t->rows, "training loop");
    t->pad_rows = base_calloc(ctx, t->num_jobs, sizeof *t->pad_rows, "training loop");
    t->best = base_calloc(ctx, t->num_jobs, sizeof *t->best, "training loop");
    if (t->rows == NULL || t->pad_rows == NULL || t->best == NULL) return BASE_ERR_NOMEM;
    if (t->trainer->index >= 0)
        BASE_TRY(tr_step_results_create(t->trainer, t->num_jobs, &t->results));
    for (int32_t j = 0; j < t->num_jobs && t->trainer->index >= 0; j++) {
        const int64_t count =
            t->options.full ? tr_model_parameters(t->trainer->model) : t->trainer->adapter_count[j];

        if (t->jobs[j]->eval_documents == 0) continue;
        t->best[j] = base_calloc(ctx, count, sizeof **t->best, "best values");
        if (t->best[j] == NULL) return BASE_ERR_NOMEM;
    }
    return BASE_OK;
}

base_status_t tr_train_create(base_ctx_t *ctx, tr_trainer_t *trainer, tr_job_t *const *jobs,
                              int32_t num_jobs, const tr_lot_options_t *lots,
                              const tr_train_options_t *options, const tr_train_events_t *events,
                              tr_train_t **train_p)
{
    base_status_t st;

    tr_train_t *t = base_calloc(ctx, 1, sizeof *t, "training loop");
    if (t == NULL) return BASE_ERR_NOMEM;
    t->ctx = ctx;
    t->trainer = trainer;
    t->options = *options;
    t->events = *events;
    t->num_jobs = num_jobs;
    t->jobs = jobs;
    BASE_TRY_GOTO(allocate(t), st, err_destroy);
    BASE_TRY_GOTO(
        tr_planning_create(ctx, jobs, num_jobs, options->rank_columns, lots, &t->planning), st,
        err_destroy);
    tr_horizon_set_exact(tr_planning_horizon(t->planning), options->exact);
    BASE_TRY_GOTO(tr_control_create(trainer, &t->control), st, err_destroy);
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
    tr_step_results_destroy(train->results);
    tr_control_destroy(train->control);
    tr_planning_destroy(train->planning);
    base_free(train->ctx, train->best);
    base_free(train->ctx, train->pad_rows);
    base_free(train->ctx, train->rows);
    base_free(train->ctx, train);
}

/* ==== what is kept ==== */

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

base_status_t tr_train_values(tr_train_t *train, int32_t job, double *values)
{
    const int64_t count = train->trainer->adapter_count[job];

    if (train->best[job] != NULL && !isnan(train->jobs[job]->best_eval)) {
        memcpy(values, train->best[job], (size_t)count * sizeof *values);
        return BASE_OK;
    }
    return lora_adapter_set_read(train->trainer->adapters, job, train->trainer->stream, values);
}

/* ==== steps and evaluations ==== */

/* A trainer still counts on the job's results. */
static int is_heard(const tr_train_t *t, int32_t j)
{
    return t->trainer->index >= 0 && t->jobs[j]->verdict == TR_JOB_RUNNING;
}

/* Of a job that has its verdict, or on a rank that only serves: the others' sums have to go on. */
static base_status_t drop_step(tr_train_t *t, int32_t j)
{
    if (t->options.full) {
        BASE_TRY(tr_gradients_reduce(t->trainer));
        return tr_gradients_zero(t->trainer);
    }
    BASE_TRY(tr_gradients_reduce_adapter(t->trainer, j));
    return tr_gradients_zero_adapter(t->trainer, j);
}

static int64_t waits_so_far(const tr_train_t *t)
{
    return base_device_waits(base_stream_device(t->trainer->stream));
}

static int64_t result_waits(const tr_train_t *t)
{
    return t->results != NULL ? tr_step_results_waits(t->results) : 0;
}

static int64_t slot_waits(const tr_train_t *t)
{
    return base_device_event_waits(base_stream_device(t->trainer->stream)) - result_waits(t);
}

/* What an event does with a gradient is no wait of the loop's. */
static base_status_t show_gradient(void *user, int32_t job)
{
    tr_train_t *t = user;
    const int64_t waits = waits_so_far(t);
    const base_status_t st = t->events.gradient(t->events.user, job);

    t->waits.all -= waits_so_far(t) - waits;
    return st;
}

/* Sums, norm and AdamW, on the compute stream and in its account. */
static base_status_t optimize(tr_train_t *t, int32_t j, const tr_step_options_t *options)
{
    static const char *const KEYS[BASE_TRACE_NOTES] = {"job", "step"};
    const int64_t number = t->jobs[j]->step + 1;
    const base_trace_note_t note = {.part = BASE_PART_DENSE, .keys = KEYS, .values = {j, number}};
    const tr_step_hook_t hook = {.fn = t->events.gradient == NULL ? NULL : show_gradient,
                                 .user = t};
    tr_step_landing_t *landing = tr_step_results_place(t->results);

    BASE_TRY(base_stream_begin(t->trainer->stream, "optimizer step", &note));
    if (t->options.full)
        BASE_TRY(tr_full_step(t->trainer, number, options, &hook, landing));
    else
        BASE_TRY(tr_adapter_step(t->trainer, j, options, &hook, landing));
    return base_stream_end(t->trainer->stream);
}

static base_status_t step(tr_train_t *t, const tr_entry_part_t *part)
{
    const int32_t j = part->job;
    const tr_step_options_t options = tr_job_step_options(t->jobs[j]);

    if (!is_heard(t, j)) return drop_step(t, j);
    BASE_TRY(optimize(t, j, &options));
    tr_job_step_given(t->jobs[j]);
    tr_step_given_t given = {.job = j,
                             .step = t->jobs[j]->step,
                             .microbatch = t->microbatch - 1,
                             .learning_rate = options.learning_rate,
                             .documents = part->batch_documents,
                             .batch_rows = part->batch_rows,
                             .supervised = part->batch_supervised,
                             .rows = t->rows[j],
                             .pad_rows = t->pad_rows[j],
                             .given_ns = base_clock_ns()};
    base_meter_read(&t->trainer->meter, given.part_ns);
    t->rows[j] = t->pad_rows[j] = 0;
    return tr_step_results_give(t->results, &given);
}

static base_status_t stepped(tr_train_t *t, const tr_step_given_t *given,
                             const tr_step_result_t *result)
{
    tr_job_t *job = t->jobs[given->job];

    /* Behind one that was not finite: it has changed nothing. */
    if (job->verdict != TR_JOB_RUNNING) return BASE_OK;
    tr_job_stepped(job, result, given->documents, given->batch_rows, given->supervised);
    /* Also when the result was taken earlier, for a save: a run that is not saved tells it there. */
    job->tell_from = given->microbatch + TR_STEP_RESULTS_AFTER;
    if (job->verdict == TR_JOB_QUARANTINED) {
        if (!t->options.full) t->trainer->adapters->adapters[given->job].step = (uint32_t)job->step;
        return BASE_OK;
    }
    if (t->events.step == NULL) return BASE_OK;
    const tr_train_step_t record = {.given = given, .loss = result->loss, .norm = result->norm};
    return t->events.step(t->events.user, given->job, &record);
}

/* Results of the steps that were given until microbatch `up_to`. */
static base_status_t take_results(tr_train_t *t, int64_t up_to)
{
    tr_step_given_t given;
    tr_step_result_t result;
    int more = t->results != NULL;

    while (more) {
        BASE_TRY(tr_step_results_take(t->results, up_to, &given, &result, &more));
        if (more) BASE_TRY(stepped(t, &given, &result));
    }
    return BASE_OK;
}

base_status_t tr_train_settle(tr_train_t *train)
{
    const int64_t waits = result_waits(train);
    const base_status_t st = take_results(train, train->microbatch);

    train->waits.settled += result_waits(train) - waits;
    return st;
}

/* Waits: which values are kept depends on the loss, and no step may come between. */
static base_status_t evaluated(tr_train_t *t, int32_t j)
{
    double loss;

    BASE_TRY(tr_train_settle(t));
    BASE_TRY(tr_gradients_reduce_loss(t->trainer, j, &loss));
    if (!is_heard(t, j)) return BASE_OK;
    const int best = tr_job_evaluated(t->jobs[j], loss);
    t->jobs[j]->tell_from = t->microbatch - 1;
    if (best) BASE_TRY(keep_best(t, j));
    return t->events.evaluated == NULL ? BASE_OK
                                       : t->events.evaluated(t->events.user, j, loss, best);
}

/* ==== microbatches ==== */

tr_train_waits_t tr_train_host_waits(const tr_train_t *train)
{
    tr_train_waits_t waits = train->waits;

    waits.results = result_waits(train) - waits.settled;
    waits.allocations = train->trainer->stalls.allocations;
    return waits;
}

/* Rows of jobs that have ended since it was planned weigh nothing. */
static void mute(const tr_train_t *t, data_batch_t *batch)
{
    for (int32_t d = 0; d < batch->num_documents; d++)
        if (!is_heard(t, batch->documents[d].adapter)) batch->documents[d].row_weight = 0.0;
}

static base_status_t run_training(tr_train_t *t, tr_lot_t *lot, const tr_entry_t *entry)
{
    const int64_t rows = data_batch_trainer_rows(lot->batch);
    const int64_t document_rows = data_batch_document_rows(lot->batch);

    /* An end takes effect in planning where it does here. */
    for (int32_t i = 0; i < entry->num_parts; i++)
        assert(t->jobs[entry->parts[i].job]->state == TR_JOB_RUNNING);
    const int64_t waits = waits_so_far(t), slots = slot_waits(t);
    mute(t, lot->batch);
    BASE_TRY(tr_microbatch_run(t->trainer, lot->batch, tr_lot_plans(lot)));
    t->microbatch++;
    /* Before the steps, which use again what those of that microbatch named. */
    BASE_TRY(take_results(t, t->microbatch - 1 - TR_STEP_RESULTS_AFTER));
    for (int32_t i = 0; i < entry->num_parts; i++) {
        t->rows[entry->parts[i].job] += rows;
        t->pad_rows[entry->parts[i].job] += rows - document_rows;
    }
    if (t->events.microbatch != NULL)
        BASE_TRY(t->events.microbatch(t->events.user, t->microbatch, document_rows));
    for (int32_t i = 0; i < entry->num_parts; i++)
        if (entry->parts[i].completes) BASE_TRY(step(t, &entry->parts[i]));
    t->waits.all += waits_so_far(t) - waits;
    t->waits.slots += slot_waits(t) - slots;
    return BASE_OK;
}

static base_status_t run_evaluation(tr_train_t *t, tr_lot_t *lot, const tr_entry_t *entry)
{
    base_trace_t *trace = base_ctx_trace(t->ctx);

    const int64_t waits = waits_so_far(t), slots = slot_waits(t);
    base_trace_begin(trace, BASE_LANE_HOST, "evaluation");
    BASE_TRY(tr_microbatch_evaluate(t->trainer, lot->batch, tr_lot_plans(lot)));
    t->microbatch++;
    BASE_TRY(take_results(t, t->microbatch - 1 - TR_STEP_RESULTS_AFTER));
    t->waits.all += waits_so_far(t) - waits;
    t->waits.slots += slot_waits(t) - slots;
    if (entry->parts[0].completes) BASE_TRY(evaluated(t, entry->parts[0].job));
    base_trace_end(trace, BASE_LANE_HOST);
    return BASE_OK;
}

static uint64_t hash_plans(const tr_lot_t *lot)
{
    const as_plan_t *const *plans = tr_lot_plans(lot);
    uint64_t hash = 0;

    for (int32_t k = 0; k < lot->options.plans.num_kinds; k++)
        hash = hash * UINT64_C(0x9E3779B97F4A7C15) + plans[k]->hash;
    return hash;
}

/* ==== boundaries ==== */

/* This rank's record of microbatch m: verdicts that no record has told. */
static tr_control_told_t say(tr_train_t *t, int64_t m)
{
    tr_control_told_t mine = {.microbatch = m};

    if (t->events.wants != NULL) mine.wants = t->events.wants(t->events.user);
    for (int32_t j = 0; j < t->num_jobs && mine.num_ends < TR_CONTROL_MAX_ENDS; j++) {
        tr_job_t *job = t->jobs[j];

        if (job->verdict == TR_JOB_RUNNING || job->end_at >= 0 || m < job->tell_from) continue;
        job->end_at = m;
        mine.ends[mine.num_ends++] = (tr_control_end_t){j, (int32_t)job->verdict};
    }
    return mine;
}

static void hear(tr_train_t *t, const tr_control_told_t *told)
{
    if (told->microbatch < 0) return;
    t->wanted[told->microbatch % (TR_CONTROL_LOOK_AHEAD + 1)] = told->wants;
    for (int32_t i = 0; i < told->num_ends; i++) {
        tr_job_t *job = t->jobs[told->ends[i].job];

        job->verdict = (tr_job_state_t)told->ends[i].state;
        job->end_at = told->microbatch;
    }
}

/* One more microbatch is planned: number n, before which the ends of n - LOOK_AHEAD - 1 take
 * effect. */
static void request(tr_train_t *t, int64_t n)
{
    tr_control_end_t ends[TR_CONTROL_MAX_ENDS];
    int32_t num = 0;

    for (int32_t j = 0; j < t->num_jobs; j++)
        if (t->jobs[j]->end_at >= 0 && t->jobs[j]->end_at + TR_CONTROL_LOOK_AHEAD + 1 == n)
            ends[num++] = (tr_control_end_t){j, (int32_t)t->jobs[j]->verdict};
    tr_planning_request(t->planning, ends, num);
}

/* Jobs whose end takes effect after microbatch m. */
static base_status_t end_jobs(tr_train_t *t, int64_t m)
{
    for (int32_t j = 0; j < t->num_jobs; j++) {
        tr_job_t *job = t->jobs[j];

        if (job->end_at < 0 || job->end_at + TR_CONTROL_LOOK_AHEAD != m) continue;
        job->state = job->verdict;
        if (t->trainer->index >= 0) BASE_TRY(restore_best(t, j));
        if (t->events.ended != NULL) BASE_TRY(t->events.ended(t->events.user, j));
    }
    return BASE_OK;
}

static base_status_t pass_boundary(tr_train_t *t, int64_t m, uint64_t plan_hash)
{
    const tr_control_told_t mine = say(t, m);
    tr_control_told_t told;

    BASE_TRY(tr_control_exchange(t->control, &mine, plan_hash, &told));
    hear(t, &told);
    return end_jobs(t, m);
}

static base_status_t boundary(tr_train_t *t, int64_t m, uint64_t plan_hash)
{
    uint64_t *wanted = &t->wanted[(m + 1) % (TR_CONTROL_LOOK_AHEAD + 1)]; /* of m - LOOK_AHEAD */

    BASE_TRY(pass_boundary(t, m, plan_hash));
    request(t, m + TR_CONTROL_LOOK_AHEAD);
    t->agreed = *wanted;
    *wanted = 0;
    return t->events.agreed == NULL ? BASE_OK : t->events.agreed(t->events.user, t->agreed);
}

/* No microbatch follows, but what was found in the last ones has still to be told and to take
 * effect. */
static base_status_t drain(tr_train_t *t)
{
    const int64_t records = (t->num_jobs + TR_CONTROL_MAX_ENDS - 1) / TR_CONTROL_MAX_ENDS;

    BASE_TRY(tr_train_settle(t));
    for (int64_t i = 0; i < TR_STEP_RESULTS_AFTER + records + TR_CONTROL_LOOK_AHEAD; i++)
        BASE_TRY(pass_boundary(t, t->microbatch + i, 0));
    return BASE_OK;
}

/* ==== the loop ==== */

static base_status_t start_planning(tr_train_t *t)
{
    BASE_TRY(tr_planning_start(t->planning));
    tr_planning_request(t->planning, NULL, 0); /* ends before it have taken effect */
    for (int64_t n = t->microbatch + 1; n < t->microbatch + TR_PLANNING_AHEAD; n++)
        request(t, n);
    return BASE_OK;
}

/* *more_p 0: the run has ended. */
static base_status_t run_next(tr_train_t *t, int *more_p)
{
    tr_planned_t *planned;

    *more_p = 0;
    if (t->events.next != NULL) BASE_TRY(t->events.next(t->events.user, t->microbatch));
    base_trace_begin(base_ctx_trace(t->ctx), BASE_LANE_HOST, "wait for the plan");
    BASE_TRY(tr_planning_wait(t->planning, t->microbatch, &planned));
    base_trace_end(base_ctx_trace(t->ctx), BASE_LANE_HOST);
    if (planned->entry.kind == TR_ENTRY_END) return drain(t);
    if (planned->entry.kind == TR_ENTRY_TRAIN)
        BASE_TRY(run_training(t, planned->lot, &planned->entry));
    else
        BASE_TRY(run_evaluation(t, planned->lot, &planned->entry));
    BASE_TRY(boundary(t, t->microbatch - 1, hash_plans(planned->lot)));
    *more_p = (t->agreed & TR_CONTROL_END) == 0;
    return BASE_OK;
}

base_status_t tr_train_run(tr_train_t *train)
{
    int more = 1;

    if (train->microbatch == 0) BASE_TRY(tr_gradients_zero(train->trainer));
    BASE_TRY(start_planning(train));
    while (more) {
        if (base_ctx_stop_requested(train->ctx))
            return BASE_FAIL(train->ctx, BASE_ERR_PEER, BASE_MSG_COMM_01,
                             "microbatch %" PRId64 ": asked to stop", train->microbatch);
        if (train->options.max_microbatches > 0 &&
            train->microbatch >= train->options.max_microbatches)
            break;
        BASE_TRY(run_next(train, &more));
    }
    BASE_TRY(tr_train_settle(train));
    BASE_TRY(tr_control_finish(train->control));
    return tr_trainer_sync(train->trainer);
}
