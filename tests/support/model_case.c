#include "tests/support/model_case.h"

#include "base/hash.h"
#include "base/memory.h"
#include "lora/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Everything that the ranks share: made before them, read by them; each writes its own parts of the
 * result. */
typedef struct job {
    const model_case_t *c;
    model_result_t *result;
    base_ctx_t *ctx; /* of what is made before the ranks */
    as_topology_t *topology;
    tr_model_t *model;
    int32_t num_microbatches;
    data_batch_t **batches; /* [num_microbatches] */
    as_plan_t **plans;      /* [num_microbatches][AS_MAX_KINDS] */
    tr_trainer_config_t config;
    uint64_t *trainer_hash; /* [num_trainers] of losses and gradients */
    int64_t *rank_requests; /* [num_ranks] */
} job_t;

model_case_t model_case_default(const model_documents_t *documents)
{
    static const int64_t windows[] = {0, 100};

    return (model_case_t){.documents = documents,
                          .model = {.num_layers = 2,
                                    .hidden = 24,
                                    .intermediate = 40,
                                    .vocab = documents->vocab,
                                    .num_q_heads = 4,
                                    .num_kv_heads = 2,
                                    .head_dim = 8,
                                    .max_positions = 2048,
                                    .rms_eps = 1e-5,
                                    .rope_theta = 10000.0,
                                    .dtype = KERN_F64,
                                    .layer_window = windows,
                                    .extra_columns = 64},
                          .weight_seed = 1,
                          .placement = AS_IN_PLACE,
                          .num_ranks = 1,
                          .servers_per_host = 1,
                          .device = BASE_DEVICE_CPU};
}

/* ==== layouts and plans ==== */

static base_status_t pack(const job_t *job, int32_t first, int32_t count, data_batch_t *batch)
{
    const model_case_t *c = job->c;
    const int32_t trainers = job->topology->num_trainers;
    const int64_t step = 2 * DATA_ROW_ALIGN;
    int64_t rows = 0;

    if (c->layout != NULL) return c->layout(c->user, c->documents, first, count, trainers, batch);
    for (int32_t d = first; d < first + count; d++)
        rows += c->documents->list[d].rows;
    lora_pack_t options = {.microbatch = batch->microbatch,
                           .num_trainers = trainers,
                           .tokens_per_trainer = c->tokens_per_trainer,
                           .whole_documents = c->placement == AS_LOCAL,
                           .num_documents = count,
                           .documents = c->documents->list + first};
    if (c->tokens_per_trainer > 0) return lora_pack_fast(job->ctx, &options, batch);
    /* The least that fits: everything on one trainer is more than enough, rounding included. */
    for (int64_t t = (rows / trainers + step) / step * step; t <= 2 * rows + 4 * step; t += step) {
        options.tokens_per_trainer = t;
        const base_status_t st = lora_pack_fast(job->ctx, &options, batch);
        if (st != BASE_ERR_ARG) return st;
        base_ctx_clear_error(job->ctx);
    }
    return BASE_FAIL(job->ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01, "no packing of %lld rows fits",
                     (long long)rows);
}

static base_status_t make_plan(const job_t *job, int32_t microbatch, int32_t kind)
{
    const model_case_t *c = job->c;
    const data_batch_t *batch = job->batches[microbatch];
    as_plan_t *plan = job->plans[(int64_t)microbatch * AS_MAX_KINDS + kind];
    const as_plan_options_t options = {.window = job->model->window[kind],
                                       .num_kv_heads = c->model.num_kv_heads,
                                       .retain = c->retain};

    if (c->plan != NULL) return c->plan(c->user, options.window, batch, job->topology, plan);
    return as_plan_token(job->ctx, &options, batch, job->topology, plan);
}

static int32_t most_tasks(const model_case_t *c, int32_t pieces)
{
    int64_t rows = 0;

    for (int32_t d = 0; d < c->documents->count; d++)
        rows += c->documents->list[d].rows;
    return (int32_t)(2 * (rows / DATA_ROW_ALIGN + pieces + 1) * c->model.num_kv_heads);
}

static base_status_t make_microbatches(job_t *job)
{
    const model_case_t *c = job->c;
    const int32_t total = c->documents->count;
    const int32_t per = c->documents_per_microbatch > 0 ? c->documents_per_microbatch : total;
    const int32_t most_pieces = 2 * total + 4 * job->topology->num_trainers + 8;

    job->config.max_tasks = most_tasks(c, most_pieces);
    job->num_microbatches = (total + per - 1) / per;
    job->batches = base_calloc(job->ctx, job->num_microbatches, sizeof *job->batches, "batches");
    job->plans = base_calloc(job->ctx, (int64_t)job->num_microbatches * AS_MAX_KINDS,
                             sizeof *job->plans, "plans");
    if (job->batches == NULL || job->plans == NULL) return BASE_ERR_NOMEM;
    for (int32_t m = 0; m < job->num_microbatches; m++) {
        const int32_t first = m * per, count = total - first < per ? total - first : per;

        BASE_TRY(data_batch_create(job->ctx, total, most_pieces, job->topology->num_trainers,
                                   &job->batches[m]));
        job->batches[m]->microbatch = m;
        BASE_TRY(pack(job, first, count, job->batches[m]));
        for (int32_t t = 0; t < job->batches[m]->num_trainers; t++) {
            if (job->batches[m]->trainer_rows[t] > job->config.max_rows)
                job->config.max_rows = job->batches[m]->trainer_rows[t];
        }
        for (int32_t k = 0; k < job->model->num_kinds; k++) {
            BASE_TRY(as_plan_create(job->ctx, job->config.max_tasks,
                                    &job->plans[(int64_t)m * AS_MAX_KINDS + k]));
            BASE_TRY(make_plan(job, m, k));
        }
        job->result->pad_rows +=
            data_batch_trainer_rows(job->batches[m]) - data_batch_document_rows(job->batches[m]);
    }
    return BASE_OK;
}

/* Bytes that every task of a plan may take where it is served and where its rows are, counted twice
 * over. */
static int64_t task_bytes(const as_task_t *task, const tr_model_config_t *m, int64_t align)
{
    const int64_t heads = task->h1 - task->h0, group = m->num_q_heads / m->num_kv_heads;
    const int64_t q = (task->q1 - task->q0) * group * (4 * (int64_t)m->head_dim + 2);
    const int64_t kv = (task->q1 - task->k0) * (int64_t)m->head_dim * 6;

    return heads * ((q + kv) * 8 * 2 + 16 * align);
}

static void size_attention(job_t *job)
{
    const int64_t align = 4096;

    job->config.sums_per_server = job->c->sums_per_server;
    job->config.scratch_bytes = 16 * align;
    job->config.retain_bytes = 16 * align;
    for (int32_t m = 0; m < job->num_microbatches; m++) {
        int64_t scratch = 0, retained = 0;

        for (int32_t k = 0; k < job->model->num_kinds; k++) {
            const as_plan_t *plan = job->plans[(int64_t)m * AS_MAX_KINDS + k];
            for (int32_t i = 0; i < plan->num_tasks; i++) {
                const int64_t bytes = task_bytes(&plan->tasks[i], &job->c->model, align);
                scratch += bytes;
                retained += plan->tasks[i].retained ? bytes * job->c->model.num_layers : 0;
            }
        }
        if (scratch + 16 * align > job->config.scratch_bytes)
            job->config.scratch_bytes = scratch + 16 * align;
        if (retained + 16 * align > job->config.retain_bytes)
            job->config.retain_bytes = retained + 16 * align;
    }
}

/* ==== one rank ==== */

static base_status_t change_weights(const job_t *job, tr_trainer_t *trainer)
{
    base_status_t st = BASE_OK;

    if (job->c->change == NULL || trainer->index < 0) return BASE_OK;
    double *values = base_calloc(trainer->ctx, tr_model_largest_weight(job->model), sizeof *values,
                                 "changed weight");
    if (values == NULL) return BASE_ERR_NOMEM;
    for (int32_t i = 0; i < job->model->num_weights && st >= 0; i++) {
        st = tr_weights_read(trainer->weights, i, trainer->stream, values);
        if (st >= 0 && job->c->change(job->c->user, &job->model->weights[i], values))
            st = tr_weights_write(trainer->weights, i, trainer->stream, values);
    }
    base_free(trainer->ctx, values);
    return st;
}

/* Puts this trainer's hidden states at their documents' places; pieces are disjoint, so ranks do
 * not meet. */
static base_status_t read_hidden(const job_t *job, tr_trainer_t *trainer, int32_t microbatch)
{
    const data_batch_t *batch = job->batches[microbatch];
    const int64_t cols = job->c->model.hidden;
    base_status_t st = BASE_OK;

    double *values =
        base_calloc(trainer->ctx, job->config.max_rows * cols, sizeof *values, "hidden");
    if (values == NULL) return BASE_ERR_NOMEM;
    for (int h = 0; h < DATA_NUM_HALVES && st >= 0; h++) {
        st = tr_trainer_read_hidden(trainer, (data_half_t)h, values);
        for (int32_t p = 0; p < batch->num_pieces && st >= 0; p++) {
            const data_piece_t *piece = &batch->pieces[p];
            const int64_t index = batch->documents[piece->document].index;

            if (piece->trainer != trainer->index || piece->half != h) continue;
            memcpy(job->result->hidden + (job->result->document_at[index] + piece->doc_row) * cols,
                   values + piece->local_row * cols, (size_t)(piece->rows * cols) * sizeof *values);
        }
    }
    base_free(trainer->ctx, values);
    return st;
}

static base_status_t read_sums(const job_t *job, tr_trainer_t *trainer)
{
    model_result_t *r = job->result;
    base_status_t st = BASE_OK;

    double *all = base_calloc(trainer->ctx, r->num_parameters + r->adapters, sizeof *all, "sums");
    if (all == NULL) return BASE_ERR_NOMEM;
    for (int32_t i = 0; i < r->num_weights && st >= 0; i++)
        st = tr_gradients_read(trainer, i, all + r->weight_at[i]);
    if (st >= 0) st = tr_gradients_read_losses(trainer, all + r->num_parameters);
    if (st >= 0) {
        const size_t bytes = (size_t)(r->num_parameters + r->adapters) * sizeof *all;
        job->trainer_hash[trainer->index] = base_hash_bytes(BASE_HASH_START, all, bytes);
        if (trainer->index == 0) {
            memcpy(r->gradients, all, (size_t)r->num_parameters * sizeof *all);
            memcpy(r->losses, all + r->num_parameters, (size_t)r->adapters * sizeof *all);
        }
    }
    base_free(trainer->ctx, all);
    return st;
}

static base_status_t run_microbatches(const job_t *job, tr_trainer_t *trainer)
{
    const int32_t rounds = job->c->repeat > 0 ? job->c->repeat : 1;
    int64_t *requests = &job->rank_requests[comm_group_rank(trainer->group)];

    BASE_TRY(change_weights(job, trainer));
    BASE_TRY(tr_gradients_zero(trainer));
    for (int32_t i = 0; i < rounds * job->num_microbatches; i++) {
        const int32_t m = i % job->num_microbatches;
        const as_plan_t *plans[AS_MAX_KINDS];
        const int64_t before = base_memory_calls(base_ctx_memory(trainer->ctx));

        for (int32_t k = 0; k < AS_MAX_KINDS; k++)
            plans[k] = job->plans[(int64_t)m * AS_MAX_KINDS + k];
        BASE_TRY(tr_microbatch_run(trainer, job->batches[m], plans));
        if (i >= 2) *requests += base_memory_calls(base_ctx_memory(trainer->ctx)) - before;
        /* Reading waits, so it is left to the last round: the others run on, as a job's do. */
        if (trainer->index >= 0 && i >= (rounds - 1) * job->num_microbatches)
            BASE_TRY(read_hidden(job, trainer, m));
    }
    BASE_TRY(tr_gradients_reduce(trainer));
    BASE_TRY(tr_trainer_sync(trainer));
    return trainer->index >= 0 ? read_sums(job, trainer) : BASE_OK;
}

/* Host memory is left to the sanitizer: the transport's own queues may grow meanwhile. */
static int64_t live_objects(base_ctx_t *ctx)
{
    static const base_resource_t kinds[] = {BASE_RESOURCE_DEVICE, BASE_RESOURCE_PINNED,
                                            BASE_RESOURCE_STREAM, BASE_RESOURCE_EVENT,
                                            BASE_RESOURCE_COUNTER};
    int64_t live = 0;

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        live += base_memory_live(base_ctx_memory(ctx), kinds[i]);
    return live;
}

static base_status_t run_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    const job_t *job = user;
    const int64_t live = live_objects(ctx);
    tr_trainer_t *trainer;

    BASE_TRY(tr_trainer_create(ctx, dev, group, job->topology, &job->config, &trainer));
    base_status_t st = run_microbatches(job, trainer);
    /* The others may still read this rank's buffers. */
    if (st >= 0) st = comm_barrier(group);
    tr_trainer_destroy(trainer);
    if (st >= 0 && live_objects(ctx) != live)
        st = BASE_FAIL(ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                       "rank %d: objects outlive the trainer", comm_group_rank(group));
    return st;
}

/* ==== the run ==== */

static void *must(void *p)
{
    if (p == NULL) abort();
    return p;
}

static void allocate_result(job_t *job)
{
    const model_documents_t *docs = job->c->documents;
    model_result_t *r = job->result;
    int64_t rows = 0;

    r->num_documents = docs->count;
    r->adapters = docs->adapters;
    r->num_weights = job->model->num_weights;
    r->num_parameters = tr_model_parameters(job->model);
    r->hidden_cols = job->c->model.hidden;
    r->losses = must(calloc((size_t)r->adapters, sizeof *r->losses));
    r->weight_at = must(calloc((size_t)r->num_weights + 1, sizeof *r->weight_at));
    r->names = must(calloc((size_t)r->num_weights, sizeof *r->names));
    r->gradients = must(calloc((size_t)r->num_parameters, sizeof *r->gradients));
    r->document_at = must(calloc((size_t)docs->count + 1, sizeof *r->document_at));
    for (int32_t i = 0; i < r->num_weights; i++) {
        const tr_weight_spec_t *spec = &job->model->weights[i];
        r->weight_at[i + 1] = r->weight_at[i] + spec->rows * spec->cols;
        memcpy(r->names[i], spec->name, sizeof spec->name);
    }
    for (int32_t d = 0; d < docs->count; d++) {
        r->document_at[d] = rows;
        rows += docs->list[d].rows;
    }
    r->document_at[docs->count] = rows;
    r->hidden = must(calloc((size_t)(rows * r->hidden_cols), sizeof *r->hidden));
    job->trainer_hash =
        must(calloc((size_t)job->topology->num_trainers, sizeof *job->trainer_hash));
    job->rank_requests = must(calloc((size_t)job->c->num_ranks, sizeof *job->rank_requests));
}

static base_status_t check_trainers(job_t *job)
{
    model_result_t *r = job->result;
    const int64_t rows = r->document_at[job->c->documents->count];

    for (int32_t t = 1; t < job->topology->num_trainers; t++) {
        if (job->trainer_hash[t] != job->trainer_hash[0])
            return BASE_FAIL(job->ctx, BASE_ERR_MISMATCH, BASE_MSG_INT_01,
                             "trainer %d ends with other gradients than trainer 0", t);
    }
    for (int32_t a = 0; a < r->adapters; a++)
        r->loss += r->losses[a];
    for (int32_t i = 0; i < job->c->num_ranks; i++)
        r->late_requests += job->rank_requests[i];
    r->hash = base_hash_u64(BASE_HASH_START, job->trainer_hash[0]);
    r->hash =
        base_hash_bytes(r->hash, r->hidden, (size_t)(rows * r->hidden_cols) * sizeof *r->hidden);
    return BASE_OK;
}

static base_status_t prepare(job_t *job)
{
    const model_case_t *c = job->c;

    job->config = (tr_trainer_config_t){.model = c->model,
                                        .weight_seed = c->weight_seed,
                                        .recompute = c->recompute,
                                        .num_adapters = c->documents->adapters};
    BASE_TRY(as_topology_create(job->ctx, c->placement, c->num_ranks, NULL, c->servers_per_host,
                                &job->topology));
    BASE_TRY(tr_model_create(job->ctx, &c->model, &job->model));
    BASE_TRY(make_microbatches(job));
    size_attention(job);
    allocate_result(job);
    return BASE_OK;
}

static base_status_t run_ranks(job_t *job)
{
    const comm_threads_options_t options = {.num_ranks = job->c->num_ranks,
                                            .device = job->c->device,
                                            .seed = job->c->device_seed,
                                            .deadline_ms = job->c->deadline_ms,
                                            .delay_ns = job->c->delay_ns};

    BASE_TRY(prepare(job));
    const base_status_t st = comm_threads_run(&options, run_rank, job, &job->result->error);
    return st < 0 ? st : check_trainers(job);
}

static base_status_t clean_up(job_t *job, base_status_t st)
{
    for (int32_t m = 0; m < job->num_microbatches; m++) {
        for (int32_t k = 0; k < AS_MAX_KINDS && job->plans != NULL; k++)
            as_plan_destroy(job->plans[(int64_t)m * AS_MAX_KINDS + k]);
        if (job->batches != NULL) data_batch_destroy(job->batches[m]);
    }
    base_free(job->ctx, job->plans);
    base_free(job->ctx, job->batches);
    tr_model_destroy(job->model);
    as_topology_destroy(job->topology);
    free(job->trainer_hash);
    free(job->rank_requests);
    if (st >= 0 && base_memory_live_total(base_ctx_memory(job->ctx)) != 0)
        st = BASE_FAIL(job->ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01, "objects outlive the case");
    /* An error of a rank is there already. */
    if (job->result->error.status == BASE_OK) (void)base_ctx_error(job->ctx, &job->result->error);
    return st;
}

base_status_t model_case_run(const model_case_t *c, model_result_t *result)
{
    job_t job = {.c = c, .result = result};

    *result = (model_result_t){0};
    const base_status_t made = base_ctx_create(0, 1, NULL, &job.ctx);
    if (made < 0) return made;
    const base_status_t st = clean_up(&job, run_ranks(&job));
    base_ctx_destroy(job.ctx);
    return st;
}
