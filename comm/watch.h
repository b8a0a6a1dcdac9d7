/* What the waits of all transports have in common: when they give up, and what a stopped rank
 * returns. */
#ifndef CADRE_COMM_WATCH_H
#define CADRE_COMM_WATCH_H

#include "base/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How long a wait of a transport may last. It ends before those of the device, which start at the
 * same time but cannot name the peer: by an eighth of the deadline, at most a second. */
int64_t comm_watch_limit_ns(const base_ctx_t *ctx);

/* What a call returns when its rank was stopped: the status of the recorded error when that lost a
 * peer or the group (both sides of a mismatch get BASE_ERR_MISMATCH), else BASE_ERR_PEER. */
base_status_t comm_watch_stopped(base_ctx_t *ctx);

/* The context's error, or one that says that `st` came without a text. */
void comm_watch_error(base_ctx_t *ctx, base_status_t st, base_error_t *error);

#ifdef __cplusplus
}
#endif
#endif
