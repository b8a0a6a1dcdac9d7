/* cadre score: the loss of a model, with or without an adapter, on a dataset. */
#include "trainer/cli/cli_error.h"
#include "trainer/cli/one_rank.h"
#include "trainer/cli/options.h"
#include "trainer/cli/verb.h"
#include "trainer/run/score_report.h"

static const char PAGE[] =
    "Usage: cadre score --model DIR [--adapter DIR] --data FILE.h5 [OPTION...]\n\n"
    "Prints the mean loss of a model, in nats per supervised token, and its perplexity on a\n"
    "dataset made by `cadre prepare` with the same model folder. Bits per token are the loss\n"
    "divided by 0.6931.\n\n"
    "Options:\n"
    "  --model DIR     Hugging Face folder with its tokenizer.json\n"
    "  --adapter DIR   PEFT folder of an adapter on it; without: the model alone\n"
    "  --data FILE.h5  the dataset\n"
    "  --per-document  also tokens and loss of each document, with its line in the JSONL\n"
    "  --tokens N      rows of a microbatch (4096, or the longest document): less memory or more\n"
    "                  speed; no loss depends on it beyond rounding\n"
    "  --device NAME   cpu (fp32) or cuda (bf16); without: what the program was built for\n"
    "  --json          one JSON object instead of text";

enum { MODEL, ADAPTER, DATA, PER_DOCUMENT, TOKENS, DEVICE, JSON, NUM_SPECS };
static const tr_option_spec_t SPECS[NUM_SPECS] = {
    [MODEL] = {"--model", true},   [ADAPTER] = {"--adapter", true},
    [DATA] = {"--data", true},     [PER_DOCUMENT] = {"--per-document", false},
    [TOKENS] = {"--tokens", true}, [DEVICE] = {"--device", true},
    [JSON] = {"--json", false}};

#define MAX_TOKENS (INT64_C(1) << 30)

static base_status_t take(base_ctx_t *ctx, const tr_options_t *o, tr_score_t *score)
{
    BASE_TRY(tr_options_need(ctx, "score", "--model DIR", o->values[MODEL]));
    BASE_TRY(tr_options_need(ctx, "score", "--data FILE.h5", o->values[DATA]));
    *score = (tr_score_t){.sources = {.model = o->values[MODEL],
                                      .adapter = o->values[ADAPTER],
                                      .data = o->values[DATA]},
                          .per_document = o->values[PER_DOCUMENT] != NULL,
                          .json = o->values[JSON] != NULL,
                          .out = stdout,
                          .err = stderr};
    if (o->values[TOKENS] == NULL) return BASE_OK;
    return tr_options_number(ctx, "--tokens", o->values[TOKENS], 1, MAX_TOKENS,
                             &score->tokens_per_trainer);
}

int tr_cmd_score(const tr_cli_t *cli, int argc, char **argv)
{
    tr_options_t o;
    tr_score_t score;
    base_device_kind_t device;
    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_SPECS, 0, &o);

    if (st >= 0 && o.help) {
        (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (st >= 0) st = take(cli->ctx, &o, &score);
    if (st >= 0) st = tr_one_rank_device(cli->ctx, o.values[DEVICE], &device);
    if (st < 0) return tr_cli_exit_code(st);
    return tr_one_rank_run(device, tr_score_rank, &score, &score.reported);
}
