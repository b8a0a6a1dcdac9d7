/* Results of optimizer steps on their way from the device to the host, oldest first.
 *
 * A step of microbatch n is taken TR_STEP_RESULTS_AFTER microbatches later, on every device and on
 * every rank at the same place of the sequence: the host has then given more work to the device, and
 * the result is there.
 *
 *   BASE_TRY(tr_adapter_step(..., tr_step_results_place(results)));
 *   BASE_TRY(tr_step_results_give(results, &given));
 *   ...
 *   BASE_TRY(tr_step_results_take(results, up_to, &given, &result, &found));     until found is 0
 *
 * One thread. */
#ifndef CADRE_TRAINER_LOOP_STEP_RESULTS_H
#define CADRE_TRAINER_LOOP_STEP_RESULTS_H

#include "trainer/loop/adapter_step.h"

/* 2: when microbatch n + 2 has been given, microbatch n has run (tr_microbatch_run waits for it). */
#define TR_STEP_RESULTS_AFTER 2

/* What the host knew of a step when it gave it. */
typedef struct tr_step_given {
    int32_t job;
    int64_t step;       /* of this job, from 1 */
    int64_t microbatch; /* in which it was given */
    double learning_rate;
    int64_t documents, batch_rows, supervised; /* of its global batch */
    int64_t rows, pad_rows;                    /* of the microbatches since the job's last step */
    int64_t given_ns;                          /* when, by base_clock_ns, */
    int64_t part_ns[BASE_NUM_PARTS];           /* and the stream's account then */
} tr_step_given_t;

typedef struct tr_step_results tr_step_results_t;

/* Room for one step of each job in every microbatch whose results are on their way. Borrows the
 * trainer, which has an index. The caller frees *results_p with tr_step_results_destroy. */
base_status_t tr_step_results_create(tr_trainer_t *trainer, int32_t num_jobs,
                                     tr_step_results_t **results_p) BASE_MUST_CHECK;
/* Waits for the stream when something is on its way. NULL is legal. */
void tr_step_results_destroy(tr_step_results_t *results);

/* Where the next step's result is to go. */
tr_step_landing_t *tr_step_results_place(tr_step_results_t *results);
/* That step has been given to the stream. */
base_status_t tr_step_results_give(tr_step_results_t *results,
                                   const tr_step_given_t *given) BASE_MUST_CHECK;
/* The oldest step, if it was given in microbatch `up_to` or before; *found 0: there is none. Waits
 * when its result is not there yet. */
base_status_t tr_step_results_take(tr_step_results_t *results, int64_t up_to,
                                   tr_step_given_t *given, tr_step_result_t *result,
                                   int *found) BASE_MUST_CHECK;
/* Results that had to be waited for so far. */
int64_t tr_step_results_waits(const tr_step_results_t *results);

#endif
