#include "trainer/cli/cmd_bench_overlap.h"

#include "trainer/bench/bench_overlap.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/options.h"

static const char PAGE[] =
    "Usage: cadre bench overlap [OPTION...]\n\n"
    "Times a step of two trainers, threads of this process that serve each other's attention, "
    "with\n"
    "and without a delay of every message, with ping-pong and without, by turns; medians. It "
    "needs\n"
    "two processors that do nothing else, and phases (the dense part and the attention of a half "
    "of\n"
    "a layer) that are longer than the delay: else there is nothing to hide it under.\n\n"
    "Options:\n"
    "  --hidden N     multiple of 128 (512)\n"
    "  --layers N     (4)\n"
    "  --rows N       of each of two documents (960)\n"
    "  --delay-ms N   of each message (20)\n"
    "  --rounds N     1 to 50 (5)\n\n"
    "Exit code 0: with ping-pong the step grows by at most 10 % of the delays of its messages, "
    "one\n"
    "after the other, and without by at least 80 %; 1: not so.";

enum { HIDDEN, LAYERS, ROWS, DELAY, ROUNDS, NUM_SPECS };
static const tr_option_spec_t SPECS[NUM_SPECS] = {[HIDDEN] = {"--hidden", true},
                                                  [LAYERS] = {"--layers", true},
                                                  [ROWS] = {"--rows", true},
                                                  [DELAY] = {"--delay-ms", true},
                                                  [ROUNDS] = {"--rounds", true}};

static base_status_t take(base_ctx_t *ctx, const tr_options_t *o, tr_bench_overlap_t *b)
{
    const struct {
        int64_t *to, min, max;
    } numbers[NUM_SPECS] = {[HIDDEN] = {&b->hidden, 128, 16384},
                            [LAYERS] = {&b->layers, 1, 128},
                            [ROWS] = {&b->rows, 256, 1 << 20},
                            [DELAY] = {&b->delay_ms, 1, 10000},
                            [ROUNDS] = {&b->rounds, 1, TR_BENCH_OVERLAP_ROUNDS}};

    for (int i = 0; i < NUM_SPECS; i++)
        if (o->values[i] != NULL)
            BASE_TRY(tr_options_number(ctx, SPECS[i].name, o->values[i], numbers[i].min,
                                       numbers[i].max, numbers[i].to));
    if (b->hidden % 128 == 0) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                     "--hidden: found \"%s\", wanted a multiple of 128", o->values[HIDDEN]);
}

int tr_cmd_bench_overlap(const tr_cli_t *cli, int argc, char **argv)
{
    tr_options_t o;
    tr_bench_overlap_t bench = {
        .hidden = 512, .layers = 4, .rows = 960, .delay_ms = 20, .rounds = 5, .out = stdout};
    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_SPECS, 0, &o);

    if (st >= 0 && o.help) {
        (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (st >= 0) st = take(cli->ctx, &o, &bench);
    if (st >= 0) st = tr_bench_overlap(cli->ctx, &bench);
    if (st < 0) return tr_cli_exit_code(st);
    return bench.met ? TR_EXIT_DONE : TR_EXIT_NO;
}
