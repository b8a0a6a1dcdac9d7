/* The subject `train` of `cadre bench`. */
#ifndef CADRE_TRAINER_CLI_CMD_BENCH_TRAIN_H
#define CADRE_TRAINER_CLI_CMD_BENCH_TRAIN_H

#include "trainer/cli/verb.h"

/* argv[0] is "train". Returns the exit code. */
int tr_cmd_bench_train(const tr_cli_t *cli, int argc, char **argv);

#endif
