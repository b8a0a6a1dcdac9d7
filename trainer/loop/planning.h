/* The planning thread of a rank: runs the horizon some microbatches ahead of the one at work.
 *
 *   BASE_TRY(tr_planning_create(ctx, jobs, num_jobs, rank_columns, &lots, &planning));
 *   BASE_TRY(tr_planning_start(planning));
 *   tr_planning_request(planning, ends, num_ends);      plan one more; the ends take effect first
 *   BASE_TRY(tr_planning_wait(planning, n, &planned));   microbatch n, planned
 *   tr_planning_destroy(planning);
 *
 * What comes out does not depend on when: each request carries the events that take effect before
 * it. A microbatch that was waited for stays valid until TR_PLANNING_LOTS - TR_PLANNING_AHEAD - 1
 * later ones have been requested beyond those ahead: while two are with the trainer (microbatch.h),
 * TR_PLANNING_AHEAD may be ahead.
 *
 * request, wait and the rest belong to one thread, the rank's. Nothing is allocated after start. An
 * error of planning is given by wait for its microbatch and all later ones; it is recorded in the
 * rank's context where it happened. */
#ifndef CADRE_TRAINER_LOOP_PLANNING_H
#define CADRE_TRAINER_LOOP_PLANNING_H

#include "trainer/loop/control.h"
#include "trainer/loop/horizon.h"

/* Requests that may be ahead of the microbatch at work; lots in all: two more are borrowed by the
 * trainer. */
#define TR_PLANNING_AHEAD TR_CONTROL_LOOK_AHEAD
#define TR_PLANNING_LOTS  (TR_PLANNING_AHEAD + 2)

typedef struct tr_planned {
    tr_lot_t *lot;
    tr_entry_t entry;
    void *before; /* tr_horizon_save before it was planned, its events applied */
    base_status_t status;
} tr_planned_t;

typedef struct tr_planning tr_planning_t;

/* Borrows the jobs. The caller frees *planning_p with tr_planning_destroy. */
base_status_t tr_planning_create(base_ctx_t *ctx, tr_job_t *const *jobs, int32_t num_jobs,
                                 int64_t rank_columns, const tr_lot_options_t *lots,
                                 tr_planning_t **planning_p) BASE_MUST_CHECK;
/* Ends the thread: what it is at is finished first. NULL is legal. */
void tr_planning_destroy(tr_planning_t *planning);

/* Of the thread's, before it is started: to go on from a saved state. */
tr_horizon_t *tr_planning_horizon(tr_planning_t *planning);

base_status_t tr_planning_start(tr_planning_t *planning) BASE_MUST_CHECK;
/* The next one; the first is the horizon's when the thread was started. */
void tr_planning_request(tr_planning_t *planning, const tr_control_end_t *ends, int32_t num_ends);
/* Blocks the host. BASE_ERR_PEER (COMM-01) when the rank is asked to stop. */
base_status_t tr_planning_wait(tr_planning_t *planning, int64_t microbatch,
                               tr_planned_t **planned_p) BASE_MUST_CHECK;

#endif
