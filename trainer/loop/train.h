/* The training loop: microbatch after microbatch until every job has ended.
 *
 *   for each microbatch, as the planning thread gives them (planning.h): run it; take the results of
 *   steps that were given TR_STEP_RESULTS_AFTER microbatches ago; for every job whose global batch is
 *   complete give a step; note an evaluation that is complete; then the boundary: tell the others,
 *   hear them, and do what takes effect here (control.h)
 *
 * An ended job frees its place: its rows go to the others. What a job learned is kept in the
 * trainer, and of a job with evaluations the best so far on the host (tr_train_values); a model
 * (train.mode full) has its best weights again when it has ended.
 *
 * All ranks run it with equal jobs, pool ranks too. Which exchanges and sums a rank takes part in
 * follows from the plan alone. A job that stops early or whose gradient is not finite has rows in
 * plans already made: from when it is known they weigh nothing, its steps and evaluations are summed
 * like others and dropped; steps given before change nothing after one that was not finite. Ends,
 * saves and the run's end take effect at the same boundary on every rank.
 *
 * What happens is told to `events`; what they do with it must not change the jobs. Between
 * microbatches nothing is allocated after the first two (the events' own business aside). One
 * thread, and the planning thread that tr_train_run starts. */
#ifndef CADRE_TRAINER_LOOP_TRAIN_H
#define CADRE_TRAINER_LOOP_TRAIN_H

#include "trainer/loop/control.h"
#include "trainer/loop/microbatch.h"
#include "trainer/loop/planning.h"
#include "trainer/loop/step_results.h"

/* Told when its result is known, some microbatches after it was given. */
typedef struct tr_train_step {
    const tr_step_given_t *given;
    double loss, norm;
} tr_train_step_t;

typedef struct tr_train_events {
    void *user;
    /* Each may be NULL. A negative status ends the run. gradient, step and evaluated are for
     * trainers: a rank that only serves has no results. */
    base_status_t (*next)(void *user, int64_t done); /* before a microbatch; so many are over */
    base_status_t (*microbatch)(void *user, int64_t microbatch, int64_t document_rows);
    base_status_t (*gradient)(void *user, int32_t job); /* summed, before the step */
    base_status_t (*step)(void *user, int32_t job, const tr_train_step_t *step);
    base_status_t (*evaluated)(void *user, int32_t job, double loss, int best);
    base_status_t (*ended)(void *user, int32_t job);
    /* What this rank wants (TR_CONTROL_END, TR_CONTROL_SAVE), asked at each boundary; and what some
     * rank wanted TR_CONTROL_LOOK_AHEAD microbatches ago, told at each boundary, to every rank at
     * the same. With TR_CONTROL_END nothing follows it. */
    uint64_t (*wants)(void *user);
    base_status_t (*agreed)(void *user, uint64_t events);
} tr_train_events_t;

typedef struct tr_train_options {
    int full;                 /* train.mode full: one job, the model itself */
    int64_t rank_columns;     /* 0 with full */
    int exact;                /* 1: the exact packer too (tr_horizon_set_exact) */
    int64_t max_microbatches; /* 0: no end; else the run stops there with its jobs running */
} tr_train_options_t;

/* How often the host has waited between microbatches. Not in `all`: the control record, for which only
 * a stream of its own is waited; evaluations whose loss is read, jobs that end, and saves. */
typedef struct tr_train_waits {
    int64_t all;     /* for a stream (base_device_waits), which leaves the device idle: 0 */
    int64_t results; /* for the result of a step, TR_STEP_RESULTS_AFTER microbatches later: 0 */
    /* For such a result where it is wanted at once and so has to be waited for: at a save, an evaluation
     * and the end (tr_train_settle). */
    int64_t settled;
    /* For the microbatch before the last, whose schedule and staging are used again: the device has work
     * all the while. 0 where a microbatch is more work than the host may run ahead (device_cuda.h). */
    int64_t slots;
    /* Inside microbatches of training (tr_stalls_t): 0, but for staging of MPI and NCCL, which grows. */
    int64_t allocations;
} tr_train_waits_t;

typedef struct tr_train {
    base_ctx_t *ctx;
    tr_trainer_t *trainer;
    tr_train_options_t options;
    tr_train_events_t events;
    int32_t num_jobs;
    tr_job_t *const *jobs;
    tr_planning_t *planning;
    tr_control_t *control;
    uint64_t wanted[TR_CONTROL_LOOK_AHEAD + 1]; /* of microbatch n at n modulo their number */
    uint64_t agreed;                            /* at the boundary at hand */
    int64_t microbatch;                         /* done so far, evaluations included */
    int64_t *rows, *pad_rows;                   /* [num_jobs] since the last step */
    tr_step_results_t *results;                 /* NULL on a rank that only serves */
    tr_train_waits_t waits;                     /* `all` and `settled` of it */
    double **best; /* [num_jobs] values of the best evaluation; NULL: no evaluations */
} tr_train_t;

/* Borrows everything. The caller frees *train_p with tr_train_destroy. */
base_status_t tr_train_create(base_ctx_t *ctx, tr_trainer_t *trainer, tr_job_t *const *jobs,
                              int32_t num_jobs, const tr_lot_options_t *lots,
                              const tr_train_options_t *options, const tr_train_events_t *events,
                              tr_train_t **train_p) BASE_MUST_CHECK;
void tr_train_destroy(tr_train_t *train); /* NULL is legal */

/* From the beginning, with gradients zeroed; or on from a state that was loaded (below), with the
 * gradients as they are. Once. */
base_status_t tr_train_run(tr_train_t *train) BASE_MUST_CHECK;

tr_train_waits_t tr_train_host_waits(const tr_train_t *train);

/* What an adapter is worth keeping: the best by evaluation, else the last. adapter_count doubles of
 * the caller's. Waits. */
base_status_t tr_train_values(tr_train_t *train, int32_t job, double *values) BASE_MUST_CHECK;

/* ==== to go on later (train_state.c) ==== */

/* Takes the results of all steps given so far: waits. Within `agreed`, on all ranks, before what
 * jobs hold is saved; no microbatch becomes another by it. */
base_status_t tr_train_settle(tr_train_t *train) BASE_MUST_CHECK;

/* Where in the sequence of microbatches the run is, with the verdicts that have not taken effect:
 * so many bytes, always the same for these jobs. Within `agreed`, or when tr_train_run has come to
 * the end, on a trainer. What jobs, adapters
 * and gradients hold is not in it. May wait for the planning thread. */
int64_t tr_train_state_bytes(const tr_train_t *train);
base_status_t tr_train_save_state(tr_train_t *train, void *bytes) BASE_MUST_CHECK;
/* Before tr_train_run, on every rank with the same bytes: it goes on with the same microbatches.
 * Sets train->microbatch and the jobs' state, verdict and end_at. BASE_ERR_ARG (INT-01) for bytes
 * that do not belong to these jobs. */
base_status_t tr_train_load_state(tr_train_t *train, const void *bytes,
                                  int64_t num_bytes) BASE_MUST_CHECK;

#endif
