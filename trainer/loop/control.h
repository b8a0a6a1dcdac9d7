/* What ranks tell each other once a microbatch, and when it takes effect: on all of them in the same
 * place of the sequence of microbatches, which every rank computes by itself and ahead
 * (horizon.h).
 *
 * After microbatch n each rank gives its record of n: what it wants, and which jobs ended in n
 * (trainers know; a rank that only serves has no results). It reads the records of microbatch
 * n - TR_CONTROL_TRAVEL. What a record of n says takes effect at the *boundary* after microbatch
 * n + TR_CONTROL_LOOK_AHEAD: a job that ended is not in what is planned from microbatch
 * n + TR_CONTROL_LOOK_AHEAD + 1 on, and is ended there on every rank. So
 * TR_CONTROL_LOOK_AHEAD - TR_CONTROL_TRAVEL microbatches can be planned while one runs, and nobody
 * waits for a record while ranks keep pace. */
#ifndef CADRE_TRAINER_LOOP_CONTROL_H
#define CADRE_TRAINER_LOOP_CONTROL_H

#include "comm/control_record.h"
#include "trainer/loop/trainer.h"

#define TR_CONTROL_LOOK_AHEAD 3
#define TR_CONTROL_TRAVEL     1

/* What a rank may want; the same bits on all ranks. */
enum {
    TR_CONTROL_END = 1, /* the run is to end here, its jobs as they are */
    TR_CONTROL_SAVE = 2 /* its state is to be saved here */
};

/* Jobs that one record tells; others have to wait for the next. */
#define TR_CONTROL_MAX_ENDS COMM_CONTROL_MAX_EVENTS

typedef struct tr_control_end {
    int32_t job, state; /* tr_job_state_t */
} tr_control_end_t;

/* What the records of a microbatch say together. */
typedef struct tr_control_told {
    int64_t microbatch; /* -1: there is no such record */
    uint64_t wants;
    int32_t num_ends;
    tr_control_end_t ends[TR_CONTROL_MAX_ENDS];
} tr_control_told_t;

typedef struct tr_control tr_control_t;

/* Borrows the trainer. The caller frees *control_p with tr_control_destroy. */
base_status_t tr_control_create(const tr_trainer_t *trainer,
                                tr_control_t **control_p) BASE_MUST_CHECK;
void tr_control_destroy(tr_control_t *control); /* NULL is legal */

/* Collective, in order, at the boundary after mine->microbatch; `told` is what was given
 * TR_CONTROL_TRAVEL calls ago. BASE_ERR_MISMATCH (COMM-03) when a rank was at another microbatch or
 * plan, or trainers found different jobs to have ended. */
base_status_t tr_control_exchange(tr_control_t *control, const tr_control_told_t *mine,
                                  uint64_t plan_hash, tr_control_told_t *told) BASE_MUST_CHECK;
/* Collective, after the last exchange: nothing is on its way any more. */
base_status_t tr_control_finish(tr_control_t *control) BASE_MUST_CHECK;

#endif
