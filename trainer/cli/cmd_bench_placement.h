/* The subject `placement` of `cadre bench`. */
#ifndef CADRE_TRAINER_CLI_CMD_BENCH_PLACEMENT_H
#define CADRE_TRAINER_CLI_CMD_BENCH_PLACEMENT_H

#include "trainer/cli/verb.h"

/* argv[0] is "placement". Returns the exit code. */
int tr_cmd_bench_placement(const tr_cli_t *cli, int argc, char **argv);

#endif
