/* The subject `pack` of `cadre bench`. */
#ifndef CADRE_TRAINER_CLI_CMD_BENCH_PACK_H
#define CADRE_TRAINER_CLI_CMD_BENCH_PACK_H

#include "trainer/cli/verb.h"

/* argv[0] is "pack". Returns the exit code. */
int tr_cmd_bench_pack(const tr_cli_t *cli, int argc, char **argv);

#endif
