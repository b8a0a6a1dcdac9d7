/* cadre train RUN.yaml: trains what the configuration says. */
#include "base/config/print.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/options.h"
#include "trainer/cli/run_ranks.h"
#include "trainer/cli/verb.h"
#include "trainer/run/run_setup.h"
#include "trainer/run/train_run.h"

#include <stdio.h>
#include <stdlib.h>

static const char PAGE[] =
    "Usage: cadre train RUN.yaml [OPTION...]\n\n"
    "Trains the adapters of the configuration (with train.mode full: the model itself) and leaves\n"
    "them in OUTPUT/adapters/NAME, in the form that PEFT, vLLM, SGLang and llama.cpp read (the\n"
    "model in OUTPUT/model). `cadre prepare RUN.yaml` comes first. docs/config.md lists the "
    "keys.\n\n"
    "Options:\n"
    "  --set PATH=VALUE       change a key: --set adapters.code.rank=64; may be repeated\n"
    "  --print-config         print the resolved configuration and stop\n"
    "  --dump-gradients FILE  write the gradient of the first global batch of each adapter (with\n"
    "                         --resume: of the next one), before clipping, to a safetensors file\n"
    "                         with PEFT's names; of several adapters to FILE with .NAME in it\n"
    "  --resume               go on with the run in OUTPUT from its last checkpoint; begin when "
    "there\n"
    "                         is none\n"
    "  --trace N              record what every rank does in the next N microbatches, in\n"
    "                         OUTPUT/trace; `cadre trace OUTPUT` puts it together\n"
    "  --threads N            N ranks as threads of this process (1); on a CPU each uses one core\n"
    "  --hosts N,N,...        take the ranks for those of as many hosts, so many on each: where "
    "the\n"
    "                         attention servers of a cluster would be, tried on one machine\n\n"
    "Several processes: `mpirun -np N cadre train RUN.yaml`, or `launch/run -n N train RUN.yaml`,\n"
    "which also picks the build and what mpirun needs on this machine. Only rank 0 speaks; the\n"
    "others write to OUTPUT/logs.\n\n"
    "SIGUSR1 saves, within 4 microbatches, and stops (exit code 75); so do Ctrl-C, SIGTERM and "
    "the\n"
    "end of the terminal (SIGHUP, unless nohup) in a process that mpirun did not start. A second\n"
    "Ctrl-C or SIGTERM kills.";

enum { SET, PRINT_CONFIG, DUMP_GRADIENTS, RESUME, THREADS, HOSTS, TRACE, NUM_SPECS };
static const tr_option_spec_t SPECS[NUM_SPECS] = {[SET] = {"--set", true},
                                                  [PRINT_CONFIG] = {"--print-config", false},
                                                  [DUMP_GRADIENTS] = {"--dump-gradients", true},
                                                  [RESUME] = {"--resume", false},
                                                  [THREADS] = {"--threads", true},
                                                  [HOSTS] = {"--hosts", true},
                                                  [TRACE] = {"--trace", true}};

#define MOST_TRACED 1000000

static base_status_t train_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                void *user)
{
    return tr_train_run_rank(group, ctx, dev, user);
}

/* All errors at once, on the terminal. */
static base_status_t load(base_ctx_t *ctx, const tr_options_t *o, base_config_t **config_p,
                          bool *reported)
{
    base_error_list_t errors;

    base_error_list_init(&errors, ctx);
    const base_status_t st =
        base_config_load(ctx, o->words[0], o->sets, o->num_sets, &errors, config_p);
    if (st < 0 && errors.count > 0 && tr_run_ranks_speaks()) {
        base_error_list_print(&errors, stderr);
        *reported = true;
    }
    base_error_list_deinit(&errors);
    return st;
}

static comm_transport_t transport_of(const base_config_t *config)
{
    static const comm_transport_t of[] = {
        [BASE_CONFIG_TRANSPORT_AUTO] = COMM_TRANSPORT_AUTO,
        [BASE_CONFIG_TRANSPORT_MPI] = COMM_TRANSPORT_MPI,
        [BASE_CONFIG_TRANSPORT_COPY_ENGINE] = COMM_TRANSPORT_COPY_ENGINE,
        [BASE_CONFIG_TRANSPORT_NCCL] = COMM_TRANSPORT_NCCL,
    };

    return of[config->train.transport];
}

/* `line`: what the command line was found to be. */
static int run_ranks(base_ctx_t *ctx, base_status_t line, const tr_options_t *o,
                     tr_train_run_t *run)
{
    tr_run_ranks_t ranks;

    base_status_t st = tr_run_ranks_open(ctx, line, o->values[THREADS], &ranks);
    if (st < 0) return tr_cli_exit_code(st);
    ranks.reported = &run->reported;
    run->state = ranks.state;
    if (line >= 0) {
        ranks.device = tr_setup_device(run->config);
        ranks.transport = transport_of(run->config);
    }
    if (line >= 0 && o->values[HOSTS] != NULL)
        st = tr_run_ranks_set_hosts(&ranks, o->values[HOSTS]);
    if (st >= 0) st = tr_run_ranks(&ranks, train_rank, run);
    tr_run_ranks_close(&ranks);
    if (st < 0) return tr_cli_exit_code(st);
    if (run->saved) return TR_EXIT_SAVED;
    return run->num_quarantined > 0 ? TR_EXIT_RANK : TR_EXIT_DONE;
}

/* Signals before any thread exists, and so before MPI. Under launch/run it is launch/run that says what they do. */
static int train(base_ctx_t *ctx, base_status_t line, const tr_options_t *o, tr_train_run_t *run)
{
    int rank = 0, size = 1;
    const int launched = comm_mpi_launched(&rank, &size);
    FILE *out = rank == 0 && getenv("CADRE_RANK_STATE") == NULL ? stderr : NULL;
    tr_signals_t *signals = NULL;

    const base_status_t st = tr_signals_open(ctx, !launched, out, &signals);
    if (st < 0) return tr_cli_exit_code(st);
    run->signals = signals;
    const int code = run_ranks(ctx, line, o, run);
    tr_signals_close(signals);
    return code;
}

static base_status_t parse(base_ctx_t *ctx, int argc, char **argv, tr_options_t *o, int64_t *trace)
{
    BASE_TRY(tr_options_parse(ctx, argc, argv, SPECS, NUM_SPECS, 1, o));
    if (o->help) return BASE_OK;
    BASE_TRY(tr_options_need(ctx, "train", "RUN.yaml", o->num_words > 0 ? o->words[0] : NULL));
    if (o->values[TRACE] == NULL) return BASE_OK;
    return tr_options_number(ctx, "--trace", o->values[TRACE], 1, MOST_TRACED, trace);
}

int tr_cmd_train(const tr_cli_t *cli, int argc, char **argv)
{
    tr_train_run_t run = {.config_path = NULL};
    base_config_t *config = NULL;
    int64_t trace = 0;
    int code = TR_EXIT_DONE;
    tr_options_t o;

    base_status_t st = parse(cli->ctx, argc, argv, &o, &trace);
    if (st >= 0 && o.help) {
        if (tr_run_ranks_speaks()) (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    if (st >= 0) st = load(cli->ctx, &o, &config, &run.reported);
    /* Before a device is opened: the device that the configuration asks for may not be there. */
    if (st >= 0) st = tr_setup_check(cli->ctx, config);
    if (st >= 0 && o.values[PRINT_CONFIG] != NULL) {
        if (tr_run_ranks_speaks()) base_print_config(config, stdout);
    } else {
        run = (tr_train_run_t){.config = config,
                               .config_path = o.words[0],
                               .argc = argc + 1, /* main.c gives the words behind its own */
                               .argv = (const char *const *)argv - 1,
                               .dump_gradients = o.values[DUMP_GRADIENTS],
                               .trace_microbatches = trace,
                               .resume = o.values[RESUME] != NULL,
                               .out = stdout,
                               .err = stderr,
                               .reported = run.reported};
        code = train(cli->ctx, st, &o, &run);
        if (run.reported) base_ctx_clear_error(cli->ctx); /* printed, with the others */
    }
    base_config_destroy(config);
    return code;
}
