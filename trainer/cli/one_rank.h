/* What verbs that need a rank but no job do: one rank, as a thread of this process. */
#ifndef CADRE_TRAINER_CLI_ONE_RANK_H
#define CADRE_TRAINER_CLI_ONE_RANK_H

#include "comm/threads.h"

#include <stdbool.h>

/* Runs `fn` as rank 0 of 1 on device 0 of that kind and returns the exit code of its status. Its error is printed to stderr
 * unless *reported (NULL: never) says that this was done with others of its kind. */
int tr_one_rank_run(base_device_kind_t device, comm_rank_fn fn, void *user, const bool *reported);

/* The value of --device: "cpu", "cuda", or NULL for what the program was built for. CLI-02 for
 * another word, DEV-01 for cuda in a build without it. */
base_status_t tr_one_rank_device(base_ctx_t *ctx, const char *word,
                                 base_device_kind_t *device) BASE_MUST_CHECK;

#endif
