/* Errors on the terminal: the one place that turns a recorded error into the two lines a user reads and into the exit
 * code of the process. */
#ifndef CADRE_TRAINER_CLI_CLI_ERROR_H
#define CADRE_TRAINER_CLI_CLI_ERROR_H

#include "base/context.h"

#include <stdio.h>

/* Exit code of a failed status; 0 for a status that is no failure. */
int tr_cli_exit_code(base_status_t st);

/* Writes the error and, on the next line, indented, its cure:
 *
 *     cadre: error CLI-01: unknown verb "tarin"; nearest is "train"
 *         `cadre --help` lists the verbs
 */
void tr_cli_error_print(FILE *stream, const base_error_t *error);

/* For a verb that takes no arguments but --help: returns 1 when argv holds nothing after the verb; otherwise records
 * CLI-02 about the first word and returns 0. */
int tr_cli_no_arguments(base_ctx_t *ctx, int argc, char **argv);

/* For option parsers: records CLI-02 about `word`, with the nearest of `options`, and returns the status. */
base_status_t tr_cli_unknown_option(base_ctx_t *ctx, const char *word, const char *const *options,
                                    size_t count);

#endif
