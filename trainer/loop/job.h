/* A job: what one adapter (or, with train.mode full, the model) learns from, and how far it is.
 *
 * A job goes from global batch to global batch: the next global_batch_documents documents of its
 * order (fewer at the end of an epoch), after which it takes one optimizer step. The documents of a
 * batch may lie in several microbatches; a microbatch holds documents of one batch of a job, since
 * the next batch needs the step between. Every supervised token of the batch has the weight
 * 1 / (supervised tokens of the batch), so that gradient and loss do not depend on how the batch was
 * divided (users' complaint 9).
 *
 * Pure host state, a function of datasets, configuration and what was reported: equal on all ranks.
 * One thread. */
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
    int64_t total_steps, warmup, step;
    tr_job_state_t state;
    /* the global batch at work */
    int64_t *batch;                  /* [global_batch_documents] documents of data */
    int64_t batch_count, batch_next; /* documents; of those, already in a microbatch */
    int64_t batch_rows, batch_supervised;
    /* what was done so far */
    int64_t tokens, supervised_tokens, documents;
    double first_loss, last_loss; /* NaN: none yet */
    double best_eval, last_eval;  /* NaN: none yet */
    int64_t evals_without_gain;
} tr_job_t;

/* Opens the datasets at `data_path` and `eval_path` (NULL: none), checks them against tokenizer and
 * vocabulary, and draws the first global batch. Faults of the data go to `errors`; the status is
 * BASE_OK then and *job_p NULL. Others are recorded. The caller closes *job_p. */
base_status_t tr_job_open(base_ctx_t *ctx, const base_config_adapter_t *config, const char *name,
                          const char *data_path, const char *eval_path,
                          const char *tokenizer_sha256, int64_t vocab, base_error_list_t *errors,
                          tr_job_t **job_p) BASE_MUST_CHECK;
void tr_job_close(tr_job_t *job); /* NULL is legal */

/* Rows of the longest document that it trains on or evaluates. */
int64_t tr_job_max_rows(const tr_job_t *job);

/* The next document of the batch at work; -1 when all of them are in microbatches. */
int64_t tr_job_next(const tr_job_t *job);
void tr_job_take(tr_job_t *job);      /* it is in a microbatch now */
void tr_job_give_back(tr_job_t *job); /* the one taken last is not, after all */
double tr_job_row_weight(const tr_job_t *job);
/* 1 when every document of the batch has been taken: after that microbatch comes the step. */
int tr_job_batch_complete(const tr_job_t *job);

/* AdamW's numbers for the step that is due. */
tr_step_options_t tr_job_step_options(const tr_job_t *job);
/* Notes a step's result and draws the next batch; the state says whether there is one. */
void tr_job_stepped(tr_job_t *job, const tr_step_result_t *result);

/* 1 when the job is to be evaluated now: every eval_every_steps steps and after the last one. */
int tr_job_eval_due(const tr_job_t *job);
/* Document number n of an evaluation: its dataset and index there. */
const data_dataset_t *tr_job_eval_document(const tr_job_t *job, int64_t n, int64_t *index);
/* Notes an evaluation; 1 when it is the best so far. May end the job early. */
int tr_job_evaluated(tr_job_t *job, double loss);

/* Epochs of its data behind it. */
double tr_job_epoch(const tr_job_t *job);

#endif
