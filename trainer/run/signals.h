/* Signals that ask a run to save and stop: SIGUSR1, and in a process that mpirun did not start
 * SIGINT, SIGTERM and SIGHUP as well (under mpirun SIGTERM means that a peer died: rank_state.h).
 * SIGHUP, the end of the terminal, only where it was not ignored: nohup means it.
 *
 * A thread waits for them. The first one is noted, which every rank of the process can ask for, and
 * said in a line; a second SIGINT or SIGTERM ends the process as it would without us. A second
 * SIGUSR1 or SIGHUP says nothing new: batch systems and shells repeat them.
 *
 * What reads our output may have ended by then: Ctrl-C in `cadre train run.yaml | tee log` ends tee
 * first. So SIGPIPE is ignored, and who writes gets EPIPE.
 */
#ifndef CADRE_TRAINER_RUN_SIGNALS_H
#define CADRE_TRAINER_RUN_SIGNALS_H

#include "base/context.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct tr_signals tr_signals_t;

/* Blocks the signals for this thread and those that it starts from now on, so it comes before any
 * other thread exists. `terminate`: SIGINT, SIGTERM and SIGHUP too. `out` (NULL: silent) gets the line. The
 * caller frees *signals_p with tr_signals_close. */
base_status_t tr_signals_open(base_ctx_t *ctx, bool terminate, FILE *out,
                              tr_signals_t **signals_p) BASE_MUST_CHECK;
/* Signals stay blocked. NULL is legal. */
void tr_signals_close(tr_signals_t *signals);

/* Whether one has come. Any thread. NULL is legal: no. */
bool tr_signals_asked(const tr_signals_t *signals);

/* For a signal that a thread waits for while all of ours block it: libraries have threads that do
 * not (OpenBLAS starts its own before main). One of those that gets the signal passes it on. */
void tr_signals_divert(int number);

#endif
