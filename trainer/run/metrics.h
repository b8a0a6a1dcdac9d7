/* metrics.jsonl: the numbers of a run, one JSON object a line, for plots and scripts.
 *
 * One record for each optimizer step of an adapter, and one for each of its evaluations, in the
 * order in which they happen; key names are those of Hugging Face's trainer where it has one:
 *
 *   {"adapter":"legal","step":12,"total_steps":500,"epoch":0.24,"loss":1.93,"grad_norm":0.41,
 *    "learning_rate":9.9e-05,"tokens":48211,"supervised_tokens":31990,"microbatch":37,
 *    "step_time_s":0.81,"dense_s":0.51,"attention_s":0.2,"exchange_s":0.01,"waiting_s":0.04,
 *    "idle_s":0.05,"elapsed_s":9.7,"tokens_per_second":5120.5,"pad_share":0.012}
 *   {"adapter":"legal","step":50,"epoch":1.0,"eval_loss":1.71,"eval_perplexity":5.53,
 *    "eval_documents":200,"eval_supervised_tokens":81022,"eval_time_s":1.3,"elapsed_s":44.1}
 *
 * Each record is one write call of a whole line to a file opened for appending: a run that is
 * killed leaves whole records only. Should a line be cut after all (a full disk, a host that lost
 * its power), what is left of it is taken away, at once or when the file is opened next. A number
 * that is not finite is written as null.
 *
 * A full disk ends no training: a record that finds no room waits in memory, up to TR_METRICS_KEPT
 * bytes of them, and goes in front of the next. That is a warning; at the end it is an error.
 *
 * Nothing else is allocated after the opening. Rank 0 only; not thread-safe. */
#ifndef CADRE_TRAINER_RUN_METRICS_H
#define CADRE_TRAINER_RUN_METRICS_H

#include "base/context.h"
#include "base/meter.h"

#define TR_METRICS_KEPT (1 << 20) /* some 2000 records */

typedef struct tr_metrics tr_metrics_t;

typedef struct tr_metrics_step {
    const char *adapter; /* borrowed; "model" with train.mode full */
    int64_t step;        /* of this adapter, from 1 */
    int64_t total_steps;
    double epoch;     /* epochs of its data behind it, 1.5: half of the second */
    double loss;      /* mean over the supervised tokens of its global batch, nats */
    double grad_norm; /* before clipping */
    double learning_rate;
    int64_t tokens;            /* of the adapter since the run began, this step included */
    int64_t supervised_tokens; /* the same */
    int64_t microbatch;        /* in which its global batch was completed */
    double step_time_s;        /* since its last step, or its start */
    /* Where step_time_s went on rank 0's compute stream (base/meter.h), idle under BASE_PART_NONE;
     * NaN on a device that cannot tell. */
    double part_s[BASE_NUM_PARTS];
    double elapsed_s;         /* since the first microbatch of the run */
    double tokens_per_second; /* of this adapter, over step_time_s */
    double pad_share;         /* pad rows / rows, of the microbatches of this step */
} tr_metrics_step_t;

typedef struct tr_metrics_eval {
    const char *adapter;
    int64_t step; /* steps done when it was evaluated */
    double epoch;
    double eval_loss; /* mean over supervised tokens, nats; eval_perplexity is exp of it */
    int64_t eval_documents;
    int64_t eval_supervised_tokens;
    double eval_time_s;
    double elapsed_s;
} tr_metrics_eval_t;

/* Opens or creates the file; records that are there stay. IO-02. The caller owns *metrics_p. */
base_status_t tr_metrics_open(base_ctx_t *ctx, const char *path,
                              tr_metrics_t **metrics_p) BASE_MUST_CHECK;

/* Writes those that wait, makes the records last and says how long the file is now: what a checkpoint
 * keeps of it. IO-02. */
base_status_t tr_metrics_sync(tr_metrics_t *metrics, int64_t *bytes) BASE_MUST_CHECK;
/* Takes away what was written since the file had so many bytes; *found: its length before. */
base_status_t tr_metrics_cut(tr_metrics_t *metrics, int64_t bytes, int64_t *found) BASE_MUST_CHECK;

/* Appends a record, or has it wait. IO-02 with the system's reason (a full disk) when there is no room
 * in memory either; the record is lost then. */
base_status_t tr_metrics_step(tr_metrics_t *metrics,
                              const tr_metrics_step_t *record) BASE_MUST_CHECK;
base_status_t tr_metrics_eval(tr_metrics_t *metrics,
                              const tr_metrics_eval_t *record) BASE_MUST_CHECK;

/* Writes those that wait, makes the records last (fsync) and closes; IO-02 when that cannot be.
 * Frees `metrics` also then. NULL is legal. */
base_status_t tr_metrics_close(tr_metrics_t *metrics) BASE_MUST_CHECK;

#endif
