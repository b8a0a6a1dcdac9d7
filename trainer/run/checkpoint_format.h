/* Names in the files of a checkpoint that writer and reader share (docs/formats.md). */
#ifndef CADRE_TRAINER_RUN_CHECKPOINT_FORMAT_H
#define CADRE_TRAINER_RUN_CHECKPOINT_FORMAT_H

#include "trainer/loop/train.h"
#include "trainer/run/inputs.h"

#include <stdio.h>

#define TR_CHECKPOINT_FORMAT           "cadre-checkpoint"
#define TR_CHECKPOINT_GRADIENTS_FORMAT "cadre-checkpoint-gradients"
#define TR_CHECKPOINT_FORMAT_VERSION   2

#define TR_CHECKPOINT_GROUP_BYTES 96

/* "jobs/legal" */
static inline void tr_checkpoint_group(const tr_job_t *job, char name[TR_CHECKPOINT_GROUP_BYTES])
{
    (void)snprintf(name, TR_CHECKPOINT_GROUP_BYTES, "jobs/%s", job->name);
}

/* What a job trains. */
static inline int64_t tr_checkpoint_parameters(const tr_train_t *train, int32_t job)
{
    return train->options.full ? tr_model_parameters(train->trainer->model)
                               : train->trainer->adapter_count[job];
}

/* Of the evaluation set that is a file of its own; "": there is none. */
static inline const char *tr_checkpoint_eval_sha(const tr_inputs_t *inputs, int32_t job)
{
    const data_dataset_t *eval = inputs->jobs[job]->eval;

    return eval != NULL ? data_dataset_attributes(eval)->content_sha256 : "";
}

#endif
