/* cadre plan RUN.yaml: what a run will take, and whether it fits. */
#include "base/log.h"
#include "comm/threads.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/options.h"
#include "trainer/cli/verb.h"
#include "trainer/run/memory_plan.h"

static const char PAGE[] =
    "Usage: cadre plan RUN.yaml [OPTION...]\n\n"
    "Says what `cadre train RUN.yaml` will take without training: bytes of every rank (of a\n"
    "GPU also what the driver and libraries take), the largest parts, steps and trainable\n"
    "parameters of each adapter, microbatches and their pad rows, and how evenly the servers\n"
    "share the first microbatches' attention: the busiest server's time, what no plan is\n"
    "below, and the gap. `cadre prepare RUN.yaml` comes first.\n\n"
    "Options:\n"
    "  --set PATH=VALUE  change a key: --set batch.tokens_per_trainer=4096; may be repeated\n"
    "  --threads N       for N ranks as threads of one process (1)\n"
    "  --memory MIB      of the machine that it is for (this one's free memory); with\n"
    "                    train.device: cuda of its GPUs together: train.recompute: auto then\n"
    "                    takes what it would take there\n"
    "  --regions         every part of rank 0's device memory\n"
    "  --json            one JSON object instead of text\n\n"
    "Exit code 0: it fits; 1: it does not fit this machine's free memory, or a document is\n"
    "longer than a microbatch.";

enum { SET, THREADS, MEMORY, REGIONS, JSON, NUM_SPECS };
static const tr_option_spec_t SPECS[NUM_SPECS] = {[SET] = {"--set", true},
                                                  [THREADS] = {"--threads", true},
                                                  [MEMORY] = {"--memory", true},
                                                  [REGIONS] = {"--regions", false},
                                                  [JSON] = {"--json", false}};

#define MAX_MIB (INT64_C(1) << 40)

static int plan(tr_memory_plan_t *p, int64_t threads)
{
    base_error_t error;
    base_log_t *log = NULL;

    if (base_log_create(BASE_LOG_WARNING, &log) < 0) return TR_EXIT_RESOURCES;
    base_log_set_terminal(log, base_log_to_stderr, NULL, base_log_wants_colour(2));
    const comm_threads_options_t options = {
        .num_ranks = (int)threads, .device = BASE_DEVICE_CPU, .log = log};
    const base_status_t st = comm_threads_run(&options, tr_memory_plan_rank, p, &error);
    base_log_destroy(log);
    if (st < 0 && !p->reported) tr_cli_error_print(stderr, &error);
    if (st < 0) return error.message == BASE_MSG_PLAN_01 ? TR_EXIT_NO : tr_cli_exit_code(st);
    return p->fits ? TR_EXIT_DONE : TR_EXIT_NO;
}

int tr_cmd_plan(const tr_cli_t *cli, int argc, char **argv)
{
    tr_options_t o;
    int64_t threads = 1, mib = 0;
    base_config_t *config = NULL;
    base_error_list_t errors;
    tr_memory_rank_t ranks[COMM_THREADS_MAX_RANKS] = {{0}};

    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_SPECS, 1, &o);
    if (st >= 0 && o.help) {
        (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (st >= 0)
        st = tr_options_need(cli->ctx, "plan", "RUN.yaml", o.num_words > 0 ? o.words[0] : NULL);
    if (st >= 0 && o.values[THREADS] != NULL)
        st = tr_options_number(cli->ctx, "--threads", o.values[THREADS], 1, COMM_THREADS_MAX_RANKS,
                               &threads);
    if (st >= 0 && o.values[MEMORY] != NULL)
        st = tr_options_number(cli->ctx, "--memory", o.values[MEMORY], 1, MAX_MIB, &mib);
    if (st < 0) return tr_cli_exit_code(st);

    base_error_list_init(&errors, cli->ctx);
    st = base_config_load(cli->ctx, o.words[0], o.sets, o.num_sets, &errors, &config);
    if (st < 0 && errors.count > 0) {
        base_error_list_print(&errors, stderr);
        base_ctx_clear_error(cli->ctx); /* printed, with the others */
    }
    base_error_list_deinit(&errors);
    if (st < 0) return tr_cli_exit_code(st);
    const tr_memory_limit_t given = {.bytes = mib << 20, .cause = "--memory"};
    tr_memory_plan_t p = {.config = config,
                          .limit = mib > 0 ? &given : NULL,
                          .config_path = o.words[0],
                          .json = o.values[JSON] != NULL,
                          .regions = o.values[REGIONS] != NULL,
                          .out = stdout,
                          .err = stderr,
                          .ranks = ranks};
    const int code = plan(&p, threads);
    base_config_destroy(config);
    return code;
}
