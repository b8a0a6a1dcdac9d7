/* cadre bench plan | profile | attention | step | train | load | overlap | links | pack | placement:
 * measurements that need no job. */
#include "trainer/bench/bench_plan.h"
#include "trainer/bench/bench_plan_balance.h"
#include "trainer/bench/bench_plan_case.h"
#include "trainer/bench/bench_plan_profile.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/cmd_bench_attention.h"
#include "trainer/cli/cmd_bench_links.h"
#include "trainer/cli/cmd_bench_load.h"
#include "trainer/cli/cmd_bench_overlap.h"
#include "trainer/cli/cmd_bench_pack.h"
#include "trainer/cli/cmd_bench_placement.h"
#include "trainer/cli/cmd_bench_step.h"
#include "trainer/cli/cmd_bench_train.h"
#include "trainer/cli/options.h"
#include "trainer/cli/verb.h"
#include "trainer/simulate/derived_profile.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char PAGE[] =
    "Usage: cadre bench plan [OPTION...]\n"
    "       cadre bench profile [OPTION...]\n"
    "       cadre bench attention [OPTION...]\n"
    "       cadre bench step [OPTION...]\n"
    "       cadre bench train [OPTION...]\n"
    "       cadre bench load --model DIR [OPTION...]\n"
    "       cadre bench overlap [OPTION...]\n"
    "       cadre bench links [OPTION...]\n"
    "       cadre bench pack [OPTION...]\n"
    "       cadre bench placement [OPTION...]\n\n"
    "plan     compares the planner with DistCA's on layouts drawn from its two distributions of\n"
    "         document lengths: makespan, bytes of the busiest link, time to plan, and each term\n"
    "         of the objective left out. docs/planner.md explains the columns.\n"
    "profile  times core attention of this CPU and writes the profile that the planner needs.\n"
    "         Exit code 1 when a task that was not used for the profile is foretold worse than\n"
    "         5 %.\n\n"
    "attention  times the attention ops beside those of others, and writes a profile of the "
    "device;\n"
    "         `cadre bench attention --help` has its options.\n"
    "step     times one training step and its parts on one processor; `cadre bench step --help` "
    "has\n"
    "         its options.\n"
    "train    tokens a second of a known model's shape on one device, a GPU mostly;\n"
    "         `cadre bench train --help` has its options.\n"
    "load     how fast a model folder reaches the device; `cadre bench load --help` has its "
    "options.\n"
    "overlap  what ping-pong hides of a slow link; `cadre bench overlap --help` has its options.\n"
    "links    times the transports between ranks; `cadre bench links --help` has its options.\n"
    "pack     compares the packer with LoRAFusion's; `cadre bench pack --help` has its options.\n"
    "placement  microbatches of natural lengths on several ranks under one placement of "
    "attention;\n"
    "         `cadre bench placement --help` has its options.\n\n"
    "Options of plan:\n"
    "  --profile FILE     time of attention (an H200's, derived from published figures)\n"
    "  --draws N          layouts of each row, 1 to 64 (30)\n"
    "  --max-servers N    largest number of servers, 4 to 512 (512)\n"
    "  --json             one object a line\n\n"
    "Options of profile:\n"
    "  -o FILE            where to write it (standard output)\n"
    "  --group N          query heads of a KV head (4)\n"
    "  --head-dim N       (128)\n"
    "  --max-keys N       longest context that is timed, a multiple of 128 (4096)\n"
    "  --derived          write the derived H200 profile instead of timing this CPU";

static const tr_option_spec_t SPECS[] = {
    {"--profile", true},  {"--draws", true},    {"--max-servers", true},
    {"--json", false},    {"-o", true},         {"--group", true},
    {"--head-dim", true}, {"--max-keys", true}, {"--derived", false},
};
enum {
    OPT_PROFILE,
    OPT_DRAWS,
    OPT_MAX_SERVERS,
    OPT_JSON,
    OPT_OUTPUT,
    OPT_GROUP,
    OPT_HEAD_DIM,
    OPT_MAX_KEYS,
    OPT_DERIVED,
    NUM_OPTIONS
};
#define HELD_OUT          16
#define HELD_OUT_PER_CENT 5

static base_status_t number(base_ctx_t *ctx, const tr_options_t *o, int option, int64_t min,
                            int64_t max, int64_t *value)
{
    if (o->values[option] == NULL) return BASE_OK;
    return tr_options_number(ctx, SPECS[option].name, o->values[option], min, max, value);
}

static base_status_t bench_plan(base_ctx_t *ctx, const tr_options_t *o)
{
    int64_t draws = 30, max_servers = 512;
    as_profile_t profile;
    base_error_list_t errors;
    base_status_t st = BASE_OK;

    BASE_TRY(number(ctx, o, OPT_DRAWS, 1, TR_PLAN_MAX_DRAWS, &draws));
    BASE_TRY(number(ctx, o, OPT_MAX_SERVERS, 4, 512, &max_servers));
    if (o->values[OPT_PROFILE] != NULL) {
        base_error_list_init(&errors, ctx);
        st = as_profile_read(ctx, o->values[OPT_PROFILE], &errors, &profile);
        base_error_list_deinit(&errors);
        BASE_TRY(st);
    }
    const tr_bench_plan_t plan = {.profile = o->values[OPT_PROFILE] != NULL ? &profile : NULL,
                                  .draws = (int32_t)draws,
                                  .max_servers = (int32_t)max_servers,
                                  .json = o->values[OPT_JSON] != NULL};
    return tr_bench_plan(ctx, &plan, stdout);
}

/* Busiest server over the mean, as planned and as timed. */
static void report_balance(const tr_balance_t *balance)
{
    int64_t most[2] = {0, 0}, sum[2] = {0, 0};

    (void)fprintf(stderr, "a plan for %d servers: foretold and measured milliseconds\n",
                  TR_BALANCE_SERVERS);
    for (int s = 0; s < TR_BALANCE_SERVERS; s++) {
        const int64_t ns[2] = {balance->predicted_ns[s], balance->measured_ns[s]};

        (void)fprintf(stderr, "server %d %10.1f %10.1f\n", s, (double)ns[0] / 1e6,
                      (double)ns[1] / 1e6);
        for (int i = 0; i < 2; i++) {
            sum[i] += ns[i];
            if (ns[i] > most[i]) most[i] = ns[i];
        }
    }
    (void)fprintf(stderr, "busiest over mean %.3f %.3f\n",
                  (double)most[0] * TR_BALANCE_SERVERS / (double)sum[0],
                  (double)most[1] * TR_BALANCE_SERVERS / (double)sum[1]);
}

static base_status_t bench_profile(base_ctx_t *ctx, const tr_options_t *o, int *code)
{
    int64_t group = 4, head_dim = 128, max_keys = 4096;
    tr_held_out_t held_out[HELD_OUT];
    tr_balance_t balance;
    as_profile_t profile;

    BASE_TRY(number(ctx, o, OPT_GROUP, 1, 64, &group));
    BASE_TRY(number(ctx, o, OPT_HEAD_DIM, 8, 256, &head_dim));
    BASE_TRY(number(ctx, o, OPT_MAX_KEYS, 512, 1 << 20, &max_keys));
    if (o->values[OPT_DERIVED] != NULL) {
        tr_derived_h200((int32_t)group, &profile);
        return tr_profile_save(ctx, o->values[OPT_OUTPUT], stdout, &profile);
    }
    const tr_bench_profile_t options = {.group = (int32_t)group,
                                        .head_dim = (int32_t)head_dim,
                                        .max_keys = max_keys / 128 * 128,
                                        .num_held_out = HELD_OUT};
    BASE_TRY(tr_bench_profile(ctx, &options, &profile, held_out));
    if (tr_held_out_print(stderr, held_out, HELD_OUT) > HELD_OUT_PER_CENT) *code = TR_EXIT_NO;
    BASE_TRY(tr_bench_balance(ctx, &profile, &balance));
    report_balance(&balance);
    return tr_profile_save(ctx, o->values[OPT_OUTPUT], stdout, &profile);
}

int tr_cmd_bench(const tr_cli_t *cli, int argc, char **argv)
{
    tr_options_t o;
    int code = TR_EXIT_DONE;

    if (argc > 1 && strcmp(argv[1], "attention") == 0)
        return tr_cmd_bench_attention(cli, argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "step") == 0) return tr_cmd_bench_step(cli, argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "train") == 0)
        return tr_cmd_bench_train(cli, argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "load") == 0) return tr_cmd_bench_load(cli, argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "overlap") == 0)
        return tr_cmd_bench_overlap(cli, argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "links") == 0)
        return tr_cmd_bench_links(cli, argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "pack") == 0) return tr_cmd_bench_pack(cli, argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "placement") == 0)
        return tr_cmd_bench_placement(cli, argc - 1, argv + 1);
    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_OPTIONS, 1, &o);
    if (st < 0) return tr_cli_exit_code(st);
    if (o.help) {
        (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (o.num_words == 1 && strcmp(o.words[0], "plan") == 0)
        st = bench_plan(cli->ctx, &o);
    else if (o.num_words == 1 && strcmp(o.words[0], "profile") == 0)
        st = bench_profile(cli->ctx, &o, &code);
    else
        st = BASE_FAIL(cli->ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                       "bench: say what: plan, profile, attention, step, train, load, overlap, "
                       "links, pack or placement");
    return st < 0 ? tr_cli_exit_code(st) : code;
}
