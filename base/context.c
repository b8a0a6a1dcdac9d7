#include "base/context.h"

#include "base/memory.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#define DEADLINE_DEFAULT_MS 120000

struct base_ctx {
    int rank, size;
    base_log_t *log;
    base_memory_t *memory;
    _Atomic(base_trace_t *) trace;
    _Atomic(const base_observer_t *) observer;
    _Atomic(const int32_t *) stop_flag;
    _Atomic(base_place_t *) place;
    _Atomic int64_t deadline_ms;

    pthread_mutex_t error_lock; /* guards the two below */
    int has_error;
    base_error_t error;
};

base_status_t base_ctx_create(int rank, int size, base_log_t *log, base_ctx_t **ctx_p)
{
    base_ctx_t *ctx;

    if (size < 1 || rank < 0 || rank >= size) return BASE_ERR_ARG;
    ctx = base_memory_raw_calloc(sizeof *ctx);
    if (ctx == NULL) return BASE_ERR_NOMEM;
    ctx->memory = base_memory_create();
    if (ctx->memory == NULL) goto err_free_ctx;
    if (pthread_mutex_init(&ctx->error_lock, NULL) != 0) goto err_destroy_memory;
    ctx->rank = rank;
    ctx->size = size;
    ctx->log = log;
    atomic_init(&ctx->trace, NULL);
    atomic_init(&ctx->observer, NULL);
    atomic_init(&ctx->stop_flag, NULL);
    atomic_init(&ctx->place, NULL);
    atomic_init(&ctx->deadline_ms, DEADLINE_DEFAULT_MS);
    *ctx_p = ctx;
    return BASE_OK;
err_destroy_memory:
    base_memory_destroy(ctx->memory);
err_free_ctx:
    base_memory_raw_free(ctx);
    return BASE_ERR_NOMEM;
}

void base_ctx_destroy(base_ctx_t *ctx)
{
    if (ctx == NULL) return;
    (void)pthread_mutex_destroy(&ctx->error_lock);
    base_memory_destroy(ctx->memory);
    base_memory_raw_free(ctx);
}

int base_ctx_rank(const base_ctx_t *ctx)
{
    return ctx->rank;
}

int base_ctx_size(const base_ctx_t *ctx)
{
    return ctx->size;
}

base_log_t *base_ctx_log(base_ctx_t *ctx)
{
    return ctx->log;
}

base_memory_t *base_ctx_memory(base_ctx_t *ctx)
{
    return ctx->memory;
}

base_trace_t *base_ctx_trace(base_ctx_t *ctx)
{
    return atomic_load_explicit(&ctx->trace, memory_order_acquire);
}

void base_ctx_set_trace(base_ctx_t *ctx, base_trace_t *trace)
{
    atomic_store_explicit(&ctx->trace, trace, memory_order_release);
}

const base_observer_t *base_ctx_observer(base_ctx_t *ctx)
{
    return atomic_load_explicit(&ctx->observer, memory_order_acquire);
}

void base_ctx_set_observer(base_ctx_t *ctx, const base_observer_t *observer)
{
    atomic_store_explicit(&ctx->observer, observer, memory_order_release);
}

base_status_t base_ctx_fail(base_ctx_t *ctx, base_status_t st, base_message_t msg, const char *file,
                            int line, const char *fmt, ...)
{
    (void)pthread_mutex_lock(&ctx->error_lock);
    if (!ctx->has_error) {
        va_list args;

        ctx->has_error = 1;
        ctx->error.status = st;
        ctx->error.message = msg;
        ctx->error.rank = ctx->rank;
        ctx->error.file = file;
        ctx->error.line = line;
        va_start(args, fmt);
        (void)vsnprintf(ctx->error.text, sizeof ctx->error.text, fmt, args);
        va_end(args);
    }
    (void)pthread_mutex_unlock(&ctx->error_lock);
    return st;
}

int base_ctx_error(base_ctx_t *ctx, base_error_t *error)
{
    int has_error;

    (void)pthread_mutex_lock(&ctx->error_lock);
    has_error = ctx->has_error;
    if (has_error) *error = ctx->error;
    (void)pthread_mutex_unlock(&ctx->error_lock);
    return has_error;
}

void base_ctx_clear_error(base_ctx_t *ctx)
{
    (void)pthread_mutex_lock(&ctx->error_lock);
    ctx->has_error = 0;
    (void)pthread_mutex_unlock(&ctx->error_lock);
}

void base_ctx_set_stop_flag(base_ctx_t *ctx, const int32_t *flag)
{
    atomic_store_explicit(&ctx->stop_flag, flag, memory_order_release);
}

int base_ctx_stop_requested(const base_ctx_t *ctx)
{
    const int32_t *flag = atomic_load_explicit(&ctx->stop_flag, memory_order_acquire);

    /* The flag is a plain int32_t in memory that others own (another rank's, or mapped), so the
     * builtin and not an _Atomic type. */
    return flag != NULL && __atomic_load_n(flag, __ATOMIC_ACQUIRE) != 0;
}

void base_ctx_set_place(base_ctx_t *ctx, base_place_t *place)
{
    atomic_store_explicit(&ctx->place, place, memory_order_release);
}

void base_ctx_at(base_ctx_t *ctx, int32_t layer, int32_t half)
{
    base_place_t *place = atomic_load_explicit(&ctx->place, memory_order_acquire);

    if (place == NULL) return;
    __atomic_store_n(&place->layer, layer, __ATOMIC_RELAXED);
    __atomic_store_n(&place->half, half, __ATOMIC_RELAXED);
}

void base_ctx_waits_for(base_ctx_t *ctx, int32_t peer)
{
    base_place_t *place = atomic_load_explicit(&ctx->place, memory_order_acquire);

    if (place != NULL) __atomic_store_n(&place->peer, peer, __ATOMIC_RELAXED);
}

void base_ctx_set_deadline_ms(base_ctx_t *ctx, int64_t ms)
{
    atomic_store_explicit(&ctx->deadline_ms, ms, memory_order_relaxed);
}

int64_t base_ctx_deadline_ms(const base_ctx_t *ctx)
{
    return atomic_load_explicit(&ctx->deadline_ms, memory_order_relaxed);
}
