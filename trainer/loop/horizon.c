#include "trainer/loop/horizon.h"

#include "base/memory.h"
#include "trainer/loop/horizon_state.h"

#include <inttypes.h>
#include <string.h>

#define STATE_MAGIC INT64_C(0x316E6F7A69726F48) /* "Horizon1" */

/* ==== batches ==== */

static base_status_t draw_batch(tr_horizon_t *h, int32_t j)
{
    const tr_job_t *job = h->jobs[j];
    tr_horizon_batch_t *b = &h->batch[j];

    BASE_TRY(data_order_seek(job->order, h->state[j].cursor));
    const int64_t left = job->training_documents - data_order_position(job->order);
    b->count = left < b->max_count ? left : b->max_count;
    b->left = b->rows = b->left_rows = b->supervised = 0;
    for (int64_t i = b->first; i < b->first + b->count; i++) {
        const int64_t document = data_order_next(job->order);
        const int64_t rows = data_dataset_rows(job->data, document);

        h->documents[i] = document;
        b->rows += rows;
        b->supervised += data_dataset_supervised(job->data, document);
        b->left += !h->taken[i];
        b->left_rows += h->taken[i] ? 0 : rows;
    }
    return BASE_OK;
}

static int eval_due(const tr_horizon_t *h, int32_t j)
{
    const tr_job_t *job = h->jobs[j];
    const int64_t step = h->state[j].step;

    if (job->eval_documents == 0) return 0;
    return step == job->total_steps || step % job->config->eval_every_steps == 0;
}

/* All documents of the batch are planned: what the job does next. */
static base_status_t advance(tr_horizon_t *h, int32_t j)
{
    tr_horizon_job_t *s = &h->state[j];
    tr_horizon_batch_t *b = &h->batch[j];

    s->step++;
    s->cursor += b->count;
    memset(h->taken + b->first, 0, (size_t)b->max_count);
    if (eval_due(h, j)) s->eval_next = 0;
    if (s->step < h->jobs[j]->total_steps) return draw_batch(h, j);
    b->count = b->left = b->left_rows = 0;
    if (s->eval_next < 0) s->state = TR_JOB_DONE;
    return BASE_OK;
}

/* ==== creation ==== */

static int64_t sum_eval_supervised(const tr_job_t *job)
{
    int64_t supervised = 0;

    for (int64_t n = 0; n < job->eval_documents; n++) {
        int64_t index;
        const data_dataset_t *dataset = tr_job_eval_document(job, n, &index);

        supervised += data_dataset_supervised(dataset, index);
    }
    return supervised;
}

static base_status_t allocate(tr_horizon_t *h)
{
    base_ctx_t *ctx = h->ctx;
    const int64_t jobs = h->num_jobs, documents = h->num_documents;

    if ((h->taken = base_calloc(ctx, documents, sizeof *h->taken, "horizon")) == NULL ||
        (h->documents = base_calloc(ctx, documents, sizeof *h->documents, "horizon")) == NULL ||
        (h->rows = base_calloc(ctx, documents, sizeof *h->rows, "horizon")) == NULL ||
        (h->room = base_calloc(ctx, documents, sizeof *h->room, "horizon")) == NULL ||
        (h->supervised = base_calloc(ctx, documents, sizeof *h->supervised, "horizon")) == NULL ||
        (h->microbatch = base_calloc(ctx, documents, sizeof *h->microbatch, "horizon")) == NULL ||
        (h->place = base_calloc(ctx, documents, sizeof *h->place, "horizon")) == NULL ||
        (h->order = base_calloc(ctx, jobs, sizeof *h->order, "horizon")) == NULL ||
        (h->far = base_calloc(ctx, jobs, sizeof *h->far, "horizon")) == NULL ||
        (h->admitted = base_calloc(ctx, jobs, sizeof *h->admitted, "horizon")) == NULL ||
        (h->in_lot = base_calloc(ctx, jobs, sizeof *h->in_lot, "horizon")) == NULL ||
        (h->adapters = base_calloc(ctx, jobs, sizeof *h->adapters, "horizon")) == NULL ||
        (h->batches = base_calloc(ctx, jobs, sizeof *h->batches, "horizon")) == NULL ||
        (h->window_job = base_calloc(ctx, jobs, sizeof *h->window_job, "horizon")) == NULL)
        return BASE_ERR_NOMEM;
    const lora_packer_limits_t limits = {.max_adapters = h->num_jobs,
                                         .max_batches = h->num_jobs,
                                         .max_documents = (int32_t)documents};
    return lora_packer_create(ctx, &limits, &h->packer);
}

static base_status_t begin_jobs(tr_horizon_t *h)
{
    for (int32_t j = 0; j < h->num_jobs; j++) {
        const tr_job_t *job = h->jobs[j];
        const int64_t most = job->config->global_batch_documents;
        tr_horizon_batch_t *b = &h->batch[j];

        b->first = h->num_documents;
        b->max_count = most < job->training_documents ? most : job->training_documents;
        h->num_documents += b->max_count;
        h->state[j] = (tr_horizon_job_t){.eval_next = -1, .state = TR_JOB_RUNNING};
        h->eval_supervised[j] = sum_eval_supervised(job);
    }
    if (h->num_documents > INT32_MAX)
        return BASE_FAIL(h->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                         "global batches of %" PRId64 " documents in all, at most %" PRId32,
                         h->num_documents, INT32_MAX);
    BASE_TRY(allocate(h));
    for (int32_t j = 0; j < h->num_jobs; j++)
        BASE_TRY(draw_batch(h, j));
    return BASE_OK;
}

base_status_t tr_horizon_create(base_ctx_t *ctx, tr_job_t *const *jobs, int32_t num_jobs,
                                int64_t rank_columns, tr_horizon_t **horizon_p)
{
    base_status_t st = BASE_ERR_NOMEM;

    tr_horizon_t *h = base_calloc(ctx, 1, sizeof *h, "horizon");
    if (h == NULL) return BASE_ERR_NOMEM;
    h->ctx = ctx;
    h->jobs = jobs;
    h->num_jobs = num_jobs;
    h->rank_columns = rank_columns;
    h->state = base_calloc(ctx, num_jobs, sizeof *h->state, "horizon");
    h->batch = base_calloc(ctx, num_jobs, sizeof *h->batch, "horizon");
    h->eval_supervised = base_calloc(ctx, num_jobs, sizeof *h->eval_supervised, "horizon");
    if (h->state == NULL || h->batch == NULL || h->eval_supervised == NULL) goto err_destroy;
    BASE_TRY_GOTO(begin_jobs(h), st, err_destroy);
    *horizon_p = h;
    return BASE_OK;
err_destroy:
    tr_horizon_destroy(h);
    return st;
}

void tr_horizon_destroy(tr_horizon_t *h)
{
    if (h == NULL) return;
    lora_packer_destroy(h->packer);
    base_free(h->ctx, h->window_job);
    base_free(h->ctx, h->batches);
    base_free(h->ctx, h->adapters);
    base_free(h->ctx, h->in_lot);
    base_free(h->ctx, h->admitted);
    base_free(h->ctx, h->far);
    base_free(h->ctx, h->order);
    base_free(h->ctx, h->place);
    base_free(h->ctx, h->microbatch);
    base_free(h->ctx, h->supervised);
    base_free(h->ctx, h->room);
    base_free(h->ctx, h->rows);
    base_free(h->ctx, h->documents);
    base_free(h->ctx, h->taken);
    base_free(h->ctx, h->eval_supervised);
    base_free(h->ctx, h->batch);
    base_free(h->ctx, h->state);
    base_free(h->ctx, h);
}

/* ==== what comes next ==== */

void tr_horizon_set_exact(tr_horizon_t *h, int exact)
{
    h->exact = exact;
}

void tr_horizon_apply(tr_horizon_t *h, int32_t job, tr_job_state_t state)
{
    h->state[job].state = state;
    h->state[job].eval_next = -1;
}

/* As many documents of the evaluation as fit; with whole documents it may be too full by a little:
 * the last ones go back. */
static base_status_t fill_evaluation(tr_horizon_t *h, int32_t j, tr_lot_t *lot)
{
    const tr_job_t *job = h->jobs[j];
    int64_t *next = &h->state[j].eval_next;

    for (; *next < job->eval_documents; ++*next) {
        int64_t index;
        const data_dataset_t *dataset = tr_job_eval_document(job, *next, &index);

        if (!tr_lot_fits(lot, data_dataset_rows(dataset, index))) break;
        BASE_TRY(tr_lot_add(lot, dataset, index, j, 1.0 / (double)h->eval_supervised[j]));
    }
    for (;;) {
        const base_status_t st = tr_lot_finish(lot);

        if (st != BASE_ERR_ARG || lot->num_documents == 1 ||
            lot->options.plans.topology->placement != AS_LOCAL)
            return st;
        base_ctx_clear_error(h->ctx);
        tr_lot_drop(lot);
        --*next;
    }
}

static base_status_t next_evaluation(tr_horizon_t *h, int32_t j, tr_lot_t *lot, tr_entry_t *entry)
{
    tr_horizon_job_t *s = &h->state[j];

    BASE_TRY(fill_evaluation(h, j, lot));
    const int completes = s->eval_next == h->jobs[j]->eval_documents;
    entry->kind = TR_ENTRY_EVALUATE;
    entry->num_parts = 1;
    entry->parts[0] = (tr_entry_part_t){.job = j, .completes = completes};
    if (!completes) return BASE_OK;
    s->eval_next = -1;
    if (s->step == h->jobs[j]->total_steps) s->state = TR_JOB_DONE;
    return BASE_OK;
}

static base_status_t next_training(tr_horizon_t *h, tr_lot_t *lot, tr_entry_t *entry)
{
    BASE_TRY(tr_horizon_pack(h, lot));
    BASE_TRY(tr_lot_finish(lot));
    entry->kind = TR_ENTRY_TRAIN;
    entry->num_parts = 0;
    for (int32_t j = 0; j < h->num_jobs; j++) {
        const tr_horizon_batch_t *b = &h->batch[j];

        if (!h->in_lot[j]) continue;
        entry->parts[entry->num_parts++] = (tr_entry_part_t){.job = j,
                                                             .completes = b->left == 0,
                                                             .batch_documents = b->count,
                                                             .batch_rows = b->rows,
                                                             .batch_supervised = b->supervised};
        if (b->left == 0) BASE_TRY(advance(h, j));
    }
    return BASE_OK;
}

base_status_t tr_horizon_next(tr_horizon_t *h, tr_lot_t *lot, tr_entry_t *entry)
{
    int trains = 0;

    entry->microbatch = h->next;
    entry->kind = TR_ENTRY_END;
    entry->num_parts = 0;
    tr_lot_begin(lot, h->next);
    for (int32_t j = 0; j < h->num_jobs; j++) {
        if (h->state[j].eval_next >= 0) {
            h->next++;
            return next_evaluation(h, j, lot, entry);
        }
        trains |= tr_horizon_trains(h, j);
    }
    if (!trains) return BASE_OK;
    h->next++;
    return next_training(h, lot, entry);
}

int64_t tr_horizon_microbatch(const tr_horizon_t *h)
{
    return h->next;
}

int64_t tr_horizon_documents(const tr_horizon_t *h, int32_t job)
{
    return h->state[job].documents;
}

/* ==== as bytes ==== */

typedef struct head {
    int64_t magic, num_jobs, num_documents, next;
} head_t;

int64_t tr_horizon_bytes(const tr_horizon_t *h)
{
    return (int64_t)sizeof(head_t) + h->num_jobs * (int64_t)sizeof *h->state + h->num_documents;
}

void tr_horizon_save(const tr_horizon_t *h, void *bytes)
{
    const head_t head = {STATE_MAGIC, h->num_jobs, h->num_documents, h->next};
    char *to = bytes;

    memcpy(to, &head, sizeof head);
    to += sizeof head;
    memcpy(to, h->state, (size_t)h->num_jobs * sizeof *h->state);
    to += (size_t)h->num_jobs * sizeof *h->state;
    memcpy(to, h->taken, (size_t)h->num_documents);
}

static int is_state(const tr_horizon_t *h, int32_t j)
{
    const tr_horizon_job_t *s = &h->state[j];

    return s->cursor >= 0 && s->step >= 0 && s->step <= h->jobs[j]->total_steps &&
           s->documents >= 0 && s->eval_next >= -1 && s->eval_next <= h->jobs[j]->eval_documents &&
           s->state >= TR_JOB_RUNNING && s->state <= TR_JOB_QUARANTINED;
}

base_status_t tr_horizon_load(tr_horizon_t *h, const void *bytes, int64_t num_bytes)
{
    const char *from = bytes;
    head_t head = {0};

    if (num_bytes == tr_horizon_bytes(h)) memcpy(&head, from, sizeof head);
    if (head.magic != STATE_MAGIC || head.num_jobs != h->num_jobs ||
        head.num_documents != h->num_documents)
        return BASE_FAIL(h->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "planning state: %" PRId64 " bytes of %" PRId64 " jobs, want %" PRId64
                         " of %" PRId32,
                         num_bytes, head.num_jobs, tr_horizon_bytes(h), h->num_jobs);
    h->next = head.next;
    from += sizeof head;
    memcpy(h->state, from, (size_t)h->num_jobs * sizeof *h->state);
    from += (size_t)h->num_jobs * sizeof *h->state;
    memcpy(h->taken, from, (size_t)h->num_documents);
    for (int32_t j = 0; j < h->num_jobs; j++) {
        /* It was done, and is given more steps. */
        if (h->state[j].state == TR_JOB_DONE && h->state[j].step < h->jobs[j]->total_steps)
            h->state[j].state = TR_JOB_RUNNING;
        if (!is_state(h, j))
            return BASE_FAIL(h->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "planning state: job %" PRId32 " at step %" PRId64 " of %" PRId64, j,
                             h->state[j].step, h->jobs[j]->total_steps);
        if (h->state[j].step < h->jobs[j]->total_steps)
            BASE_TRY(draw_batch(h, j));
        else
            h->batch[j].count = h->batch[j].left = h->batch[j].left_rows = 0;
    }
    return BASE_OK;
}
