#include "base/clock.h"
#include "base/device/device_host.h"
#include "base/device/device_ops.h"

#include <assert.h>
#include <stdio.h>

/* ==== streams ==== */

void base_stream_init_common(base_stream_t *s, base_device_t *dev, base_stream_kind_t kind,
                             const char *name)
{
    s->dev = dev;
    s->kind = kind;
    s->part = NULL;
    s->meter = NULL;
    s->lane = 0;
    s->settle = NULL;
    s->settle_user = NULL;
    atomic_init(&s->status, BASE_OK);
    snprintf(s->name, sizeof s->name, "%s", name);
}

base_status_t base_stream_fail(base_stream_t *s, base_status_t st)
{
    int none = BASE_OK;
    atomic_compare_exchange_strong_explicit(&s->status, &none, (int)st, memory_order_acq_rel,
                                            memory_order_acquire);
    return st;
}

static base_status_t stream_state(base_stream_t *s)
{
    return (base_status_t)atomic_load_explicit(&s->status, memory_order_acquire);
}

base_status_t base_stream_create(base_device_t *dev, base_stream_kind_t kind, const char *name,
                                 base_stream_t **s_p)
{
    BASE_TRY(dev->ops->stream_create(dev, kind, name, s_p));
    base_memory_count_open(base_ctx_memory(dev->ctx), BASE_RESOURCE_STREAM);
    return BASE_OK;
}

void base_stream_destroy(base_stream_t *s)
{
    base_stream_part_t *part;

    if (s == NULL) return;
    part = s->part;
    base_memory_count_close(base_ctx_memory(s->dev->ctx), BASE_RESOURCE_STREAM);
    s->dev->ops->stream_destroy(s);
    if (part != NULL) part->destroy(part);
}

base_stream_part_t *base_stream_kept(const base_stream_t *s)
{
    return s->part;
}

void base_stream_keep(base_stream_t *s, base_stream_part_t *part)
{
    assert(s->part == NULL);
    s->part = part;
}

base_device_t *base_stream_device(const base_stream_t *s)
{
    return s->dev;
}

base_status_t base_stream_sync(base_stream_t *s)
{
    (void)atomic_fetch_add_explicit(&s->dev->waits, 1, memory_order_relaxed);
    return s->dev->ops->stream_sync(
        s); /* also on a failed stream: what was given before may still run */
}

base_status_t base_stream_settle(base_stream_t *s)
{
    if (s->settle != NULL) BASE_TRY(s->settle(s->settle_user));
    return base_stream_sync(s);
}

void base_stream_on_settle(base_stream_t *s, base_settle_fn fn, void *user)
{
    s->settle = fn;
    s->settle_user = user;
}

void *base_stream_native(base_stream_t *s)
{
    return s->dev->ops->stream_native == NULL ? NULL : s->dev->ops->stream_native(s);
}

/* A stream reaches the memory of its own kind of device; cpu and strict are one family. */
static base_status_t stream_reaches(base_stream_t *s, const base_range_t *r, const char *what)
{
    const base_buffer_t *buf = r->mem.buffer;
    BASE_TRY(base_range_check(s->dev->ctx, r, what));
    if (buf != NULL && base_device_is_host(buf->dev) != base_device_is_host(s->dev))
        return BASE_FAIL(s->dev->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: buffer %s of %s given to stream %s of %s", what, buf->name,
                         buf->dev->name, s->name, s->dev->name);
    return BASE_OK;
}

base_status_t base_stream_submit(base_stream_t *s, base_work_fn work, const void *args,
                                 size_t args_bytes, const base_operand_t *operands,
                                 int num_operands)
{
    const char *const names[4] = {"operand 0", "operand 1", "operand 2", "operand 3"};

    BASE_TRY(stream_state(s));
    if (s->dev->ops->stream_submit == NULL)
        return BASE_FAIL(s->dev->ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                         "stream %s: %s does not run host functions", s->name, s->dev->name);
    if (work == NULL || num_operands < 0 || (args == NULL && args_bytes > 0) ||
        (operands == NULL && num_operands > 0))
        return BASE_FAIL(s->dev->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "stream %s: work, arguments or operands are missing", s->name);
    for (int i = 0; i < num_operands; i++) {
        const char *what =
            i < 4 ? names[i] : "operand 4 or later"; /* no formatting: every op passes here */
        BASE_TRY(stream_reaches(s, &operands[i].range, what));
        if (operands[i].access < BASE_READ || operands[i].access > BASE_READ_WRITE)
            return BASE_FAIL(s->dev->ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s: access %d", what,
                             (int)operands[i].access);
    }
    return s->dev->ops->stream_submit(s, work, args, args_bytes, operands, num_operands);
}

/* ==== events ==== */

base_status_t base_event_create(base_device_t *dev, base_event_t **e_p)
{
    base_event_t *e;
    BASE_TRY(dev->ops->event_create(dev, &e));
    e->dev = dev;
    atomic_init(&e->recorded, false);
    base_memory_count_open(base_ctx_memory(dev->ctx), BASE_RESOURCE_EVENT);
    *e_p = e;
    return BASE_OK;
}

void base_event_destroy(base_event_t *e)
{
    if (e == NULL) return;
    base_memory_count_close(base_ctx_memory(e->dev->ctx), BASE_RESOURCE_EVENT);
    e->dev->ops->event_destroy(e);
}

static base_status_t event_same_device(const base_event_t *e, const base_stream_t *s)
{
    if (e->dev == s->dev) return BASE_OK;
    return BASE_FAIL(
        s->dev->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
        "stream %s of %s: event of another device %s; counters order work between devices", s->name,
        s->dev->name, e->dev->name);
}

base_status_t base_event_record(base_event_t *e, base_stream_t *s)
{
    BASE_TRY(stream_state(s));
    BASE_TRY(event_same_device(e, s));
    BASE_TRY(s->dev->ops->event_record(e, s));
    atomic_store_explicit(&e->recorded, true, memory_order_release);
    return BASE_OK;
}

static base_status_t event_recorded(base_event_t *e, const char *who)
{
    if (atomic_load_explicit(&e->recorded, memory_order_acquire)) return BASE_OK;
    return BASE_FAIL(e->dev->ctx, BASE_ERR_STATE, BASE_MSG_INT_01, "%s: event was never recorded",
                     who);
}

base_status_t base_stream_wait_event(base_stream_t *s, base_event_t *e)
{
    BASE_TRY(stream_state(s));
    BASE_TRY(event_same_device(e, s));
    BASE_TRY(event_recorded(e, s->name));
    return s->dev->ops->stream_wait_event(s, e);
}

base_status_t base_event_query(base_event_t *e)
{
    BASE_TRY(event_recorded(e, "query"));
    return e->dev->ops->event_query(e);
}

base_status_t base_event_wait(base_event_t *e, const char *what)
{
    base_ctx_t *ctx = e->dev->ctx;
    const int64_t deadline_ms = base_ctx_deadline_ms(ctx);
    const int64_t end = base_clock_ns() + deadline_ms * 1000000;

    for (bool first = true;; first = false) {
        const base_status_t st = base_event_query(e);
        if (st != BASE_PENDING) return st;
        if (first) (void)atomic_fetch_add_explicit(&e->dev->event_waits, 1, memory_order_relaxed);
        if (base_ctx_stop_requested(ctx))
            return BASE_FAIL(ctx, BASE_ERR_PEER, BASE_MSG_COMM_01, "%s: asked to stop", what);
        if (base_clock_ns() > end)
            return BASE_FAIL(ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02, "%s: not there after %lld ms",
                             what, (long long)deadline_ms);
        base_clock_sleep_ns(50000);
    }
}

/* ==== copies ==== */

/* True when the rows of both ranges meet. Exact for equal pitches (columns of one matrix are
 * legal); ranges of different pitch whose spans meet may interleave legally and are not judged. */
static bool ranges_meet(const base_range_t *a, const base_range_t *b)
{
    if (a->mem.buffer != b->mem.buffer) return false;
    const base_range_t *low = a->mem.offset <= b->mem.offset ? a : b;
    const int64_t distance =
        low == a ? b->mem.offset - a->mem.offset : a->mem.offset - b->mem.offset;
    if (distance >= base_range_span(low)) return false;
    if (low->rows == 1) return true;
    if (a->pitch != b->pitch) return false;
    const int64_t column = distance % a->pitch;
    const bool wraps = column + a->row_bytes > a->pitch && distance / a->pitch + 1 < a->rows;
    return column < a->row_bytes || wraps;
}

base_status_t base_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src)
{
    BASE_TRY(stream_state(s));
    BASE_TRY(stream_reaches(s, dst, "copy destination"));
    BASE_TRY(stream_reaches(s, src, "copy source"));
    if (dst->rows != src->rows || dst->row_bytes != src->row_bytes)
        return BASE_FAIL(s->dev->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "copy: %lld rows of %lld bytes to %lld rows of %lld bytes",
                         (long long)src->rows, (long long)src->row_bytes, (long long)dst->rows,
                         (long long)dst->row_bytes);
    if (dst->rows == 0 || dst->row_bytes == 0) return BASE_OK;
    if (ranges_meet(dst, src))
        return BASE_FAIL(s->dev->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "copy: source at %lld and destination at %lld of buffer %s overlap",
                         (long long)src->mem.offset, (long long)dst->mem.offset,
                         dst->mem.buffer->name);
    return s->dev->ops->copy(s, dst, src);
}

base_status_t base_fill(base_stream_t *s, const base_range_t *dst, uint8_t byte)
{
    BASE_TRY(stream_state(s));
    BASE_TRY(stream_reaches(s, dst, "fill destination"));
    if (dst->rows == 0 || dst->row_bytes == 0) return BASE_OK;
    return s->dev->ops->fill(s, dst, byte);
}

static base_status_t host_side(base_stream_t *s, base_mem_t mem, const void *host, int64_t bytes,
                               const char *what)
{
    const base_range_t r = {mem, bytes, 1, 0};
    BASE_TRY(stream_reaches(s, &r, what));
    if (host == NULL && bytes > 0)
        return BASE_FAIL(s->dev->ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s: no host memory", what);
    return BASE_OK;
}

base_status_t base_upload(base_stream_t *s, base_mem_t dst, const void *src, int64_t bytes)
{
    BASE_TRY(stream_state(s));
    BASE_TRY(host_side(s, dst, src, bytes, "upload destination"));
    return bytes == 0 ? BASE_OK : s->dev->ops->upload(s, dst, src, bytes);
}

base_status_t base_download(base_stream_t *s, void *dst, base_mem_t src, int64_t bytes)
{
    BASE_TRY(stream_state(s));
    BASE_TRY(host_side(s, src, dst, bytes, "download source"));
    return bytes == 0 ? BASE_OK : s->dev->ops->download(s, dst, src, bytes);
}
