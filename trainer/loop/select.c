#include "trainer/loop/select.h"

/* How far a job is, in units of 2^-20 of a step, divided by its steps: comparable between jobs. */
static int64_t progress(const tr_job_t *job)
{
    const int64_t unit = INT64_C(1) << 20;
    const int64_t steps =
        job->step * unit + (job->batch_count > 0 ? job->batch_next * unit / job->batch_count : 0);

    /* One more factor keeps jobs apart that differ by less than a step in a thousand. */
    return steps / (job->total_steps > 0 ? job->total_steps : 1) * 1024 +
           steps % (job->total_steps > 0 ? job->total_steps : 1) * 1024 /
               (job->total_steps > 0 ? job->total_steps : 1);
}

/* The running job that is least far and not passed over yet; -1: none. Ties by number. */
static int32_t least_far(tr_job_t *const *jobs, int32_t num_jobs, const int *chosen)
{
    int64_t least = INT64_MAX;
    int32_t best = -1;

    for (int32_t j = 0; j < num_jobs; j++) {
        if (jobs[j]->state != TR_JOB_RUNNING || tr_job_next(jobs[j]) < 0 || chosen[j] != 0)
            continue;
        if (progress(jobs[j]) >= least) continue;
        least = progress(jobs[j]);
        best = j;
    }
    return best;
}

/* Documents of one job, as many as fit. */
static base_status_t take(tr_job_t *job, int32_t index, tr_lot_t *lot, int64_t *taken)
{
    for (*taken = 0; tr_job_next(job) >= 0; ++*taken) {
        const int64_t document = tr_job_next(job);

        if (!tr_lot_fits(lot, data_dataset_rows(job->data, document))) return BASE_OK;
        BASE_TRY(tr_lot_add(lot, job->data, document, index, tr_job_row_weight(job)));
        tr_job_take(job);
    }
    return BASE_OK;
}

/* With whole documents a lot may be too full by a little: the last documents go back. */
static base_status_t finish(tr_job_t *const *jobs, tr_lot_t *lot)
{
    for (;;) {
        const base_status_t st = tr_lot_finish(lot);

        if (st != BASE_ERR_ARG || lot->num_documents == 1 ||
            lot->options.plans.topology->placement != AS_LOCAL)
            return st;
        base_ctx_clear_error(lot->ctx);
        tr_job_give_back(jobs[lot->documents[lot->num_documents - 1].adapter]);
        tr_lot_drop(lot);
    }
}

base_status_t tr_select_fill(tr_job_t *const *jobs, int32_t num_jobs, int64_t rank_columns,
                             int64_t microbatch, tr_lot_t *lot, int *chosen)
{
    int64_t ranks = 0, taken;

    for (int32_t j = 0; j < num_jobs; j++)
        chosen[j] = 0;
    tr_lot_begin(lot, microbatch);
    for (;;) {
        const int32_t j = least_far(jobs, num_jobs, chosen);

        if (j < 0) break;
        chosen[j] = -1; /* looked at */
        if (rank_columns > 0 && ranks + jobs[j]->config->rank > rank_columns) continue;
        BASE_TRY(take(jobs[j], j, lot, &taken));
        if (taken > 0) ranks += jobs[j]->config->rank;
    }
    BASE_TRY(finish(jobs, lot));
    for (int32_t j = 0; j < num_jobs; j++)
        chosen[j] = 0;
    for (int32_t d = 0; d < lot->num_documents; d++)
        chosen[lot->documents[d].adapter] = 1;
    return BASE_OK;
}
