/* What a training run reads: the base model and a job for each adapter, checked in one pass.
 *
 *   base_error_list_init(&errors, ctx);
 *   st = tr_inputs_open(ctx, config, "run.yaml", &errors, &inputs);
 *   if (inputs == NULL) base_error_list_print(&errors, stderr);
 *
 * Faults of the model folder, of datasets that are missing, stale, damaged or made for another
 * model, of folders that adapters begin with, and of documents that no microbatch holds all go into one list. Nothing is written. */
#ifndef CADRE_TRAINER_RUN_INPUTS_H
#define CADRE_TRAINER_RUN_INPUTS_H

#include "attention_server/cost_profile.h"
#include "data/hf_folder.h"
#include "trainer/loop/job.h"
#include "trainer/run/manifest.h"

typedef struct tr_inputs {
    base_ctx_t *ctx;
    const base_config_t *config;
    data_hf_folder_t *folder;
    const data_model_spec_t *spec; /* the folder's */
    char tokenizer_sha256[BASE_SHA256_HEX_BYTES];
    char model_hash[17];   /* data_hf_folder_hash, 16 hex digits */
    as_profile_t *profile; /* of attention.cost_profile; NULL: none is named */
    int32_t num_jobs;
    const base_config_adapter_t **configs; /* [num_jobs] */
    tr_job_t **jobs;                       /* [num_jobs] */
    int64_t longest;                       /* rows of the longest document of any job */
    tr_manifest_dataset_t *datasets;       /* [num_datasets] for the manifest */
    int64_t num_datasets;
} tr_inputs_t;

/* Faults of what the user brings go to `errors` (initialised by the caller): then the status is
 * that of base_error_list_finish, the first fault is recorded in the context and *inputs_p is not
 * set. Other errors are recorded and returned. The caller closes *inputs_p. */
base_status_t tr_inputs_open(base_ctx_t *ctx, const base_config_t *config,
                             const char *prepare_words, base_error_list_t *errors,
                             tr_inputs_t **inputs_p) BASE_MUST_CHECK;
void tr_inputs_close(tr_inputs_t *inputs); /* NULL is legal */

/* Of an adapter's `init`: whether it is the path of an adapter folder, not a word. */
bool tr_init_is_folder(const char *init);

/* Whether every document fits into a microbatch of `trainers` trainers that hold `rows` rows each
 * (`whole`: a document has to lie on one of them). PLAN-01 for each that does not, with dataset,
 * line of its JSONL and what would do; finished like tr_inputs_open. */
base_status_t tr_inputs_check_rows(const tr_inputs_t *inputs, int64_t trainers, int64_t rows,
                                   int whole, base_error_list_t *errors) BASE_MUST_CHECK;

#endif
