/* `cadre bench attention` */
#ifndef CADRE_TRAINER_CLI_CMD_BENCH_ATTENTION_H
#define CADRE_TRAINER_CLI_CMD_BENCH_ATTENTION_H

#include "trainer/bench/bench_attention_rig.h"
#include "trainer/cli/verb.h"

int tr_cmd_bench_attention(const tr_cli_t *cli, int argc, char **argv);

/* The same with other ops in place of the product's, which --ops NAME chooses from `count` of them;
 * the first is taken without it. */
int tr_cmd_bench_attention_of(const tr_cli_t *cli, int argc, char **argv,
                              const tr_attention_ops_t *const *ops, int count);

#endif
