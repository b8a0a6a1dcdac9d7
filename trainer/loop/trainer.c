#include "trainer/loop/trainer.h"

#include "base/memory.h"

/* What only ranks with dense layers have. */
static base_status_t create_dense(tr_trainer_t *t, const tr_trainer_config_t *config)
{
    BASE_TRY(tr_weights_create(t->model, t->arena, &t->weights));
    BASE_TRY(tr_activations_create(t->model, t->arena, config->max_rows, &t->activations));
    BASE_TRY(tr_rows_create(t->model, t->arena, t->stream, config->max_rows, config->num_adapters,
                            &t->rows));
    BASE_TRY(tr_head_init(&t->head, t->model, t->arena, config->max_rows, config->num_adapters));
    BASE_TRY(tr_graph_init(&t->graph, t->arena, t->weights, t->activations, t->rows, &t->head,
                           t->stream));

    /* The largest gradient, or the adapters' losses where they are more. */
    const int64_t largest = tr_model_largest_weight(t->model);
    const int64_t count = largest > config->num_adapters ? largest : config->num_adapters;
    const comm_element_t element = t->model->acc == KERN_F64 ? COMM_F64 : COMM_F32;
    return base_arena_declare(t->arena, "trainer", "reduce scratch",
                              comm_reduce_scratch_bytes(t->group, count, element),
                              BASE_LIFETIME_RUN, &t->reduce_scratch);
}

/* Pitches follow from the model alone, so that pool ranks know them too. */
static base_status_t create_attention(tr_trainer_t *t, const tr_trainer_config_t *config)
{
    const tr_model_t *m = t->model;
    const int64_t o_pitch = m->q_cols + m->config.extra_columns;
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
                               .o_pitch = o_pitch,
                               .d_o_pitch = o_pitch,
                               .scratch_bytes = config->scratch_bytes,
                               .retain_bytes = config->retain_bytes,
                               .max_tasks = config->max_tasks};

    for (int32_t k = 0; k < m->num_kinds; k++)
        c.window[k] = m->window[k];
    return as_attention_create(t->ctx, &c, t->topology, t->group, t->arena, t->stream,
                               &t->attention);
}

static base_status_t start(tr_trainer_t *t, const tr_trainer_config_t *config)
{
    BASE_TRY(base_arena_commit(t->arena));
    if (t->index < 0) return BASE_OK;
    BASE_TRY(tr_activations_fill(t->activations, t->stream));
    BASE_TRY(tr_graph_start(&t->graph));
    return tr_weights_random(t->weights, t->stream, config->weight_seed);
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
    tr_trainer_t *t = base_calloc(ctx, 1, sizeof *t, "trainer");
    if (t == NULL) return BASE_ERR_NOMEM;
    t->ctx = ctx;
    t->group = group;
    t->topology = topology;
    t->num_adapters = config->num_adapters;
    t->index = topology->rank_trainer[comm_group_rank(group)];
    t->reduce_scratch = BASE_REGION_NONE;
    BASE_TRY_GOTO(base_stream_create(dev, BASE_STREAM_COMPUTE, "compute", &t->stream), st,
                  err_destroy);
    BASE_TRY_GOTO(base_arena_create(dev, BASE_MEMORY_DEVICE, "device", &t->arena), st, err_destroy);
    BASE_TRY_GOTO(tr_model_create(ctx, &config->model, &t->model), st, err_destroy);
    BASE_TRY_GOTO(tr_static_program_create(ctx, config->model.num_layers, &t->program), st,
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
