#include "trainer/loop/job_saved.h"

#include <inttypes.h>

void tr_job_save(const tr_job_t *job, tr_job_saved_t *saved)
{
#define X(name) saved->name = job->name;
    TR_JOB_SAVED_INT_MAP(X)
    TR_JOB_SAVED_DOUBLE_MAP(X)
#undef X
}

base_status_t tr_job_restore(tr_job_t *job, const tr_job_saved_t *saved, const char *source)
{
    if (saved->step < 0 || saved->step > job->total_steps || saved->documents < 0 ||
        saved->tokens < 0 || saved->supervised_tokens < 0 || saved->evals_without_gain < 0)
        return BASE_FAIL(job->ctx, BASE_ERR_FORMAT, BASE_MSG_RUN_06,
                         "%s: %s: step %" PRId64 " of %" PRId64 ", %" PRId64
                         " documents, cannot be",
                         source, job->name, saved->step, job->total_steps, saved->documents);
#define X(name) job->name = saved->name;
    TR_JOB_SAVED_INT_MAP(X)
    TR_JOB_SAVED_DOUBLE_MAP(X)
#undef X
    job->reported = job->step;
    return BASE_OK;
}
