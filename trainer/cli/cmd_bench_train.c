#include "trainer/cli/cmd_bench_train.h"

#include "trainer/bench/bench_train.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/one_rank.h"
#include "trainer/cli/options.h"

#include <string.h>

static const char PAGE[] =
    "Usage: cadre bench train [OPTION...]\n\n"
    "Trains adapters on a model of a known shape with random weights, for some steps on one "
    "device,\n"
    "optimizer included, and says how many tokens a second that is and where the time goes.\n"
    "Weights are made on the device; no model folder is read.\n\n"
    "Options:\n"
    "  --device NAME       cpu or cuda; without: what the program was built for\n"
    "  --dtype NAME        fp32 or bf16 (bf16 on a GPU, fp32 on the CPU)\n"
    "  --model-shape NAME  llama-3.1-8b (default), llama-3.2-1b, qwen3-8b, tiny; or the path of\n"
    "                      a model's config.json. Weights are random\n"
    "  --layers N          so many instead of the shape's\n"
    "  --documents N       of a microbatch (4)\n"
    "  --rows N            of a document (4096)\n"
    "  --adapters N        the documents are dealt out to them (1)\n"
    "  --rank N            of each, on all seven linears (16)\n"
    "  --recompute NAME    none, qkv, block or auto: the least that fits on a GPU (auto)\n"
    "  --repeat N          measured steps, 1 to 50 (10); one more runs op by op\n"
    "  --warm N            steps before them, 1 to 50 (2)\n"
    "  --steps-only        no step op by op, and no product, copy and attention by themselves\n"
    "  --memory            only say what each --recompute takes on the device, and stop\n"
    "  --json              one JSON object instead of text";

enum {
    DEVICE,
    DTYPE,
    SHAPE,
    RECOMPUTE,
    LAYERS,
    DOCUMENTS,
    ROWS,
    ADAPTERS,
    RANK,
    REPEAT,
    WARM,
    STEPS_ONLY,
    MEMORY,
    JSON,
    NUM_SPECS
};
static const tr_option_spec_t SPECS[NUM_SPECS] = {
    [DEVICE] = {"--device", true},     [DTYPE] = {"--dtype", true},
    [SHAPE] = {"--model-shape", true}, [RECOMPUTE] = {"--recompute", true},
    [LAYERS] = {"--layers", true},     [DOCUMENTS] = {"--documents", true},
    [ROWS] = {"--rows", true},         [ADAPTERS] = {"--adapters", true},
    [RANK] = {"--rank", true},         [REPEAT] = {"--repeat", true},
    [WARM] = {"--warm", true},         [STEPS_ONLY] = {"--steps-only", false},
    [MEMORY] = {"--memory", false},    [JSON] = {"--json", false},
};

static base_status_t take_numbers(base_ctx_t *ctx, const tr_options_t *o, tr_bench_train_t *b)
{
    const struct {
        int64_t *to, min, max;
    } numbers[] = {
        [LAYERS] = {&b->layers, 1, 128},
        [DOCUMENTS] = {&b->documents, 1, 4096},
        [ROWS] = {&b->rows, 16, 1 << 20},
        [ADAPTERS] = {&b->adapters, 1, TR_BENCH_TRAIN_ADAPTERS},
        [RANK] = {&b->rank, 1, 256},
        [REPEAT] = {&b->repeat, 1, TR_BENCH_TRAIN_REPEAT},
        [WARM] = {&b->warm, 1, TR_BENCH_TRAIN_REPEAT},
    };

    for (int i = LAYERS; i <= WARM; i++)
        if (o->values[i] != NULL)
            BASE_TRY(tr_options_number(ctx, SPECS[i].name, o->values[i], numbers[i].min,
                                       numbers[i].max, numbers[i].to));
    return BASE_OK;
}

static base_status_t take_dtype(base_ctx_t *ctx, const char *word, base_device_kind_t device,
                                kern_dtype_t *dtype)
{
    *dtype = device == BASE_DEVICE_CUDA ? KERN_BF16 : KERN_F32;
    if (word == NULL) return BASE_OK;
    if (strcmp(word, "bf16") == 0)
        *dtype = KERN_BF16;
    else if (strcmp(word, "fp32") == 0 && device != BASE_DEVICE_CUDA)
        *dtype = KERN_F32;
    else
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "--dtype: found \"%s\", wanted %s",
                         word, device == BASE_DEVICE_CUDA ? "bf16" : "fp32 or bf16");
    return BASE_OK;
}

static base_status_t take_recompute(base_ctx_t *ctx, const char *word, tr_bench_train_t *b)
{
    b->recompute_auto = word == NULL || strcmp(word, "auto") == 0;
    if (b->recompute_auto) return BASE_OK;
    for (int r = 0; r < TR_NUM_RECOMPUTES; r++) {
        if (strcmp(word, tr_recompute_name((tr_recompute_t)r)) != 0) continue;
        b->recompute = (tr_recompute_t)r;
        return BASE_OK;
    }
    return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                     "--recompute: found \"%s\", wanted none, qkv, block or auto", word);
}

int tr_cmd_bench_train(const tr_cli_t *cli, int argc, char **argv)
{
    tr_options_t o;
    base_device_kind_t device;
    tr_bench_train_t bench = {.shape = "llama-3.1-8b",
                              .documents = 4,
                              .rows = 4096,
                              .adapters = 1,
                              .rank = 16,
                              .warm = 2,
                              .repeat = 10,
                              .out = stdout};
    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_SPECS, 0, &o);

    if (st >= 0 && o.help) {
        (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (st >= 0) st = take_numbers(cli->ctx, &o, &bench);
    if (st >= 0) st = take_recompute(cli->ctx, o.values[RECOMPUTE], &bench);
    if (st >= 0) st = tr_one_rank_device(cli->ctx, o.values[DEVICE], &device);
    if (st >= 0) st = take_dtype(cli->ctx, o.values[DTYPE], device, &bench.dtype);
    if (st < 0) return tr_cli_exit_code(st);
    if (o.values[SHAPE] != NULL) bench.shape = o.values[SHAPE];
    bench.follow_servers = device == BASE_DEVICE_CUDA;
    bench.memory = o.values[MEMORY] != NULL;
    bench.steps_only = o.values[STEPS_ONLY] != NULL;
    bench.json = o.values[JSON] != NULL;
    return tr_one_rank_run(device, tr_bench_train_rank, &bench, NULL);
}
