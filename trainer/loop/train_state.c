/* Where a run is, as bytes. */
#include "trainer/loop/train.h"

#include <inttypes.h>
#include <string.h>

/* Of a job, beside the horizon's state. */
typedef struct job_end {
    int64_t state, verdict, tell_from, end_at;
} job_end_t;

static int64_t ends_bytes(const tr_train_t *t)
{
    return (int64_t)sizeof(int64_t) + t->num_jobs * (int64_t)sizeof(job_end_t);
}

int64_t tr_train_state_bytes(const tr_train_t *train)
{
    return ends_bytes(train) + tr_horizon_bytes(tr_planning_horizon(train->planning));
}

/* A job that has ended was told of long ago, also when the run has ended and told it behind the last
 * microbatch. */
static int64_t told_at(const tr_train_t *t, const tr_job_t *job)
{
    const int64_t latest = t->microbatch - TR_CONTROL_LOOK_AHEAD - 2;

    if (job->state == TR_JOB_RUNNING || job->end_at <= latest) return job->end_at;
    return latest > 0 ? latest : 0;
}

base_status_t tr_train_save_state(tr_train_t *train, void *bytes)
{
    const int64_t horizon = tr_horizon_bytes(tr_planning_horizon(train->planning));
    tr_planned_t *planned;
    char *to = bytes;

    BASE_TRY(tr_planning_wait(train->planning, train->microbatch, &planned));
    memcpy(to, &train->microbatch, sizeof train->microbatch);
    to += sizeof train->microbatch;
    for (int32_t j = 0; j < train->num_jobs; j++, to += sizeof(job_end_t)) {
        const tr_job_t *job = train->jobs[j];
        const job_end_t end = {job->state, job->verdict, job->tell_from, told_at(train, job)};

        memcpy(to, &end, sizeof end);
    }
    memcpy(to, planned->before, (size_t)horizon);
    return BASE_OK;
}

static int is_end(const job_end_t *e, int64_t microbatch)
{
    return e->state >= TR_JOB_RUNNING && e->state <= TR_JOB_QUARANTINED &&
           e->verdict >= TR_JOB_RUNNING && e->verdict <= TR_JOB_QUARANTINED &&
           e->tell_from <= microbatch + TR_STEP_RESULTS_AFTER && e->end_at >= -1 &&
           e->end_at < microbatch;
}

base_status_t tr_train_load_state(tr_train_t *train, const void *bytes, int64_t num_bytes)
{
    const int64_t want = tr_train_state_bytes(train);
    const char *from = bytes;
    int64_t microbatch;

    if (num_bytes != want)
        return BASE_FAIL(train->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "state of the run: %" PRId64 " bytes, want %" PRId64, num_bytes, want);
    memcpy(&microbatch, from, sizeof microbatch);
    from += sizeof microbatch;
    for (int32_t j = 0; j < train->num_jobs; j++, from += sizeof(job_end_t)) {
        job_end_t end;

        memcpy(&end, from, sizeof end);
        if (microbatch < 0 || !is_end(&end, microbatch))
            return BASE_FAIL(train->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "state of the run: job %" PRId32 " ended at microbatch %" PRId64
                             " of %" PRId64,
                             j, end.end_at, microbatch);
        train->jobs[j]->state = (tr_job_state_t)end.state;
        train->jobs[j]->verdict = (tr_job_state_t)end.verdict;
        train->jobs[j]->tell_from = end.tell_from;
        train->jobs[j]->end_at = end.end_at;
    }
    train->microbatch = microbatch;
    return tr_horizon_load(tr_planning_horizon(train->planning), from, want - ends_bytes(train));
}
