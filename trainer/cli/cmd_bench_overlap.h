/* The subject `overlap` of `cadre bench`. */
#ifndef CADRE_TRAINER_CLI_CMD_BENCH_OVERLAP_H
#define CADRE_TRAINER_CLI_CMD_BENCH_OVERLAP_H

#include "trainer/cli/verb.h"

/* argv[0] is "overlap". Returns the exit code. */
int tr_cmd_bench_overlap(const tr_cli_t *cli, int argc, char **argv);

#endif
