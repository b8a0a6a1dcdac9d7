/* `cadre bench attention` by itself, for a GPU host that lacks the libraries of cadre, and with
 * --ops NAME for the variants of attention_try.h:
 *
 *   attention_bench [OPTION...]       as `cadre bench attention`; --ops product, wide, ... */
#include "tests/gpu/attention_try.h"

#include "trainer/cli/cli_error.h"
#include "trainer/cli/cmd_bench_attention.h"

#include <assert.h>

#define MAX_OPS 16

int main(int argc, char **argv)
{
    tr_cli_t cli = {0};
    base_error_t error;
    const tr_attention_ops_t *ops[MAX_OPS];
    int count;
    const tr_attention_ops_t *const *all = gpu_attention_ops(&count);

    assert(count <= MAX_OPS);
    ops[0] = &TR_ATTENTION_PRODUCT; /* on any device */
    for (int i = 1; i < count; i++)
        ops[i] = all[i];
    if (base_ctx_create(0, 1, NULL, &cli.ctx) < 0) return TR_EXIT_RESOURCES;
    const int code = tr_cmd_bench_attention_of(&cli, argc, argv, ops, count);
    if (base_ctx_error(cli.ctx, &error)) tr_cli_error_print(stderr, &error);
    base_ctx_destroy(cli.ctx);
    return code;
}
