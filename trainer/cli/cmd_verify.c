/* cadre verify: does an adapter fit its base, and change what it says. */
#include "trainer/cli/cli_error.h"
#include "trainer/cli/one_rank.h"
#include "trainer/cli/options.h"
#include "trainer/cli/verb.h"
#include "trainer/run/verify_logits.h"

static const char PAGE[] =
    "Usage: cadre verify --model DIR --adapter DIR [--data FILE.h5] [OPTION...]\n\n"
    "Compares the names and shapes of an adapter's tensors with the model folder's own, measures\n"
    "how much each module changes its weight, and runs the model with and without the adapter on\n"
    "the same tokens. Prints the lines that serve the adapter with vLLM and SGLang.\n\n"
    "Options:\n"
    "  --model DIR     Hugging Face folder of the base\n"
    "  --adapter DIR   PEFT folder\n"
    "  --data FILE.h5  compare on its first document, up to 256 rows (64 random tokens)\n"
    "  --device NAME   cpu (fp32) or cuda (bf16); without: what the program was built for\n"
    "  --json          one JSON object instead of text\n\n"
    "Exit code 0: it fits and changes the logits; 1: it does nothing; 3: it does not fit.";

enum { MODEL, ADAPTER, DATA, DEVICE, JSON, NUM_SPECS };
static const tr_option_spec_t SPECS[NUM_SPECS] = {[MODEL] = {"--model", true},
                                                  [ADAPTER] = {"--adapter", true},
                                                  [DATA] = {"--data", true},
                                                  [DEVICE] = {"--device", true},
                                                  [JSON] = {"--json", false}};

int tr_cmd_verify(const tr_cli_t *cli, int argc, char **argv)
{
    tr_options_t o;
    base_device_kind_t device;
    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_SPECS, 0, &o);

    if (st >= 0 && o.help) {
        (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (st >= 0) st = tr_options_need(cli->ctx, "verify", "--model DIR", o.values[MODEL]);
    if (st >= 0) st = tr_options_need(cli->ctx, "verify", "--adapter DIR", o.values[ADAPTER]);
    if (st >= 0) st = tr_one_rank_device(cli->ctx, o.values[DEVICE], &device);
    if (st < 0) return tr_cli_exit_code(st);
    tr_verify_t verify = {
        .sources = {.model = o.values[MODEL], .adapter = o.values[ADAPTER], .data = o.values[DATA]},
        .json = o.values[JSON] != NULL,
        .out = stdout,
        .err = stderr};
    const int code = tr_one_rank_run(device, tr_verify_rank, &verify, &verify.reported);
    return code == TR_EXIT_DONE && verify.does_nothing ? TR_EXIT_NO : code;
}
