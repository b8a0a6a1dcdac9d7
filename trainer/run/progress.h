/* Progress: how far all adapters of a run are, on the terminal or into a pipe.
 *
 *   tr_progress_for(stderr, base_clock_ns, &options);
 *   BASE_TRY(tr_progress_create(ctx, &options, jobs, num_jobs, &progress));
 *   base_log_set_terminal(log, tr_progress_log, progress, base_log_wants_colour(2));
 *   ... each microbatch ...   tr_progress_tokens(progress, rows);
 *   ... each step ...         tr_progress_step(progress, job, step, loss);
 *   ... an adapter ends ...   tr_progress_job_end(progress, job, "stopped early");
 *   tr_progress_destroy(progress);
 *
 * On a terminal one line is redrawn, at most ten times a second, cut to the width; what the log
 * prints meanwhile stands above it. Elsewhere a line is printed at most once a second, and less
 * often as the run goes on, down to one every 30 s. Both get one line for each adapter's end. The
 * line: bar, percent, steps of all adapters, tokens per second over the last seconds, time left (by
 * steps), and the last loss of each adapter that still runs. Names are ASCII (the configuration
 * sees to that), so bytes are columns.
 *
 * Nothing is allocated after creation, and no call fails: progress that cannot be shown is lost.
 * Threads: all functions from all threads (the log may speak from any). */
#ifndef CADRE_TRAINER_RUN_PROGRESS_H
#define CADRE_TRAINER_RUN_PROGRESS_H

#include "base/context.h"
#include "base/log.h"
#include "trainer/run/run_status.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct tr_progress_options {
    FILE *out;     /* borrowed */
    bool terminal; /* redraw one line */
    bool colour;
    int width; /* columns; 0: the terminal is asked each time, so that it may be resized */
    tr_now_fn now;
} tr_progress_options_t;

/* What suits the stream: a terminal or not (TERM=dumb is none), colours or not (NO_COLOR). */
void tr_progress_for(FILE *out, tr_now_fn now, tr_progress_options_t *options);

typedef struct tr_progress_job {
    const char *name;    /* copied */
    int64_t first_step;  /* steps done before: 0, or those of the checkpoint */
    int64_t total_steps; /* the last step's number */
} tr_progress_job_t;

typedef struct tr_progress tr_progress_t;

/* The clock starts here. The caller owns *progress_p. */
base_status_t tr_progress_create(base_ctx_t *ctx, const tr_progress_options_t *options,
                                 const tr_progress_job_t *jobs, int64_t num_jobs,
                                 tr_progress_t **progress_p) BASE_MUST_CHECK;
/* Takes the line off the terminal. The log must not speak through it any more. NULL is legal. */
void tr_progress_destroy(tr_progress_t *progress);

/* `tokens` more were trained on. NULL is legal here and below, and does nothing. */
void tr_progress_tokens(tr_progress_t *progress, int64_t tokens);

/* Job `job` has done step number `step`. */
void tr_progress_step(tr_progress_t *progress, int64_t job, int64_t step, double loss);

/* Job `job` does no more steps; those it had left count no more. `how`: "done" if NULL. */
void tr_progress_job_end(tr_progress_t *progress, int64_t job, const char *how);

/* A base_log_terminal_fn; user is the tr_progress_t. */
void tr_progress_log(void *user, base_log_level_t level, const char *text);

#endif
