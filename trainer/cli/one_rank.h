/* What verbs that need a rank but no job do: one rank on the CPU, as a thread of this process. */
#ifndef CADRE_TRAINER_CLI_ONE_RANK_H
#define CADRE_TRAINER_CLI_ONE_RANK_H

#include "comm/threads.h"

#include <stdbool.h>

/* Runs `fn` as rank 0 of 1 and returns the exit code of its status. Its error is printed to stderr
 * unless *reported (NULL: never) says that this was done with others of its kind. */
int tr_one_rank_run(comm_rank_fn fn, void *user, const bool *reported);

#endif
