/* The subject `load` of `cadre bench`. */
#ifndef CADRE_TRAINER_CLI_CMD_BENCH_LOAD_H
#define CADRE_TRAINER_CLI_CMD_BENCH_LOAD_H

#include "trainer/cli/verb.h"

/* argv[0] is "load". Returns the exit code. */
int tr_cmd_bench_load(const tr_cli_t *cli, int argc, char **argv);

#endif
