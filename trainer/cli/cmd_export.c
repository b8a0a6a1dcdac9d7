/* cadre export: what a run has trained, in another folder and form. */
#include "trainer/cli/cli_error.h"
#include "trainer/cli/options.h"
#include "trainer/cli/verb.h"
#include "trainer/run/run_export.h"

#include <string.h>

static const char PAGE[] =
    "Usage: cadre export RUN_FOLDER [--adapter NAME] -o DIR [OPTION...]\n\n"
    "Writes an adapter of a run (OUTPUT of its configuration) as a PEFT folder DIR, or with\n"
    "train.mode full the model as a Hugging Face folder. What was written is read back and\n"
    "compared before DIR gets its name. Adapters are in the portable form unless asked otherwise:\n"
    "fp32, the scale multiplied into B, so that loaders that ignore rsLoRA or patterns are "
    "right.\n\n"
    "Options:\n"
    "  --adapter NAME    which one, when the run has several\n"
    "  -o DIR            where to: a folder that is not there, is empty, or (adapters) holds an\n"
    "                    adapter, which is replaced\n"
    "  --faithful        alpha and use_rslora as trained, B without the scale\n"
    "  --dtype f32|bf16  of a model's weights (f32)";

enum { ADAPTER, OUTPUT, FAITHFUL, DTYPE, NUM_SPECS };
static const tr_option_spec_t SPECS[NUM_SPECS] = {[ADAPTER] = {"--adapter", true},
                                                  [OUTPUT] = {"-o", true},
                                                  [FAITHFUL] = {"--faithful", false},
                                                  [DTYPE] = {"--dtype", true}};

static base_status_t take(base_ctx_t *ctx, const tr_options_t *o, tr_run_export_t *request)
{
    const char *dtype = o->values[DTYPE];

    BASE_TRY(tr_options_need(ctx, "export", "RUN_FOLDER", o->num_words > 0 ? o->words[0] : NULL));
    BASE_TRY(tr_options_need(ctx, "export", "-o DIR", o->values[OUTPUT]));
    if (dtype != NULL && strcmp(dtype, "f32") != 0 && strcmp(dtype, "bf16") != 0)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "--dtype: found \"%.40s\", wanted f32 or bf16", dtype);
    *request = (tr_run_export_t){.run = o->words[0],
                                 .adapter = o->values[ADAPTER],
                                 .to = o->values[OUTPUT],
                                 .faithful = o->values[FAITHFUL] != NULL,
                                 .dtype_given = dtype != NULL,
                                 .dtype = dtype != NULL && strcmp(dtype, "bf16") == 0 ? DATA_BF16
                                                                                      : DATA_F32,
                                 .out = stdout,
                                 .err = stderr};
    return BASE_OK;
}

int tr_cmd_export(const tr_cli_t *cli, int argc, char **argv)
{
    tr_options_t o;
    tr_run_export_t request = {0};
    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_SPECS, 1, &o);

    if (st >= 0 && o.help) {
        (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (st >= 0) st = take(cli->ctx, &o, &request);
    if (st >= 0) st = tr_run_export(cli->ctx, &request);
    if (request.reported) base_ctx_clear_error(cli->ctx); /* printed, with the others */
    return tr_cli_exit_code(st);
}
