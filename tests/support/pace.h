/* A slow processor, whatever the machine is: ops of some names take so long, slept and not worked,
 * so that a test of what overlaps with what neither needs cores nor minds other programs.
 *
 *   pace_t pace;
 *   pace_begin(&pace, ctx, 30000000, 0);    norms: at least 30 ms each, attention at its own pace
 *   ... each dense step has a norm, each serve with tasks an attention ...
 *   pace_end(&pace, ctx); */
#ifndef CADRE_TESTS_SUPPORT_PACE_H
#define CADRE_TESTS_SUPPORT_PACE_H

#include "base/clock.h"
#include "base/context.h"

#include <string.h>

typedef struct pace {
    base_observer_t observer;
    int64_t norm_ns, attention_ns, begin_ns;
} pace_t;

static inline void pace_op_begin(void *user, const char *work, const void *args)
{
    pace_t *p = user;

    (void)work;
    (void)args;
    p->begin_ns = base_clock_ns();
}

static inline void pace_op_end(void *user, const char *work, const void *args)
{
    const pace_t *p = user;
    int64_t ns = 0;

    (void)args;
    if (strcmp(work, "attention_fwd") == 0 || strcmp(work, "attention_bwd") == 0)
        ns = p->attention_ns;
    if (strstr(work, "rmsnorm_") != NULL) ns = p->norm_ns; /* add_rmsnorm_fwd too */
    base_clock_sleep_ns(p->begin_ns + ns - base_clock_ns());
}

static inline void pace_begin(pace_t *pace, base_ctx_t *ctx, int64_t norm_ns, int64_t attention_ns)
{
    *pace = (pace_t){.observer = {.begin = pace_op_begin, .end = pace_op_end, .user = pace},
                     .norm_ns = norm_ns,
                     .attention_ns = attention_ns};
    base_ctx_set_observer(ctx, &pace->observer);
}

static inline void pace_end(const pace_t *pace, base_ctx_t *ctx)
{
    (void)pace;
    base_ctx_set_observer(ctx, NULL);
}

#endif
