#include "base/device/host_timeline.h"

/* A drain gives up this much later than the waits inside the work, whose texts say more. */
#define DRAIN_GRACE_MS 400

base_status_t base_host_timeline_create(base_ctx_t *ctx, base_host_timeline_t **t_p)
{
    base_host_timeline_t *t = base_calloc(ctx, 1, sizeof *t, "stream timeline");
    if (t == NULL) return BASE_ERR_NOMEM;
    t->ctx = ctx;
    atomic_init(&t->refs, 1);
    if (pthread_mutex_init(&t->mutex, NULL) != 0) goto err_free;
    if (base_device_cond_init(&t->given) != 0) goto err_mutex;
    if (base_device_cond_init(&t->done) != 0) goto err_given;
    *t_p = t;
    return BASE_OK;
err_given:
    pthread_cond_destroy(&t->given);
err_mutex:
    pthread_mutex_destroy(&t->mutex);
err_free:
    base_free(ctx, t);
    return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                     "stream: no mutex or condition variable");
}

void base_host_timeline_retain(base_host_timeline_t *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
}

void base_host_timeline_release(base_host_timeline_t *t)
{
    if (t == NULL || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) > 1) return;
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->given);
    pthread_mutex_destroy(&t->mutex);
    base_free(t->ctx, t);
}

/* The mutex is held and item n has run. */
static base_status_t timeline_status(const base_host_timeline_t *t, uint64_t n)
{
    return t->failed_at != 0 && t->failed_at <= n ? t->status : BASE_OK;
}

base_status_t base_host_timeline_query(base_host_timeline_t *t, uint64_t n)
{
    pthread_mutex_lock(&t->mutex);
    const base_status_t st = t->num_done >= n ? timeline_status(t, n) : BASE_PENDING;
    pthread_mutex_unlock(&t->mutex);
    return st;
}

static base_status_t timeline_wait(base_host_timeline_t *t, uint64_t n, const char *who, bool drain)
{
    const int64_t limit_ns =
        (base_ctx_deadline_ms(t->ctx) + (drain ? DRAIN_GRACE_MS : 0)) * 1000000;
    const int64_t poll_ns = (int64_t)BASE_DEVICE_POLL_MS * 1000000;
    int64_t start = base_device_now_ns();
    int64_t stop_seen = 0;
    base_status_t st = BASE_PENDING;

    pthread_mutex_lock(&t->mutex);
    uint64_t num_done = t->num_done;
    while (t->num_done < n && st == BASE_PENDING) {
        const int64_t now = base_device_now_ns();
        if (drain && t->num_done != num_done) {
            num_done = t->num_done;
            start = now;
        }
        const int64_t left_ns = limit_ns - (now - start);
        if (base_ctx_stop_requested(t->ctx)) {
            stop_seen = stop_seen == 0 ? now : stop_seen;
            if (!drain || now - stop_seen > (int64_t)DRAIN_GRACE_MS * 1000000) st = BASE_ERR_PEER;
        }
        if (st == BASE_PENDING && left_ns <= 0) st = BASE_ERR_TIMEOUT;
        if (st == BASE_PENDING)
            base_device_cond_wait_ns(&t->done, &t->mutex, left_ns < poll_ns ? left_ns : poll_ns);
    }
    if (st == BASE_PENDING)
        st = timeline_status(t, n);
    else
        num_done = t->num_done;
    const bool ran = t->num_done >= n;
    pthread_mutex_unlock(&t->mutex);
    if (st == BASE_ERR_PEER && !ran)
        BASE_FAIL(t->ctx, st, BASE_MSG_COMM_01, "%s: asked to stop after item %llu of %llu", who,
                  (unsigned long long)num_done, (unsigned long long)n);
    if (st == BASE_ERR_TIMEOUT && !ran)
        BASE_FAIL(t->ctx, st, BASE_MSG_COMM_02, "%s: item %llu of %llu did not end in %lld ms", who,
                  (unsigned long long)num_done + 1, (unsigned long long)n,
                  (long long)(limit_ns / 1000000));
    return st;
}

base_status_t base_host_timeline_wait(base_host_timeline_t *t, uint64_t n, const char *who)
{
    return timeline_wait(t, n, who, false);
}

base_status_t base_host_timeline_drain(base_host_timeline_t *t, const char *who)
{
    pthread_mutex_lock(&t->mutex);
    const uint64_t n = t->num_given;
    pthread_mutex_unlock(&t->mutex);
    return timeline_wait(t, n, who, true);
}

void base_host_timeline_advance(base_host_timeline_t *t, base_status_t st)
{
    pthread_mutex_lock(&t->mutex);
    t->num_done++;
    if (st < 0 && t->failed_at == 0) {
        t->failed_at = t->num_done;
        t->status = st;
    }
    pthread_cond_broadcast(&t->done);
    pthread_mutex_unlock(&t->mutex);
}
