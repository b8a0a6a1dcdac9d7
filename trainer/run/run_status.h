/* status.json: what a run is doing, for whoever looks in from outside: a queue, a script, a person.
 *
 *   {"state": "running", "microbatch": 412, "time": "2026-01-31T08:24:01.123Z", "host": "n17",
 *    "pid": 4711, "error": null}
 *
 * states: running; saved (stopped on a signal, the same command with --resume goes on); done; failed
 * (`error` holds id and sentence). The file is replaced as a whole, so a reader never sees half of
 * it. While the run goes on it is rewritten every TR_RUN_STATUS_INTERVAL_NS, by tr_run_status_update
 * or, in long microbatches and while a checkpoint is written, by a thread (tr_run_status_beat): a
 * "running" that is much older than that belongs to a run that died. A microbatch that does not move
 * while the time does belongs to one that waits.
 *
 * Rank 0 only. One thread, beside its own. */
#ifndef CADRE_TRAINER_RUN_RUN_STATUS_H
#define CADRE_TRAINER_RUN_RUN_STATUS_H

#include "base/context.h"

#define TR_RUN_STATUS_INTERVAL_NS INT64_C(5000000000)

/* X(name, word) */
#define TR_RUN_STATE_MAP(X)                                                                        \
    X(RUNNING, "running")                                                                          \
    X(SAVED, "saved")                                                                              \
    X(DONE, "done")                                                                                \
    X(FAILED, "failed")

typedef enum tr_run_state {
#define X(name, word) TR_RUN_STATE_##name,
    TR_RUN_STATE_MAP(X)
#undef X
        TR_RUN_STATE_COUNT
} tr_run_state_t;

const char *tr_run_state_word(tr_run_state_t state); /* NULL for a value that is not in the list */

/* Monotonic nanoseconds: base_clock_ns, or a test's own. */
typedef int64_t (*tr_now_fn)(void);

typedef struct tr_run_status tr_run_status_t;

/* Writes "running" at once. IO-02 when it cannot be written. The caller owns *status_p. */
base_status_t tr_run_status_create(base_ctx_t *ctx, const char *path, tr_now_fn now,
                                   int64_t microbatch, tr_run_status_t **status_p) BASE_MUST_CHECK;
/* Says nothing about the run: the file stays as it is. NULL is legal. */
void tr_run_status_destroy(tr_run_status_t *status);

/* From now on a thread rewrites what update or set wrote last, as long as that is RUNNING, when
 * `interval_ns` have gone by without either. It says nothing of a write that fails: the next update
 * will. */
base_status_t tr_run_status_beat(tr_run_status_t *status, int64_t interval_ns) BASE_MUST_CHECK;

/* Between microbatches; most calls only look at the clock. A failed write is IO-02, and the next
 * call tries again. */
base_status_t tr_run_status_update(tr_run_status_t *status, int64_t microbatch) BASE_MUST_CHECK;

/* Writes now. `error` is borrowed, for FAILED; else NULL. */
base_status_t tr_run_status_set(tr_run_status_t *status, tr_run_state_t state, int64_t microbatch,
                                const base_error_t *error) BASE_MUST_CHECK;

#endif
