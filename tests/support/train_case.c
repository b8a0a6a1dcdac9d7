#include "tests/support/train_case.h"

#include "tests/support/ctx_fixture.h"

#include "base/philox.h"
#include "data/dataset_write.h"
#include "lora/pack.h"
#include "trainer/model/hf_load.h"

#include <math.h>
#include <stdlib.h>

/* ==== the rank ==== */

static int32_t all_ranks(const train_case_t *c)
{
    int32_t sum = 0;

    for (int32_t a = 0; a < c->num_adapters; a++)
        sum += c->adapters[a].rank;
    return c->rank_columns > 0 ? c->rank_columns : sum;
}

static base_status_t write_adapters(const train_case_t *c, tr_trainer_t *t)
{
    for (int32_t a = 0; a < c->num_adapters; a++) {
        const lora_layout_t *layout = t->adapters->adapters[a].layout;
        const double *given = c->values == NULL ? NULL : c->values[a];

        double *values = base_calloc(t->ctx, layout->count, sizeof *values, "adapter");
        if (values == NULL) return BASE_ERR_NOMEM;
        if (given != NULL)
            memcpy(values, given, (size_t)layout->count * sizeof *values);
        else
            train_values(layout, 100 + (uint64_t)a, 0.1, values);
        const base_status_t st = lora_adapter_set_write(t->adapters, a, t->stream, values);
        base_free(t->ctx, values);
        BASE_TRY(st);
    }
    return BASE_OK;
}

static base_status_t run_body(const train_case_t *c, train_rank_t *rank)
{
    tr_trainer_t *t = rank->trainer;

    if (t->index >= 0) {
        if (rank->folder != NULL)
            BASE_TRY(tr_hf_load(t->weights, rank->folder, t->stream));
        else
            BASE_TRY(tr_weights_random(t->weights, t->stream, c->weight_seed));
        BASE_TRY(write_adapters(c, t));
    }
    BASE_TRY(tr_gradients_zero(t));
    BASE_TRY(c->body(rank, c->user));
    return tr_trainer_sync(t);
}

static base_status_t run_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    const train_case_t *c = user;
    train_rank_t rank = {.c = c, .ctx = ctx, .spec = c->spec};
    data_hf_folder_t *folder = NULL;
    as_topology_t *topology = NULL;
    base_status_t st;

    if (c->folder != NULL) {
        BASE_TRY(data_hf_folder_open(ctx, c->folder, NULL, &folder));
        rank.folder = folder;
        rank.spec = data_hf_folder_spec(folder);
    }
    BASE_TRY_GOTO(as_topology_create(ctx, c->placement, comm_group_size(group), NULL, 1, &topology),
                  st, out);
    const tr_build_t build = {.spec = rank.spec,
                              .dtype = c->dtype,
                              .recompute = c->recompute,
                              .topology = topology,
                              .tokens_per_trainer = c->tokens_per_trainer,
                              .longest = c->longest,
                              .server_speeds = c->server_speeds,
                              .optimizer = 1,
                              .num_adapters = c->num_adapters,
                              .adapters = c->adapters,
                              .rank_columns = all_ranks(c),
                              .retain_bytes = c->retain_bytes > 0 ? c->retain_bytes : 65536,
                              .serial = c->serial,
                              .follow_servers = c->device == BASE_DEVICE_CUDA}; /* as a run */
    BASE_TRY_GOTO(tr_build_trainer(ctx, dev, group, &build, &rank.lots, &rank.trainer), st, out);
    st = run_body(c, &rank);
    if (st >= 0) st = comm_barrier(group);
    tr_trainer_destroy(rank.trainer);
out:
    as_topology_destroy(topology);
    data_hf_folder_close(folder);
    return st;
}

void train_case_run(const train_case_t *c)
{
    const int num_ranks = c->num_ranks > 0 ? c->num_ranks : 1;
    const comm_threads_options_t threads = {.num_ranks = num_ranks,
                                            .device = c->device,
                                            .seed = c->device_seed,
                                            .delay_ns = c->delay_ns};
    const comm_mpi_options_t processes = {.num_ranks = num_ranks,
                                          .device = c->device,
                                          .seed = c->device_seed,
                                          .delay_ns = c->delay_ns};
    base_error_t error = {0};
    train_case_t copy = *c;
    const base_status_t st = c->mpi == NULL
                                 ? comm_threads_run(&threads, run_rank, &copy, &error)
                                 : comm_mpi_run(c->mpi, &processes, run_rank, &copy, &error);

    if (st < 0) fail_msg("%s: %s:%d: %s", base_status_name(st), error.file, error.line, error.text);
}

void train_values(const lora_layout_t *layout, uint64_t seed, double spread, double *values)
{
    for (int64_t m = 0; m < layout->num_modules; m++) {
        const lora_module_t *module = &layout->modules[m];
        const int64_t end = module->b + module->out * layout->rank;

        for (int64_t i = module->a; i < end; i++) {
            const double s = i < module->b ? 1.0 / sqrt((double)module->in) : spread;
            double normal[2];

            base_philox_normal2(
                base_philox(base_philox_key(seed), (uint32_t)i, (uint32_t)m, 0, 0x54u), normal);
            values[i] = (double)(float)(s * normal[0]); /* the same in fp32 and fp64 */
        }
    }
}

/* ==== documents ==== */

static void fill_arrays(const data_document_t *documents, int32_t count, int64_t *offsets,
                        int32_t *tokens, uint8_t *mask)
{
    for (int32_t d = 0; d < count; d++) {
        const data_document_t *doc = &documents[d];

        memcpy(tokens + offsets[d], doc->tokens, (size_t)doc->rows * sizeof *tokens);
        memcpy(mask + offsets[d], doc->loss_mask, (size_t)doc->rows);
        mask[offsets[d]] = 0;
    }
}

base_status_t train_write_dataset(base_ctx_t *ctx, const char *path,
                                  const data_document_t *documents, int32_t count, int64_t vocab)
{
    data_dataset_content_t content = {.attributes = {.creator = "a test",
                                                     .tokenizer_sha256 = TRAIN_CASE_SHA,
                                                     .template_sha256 = "",
                                                     .source = "memory",
                                                     .source_sha256 = TRAIN_CASE_SHA,
                                                     .settings = "{}",
                                                     .vocab_size = vocab,
                                                     .eos_id = 2,
                                                     .bos_id = -1,
                                                     .num_documents = count}};
    base_status_t st = BASE_ERR_NOMEM;

    int64_t *offsets = calloc((size_t)count + 1, sizeof *offsets);
    if (offsets == NULL) return BASE_ERR_NOMEM;
    for (int32_t d = 0; d < count; d++)
        offsets[d + 1] = offsets[d] + documents[d].rows;
    int32_t *tokens = calloc((size_t)offsets[count], sizeof *tokens);
    uint8_t *mask = calloc((size_t)offsets[count], sizeof *mask);
    if (tokens != NULL && mask != NULL) {
        fill_arrays(documents, count, offsets, tokens, mask);
        content.offsets = offsets;
        content.tokens = tokens;
        content.loss_mask = mask;
        st = data_dataset_write(ctx, path, &content);
    }
    free(mask);
    free(tokens);
    free(offsets);
    return st;
}

void train_lot_add(tr_lot_t *lot, const data_document_t *document)
{
    if (!tr_lot_fits(lot, document->rows)) abort(); /* the test's tokens_per_trainer is too small */
    lot->documents[lot->num_documents++] = *document;
    lot->rows += document->rows;
    lot->aligned_rows += lora_pack_aligned(document->rows);
}

base_status_t train_lot_run(train_rank_t *rank, tr_lot_t *lot, int evaluate)
{
    BASE_TRY(tr_lot_finish(lot));
    if (evaluate) return tr_microbatch_evaluate(rank->trainer, lot->batch, tr_lot_plans(lot));
    return tr_microbatch_run(rank->trainer, lot->batch, tr_lot_plans(lot));
}

/* ==== jobs ==== */

typedef struct recorder {
    train_rank_t *rank;
    tr_job_t **jobs;
    train_log_t *logs;
    int64_t microbatches, requests; /* memory's at the last one */
} recorder_t;

static base_status_t on_microbatch(void *user, int64_t microbatch, int64_t document_rows)
{
    recorder_t *r = user;
    const int64_t requests = base_memory_calls(base_ctx_memory(r->rank->ctx));

    (void)microbatch;
    (void)document_rows;
    /* The step that the second one may complete is the first that is counted. */
    if (++r->microbatches > 2) r->logs[0].late_requests += requests - r->requests;
    r->requests = requests;
    return BASE_OK;
}

static base_status_t on_gradient(void *user, int32_t job)
{
    recorder_t *r = user;
    const int64_t requests = base_memory_calls(base_ctx_memory(r->rank->ctx));

    if (r->logs[job].gradient == NULL || r->jobs[job]->step > 0) return BASE_OK;
    const base_status_t st =
        tr_gradients_read_adapter(r->rank->trainer, job, r->logs[job].gradient);
    r->requests += base_memory_calls(base_ctx_memory(r->rank->ctx)) - requests;
    return st;
}

static base_status_t on_step(void *user, int32_t job, const tr_train_step_t *step)
{
    const recorder_t *r = user;
    train_log_t *log = &r->logs[job];

    if (step->given->step != log->steps + 1 || log->steps == TRAIN_LOG_STEPS)
        return BASE_FAIL(r->rank->ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01, "job %d: step %lld", job,
                         (long long)step->given->step);
    log->loss[log->steps] = step->loss;
    log->norm[log->steps] = step->norm;
    log->rate[log->steps] = step->given->learning_rate;
    log->steps++;
    log->microbatches = step->given->microbatch + 1;
    return BASE_OK;
}

static base_status_t on_evaluated(void *user, int32_t job, double loss, int best)
{
    const recorder_t *r = user;
    train_log_t *log = &r->logs[job];

    if (best) log->best_evaluation = log->evaluations;
    if (log->evaluations < TRAIN_LOG_STEPS) log->evaluation[log->evaluations++] = loss;
    return BASE_OK;
}

static base_status_t on_ended(void *user, int32_t job)
{
    const recorder_t *r = user;

    r->logs[job].ended++;
    r->logs[job].state = r->jobs[job]->state;
    return BASE_OK;
}

static base_status_t open_jobs(train_rank_t *rank, const base_config_adapter_t *configs,
                               int32_t num_jobs, tr_job_t **jobs)
{
    base_error_list_t errors;
    base_status_t st = BASE_OK;

    base_error_list_init(&errors, rank->ctx);
    for (int32_t j = 0; j < num_jobs && st >= 0; j++) {
        st = tr_job_open(rank->ctx, &configs[j], configs[j].name, configs[j].data, configs[j].eval,
                         TRAIN_CASE_SHA, rank->spec->vocab, &errors, &jobs[j]);
        if (st >= 0 && jobs[j] == NULL)
            st = BASE_FAIL(rank->ctx, BASE_ERR_FORMAT, BASE_MSG_INT_01, "job %d: does not open", j);
    }
    base_error_list_deinit(&errors);
    return st;
}

static base_status_t run_jobs(train_rank_t *rank, tr_job_t **jobs, int32_t num_jobs,
                              train_log_t *logs)
{
    recorder_t recorder = {.rank = rank, .jobs = jobs, .logs = logs};
    const int leader = base_ctx_rank(rank->ctx) == 0;
    const tr_train_options_t options = {.rank_columns = all_ranks(rank->c)};
    const tr_train_events_t all = {.user = &recorder,
                                   .microbatch = on_microbatch,
                                   .gradient = on_gradient,
                                   .step = on_step,
                                   .evaluated = on_evaluated,
                                   .ended = on_ended};
    const tr_train_events_t none = {0};
    tr_train_t *train;
    base_status_t st;

    BASE_TRY(tr_train_create(rank->ctx, rank->trainer, jobs, num_jobs, &rank->lots, &options,
                             leader ? &all : &none, &train));
    st = tr_train_run(train);
    if (leader) logs[0].waits = tr_train_host_waits(train);
    for (int32_t j = 0; j < num_jobs && st >= 0 && leader; j++) {
        if (logs[j].final != NULL) st = tr_train_values(train, j, logs[j].final);
    }
    tr_train_destroy(train);
    return st;
}

base_status_t train_run_jobs(train_rank_t *rank, const base_config_adapter_t *configs,
                             int32_t num_jobs, train_log_t *logs)
{
    tr_job_t *jobs[8] = {NULL};

    if (num_jobs > 8) abort();
    base_status_t st = open_jobs(rank, configs, num_jobs, jobs);
    if (st >= 0) st = run_jobs(rank, jobs, num_jobs, logs);
    for (int32_t j = 0; j < num_jobs; j++)
        tr_job_close(jobs[j]);
    return st;
}

base_config_adapter_t train_config(const char *name, const char *data, int64_t steps, int64_t batch,
                                   double rate)
{
    return (base_config_adapter_t){.name = (char *)(uintptr_t)name,
                                   .data = (char *)(uintptr_t)data,
                                   .steps = steps,
                                   .global_batch_documents = batch,
                                   .learning_rate = rate,
                                   .schedule = BASE_CONFIG_SCHEDULE_CONSTANT,
                                   .eval_every_steps = 1,
                                   .betas = {0.9, 0.999},
                                   .eps = 1e-8,
                                   .clip_norm = 1.0,
                                   .order = BASE_CONFIG_ORDER_FILE};
}
