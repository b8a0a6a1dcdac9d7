/* What a rank is doing, in a small file that outlives it, and its end by SIGTERM.
 *
 * launch/run names a folder in the environment variable CADRE_RANK_STATE. Each process that mpirun
 * started maps the file rank-NNNN in it, one line of text, and writes there which microbatch it has
 * done and, ten times a second, in which layer and half it is and for which rank it waits: no call
 * of the system, so that the line is there whatever ends the process. When a rank has died launch/run
 * prints its line.
 *
 * Under mpirun SIGTERM means that a peer died or that all are to end, and SIGKILL follows within a
 * second: a thread waits for it, notes it in the file, says one line in the log, and on the terminal
 * when there is no file for launch/run to read, and ends the process. */
#ifndef CADRE_TRAINER_RUN_RANK_STATE_H
#define CADRE_TRAINER_RUN_RANK_STATE_H

#include "base/context.h"

#include <stdio.h>

typedef struct tr_rank_state tr_rank_state_t;

/* Blocks SIGTERM for this thread and those that it starts from now on, so it comes before any other
 * thread exists. `log` and `out` (each may be NULL) get the line on SIGTERM; `exit_code` ends the
 * process then.
 * Without CADRE_RANK_STATE, or when its folder cannot be written, there is no file. The caller
 * frees *state_p with tr_rank_state_close. */
base_status_t tr_rank_state_open(base_ctx_t *ctx, int rank, base_log_t *log, FILE *out,
                                 int exit_code, tr_rank_state_t **state_p) BASE_MUST_CHECK;
/* The line says that the rank has ended by itself. NULL is legal. */
void tr_rank_state_close(tr_rank_state_t *state);

/* What the rank's context is to keep its place in (base_ctx_set_place), so that the line says it; NULL
 * for no state. Valid until the state is closed. */
base_place_t *tr_rank_state_place(tr_rank_state_t *state);
/* "trainer 0", "server 1". Borrowed. NULL for the state is legal in both. */
void tr_rank_state_set_role(tr_rank_state_t *state, const char *role, int number);
void tr_rank_state_set_microbatch(tr_rank_state_t *state, int64_t done);

#endif
