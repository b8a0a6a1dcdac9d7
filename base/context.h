/* The rank context: everything a rank has instead of globals.
 *
 * A rank is one MPI process or one thread of `--threads`. All its state that other programs keep in
 * globals hangs off one base_ctx_t: who it is, its first error, its log, its memory counters, its
 * trace and the flag by which the group tells it to stop. Objects borrow the context they were
 * created with; it must outlive them.
 *
 * Threads: the rank's own threads (streams, prefetch, planner) share its context. Errors, log,
 * counters and trace may be used from all of them; rank, size and label are written once at
 * creation. */
#ifndef CADRE_BASE_CONTEXT_H
#define CADRE_BASE_CONTEXT_H

#include "base/message.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct base_ctx base_ctx_t;
typedef struct base_log base_log_t;
typedef struct base_trace base_trace_t;
typedef struct base_memory base_memory_t;

#define BASE_ERROR_TEXT_BYTES 1024

/* One recorded error. `text` is one sentence: place first, lower case, exact cause, numbers found
 * and wanted. */
typedef struct base_error {
    base_status_t status;
    base_message_t message;
    int rank;         /* rank that detected it */
    const char *file; /* of our source */
    int line;
    char text[BASE_ERROR_TEXT_BYTES];
} base_error_t;

/* Creates the context of rank `rank` of `size`. `log` is borrowed and may be NULL (nothing is
 * logged). Returns BASE_ERR_NOMEM without a text: there is nowhere to record it yet. The caller
 * owns *ctx_p. */
base_status_t base_ctx_create(int rank, int size, base_log_t *log,
                              base_ctx_t **ctx_p) BASE_MUST_CHECK;

/* Frees the context. NULL is legal. Objects that borrow it must be gone. */
void base_ctx_destroy(base_ctx_t *ctx);

int base_ctx_rank(const base_ctx_t *ctx);
int base_ctx_size(const base_ctx_t *ctx);
base_log_t *base_ctx_log(base_ctx_t *ctx);                     /* may be NULL */
base_memory_t *base_ctx_memory(base_ctx_t *ctx);               /* never NULL */
base_trace_t *base_ctx_trace(base_ctx_t *ctx);                 /* NULL until base_ctx_set_trace */
void base_ctx_set_trace(base_ctx_t *ctx, base_trace_t *trace); /* borrows */

/* Somebody who wants to know which work a rank gives to its streams, and how long that takes: bench
 * verbs. `work` is a static name ("gemm"), `args` the work's own argument struct, read only. Called
 * by the thread that gives the work; on the CPU's compute streams the work runs between the two. */
typedef struct base_observer {
    void (*begin)(void *user, const char *work, const void *args);
    void (*end)(void *user, const char *work, const void *args);
    void *user;
} base_observer_t;
const base_observer_t *base_ctx_observer(base_ctx_t *ctx);                    /* NULL: none */
void base_ctx_set_observer(base_ctx_t *ctx, const base_observer_t *observer); /* borrows */

/* Records an error and returns `st`. The first one stays until base_ctx_clear_error: what follows a
 * first error is mostly its consequence. Not for hot loops. Use the macro. */
base_status_t base_ctx_fail(base_ctx_t *ctx, base_status_t st, base_message_t msg, const char *file,
                            int line, const char *fmt, ...) BASE_PRINTF(6, 7);
#define BASE_FAIL(ctx, st, msg, ...)                                                               \
    base_ctx_fail((ctx), (st), (msg), __FILE__, __LINE__, __VA_ARGS__)

/* Copies the recorded error to *error and returns 1, or returns 0 when there is none. */
int base_ctx_error(base_ctx_t *ctx, base_error_t *error);
void base_ctx_clear_error(base_ctx_t *ctx);

/* Stop request. Every wait of this rank (streams, counters, exchanges) polls it and then returns
 * BASE_ERR_PEER. `flag` is shared by the ranks of a group in one process, or written by the rank's
 * watcher; non-zero means stop. Borrowed; set before the first wait. Without a flag the rank is
 * never asked to stop. */
void base_ctx_set_stop_flag(base_ctx_t *ctx, const int32_t *flag);
int base_ctx_stop_requested(const base_ctx_t *ctx); /* atomic load */

/* Where a rank is, for whoever looks at it from outside (trainer/run/rank_state.h): the layer and
 * half whose work it gives to its streams, and the rank that it waits for; -1: none. Fields are
 * written and read with atomic builtins, and may be of two moments. */
typedef struct base_place {
    int32_t layer, half, peer;
} base_place_t;
void base_ctx_set_place(base_ctx_t *ctx, base_place_t *place); /* borrows; NULL: nobody looks */
void base_ctx_at(base_ctx_t *ctx, int32_t layer, int32_t half);
void base_ctx_waits_for(base_ctx_t *ctx, int32_t peer);

/* Deadline of every wait, milliseconds; default 120000. A wait that passes it fails with
 * BASE_ERR_TIMEOUT. */
void base_ctx_set_deadline_ms(base_ctx_t *ctx, int64_t ms);
int64_t base_ctx_deadline_ms(const base_ctx_t *ctx);

#ifdef __cplusplus
}
#endif
#endif
