/* Verbs: the words after `cadre`.
 *
 * One file a verb, trainer/cli/cmd_<verb>.c with one function tr_cmd_<verb>, declared here; main.c holds the table in
 * the order of a user's life. A verb reads its options, calls the folder that does the work and writes what it was
 * asked for to stdout; it does no arithmetic of its own.
 *
 * Errors: a verb that fails has recorded the error in cli->ctx (BASE_FAIL) and returns tr_cli_exit_code(status);
 * main.c prints it. Every verb answers --help with its own page and exit code 0. */
#ifndef CADRE_TRAINER_CLI_VERB_H
#define CADRE_TRAINER_CLI_VERB_H

#include "base/context.h"

#include <stddef.h>

typedef struct tr_cli tr_cli_t;

typedef struct tr_verb {
    const char *name;
    const char *summary; /* one line of `cadre --help` */
    /* argv[0] is the verb. Returns the exit code of the process. */
    int (*run)(const tr_cli_t *cli, int argc, char **argv);
} tr_verb_t;

struct tr_cli {
    base_ctx_t *ctx;        /* borrowed */
    const tr_verb_t *verbs; /* the whole table, for `help` */
    size_t num_verbs;
};

/* Exit codes (docs/design.md, "What the user sees"). */
enum {
    TR_EXIT_DONE = 0,
    TR_EXIT_NO = 1,          /* the answer is no */
    TR_EXIT_USAGE = 2,       /* command line or configuration */
    TR_EXIT_ENVIRONMENT = 3, /* data, model or environment */
    TR_EXIT_RESOURCES = 4,
    TR_EXIT_RANK = 5,  /* a rank or link failed */
    TR_EXIT_SAVED = 75 /* saved on a signal: run again */
};

/* The verb of that name, or NULL. */
const tr_verb_t *tr_verb_find(const tr_cli_t *cli, const char *name);

/* Records CLI-01 (unknown verb, with the nearest one). */
base_status_t tr_verb_unknown(const tr_cli_t *cli, const char *word) BASE_MUST_CHECK;

int tr_cmd_bench(const tr_cli_t *cli, int argc, char **argv);
int tr_cmd_export(const tr_cli_t *cli, int argc, char **argv);
int tr_cmd_help(const tr_cli_t *cli, int argc, char **argv);
int tr_cmd_init_model(const tr_cli_t *cli, int argc, char **argv);
int tr_cmd_plan(const tr_cli_t *cli, int argc, char **argv);
int tr_cmd_prepare(const tr_cli_t *cli, int argc, char **argv);
int tr_cmd_score(const tr_cli_t *cli, int argc, char **argv);
int tr_cmd_trace(const tr_cli_t *cli, int argc, char **argv);
int tr_cmd_train(const tr_cli_t *cli, int argc, char **argv);
int tr_cmd_verify(const tr_cli_t *cli, int argc, char **argv);
int tr_cmd_version(const tr_cli_t *cli, int argc, char **argv);

#endif
