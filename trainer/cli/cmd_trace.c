/* cadre trace: the traces of a run's ranks in one file, and where the time went. */
#include "trainer/cli/cli_error.h"
#include "trainer/cli/options.h"
#include "trainer/cli/verb.h"
#include "trainer/run/trace_merge.h"

#include <stdio.h>

static const char PAGE[] =
    "Usage: cadre trace RUN_FOLDER [-o FILE]\n\n"
    "Puts the traces of all ranks together that `cadre train --trace N` has left in\n"
    "RUN_FOLDER/trace, on one clock: load the file in https://ui.perfetto.dev or\n"
    "chrome://tracing. Arrows lead from the trainer that sends q, k and v to the tasks that work\n"
    "with them, and from there to the finish that takes o; each rank has lanes for what came\n"
    "from the others. Prints where each rank's time went, from its first to its last event:\n\n"
    "  dense      layers, loss, optimizer\n"
    "  attention  for itself and for others\n"
    "  exchange   waits for data on its way: what ping-pong did not hide\n"
    "  waiting    waits for a rank that was not there yet\n"
    "  idle       the rest: nothing was given to the stream\n\n"
    "Options:\n"
    "  -o FILE    where to (RUN_FOLDER/trace/trace.json)";

enum { OUTPUT, NUM_SPECS };
static const tr_option_spec_t SPECS[NUM_SPECS] = {[OUTPUT] = {"-o", true}};

int tr_cmd_trace(const tr_cli_t *cli, int argc, char **argv)
{
    tr_options_t o;
    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_SPECS, 1, &o);

    if (st >= 0 && o.help) {
        (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (st >= 0)
        st = tr_options_need(cli->ctx, "trace", "RUN_FOLDER", o.num_words > 0 ? o.words[0] : NULL);
    if (st >= 0) {
        const tr_trace_merge_t merge = {.run = o.words[0], .to = o.values[OUTPUT], .out = stdout};

        st = tr_trace_merge(cli->ctx, &merge);
    }
    return tr_cli_exit_code(st);
}
