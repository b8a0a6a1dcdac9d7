#include "trainer/loop/build.h"

#include "trainer/model/hf_weights.h"

/* Of the dense layers, one row: forward, and backward, which has as many products again for the
 * gradients of weights that learn. */
static void count_dense(const tr_build_t *build, const tr_model_config_t *c, int64_t flop[2])
{
    const int64_t q = (int64_t)c->num_q_heads * c->head_dim,
                  kv = (int64_t)c->num_kv_heads * c->head_dim;

    flop[0] = 2 * (int64_t)c->hidden * (2 * q + 2 * kv + 3 * (int64_t)c->intermediate);
    flop[1] = build->full ? 2 * flop[0] : flop[0];
}

tr_lot_options_t tr_build_lots(const tr_build_t *build, const tr_model_t *model, int tokens)
{
    const int64_t step = 2 * DATA_ROW_ALIGN;
    const tr_model_config_t *c = &model->config;
    tr_lot_options_t lots = {
        .plans = {.topology = build->topology,
                  .profile = build->profile,
                  .server_speeds = build->server_speeds,
                  .dtype = c->dtype,
                  .group = c->num_q_heads / c->num_kv_heads,
                  .head_dim = c->head_dim,
                  .num_kv_heads = c->num_kv_heads,
                  .num_layers = c->num_layers,
                  .num_kinds = model->num_kinds,
                  .tokens_per_trainer = build->tokens_per_trainer / step * step,
                  .retain_bytes = build->retain_bytes,
                  .cuts_follow_servers = build->follow_servers,
                  .sums_per_server = build->follow_servers,
                  .longest = build->longest},
        .tokens = tokens};

    count_dense(build, c, lots.plans.dense_flop);
    for (int32_t k = 0; k < model->num_kinds; k++)
        lots.plans.window[k] = model->window[k];
    return lots;
}

/* Attention's memory: with it every plan fits. */
static base_status_t size_attention(base_ctx_t *ctx, const tr_lot_options_t *lots,
                                    tr_trainer_config_t *config)
{
    tr_lot_options_t sizes = *lots;
    tr_lot_t *lot;

    sizes.tokens = 0;
    BASE_TRY(tr_lot_create(ctx, &sizes, NULL, &lot));
    config->scratch_bytes = tr_attention_plans_scratch(lot->planner, base_ctx_rank(ctx));
    config->retain_bytes = tr_attention_plans_retained(lot->planner);
    tr_lot_destroy(lot);
    return BASE_OK;
}

static base_status_t check_longest(base_ctx_t *ctx, const tr_build_t *build,
                                   const tr_lot_options_t *lots)
{
    const int64_t fits = tr_lot_longest(lots);

    if (build->longest <= fits) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_PLAN_01,
                     "a document has %lld rows; %d trainers of %lld rows hold %lld; %lld would do",
                     (long long)build->longest, build->topology->num_trainers,
                     (long long)lots->plans.tokens_per_trainer, (long long)fits,
                     (long long)((build->longest + lots->plans.tokens_per_trainer - 1) /
                                 lots->plans.tokens_per_trainer));
}

/* Before anything is made: in a layer it would be an error of ours. */
static base_status_t check_heads(base_ctx_t *ctx, const base_device_t *dev,
                                 const data_model_spec_t *spec)
{
    if (kern_attention_has_head_dim(base_device_kind(dev), spec->head_dim)) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01,
                     "model: its heads have %d lanes, which attention does not take on %s",
                     (int)spec->head_dim, base_device_name(dev));
}

/* Raises config->recompute until the arena fits. */
static base_status_t choose_recompute(base_ctx_t *ctx, base_device_t *dev, comm_group_t *group,
                                      const tr_build_t *build, tr_trainer_config_t *config)
{
    const int layout_only = config->layout_only;

    config->layout_only = 1;
    while (build->memory_bytes > 0 && config->recompute + 1 < TR_NUM_RECOMPUTES) {
        tr_trainer_t *trainer;

        BASE_TRY(tr_trainer_create(ctx, dev, group, build->topology, config, &trainer));
        const int fits = base_arena_bytes(trainer->arena) <= build->memory_bytes;
        tr_trainer_destroy(trainer);
        if (fits) break;
        config->recompute = (tr_recompute_t)(config->recompute + 1);
    }
    config->layout_only = layout_only;
    return BASE_OK;
}

base_status_t tr_build_trainer(base_ctx_t *ctx, base_device_t *dev, comm_group_t *group,
                               const tr_build_t *build, tr_lot_options_t *lots,
                               tr_trainer_t **trainer_p)
{
    const int with_adapters = !build->full && build->num_adapters > 0;
    const lora_adapter_set_config_t adapters = {.spec = build->spec,
                                                .dtype = build->dtype,
                                                .num_adapters = build->num_adapters,
                                                .adapters = build->adapters,
                                                .rank_columns = build->rank_columns,
                                                .optimizer = build->optimizer};
    tr_trainer_config_t config = {.given_weights = 1,
                                  .num_adapters = 1,
                                  .adapters = with_adapters ? &adapters : NULL,
                                  .optimizer = build->full && build->optimizer,
                                  .recompute = build->recompute,
                                  .layout_only = build->layout_only,
                                  .serial = build->serial};
    double inv_freq[DATA_MODEL_MAX_HEAD_DIM / 2];
    tr_model_t *model;
    uint32_t targets = 0;
    base_status_t st;

    BASE_TRY(check_heads(ctx, dev, build->spec));
    tr_hf_model_config(build->spec, build->dtype, build->longest, inv_freq, &config.model);
    config.model.frozen = !build->full || !build->optimizer;
    for (int32_t a = 0; with_adapters && a < build->num_adapters; a++)
        targets |= build->adapters[a].targets;
    config.model.extra_columns = lora_extra_columns(targets, build->rank_columns);
    BASE_TRY(tr_model_create(ctx, &config.model, &model));
    const int tokens = build->topology->rank_trainer[base_ctx_rank(ctx)] >= 0;
    *lots = tr_build_lots(build, model, tokens);
    config.sums_per_server = build->follow_servers;
    config.max_rows = lots->plans.tokens_per_trainer / 2;
    config.max_pieces = tr_lot_max_pieces(lots);
    config.max_tasks = tr_lot_max_tasks(lots);
    st = check_longest(ctx, build, lots);
    if (st >= 0) st = size_attention(ctx, lots, &config);
    tr_model_destroy(model);
    if (st >= 0) st = choose_recompute(ctx, dev, group, build, &config);
    BASE_TRY(st);
    return tr_trainer_create(ctx, dev, group, build->topology, &config, trainer_p);
}
