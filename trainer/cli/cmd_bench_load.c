#include "trainer/cli/cmd_bench_load.h"

#include "trainer/bench/bench_load.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/one_rank.h"
#include "trainer/cli/options.h"

static const char PAGE[] =
    "Usage: cadre bench load --model DIR [OPTION...]\n\n"
    "Times how fast the weights of a model folder reach the device, beside what bounds it: "
    "copying\n"
    "the same tensors out of the page cache into pinned memory, with the number of threads that "
    "is\n"
    "best for that, and uploads from pinned memory to the device. The folder has to fit into the\n"
    "page cache.\n\n"
    "Options:\n"
    "  --model DIR     Hugging Face folder; no tokenizer is needed\n"
    "  --device NAME   cpu (fp32) or cuda (bf16); without: what the program was built for\n"
    "  --repeat N      turns of which the best counts, 1 to 20 (3)\n"
    "  --ways          also load with other numbers of threads, slots and landings\n"
    "  --want-share N  exit code 1 when loading is below N % of the slower of the two\n"
    "  --json          one JSON object instead of text";

enum { MODEL, DEVICE, REPEAT, WAYS, WANT_SHARE, JSON, NUM_SPECS };
static const tr_option_spec_t SPECS[NUM_SPECS] = {
    [MODEL] = {"--model", true},           [DEVICE] = {"--device", true},
    [REPEAT] = {"--repeat", true},         [WAYS] = {"--ways", false},
    [WANT_SHARE] = {"--want-share", true}, [JSON] = {"--json", false}};

static base_status_t take(base_ctx_t *ctx, const tr_options_t *o, tr_bench_load_t *b)
{
    int64_t share = 0;

    BASE_TRY(tr_options_need(ctx, "bench load", "--model DIR", o->values[MODEL]));
    if (o->values[REPEAT] != NULL)
        BASE_TRY(tr_options_number(ctx, "--repeat", o->values[REPEAT], 1, TR_BENCH_LOAD_REPEAT,
                                   &b->repeat));
    if (o->values[WANT_SHARE] != NULL)
        BASE_TRY(tr_options_number(ctx, "--want-share", o->values[WANT_SHARE], 0, 10000, &share));
    b->model = o->values[MODEL];
    b->want_share = (double)share;
    b->ways = o->values[WAYS] != NULL;
    b->json = o->values[JSON] != NULL;
    return BASE_OK;
}

int tr_cmd_bench_load(const tr_cli_t *cli, int argc, char **argv)
{
    tr_options_t o;
    base_device_kind_t device;
    tr_bench_load_t bench = {.repeat = 3, .out = stdout, .met = true};
    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_SPECS, 0, &o);

    if (st >= 0 && o.help) {
        (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (st >= 0) st = take(cli->ctx, &o, &bench);
    if (st >= 0) st = tr_one_rank_device(cli->ctx, o.values[DEVICE], &device);
    if (st < 0) return tr_cli_exit_code(st);
    bench.dtype = device == BASE_DEVICE_CUDA ? KERN_BF16 : KERN_F32;
    const int code = tr_one_rank_run(device, tr_bench_load_rank, &bench, NULL);
    return code == TR_EXIT_DONE && !bench.met ? TR_EXIT_NO : code;
}
