#include "trainer/cli/cmd_bench_placement.h"

#include "trainer/bench/bench_placement.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/one_rank.h"
#include "trainer/cli/options.h"
#include "trainer/cli/run_ranks.h"

#include <string.h>

static const char PAGE[] =
    "Usage: cadre bench placement --threads N [OPTION...]\n"
    "       mpirun -np N cadre bench placement [OPTION...]\n\n"
    "Times microbatches (forward and backward of one adapter of rank 16) on several ranks, under "
    "one\n"
    "placement of attention. Documents depend on --seed, the ranks and --rows-each alone, so that "
    "runs\n"
    "with other placements are of the same ones. Weights are random and made on the device.\n\n"
    "Options:\n"
    "  --placement NAME    in_place (default), pool or local\n"
    "  --servers N         of a pool: the last ranks of each host (1)\n"
    "  --transport NAME    between processes: auto, mpi, copy_engine, nccl (auto)\n"
    "  --device NAME       cpu or cuda; without: what the program was built for\n"
    "  --dtype NAME        fp32 or bf16 (bf16 on a GPU, fp32 on the CPU)\n"
    "  --threads N         N ranks as threads of this process\n"
    "  --model-shape NAME  llama-3.1-8b (default), llama-3.2-1b, qwen3-8b, tiny; or the path of\n"
    "                      a model's config.json. Weights are random\n"
    "  --layers N          so many instead of the shape's\n"
    "  --lengths NAME      pretrain (default) or prolong: the distributions of DistCA's "
    "evaluation\n"
    "  --rows N            of every document, instead of a distribution\n"
    "  --max-rows N        longer documents are cut (131072)\n"
    "  --rows-each N       rows of a microbatch for each rank (32768)\n"
    "  --microbatches N    1 to 64 (8)\n"
    "  --warm N            the first one runs N times before it is measured, 0 to 8 (2)\n"
    "  --recompute NAME    none, qkv or block (block)\n"
    "  --retain-mib N      that a server keeps from the forward to the backward (256)\n"
    "  --seed N            of the documents (1)\n"
    "  --trace FOLDER      FOLDER/trace gets the timeline of all microbatches, for `cadre trace "
    "FOLDER`\n"
    "  --memory            only say what each rank takes on the device, and stop\n"
    "  --json              one JSON object instead of text";

enum {
    PLACEMENT,
    TRANSPORT,
    DEVICE,
    DTYPE,
    THREADS,
    SHAPE,
    LENGTHS,
    RECOMPUTE,
    TRACE,
    MEMORY,
    JSON,
    SERVERS,
    LAYERS,
    ROWS,
    MAX_ROWS,
    ROWS_EACH,
    MICROBATCHES,
    WARM,
    RETAIN_MIB,
    SEED,
    NUM_SPECS
};
static const tr_option_spec_t SPECS[NUM_SPECS] = {
    [PLACEMENT] = {"--placement", true},
    [TRANSPORT] = {"--transport", true},
    [DEVICE] = {"--device", true},
    [DTYPE] = {"--dtype", true},
    [THREADS] = {"--threads", true},
    [SHAPE] = {"--model-shape", true},
    [LENGTHS] = {"--lengths", true},
    [RECOMPUTE] = {"--recompute", true},
    [TRACE] = {"--trace", true},
    [MEMORY] = {"--memory", false},
    [JSON] = {"--json", false},
    [SERVERS] = {"--servers", true},
    [LAYERS] = {"--layers", true},
    [ROWS] = {"--rows", true},
    [MAX_ROWS] = {"--max-rows", true},
    [ROWS_EACH] = {"--rows-each", true},
    [MICROBATCHES] = {"--microbatches", true},
    [WARM] = {"--warm", true},
    [RETAIN_MIB] = {"--retain-mib", true},
    [SEED] = {"--seed", true},
};

typedef struct placement_call {
    tr_bench_placement_t bench;
    base_device_kind_t device;
    comm_transport_t transport;
} placement_call_t;

static const char *recompute_word(int i)
{
    return tr_recompute_name((tr_recompute_t)i);
}

static const char *placement_word(int i)
{
    return tr_bench_placement_name((as_placement_t)i);
}

static const char *lengths_word(int i)
{
    return tr_lengths_name((tr_lengths_t)i);
}

static const char *transport_word(int i)
{
    return comm_transport_name((comm_transport_t)i);
}

static const char *dtype_word(int i)
{
    return i == 0 ? "fp32" : "bf16";
}

/* The number of the option's word among `num`; *found stays when the option was not given. */
static base_status_t take_word(base_ctx_t *ctx, const tr_options_t *o, int option,
                               const char *(*word)(int), int num, const char *wanted, int *found)
{
    const char *given = o->values[option];

    for (int i = 0; i < num && given != NULL; i++)
        if (strcmp(given, word(i)) == 0) {
            *found = i;
            return BASE_OK;
        }
    if (given == NULL) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "%s: found \"%s\", wanted %s",
                     SPECS[option].name, given, wanted);
}

static base_status_t take_words(base_ctx_t *ctx, const tr_options_t *o, placement_call_t *call)
{
    tr_bench_placement_t *b = &call->bench;
    int placement = AS_IN_PLACE, transport = COMM_TRANSPORT_AUTO, lengths = TR_LENGTHS_PRETRAIN;
    int recompute = TR_RECOMPUTE_BLOCK, dtype = call->device == BASE_DEVICE_CUDA;

    BASE_TRY(
        take_word(ctx, o, PLACEMENT, placement_word, 3, "in_place, pool or local", &placement));
    BASE_TRY(take_word(ctx, o, TRANSPORT, transport_word, COMM_TRANSPORT_COUNT,
                       "auto, mpi, copy_engine or nccl", &transport));
    BASE_TRY(
        take_word(ctx, o, LENGTHS, lengths_word, TR_NUM_LENGTHS, "pretrain or prolong", &lengths));
    BASE_TRY(take_word(ctx, o, RECOMPUTE, recompute_word, TR_NUM_RECOMPUTES, "none, qkv or block",
                       &recompute));
    BASE_TRY(take_word(ctx, o, DTYPE, dtype_word, 2, "fp32 or bf16", &dtype));
    if (dtype == 0 && call->device == BASE_DEVICE_CUDA)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "--dtype: found \"fp32\", wanted bf16 on a GPU");
    b->placement = (as_placement_t)placement;
    b->lengths = (tr_lengths_t)lengths;
    b->recompute = (tr_recompute_t)recompute;
    b->dtype = dtype == 0 ? KERN_F32 : KERN_BF16;
    call->transport = (comm_transport_t)transport;
    return BASE_OK;
}

static base_status_t take(base_ctx_t *ctx, const tr_options_t *o, placement_call_t *call)
{
    tr_bench_placement_t *b = &call->bench;
    int64_t retain_mib = 256;
    const struct {
        int64_t *to, min, max;
    } numbers[NUM_SPECS] = {
        [SERVERS] = {&b->servers, 1, TR_BENCH_PLACEMENT_RANKS},
        [LAYERS] = {&b->layers, 1, 128},
        [ROWS] = {&b->rows, 16, 1 << 24},
        [MAX_ROWS] = {&b->max_rows, 16, 1 << 24},
        [ROWS_EACH] = {&b->rows_each, 256, 1 << 20},
        [MICROBATCHES] = {&b->microbatches, 1, TR_BENCH_PLACEMENT_MICROBATCHES},
        [WARM] = {&b->warm, 0, 8},
        [RETAIN_MIB] = {&retain_mib, 0, 1 << 20},
        [SEED] = {&b->seed, 0, INT32_MAX},
    };

    BASE_TRY(tr_one_rank_device(ctx, o->values[DEVICE], &call->device));
    BASE_TRY(take_words(ctx, o, call));
    for (int i = SERVERS; i < NUM_SPECS; i++)
        if (o->values[i] != NULL)
            BASE_TRY(tr_options_number(ctx, SPECS[i].name, o->values[i], numbers[i].min,
                                       numbers[i].max, numbers[i].to));
    if (o->values[SHAPE] != NULL) b->shape = o->values[SHAPE];
    b->follow_servers = call->device == BASE_DEVICE_CUDA;
    b->retain_bytes = retain_mib << 20;
    b->trace = o->values[TRACE];
    b->memory = o->values[MEMORY] != NULL;
    b->json = o->values[JSON] != NULL;
    return BASE_OK;
}

/* `line`: what the command line was found to be. */
static base_status_t run(base_ctx_t *ctx, base_status_t line, const char *threads,
                         placement_call_t *call)
{
    tr_run_ranks_t ranks;

    BASE_TRY(tr_run_ranks_open(ctx, line, threads, &ranks));
    ranks.device = call->device;
    ranks.transport = call->transport;
    const base_status_t st = tr_run_ranks(&ranks, tr_bench_placement_rank, &call->bench);
    tr_run_ranks_close(&ranks);
    return st;
}

int tr_cmd_bench_placement(const tr_cli_t *cli, int argc, char **argv)
{
    placement_call_t call = {.bench = {.shape = "llama-3.1-8b",
                                       .servers = 1,
                                       .max_rows = 131072,
                                       .rows_each = 32768,
                                       .microbatches = 8,
                                       .warm = 2,
                                       .seed = 1,
                                       .out = stdout}};
    tr_options_t o;
    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_SPECS, 0, &o);

    if (st >= 0 && o.help) {
        if (tr_run_ranks_speaks()) (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (st >= 0) st = take(cli->ctx, &o, &call);
    st = run(cli->ctx, st, o.values[THREADS], &call);
    return st < 0 ? tr_cli_exit_code(st) : TR_EXIT_DONE;
}
