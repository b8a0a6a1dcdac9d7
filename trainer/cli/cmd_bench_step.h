/* The subject `step` of `cadre bench`. */
#ifndef CADRE_TRAINER_CLI_CMD_BENCH_STEP_H
#define CADRE_TRAINER_CLI_CMD_BENCH_STEP_H

#include "trainer/cli/verb.h"

/* argv[0] is "step". Returns the exit code. */
int tr_cmd_bench_step(const tr_cli_t *cli, int argc, char **argv);

#endif
