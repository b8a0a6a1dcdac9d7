/* Marks of the cuda device. A mark is an event with a time, recorded in the stream, and what it stands
 * for waits in a ring until the event has happened: looked at when many are waiting, and whenever the
 * host has waited for the stream. Nobody waits for marks, but a host that is RING marks ahead.
 *
 * An event's time is that since an anchor, an event of a stream of its own which is idle, so that the
 * host knows when it happened, give or take the microseconds that a query takes. CUDA tells times as
 * float milliseconds, and two clocks drift: an anchor of a second ago is replaced. Marks that were
 * recorded before the new one keep the old. */
#include "base/device/device_cuda.h"

#include "base/clock.h"

#define RING      4096 /* a microbatch of 32 layers has some 1500 */
#define LOOK_AT   64
#define ANCHOR_NS INT64_C(1000000000)
#define NAP_NS    50000

typedef struct mark_entry {
    cudaEvent_t event;
    base_mark_t mark;
} mark_entry_t;

typedef struct mark_anchor {
    cudaEvent_t event;
    int64_t at_ns;
    int64_t first; /* the first mark whose time is counted from it */
} mark_anchor_t;

struct base_cuda_marks {
    cudaStream_t idle;
    mark_anchor_t anchors[2];
    int now;            /* the newer one */
    int64_t head, tail; /* numbers of marks: [tail, head) are waiting */
    mark_entry_t ring[RING];
};

/* Half way between the two readings of the clock. */
static base_status_t drop_anchor(base_cuda_stream_t *s)
{
    base_cuda_marks_t *m = s->marks;
    mark_anchor_t *next = &m->anchors[1 - m->now];
    const int64_t before_ns = base_clock_ns();
    cudaError_t e = cudaEventRecord(next->event, m->idle);

    while (e == cudaSuccess && (e = cudaEventQuery(next->event)) == cudaErrorNotReady)
        e = cudaSuccess;
    STREAM_TRY(&s->base, "anchor of marks", e);
    next->at_ns = before_ns + (base_clock_ns() - before_ns) / 2;
    next->first = m->head;
    m->now = 1 - m->now;
    return BASE_OK;
}

/* No mark still needs the one before the newer one. */
static base_status_t renew_anchor(base_cuda_stream_t *s)
{
    const base_cuda_marks_t *m = s->marks;
    const mark_anchor_t *now = &m->anchors[m->now];

    if (m->tail < now->first || base_clock_ns() - now->at_ns < ANCHOR_NS) return BASE_OK;
    return drop_anchor(s);
}

static base_status_t make_marks(base_cuda_stream_t *s)
{
    base_ctx_t *ctx = s->base.dev->ctx;
    base_cuda_marks_t *m = base_calloc(ctx, 1, sizeof *m, "marks of a stream");
    cudaError_t e;

    if (m == NULL) return BASE_ERR_NOMEM;
    s->marks = m;
    e = cudaStreamCreateWithFlags(&m->idle, cudaStreamNonBlocking);
    for (int i = 0; i < 2 && e == cudaSuccess; i++)
        e = cudaEventCreate(&m->anchors[i].event);
    for (int i = 0; i < RING && e == cudaSuccess; i++)
        e = cudaEventCreate(&m->ring[i].event);
    STREAM_TRY(&s->base, "events of marks", e);
    return drop_anchor(s);
}

void base_cuda_marks_destroy(base_cuda_stream_t *s)
{
    base_cuda_marks_t *m = s->marks;
    base_device_t *dev = s->base.dev;

    if (m == NULL) return;
    for (int i = 0; i < RING; i++)
        if (m->ring[i].event != NULL)
            base_cuda_drop(dev, cudaEventDestroy(m->ring[i].event), "cudaEventDestroy");
    for (int i = 0; i < 2; i++)
        if (m->anchors[i].event != NULL)
            base_cuda_drop(dev, cudaEventDestroy(m->anchors[i].event), "cudaEventDestroy");
    if (m->idle != NULL) base_cuda_drop(dev, cudaStreamDestroy(m->idle), "cudaStreamDestroy");
    base_free(dev->ctx, m);
    s->marks = NULL;
}

/* The marks that the stream has come to by now. */
static base_status_t take_passed(base_cuda_stream_t *s)
{
    base_cuda_marks_t *m = s->marks;

    while (m->tail < m->head) {
        const mark_entry_t *entry = &m->ring[m->tail % RING];
        const int newer = m->tail >= m->anchors[m->now].first;
        const mark_anchor_t *anchor = &m->anchors[newer ? m->now : 1 - m->now];
        const cudaError_t e = cudaEventQuery(entry->event);
        float ms = 0.0F;

        if (e == cudaErrorNotReady) return BASE_OK;
        STREAM_TRY(&s->base, "mark", e);
        STREAM_TRY(&s->base, "time of a mark",
                   cudaEventElapsedTime(&ms, anchor->event, entry->event));
        m->tail++;
        base_stream_marked(&s->base, &entry->mark, anchor->at_ns + (int64_t)((double)ms * 1e6));
    }
    return BASE_OK;
}

base_status_t base_cuda_marks_settle(base_cuda_stream_t *s)
{
    if (s->marks == NULL) return BASE_OK;
    BASE_TRY(take_passed(s));
    return renew_anchor(s);
}

/* A free place in the ring. */
static base_status_t make_room(base_cuda_stream_t *s)
{
    base_ctx_t *ctx = s->base.dev->ctx;
    const int64_t end_ns = base_clock_ns() + base_ctx_deadline_ms(ctx) * 1000000;
    base_cuda_marks_t *m = s->marks;

    if (m->head - m->tail >= LOOK_AT) {
        BASE_TRY(take_passed(s));
        BASE_TRY(renew_anchor(s));
    }
    while (m->head - m->tail == RING) {
        if (base_ctx_stop_requested(ctx))
            return BASE_FAIL(ctx, BASE_ERR_PEER, BASE_MSG_COMM_01,
                             "%s: asked to stop while %d marks were waiting", s->base.name, RING);
        if (base_clock_ns() > end_ns)
            return BASE_FAIL(ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                             "%s: %d marks are waiting after %lld ms", s->base.name, RING,
                             (long long)base_ctx_deadline_ms(ctx));
        base_clock_sleep_ns(NAP_NS);
        BASE_TRY(take_passed(s));
    }
    return BASE_OK;
}

base_status_t base_cuda_stream_mark(base_stream_t *base, const base_mark_t *mark)
{
    base_cuda_stream_t *s = (base_cuda_stream_t *)base;

    BASE_TRY(base_cuda_enter(base->dev));
    if (s->marks == NULL) BASE_TRY(make_marks(s));
    BASE_TRY(make_room(s));
    BASE_TRY(base_cuda_pace(base));
    mark_entry_t *entry = &s->marks->ring[s->marks->head % RING];
    STREAM_TRY(base, "cudaEventRecord of a mark", cudaEventRecord(entry->event, s->native));
    entry->mark = *mark;
    s->marks->head++;
    return BASE_OK;
}
