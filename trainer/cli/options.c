#include "trainer/cli/options.h"

#include "trainer/cli/cli_error.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static base_status_t unknown(base_ctx_t *ctx, const char *word, const tr_option_spec_t *specs,
                             size_t num_specs)
{
    const char *names[TR_OPTIONS_MAX + 1] = {"--help"};

    for (size_t i = 0; i < num_specs; i++)
        names[i + 1] = specs[i].name;
    return tr_cli_unknown_option(ctx, word, names, num_specs + 1);
}

static size_t find(const char *word, const tr_option_spec_t *specs, size_t num_specs)
{
    const char *equals = strchr(word, '=');
    const size_t bytes = equals != NULL ? (size_t)(equals - word) : strlen(word);
    size_t i = 0;

    while (i < num_specs &&
           (strlen(specs[i].name) != bytes || strncmp(specs[i].name, word, bytes) != 0))
        i++;
    return i;
}

/* "$MODEL" of a variable that is not set. */
static base_status_t check_filled(base_ctx_t *ctx, const char *name, const char *value)
{
    if (value[0] != '\0') return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                     "%s: found an empty text; a variable that is not set?", name);
}

static base_status_t keep(base_ctx_t *ctx, const tr_option_spec_t *spec, size_t index,
                          const char *value, tr_options_t *options)
{
    if (strcmp(spec->name, "--set") != 0) {
        BASE_TRY(check_filled(ctx, spec->name, value));
        options->values[index] = value;
        return BASE_OK;
    }
    if (options->num_sets == TR_OPTIONS_SETS)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "--set: more than %d of them",
                         TR_OPTIONS_SETS);
    options->sets[options->num_sets++] = value;
    return BASE_OK;
}

/* Takes the option at argv[*i]; moves *i on to its value if that is a word of its own. */
static base_status_t take_option(base_ctx_t *ctx, int argc, char **argv, int *i,
                                 const tr_option_spec_t *specs, size_t num_specs,
                                 tr_options_t *options)
{
    const char *word = argv[*i];
    const char *equals = strchr(word, '=');
    const size_t index = find(word, specs, num_specs);

    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        options->help = true;
        return BASE_OK;
    }
    if (index == num_specs) return unknown(ctx, word, specs, num_specs);
    const tr_option_spec_t *spec = &specs[index];
    if (!spec->takes_value && equals != NULL)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "%s takes no value", spec->name);
    if (!spec->takes_value) return keep(ctx, spec, index, spec->name, options);
    if (equals != NULL) return keep(ctx, spec, index, equals + 1, options);
    if (*i + 1 == argc)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "%s needs a value", spec->name);
    return keep(ctx, spec, index, argv[++*i], options);
}

base_status_t tr_options_parse(base_ctx_t *ctx, int argc, char **argv,
                               const tr_option_spec_t *specs, size_t num_specs, int max_words,
                               tr_options_t *options)
{
    bool only_words = false;

    assert(num_specs <= TR_OPTIONS_MAX);
    *options = (tr_options_t){0};
    for (int i = 1; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (!only_words && argv[i][0] == '-' && argv[i][1] != '\0') {
            BASE_TRY(take_option(ctx, argc, argv, &i, specs, num_specs, options));
        } else {
            if (options->num_words == max_words || options->num_words == TR_OPTIONS_WORDS)
                return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                                 "%s: unexpected argument \"%s\"", argv[0], argv[i]);
            BASE_TRY(check_filled(ctx, argv[0], argv[i]));
            options->words[options->num_words++] = argv[i];
        }
    }
    return BASE_OK;
}

base_status_t tr_options_number(base_ctx_t *ctx, const char *name, const char *value, int64_t min,
                                int64_t max, int64_t *number)
{
    char *end = NULL;

    errno = 0;
    const long long found = strtoll(value, &end, 10);
    if (end == value || *end != '\0' || errno != 0 || found < min || found > max)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "%s: found \"%s\", wanted a whole number from %lld to %lld", name, value,
                         (long long)min, (long long)max);
    *number = found;
    return BASE_OK;
}

base_status_t tr_options_need(base_ctx_t *ctx, const char *verb, const char *what,
                              const char *value)
{
    if (value != NULL) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "%s: %s is missing", verb, what);
}
