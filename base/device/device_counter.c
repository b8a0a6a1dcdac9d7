#include "base/device/device_host.h"
#include "base/device/device_ops.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A write by a device wakes nobody: look this often. */
#define COUNTER_LOOK_NS 100000

/* Of `promised` once the counter is released. */
#define RELEASED UINT64_MAX
/* Of the word then. Not UINT64_MAX: a GPU's wait passes when the signed difference of word and
 * value is not negative (CU_STREAM_WAIT_VALUE_GEQ). A GPU may still write the lower half. */
#define RELEASED_WORD ((uint64_t)INT64_MAX)

int64_t base_device_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int base_device_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    int rc = pthread_condattr_init(&attr);
    if (rc != 0) return rc;
    rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (rc == 0) rc = pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
    return rc;
}

void base_device_cond_wait_ns(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t ns)
{
    const int64_t until = base_device_now_ns() + (ns > 0 ? ns : 0);
    const struct timespec ts = {.tv_sec = (time_t)(until / 1000000000),
                                .tv_nsec = (long)(until % 1000000000)};
    (void)pthread_cond_timedwait(cond, mutex,
                                 &ts); /* the caller looks at its condition whatever the reason */
}

base_status_t base_counter_init_common(base_counter_t *c, base_device_t *dev,
                                       _Atomic uint64_t *word)
{
    c->dev = dev;
    c->word = word != NULL ? word : &c->own;
    c->device_writes = word != NULL;
    c->in_bank = false;
    atomic_init(&c->own, 0);
    atomic_init(&c->promised, 0);
    if (pthread_mutex_init(&c->mutex, NULL) != 0)
        return BASE_FAIL(dev->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "counter: no mutex");
    if (base_device_cond_init(&c->raised) != 0) {
        pthread_mutex_destroy(&c->mutex);
        return BASE_FAIL(dev->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                         "counter: no condition variable");
    }
    return BASE_OK;
}

void base_counter_deinit_common(base_counter_t *c)
{
    /* Whoever saw the last value may destroy the counter while base_counter_store is still at
     * its end. */
    pthread_mutex_lock(&c->mutex);
    pthread_mutex_unlock(&c->mutex);
    pthread_cond_destroy(&c->raised);
    pthread_mutex_destroy(&c->mutex);
}

base_status_t base_counter_create(base_device_t *dev, base_counter_t **c_p)
{
    BASE_TRY(dev->ops->counter_create(dev, c_p));
    base_memory_count_open(base_ctx_memory(dev->ctx), BASE_RESOURCE_COUNTER);
    return BASE_OK;
}

void base_counter_destroy(base_counter_t *c)
{
    if (c == NULL) return;
    base_memory_count_close(base_ctx_memory(c->dev->ctx), BASE_RESOURCE_COUNTER);
    c->dev->ops->counter_destroy(c);
}

static base_status_t check_value(base_ctx_t *ctx, uint64_t value)
{
    if (value <= BASE_COUNTER_MAX) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "counter value %llu, the largest is %llu",
                     (unsigned long long)value, (unsigned long long)BASE_COUNTER_MAX);
}

/* Takes note that the counter will go to `value`. Since one thread or stream raises a counter,
 * the order of the calls is the order of the values, and a step back is seen here, on every
 * device and before it can do harm. BASE_PENDING: it is released, there is nothing to do. */
static base_status_t counter_promise(base_ctx_t *ctx, base_counter_t *c, uint64_t value)
{
    BASE_TRY(check_value(ctx, value));
    uint64_t before = atomic_load_explicit(&c->promised, memory_order_relaxed);
    do {
        if (before == RELEASED) return BASE_PENDING;
        if (value <= before)
            return BASE_FAIL(ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                             "counter raised to %llu, but it was given %llu before",
                             (unsigned long long)value, (unsigned long long)before);
    } while (!atomic_compare_exchange_weak_explicit(&c->promised, &before, value,
                                                    memory_order_relaxed, memory_order_relaxed));
    return BASE_OK;
}

/* ==== the word of a bank's counter: other processes wait for it and release it ==== */

/* The half that changes with every value but one in 2^32. (Little endian.) */
static uint32_t *low_half(base_counter_t *c)
{
    return (uint32_t *)(uintptr_t)c->word;
}

/* Wakes waiters of all processes. */
static void word_wake(base_counter_t *c)
{
    (void)syscall(SYS_futex, low_half(c), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Returns when the word is not `seen` any more, after `ns`, or for no reason. */
static void word_sleep(base_counter_t *c, uint64_t seen, int64_t ns)
{
    const struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000),
                                .tv_nsec = (long)(ns % 1000000000)};
    (void)syscall(SYS_futex, low_half(c), FUTEX_WAIT, (uint32_t)seen, &ts, NULL, 0);
}

/* Unless it was released. */
static void word_store(base_counter_t *c, uint64_t value)
{
    uint64_t before = atomic_load_explicit(c->word, memory_order_relaxed);
    while (before <= BASE_COUNTER_MAX &&
           !atomic_compare_exchange_weak_explicit(c->word, &before, value, memory_order_release,
                                                  memory_order_relaxed))
        continue;
    word_wake(c);
}

void base_counter_store(base_counter_t *c, uint64_t value)
{
    if (c->in_bank) {
        word_store(c, value);
        return;
    }
    /* Under the mutex, so that a waiter cannot look before and sleep after. */
    pthread_mutex_lock(&c->mutex);
    if (atomic_load_explicit(&c->promised, memory_order_relaxed) != RELEASED) {
        atomic_store_explicit(c->word, value, memory_order_release);
        pthread_cond_broadcast(&c->raised);
    }
    pthread_mutex_unlock(&c->mutex);
}

void base_counter_release(base_counter_t *c)
{
    /* Under the mutex, so that base_counter_store does not lower the word again. */
    pthread_mutex_lock(&c->mutex);
    atomic_store_explicit(&c->promised, RELEASED, memory_order_relaxed);
    atomic_store_explicit(c->word, RELEASED_WORD, memory_order_release);
    pthread_cond_broadcast(&c->raised);
    pthread_mutex_unlock(&c->mutex);
    if (c->in_bank) word_wake(c);
}

void base_counter_raise(base_counter_t *c, uint64_t value)
{
    if (counter_promise(c->dev->ctx, c, value) == BASE_OK) base_counter_store(c, value);
}

uint64_t base_counter_value(base_counter_t *c)
{
    const uint64_t value = atomic_load_explicit(c->word, memory_order_acquire);
    return value > BASE_COUNTER_MAX ? UINT64_MAX : value;
}

base_status_t base_counter_wait_named(base_ctx_t *ctx, const char *who, base_counter_t *c,
                                      uint64_t value, int64_t slice_ms)
{
    const int64_t limit_ms = slice_ms < 0 ? base_ctx_deadline_ms(ctx) : slice_ms;
    const int64_t look_ns =
        c->device_writes ? COUNTER_LOOK_NS : (int64_t)BASE_DEVICE_POLL_MS * 1000000;
    base_status_t st = BASE_OK;
    uint64_t seen;

    if (base_counter_value(c) >= value) /* mostly so; no lock */
        return BASE_OK;
    const int64_t start = base_device_now_ns();
    pthread_mutex_lock(&c->mutex);
    while ((seen = base_counter_value(c)) < value) {
        const int64_t left_ns = limit_ms * 1000000 - (base_device_now_ns() - start);
        if (base_ctx_stop_requested(ctx)) {
            st = BASE_ERR_PEER;
            break;
        }
        if (left_ns <= 0) {
            st = slice_ms < 0 ? BASE_ERR_TIMEOUT : BASE_PENDING;
            break;
        }
        const int64_t sleep_ns = left_ns < look_ns ? left_ns : look_ns;
        if (!c->in_bank) {
            base_device_cond_wait_ns(&c->raised, &c->mutex, sleep_ns);
            continue;
        }
        pthread_mutex_unlock(&c->mutex);
        word_sleep(c, seen, sleep_ns);
        pthread_mutex_lock(&c->mutex);
    }
    pthread_mutex_unlock(&c->mutex);
    if (st == BASE_ERR_PEER)
        BASE_FAIL(ctx, st, BASE_MSG_COMM_01,
                  "%s: asked to stop while the counter was %llu, waiting for %llu", who,
                  (unsigned long long)seen, (unsigned long long)value);
    if (st == BASE_ERR_TIMEOUT)
        BASE_FAIL(ctx, st, BASE_MSG_COMM_02,
                  "%s: the counter was %llu, waiting for %llu, after %lld ms", who,
                  (unsigned long long)seen, (unsigned long long)value, (long long)limit_ms);
    return st;
}

base_status_t base_counter_wait_host(base_ctx_t *ctx, base_counter_t *c, uint64_t value,
                                     int64_t slice_ms)
{
    return base_counter_wait_named(ctx, "work", c, value, slice_ms);
}

static base_status_t stream_state(base_stream_t *s)
{
    return (base_status_t)atomic_load_explicit(&s->status, memory_order_acquire);
}

base_status_t base_stream_signal(base_stream_t *s, base_counter_t *c, uint64_t value)
{
    BASE_TRY(stream_state(s));
    const base_status_t st = counter_promise(s->dev->ctx, c, value);
    if (st != BASE_OK) return st == BASE_PENDING ? BASE_OK : st;
    return s->dev->ops->stream_signal(s, c, value);
}

base_status_t base_stream_signal_all(base_stream_t *s, const base_signal_t *signals, int num)
{
    base_signal_t left[BASE_MAX_SIGNALS]; /* those that are not released */
    int num_left = 0;

    BASE_TRY(stream_state(s));
    if (num < 0 || num > BASE_MAX_SIGNALS)
        return BASE_FAIL(s->dev->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: %d signals at once, at most %d", s->name, num, BASE_MAX_SIGNALS);
    for (int i = 0; i < num; i++) {
        const base_status_t st = counter_promise(s->dev->ctx, signals[i].counter, signals[i].value);

        if (st < 0) return st;
        if (st == BASE_OK) left[num_left++] = signals[i];
    }
    if (num_left > 1 && s->dev->ops->stream_signal_all != NULL)
        return s->dev->ops->stream_signal_all(s, left, num_left);
    for (int i = 0; i < num_left; i++)
        BASE_TRY(s->dev->ops->stream_signal(s, left[i].counter, left[i].value));
    return BASE_OK;
}

base_status_t base_stream_wait_counter(base_stream_t *s, base_counter_t *c, uint64_t value)
{
    BASE_TRY(stream_state(s));
    BASE_TRY(check_value(s->dev->ctx, value));
    return s->dev->ops->stream_wait_counter(s, c, value);
}

base_status_t base_stream_wait_all(base_stream_t *s, const base_signal_t *waits, int num)
{
    BASE_TRY(stream_state(s));
    if (num < 0 || num > BASE_MAX_SIGNALS)
        return BASE_FAIL(s->dev->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: waits for %d counters at once, at most %d", s->name, num,
                         BASE_MAX_SIGNALS);
    for (int i = 0; i < num; i++)
        BASE_TRY(check_value(s->dev->ctx, waits[i].value));
    if (num > 1 && s->dev->ops->stream_wait_all != NULL)
        return s->dev->ops->stream_wait_all(s, waits, num);
    for (int i = 0; i < num; i++)
        BASE_TRY(s->dev->ops->stream_wait_counter(s, waits[i].counter, waits[i].value));
    return BASE_OK;
}
