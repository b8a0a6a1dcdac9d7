/* What a training run leaves: adapters as PEFT folders, with train.mode full the model as a Hugging
 * Face folder, and on request the gradients of the first steps. Rank 0. */
#ifndef CADRE_TRAINER_RUN_TRAIN_EXPORT_H
#define CADRE_TRAINER_RUN_TRAIN_EXPORT_H

#include "trainer/loop/train.h"
#include "trainer/run/inputs.h"
#include "trainer/run/run_folder.h"

/* OUTPUT/adapters/NAME, in the portable form (lora/export_peft.h): what the job learned best. */
base_status_t tr_train_export_adapter(tr_train_t *train, const tr_inputs_t *inputs, int32_t job,
                                      const tr_run_folder_t *folder) BASE_MUST_CHECK;

/* OUTPUT/model, F32, with the tokenizer of the base. One that a run before --resume has left there
 * becomes OUTPUT/model.before. */
base_status_t tr_train_export_model(tr_trainer_t *trainer, const tr_inputs_t *inputs,
                                    const tr_run_folder_t *folder) BASE_MUST_CHECK;

/* Whether the job's export is there. */
bool tr_train_exported(const tr_inputs_t *inputs, int32_t job, const tr_run_folder_t *folder);

/* The job has gone on and could not be exported: what a run before --resume has left in
 * OUTPUT/adapters/NAME is not what tr_train_exported says that it is, and becomes
 * OUTPUT/adapters/NAME~before, which no adapter is called. IO-02. */
base_status_t tr_train_outdate_adapter(const tr_inputs_t *inputs, int32_t job,
                                       const tr_run_folder_t *folder) BASE_MUST_CHECK;

/* Renames a folder of files, if it is there: PATH becomes PATH and `suffix`, in the place of one of that name. IO-02. */
base_status_t tr_train_put_aside(base_ctx_t *ctx, const char *path,
                                 const char *suffix) BASE_MUST_CHECK;

/* Writes the gradient of a job's global batch, summed over trainers and not clipped, to a
 * safetensors file: F32, PEFT's names for an adapter, Hugging Face's for a model. With several
 * adapters each has a file of its own, PATH with ".NAME" before its last dot. */
base_status_t tr_train_dump_gradients(tr_trainer_t *trainer, const tr_inputs_t *inputs, int32_t job,
                                      const char *path) BASE_MUST_CHECK;

/* Whether such a file could be made there, before anything is trained. IO-02. */
base_status_t tr_train_check_dump(base_ctx_t *ctx, const char *path) BASE_MUST_CHECK;

#endif
