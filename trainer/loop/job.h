/* A job: what one adapter (or, with train.mode full, the model) learns from, and how far it is.
 *
 * Every global batch is one optimizer step, whatever microbatches its documents lie in: every
 * supervised token of it has the weight 1 / (supervised tokens of the batch), so that gradient and
 * loss do not depend on how it was divided (users' complaint 9). Which documents come when is the
 * horizon's (horizon.h), which is ahead of what is kept here: steps made, losses, verdicts.
 *
 * A job ends twice: `verdict` is what its last step or evaluation said on a trainer, `state` what
 * all ranks agree on some microbatches later (train.h); between the two its rows weigh nothing.
 *
 * Host state, a function of datasets, configuration and what was reported: equal on all trainers; a
 * rank that only serves knows `state`. One thread, but for `order`, which is the horizon's. */
#ifndef CADRE_TRAINER_LOOP_JOB_H
#define CADRE_TRAINER_LOOP_JOB_H

#include "base/config/config.h"
#include "data/dataset.h"
#include "data/order.h"
#include "trainer/loop/adapter_step.h"

typedef enum tr_job_state {
    TR_JOB_RUNNING,
    TR_JOB_DONE,       /* all steps made */
    TR_JOB_STOPPED,    /* early: no improvement for so many evaluations */
    TR_JOB_QUARANTINED /* a gradient was not finite; the last good values are kept */
} tr_job_state_t;

const char *tr_job_state_word(tr_job_state_t state); /* "done", "stopped early", "not finite" */

typedef struct tr_job {
    base_ctx_t *ctx;
    const base_config_adapter_t *config;
    const char *name;     /* "model" with train.mode full */
    data_dataset_t *data; /* owned */
    data_dataset_t *eval; /* owned; NULL: see eval_documents */
    data_order_t *order;
    int64_t eval_documents;     /* documents of an evaluation; 0: none */
    int64_t training_documents; /* of data, without those held out */
    int64_t total_steps, warmup;
    int64_t step;     /* steps given to the device */
    int64_t reported; /* of those, whose results are known: the first so many */
    tr_job_state_t state;
    tr_job_state_t verdict; /* RUNNING: none */
    int64_t tell_from;      /* the first microbatch whose control record may tell it */
    int64_t end_at;         /* the microbatch whose control record tells the verdict; -1: none */
    /* what was done so far */
    int64_t tokens, supervised_tokens, documents;
    double first_loss, last_loss; /* NaN: none yet */
    double best_eval, last_eval;  /* NaN: none yet */
    int64_t evals_without_gain;
} tr_job_t;

/* Opens the datasets at `data_path` and `eval_path` (NULL: none), checks them against tokenizer and
 * vocabulary. Faults of the data go to `errors`; the status is
 * BASE_OK then and *job_p NULL. Others are recorded. The caller closes *job_p. */
base_status_t tr_job_open(base_ctx_t *ctx, const base_config_adapter_t *config, const char *name,
                          const char *data_path, const char *eval_path,
                          const char *tokenizer_sha256, int64_t vocab, base_error_list_t *errors,
                          tr_job_t **job_p) BASE_MUST_CHECK;
void tr_job_close(tr_job_t *job); /* NULL is legal */

/* Rows of the longest document that it trains on or evaluates. */
int64_t tr_job_max_rows(const tr_job_t *job);

/* AdamW's numbers for the step that is due. */
tr_step_options_t tr_job_step_options(const tr_job_t *job);
/* Notes that it has been given to the device. */
void tr_job_step_given(tr_job_t *job);
/* Notes the result of the first step that has none yet, after a global batch of so many documents,
 * rows and supervised rows. The verdict is set by a gradient that is not finite, which takes back
 * the steps that were given from there on, and by the last step when no evaluation follows it. */
void tr_job_stepped(tr_job_t *job, const tr_step_result_t *result, int64_t documents, int64_t rows,
                    int64_t supervised);

/* Document number n of an evaluation: its dataset and index there. */
const data_dataset_t *tr_job_eval_document(const tr_job_t *job, int64_t n, int64_t *index);
/* Notes an evaluation; 1 when it is the best so far. Sets the verdict after the last step, and when
 * so many evaluations have brought no gain. */
int tr_job_evaluated(tr_job_t *job, double loss);

/* Epochs of its data behind it. */
double tr_job_epoch(const tr_job_t *job);

#endif
