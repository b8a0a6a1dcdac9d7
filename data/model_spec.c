#include "data/model_spec.h"

#include "base/hash.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const char *data_model_family_name(data_model_family_t family)
{
    static const char *const name[] = {
#define X(word, type, architecture) type,
        DATA_MODEL_FAMILY_MAP(X)
#undef X
    };

    return (unsigned)family < DATA_MODEL_NUM_FAMILIES ? name[family] : NULL;
}

const char *data_model_family_architecture(data_model_family_t family)
{
    static const char *const name[] = {
#define X(word, type, architecture) architecture,
        DATA_MODEL_FAMILY_MAP(X)
#undef X
    };

    return (unsigned)family < DATA_MODEL_NUM_FAMILIES ? name[family] : NULL;
}

/* ==== check and hash ==== */

/* Written so that a NaN is outside. */
static bool within(double v, double min, double max)
{
    return v >= min && v <= max;
}

static bool dim(int64_t v)
{
    return v >= 1 && v <= DATA_MODEL_MAX_DIM;
}

static const char *check_rope(const data_rope_t *rope)
{
    if (!within(rope->theta, 1.0001, 1e15)) return "rope.theta";
    if (rope->kind == DATA_ROPE_PLAIN) return NULL;
    if (!within(rope->factor, 1.0, 1e6)) return "rope.factor";
    if (rope->kind == DATA_ROPE_LINEAR) return NULL;
    if (rope->original_max_positions < 1 || rope->original_max_positions > DATA_MODEL_MAX_POSITIONS)
        return "rope.original_max_positions";
    if (rope->kind == DATA_ROPE_LLAMA3) {
        if (!within(rope->low_freq_factor, 1e-6, 1e6)) return "rope.low_freq_factor";
        if (!within(rope->high_freq_factor, 1e-6, 1e6) ||
            rope->high_freq_factor <= rope->low_freq_factor)
            return "rope.high_freq_factor";
        return NULL;
    }
    if (rope->kind != DATA_ROPE_YARN) return "rope.kind";
    if (!within(rope->beta_slow, 1e-6, 1e6)) return "rope.beta_slow";
    if (!within(rope->beta_fast, 1e-6, 1e6) || rope->beta_fast <= rope->beta_slow)
        return "rope.beta_fast";
    return within(rope->attention_factor, 1e-6, 1e6) ? NULL : "rope.attention_factor";
}

const char *data_model_spec_check(const data_model_spec_t *spec)
{
    if (data_model_family_name(spec->family) == NULL) return "family";
    if (spec->num_layers < 1 || spec->num_layers > DATA_MODEL_MAX_LAYERS) return "num_layers";
    if (!dim(spec->hidden)) return "hidden";
    if (!dim(spec->intermediate)) return "intermediate";
    if (!dim(spec->vocab)) return "vocab";
    if (spec->head_dim < 2 || spec->head_dim > DATA_MODEL_MAX_HEAD_DIM || spec->head_dim % 2 != 0)
        return "head_dim";
    if (spec->num_q_heads < 1 || !dim((int64_t)spec->num_q_heads * spec->head_dim))
        return "num_q_heads";
    if (spec->num_kv_heads < 1 || spec->num_q_heads % spec->num_kv_heads != 0)
        return "num_kv_heads";
    if (spec->max_positions < 1 || spec->max_positions > DATA_MODEL_MAX_POSITIONS)
        return "max_positions";
    if (!within(spec->rms_eps, 1e-30, 1.0)) return "rms_eps";
    if (!within(spec->softmax_scale, 1e-9, 1e9)) return "softmax_scale";
    for (int32_t l = 0; l < spec->num_layers; l++)
        if (spec->layer_window[l] < 0 || spec->layer_window[l] > DATA_MODEL_MAX_POSITIONS)
            return "layer_window";
    if (spec->num_eos < 0 || spec->num_eos > DATA_MODEL_MAX_EOS) return "num_eos";
    for (int32_t i = 0; i < spec->num_eos; i++)
        if (spec->eos[i] < 0 || spec->eos[i] >= spec->vocab) return "eos";
    return check_rope(&spec->rope);
}

uint64_t data_model_spec_hash(const data_model_spec_t *spec)
{
    const int64_t whole[] = {spec->num_layers,   spec->hidden,
                             spec->intermediate, spec->vocab,
                             spec->num_q_heads,  spec->num_kv_heads,
                             spec->head_dim,     spec->tied,
                             spec->qkv_bias,     spec->o_bias,
                             spec->mlp_bias,     spec->qk_norm,
                             spec->rope.kind,    spec->rope.original_max_positions,
                             spec->rope.truncate};
    const double real[] = {
        spec->rms_eps,        spec->softmax_scale,        spec->rope.theta,
        spec->rope.factor,    spec->rope.low_freq_factor, spec->rope.high_freq_factor,
        spec->rope.beta_fast, spec->rope.beta_slow,       spec->rope.attention_factor};
    base_hash_t h = BASE_HASH_START;

    /* By its name: the numbers of the enum may move when a family is added. */
    h = base_hash_string(h, data_model_family_name(spec->family));
    h = base_hash_i64_array(h, whole, (int64_t)(sizeof whole / sizeof *whole));
    for (size_t i = 0; i < sizeof real / sizeof *real; i++)
        h = base_hash_double(h, real[i]);
    return base_hash_i64_array(h, spec->layer_window, spec->num_layers);
}

/* ==== rotary embedding ==== */

#define TWO_PI 6.283185307179586476925286766559

double data_rope_yarn_attention_factor(double factor)
{
    return factor <= 1.0 ? 1.0 : 0.1 * log(factor) + 1.0;
}

static double llama3(const data_rope_t *rope, double inv)
{
    const double turns = (double)rope->original_max_positions / (TWO_PI / inv); /* C / w */
    double s;

    if (turns > rope->high_freq_factor) return inv;
    if (turns < rope->low_freq_factor) return inv / rope->factor;
    s = (turns - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return (1.0 - s) * inv / rope->factor + s * inv;
}

/* The dimension, not whole, that turns `turns` times within the original context. */
static double yarn_dimension(const data_rope_t *rope, double turns, double head_dim)
{
    return head_dim * log((double)rope->original_max_positions / (turns * TWO_PI)) /
           (2.0 * log(rope->theta));
}

static void yarn(const data_rope_t *rope, int32_t head_dim, double *inv_freq)
{
    double low = yarn_dimension(rope, rope->beta_fast, (double)head_dim);
    double high = yarn_dimension(rope, rope->beta_slow, (double)head_dim);

    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0.0);
    high = fmin(high, (double)head_dim - 1.0);
    if (low == high) high += 0.001; /* as the method's own code does: no division by zero */
    for (int32_t i = 0; i < head_dim / 2; i++) {
        const double ramp = fmin(fmax(((double)i - low) / (high - low), 0.0), 1.0);

        inv_freq[i] = inv_freq[i] / rope->factor * ramp + inv_freq[i] * (1.0 - ramp);
    }
}

double data_model_spec_rope(const data_model_spec_t *spec, double *inv_freq)
{
    const data_rope_t *rope = &spec->rope;

    for (int32_t i = 0; i < spec->head_dim / 2; i++) {
        const double inv = pow(rope->theta, -2.0 * (double)i / (double)spec->head_dim);

        inv_freq[i] = inv;
        if (rope->kind == DATA_ROPE_LINEAR) inv_freq[i] = inv / rope->factor;
        if (rope->kind == DATA_ROPE_LLAMA3) inv_freq[i] = llama3(rope, inv);
    }
    if (rope->kind != DATA_ROPE_YARN) return 1.0;
    yarn(rope, spec->head_dim, inv_freq);
    return rope->attention_factor;
}

/* ==== tensors ==== */

static const char *file_name(data_model_tensor_kind_t kind)
{
    static const char *const name[] = {
#define X(word, text) text,
        DATA_MODEL_TENSOR_MAP(X)
#undef X
    };

    return name[kind];
}

static bool present(const data_model_spec_t *spec, data_model_tensor_kind_t kind)
{
    switch (kind) {
    case DATA_TENSOR_LM_HEAD:
        return !spec->tied;
    case DATA_TENSOR_Q_BIAS:
    case DATA_TENSOR_K_BIAS:
    case DATA_TENSOR_V_BIAS:
        return spec->qkv_bias;
    case DATA_TENSOR_O_BIAS:
        return spec->o_bias;
    case DATA_TENSOR_Q_NORM:
    case DATA_TENSOR_K_NORM:
        return spec->qk_norm;
    case DATA_TENSOR_GATE_BIAS:
    case DATA_TENSOR_UP_BIAS:
    case DATA_TENSOR_DOWN_BIAS:
        return spec->mlp_bias;
    default:
        return true;
    }
}

static void shape_of(const data_model_spec_t *spec, data_model_tensor_t *t)
{
    const int64_t q = (int64_t)spec->num_q_heads * spec->head_dim;
    const int64_t kv = (int64_t)spec->num_kv_heads * spec->head_dim;
    const int64_t h = spec->hidden, f = spec->intermediate;
    int64_t rows = 0, cols = 0; /* cols 0: a vector */

    switch (t->kind) {
    case DATA_TENSOR_EMBEDDING:
    case DATA_TENSOR_LM_HEAD:
        rows = spec->vocab, cols = h;
        break;
    case DATA_TENSOR_FINAL_NORM:
    case DATA_TENSOR_NORM1:
    case DATA_TENSOR_NORM2:
    case DATA_TENSOR_O_BIAS:
    case DATA_TENSOR_DOWN_BIAS:
        rows = h;
        break;
    case DATA_TENSOR_Q:
        rows = q, cols = h;
        break;
    case DATA_TENSOR_K:
    case DATA_TENSOR_V:
        rows = kv, cols = h;
        break;
    case DATA_TENSOR_Q_BIAS:
        rows = q;
        break;
    case DATA_TENSOR_K_BIAS:
    case DATA_TENSOR_V_BIAS:
        rows = kv;
        break;
    case DATA_TENSOR_Q_NORM:
    case DATA_TENSOR_K_NORM:
        rows = spec->head_dim;
        break;
    case DATA_TENSOR_O:
        rows = h, cols = q;
        break;
    case DATA_TENSOR_GATE:
    case DATA_TENSOR_UP:
        rows = f, cols = h;
        break;
    case DATA_TENSOR_GATE_BIAS:
    case DATA_TENSOR_UP_BIAS:
        rows = f;
        break;
    case DATA_TENSOR_DOWN:
        rows = h, cols = f;
        break;
    case DATA_TENSOR_NUM_KINDS:
        break;
    }
    t->rank = cols == 0 ? 1 : 2;
    t->shape[0] = rows;
    t->shape[1] = cols;
}

/* Tensors of the model among the kinds [from, to). */
static int64_t num_present(const data_model_spec_t *spec, int from, int to)
{
    int64_t n = 0;

    for (int kind = from; kind < to; kind++)
        n += present(spec, (data_model_tensor_kind_t)kind);
    return n;
}

static int64_t num_outside(const data_model_spec_t *spec)
{
    return num_present(spec, 0, DATA_TENSOR_FIRST_OF_LAYER);
}

static int64_t num_of_layer(const data_model_spec_t *spec)
{
    return num_present(spec, DATA_TENSOR_FIRST_OF_LAYER, DATA_TENSOR_NUM_KINDS);
}

int64_t data_model_spec_num_tensors(const data_model_spec_t *spec)
{
    return num_outside(spec) + spec->num_layers * num_of_layer(spec);
}

int64_t data_model_spec_index(const data_model_spec_t *spec, data_model_tensor_kind_t kind,
                              int32_t layer)
{
    if (!present(spec, kind)) return -1;
    if (kind < DATA_TENSOR_FIRST_OF_LAYER) return num_present(spec, 0, (int)kind);
    assert(layer >= 0 && layer < spec->num_layers);
    return num_outside(spec) + layer * num_of_layer(spec) +
           num_present(spec, DATA_TENSOR_FIRST_OF_LAYER, (int)kind);
}

void data_model_spec_tensor(const data_model_spec_t *spec, int64_t index,
                            data_model_tensor_t *tensor)
{
    const int64_t outside = num_outside(spec), per_layer = num_of_layer(spec);
    int kind = index < outside ? 0 : DATA_TENSOR_FIRST_OF_LAYER;
    int64_t left = index < outside ? index : (index - outside) % per_layer;

    assert(index >= 0 && index < outside + spec->num_layers * per_layer);
    while (!present(spec, (data_model_tensor_kind_t)kind) || left > 0) {
        left -= present(spec, (data_model_tensor_kind_t)kind);
        kind++;
    }
    *tensor = (data_model_tensor_t){.kind = (data_model_tensor_kind_t)kind, .layer = -1};
    if (index >= outside) tensor->layer = (int32_t)((index - outside) / per_layer);
    if (tensor->layer < 0)
        (void)snprintf(tensor->name, sizeof tensor->name, "%s", file_name(tensor->kind));
    else
        (void)snprintf(tensor->name, sizeof tensor->name, "model.layers.%" PRId32 ".%s",
                       tensor->layer, file_name(tensor->kind));
    shape_of(spec, tensor);
}

int64_t data_model_spec_find(const data_model_spec_t *spec, const char *name)
{
    static const char prefix[] = "model.layers.";
    const bool of_layer = strncmp(name, prefix, sizeof prefix - 1) == 0;
    const char *rest = name;
    int32_t layer = -1;
    int kind = of_layer ? DATA_TENSOR_FIRST_OF_LAYER : 0;
    const int end = of_layer ? DATA_TENSOR_NUM_KINDS : DATA_TENSOR_FIRST_OF_LAYER;

    if (of_layer) {
        const char *digits = name + sizeof prefix - 1;

        layer = 0;
        for (rest = digits; *rest >= '0' && *rest <= '9' && rest - digits < 4; rest++)
            layer = 10 * layer + (*rest - '0');
        if (rest == digits || *rest != '.' || layer >= spec->num_layers) return -1;
        if (digits[0] == '0' && rest - digits > 1) return -1;
        rest++;
    }
    for (; kind < end; kind++)
        if (strcmp(file_name((data_model_tensor_kind_t)kind), rest) == 0)
            return data_model_spec_index(spec, (data_model_tensor_kind_t)kind, layer);
    return -1;
}

int64_t data_model_spec_parameters(const data_model_spec_t *spec)
{
    int64_t sum = 0;

    for (int64_t i = 0; i < data_model_spec_num_tensors(spec); i++) {
        data_model_tensor_t t;

        data_model_spec_tensor(spec, i, &t);
        sum += t.shape[0] * (t.rank == 2 ? t.shape[1] : 1);
    }
    return sum;
}
