/* The subject `links` of `cadre bench`. */
#ifndef CADRE_TRAINER_CLI_CMD_BENCH_LINKS_H
#define CADRE_TRAINER_CLI_CMD_BENCH_LINKS_H

#include "trainer/cli/verb.h"

/* argv[0] is "links". Returns the exit code. */
int tr_cmd_bench_links(const tr_cli_t *cli, int argc, char **argv);

#endif
