/* Options of a verb: a table, and one pass over the command line.
 *
 *   static const tr_option_spec_t SPECS[] = {{"--model", true}, {"--json", false}};
 *   tr_options_t o;
 *   BASE_TRY(tr_options_parse(cli->ctx, argc, argv, SPECS, 2, 1, &o));
 *   if (o.help) ...
 *   o.values[0]   NULL when it was not given; for an option without a value, its name
 *   o.words[0]    what stands without a dash
 *
 * `--name value` and `--name=value` are the same; `--` ends the options; `--help` and `-h` are
 * known to all. Everything is borrowed from argv. */
#ifndef CADRE_TRAINER_CLI_OPTIONS_H
#define CADRE_TRAINER_CLI_OPTIONS_H

#include "base/context.h"

#include <stdbool.h>

#define TR_OPTIONS_MAX   24
#define TR_OPTIONS_WORDS 4
#define TR_OPTIONS_SETS  256

typedef struct tr_option_spec {
    const char *name; /* "--set" may be given several times: see sets */
    bool takes_value;
} tr_option_spec_t;

typedef struct tr_options {
    bool help;
    const char *values[TR_OPTIONS_MAX];
    int num_words;
    const char *words[TR_OPTIONS_WORDS];
    const char *sets[TR_OPTIONS_SETS]; /* values of --set, in their order */
    size_t num_sets;
} tr_options_t;

/* At most TR_OPTIONS_MAX specs; at most max_words words. BASE_ERR_CONFIG (CLI-02) with the nearest
 * option. */
base_status_t tr_options_parse(base_ctx_t *ctx, int argc, char **argv,
                               const tr_option_spec_t *specs, size_t num_specs, int max_words,
                               tr_options_t *options) BASE_MUST_CHECK;

/* A whole number between two bounds. CLI-02. */
base_status_t tr_options_number(base_ctx_t *ctx, const char *name, const char *value, int64_t min,
                                int64_t max, int64_t *number) BASE_MUST_CHECK;
/* A value that must be there. CLI-02. */
base_status_t tr_options_need(base_ctx_t *ctx, const char *verb, const char *what,
                              const char *value) BASE_MUST_CHECK;

#endif
