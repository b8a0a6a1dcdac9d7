#include "trainer/cli/cli_error.h"

#include "base/config/suggest.h"
#include "trainer/cli/verb.h"

int tr_cli_exit_code(base_status_t st)
{
    switch (st) {
    case BASE_OK:
    case BASE_PENDING:
        return TR_EXIT_DONE;
    case BASE_ERR_CONFIG:
        return TR_EXIT_USAGE;
    case BASE_ERR_NOMEM:
    case BASE_ERR_SPACE:
        return TR_EXIT_RESOURCES;
    case BASE_ERR_TIMEOUT:
    case BASE_ERR_PEER:
    case BASE_ERR_MISMATCH:
    case BASE_ERR_COMM:
        return TR_EXIT_RANK;
    case BASE_ERR_ARG:
    case BASE_ERR_FORMAT:
    case BASE_ERR_IO:
    case BASE_ERR_UNSUPPORTED:
    case BASE_ERR_STATE:
    case BASE_ERR_DEVICE:
    case BASE_ERR_INTERNAL:
        return TR_EXIT_ENVIRONMENT;
    }
    return TR_EXIT_ENVIRONMENT; /* a value outside the enum */
}

void tr_cli_error_print(FILE *stream, const base_error_t *error)
{
    const char *id = base_message_id(error->message);
    const char *cure = base_message_cure(error->message);

    (void)fprintf(stream, "cadre: error %s: %s\n", id != NULL ? id : "INT-01", error->text);
    if (cure != NULL) (void)fprintf(stream, "    %s\n", cure);
}

int tr_cli_no_arguments(base_ctx_t *ctx, int argc, char **argv)
{
    if (argc <= 1) return 1;
    (void)BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "%s: unexpected argument \"%s\"",
                    argv[0], argv[1]);
    return 0;
}

base_status_t tr_cli_unknown_option(base_ctx_t *ctx, const char *word, const char *const *options,
                                    size_t count)
{
    const char *nearest = base_suggest_nearest(word, options, count);

    if (nearest != NULL)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "unknown option \"%s\"; nearest is \"%s\"", word, nearest);
    return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "unknown option \"%s\"", word);
}
