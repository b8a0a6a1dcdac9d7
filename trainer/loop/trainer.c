#include "trainer/loop/trainer.h"

#include "base/memory.h"

#include <assert.h>
#include <stdio.h>

static base_status_t create_adapters(tr_trainer_t *t, const tr_trainer_config_t *config)
{
    BASE_TRY(lora_optimizer_declare(&t->optimizer, t->arena, t->model->acc,
                                    t->num_adapters > 0 ? t->num_adapters : 1));
    if (config->adapters == NULL) return BASE_OK;
    BASE_TRY(lora_adapter_set_create(t->ctx, config->adapters, t->arena, &t->adapters));
    assert(t->model->config.extra_columns >=
           lora_extra_columns(t->adapters->targets, t->adapters->rank_columns));
    return lora_route_create(t->adapters, config->max_pieces, &t->route);
}

/* Pool ranks know the adapters' sizes too, to keep in step with the reductions. */
static base_status_t count_adapters(tr_trainer_t *t, const tr_trainer_config_t *config)
{
    for (int32_t a = 0; config->adapters != NULL && a < t->num_adapters; a++) {
        const lora_adapter_options_t *options = &config->adapters->adapters[a];
        lora_layout_t *layout;

        BASE_TRY(lora_layout_create(t->ctx, config->adapters->spec, options->rank, options->targets,
                                    &layout));
        t->adapter_count[a] = layout->count;
        lora_layout_destroy(layout);
    }
    return BASE_OK;
}

/* Moments of AdamW for every weight of a model that learns itself. */
static base_status_t create_moments(tr_trainer_t *t)
{
    t->moments =
        base_calloc(t->ctx, 2 * (int64_t)t->model->num_weights, sizeof *t->moments, "moments");
    t->full_tensors =
        base_calloc(t->ctx, t->model->num_weights, sizeof *t->full_tensors, "weights to step");
    t->full_gradients =
        base_calloc(t->ctx, t->model->num_weights, sizeof *t->full_gradients, "weights to step");
    if (t->moments == NULL || t->full_tensors == NULL || t->full_gradients == NULL)
        return BASE_ERR_NOMEM;
    for (int32_t i = 0; i < 2 * t->model->num_weights; i++) {
        const tr_weight_spec_t *spec = &t->model->weights[i / 2];
        char name[TR_WEIGHT_NAME_BYTES + 16];

        (void)snprintf(name, sizeof name, "moment%d.%s", 1 + i % 2, spec->name);
        BASE_TRY(base_arena_declare(t->arena, "trainer", name,
                                    spec->rows * spec->cols * kern_dtype_bytes(t->model->acc),
                                    BASE_LIFETIME_RUN, &t->moments[i]));
    }
    return BASE_OK;
}

/* The largest vector that is summed over trainers: a weight's or an adapter's gradient, the losses.
 */
static int64_t largest_reduction(const tr_trainer_t *t)
{
    int64_t count = t->num_adapters;

    if (!t->model->config.frozen) {
        const int64_t weight = tr_model_largest_weight(t->model);
        count = weight > count ? weight : count;
    }
    for (int32_t a = 0; a < t->num_adapters; a++)
        count = t->adapter_count[a] > count ? t->adapter_count[a] : count;
    return count;
}

/* What only ranks with dense layers have. */
static base_status_t create_dense(tr_trainer_t *t, const tr_trainer_config_t *config)
{
    const comm_element_t element = t->model->acc == KERN_F64 ? COMM_F64 : COMM_F32;

    BASE_TRY(tr_weights_create(t->model, t->arena, &t->weights));
    BASE_TRY(tr_activations_create(t->model, t->arena, config->max_rows, config->recompute,
                                   &t->activations));
    BASE_TRY(
        tr_rows_create(t->model, t->arena, t->stream, config->max_rows, t->num_adapters, &t->rows));
    BASE_TRY(tr_head_init(&t->head, t->model, t->arena, config->max_rows, t->num_adapters));
    BASE_TRY(create_adapters(t, config));
    if (config->optimizer) BASE_TRY(create_moments(t));
    BASE_TRY(tr_graph_init(&t->graph, t->arena, t->weights, t->activations, t->rows, &t->head,
                           t->route, t->stream));
    return base_arena_declare(t->arena, "trainer", "reduce scratch",
                              comm_reduce_scratch_bytes(t->group, largest_reduction(t), element),
                              BASE_LIFETIME_RUN, &t->reduce_scratch);
}

/* Pitches follow from the model alone, so that pool ranks know them too. */
as_attention_config_t tr_trainer_attention_config(const tr_model_t *model,
                                                  const tr_trainer_config_t *config)
{
    const tr_model_t *m = model;
    as_attention_config_t c = {.dtype = m->config.dtype,
                               .num_q_heads = m->config.num_q_heads,
                               .num_kv_heads = m->config.num_kv_heads,
                               .head_dim = m->config.head_dim,
                               .scale = m->attention_scale,
                               .num_layers = m->config.num_layers,
                               .num_kinds = m->num_kinds,
                               .layer_kind = m->layer_kind,
                               .max_rows = config->max_rows,
                               .head_rows = config->max_rows,
                               .o_pitch = tr_model_pitch(m, m->q_cols),
                               .d_o_pitch = m->q_cols,
                               .scratch_bytes = config->scratch_bytes,
                               .retain_bytes = config->retain_bytes,
                               .sums_per_server = config->sums_per_server,
                               .max_tasks = config->max_tasks};

    for (int32_t k = 0; k < m->num_kinds; k++)
        c.window[k] = m->window[k];
    return c;
}

static base_status_t create_attention(tr_trainer_t *t, const tr_trainer_config_t *config)
{
    const as_attention_config_t attention = tr_trainer_attention_config(t->model, config);

    return as_attention_create(t->ctx, &attention, t->topology, t->group, t->arena, t->stream,
                               &t->attention);
}

static const tr_weight_kind_t linear_kind[LORA_NUM_LINEARS] = {[LORA_LINEAR_QKV] = TR_WEIGHT_QKV,
                                                               [LORA_LINEAR_O] = TR_WEIGHT_O,
                                                               [LORA_LINEAR_GATE_UP] =
                                                                   TR_WEIGHT_GATE_UP,
                                                               [LORA_LINEAR_DOWN] = TR_WEIGHT_DOWN};

static base_status_t start_adapters(tr_trainer_t *t)
{
    for (int32_t l = 0; l < t->model->config.num_layers; l++) {
        for (int k = 0; k < LORA_NUM_LINEARS; k++) {
            const int32_t weight = tr_model_weight(t->model, linear_kind[k], l);
            lora_adapter_set_bind(t->adapters, l, (lora_linear_t)k,
                                  tr_weights_mat(t->weights, weight));
        }
    }
    return lora_adapter_set_start(t->adapters, t->stream);
}

static base_status_t start_moments(tr_trainer_t *t)
{
    for (int32_t i = 0; i < 2 * t->model->num_weights; i++) {
        const base_range_t all = {.mem = base_arena_mem(t->arena, t->moments[i]),
                                  .row_bytes = base_arena_region_bytes(t->arena, t->moments[i]),
                                  .rows = 1};
        BASE_TRY(base_fill(t->stream, &all, 0));
    }
    return BASE_OK;
}

static base_status_t start(tr_trainer_t *t, const tr_trainer_config_t *config)
{
    if (config->layout_only) return base_arena_layout(t->arena);
    BASE_TRY(base_arena_commit(t->arena));
    if (t->index < 0) return BASE_OK;
    BASE_TRY(tr_activations_fill(t->activations, t->stream));
    BASE_TRY(tr_graph_start(&t->graph));
    BASE_TRY(lora_optimizer_start(&t->optimizer, t->stream));
    BASE_TRY(tr_weights_fill(t->weights, t->stream));
    if (!config->given_weights)
        BASE_TRY(tr_weights_random(t->weights, t->stream, config->weight_seed));
    if (t->moments != NULL) BASE_TRY(start_moments(t));
    return t->adapters == NULL ? BASE_OK : start_adapters(t);
}

base_status_t tr_trainer_create(base_ctx_t *ctx, base_device_t *dev, comm_group_t *group,
                                const as_topology_t *topology, const tr_trainer_config_t *config,
                                tr_trainer_t **trainer_p)
{
    base_status_t st;

    if (config->max_rows <= 0 || config->max_rows % DATA_ROW_ALIGN != 0)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "trainer: %lld rows of a half, want a multiple of %d",
                         (long long)config->max_rows, DATA_ROW_ALIGN);
    if (config->optimizer && config->model.dtype == KERN_BF16)
        return BASE_FAIL(
            ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
            "trainer: the weights of a model that learns itself are their own masters, "
            "so fp32 or fp64, not bf16");
    tr_trainer_t *t = base_calloc(ctx, 1, sizeof *t, "trainer");
    if (t == NULL) return BASE_ERR_NOMEM;
    t->ctx = ctx;
    t->group = group;
    t->topology = topology;
    t->num_adapters =
        config->adapters != NULL ? config->adapters->num_adapters : config->num_adapters;
    t->index = topology->rank_trainer[comm_group_rank(group)];
    t->reduce_scratch = BASE_REGION_NONE;
    t->used = base_calloc(ctx, t->num_adapters, sizeof *t->used, "trainer");
    t->adapter_count = base_calloc(ctx, t->num_adapters, sizeof *t->adapter_count, "trainer");
    if (t->used == NULL || t->adapter_count == NULL) {
        st = BASE_ERR_NOMEM;
        goto err_destroy;
    }
    BASE_TRY_GOTO(count_adapters(t, config), st, err_destroy);
    BASE_TRY_GOTO(base_stream_create(dev, BASE_STREAM_COMPUTE, "compute", &t->stream), st,
                  err_destroy);
    base_stream_measure(t->stream, &t->meter, BASE_LANE_COMPUTE);
    BASE_TRY_GOTO(base_arena_create(dev, BASE_MEMORY_DEVICE, "device", &t->arena), st, err_destroy);
    BASE_TRY_GOTO(tr_model_create(ctx, &config->model, &t->model), st, err_destroy);
    BASE_TRY_GOTO(
        tr_static_program_create(ctx, config->model.num_layers, config->serial, &t->program), st,
        err_destroy);
    if (t->index >= 0) BASE_TRY_GOTO(create_dense(t, config), st, err_destroy);
    BASE_TRY_GOTO(create_attention(t, config), st, err_destroy);
    BASE_TRY_GOTO(start(t, config), st, err_destroy);
    *trainer_p = t;
    return BASE_OK;
err_destroy:
    tr_trainer_destroy(t);
    return st;
}

void tr_trainer_destroy(tr_trainer_t *trainer)
{
    if (trainer == NULL) return;
    /* Its error, if it has one, has been returned or recorded by now. */
    if (trainer->stream != NULL) (void)!base_stream_sync(trainer->stream);
    as_attention_destroy(trainer->attention);
    lora_route_destroy(trainer->route);
    lora_adapter_set_destroy(trainer->adapters);
    base_free(trainer->ctx, trainer->moments);
    base_free(trainer->ctx, trainer->full_tensors);
    base_free(trainer->ctx, trainer->full_gradients);
    base_free(trainer->ctx, trainer->used);
    base_free(trainer->ctx, trainer->adapter_count);
    tr_rows_destroy(trainer->rows);
    tr_activations_destroy(trainer->activations);
    tr_weights_destroy(trainer->weights);
    tr_static_program_destroy(trainer->program);
    if (trainer->stream != NULL) base_stream_destroy(trainer->stream);
    tr_model_destroy(trainer->model);
    base_arena_destroy(trainer->arena);
    base_free(trainer->ctx, trainer);
}

base_status_t tr_trainer_sync(tr_trainer_t *trainer)
{
    BASE_TRY(as_attention_drain(trainer->attention)); /* peers may still fetch what was sent last */
    return base_stream_sync(trainer->stream);
}

base_status_t tr_trainer_read_hidden(tr_trainer_t *trainer, data_half_t half, double *hidden)
{
    if (trainer->index < 0)
        return BASE_FAIL(trainer->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                         "hidden states: a pool rank has none");
    const kern_mat_t mat = tr_activations_mat(trainer->activations, TR_SLOT_HIDDEN, half, 0,
                                              trainer->rows->half[half].rows);
    return tr_weights_download(trainer->ctx, trainer->stream, &mat, hidden);
}
