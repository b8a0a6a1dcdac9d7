#include "trainer/cli/cmd_bench_attention.h"

#include "trainer/bench/bench_attention.h"
#include "trainer/bench/bench_attention_peer.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/options.h"

#include <string.h>

static const char PAGE[] =
    "Usage: cadre bench attention [OPTION...]\n\n"
    "Times core attention, forward and backward, on documents, packs, CA-tasks as the planner\n"
    "makes them, windows and head dim 64, and says how it compares; docs/kernels/attention.md\n"
    "explains the cases. Random data, warm, medians.\n\n"
    "Options:\n"
    "  --device NAME    cuda, cpu (cuda where there is one)\n"
    "  --only TEXT      cases whose name contains it\n"
    "  --shrink N       divide lengths by N (cuda: 1, cpu: 64)\n"
    "  --rounds N       (cuda: 5, cpu: 1)\n"
    "  --samples N      times of a round and direction (6)\n"
    "  --peer COMMAND   a program that times others in turns with ours, such as\n"
    "                   \"python3 tests/gpu/attention_peer.py\"\n"
    "  --json FILE      raw results\n"
    "  --profile FILE   measure and write a cost profile, which `cadre bench plan --profile` "
    "reads;\n"
    "                   with --json the times over rows, prefix and heads too\n"
    "  --no-cases       the profile only\n"
    "  --group N        of the profile: query heads of a KV head (4)\n"
    "  --head-dim N     of the profile (128)\n"
    "  --max-keys N     longest context of the profile, a multiple of 128 (cuda: 131072,\n"
    "                   cpu: 2048)\n\n"
    "Exit code 0: nothing falls short of what is wanted; 1: something does.";

enum {
    DEVICE,
    ONLY,
    SHRINK,
    ROUNDS,
    SAMPLES,
    PEER,
    JSON,
    PROFILE,
    NO_CASES,
    GROUP,
    HEAD_DIM,
    MAX_KEYS,
    OPS,
    NUM_SPECS
};
static const tr_option_spec_t SPECS[NUM_SPECS] = {
    [DEVICE] = {"--device", true},
    [ONLY] = {"--only", true},
    [SHRINK] = {"--shrink", true},
    [ROUNDS] = {"--rounds", true},
    [SAMPLES] = {"--samples", true},
    [PEER] = {"--peer", true},
    [JSON] = {"--json", true},
    [PROFILE] = {"--profile", true},
    [NO_CASES] = {"--no-cases", false},
    [GROUP] = {"--group", true},
    [HEAD_DIM] = {"--head-dim", true},
    [MAX_KEYS] = {"--max-keys", true},
    [OPS] = {"--ops", true},
};

static base_status_t number(base_ctx_t *ctx, const tr_options_t *o, int option, int64_t min,
                            int64_t max, int64_t otherwise, int64_t *value)
{
    *value = otherwise;
    if (o->values[option] == NULL) return BASE_OK;
    return tr_options_number(ctx, SPECS[option].name, o->values[option], min, max, value);
}

static bool has_cuda(base_ctx_t *ctx)
{
    base_device_t *dev;

    if (base_device_open(ctx, BASE_DEVICE_CUDA, 0, &dev) < 0) {
        base_ctx_clear_error(ctx);
        return false;
    }
    base_device_close(dev);
    return true;
}

static base_status_t choose_device(base_ctx_t *ctx, const char *name, base_device_kind_t *kind)
{
    if (name == NULL)
        *kind = has_cuda(ctx) ? BASE_DEVICE_CUDA : BASE_DEVICE_CPU;
    else if (strcmp(name, "cuda") == 0)
        *kind = BASE_DEVICE_CUDA;
    else if (strcmp(name, "cpu") == 0)
        *kind = BASE_DEVICE_CPU;
    else
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "--device: found \"%s\", wanted cuda or cpu", name);
    return BASE_OK;
}

static base_status_t choose_ops(base_ctx_t *ctx, const char *name,
                                const tr_attention_ops_t *const *ops, int count,
                                tr_bench_attention_t *b)
{
    b->ops = ops[0];
    if (name == NULL) return BASE_OK;
    for (int i = 0; i < count; i++)
        if (strcmp(ops[i]->name, name) == 0) {
            b->ops = ops[i];
            return BASE_OK;
        }
    return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "--ops: there is no \"%s\"", name);
}

static base_status_t take(base_ctx_t *ctx, const tr_options_t *o, tr_bench_attention_t *b)
{
    int64_t rounds, samples, group, head_dim;

    BASE_TRY(choose_device(ctx, o->values[DEVICE], &b->device));
    const bool gpu = b->device == BASE_DEVICE_CUDA;
    BASE_TRY(number(ctx, o, SHRINK, 1, 1 << 20, gpu ? 1 : 64, &b->shrink));
    BASE_TRY(number(ctx, o, ROUNDS, 1, TR_PEER_MAX_SAMPLES, gpu ? 5 : 1, &rounds));
    BASE_TRY(number(ctx, o, SAMPLES, 1, TR_PEER_MAX_SAMPLES / rounds, gpu ? 6 : 1, &samples));
    BASE_TRY(number(ctx, o, GROUP, 1, 64, 4, &group));
    BASE_TRY(number(ctx, o, HEAD_DIM, 8, 256, 128, &head_dim));
    BASE_TRY(number(ctx, o, MAX_KEYS, 512, 1 << 20, gpu ? 131072 : 2048, &b->max_keys));
    b->max_keys = b->max_keys / DATA_ROW_ALIGN * DATA_ROW_ALIGN;
    b->rounds = (int32_t)rounds;
    b->samples = (int32_t)samples;
    b->group = (int32_t)group;
    b->head_dim = (int32_t)head_dim;
    b->only = o->values[ONLY];
    b->peer = o->values[PEER];
    b->json = o->values[JSON];
    b->profile = o->values[PROFILE];
    b->cases = o->values[NO_CASES] == NULL;
    return BASE_OK;
}

int tr_cmd_bench_attention_of(const tr_cli_t *cli, int argc, char **argv,
                              const tr_attention_ops_t *const *ops, int count)
{
    tr_options_t o;
    tr_bench_attention_t bench = {.out = stdout};
    base_status_t st =
        tr_options_parse(cli->ctx, argc, argv, SPECS, count > 1 ? NUM_SPECS : OPS, 0, &o);

    if (st >= 0 && o.help) {
        (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (st >= 0) st = take(cli->ctx, &o, &bench);
    if (st >= 0) st = choose_ops(cli->ctx, o.values[OPS], ops, count, &bench);
    if (st >= 0) st = tr_bench_attention(cli->ctx, &bench);
    if (st < 0) return tr_cli_exit_code(st);
    return bench.met ? TR_EXIT_DONE : TR_EXIT_NO;
}

int tr_cmd_bench_attention(const tr_cli_t *cli, int argc, char **argv)
{
    static const tr_attention_ops_t *const ops[] = {&TR_ATTENTION_PRODUCT};

    return tr_cmd_bench_attention_of(cli, argc, argv, ops, 1);
}
