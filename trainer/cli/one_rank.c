#include "trainer/cli/one_rank.h"

#include "base/log.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/verb.h"

#include <stdio.h>

int tr_one_rank_run(comm_rank_fn fn, void *user, const bool *reported)
{
    base_error_t error;
    base_log_t *log = NULL;

    if (base_log_create(BASE_LOG_WARNING, &log) < 0) return TR_EXIT_RESOURCES;
    base_log_set_terminal(log, base_log_to_stderr, NULL, base_log_wants_colour(2));
    const comm_threads_options_t options = {.num_ranks = 1, .device = BASE_DEVICE_CPU, .log = log};
    const base_status_t st = comm_threads_run(&options, fn, user, &error);
    base_log_destroy(log);
    if (st < 0 && (reported == NULL || !*reported)) tr_cli_error_print(stderr, &error);
    return tr_cli_exit_code(st);
}
