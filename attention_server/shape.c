/* What schedules have to know of the configuration. */
#include "attention_server/seam.h"

/* For as many rows as a half has, and a quarter more, since its tasks are rounded up each; so for
 * every single task. */
static int64_t workspace_bytes(const as_attention_config_t *config)
{
    const int32_t kv_heads = config->num_kv_heads;
    const kern_attention_task_t task = {.q_rows = config->max_rows + config->max_rows / 4,
                                        .kv_heads = kv_heads};
    int64_t most = 0;
    for (int32_t kind = 0; kind < config->num_kinds; kind++) {
        const kern_attention_bwd_t bwd = {.dtype = config->dtype,
                                          .group = config->num_q_heads / kv_heads,
                                          .head_dim = config->head_dim,
                                          .window = config->window[kind],
                                          .num_tasks = 1,
                                          .tasks = &task};
        most = as_max(most, kern_attention_bwd_workspace(&bwd));
    }
    return most;
}

as_shape_t as_shape_of(const as_attention_config_t *config)
{
    return (as_shape_t){.group = config->num_q_heads / config->num_kv_heads,
                        .head_dim = config->head_dim,
                        .num_kv_heads = config->num_kv_heads,
                        .sums_per_server = config->sums_per_server,
                        .dtype = config->dtype,
                        .workspace_bytes = workspace_bytes(config),
                        .real_bytes = kern_dtype_bytes(config->dtype),
                        .acc_bytes = kern_dtype_bytes(kern_dtype_acc(config->dtype)),
                        .head_rows = config->head_rows,
                        .o_pitch = config->o_pitch,
                        .d_o_pitch = config->d_o_pitch};
}
