/* The memory of a microbatch, from the same schedules that will run it. */
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

base_status_t as_attention_need(base_ctx_t *ctx, const as_attention_config_t *config,
                                const as_topology_t *topology, int rank, const data_batch_t *batch,
                                const as_plan_t *const *plans, int64_t *scratch_bytes,
                                int64_t *retain_bytes)
{
    const as_shape_t shape = as_shape_of(config);
    int64_t scratch = 0, keep = 0;

    for (int32_t kind = 0; kind < config->num_kinds; kind++) {
        as_schedule_t s;

        as_schedule_init(&s, ctx, topology, &shape, rank);
        const base_status_t st = as_schedule_build(&s, batch, plans[kind]);
        scratch += as_page(s.scratch_bytes);
        keep = as_max(keep, s.keep_bytes);
        as_schedule_deinit(&s);
        if (st < 0) return st;
    }
    *scratch_bytes = scratch;
    *retain_bytes = as_page(keep) * config->num_layers;
    return BASE_OK;
}
