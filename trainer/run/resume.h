/* What --resume continues from, and whether it may. Rank 0. */
#ifndef CADRE_TRAINER_RUN_RESUME_H
#define CADRE_TRAINER_RUN_RESUME_H

#include "base/config/error_list.h"
#include "trainer/run/checkpoint_read.h"

/* The newest checkpoint below `root` that is whole; *microbatch is -1 when there is none at all.
 * Damaged ones are named in a warning and put aside. BASE_ERR_FORMAT (RUN-06) when there are some
 * and all are damaged: to start afresh would be a loss that nobody asked for. */
base_status_t tr_resume_find(base_ctx_t *ctx, const char *root,
                             int64_t *microbatch) BASE_MUST_CHECK;

/* Whether the run that the checkpoint belongs to can go on with this configuration, model and data.
 * What differs and does not change what was learned is logged; what does is RUN-05 in `errors`,
 * with both values, finished as base_error_list_finish. `config_path` is the place of messages. */
base_status_t tr_resume_compare(base_ctx_t *ctx, const char *root, int64_t microbatch,
                                const tr_inputs_t *inputs, const char *config_path, int num_ranks,
                                base_error_list_t *errors) BASE_MUST_CHECK;

#endif
