/* cadre train RUN.yaml: trains what the configuration says. */
#include "base/config/print.h"
#include "base/log.h"
#include "comm/threads.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/options.h"
#include "trainer/cli/verb.h"
#include "trainer/run/train_run.h"

#include <stdio.h>

static const char PAGE[] =
    "Usage: cadre train RUN.yaml [OPTION...]\n\n"
    "Trains the adapters of the configuration (with train.mode full: the model itself) and leaves\n"
    "them in OUTPUT/adapters/NAME, in the form that PEFT, vLLM, SGLang and llama.cpp read (the\n"
    "model in OUTPUT/model). `cadre prepare RUN.yaml` comes first. docs/config.md lists the "
    "keys.\n\n"
    "Options:\n"
    "  --set PATH=VALUE       change a key: --set adapters.code.rank=64; may be repeated\n"
    "  --print-config         print the resolved configuration and stop\n"
    "  --dump-gradients FILE  write the gradient of the first global batch of each adapter, "
    "before\n"
    "                         clipping, to a safetensors file with PEFT's names\n"
    "  --threads N            N ranks as threads of this process (1)";

enum { SET, PRINT_CONFIG, DUMP_GRADIENTS, THREADS, NUM_SPECS };
static const tr_option_spec_t SPECS[NUM_SPECS] = {[SET] = {"--set", true},
                                                  [PRINT_CONFIG] = {"--print-config", false},
                                                  [DUMP_GRADIENTS] = {"--dump-gradients", true},
                                                  [THREADS] = {"--threads", true}};

static int train(tr_train_run_t *run, int64_t threads)
{
    base_error_t error;
    base_log_t *log = NULL;

    if (base_log_create(BASE_LOG_INFO, &log) < 0) return TR_EXIT_RESOURCES;
    base_log_set_terminal(log, base_log_to_stderr, NULL, base_log_wants_colour(2));
    const comm_threads_options_t options = {
        .num_ranks = (int)threads, .device = BASE_DEVICE_CPU, .log = log};
    const base_status_t st = comm_threads_run(&options, tr_train_run_rank, run, &error);
    base_log_destroy(log);
    if (st < 0 && !run->reported) tr_cli_error_print(stderr, &error);
    if (st < 0) return tr_cli_exit_code(st);
    return run->num_quarantined > 0 ? TR_EXIT_RANK : TR_EXIT_DONE;
}

int tr_cmd_train(const tr_cli_t *cli, int argc, char **argv)
{
    tr_options_t o;
    int64_t threads = 1;
    base_config_t *config = NULL;
    base_error_list_t errors;

    base_status_t st = tr_options_parse(cli->ctx, argc, argv, SPECS, NUM_SPECS, 1, &o);
    if (st < 0) return tr_cli_exit_code(st);
    if (o.help) {
        (void)puts(PAGE);
        return TR_EXIT_DONE;
    }
    st = tr_options_need(cli->ctx, "train", "RUN.yaml", o.num_words > 0 ? o.words[0] : NULL);
    if (st >= 0 && o.values[THREADS] != NULL)
        st = tr_options_number(cli->ctx, "--threads", o.values[THREADS], 1, COMM_THREADS_MAX_RANKS,
                               &threads);
    if (st < 0) return tr_cli_exit_code(st);

    base_error_list_init(&errors, cli->ctx);
    st = base_config_load(cli->ctx, o.words[0], o.sets, o.num_sets, &errors, &config);
    if (st < 0 && errors.count > 0) {
        base_error_list_print(&errors, stderr);
        base_ctx_clear_error(cli->ctx); /* printed, with the others */
    }
    base_error_list_deinit(&errors);
    if (st < 0) return tr_cli_exit_code(st);
    int code = TR_EXIT_DONE;
    if (o.values[PRINT_CONFIG] != NULL) {
        base_print_config(config, stdout);
    } else {
        tr_train_run_t run = {.config = config,
                              .config_path = o.words[0],
                              .argc = argc,
                              .argv = (const char *const *)argv,
                              .dump_gradients = o.values[DUMP_GRADIENTS],
                              .out = stdout,
                              .err = stderr};
        code = train(&run, threads);
    }
    base_config_destroy(config);
    return code;
}
