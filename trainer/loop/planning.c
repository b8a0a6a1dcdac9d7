#include "trainer/loop/planning.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#define POLL_NS 20000000 /* between looks at the stop flag */

typedef struct request {
    int32_t num_ends;
    tr_control_end_t ends[TR_CONTROL_MAX_ENDS];
} request_t;

struct tr_planning {
    base_ctx_t *ctx;
    int32_t num_jobs;
    tr_horizon_t *horizon;
    tr_planned_t planned[TR_PLANNING_LOTS]; /* microbatch n at n % TR_PLANNING_LOTS */
    request_t requests[TR_PLANNING_LOTS];
    int started;
    pthread_t thread;
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t changed;
    int64_t requested, done; /* microbatches below are asked for; are planned */
    base_status_t status;    /* of the first that failed */
    int closing;
};

/* ==== the thread ==== */

static base_status_t plan_one(tr_planning_t *p, int64_t n)
{
    const request_t *request = &p->requests[n % TR_PLANNING_LOTS];
    tr_planned_t *planned = &p->planned[n % TR_PLANNING_LOTS];
    const int64_t begin_ns = base_clock_ns();

    for (int32_t i = 0; i < request->num_ends; i++)
        tr_horizon_apply(p->horizon, request->ends[i].job, (tr_job_state_t)request->ends[i].state);
    tr_horizon_save(p->horizon, planned->before);
    BASE_TRY(tr_horizon_next(p->horizon, planned->lot, &planned->entry));
    base_trace_span(base_ctx_trace(p->ctx), BASE_LANE_PLANNING, "select, pack, plan", begin_ns,
                    base_clock_ns());
    return BASE_OK;
}

static void *planning_main(void *arg)
{
    tr_planning_t *p = arg;

    (void)pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (!p->closing && (p->done == p->requested || p->status < 0))
            (void)pthread_cond_wait(&p->changed, &p->mutex);
        if (p->closing) break;
        const int64_t n = p->done;
        (void)pthread_mutex_unlock(&p->mutex);
        const base_status_t st = plan_one(p, n);
        (void)pthread_mutex_lock(&p->mutex);
        p->planned[n % TR_PLANNING_LOTS].status = st;
        p->status = st;
        p->done++;
        (void)pthread_cond_broadcast(&p->changed);
    }
    (void)pthread_mutex_unlock(&p->mutex);
    return NULL;
}

/* ==== life ==== */

static base_status_t create_planned(tr_planning_t *p, const tr_lot_options_t *lots, int i)
{
    tr_planned_t *planned = &p->planned[i];

    BASE_TRY(tr_lot_create(p->ctx, lots, p->planned[0].lot, &planned->lot));
    planned->entry.parts =
        base_calloc(p->ctx, p->num_jobs, sizeof *planned->entry.parts, "planning");
    planned->before = base_calloc(p->ctx, tr_horizon_bytes(p->horizon), 1, "planning");
    return planned->entry.parts == NULL || planned->before == NULL ? BASE_ERR_NOMEM : BASE_OK;
}

base_status_t tr_planning_create(base_ctx_t *ctx, tr_job_t *const *jobs, int32_t num_jobs,
                                 int64_t rank_columns, const tr_lot_options_t *lots,
                                 tr_planning_t **planning_p)
{
    base_status_t st;

    tr_planning_t *p = base_calloc(ctx, 1, sizeof *p, "planning");
    if (p == NULL) return BASE_ERR_NOMEM;
    p->ctx = ctx;
    p->num_jobs = num_jobs;
    if (pthread_mutex_init(&p->mutex, NULL) != 0) {
        base_free(ctx, p);
        return BASE_ERR_NOMEM;
    }
    if (pthread_cond_init(&p->changed, NULL) != 0) {
        (void)pthread_mutex_destroy(&p->mutex);
        base_free(ctx, p);
        return BASE_ERR_NOMEM;
    }
    BASE_TRY_GOTO(tr_horizon_create(ctx, jobs, num_jobs, rank_columns, &p->horizon), st,
                  err_destroy);
    for (int i = 0; i < TR_PLANNING_LOTS; i++)
        BASE_TRY_GOTO(create_planned(p, lots, i), st, err_destroy);
    *planning_p = p;
    return BASE_OK;
err_destroy:
    tr_planning_destroy(p);
    return st;
}

static void stop_thread(tr_planning_t *p)
{
    if (!p->started) return;
    (void)pthread_mutex_lock(&p->mutex);
    p->closing = 1;
    (void)pthread_cond_broadcast(&p->changed);
    (void)pthread_mutex_unlock(&p->mutex);
    (void)pthread_join(p->thread, NULL);
    base_memory_count_close(base_ctx_memory(p->ctx), BASE_RESOURCE_THREAD);
}

void tr_planning_destroy(tr_planning_t *p)
{
    if (p == NULL) return;
    stop_thread(p);
    for (int i = TR_PLANNING_LOTS - 1; i >= 0; i--) {
        base_free(p->ctx, p->planned[i].before);
        base_free(p->ctx, p->planned[i].entry.parts);
        tr_lot_destroy(p->planned[i].lot);
    }
    tr_horizon_destroy(p->horizon);
    (void)pthread_cond_destroy(&p->changed);
    (void)pthread_mutex_destroy(&p->mutex);
    base_free(p->ctx, p);
}

tr_horizon_t *tr_planning_horizon(tr_planning_t *planning)
{
    return planning->horizon;
}

base_status_t tr_planning_start(tr_planning_t *p)
{
    p->requested = p->done = tr_horizon_microbatch(p->horizon);
    if (pthread_create(&p->thread, NULL, planning_main, p) != 0)
        return BASE_FAIL(p->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "rank %d: no thread for planning",
                         base_ctx_rank(p->ctx));
    p->started = 1;
    base_memory_count_open(base_ctx_memory(p->ctx), BASE_RESOURCE_THREAD);
    return BASE_OK;
}

/* ==== use ==== */

void tr_planning_request(tr_planning_t *p, const tr_control_end_t *ends, int32_t num_ends)
{
    (void)pthread_mutex_lock(&p->mutex);
    request_t *request = &p->requests[p->requested % TR_PLANNING_LOTS];
    request->num_ends = num_ends;
    if (num_ends > 0) memcpy(request->ends, ends, (size_t)num_ends * sizeof *ends);
    p->requested++;
    (void)pthread_cond_broadcast(&p->changed);
    (void)pthread_mutex_unlock(&p->mutex);
}

static struct timespec soon(void)
{
    struct timespec t = {0};

    (void)clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += POLL_NS;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

base_status_t tr_planning_wait(tr_planning_t *p, int64_t microbatch, tr_planned_t **planned_p)
{
    base_status_t st = BASE_OK;
    int stopped = 0;

    (void)pthread_mutex_lock(&p->mutex);
    while (p->done <= microbatch && p->status >= 0 && !stopped) {
        const struct timespec until = soon();

        if (pthread_cond_timedwait(&p->changed, &p->mutex, &until) == ETIMEDOUT)
            stopped = base_ctx_stop_requested(p->ctx);
    }
    if (p->done > microbatch)
        st = p->planned[microbatch % TR_PLANNING_LOTS].status;
    else if (p->status < 0)
        st = p->status;
    (void)pthread_mutex_unlock(&p->mutex);
    if (stopped)
        return BASE_FAIL(p->ctx, BASE_ERR_PEER, BASE_MSG_COMM_01,
                         "microbatch %" PRId64 ": asked to stop", microbatch);
    *planned_p = &p->planned[microbatch % TR_PLANNING_LOTS];
    return st;
}
