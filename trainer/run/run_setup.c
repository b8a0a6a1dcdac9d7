#include "trainer/run/run_setup.h"

#include "base/memory.h"

base_status_t tr_setup_topology(base_ctx_t *ctx, const base_config_t *config, comm_group_t *group,
                                as_topology_t **topology_p)
{
    static const as_placement_t placements[] = {[BASE_CONFIG_PLACEMENT_IN_PLACE] = AS_IN_PLACE,
                                                [BASE_CONFIG_PLACEMENT_POOL] = AS_POOL,
                                                [BASE_CONFIG_PLACEMENT_LOCAL] = AS_LOCAL};

    return as_topology_create(ctx, placements[config->attention.placement], comm_group_size(group),
                              comm_group_hosts(group), (int32_t)config->attention.servers_per_host,
                              topology_p);
}

static int is_full(const tr_inputs_t *inputs)
{
    return inputs->config->train.mode == BASE_CONFIG_MODE_FULL;
}

base_status_t tr_setup_adapters(const tr_inputs_t *inputs, lora_adapter_options_t **adapters_p)
{
    lora_adapter_options_t *adapters =
        base_calloc(inputs->ctx, inputs->num_jobs, sizeof *adapters, "adapters");

    if (adapters == NULL) return BASE_ERR_NOMEM;
    for (int32_t j = 0; j < inputs->num_jobs && !is_full(inputs); j++) {
        const base_config_adapter_t *c = inputs->configs[j];

        adapters[j] = (lora_adapter_options_t){.name = c->name,
                                               .rank = (int32_t)c->rank,
                                               .scale = lora_scale(c->alpha, c->rank, c->rslora),
                                               .dropout = c->dropout,
                                               .targets = c->targets,
                                               .seed = (uint64_t)c->seed};
    }
    *adapters_p = adapters;
    return BASE_OK;
}

tr_build_t tr_setup_build(const tr_inputs_t *inputs, const as_topology_t *topology,
                          const lora_adapter_options_t *adapters)
{
    const base_config_t *c = inputs->config;

    return (tr_build_t){.spec = inputs->spec,
                        .dtype = KERN_F32,
                        .topology = topology,
                        .tokens_per_trainer = c->batch.tokens_per_trainer,
                        .longest = inputs->longest,
                        .full = is_full(inputs),
                        .optimizer = 1,
                        .num_adapters = is_full(inputs) ? 0 : inputs->num_jobs,
                        .adapters = adapters,
                        .rank_columns = (int32_t)c->batch.max_rank_columns};
}
