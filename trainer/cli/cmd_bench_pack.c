#include "trainer/cli/cmd_bench_pack.h"

#include "trainer/bench/bench_pack.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/options.h"

#include <stdio.h>

static const char PAGE[] =
    "Usage: cadre bench pack [OPTION...]\n\n"
    "Compares the packer with first-fit decreasing and with LoRAFusion's, in the setting that\n"
    "LoRAFusion was evaluated in and as this program trains, beside a proven lower bound.\n"
    "docs/packing.md explains the columns.\n\n"
    "  --samples N         of each of the four adapters (1000)\n"
    "  --solver-samples N  the same where LoRAFusion's mixed-integer programs are solved, 0: not\n"
    "                      at all (32); each takes up to some times the limit\n"
    "  --solver-seconds N  limit of each program (1)\n"
    "  --seed N            of the lengths (42)\n"
    "  --json              one object a line";

enum { SAMPLES, SOLVER_SAMPLES, SOLVER_SECONDS, SEED, JSON, NUM_SPECS };
static const tr_option_spec_t SPECS[NUM_SPECS] = {
    [SAMPLES] = {"--samples", true},
    [SOLVER_SAMPLES] = {"--solver-samples", true},
    [SOLVER_SECONDS] = {"--solver-seconds", true},
    [SEED] = {"--seed", true},
    [JSON] = {"--json", false},
};

static base_status_t run(base_ctx_t *ctx, const tr_options_t *o)
{
    static const struct {
        int64_t otherwise, min, max;
    } limits[] = {{1000, 1, 6400}, {32, 0, 1000}, {1, 1, 3600}, {42, 0, INT32_MAX}};
    int64_t numbers[JSON];

    for (int i = SAMPLES; i < JSON; i++) {
        numbers[i] = limits[i].otherwise;
        if (o->values[i] != NULL)
            BASE_TRY(tr_options_number(ctx, SPECS[i].name, o->values[i], limits[i].min,
                                       limits[i].max, &numbers[i]));
    }
    const tr_bench_pack_t bench = {.samples = (int32_t)numbers[SAMPLES],
                                   .solver_samples = (int32_t)numbers[SOLVER_SAMPLES],
                                   .solver_seconds = (int32_t)numbers[SOLVER_SECONDS],
                                   .seed = (uint64_t)numbers[SEED],
                                   .json = o->values[JSON] != NULL};
    return tr_bench_pack(ctx, &bench, stdout);
}

int tr_cmd_bench_pack(const tr_cli_t *cli, int argc, char **argv)
{
    tr_options_t o;
    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_SPECS, 0, &o);

    if (st == BASE_OK && o.help) {
        (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (st == BASE_OK) st = run(cli->ctx, &o);
    return st < 0 ? tr_cli_exit_code(st) : TR_EXIT_DONE;
}
