#include "trainer/model/model.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct field_check {
    const char *name;
    int64_t value, low, high;
} field_check_t;

/* Bounds that keep every product of dimensions below 2^63, far above any model that exists. */
static base_status_t check_config(base_ctx_t *ctx, const tr_model_config_t *c)
{
    const field_check_t checks[] = {
        {"layers", c->num_layers, 1, 4096},
        {"hidden", c->hidden, 1, 1 << 20},
        {"intermediate", c->intermediate, 1, 1 << 22},
        {"vocab", c->vocab, 1, 1 << 24},
        {"query heads", c->num_q_heads, 1, 1 << 12},
        {"KV heads", c->num_kv_heads, 1, 1 << 12},
        {"head dim", c->head_dim, 2, 1 << 12},
        {"max positions", c->max_positions, 1, INT32_MAX},
        {"extra columns", c->extra_columns, 0, 1 << 16},
    };

    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        const field_check_t *f = &checks[i];
        if (f->value < f->low || f->value > f->high)
            return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CONF_04,
                             "model: %s is %lld, want %lld to %lld", f->name, (long long)f->value,
                             (long long)f->low, (long long)f->high);
    }
    if (c->num_q_heads % c->num_kv_heads != 0)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CONF_04,
                         "model: %d query heads are not a multiple of %d KV heads", c->num_q_heads,
                         c->num_kv_heads);
    if (c->head_dim % 2 != 0)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CONF_04,
                         "model: head dim is %d, want an even number", c->head_dim);
    if (c->dtype != KERN_F32 && c->dtype != KERN_F64 && c->dtype != KERN_BF16)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_CONF_04,
                         "model: dtype %s, want fp32, fp64 or bf16", kern_dtype_name(c->dtype));
    if (!(c->rms_eps > 0.0) ||
        (c->inv_freq == NULL && (!(c->rope_theta > 0.0) || !isfinite(c->rope_theta))))
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CONF_04,
                         "model: rms_eps %g and rope_theta %g, want both above 0", c->rms_eps,
                         c->rope_theta);
    return BASE_OK;
}

static base_status_t find_kinds(tr_model_t *m, const int64_t *layer_window)
{
    for (int32_t l = 0; l < m->config.num_layers; l++) {
        const int64_t window = layer_window == NULL ? 0 : layer_window[l];
        int32_t kind = 0;

        if (window < 0)
            return BASE_FAIL(m->ctx, BASE_ERR_CONFIG, BASE_MSG_CONF_04,
                             "model: layer %d: window is %lld, want 0 (full) or more", l,
                             (long long)window);
        while (kind < m->num_kinds && m->window[kind] != window)
            kind++;
        if (kind == AS_MAX_KINDS)
            return BASE_FAIL(
                m->ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_CONF_04,
                "model: layer %d: window %lld is another attention kind, want at most %d", l,
                (long long)window, AS_MAX_KINDS);
        if (kind == m->num_kinds) m->window[m->num_kinds++] = window;
        m->layer_kind[l] = kind;
    }
    return BASE_OK;
}

static const char *weight_name(tr_weight_kind_t kind)
{
    switch (kind) {
#define X(kind_, name)                                                                             \
    case TR_WEIGHT_##kind_:                                                                        \
        return name;
        TR_LAYER_WEIGHT_MAP(X)
        TR_OUTER_WEIGHT_MAP(X)
#undef X
    case TR_WEIGHT_NUM_KINDS:
        break;
    }
    return "";
}

/* 0 rows: the model has none. */
static void weight_shape(const tr_model_t *m, tr_weight_kind_t kind, int64_t *rows, int64_t *cols)
{
    const tr_model_config_t *c = &m->config;

    *rows = 1;
    *cols = c->hidden;
    switch (kind) {
    case TR_WEIGHT_NORM1:
    case TR_WEIGHT_NORM2:
    case TR_WEIGHT_FINAL_NORM:
        return;
    case TR_WEIGHT_O_BIAS:
        *rows = c->o_bias;
        return;
    case TR_WEIGHT_DOWN_BIAS:
        *rows = c->mlp_bias;
        return;
    case TR_WEIGHT_QKV_BIAS:
        *rows = c->qkv_bias;
        *cols = m->qkv_cols;
        return;
    case TR_WEIGHT_GATE_UP_BIAS:
        *rows = c->mlp_bias;
        *cols = 2 * (int64_t)c->intermediate;
        return;
    case TR_WEIGHT_Q_NORM:
    case TR_WEIGHT_K_NORM:
        *rows = c->qk_norm;
        *cols = c->head_dim;
        return;
    case TR_WEIGHT_QKV:
        *rows = m->qkv_cols;
        return;
    case TR_WEIGHT_O:
        *rows = c->hidden;
        *cols = m->q_cols;
        return;
    case TR_WEIGHT_GATE_UP:
        *rows = 2 * (int64_t)c->intermediate;
        return;
    case TR_WEIGHT_DOWN:
        *rows = c->hidden;
        *cols = c->intermediate;
        return;
    case TR_WEIGHT_EMBEDDING:
        *rows = c->vocab;
        return;
    case TR_WEIGHT_LM_HEAD:
        *rows = c->tied ? 0 : c->vocab;
        return;
    case TR_WEIGHT_NUM_KINDS:
        break;
    }
    *rows = 0;
}

static int is_linear(tr_weight_kind_t kind)
{
    return kind == TR_WEIGHT_QKV || kind == TR_WEIGHT_O || kind == TR_WEIGHT_GATE_UP ||
           kind == TR_WEIGHT_DOWN;
}

static void add_weight(tr_model_t *m, tr_weight_kind_t kind, int32_t layer)
{
    tr_weight_spec_t *w = &m->weights[m->num_weights];
    const int32_t extra = is_linear(kind) ? m->config.extra_columns : 0;

    weight_shape(m, kind, &w->rows, &w->cols);
    if (w->rows == 0) return;
    if (layer >= 0)
        (void)snprintf(w->name, sizeof w->name, "layers.%d.%s", layer, weight_name(kind));
    else
        (void)snprintf(w->name, sizeof w->name, "%s", weight_name(kind));
    w->kind = kind;
    w->layer = layer;
    w->pitch = is_linear(kind) ? tr_model_pitch(m, w->cols) : w->cols;
    w->extra_rows = extra;
    if (layer <= 0) m->kind_at[kind] = m->num_weights;
    m->num_weights++;
}

static void list_weights(tr_model_t *m)
{
    for (int32_t k = 0; k < TR_WEIGHT_NUM_KINDS; k++)
        m->kind_at[k] = -1;
    for (int32_t l = 0; l < m->config.num_layers; l++) {
        for (int32_t k = 0; k < TR_WEIGHT_NUM_LAYER_KINDS; k++)
            add_weight(m, (tr_weight_kind_t)k, l);
        if (l == 0) m->layer_weights = m->num_weights;
    }
    for (int32_t k = TR_WEIGHT_NUM_LAYER_KINDS; k < TR_WEIGHT_NUM_KINDS; k++)
        add_weight(m, (tr_weight_kind_t)k, -1);
    if (m->config.tied) m->kind_at[TR_WEIGHT_LM_HEAD] = m->kind_at[TR_WEIGHT_EMBEDDING];
}

base_status_t tr_model_create(base_ctx_t *ctx, const tr_model_config_t *config,
                              tr_model_t **model_p)
{
    base_status_t st;

    BASE_TRY(check_config(ctx, config));
    tr_model_t *m = base_calloc(ctx, 1, sizeof *m, "model");
    if (m == NULL) return BASE_ERR_NOMEM;
    m->ctx = ctx;
    m->config = *config;
    m->config.layer_window = NULL;
    m->config.inv_freq = NULL;
    m->acc = kern_dtype_acc(config->dtype);
    m->q_cols = (int64_t)config->num_q_heads * config->head_dim;
    m->kv_cols = (int64_t)config->num_kv_heads * config->head_dim;
    m->qkv_cols = m->q_cols + 2 * m->kv_cols;
    m->attention_scale = config->attention_scale > 0.0 ? config->attention_scale
                                                       : 1.0 / sqrt((double)config->head_dim);
    m->rope_scale = config->rope_scale > 0.0 ? config->rope_scale : 1.0;

    const int64_t num_weights = (int64_t)config->num_layers * TR_WEIGHT_NUM_LAYER_KINDS +
                                (TR_WEIGHT_NUM_KINDS - TR_WEIGHT_NUM_LAYER_KINDS);
    m->layer_kind = base_calloc(ctx, config->num_layers, sizeof *m->layer_kind, "layer kinds");
    m->inv_freq = base_calloc(ctx, config->head_dim / 2, sizeof *m->inv_freq, "rope frequencies");
    m->weights = base_calloc(ctx, num_weights, sizeof *m->weights, "list of weights");
    if (m->layer_kind == NULL || m->inv_freq == NULL || m->weights == NULL) {
        st = BASE_ERR_NOMEM;
        goto err_destroy;
    }
    BASE_TRY_GOTO(find_kinds(m, config->layer_window), st, err_destroy);
    for (int32_t i = 0; i < config->head_dim / 2; i++)
        m->inv_freq[i] = config->inv_freq != NULL
                             ? config->inv_freq[i]
                             : pow(config->rope_theta, -2.0 * i / config->head_dim);
    list_weights(m);
    *model_p = m;
    return BASE_OK;
err_destroy:
    tr_model_destroy(m);
    return st;
}

void tr_model_destroy(tr_model_t *model)
{
    if (model == NULL) return;
    base_free(model->ctx, model->weights);
    base_free(model->ctx, model->inv_freq);
    base_free(model->ctx, model->layer_kind);
    base_free(model->ctx, model);
}

int32_t tr_model_weight(const tr_model_t *model, tr_weight_kind_t kind, int32_t layer)
{
    const int32_t at = model->kind_at[kind];

    if (at < 0 || kind >= TR_WEIGHT_NUM_LAYER_KINDS) return at;
    return layer * model->layer_weights + at;
}

int64_t tr_model_pitch(const tr_model_t *model, int64_t cols)
{
    const int64_t line = TR_PITCH_BYTES / kern_dtype_bytes(KERN_BF16);
    const int64_t all = cols + model->config.extra_columns;

    if (model->config.extra_columns == 0 || model->config.dtype != KERN_BF16) return all;
    return (all + line - 1) / line * line;
}

int64_t tr_model_largest_weight(const tr_model_t *model)
{
    int64_t largest = 0;

    for (int32_t i = 0; i < model->num_weights; i++) {
        const int64_t elements = model->weights[i].rows * model->weights[i].cols;
        largest = elements > largest ? elements : largest;
    }
    return largest;
}

int64_t tr_model_parameters(const tr_model_t *model)
{
    int64_t sum = 0;

    for (int32_t i = 0; i < model->num_weights; i++)
        sum += model->weights[i].rows * model->weights[i].cols;
    return sum;
}
