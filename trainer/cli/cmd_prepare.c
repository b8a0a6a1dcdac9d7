/* cadre prepare: JSONL to datasets. Finds out which files become which, and becomes the Python tool
 * that does it. */
#include "base/config/config.h"
#include "base/version.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/verb.h"
#include "trainer/run/prepare_tool.h"
#include "trainer/run/prepared.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char PAGE[] =
    "Usage: cadre prepare RUN.yaml [--set PATH=VALUE]... [OPTION...]\n"
    "       cadre prepare FILE.jsonl --model DIR -o FILE.h5 [OPTION...]\n\n"
    "Tokenizes JSONL for training. The first form prepares every .jsonl that the configuration\n"
    "names, to OUTPUT/prepared/NAME.h5 (evaluation sets: NAME.eval.h5); what is up to date is "
    "left\n"
    "as it is. Each line is one document:\n\n"
    "  {\"text\": \"...\"}                            trained on all of it\n"
    "  {\"prompt\": \"...\", \"completion\": \"...\"}     trained on the completion\n"
    "  {\"messages\": [{\"role\": \"user\", \"content\": \"...\"},\n"
    "                {\"role\": \"assistant\", \"content\": \"...\"}]}   on the assistant's "
    "turns\n\n"
    "prompt and completion may be lists of messages too. Messages are rendered with the chat\n"
    "template of the model folder. Every document ends with an end token that is trained on.\n\n"
    "Options:\n"
    "  --overlong error|skip|truncate  documents above --max-tokens (error)\n"
    "  --max-tokens N                  (max_position_embeddings of the model)\n"
    "  --masked error|skip             rows in which nothing is trained on (error)\n"
    "  --double-bos error|keep         rows that bring a second BOS (error)\n"
    "  --columns text=body,...         other names of text, prompt, completion, messages\n"
    "  --show N                        print the first N documents, trained parts in {+ and +}\n"
    "  --set PATH=VALUE                change a key of the configuration\n"
    "  --model DIR, -o FILE.h5         of the second form\n\n"
    "Special tokens that stand in a text or message are plain text there; only the template "
    "writes\n"
    "special tokens. The first use downloads about 30 MB of Python packages (CADRE_PYTHON=PROGRAM\n"
    "uses another interpreter, which has to have them).";

/* The first are for the tool, which gets them as they are; `words` are the legal values. */
static const struct {
    const char *name, *words;
} OPTIONS[] = {
    {"--overlong", "error skip truncate"},
    {"--masked", "error skip"},
    {"--double-bos", "error keep"},
    {"--columns", NULL},
    {"--max-tokens", NULL},
    {"--show", NULL},
    {"--set", NULL},
    {"--model", NULL},
    {"-o", NULL},
    {"--help", NULL},
};
enum {
    OPTION_MAX_TOKENS = 4,
    OPTION_SHOW,
    OPTION_SET,
    OPTION_MODEL,
    OPTION_OUTPUT,
    OPTION_HELP,
    NUM_OPTIONS
};

typedef struct request {
    const tr_cli_t *cli;
    base_text_pool_t pool;
    const char *source; /* RUN.yaml or FILE.jsonl */
    const char *model, *output;
    const char **sets;
    size_t num_sets;
    const char **options; /* of the tool */
    size_t num_options;
    tr_prepare_job_t job; /* FILE.jsonl */
    bool help;
} request_t;

/* ==== command line ==== */

static bool word_of(const char *words, const char *value)
{
    const size_t bytes = strlen(value);

    for (const char *at = words; bytes > 0 && (at = strstr(at, value)) != NULL; at++) {
        if ((at == words || at[-1] == ' ') && (at[bytes] == '\0' || at[bytes] == ' ')) return true;
    }
    return false;
}

static base_status_t check_value(base_ctx_t *ctx, size_t option, const char *value)
{
    const char *name = OPTIONS[option].name, *words = OPTIONS[option].words;

    if (words != NULL && !word_of(words, value))
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "%s: found \"%s\", wanted one of %s", name, value, words);
    if (option == OPTION_MAX_TOKENS || option == OPTION_SHOW) {
        char *end = NULL;
        const long long number = strtoll(value, &end, 10);

        if (end == value || *end != '\0' || number < 1 || number > INT32_MAX)
            return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                             "%s: found \"%s\", wanted a whole number from 1 to %d", name, value,
                             INT32_MAX);
    }
    return BASE_OK;
}

static void take(request_t *r, const char *name, const char *value)
{
    r->options[r->num_options++] = name;
    r->options[r->num_options++] = value;
}

static base_status_t take_option(request_t *r, size_t option, const char *value)
{
    switch (option) {
    case OPTION_SET:
        r->sets[r->num_sets++] = value;
        return BASE_OK;
    case OPTION_MODEL:
        r->model = value;
        return BASE_OK;
    case OPTION_OUTPUT:
        r->output = value;
        return BASE_OK;
    default:
        BASE_TRY(check_value(r->cli->ctx, option, value));
        take(r, OPTIONS[option].name, value);
        return BASE_OK;
    }
}

static size_t find_option(const char *word, size_t bytes)
{
    size_t option = 0;

    while (option < NUM_OPTIONS && (strlen(OPTIONS[option].name) != bytes ||
                                    strncmp(OPTIONS[option].name, word, bytes) != 0))
        option++;
    return option;
}

static base_status_t unknown(base_ctx_t *ctx, const char *word)
{
    const char *names[NUM_OPTIONS];

    for (size_t i = 0; i < NUM_OPTIONS; i++)
        names[i] = OPTIONS[i].name;
    return tr_cli_unknown_option(ctx, word, names, NUM_OPTIONS);
}

/* Options are "--name value" or "--name=value". */
static base_status_t parse(request_t *r, int argc, char **argv)
{
    base_ctx_t *ctx = r->cli->ctx;

    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value = NULL;
        const size_t bytes = strncmp(word, "--", 2) == 0 ? strcspn(word, "=") : strlen(word);
        const size_t option = find_option(word, bytes);

        if (word[0] != '-') {
            if (r->source != NULL)
                return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                                 "prepare: unexpected argument \"%s\"", word);
            r->source = word;
            continue;
        }
        if (option == NUM_OPTIONS) return unknown(ctx, word);
        if (option == OPTION_HELP) {
            r->help = true;
            return BASE_OK;
        }
        if (word[bytes] == '=')
            value = word + bytes + 1;
        else if (i + 1 < argc)
            value = argv[++i];
        if (value == NULL)
            return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "%s: lacks its value", word);
        BASE_TRY(take_option(r, option, value));
    }
    if (r->source == NULL)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "prepare: lacks RUN.yaml or FILE.jsonl");
    return BASE_OK;
}

/* ==== jobs ==== */

static base_status_t of_file(request_t *r, tr_prepare_jobs_t *jobs)
{
    base_ctx_t *ctx = r->cli->ctx;

    if (r->model == NULL || r->output == NULL)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "prepare %s: lacks %s", r->source,
                         r->model == NULL ? "--model DIR" : "-o FILE.h5");
    if (!tr_prepared_is_dataset(r->output))
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "-o: found \"%s\", wanted a path that ends in .h5", r->output);
    if (r->num_sets > 0)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "--set: %s is no configuration",
                         r->source);
    r->job = (tr_prepare_job_t){r->source, r->output};
    *jobs = (tr_prepare_jobs_t){r->model, &r->job, 1};
    return BASE_OK;
}

static base_status_t of_config(request_t *r, tr_prepare_jobs_t *jobs)
{
    base_ctx_t *ctx = r->cli->ctx;
    base_error_list_t errors;
    base_config_t *config = NULL;

    if (r->model != NULL || r->output != NULL)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "%s: %s does not end in .jsonl; a configuration says it itself",
                         r->model != NULL ? "--model" : "-o", r->source);
    base_error_list_init(&errors, ctx);
    base_status_t st = base_config_load(ctx, r->source, r->sets, r->num_sets, &errors, &config);
    if (errors.count > 0) {
        base_error_list_print(&errors, stderr);
        base_ctx_clear_error(ctx); /* it is the first of them */
    }
    base_error_list_deinit(&errors);
    BASE_TRY(st);
    st = tr_prepare_jobs_of_config(ctx, &r->pool, config, r->source, jobs);
    base_config_destroy(config);
    return st;
}

static base_status_t run(request_t *r)
{
    tr_prepare_jobs_t jobs = {NULL, NULL, 0};
    const char *dot = strrchr(r->source, '.');

    if (dot != NULL && strcmp(dot, ".jsonl") == 0)
        BASE_TRY(of_file(r, &jobs));
    else
        BASE_TRY(of_config(r, &jobs));
    if (jobs.count == 0) {
        (void)printf("%s: nothing to prepare: it names no .jsonl\n", r->source);
        return BASE_OK;
    }
    take(r, "--creator", base_text_pool_format(&r->pool, "cadre %s", base_version_number()));
    if (r->pool.failed) return BASE_ERR_NOMEM;
    return tr_prepare_tool_exec(r->cli->ctx, &r->pool, &jobs, r->options, r->num_options);
}

int tr_cmd_prepare(const tr_cli_t *cli, int argc, char **argv)
{
    request_t r = {.cli = cli};
    base_status_t st = BASE_ERR_NOMEM;

    base_text_pool_init(&r.pool, cli->ctx);
    r.sets = base_text_pool_take(&r.pool, (size_t)argc * sizeof *r.sets);
    r.options = base_text_pool_take(&r.pool, (2 + (size_t)argc * 2) * sizeof *r.options);
    if (r.sets != NULL && r.options != NULL) st = parse(&r, argc, argv);
    if (st >= 0 && r.help)
        (void)puts(PAGE);
    else if (st >= 0)
        st = run(&r);
    base_text_pool_deinit(&r.pool);
    return tr_cli_exit_code(st);
}
