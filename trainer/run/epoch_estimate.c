#include "trainer/run/epoch_estimate.h"

#include "base/memory.h"

static int any_left(tr_job_t *const *jobs, int32_t num_jobs)
{
    for (int32_t j = 0; j < num_jobs; j++)
        if (jobs[j]->state == TR_JOB_RUNNING && jobs[j]->documents < jobs[j]->training_documents)
            return 1;
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

static base_status_t pack(tr_job_t *const *jobs, int32_t num_jobs, int64_t rank_columns,
                          tr_lot_t *lot, int *chosen, tr_epoch_estimate_t *e)
{
    const tr_step_result_t step = {0};

    BASE_TRY(tr_select_fill(jobs, num_jobs, rank_columns, e->microbatches, lot, chosen));
    const int64_t rows = data_batch_trainer_rows(lot->batch);
    e->rows += rows;
    e->pad_rows += rows - data_batch_document_rows(lot->batch);
    e->microbatches++;
    note_plan(lot, e);
    for (int32_t j = 0; j < num_jobs; j++)
        if (chosen[j] && tr_job_batch_complete(jobs[j])) tr_job_stepped(jobs[j], &step);
    return BASE_OK;
}

base_status_t tr_epoch_estimate(base_ctx_t *ctx, tr_job_t *const *jobs, int32_t num_jobs,
                                int64_t rank_columns, const tr_lot_options_t *lots,
                                tr_epoch_estimate_t *estimate)
{
    tr_lot_options_t sizes = *lots;
    tr_epoch_estimate_t e = {0};
    tr_lot_t *lot = NULL;
    base_status_t st = BASE_ERR_NOMEM;

    sizes.tokens = 0;
    int *chosen = base_calloc(ctx, num_jobs, sizeof *chosen, "estimate");
    if (chosen != NULL) st = tr_lot_create(ctx, &sizes, NULL, &lot);
    while (st >= 0 && any_left(jobs, num_jobs) && e.microbatches < TR_EPOCH_MICROBATCHES)
        st = pack(jobs, num_jobs, rank_columns, lot, chosen, &e);
    e.whole = !any_left(jobs, num_jobs);
    tr_lot_destroy(lot);
    base_free(ctx, chosen);
    if (st >= 0) *estimate = e;
    return st;
}
