#include "trainer/run/train_run.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "lora/adapter_init.h"
#include "lora/peft_import.h"
#include "trainer/loop/train.h"
#include "trainer/model/hf_load.h"
#include "trainer/model/product_search.h"
#include "trainer/run/agreement.h"
#include "trainer/run/checkpoint_folder.h"
#include "trainer/run/checkpoint_read.h"
#include "trainer/run/inputs.h"
#include "trainer/run/product_choices.h"
#include "trainer/run/resume.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/run_setup.h"
#include "trainer/run/run_trace.h"
#include "trainer/run/train_checkpoints.h"
#include "trainer/run/train_export.h"
#include "trainer/run/train_leavings.h"
#include "trainer/run/train_report.h"

#include <stdlib.h>
#include <string.h>

/* All that a rank has while it runs. */
typedef struct run {
    tr_train_run_t *args;
    base_ctx_t *ctx;
    comm_group_t *group;
    int leader; /* rank 0 */
    int full;
    tr_inputs_t *inputs;
    as_topology_t *topology;
    lora_adapter_options_t *adapters;
    tr_trainer_t *trainer;
    tr_lot_options_t lots;
    tr_train_t *train;
    tr_run_trace_t *trace; /* NULL: none */
    int64_t start_ns;      /* of the loop */
    tr_train_checkpoints_t checkpoints;
    int64_t from;           /* the microbatch it is resumed after; -1: it begins */
    int64_t *since_step_ns; /* [num_jobs] at that time */
    bool *dumped;           /* [num_jobs] its gradient is written, with dump_gradients */
    tr_run_folder_t *folder;
    tr_train_report_t *report;    /* the leader's */
    tr_train_leavings_t leavings; /* likewise */
} run_t;

/* ==== set-up ==== */

/* The leader prints what is in the list; ends the list and forwards the status. */
static base_status_t report_faults(run_t *r, base_error_list_t *errors, base_status_t st)
{
    if (st < 0 && r->leader && errors->count > 0) {
        base_error_list_print(errors, r->args->err);
        r->args->reported = true;
    }
    base_error_list_deinit(errors);
    return st;
}

static base_status_t open_inputs(run_t *r)
{
    base_error_list_t errors;

    base_error_list_init(&errors, r->ctx);
    const base_status_t st =
        tr_inputs_open(r->ctx, r->args->config, r->args->config->words, &errors, &r->inputs);
    return report_faults(r, &errors, st);
}

/* Every document fits into a microbatch: said before there is a run. */
static base_status_t check_rows(run_t *r)
{
    const int64_t step = 2 * DATA_ROW_ALIGN;
    const int64_t rows = r->args->config->batch.tokens_per_trainer / step * step;
    base_error_list_t errors;

    base_error_list_init(&errors, r->ctx);
    const base_status_t st = tr_inputs_check_rows(r->inputs, r->topology->num_trainers, rows,
                                                  r->topology->placement == AS_LOCAL, &errors);
    return report_faults(r, &errors, st);
}

static base_status_t make_trainer(run_t *r, base_device_t *dev)
{
    BASE_TRY(tr_setup_adapters(r->inputs, &r->adapters));
    const tr_build_t build =
        tr_setup_build(r->inputs, r->topology, r->adapters, base_device_free_bytes(dev));
    BASE_TRY(tr_build_trainer(r->ctx, dev, r->group, &build, &r->lots, &r->trainer));
    BASE_TRY(tr_setup_check_products(r->ctx, dev, r->group));
    const int trains = r->trainer->index >= 0;
    tr_rank_state_set_role(r->args->state, trains ? "trainer" : "server",
                           trains ? r->trainer->index
                                  : r->topology->rank_server[comm_group_rank(r->group)]);
    if (!trains) return BASE_OK;
    const char *choices = r->folder != NULL ? tr_run_folder_path(r->folder, TR_RUN_PRODUCTS) : NULL;
    if (choices != NULL) BASE_TRY(tr_product_choices_take(r->ctx, r->trainer->stream, choices));
    BASE_TRY(tr_hf_load(r->trainer->weights, r->inputs->folder, r->trainer->stream));
    return tr_product_has_choice(&r->trainer->graph) ? tr_product_search(&r->trainer->graph)
                                                     : BASE_OK;
}

/* Comes when all trainers have agreed on their start: by then each has looked for the file, so that none finds, by its pace,
 * what the leader has searched just now. */
static base_status_t keep_products(const run_t *r)
{
    if (!r->leader || r->trainer->index < 0 || !tr_product_has_choice(&r->trainer->graph))
        return BASE_OK;
    return tr_product_choices_keep(r->ctx, r->trainer->stream,
                                   tr_run_folder_path(r->folder, TR_RUN_PRODUCTS));
}

/* From the folder that `init:` names, or drawn. */
static base_status_t initial_values(run_t *r, int32_t j, const lora_layout_t *layout,
                                    double *values)
{
    const base_config_adapter_t *c = r->inputs->configs[j];

    if (!tr_init_is_folder(c->init)) {
        const lora_init_t kind =
            strcmp(c->init, "gaussian") == 0 ? LORA_INIT_GAUSSIAN : LORA_INIT_KAIMING;
        lora_adapter_init(layout, kind, (uint64_t)c->seed, values);
        return BASE_OK;
    }
    BASE_TRY(lora_peft_import(r->ctx, c->init, r->inputs->spec, layout, r->adapters[j].scale,
                              (float *)values));
    lora_widen(values, layout->count);
    return BASE_OK;
}

/* Each trainer reads a folder for itself, so what they read is compared. */
static base_status_t init_adapters(run_t *r)
{
    base_hash_t all = BASE_HASH_START;

    for (int32_t j = 0; r->trainer->adapters != NULL && j < r->inputs->num_jobs; j++) {
        const lora_layout_t *layout = r->trainer->adapters->adapters[j].layout;
        double *values = base_calloc(r->ctx, layout->count, sizeof *values, "initial adapter");

        if (values == NULL) return BASE_ERR_NOMEM;
        base_status_t st = initial_values(r, j, layout, values);
        if (tr_init_is_folder(r->inputs->configs[j]->init))
            all = base_hash_bytes(all, values, (size_t)layout->count * sizeof *values);
        if (st >= 0)
            st = lora_adapter_set_write(r->trainer->adapters, j, r->trainer->stream, values);
        base_free(r->ctx, values);
        BASE_TRY(st);
    }
    return tr_agreement_check_start(r->ctx, r->group, r->trainer->index >= 0, all);
}

/* What gradients are written to, before anything is trained. */
static base_status_t prepare_dump(run_t *r)
{
    if (r->args->dump_gradients == NULL) return BASE_OK;
    r->dumped = base_calloc(r->ctx, r->inputs->num_jobs, sizeof *r->dumped, "dumped gradients");
    if (r->dumped == NULL) return BASE_ERR_NOMEM;
    return r->leader ? tr_train_check_dump(r->ctx, r->args->dump_gradients) : BASE_OK;
}

/* ==== what happens while it runs ==== */

/* Microbatches of the run that this start found done. */
static int64_t done_before(const run_t *r)
{
    return r->from > 0 ? r->from : 0;
}

static base_status_t on_next(void *user, int64_t done)
{
    const run_t *r = user;

    return tr_run_trace_microbatch(r->trace, done - done_before(r));
}

static base_status_t on_microbatch(void *user, int64_t microbatch, int64_t document_rows)
{
    const run_t *r = user;

    tr_rank_state_set_microbatch(r->args->state, microbatch);
    return r->leader ? tr_train_report_microbatch(r->report, microbatch, document_rows) : BASE_OK;
}

static base_status_t on_gradient(void *user, int32_t job)
{
    const run_t *r = user;

    if (!r->leader || r->args->dump_gradients == NULL || r->dumped[job]) return BASE_OK;
    r->dumped[job] = true;
    return tr_train_dump_gradients(r->trainer, r->inputs, job, r->args->dump_gradients);
}

static base_status_t on_step(void *user, int32_t job, const tr_train_step_t *step)
{
    const run_t *r = user;

    return r->leader ? tr_train_report_step(r->report, job, step) : BASE_OK;
}

static base_status_t on_evaluated(void *user, int32_t job, double loss, int best)
{
    const run_t *r = user;

    (void)best;
    return r->leader ? tr_train_report_evaluated(r->report, job, loss) : BASE_OK;
}

/* Of a job that was resumed when nothing was left to do. */
static void say_not_dumped(const run_t *r, int32_t job)
{
    const char *name = r->inputs->jobs[job]->name;
    char key[BASE_LOG_KEY_BYTES];

    if (r->args->dump_gradients == NULL || r->dumped[job]) return;
    (void)snprintf(key, sizeof key, "dump:%.40s", name);
    base_log_warn(base_ctx_log(r->ctx), key,
                  "%s: ended without another global batch, so it has no gradient to write", name);
}

static void note_ended(run_t *r, int32_t job)
{
    say_not_dumped(r, job);
    if (r->inputs->jobs[job]->state == TR_JOB_QUARANTINED) r->args->num_quarantined++;
    tr_train_report_ended(r->report, job);
}

static base_status_t on_ended(void *user, int32_t job)
{
    run_t *r = user;

    if (!r->leader) return BASE_OK; /* the verdict below is the leader's to give */
    BASE_TRY(tr_train_leavings_ended(&r->leavings, job));
    note_ended(r, job);
    return BASE_OK;
}

static uint64_t on_wants(void *user)
{
    run_t *r = user;

    return tr_train_checkpoints_wants(&r->checkpoints);
}

static base_status_t on_agreed(void *user, uint64_t events)
{
    run_t *r = user;

    return tr_train_checkpoints_boundary(&r->checkpoints, events);
}

static base_status_t make_loop(run_t *r)
{
    const tr_train_options_t options = {
        .full = r->full,
        .rank_columns = r->full ? 0 : r->args->config->batch.max_rank_columns,
        .exact = r->args->config->batch.packer == BASE_CONFIG_PACKER_EXACT};
    const tr_train_events_t events = {.user = r,
                                      .next = on_next,
                                      .microbatch = on_microbatch,
                                      .gradient = on_gradient,
                                      .step = on_step,
                                      .evaluated = on_evaluated,
                                      .ended = on_ended,
                                      .wants = on_wants,
                                      .agreed = on_agreed};

    return tr_train_create(r->ctx, r->trainer, r->inputs->jobs, r->inputs->num_jobs, &r->lots,
                           &options, &events, &r->train);
}

/* ==== the leader's folder ==== */

/* The first line of this rank's log; a disk that is full shows here. */
static base_status_t begin_log(run_t *r)
{
    return base_log_file_line(base_ctx_log(r->ctx), r->ctx, "rank %d of %d over %s",
                              comm_group_rank(r->group), comm_group_size(r->group),
                              comm_group_transport(r->group));
}

/* What the run is resumed from, or that it begins. */
static base_status_t choose_start(run_t *r)
{
    const char *root = tr_run_folder_path(r->folder, TR_RUN_CHECKPOINTS);
    base_error_list_t errors;

    if (!tr_run_folder_resumed(r->folder)) return BASE_OK;
    BASE_TRY(tr_resume_find(r->ctx, root, &r->from));
    if (r->from < 0) {
        base_log_info(base_ctx_log(r->ctx), "%s: no checkpoint; the run starts afresh", root);
        return BASE_OK;
    }
    base_error_list_init(&errors, r->ctx);
    const base_status_t st = tr_resume_compare(
        r->ctx, root, r->from, r->inputs, r->args->config_path, comm_group_size(r->group), &errors);
    if (st >= 0)
        base_log_info(base_ctx_log(r->ctx), "resumed after microbatch %lld, from %s",
                      (long long)r->from, root);
    return report_faults(r, &errors, st);
}

/* The leader makes the folder and says where the run starts; the other processes find it there and
 * open their logs in it. Verifying checkpoints may take the leader longer than others wait. */
static base_status_t make_folder(run_t *r)
{
    const int processes = strcmp(comm_group_transport(r->group), "threads") != 0;
    const int64_t deadline = base_ctx_deadline_ms(r->ctx);
    base_status_t st = BASE_OK;

    r->from = -1;
    if (r->leader) {
        BASE_TRY(tr_run_folder_create(r->ctx, r->args->config, r->args->resume, &r->folder));
        BASE_TRY(begin_log(r));
        BASE_TRY(choose_start(r));
        BASE_TRY(tr_run_folder_take_config(r->folder, r->args->config));
    }
    int64_t *all = base_calloc(r->ctx, comm_group_size(r->group), sizeof *all, "start");
    if (all == NULL) return BASE_ERR_NOMEM;
    base_ctx_set_deadline_ms(r->ctx, TR_CHECKPOINT_DEADLINE_MS);
    st = comm_allgather(r->group, &r->from, (int64_t)sizeof r->from, all);
    base_ctx_set_deadline_ms(r->ctx, deadline);
    r->from = all[0];
    base_free(r->ctx, all);
    BASE_TRY(st);
    if (r->leader) return BASE_OK;
    BASE_TRY(tr_run_folder_join(r->ctx, r->args->config, processes, &r->folder));
    return processes ? begin_log(r) : BASE_OK;
}

static tr_checkpoint_t checkpoint_of(const run_t *r)
{
    return (tr_checkpoint_t){.ctx = r->ctx,
                             .group = r->group,
                             .inputs = r->inputs,
                             .train = r->train,
                             .root = tr_run_folder_path(r->folder, TR_RUN_CHECKPOINTS),
                             .keep = r->args->config->train.keep_checkpoints};
}

/* Everything is where the checkpoint left it; `clock` too. */
static base_status_t restore(run_t *r, tr_checkpoint_clock_t *clock)
{
    const tr_checkpoint_t checkpoint = checkpoint_of(r);
    tr_checkpoint_head_t head;
    char *folder;

    r->since_step_ns = base_calloc(r->ctx, r->inputs->num_jobs, sizeof *r->since_step_ns, "start");
    if (r->since_step_ns == NULL) return BASE_ERR_NOMEM;
    *clock = (tr_checkpoint_clock_t){.since_step_ns = r->since_step_ns};
    if (r->from < 0) return BASE_OK;
    BASE_TRY(tr_checkpoint_path(r->ctx, checkpoint.root, r->from, 0, &folder));
    const base_status_t st = tr_checkpoint_restore(&checkpoint, folder, &head, r->since_step_ns);
    base_free(r->ctx, folder);
    BASE_TRY(st);
    clock->microbatch = head.microbatch;
    clock->metrics_bytes = head.metrics_bytes;
    clock->elapsed_ns = head.elapsed_ns;
    return BASE_OK;
}

/* Jobs that had ended before the checkpoint: exported, unless somebody took that away. */
static base_status_t report_ended(run_t *r)
{
    for (int32_t j = 0; j < r->inputs->num_jobs; j++) {
        if (r->inputs->jobs[j]->state == TR_JOB_RUNNING) continue;
        if (!tr_train_exported(r->inputs, j, r->folder))
            BASE_TRY(on_ended(r, j));
        else
            note_ended(r, j);
    }
    return BASE_OK;
}

static base_status_t begin_report(run_t *r, const tr_checkpoint_clock_t *past)
{
    const int resumed = tr_run_folder_resumed(r->folder);
    const tr_manifest_t manifest = {.config = r->args->config,
                                    .argc = r->args->argc,
                                    .argv = r->args->argv,
                                    .num_ranks = comm_group_size(r->group),
                                    .resumed = resumed,
                                    .model_hash = r->inputs->model_hash,
                                    .tokenizer_hash = r->inputs->tokenizer_sha256,
                                    .num_datasets = r->inputs->num_datasets,
                                    .datasets = r->inputs->datasets};

    BASE_TRY(tr_manifest_write(r->ctx, tr_run_folder_path(r->folder, TR_RUN_MANIFEST), &manifest));
    BASE_TRY(tr_train_report_create(r->ctx, r->inputs, r->trainer, r->folder, resumed ? past : NULL,
                                    r->args->out, r->args->err, &r->report));
    BASE_TRY(tr_train_leavings_init(r->train, r->inputs, r->folder, r->full, &r->leavings));
    return report_ended(r);
}

/* ==== where the time goes ==== */

static void put_role(const run_t *r, char role[TR_RUN_ROLE_BYTES])
{
    const int trains = r->trainer->index >= 0;

    (void)snprintf(role, TR_RUN_ROLE_BYTES, "%s %d", trains ? "trainer" : "server",
                   trains ? r->trainer->index
                          : r->topology->rank_server[comm_group_rank(r->group)]);
}

static base_status_t begin_trace(run_t *r)
{
    char role[TR_RUN_ROLE_BYTES];

    r->start_ns = base_clock_ns();
    if (r->args->trace_microbatches == 0) return BASE_OK;
    put_role(r, role);
    return tr_run_trace_create(r->ctx, r->group, r->args->config->output,
                               r->args->trace_microbatches, r->trainer, role, &r->trace);
}

/* Every rank's account, at the end of the loop, to the leader. */
static base_status_t share_split(run_t *r)
{
    const int size = comm_group_size(r->group);
    tr_run_table_split_t mine = {.rank = comm_group_rank(r->group),
                                 .microbatches = r->train->microbatch - done_before(r)};
    base_status_t st;

    if (!base_stream_measured(r->trainer->stream)) return BASE_OK;
    put_role(r, mine.role);
    base_meter_read(&r->trainer->meter, mine.ns);
    mine.ns[BASE_PART_NONE] = base_clock_ns() - r->start_ns;
    for (int p = BASE_PART_NONE + 1; p < BASE_NUM_PARTS; p++)
        mine.ns[BASE_PART_NONE] -= mine.ns[p];
    tr_run_table_split_t *all = base_calloc(r->ctx, size, sizeof *all, "split of the time");
    if (all == NULL) return BASE_ERR_NOMEM;
    st = comm_allgather(r->group, &mine, (int64_t)sizeof mine, all);
    if (st >= 0 && r->leader) st = tr_train_report_split(r->report, all, size);
    base_free(r->ctx, all);
    return st;
}

static base_status_t share_waits(run_t *r)
{
    const int size = comm_group_size(r->group);
    const tr_train_waits_t mine = tr_train_host_waits(r->train);
    tr_train_waits_t sum = {0};

    tr_train_waits_t *all = base_calloc(r->ctx, size, sizeof *all, "host waits");
    if (all == NULL) return BASE_ERR_NOMEM;
    const base_status_t st = comm_allgather(r->group, &mine, (int64_t)sizeof mine, all);
    for (int i = 0; i < size; i++) {
        sum.all += all[i].all;
        sum.results += all[i].results;
        sum.settled += all[i].settled;
        sum.slots += all[i].slots;
        sum.allocations += all[i].allocations;
    }
    if (r->leader) tr_train_report_waits(r->report, &sum);
    base_free(r->ctx, all);
    return st;
}

/* While all of the run's memory is there. */
static base_status_t share_device(run_t *r, base_device_t *dev)
{
    const int size = comm_group_size(r->group);
    const int64_t mine = base_device_used_bytes(dev);
    int64_t most = 0;

    int64_t *all = base_calloc(r->ctx, size, sizeof *all, "device memory");
    if (all == NULL) return BASE_ERR_NOMEM;
    const base_status_t st = comm_allgather(r->group, &mine, (int64_t)sizeof mine, all);
    for (int i = 0; i < size; i++)
        if (all[i] > most) most = all[i];
    if (r->leader) tr_train_report_device(r->report, most);
    base_free(r->ctx, all);
    return st;
}

/* Checkpoints that went have made room, or somebody has. A run that was stopped has time. */
static base_status_t end_leavings(run_t *r)
{
    if (!r->leader) return BASE_OK;
    BASE_TRY(tr_train_leavings_retry(&r->leavings));
    if (r->checkpoints.stopped) return BASE_OK;
    BASE_TRY(tr_train_leavings_verdict(&r->leavings));
    return tr_train_report_exported(r->report);
}

static base_status_t run_all(run_t *r, base_device_t *dev)
{
    tr_checkpoint_clock_t past;

    BASE_TRY(tr_setup_check(r->ctx, r->args->config));
    BASE_TRY(open_inputs(r));
    const tr_agreement_t agreement = tr_agreement_of(r->inputs);
    BASE_TRY(tr_agreement_check(r->ctx, r->group, &agreement));
    BASE_TRY(tr_setup_topology(r->ctx, r->args->config, r->group, &r->topology));
    BASE_TRY(check_rows(r));
    BASE_TRY(prepare_dump(r));
    BASE_TRY(make_folder(r));
    BASE_TRY(make_trainer(r, dev));
    BASE_TRY(init_adapters(r));
    BASE_TRY(keep_products(r));
    BASE_TRY(make_loop(r));
    BASE_TRY(restore(r, &past));
    if (r->leader) BASE_TRY(begin_report(r, &past));
    BASE_TRY(begin_trace(r));
    const tr_checkpoint_t checkpoint = checkpoint_of(r);
    tr_train_checkpoints_init(&r->checkpoints, &checkpoint, r->args->config, r->report,
                              r->args->signals);
    BASE_TRY(tr_train_run(r->train));
    BASE_TRY(share_split(r));
    BASE_TRY(share_waits(r));
    BASE_TRY(share_device(r, dev));
    if (r->leader) BASE_TRY(tr_train_leavings_retry(&r->leavings));
    BASE_TRY(tr_train_checkpoints_end(&r->checkpoints));
    return end_leavings(r);
}

base_status_t tr_train_run_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                void *user)
{
    tr_train_run_t *args = user;
    run_t r = {.args = args,
               .ctx = ctx,
               .group = group,
               .leader = base_ctx_rank(ctx) == 0,
               .full = args->config->train.mode == BASE_CONFIG_MODE_FULL};

    base_ctx_set_place(ctx, tr_rank_state_place(args->state));
    const base_status_t st = run_all(&r, dev);
    base_error_t error;
    if (st < 0 && base_ctx_error(ctx, &error)) comm_group_stop(group, &error);
    const bool saved = st >= 0 && r.checkpoints.stopped;
    if (r.leader) args->saved = saved;
    const base_status_t closed = tr_train_report_close(r.report, st, saved);
    tr_train_leavings_deinit(&r.leavings);
    tr_train_destroy(r.train);
    const base_status_t traced = tr_run_trace_close(r.trace, st);
    tr_trainer_destroy(r.trainer);
    tr_run_folder_destroy(r.folder);
    base_free(ctx, r.dumped);
    base_free(ctx, r.since_step_ns);
    base_free(ctx, r.adapters);
    as_topology_destroy(r.topology);
    tr_inputs_close(r.inputs);
    if (st < 0) return st;
    return traced < 0 ? traced : closed;
}
