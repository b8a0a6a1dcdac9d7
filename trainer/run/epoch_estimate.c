#include "trainer/run/epoch_estimate.h"

#include "base/memory.h"

static int any_left(const tr_horizon_t *horizon, tr_job_t *const *jobs, int32_t num_jobs)
{
    for (int32_t j = 0; j < num_jobs; j++)
        if (tr_horizon_documents(horizon, j) < jobs[j]->training_documents) return 1;
    return 0;
}

double tr_epoch_plan_gap(const tr_epoch_plan_t *plan)
{
    if (plan->bound_ns == 0) return 0.0;
    return 100.0 * ((double)plan->makespan_ns / (double)plan->bound_ns - 1.0);
}

static void note_plan(const tr_lot_t *lot, tr_epoch_estimate_t *e)
{
    if (e->num_plans == TR_EPOCH_PLANS) return;
    tr_epoch_plan_t *plan = &e->plans[e->num_plans++];

    *plan = (tr_epoch_plan_t){.document_rows = data_batch_document_rows(lot->batch)};
    for (int32_t k = 0; k < lot->options.plans.num_kinds; k++) {
        plan->makespan_ns += lot->scores[k].compute_ns;
        plan->bound_ns += lot->scores[k].bound_ns;
        plan->tasks += lot->scores[k].num_tasks;
        plan->remote += lot->scores[k].num_remote;
    }
}

static void count(const tr_lot_t *lot, tr_epoch_estimate_t *e)
{
    const int64_t rows = data_batch_trainer_rows(lot->batch);

    e->rows += rows;
    e->pad_rows += rows - data_batch_document_rows(lot->batch);
    e->microbatches++;
    note_plan(lot, e);
}

/* Evaluations are microbatches too, but none that are filled better by another configuration. */
static base_status_t plan_all(tr_horizon_t *horizon, tr_job_t *const *jobs, int32_t num_jobs,
                              tr_lot_t *lot, tr_entry_t *entry, tr_epoch_estimate_t *e)
{
    while (any_left(horizon, jobs, num_jobs) && e->microbatches < TR_EPOCH_MICROBATCHES) {
        BASE_TRY(tr_horizon_next(horizon, lot, entry));
        if (entry->kind == TR_ENTRY_END) break;
        if (entry->kind == TR_ENTRY_TRAIN) count(lot, e);
    }
    e->whole = e->microbatches < TR_EPOCH_MICROBATCHES || !any_left(horizon, jobs, num_jobs);
    return BASE_OK;
}

base_status_t tr_epoch_estimate(base_ctx_t *ctx, tr_job_t *const *jobs, int32_t num_jobs,
                                int64_t rank_columns, const tr_lot_options_t *lots,
                                tr_epoch_estimate_t *estimate)
{
    tr_lot_options_t sizes = *lots;
    tr_epoch_estimate_t e = {0};
    tr_entry_t entry = {0};
    tr_horizon_t *horizon = NULL;
    tr_lot_t *lot = NULL;
    base_status_t st = BASE_ERR_NOMEM;

    sizes.tokens = 0;
    entry.parts = base_calloc(ctx, num_jobs, sizeof *entry.parts, "estimate");
    if (entry.parts == NULL) goto out;
    BASE_TRY_GOTO(tr_horizon_create(ctx, jobs, num_jobs, rank_columns, &horizon), st, out);
    BASE_TRY_GOTO(tr_lot_create(ctx, &sizes, NULL, &lot), st, out);
    st = plan_all(horizon, jobs, num_jobs, lot, &entry, &e);
out:
    tr_lot_destroy(lot);
    tr_horizon_destroy(horizon);
    base_free(ctx, entry.parts);
    if (st >= 0) *estimate = e;
    return st;
}
