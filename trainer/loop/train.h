/* The training loop: microbatch after microbatch until every job has ended.
 *
 *   for each microbatch: select documents, run, and for every job whose global batch is complete
 *   step; evaluate when it is due; end when it has all its steps or stops early
 *
 * An ended job frees its place: its rows go to the others. What a job learned is kept in the
 * trainer, and of a job with evaluations the best so far on the host (tr_train_values); a model
 * (train.mode full) has its best weights again when it has ended.
 *
 * All ranks run it with equal jobs, pool ranks too: what a step or an evaluation gave is shared
 * with them (control.h), so that all ranks end a job in the same place. What happens is told to
 * `events`, on every rank, in the same order; what they do with it must not change the jobs.
 * Between microbatches nothing is allocated after the first two (the events' own business aside).
 * One thread. */
#ifndef CADRE_TRAINER_LOOP_TRAIN_H
#define CADRE_TRAINER_LOOP_TRAIN_H

#include "trainer/loop/control.h"
#include "trainer/loop/microbatch.h"
#include "trainer/loop/select.h"

typedef struct tr_train_step {
    int64_t step; /* of this job, from 1 */
    double loss, norm, learning_rate;
    int64_t microbatch;
    int64_t rows, pad_rows; /* of the microbatches since the job's last step */
} tr_train_step_t;

typedef struct tr_train_events {
    void *user;
    /* Each may be NULL. A negative status ends the run. */
    base_status_t (*microbatch)(void *user, int64_t microbatch, int64_t document_rows);
    base_status_t (*gradient)(void *user, int32_t job); /* summed, before the step */
    base_status_t (*step)(void *user, int32_t job, const tr_train_step_t *step);
    base_status_t (*evaluated)(void *user, int32_t job, double loss, int best);
    base_status_t (*ended)(void *user, int32_t job);
    /* What this rank wants (TR_CONTROL_END), asked once a microbatch; and what some rank wanted a
     * few microbatches ago (control.h), told to every rank after the same microbatch. */
    uint64_t (*wants)(void *user);
    base_status_t (*agreed)(void *user, uint64_t events);
} tr_train_events_t;

typedef struct tr_train_options {
    int full;                 /* train.mode full: one job, the model itself */
    int64_t rank_columns;     /* 0 with full */
    int64_t max_microbatches; /* 0: no end; else the run stops there with its jobs running */
} tr_train_options_t;

typedef struct tr_train {
    base_ctx_t *ctx;
    tr_trainer_t *trainer;
    tr_train_options_t options;
    tr_train_events_t events;
    int32_t num_jobs;
    tr_job_t *const *jobs;
    tr_lot_t *lots[2];
    tr_control_t *control;
    uint64_t agreed;          /* after the microbatch at work; TR_CONTROL_END stays */
    int64_t microbatch;       /* done so far, evaluations included */
    int *chosen;              /* [num_jobs] */
    int64_t *rows, *pad_rows; /* [num_jobs] since the last step */
    double **best;            /* [num_jobs] values of the best evaluation; NULL: no evaluations */
    double *scratch;          /* the largest adapter */
} tr_train_t;

/* Borrows everything. The caller frees *train_p with tr_train_destroy. */
base_status_t tr_train_create(base_ctx_t *ctx, tr_trainer_t *trainer, tr_job_t *const *jobs,
                              int32_t num_jobs, const tr_lot_options_t *lots,
                              const tr_train_options_t *options, const tr_train_events_t *events,
                              tr_train_t **train_p) BASE_MUST_CHECK;
void tr_train_destroy(tr_train_t *train); /* NULL is legal */

base_status_t tr_train_run(tr_train_t *train) BASE_MUST_CHECK;

/* Mean loss over the job's evaluation documents with its adapter as it is now. */
base_status_t tr_train_evaluate(tr_train_t *train, int32_t job, double *loss) BASE_MUST_CHECK;

/* What an adapter is worth keeping: the best by evaluation, else the last. adapter_count doubles of
 * the caller's. Waits. */
base_status_t tr_train_values(tr_train_t *train, int32_t job, double *values) BASE_MUST_CHECK;

#endif
