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
    if (c->dtype != KERN_F32 && c->dtype != KERN_F64)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_CONF_04,
                         "model: dtype %s, want fp32 or fp64", kern_dtype_name(c->dtype));
    if (!(c->rms_eps > 0.0) || !(c->rope_theta > 0.0) || !isfinite(c->rope_theta))
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

static void add_weight(tr_model_t *m, tr_weight_kind_t kind, int32_t layer, const char *name,
                       int64_t rows, int64_t cols, int64_t extra)
{
    tr_weight_spec_t *w = &m->weights[m->num_weights++];

    if (layer >= 0)
        (void)snprintf(w->name, sizeof w->name, "layers.%d.%s", layer, name);
    else
        (void)snprintf(w->name, sizeof w->name, "%s", name);
    w->kind = kind;
    w->layer = layer;
    w->rows = rows;
    w->cols = cols;
    w->pitch = cols + extra;
}

static void list_weights(tr_model_t *m)
{
    const tr_model_config_t *c = &m->config;
    const int64_t extra = c->extra_columns;

    for (int32_t l = 0; l < c->num_layers; l++) {
        add_weight(m, TR_WEIGHT_NORM1, l, "norm1", 1, c->hidden, 0);
        add_weight(m, TR_WEIGHT_QKV, l, "qkv_proj", m->qkv_cols, c->hidden, extra);
        add_weight(m, TR_WEIGHT_O, l, "o_proj", c->hidden, m->q_cols, extra);
        add_weight(m, TR_WEIGHT_NORM2, l, "norm2", 1, c->hidden, 0);
        add_weight(m, TR_WEIGHT_GATE_UP, l, "gate_up_proj", 2 * (int64_t)c->intermediate, c->hidden,
                   extra);
        add_weight(m, TR_WEIGHT_DOWN, l, "down_proj", c->hidden, c->intermediate, extra);
    }
    add_weight(m, TR_WEIGHT_EMBEDDING, -1, "embedding", c->vocab, c->hidden, 0);
    add_weight(m, TR_WEIGHT_FINAL_NORM, -1, "final_norm", 1, c->hidden, 0);
    add_weight(m, TR_WEIGHT_LM_HEAD, -1, "lm_head", c->vocab, c->hidden, 0);
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
    m->acc = kern_dtype_acc(config->dtype);
    m->q_cols = (int64_t)config->num_q_heads * config->head_dim;
    m->kv_cols = (int64_t)config->num_kv_heads * config->head_dim;
    m->qkv_cols = m->q_cols + 2 * m->kv_cols;
    m->attention_scale = 1.0 / sqrt((double)config->head_dim);

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
        m->inv_freq[i] = pow(config->rope_theta, -2.0 * i / config->head_dim);
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
    if (kind < TR_WEIGHT_NUM_LAYER_KINDS) return layer * TR_WEIGHT_NUM_LAYER_KINDS + (int32_t)kind;
    return model->config.num_layers * TR_WEIGHT_NUM_LAYER_KINDS +
           ((int32_t)kind - TR_WEIGHT_NUM_LAYER_KINDS);
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
