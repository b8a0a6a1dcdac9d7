/* What a checkpoint keeps of a job's results, as plain numbers by name. Where it is in its documents,
 * and whether it has ended, is the loop's (tr_train_save_state).
 *
 * Everything else follows from configuration and data. The two lists are the format: what a name
 * stands for never changes, and another one gets another name. */
#ifndef CADRE_TRAINER_LOOP_JOB_SAVED_H
#define CADRE_TRAINER_LOOP_JOB_SAVED_H

#include "trainer/loop/job.h"

/* X(name) */
#define TR_JOB_SAVED_INT_MAP(X)                                                                    \
    X(step)              /* steps made */                                                          \
    X(documents)         /* trained on, of complete batches */                                     \
    X(tokens)            /* the same */                                                            \
    X(supervised_tokens) /* the same */                                                            \
    X(evals_without_gain)
#define TR_JOB_SAVED_DOUBLE_MAP(X)                                                                 \
    X(first_loss) /* NaN: none yet, like the others */                                             \
    X(last_loss)                                                                                   \
    X(best_eval)                                                                                   \
    X(last_eval)

typedef struct tr_job_saved {
#define X(name) int64_t name;
    TR_JOB_SAVED_INT_MAP(X)
#undef X
#define X(name) double name;
    TR_JOB_SAVED_DOUBLE_MAP(X)
#undef X
} tr_job_saved_t;

/* Between microbatches, on a trainer. */
void tr_job_save(const tr_job_t *job, tr_job_saved_t *saved);

/* A job that was just opened has these results. BASE_ERR_FORMAT (RUN-06) with `source` for numbers
 * that the job cannot have. */
base_status_t tr_job_restore(tr_job_t *job, const tr_job_saved_t *saved,
                             const char *source) BASE_MUST_CHECK;

#endif
