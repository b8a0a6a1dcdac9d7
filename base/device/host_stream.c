#include "base/device/host_stream.h"

#include "base/clock.h"
#include "base/device/host_queue.h"

#include <signal.h>
#include <stdalign.h>
#include <string.h>

#define ALIGN16(n)        (((n) + 15) & ~(size_t)15)
#define INLINE_ARGS_BYTES 1024

typedef enum item_kind {
    ITEM_WORK,
    ITEM_MARK,
    ITEM_WAIT_TIMELINE,
    ITEM_SIGNAL,
    ITEM_WAIT_COUNTER
} item_kind_t;

/* A record of the queue: this, the operands, the arguments, each on a multiple of 16 bytes. */
typedef struct item {
    item_kind_t kind;
    int num_operands;
    size_t bytes; /* of the whole record */
    size_t args_at;
    base_work_fn work;
    base_host_timeline_t *timeline; /* holds a reference */
    base_counter_t *counter;
    uint64_t value; /* of the timeline or the counter */
} item_t;

typedef struct host_stream {
    base_stream_t base;
    base_host_timeline_t *timeline; /* its mutex guards the queue as well */
    bool runs_inline;
    /* with a worker only */
    base_host_queue_t queue;
    bool closing;
    uint64_t random;
    pthread_t worker;
} host_stream_t;

/* ==== running items ==== */

static void operand_close(const base_operand_t *op)
{
    base_buffer_t *buf = op->range.mem.buffer;
    const int64_t span = base_range_span(&op->range);
    if (span > 0 && buf->dev->ops->buffer_close != NULL)
        buf->dev->ops->buffer_close(buf, op->range.mem.offset, span, op->access);
}

static base_status_t operand_open(const base_operand_t *op)
{
    base_buffer_t *buf = op->range.mem.buffer;
    const int64_t span = base_range_span(&op->range);
    if (span == 0 || buf->dev->ops->buffer_open == NULL) return BASE_OK;
    return buf->dev->ops->buffer_open(buf, op->range.mem.offset, span, op->access);
}

static base_status_t run_work(base_work_fn work, void *args, const base_operand_t *operands,
                              int num_operands)
{
    base_status_t st = BASE_OK;
    int num_open = 0;
    while (num_open < num_operands && st >= 0) {
        st = operand_open(&operands[num_open]);
        if (st >= 0) num_open++;
    }
    if (st >= 0) st = work(args);
    while (num_open > 0)
        operand_close(&operands[--num_open]);
    return st;
}

static const base_operand_t *item_operands(const item_t *item)
{
    return (const base_operand_t *)((const unsigned char *)item + ALIGN16(sizeof *item));
}

static base_status_t run_item(host_stream_t *s, item_t *item)
{
    switch (item->kind) {
    case ITEM_WORK:
        return run_work(item->work, (unsigned char *)item + item->args_at, item_operands(item),
                        item->num_operands);
    case ITEM_MARK:
        base_stream_marked(&s->base, (const base_mark_t *)((unsigned char *)item + item->args_at),
                           base_clock_ns());
        return BASE_OK;
    case ITEM_WAIT_TIMELINE:
        return base_host_timeline_wait(item->timeline, item->value, s->base.name);
    case ITEM_SIGNAL:
        base_counter_store(item->counter, item->value);
        return BASE_OK;
    case ITEM_WAIT_COUNTER:
        return base_counter_wait_named(s->base.dev->ctx, s->base.name, item->counter, item->value,
                                       -1);
    }
    return BASE_ERR_INTERNAL;
}

/* ==== the worker ==== */

static void *worker_main(void *arg)
{
    host_stream_t *s = arg;
    base_host_timeline_t *t = s->timeline;
    item_t *item;

    pthread_mutex_lock(&t->mutex);
    for (;;) {
        while ((item = base_host_queue_head(&s->queue)) == NULL && !s->closing)
            pthread_cond_wait(&t->given, &t->mutex);
        if (item == NULL) break;
        pthread_mutex_unlock(&t->mutex);

        base_status_t st =
            (base_status_t)atomic_load_explicit(&s->base.status, memory_order_acquire);
        if (st >= 0) {
            if (s->base.dev->ops->stream_dawdle != NULL && item->kind != ITEM_MARK)
                s->base.dev->ops->stream_dawdle(&s->random);
            st = run_item(s, item);
            if (st < 0) base_stream_fail(&s->base, st);
        }
        base_host_timeline_release(item->timeline);

        pthread_mutex_lock(&t->mutex);
        base_host_queue_pop(&s->queue, item->bytes);
        pthread_mutex_unlock(&t->mutex);
        base_host_timeline_advance(t, st);
        pthread_mutex_lock(&t->mutex);
    }
    pthread_mutex_unlock(&t->mutex);
    return NULL;
}

/* Signals are for the main thread; what a fault of the worker raises is not blocked. */
static int worker_start(host_stream_t *s)
{
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGABRT);
    sigdelset(&all, SIGTRAP);
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc != 0) return rc;
    rc = pthread_attr_setstacksize(&attr, BASE_HOST_STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (rc == 0) rc = pthread_create(&s->worker, &attr, worker_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return rc;
}

/* ==== streams ==== */

static void stream_free(host_stream_t *s)
{
    base_ctx_t *ctx = s->base.dev->ctx;
    base_host_queue_deinit(&s->queue);
    base_host_timeline_release(s->timeline);
    base_free(ctx, s);
}

base_status_t base_host_stream_create(base_device_t *dev, base_stream_kind_t kind, const char *name,
                                      bool runs_inline, base_stream_t **s_p)
{
    base_status_t st = BASE_ERR_NOMEM;
    host_stream_t *s = base_calloc(dev->ctx, 1, sizeof *s, "stream");
    if (s == NULL) return st;
    base_stream_init_common(&s->base, dev, kind, name);
    s->runs_inline = runs_inline;
    BASE_TRY_GOTO(base_host_timeline_create(dev->ctx, &s->timeline), st, err_free);
    if (!runs_inline) {
        BASE_TRY_GOTO(base_host_queue_init(&s->queue, dev->ctx), st, err_free);
        /* Streams of one device must not dawdle alike: the seed moves on with each. */
        s->random = atomic_fetch_add(&dev->seed, UINT64_C(0x9E3779B97F4A7C15));
        const int rc = worker_start(s);
        if (rc != 0) {
            st = BASE_FAIL(dev->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "stream %s: no thread: %s",
                           name, strerror(rc));
            goto err_free;
        }
        base_memory_count_open(base_ctx_memory(dev->ctx), BASE_RESOURCE_THREAD);
    }
    *s_p = &s->base;
    return BASE_OK;
err_free:
    stream_free(s);
    return st;
}

void base_host_stream_destroy(base_stream_t *base)
{
    host_stream_t *s = (host_stream_t *)base;
    if (!s->runs_inline) {
        pthread_mutex_lock(&s->timeline->mutex);
        s->closing = true;
        pthread_cond_signal(&s->timeline->given);
        pthread_mutex_unlock(&s->timeline->mutex);
        /* Bounded: every wait inside an item has a deadline, after which the rest is skipped. */
        pthread_join(s->worker, NULL);
        base_memory_count_close(base_ctx_memory(base->dev->ctx), BASE_RESOURCE_THREAD);
    }
    stream_free(s);
}

base_status_t base_host_stream_sync(base_stream_t *base)
{
    host_stream_t *s = (host_stream_t *)base;
    if (!s->runs_inline) BASE_TRY(base_host_timeline_drain(s->timeline, base->name));
    return (base_status_t)atomic_load_explicit(&base->status, memory_order_acquire);
}

/* Puts an item into the queue, or runs it. A reference to item->timeline is taken over. */
static base_status_t stream_give(host_stream_t *s, const item_t *item, const void *args,
                                 size_t args_bytes, const base_operand_t *operands)
{
    const size_t operands_bytes = (size_t)item->num_operands * sizeof *operands;
    const size_t operands_at = ALIGN16(sizeof *item);
    const size_t args_at = operands_at + ALIGN16(operands_bytes);
    const size_t bytes = args_at + ALIGN16(args_bytes);

    pthread_mutex_lock(&s->timeline->mutex);
    item_t *record = base_host_queue_push(&s->queue, bytes);
    if (record != NULL) {
        *record = *item;
        record->bytes = bytes;
        record->args_at = args_at;
        if (operands != NULL && operands_bytes > 0)
            memcpy((unsigned char *)record + operands_at, operands, operands_bytes);
        if (args_bytes > 0) memcpy((unsigned char *)record + args_at, args, args_bytes);
        s->timeline->num_given++;
        pthread_cond_signal(&s->timeline->given);
    }
    pthread_mutex_unlock(&s->timeline->mutex);
    if (record != NULL) return BASE_OK;
    base_host_timeline_release(item->timeline);
    return BASE_ERR_NOMEM;
}

/* The end of an item of an inline stream. */
static base_status_t inline_done(host_stream_t *s, base_status_t st)
{
    pthread_mutex_lock(&s->timeline->mutex);
    s->timeline->num_given++;
    pthread_mutex_unlock(&s->timeline->mutex);
    base_host_timeline_advance(s->timeline, st);
    return st < 0 ? base_stream_fail(&s->base, st) : BASE_OK;
}

base_status_t base_host_stream_submit(base_stream_t *base, base_work_fn work, const void *args,
                                      size_t args_bytes, const base_operand_t *operands,
                                      int num_operands)
{
    host_stream_t *s = (host_stream_t *)base;
    const item_t item = {.kind = ITEM_WORK, .num_operands = num_operands, .work = work};

    if (!s->runs_inline) return stream_give(s, &item, args, args_bytes, operands);
    alignas(16) unsigned char local[INLINE_ARGS_BYTES];
    void *copy = local;
    if (args_bytes >
        sizeof local) { /* no op of ours has so many; correct, and counted as an allocation */
        copy = base_alloc(base->dev->ctx, args_bytes, "arguments");
        if (copy == NULL) return BASE_ERR_NOMEM;
    }
    if (args_bytes > 0) memcpy(copy, args, args_bytes);
    const base_status_t st = run_work(work, copy, operands, num_operands);
    if (copy != local) base_free(base->dev->ctx, copy);
    return inline_done(s, st);
}

base_status_t base_host_stream_mark(base_stream_t *base, const base_mark_t *mark)
{
    host_stream_t *s = (host_stream_t *)base;
    const item_t item = {.kind = ITEM_MARK};

    if (!s->runs_inline) return stream_give(s, &item, mark, sizeof *mark, NULL);
    base_stream_marked(base, mark, base_clock_ns());
    return BASE_OK;
}

base_host_timeline_t *base_host_stream_timeline(base_stream_t *s)
{
    return ((host_stream_t *)s)->timeline;
}

base_status_t base_host_stream_wait_timeline(base_stream_t *base, base_host_timeline_t *t,
                                             uint64_t n)
{
    host_stream_t *s = (host_stream_t *)base;
    item_t item = {.kind = ITEM_WAIT_TIMELINE, .timeline = t, .value = n};

    if (!s->runs_inline) return stream_give(s, &item, NULL, 0, NULL);
    const base_status_t st = run_item(s, &item);
    base_host_timeline_release(t);
    return inline_done(s, st);
}

/* ==== counters ==== */

base_status_t base_host_counter_create(base_device_t *dev, base_counter_t **c_p)
{
    base_counter_t *c = base_calloc(dev->ctx, 1, sizeof *c, "counter");
    if (c == NULL) return BASE_ERR_NOMEM;
    const base_status_t st = base_counter_init_common(c, dev, NULL);
    if (st < 0) {
        base_free(dev->ctx, c);
        return st;
    }
    *c_p = c;
    return BASE_OK;
}

void base_host_counter_destroy(base_counter_t *c)
{
    base_counter_deinit_common(c);
    base_free(c->dev->ctx, c);
}

static base_status_t give_counter(host_stream_t *s, item_kind_t kind, base_counter_t *c,
                                  uint64_t value)
{
    item_t item = {.kind = kind, .counter = c, .value = value};
    if (!s->runs_inline) return stream_give(s, &item, NULL, 0, NULL);
    return inline_done(s, run_item(s, &item));
}

base_status_t base_host_stream_signal(base_stream_t *s, base_counter_t *c, uint64_t value)
{
    return give_counter((host_stream_t *)s, ITEM_SIGNAL, c, value);
}

base_status_t base_host_stream_wait_counter(base_stream_t *s, base_counter_t *c, uint64_t value)
{
    return give_counter((host_stream_t *)s, ITEM_WAIT_COUNTER, c, value);
}
