#include "trainer/run/run_setup.h"

#include "base/memory.h"
#include "kernels/cpu/blas.h"

#include <inttypes.h>
#include <string.h>

base_status_t tr_setup_topology(base_ctx_t *ctx, const base_config_t *config, comm_group_t *group,
                                as_topology_t **topology_p)
{
    static const as_placement_t placements[] = {[BASE_CONFIG_PLACEMENT_IN_PLACE] = AS_IN_PLACE,
                                                [BASE_CONFIG_PLACEMENT_POOL] = AS_POOL,
                                                [BASE_CONFIG_PLACEMENT_LOCAL] = AS_LOCAL};

    const base_config_numbers_t *speeds = config->attention.server_speeds;
    as_topology_t *t = NULL;

    BASE_TRY(as_topology_create(ctx, placements[config->attention.placement],
                                comm_group_size(group), comm_group_hosts(group),
                                (int32_t)config->attention.servers_per_host, &t));
    *topology_p = t;
    if (speeds == NULL || speeds->count == t->num_servers) return BASE_OK;
    const base_status_t st = BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CONF_04,
                                       "attention.server_speeds: %" PRId64
                                       " numbers, want one for each of %" PRId32 " servers",
                                       speeds->count, t->num_servers);
    as_topology_destroy(t);
    *topology_p = NULL;
    return st;
}

base_device_kind_t tr_setup_device(const base_config_t *config)
{
    if (config->train.device == BASE_CONFIG_DEVICE_AUTO)
        return kern_ops_of(BASE_DEVICE_CUDA) != NULL ? BASE_DEVICE_CUDA : BASE_DEVICE_CPU;
    return config->train.device == BASE_CONFIG_DEVICE_CUDA ? BASE_DEVICE_CUDA : BASE_DEVICE_CPU;
}

kern_dtype_t tr_setup_dtype(const base_config_t *config)
{
    switch (config->train.dtype) {
    case BASE_CONFIG_DTYPE_BF16:
        return KERN_BF16;
    case BASE_CONFIG_DTYPE_FP32:
        return KERN_F32;
    default:
        return tr_setup_device(config) == BASE_DEVICE_CUDA ? KERN_BF16 : KERN_F32;
    }
}

base_status_t tr_setup_check(base_ctx_t *ctx, const base_config_t *config)
{
    const int full = config->train.mode == BASE_CONFIG_MODE_FULL;

    if (full && tr_setup_device(config) == BASE_DEVICE_CUDA)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01,
                         "train.mode: full does not train on a GPU yet; with train.device: cpu it "
                         "does");
    if (tr_setup_device(config) == BASE_DEVICE_CUDA && kern_ops_of(BASE_DEVICE_CUDA) == NULL)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01,
                         "train.device: this program was built without CUDA (preset cuda has it)");
    if (full && tr_setup_dtype(config) == KERN_BF16)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01,
                         "train.dtype: with train.mode: full the weights are their own masters, in "
                         "fp32; bf16 is for adapters");
    if (tr_setup_device(config) == BASE_DEVICE_CUDA && tr_setup_dtype(config) != KERN_BF16)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01,
                         "train.dtype: a GPU trains in bf16; fp32 needs train.device: cpu");
    return BASE_OK;
}

/* What the arena leaves of what is free, when device and transport are open: for stacks of kernels, the scratch of
 * operators (trainer/run/driver_memory.h) and staging of transports. */
#define DEVICE_RESERVE_BYTES (INT64_C(2) << 30)

static void set_recompute(const base_config_t *config, int64_t free_bytes, tr_build_t *build)
{
    switch (config->train.recompute) {
    case BASE_CONFIG_RECOMPUTE_QKV:
        build->recompute = TR_RECOMPUTE_QKV;
        break;
    case BASE_CONFIG_RECOMPUTE_BLOCK:
        build->recompute = TR_RECOMPUTE_BLOCK;
        break;
    case BASE_CONFIG_RECOMPUTE_AUTO:
        if (free_bytes > 0)
            build->memory_bytes =
                free_bytes > DEVICE_RESERVE_BYTES ? free_bytes - DEVICE_RESERVE_BYTES : 1;
        break;
    default:
        break;
    }
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
                          const lora_adapter_options_t *adapters, int64_t free_bytes)
{
    const base_config_t *c = inputs->config;
    tr_build_t build = {
        .spec = inputs->spec,
        .dtype = tr_setup_dtype(c),
        .topology = topology,
        .tokens_per_trainer = c->batch.tokens_per_trainer,
        .longest = inputs->longest,
        .full = is_full(inputs),
        .optimizer = 1,
        .num_adapters = is_full(inputs) ? 0 : inputs->num_jobs,
        .adapters = adapters,
        .rank_columns = (int32_t)c->batch.max_rank_columns,
        .profile = inputs->profile,
        .server_speeds = c->attention.server_speeds != NULL ? c->attention.server_speeds->of : NULL,
        .retain_bytes = c->attention.retain_mib << 20,
        .follow_servers = tr_setup_device(c) == BASE_DEVICE_CUDA && !c->train.deterministic};

    set_recompute(c, free_bytes, &build);
    return build;
}

base_status_t tr_setup_check_products(base_ctx_t *ctx, const base_device_t *dev,
                                      comm_group_t *group)
{
    const int threads = strcmp(comm_group_transport(group), "threads") == 0;

    if (base_device_kind(dev) != BASE_DEVICE_CPU) return BASE_OK;
    if (!threads) return kern_blas_check_room(ctx, 1);
    /* One for all, when all have their memory: what several ask for at a time would not fit where one's does. */
    BASE_TRY(comm_barrier(group));
    if (comm_group_rank(group) == 0) BASE_TRY(kern_blas_check_room(ctx, comm_group_size(group)));
    return comm_barrier(group);
}
