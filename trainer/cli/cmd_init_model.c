/* cadre init-model: a model folder with random weights from a config.json. */
#include "base/memory.h"
#include "data/hf_config.h"
#include "data/hf_write.h"
#include "data/hf_write_config.h"
#include "data/hf_write_random.h"
#include "data/json_read.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/verb.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char page[] =
    "Usage: cadre init-model CONFIG.json DIR --seed N [--dtype f32|bf16]\n\n"
    "Writes DIR, a Hugging Face folder with random weights of the model that CONFIG.json\n"
    "describes, to be trained with `train.mode: full`. DIR must not exist, or be empty.\n\n"
    "  --seed N           a whole number; the same seed gives the same weights\n"
    "  --dtype f32|bf16   of the weights (f32)\n\n"
    "Weights are normal with the deviation initializer_range of CONFIG.json (0.02 when it has\n"
    "none); norms are 1 and biases 0. Tokenizer files that lie beside CONFIG.json are copied.";

static const char *const options[] = {"--seed", "--dtype", "--help"};
enum { OPTION_SEED, OPTION_DTYPE, OPTION_HELP, NUM_OPTIONS };

typedef struct request {
    const char *config, *folder;
    uint64_t seed;
    bool seed_given, help;
    data_dtype_t dtype;
} request_t;

/* ==== command line ==== */

static base_status_t take_value(base_ctx_t *ctx, request_t *r, int option, const char *value)
{
    unsigned long long seed;
    char *end;

    if (option == OPTION_DTYPE) {
        r->dtype = strcmp(value, "bf16") == 0 ? DATA_BF16 : DATA_F32;
        if (r->dtype == DATA_BF16 || strcmp(value, "f32") == 0) return BASE_OK;
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "--dtype: found \"%.40s\", wanted f32 or bf16", value);
    }
    errno = 0;
    seed = strtoull(value, &end, 10);
    /* strtoull takes a sign and blanks, too. */
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "--seed: found \"%.40s\", wanted a whole number from 0 to 2^64 - 1",
                         value);
    r->seed = seed;
    r->seed_given = true;
    return BASE_OK;
}

static base_status_t take_word(base_ctx_t *ctx, request_t *r, const char *word)
{
    if (r->config == NULL)
        r->config = word;
    else if (r->folder == NULL)
        r->folder = word;
    else
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "init-model: unexpected argument \"%s\"", word);
    return BASE_OK;
}

/* "--seed 7" or "--seed=7". */
static base_status_t take_option(base_ctx_t *ctx, request_t *r, char **argv, int *i)
{
    const char *word = argv[*i];
    const size_t bytes = strcspn(word, "=");

    for (int option = 0; option < NUM_OPTIONS; option++) {
        if (strlen(options[option]) != bytes || strncmp(options[option], word, bytes) != 0)
            continue;
        if (option == OPTION_HELP) {
            r->help = true;
            return BASE_OK;
        }
        if (word[bytes] == '=') return take_value(ctx, r, option, word + bytes + 1);
        if (argv[*i + 1] == NULL)
            return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "%s: value is missing", word);
        return take_value(ctx, r, option, argv[++*i]);
    }
    return tr_cli_unknown_option(ctx, word, options, NUM_OPTIONS);
}

static base_status_t parse(base_ctx_t *ctx, int argc, char **argv, request_t *r)
{
    for (int i = 1; i < argc && !r->help; i++) {
        if (argv[i][0] == '-')
            BASE_TRY(take_option(ctx, r, argv, &i));
        else
            BASE_TRY(take_word(ctx, r, argv[i]));
    }
    if (r->help || (r->folder != NULL && r->seed_given)) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "init-model: %s is missing",
                     r->config == NULL   ? "CONFIG.json"
                     : r->folder == NULL ? "DIR"
                                         : "--seed N");
}

/* ==== work ==== */

/* All faults of config.json go to the terminal here; one alone is left to main. */
static base_status_t read_config(base_ctx_t *ctx, const char *path, data_model_spec_t *spec)
{
    base_error_list_t errors;
    base_status_t st;

    base_error_list_init(&errors, ctx);
    st = data_hf_config_read(ctx, path, &errors, spec);
    if (errors.count > 0) st = data_errors_finish(&errors);
    if (errors.count > 1) {
        base_error_list_print(&errors, stderr);
        base_ctx_clear_error(ctx);
    }
    base_error_list_deinit(&errors);
    return st;
}

/* The folder of a file: "." when the path has none. Owned; NULL without memory. */
static char *folder_of(base_ctx_t *ctx, const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder;

    if (slash == NULL) return base_strdup(ctx, ".", "path");
    folder = base_strdup(ctx, path, "path");
    if (folder != NULL) folder[slash == path ? 1 : slash - path] = '\0';
    return folder;
}

static base_status_t write_model(base_ctx_t *ctx, const request_t *r)
{
    data_hf_write_options_t to = {.dtype = r->dtype, .config_from = r->config};
    data_hf_random_t random = {.seed = r->seed, .std = DATA_HF_RANDOM_STD};
    data_model_spec_t spec;
    data_hf_carried_t carried;
    base_status_t st;
    char *beside;

    BASE_TRY(data_hf_write_check_path(ctx, r->folder));
    BASE_TRY(read_config(ctx, r->config, &spec));
    BASE_TRY(data_hf_carried_read(ctx, r->config, &carried));
    if (carried.initializer_range > 0.0) random.std = carried.initializer_range;
    beside = folder_of(ctx, r->config);
    if (beside == NULL) return BASE_ERR_NOMEM;
    to.files_from = beside;
    st = data_hf_write(ctx, r->folder, &spec, &to, data_hf_random_rows, &random);
    base_free(ctx, beside);
    if (st < 0) return st;
    (void)printf("%s: %s, %" PRId32 " layers, %" PRId64 " parameters in %s, deviation %g, seed "
                 "%" PRIu64 "\n",
                 r->folder, data_model_family_name(spec.family), spec.num_layers,
                 data_model_spec_parameters(&spec), data_dtype_name(r->dtype), random.std, r->seed);
    return BASE_OK;
}

int tr_cmd_init_model(const tr_cli_t *cli, int argc, char **argv)
{
    request_t request = {.dtype = DATA_F32};
    base_status_t st = parse(cli->ctx, argc, argv, &request);

    if (st >= 0 && request.help)
        (void)puts(page);
    else if (st >= 0)
        st = write_model(cli->ctx, &request);
    return tr_cli_exit_code(st);
}
