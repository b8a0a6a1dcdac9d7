/* cadre train RUN.yaml: trains what the configuration says. */
#include "base/clock.h"
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
    "  --threads N            N ranks as threads of this process (1)\n"
    "  --hosts N,N,...        take the ranks for those of as many hosts, so many on each: where "
    "the\n"
    "                         attention servers of a cluster would be, tried on one machine\n\n"
    "Several processes: `mpirun -np N cadre train RUN.yaml`, or `launch/run -n N train RUN.yaml`,\n"
    "which also picks the build and what mpirun needs on this machine. Only rank 0 speaks; the\n"
    "others write to OUTPUT/logs.\n\n"
    "SIGUSR1 saves and stops (exit code 75); so do Ctrl-C and SIGTERM in a process that mpirun "
    "did\n"
    "not start, and a second one kills.";

#define RANK_0_NS INT64_C(5000000000) /* in which rank 0 has started, said it, and ended */

enum { SET, PRINT_CONFIG, DUMP_GRADIENTS, RESUME, THREADS, HOSTS, TRACE, NUM_SPECS };
static const tr_option_spec_t SPECS[NUM_SPECS] = {[SET] = {"--set", true},
                                                  [PRINT_CONFIG] = {"--print-config", false},
                                                  [DUMP_GRADIENTS] = {"--dump-gradients", true},
                                                  [RESUME] = {"--resume", false},
                                                  [THREADS] = {"--threads", true},
                                                  [HOSTS] = {"--hosts", true},
                                                  [TRACE] = {"--trace", true}};

#define MOST_TRACED 1000000

/* A rank's run, or why it cannot have one: then the other ranks are told. */
typedef struct train_call {
    tr_train_run_t run;
    base_status_t loaded;
    base_error_t why;
} train_call_t;

static base_status_t train_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                void *user)
{
    train_call_t *call = user;

    if (call->loaded < 0)
        return BASE_FAIL(ctx, call->loaded, call->why.message, "%s", call->why.text);
    return tr_train_run_rank(group, ctx, dev, &call->run);
}

/* All errors at once, on the terminal. */
static void load(base_ctx_t *ctx, const tr_options_t *o, base_config_t **config_p,
                 train_call_t *call)
{
    base_error_list_t errors;

    base_error_list_init(&errors, ctx);
    call->loaded = base_config_load(ctx, o->words[0], o->sets, o->num_sets, &errors, config_p);
    if (call->loaded < 0 && errors.count > 0 && tr_run_ranks_speaks()) {
        base_error_list_print(&errors, stderr);
        call->run.reported = true;
    }
    base_error_list_deinit(&errors);
    if (call->loaded >= 0) return;
    (void)base_ctx_error(ctx, &call->why);
    base_ctx_clear_error(ctx); /* printed, or to be printed as the run's */
}

/* Before a device is opened: the device that the configuration asks for may not be there. */
static void check(base_ctx_t *ctx, const base_config_t *config, train_call_t *call)
{
    call->loaded = tr_setup_check(ctx, config);
    if (call->loaded >= 0) return;
    (void)base_ctx_error(ctx, &call->why);
    base_ctx_clear_error(ctx);
}

/* A fault is the run's: the other ranks, which may have another command line, are told. */
static void set_hosts(base_ctx_t *ctx, tr_run_ranks_t *ranks, const char *hosts, train_call_t *call)
{
    const base_status_t st = tr_run_ranks_set_hosts(ranks, hosts);

    if (st >= 0 || call->loaded < 0) return;
    call->loaded = st;
    (void)base_ctx_error(ctx, &call->why);
    base_ctx_clear_error(ctx);
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

static int run_ranks(base_ctx_t *ctx, const tr_options_t *o, train_call_t *call)
{
    tr_run_ranks_t ranks;
    base_error_t error;

    base_status_t st = tr_run_ranks_open(ctx, o->values[THREADS], &ranks);
    if (st < 0) return tr_cli_exit_code(st);
    if (o->values[HOSTS] != NULL) set_hosts(ctx, &ranks, o->values[HOSTS], call);
    call->run.state = ranks.state;
    if (call->loaded >= 0) {
        ranks.device = tr_setup_device(call->run.config);
        ranks.transport = transport_of(call->run.config);
    }
    st = tr_run_ranks(&ranks, train_rank, call, &error);
    if (st < 0 && call->loaded < 0) error = call->why; /* not another rank's copy of the same */
    if (st < 0 && !call->run.reported) tr_run_ranks_report(&ranks, &error);
    tr_run_ranks_close(&ranks);
    if (st < 0) return tr_cli_exit_code(st);
    if (call->run.saved) return TR_EXIT_SAVED;
    return call->run.num_quarantined > 0 ? TR_EXIT_RANK : TR_EXIT_DONE;
}

/* Signals before any thread exists, and so before MPI. Under launch/run it is launch/run that says what they do. */
static int train(base_ctx_t *ctx, const tr_options_t *o, train_call_t *call)
{
    int rank = 0, size = 1;
    const int launched = comm_mpi_launched(&rank, &size);
    FILE *out = rank == 0 && getenv("CADRE_RANK_STATE") == NULL ? stderr : NULL;
    tr_signals_t *signals = NULL;

    const base_status_t st = tr_signals_open(ctx, !launched, out, &signals);
    if (st < 0) return tr_cli_exit_code(st);
    call->run.signals = signals;
    const int code = run_ranks(ctx, o, call);
    tr_signals_close(signals);
    return code;
}

static int train_verb(const tr_cli_t *cli, int argc, char **argv)
{
    train_call_t call = {.loaded = BASE_OK};
    base_config_t *config = NULL;
    int64_t trace = 0;
    int code = TR_EXIT_DONE;
    tr_options_t o;

    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_SPECS, 1, &o);
    if (st < 0) return tr_cli_exit_code(st);
    if (o.help) {
        if (tr_run_ranks_speaks()) (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    st = tr_options_need(cli->ctx, "train", "RUN.yaml", o.num_words > 0 ? o.words[0] : NULL);
    if (st >= 0 && o.values[TRACE] != NULL)
        st = tr_options_number(cli->ctx, "--trace", o.values[TRACE], 1, MOST_TRACED, &trace);
    if (st < 0) return tr_cli_exit_code(st);
    load(cli->ctx, &o, &config, &call);
    if (call.loaded >= 0) check(cli->ctx, config, &call);
    if (call.loaded >= 0 && o.values[PRINT_CONFIG] != NULL) {
        if (tr_run_ranks_speaks()) base_print_config(config, stdout);
    } else {
        call.run = (tr_train_run_t){.config = config,
                                    .config_path = o.words[0],
                                    .argc = argc + 1, /* main.c gives the words behind its own */
                                    .argv = (const char *const *)argv - 1,
                                    .dump_gradients = o.values[DUMP_GRADIENTS],
                                    .trace_microbatches = trace,
                                    .resume = o.values[RESUME] != NULL,
                                    .out = stdout,
                                    .err = stderr,
                                    .reported = call.run.reported};
        code = train(cli->ctx, &o, &call);
    }
    base_config_destroy(config);
    return code;
}

/* What every rank finds in the same command line, rank 0 says, and mpirun ends all when it fails. Where that has not
 * happened, only this rank has that command line, and says so. */
int tr_cmd_train(const tr_cli_t *cli, int argc, char **argv)
{
    base_error_t error;
    int rank, size;
    const int code = train_verb(cli, argc, argv);

    if (tr_run_ranks_speaks() || !base_ctx_error(cli->ctx, &error) ||
        error.status != BASE_ERR_CONFIG)
        return code;
    base_clock_sleep_ns(RANK_0_NS);
    base_ctx_clear_error(cli->ctx);
    if (comm_mpi_launched(&rank, &size))
        (void)BASE_FAIL(cli->ctx, error.status, error.message, "rank %d: %s", rank, error.text);
    return code;
}
