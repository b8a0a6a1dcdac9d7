#include "comm/watch.h"

#include <stdio.h>

#define MARGIN_DIVISOR 8
#define MARGIN_MAX_MS  1000

int64_t comm_watch_limit_ns(const base_ctx_t *ctx)
{
    const int64_t ms = base_ctx_deadline_ms(ctx);
    const int64_t margin_ms =
        ms / MARGIN_DIVISOR < MARGIN_MAX_MS ? ms / MARGIN_DIVISOR : MARGIN_MAX_MS;

    return (ms - margin_ms) * 1000000;
}

base_status_t comm_watch_stopped(base_ctx_t *ctx)
{
    base_error_t error;

    if (base_ctx_error(ctx, &error) &&
        (error.status == BASE_ERR_MISMATCH || error.status == BASE_ERR_TIMEOUT ||
         error.status == BASE_ERR_COMM))
        return error.status;
    return BASE_ERR_PEER;
}

void comm_watch_error(base_ctx_t *ctx, base_status_t st, base_error_t *error)
{
    *error = (base_error_t){.status = st,
                            .message = BASE_MSG_INT_01,
                            .rank = base_ctx_rank(ctx),
                            .file = __FILE__,
                            .line = __LINE__};
    if (!base_ctx_error(ctx, error))
        (void)snprintf(error->text, sizeof error->text, "rank %d: %s, without a text",
                       base_ctx_rank(ctx), base_status_text(st));
}
