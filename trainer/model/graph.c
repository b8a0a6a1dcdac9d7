#include "trainer/model/graph.h"

base_status_t tr_graph_init(tr_graph_t *graph, base_arena_t *arena, const tr_weights_t *weights,
                            const tr_activations_t *activations, const tr_rows_t *rows,
                            const tr_head_t *head, const lora_route_t *route, base_stream_t *stream)
{
    const tr_model_t *m = weights->model;
    const int64_t bytes = m->config.max_positions * m->config.head_dim * kern_dtype_bytes(m->acc);

    *graph = (tr_graph_t){.model = m,
                          .arena = arena,
                          .weights = weights,
                          .activations = activations,
                          .rows = rows,
                          .head = head,
                          .route = route,
                          .stream = stream};
    return base_arena_declare(arena, "trainer", "cos_sin", bytes, BASE_LIFETIME_RUN,
                              &graph->cos_sin);
}

static kern_mat_t cos_sin(const tr_graph_t *g)
{
    const tr_model_config_t *c = &g->model->config;

    return kern_mat(base_arena_mem(g->arena, g->cos_sin), c->max_positions, c->head_dim,
                    c->head_dim, g->model->acc);
}

base_status_t tr_graph_start(const tr_graph_t *graph)
{
    const kern_rope_table_t table = {.inv_freq = graph->model->inv_freq,
                                     .scale = graph->model->rope_scale,
                                     .cos_sin = cos_sin(graph)};

    return kern_rope_table_run(graph->stream, &table);
}

/* ==== operands and the two linear products ==== */

static kern_mat_t act(const tr_graph_t *g, tr_slot_t slot, data_half_t half, int32_t layer)
{
    return tr_activations_mat(g->activations, slot, half, layer, g->rows->half[half].rows);
}

static kern_mat_t weight(const tr_graph_t *g, tr_weight_kind_t kind, int32_t layer)
{
    return tr_weights_mat(g->weights, tr_model_weight(g->model, kind, layer));
}

static kern_mat_t gradient(const tr_graph_t *g, tr_weight_kind_t kind, int32_t layer)
{
    return tr_weights_gradient(g->weights, tr_model_weight(g->model, kind, layer));
}

/* The residual stream behind layer l: what layer l + 1 begins with, or the head. */
static kern_mat_t residual_after(const tr_graph_t *g, data_half_t half, int32_t layer)
{
    if (layer + 1 < g->model->config.num_layers) return act(g, TR_SLOT_X, half, layer + 1);
    return act(g, TR_SLOT_LAST, half, 0);
}

static int has(const tr_graph_t *g, tr_weight_kind_t kind)
{
    return g->model->kind_at[kind] >= 0;
}

/* The adapters' view of a linear layer, and its bias. */
static lora_linear_t lora_linear_of(tr_weight_kind_t kind)
{
    switch (kind) {
    case TR_WEIGHT_QKV:
        return LORA_LINEAR_QKV;
    case TR_WEIGHT_O:
        return LORA_LINEAR_O;
    case TR_WEIGHT_GATE_UP:
        return LORA_LINEAR_GATE_UP;
    default:
        return LORA_LINEAR_DOWN;
    }
}

static tr_weight_kind_t bias_of(tr_weight_kind_t kind)
{
    return (tr_weight_kind_t)(kind + 1); /* TR_LAYER_WEIGHT_MAP lists it behind its weight */
}

/* y = x W^T + bias, and what the adapters add */
static base_status_t linear(const tr_graph_t *g, tr_weight_kind_t kind, int32_t layer,
                            data_half_t half, kern_mat_t x, kern_mat_t y)
{
    const kern_gemm_t gemm = {.a = x, .b = weight(g, kind, layer), .c = y, .transpose_b = 1};

    if (g->route == NULL)
        BASE_TRY(kern_gemm_run(g->stream, &gemm));
    else
        BASE_TRY(lora_linear_forward(g->route, layer, lora_linear_of(kind), half, x, y, g->stream));
    if (!has(g, bias_of(kind))) return BASE_OK;
    const kern_bias_add_t bias = {.bias = weight(g, bias_of(kind), layer), .y = y};
    return kern_bias_add_run(g->stream, &bias);
}

/* dW += dy^T x and dbias += column sums of dy */
static base_status_t weight_gradient(const tr_graph_t *g, tr_weight_kind_t kind, int32_t layer,
                                     kern_mat_t dy, kern_mat_t x)
{
    const kern_gemm_t dw = {
        .a = dy, .b = x, .c = gradient(g, kind, layer), .transpose_a = 1, .accumulate = 1};

    BASE_TRY(kern_gemm_run(g->stream, &dw));
    if (!has(g, bias_of(kind))) return BASE_OK;
    const kern_column_sum_t sum = {.x = dy, .sum = gradient(g, bias_of(kind), layer)};
    return kern_column_sum_run(g->stream, &sum);
}

/* dx = dy W (absent: not wanted), and the gradients of weight or adapters. */
static base_status_t linear_backward(const tr_graph_t *g, tr_weight_kind_t kind, int32_t layer,
                                     data_half_t half, kern_mat_t dy, kern_mat_t x, kern_mat_t dx)
{
    const kern_gemm_t product = {.a = dy, .b = weight(g, kind, layer), .c = dx};

    if (g->route != NULL)
        return lora_linear_backward(g->route, layer, lora_linear_of(kind), half, dy, x, dx,
                                    g->stream);
    BASE_TRY(weight_gradient(g, kind, layer, dy, x));
    return kern_gemm_run(g->stream, &product);
}

static base_status_t norm(const tr_graph_t *g, tr_weight_kind_t kind, int32_t layer, kern_mat_t x,
                          kern_mat_t y, kern_mat_t rstd)
{
    const kern_rmsnorm_fwd_t args = {
        .x = x, .w = weight(g, kind, layer), .y = y, .rstd = rstd, .eps = g->model->config.rms_eps};

    return kern_rmsnorm_fwd_run(g->stream, &args);
}

/* x = a + b, and its norm. */
static base_status_t add_norm(const tr_graph_t *g, tr_weight_kind_t kind, int32_t layer,
                              kern_add_t add, kern_mat_t y, kern_mat_t rstd)
{
    const kern_add_rmsnorm_fwd_t args = {.a = add.a,
                                         .b = add.b,
                                         .x = add.out,
                                         .w = weight(g, kind, layer),
                                         .y = y,
                                         .rstd = rstd,
                                         .eps = g->model->config.rms_eps};

    return kern_add_rmsnorm_fwd_run(g->stream, &args);
}

/* dx = norm backward of dy, plus dx itself: the gradient that bypasses the norm along the
 * residual. */
static base_status_t norm_backward(const tr_graph_t *g, tr_weight_kind_t kind, int32_t layer,
                                   kern_mat_t dy, kern_mat_t x, kern_mat_t rstd, kern_mat_t dx)
{
    kern_rmsnorm_bwd_t args = {
        .dy = dy, .x = x, .w = weight(g, kind, layer), .rstd = rstd, .dres = dx, .dx = dx};

    if (!g->model->config.frozen) args.dw = gradient(g, kind, layer);
    return kern_rmsnorm_bwd_run(g->stream, &args);
}

/* ==== forward ==== */

static base_status_t embed(const tr_graph_t *g, data_half_t half)
{
    const kern_embedding_fwd_t args = {.tokens = tr_rows_tokens(g->rows, half),
                                       .table = weight(g, TR_WEIGHT_EMBEDDING, -1),
                                       .out = act(g, TR_SLOT_X, half, 0)};

    return kern_embedding_fwd_run(g->stream, &args);
}

/* Columns [first, first + cols) of a matrix. */
static kern_mat_t part(kern_mat_t mat, int64_t first, int64_t cols)
{
    mat.mem = base_mem_at(mat.mem, first * kern_dtype_bytes(mat.dtype));
    mat.cols = cols;
    return mat;
}

/* Normalises q and k of a projection in place; what was there is kept for the backward. */
static base_status_t head_norms(const tr_graph_t *g, data_half_t half, int32_t l, kern_mat_t qkv)
{
    const tr_model_t *m = g->model;

    if (!m->config.qk_norm) return BASE_OK;
    const kern_mat_t raw = act(g, TR_SLOT_QK_RAW, half, l);
    const kern_convert_t keep = {.a = part(qkv, 0, m->q_cols + m->kv_cols), .out = raw};
    const kern_head_norm_fwd_t q = {.x = part(raw, 0, m->q_cols),
                                    .w = weight(g, TR_WEIGHT_Q_NORM, l),
                                    .y = part(qkv, 0, m->q_cols),
                                    .rstd = act(g, TR_SLOT_RSTD_Q, half, l),
                                    .head_dim = m->config.head_dim,
                                    .eps = m->config.rms_eps};
    const kern_head_norm_fwd_t k = {.x = part(raw, m->q_cols, m->kv_cols),
                                    .w = weight(g, TR_WEIGHT_K_NORM, l),
                                    .y = part(qkv, m->q_cols, m->kv_cols),
                                    .rstd = act(g, TR_SLOT_RSTD_K, half, l),
                                    .head_dim = m->config.head_dim,
                                    .eps = m->config.rms_eps};

    BASE_TRY(kern_convert_run(g->stream, &keep));
    BASE_TRY(kern_head_norm_fwd_run(g->stream, &q));
    return kern_head_norm_fwd_run(g->stream, &k);
}

static base_status_t first_norm(const tr_graph_t *g, data_half_t half, int32_t l)
{
    return norm(g, TR_WEIGHT_NORM1, l, act(g, TR_SLOT_X, half, l), act(g, TR_SLOT_N1, half, l),
                act(g, TR_SLOT_RSTD1, half, l));
}

/* q, k, v of the normed rows. */
static base_status_t project(const tr_graph_t *g, data_half_t half, int32_t l)
{
    const tr_model_config_t *c = &g->model->config;
    const kern_mat_t qkv = act(g, TR_SLOT_QKV, half, l);

    BASE_TRY(linear(g, TR_WEIGHT_QKV, l, half, act(g, TR_SLOT_N1, half, l), qkv));
    BASE_TRY(head_norms(g, half, l, qkv));

    const kern_rope_fwd_t rope = {.qkv = qkv,
                                  .positions = tr_rows_positions(g->rows, half),
                                  .cos_sin = cos_sin(g),
                                  .q = tr_activations_mem(g->activations, TR_SLOT_Q, half, l),
                                  .k = tr_activations_mem(g->activations, TR_SLOT_K, half, l),
                                  .v = tr_activations_mem(g->activations, TR_SLOT_V, half, l),
                                  .head_rows = g->activations->max_rows,
                                  .num_q_heads = c->num_q_heads,
                                  .num_kv_heads = c->num_kv_heads,
                                  .head_dim = c->head_dim};
    return kern_rope_fwd_run(g->stream, &rope);
}

static base_status_t pre_forward(const tr_graph_t *g, data_half_t half, int32_t l)
{
    BASE_TRY(first_norm(g, half, l));
    return project(g, half, l);
}

/* Behind attention, up to what the down projection reads. */
static base_status_t post_middle(const tr_graph_t *g, data_half_t half, int32_t l)
{
    const kern_mat_t mid = act(g, TR_SLOT_MID, half, l), n2 = act(g, TR_SLOT_N2, half, l);
    const kern_mat_t gate_up = act(g, TR_SLOT_GATE_UP, half, l);
    const kern_mat_t activated = act(g, TR_SLOT_ACT, half, l);
    const kern_mat_t branch = act(g, TR_SLOT_BRANCH, half, l);
    const kern_add_t first = {.a = act(g, TR_SLOT_X, half, l), .b = branch, .out = mid};
    const kern_swiglu_fwd_t swiglu = {.gate_up = gate_up, .act = activated};

    BASE_TRY(linear(g, TR_WEIGHT_O, l, half, act(g, TR_SLOT_O, half, l), branch));
    BASE_TRY(add_norm(g, TR_WEIGHT_NORM2, l, first, n2, act(g, TR_SLOT_RSTD2, half, l)));
    BASE_TRY(linear(g, TR_WEIGHT_GATE_UP, l, half, n2, gate_up));
    return kern_swiglu_fwd_run(g->stream, &swiglu);
}

/* Where a layer follows, with that one's first norm. */
static base_status_t post_forward(const tr_graph_t *g, data_half_t half, int32_t l)
{
    const kern_mat_t branch = act(g, TR_SLOT_BRANCH, half, l);
    const kern_add_t residual = {
        .a = act(g, TR_SLOT_MID, half, l), .b = branch, .out = residual_after(g, half, l)};

    BASE_TRY(post_middle(g, half, l));
    BASE_TRY(linear(g, TR_WEIGHT_DOWN, l, half, act(g, TR_SLOT_ACT, half, l), branch));
    if (l + 1 == g->model->config.num_layers) return kern_add_run(g->stream, &residual);
    return add_norm(g, TR_WEIGHT_NORM1, l + 1, residual, act(g, TR_SLOT_N1, half, l + 1),
                    act(g, TR_SLOT_RSTD1, half, l + 1));
}

base_status_t tr_graph_forward(const tr_graph_t *graph, data_half_t half, int32_t layer,
                               int evaluate)
{
    if (graph->rows->half[half].rows == 0) return BASE_OK;
    if (layer == 0) {
        BASE_TRY(embed(graph, half));
        return pre_forward(graph, half, layer);
    }
    BASE_TRY(post_forward(graph, half, layer - 1));
    if (layer < graph->model->config.num_layers) return project(graph, half, layer);
    return tr_head_run(graph->head, graph->weights, graph->activations, graph->rows, half, evaluate,
                       graph->stream);
}

/* ==== backward: dx holds the gradient of the residual stream, behind the part on entry, before it
 * on return ==== */

static base_status_t post_backward(const tr_graph_t *g, data_half_t half, int32_t l)
{
    const kern_mat_t dx = act(g, TR_SLOT_DX, half, l);
    const kern_mat_t dact = act(g, TR_SLOT_DACT, half, l), dnorm = act(g, TR_SLOT_DNORM, half, l);
    const kern_mat_t dgate_up = act(g, TR_SLOT_DGATE_UP, half, l);
    const kern_swiglu_bwd_t swiglu = {
        .dact = dact, .gate_up = act(g, TR_SLOT_GATE_UP, half, l), .dgate_up = dgate_up};

    BASE_TRY(linear_backward(g, TR_WEIGHT_DOWN, l, half, dx, act(g, TR_SLOT_ACT, half, l), dact));
    BASE_TRY(kern_swiglu_bwd_run(g->stream, &swiglu));
    BASE_TRY(linear_backward(g, TR_WEIGHT_GATE_UP, l, half, dgate_up, act(g, TR_SLOT_N2, half, l),
                             dnorm));
    BASE_TRY(norm_backward(g, TR_WEIGHT_NORM2, l, dnorm, act(g, TR_SLOT_MID, half, l),
                           act(g, TR_SLOT_RSTD2, half, l), dx));
    return linear_backward(g, TR_WEIGHT_O, l, half, dx, act(g, TR_SLOT_O, half, l),
                           act(g, TR_SLOT_DO, half, l));
}

/* Gradients of the normalised q and k to those of the projection, in place. */
static base_status_t head_norms_backward(const tr_graph_t *g, data_half_t half, int32_t l,
                                         kern_mat_t dqkv)
{
    const tr_model_t *m = g->model;

    if (!m->config.qk_norm) return BASE_OK;
    const kern_mat_t raw = act(g, TR_SLOT_QK_RAW, half, l);
    kern_head_norm_bwd_t q = {.dy = part(dqkv, 0, m->q_cols),
                              .x = part(raw, 0, m->q_cols),
                              .w = weight(g, TR_WEIGHT_Q_NORM, l),
                              .rstd = act(g, TR_SLOT_RSTD_Q, half, l),
                              .dx = part(dqkv, 0, m->q_cols),
                              .head_dim = m->config.head_dim};
    kern_head_norm_bwd_t k = {.dy = part(dqkv, m->q_cols, m->kv_cols),
                              .x = part(raw, m->q_cols, m->kv_cols),
                              .w = weight(g, TR_WEIGHT_K_NORM, l),
                              .rstd = act(g, TR_SLOT_RSTD_K, half, l),
                              .dx = part(dqkv, m->q_cols, m->kv_cols),
                              .head_dim = m->config.head_dim};

    if (!m->config.frozen) {
        q.dw = gradient(g, TR_WEIGHT_Q_NORM, l);
        k.dw = gradient(g, TR_WEIGHT_K_NORM, l);
    }
    BASE_TRY(kern_head_norm_bwd_run(g->stream, &q));
    return kern_head_norm_bwd_run(g->stream, &k);
}

static base_status_t pre_backward(const tr_graph_t *g, data_half_t half, int32_t l)
{
    const tr_model_config_t *c = &g->model->config;
    const kern_mat_t dqkv = act(g, TR_SLOT_DQKV, half, l);
    kern_mat_t dnorm = act(g, TR_SLOT_DNORM, half, l);
    const kern_rope_bwd_t rope = {.dq = tr_activations_mem(g->activations, TR_SLOT_DQ, half, l),
                                  .dk = tr_activations_mem(g->activations, TR_SLOT_DK, half, l),
                                  .dv = tr_activations_mem(g->activations, TR_SLOT_DV, half, l),
                                  .head_rows = g->activations->max_rows,
                                  .positions = tr_rows_positions(g->rows, half),
                                  .cos_sin = cos_sin(g),
                                  .dqkv = dqkv,
                                  .num_q_heads = c->num_q_heads,
                                  .num_kv_heads = c->num_kv_heads,
                                  .head_dim = c->head_dim};

    BASE_TRY(kern_rope_bwd_run(g->stream, &rope));
    BASE_TRY(head_norms_backward(g, half, l, dqkv));
    if (l == 0 && g->model->config.frozen) dnorm.mem = (base_mem_t){0}; /* nothing below learns */
    BASE_TRY(linear_backward(g, TR_WEIGHT_QKV, l, half, dqkv, act(g, TR_SLOT_N1, half, l), dnorm));
    if (kern_mat_absent(&dnorm)) return BASE_OK;
    return norm_backward(g, TR_WEIGHT_NORM1, l, dnorm, act(g, TR_SLOT_X, half, l),
                         act(g, TR_SLOT_RSTD1, half, l), act(g, TR_SLOT_DX, half, l));
}

/* Makes again what the policy did not keep of layer l, before its backward: for post_backward (l),
 * attention, and pre_backward (l), which comes with the next dense step. */
static base_status_t recompute(const tr_graph_t *g, data_half_t half, int32_t l)
{
    const tr_recompute_t policy = g->activations->recompute;

    if (policy == TR_RECOMPUTE_NOTHING) return BASE_OK;
    if (policy == TR_RECOMPUTE_QKV) return project(g, half, l);
    BASE_TRY(pre_forward(g, half, l));
    BASE_TRY(post_middle(g, half, l));
    if (g->route == NULL) return BASE_OK;
    return lora_linear_s(g->route, l, LORA_LINEAR_DOWN, half, act(g, TR_SLOT_ACT, half, l),
                         g->stream);
}

static base_status_t embed_backward(const tr_graph_t *g, data_half_t half)
{
    const kern_embedding_bwd_t args = {.tokens = tr_rows_tokens(g->rows, half),
                                       .dout = act(g, TR_SLOT_DX, half, 0),
                                       .dtable = gradient(g, TR_WEIGHT_EMBEDDING, -1)};

    return kern_embedding_bwd_run(g->stream, &args);
}

base_status_t tr_graph_backward(const tr_graph_t *graph, data_half_t half, int32_t layer)
{
    if (graph->rows->half[half].rows == 0) return BASE_OK;
    if (layer + 1 < graph->model->config.num_layers) BASE_TRY(pre_backward(graph, half, layer + 1));
    if (layer >= 0) {
        BASE_TRY(recompute(graph, half, layer));
        return post_backward(graph, half, layer);
    }
    return graph->model->config.frozen ? BASE_OK : embed_backward(graph, half);
}

/* ==== attention ==== */

as_tensors_t tr_graph_tensors(const tr_graph_t *graph, data_half_t half, int32_t layer,
                              as_direction_t direction)
{
    const tr_activations_t *a = graph->activations;
    as_tensors_t tensors = {.q = tr_activations_mem(a, TR_SLOT_Q, half, layer),
                            .k = tr_activations_mem(a, TR_SLOT_K, half, layer),
                            .v = tr_activations_mem(a, TR_SLOT_V, half, layer),
                            .o = tr_activations_mem(a, TR_SLOT_O, half, layer),
                            .lse = tr_activations_mem(a, TR_SLOT_LSE, half, layer)};

    if (direction == AS_BACKWARD) {
        tensors.d_o = tr_activations_mem(a, TR_SLOT_DO, half, layer);
        tensors.dq = tr_activations_mem(a, TR_SLOT_DQ, half, layer);
        tensors.dk = tr_activations_mem(a, TR_SLOT_DK, half, layer);
        tensors.dv = tr_activations_mem(a, TR_SLOT_DV, half, layer);
    }
    return tensors;
}
