#include "trainer/cli/one_rank.h"

#include "base/log.h"
#include "kernels/op.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/verb.h"

#include <stdio.h>
#include <string.h>

base_status_t tr_one_rank_device(base_ctx_t *ctx, const char *word, base_device_kind_t *device)
{
    const bool has_cuda = kern_ops_of(BASE_DEVICE_CUDA) != NULL;

    if (word == NULL || strcmp(word, "cpu") == 0) {
        *device = word == NULL && has_cuda ? BASE_DEVICE_CUDA : BASE_DEVICE_CPU;
        return BASE_OK;
    }
    if (strcmp(word, "cuda") != 0)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "--device: found \"%s\", wanted cpu or cuda", word);
    if (!has_cuda)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01,
                         "--device cuda: this program was built without CUDA (preset cuda has it)");
    *device = BASE_DEVICE_CUDA;
    return BASE_OK;
}

int tr_one_rank_run(base_device_kind_t device, comm_rank_fn fn, void *user, const bool *reported)
{
    base_error_t error;
    base_log_t *log = NULL;

    if (base_log_create(BASE_LOG_WARNING, &log) < 0) return TR_EXIT_RESOURCES;
    base_log_set_terminal(log, base_log_to_stderr, NULL, base_log_wants_colour(2));
    const comm_threads_options_t options = {.num_ranks = 1, .device = device, .log = log};
    const base_status_t st = comm_threads_run(&options, fn, user, &error);
    base_log_destroy(log);
    if (st < 0 && (reported == NULL || !*reported)) tr_cli_error_print(stderr, &error);
    return tr_cli_exit_code(st);
}
