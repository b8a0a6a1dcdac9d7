/* Reads a checkpoint (checkpoint_write.h) into a run that was just set up.
 *
 * The files have been verified (checkpoint_folder.h); what is missing all the same, or does not fit
 * the run, is BASE_ERR_FORMAT (RUN-06) and names the file and the place in it. */
#ifndef CADRE_TRAINER_RUN_CHECKPOINT_READ_H
#define CADRE_TRAINER_RUN_CHECKPOINT_READ_H

#include "trainer/run/checkpoint_write.h"

/* What it says of the whole run. */
typedef struct tr_checkpoint_head {
    int64_t microbatch;
    int64_t num_ranks, num_trainers;
    int64_t rank_columns;
    int64_t metrics_bytes, elapsed_ns;
    char dtype[8]; /* of weights and activations, kern_dtype_name */
    char model_hash[17];
    char tokenizer_sha256[BASE_SHA256_HEX_BYTES];
} tr_checkpoint_head_t;

/* What it says of a job's data; "": no evaluation set. */
typedef struct tr_checkpoint_data {
    char data_sha256[BASE_SHA256_HEX_BYTES];
    char eval_sha256[BASE_SHA256_HEX_BYTES];
} tr_checkpoint_data_t;

/* Of all jobs that the checkpoint has; a job that it does not have gets empty texts. `data` has
 * inputs->num_jobs places. */
base_status_t tr_checkpoint_read_head(base_ctx_t *ctx, const char *folder,
                                      const tr_inputs_t *inputs, tr_checkpoint_head_t *head,
                                      tr_checkpoint_data_t *data) BASE_MUST_CHECK;

/* Jobs, adapters or weights, gradients and the loop are where the checkpoint left them. Each rank,
 * for itself; between tr_train_create and tr_train_run. With as many trainers as there were, each
 * gets its own part of the gradients back, and the run goes on bit for bit; with another number the
 * first one gets the sum. since_step_ns: [num_jobs]. */
base_status_t tr_checkpoint_restore(const tr_checkpoint_t *checkpoint, const char *folder,
                                    tr_checkpoint_head_t *head,
                                    int64_t *since_step_ns) BASE_MUST_CHECK;

#endif
