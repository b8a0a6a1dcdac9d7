#include "data/hf_config.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/hf_keys.h"
#include "data/hf_rope.h"
#include "data/json_read.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ==== family ==== */

/* Whether the file says that transformers older than major.minor wrote it. */
static bool older_than(const data_json_object_t *root, long major, long minor)
{
    data_json_kind_t kind;
    const char *text;
    char *end;
    long found;

    if (!data_json_kind(root, "transformers_version", &kind) || kind != DATA_JSON_TEXT ||
        !data_json_text(root, "transformers_version", &text))
        return false;
    found = strtol(text, &end, 10);
    if (end == text || *end != '.') return false;
    if (found != major) return found < major;
    text = end + 1;
    found = strtol(text, &end, 10);
    return end != text && found < minor;
}

static bool read_family(const data_json_object_t *root, data_model_family_t *family)
{
    const char *word, *wanted, *found = "";
    int64_t count;

    if (!data_json_text(root, "model_type", &word)) return false;
    for (*family = 0; *family < DATA_MODEL_NUM_FAMILIES; (*family)++)
        if (strcmp(data_model_family_name(*family), word) == 0) break;
    if (*family == DATA_MODEL_NUM_FAMILIES) {
        data_json_fault(root, BASE_MSG_DATA_05, "model_type",
                        "is \"%.60s\"; llama, mistral, qwen2 and qwen3 are supported", word);
        return false;
    }
    if (!data_json_has(root, "architectures")) return true;
    if (!data_json_array(root, "architectures", &count)) return true;
    wanted = data_model_family_architecture(*family);
    for (int64_t i = 0; i < count; i++) {
        if (!data_json_array_text(root, "architectures", i, &found)) return true;
        if (strcmp(found, wanted) == 0) return true;
    }
    data_json_fault(root, BASE_MSG_DATA_05, "architectures",
                    "is \"%.60s\"; a %s model is supported as %s", found, word, wanted);
    return true;
}

/* ==== dimensions ==== */

static void read_dim(const data_json_object_t *root, const char *key, int64_t max, int64_t *value)
{
    *value = 0; /* reported, or set */
    (void)data_json_int(root, key, 1, max, value);
}

static void read_heads(const data_json_object_t *root, data_model_spec_t *spec)
{
    int64_t q, kv, head_dim = 0;

    read_dim(root, "num_attention_heads", DATA_MODEL_MAX_DIM, &q);
    if (spec->family == DATA_MODEL_LLAMA && !data_json_has(root, "num_key_value_heads") &&
        older_than(root, 4, 31))
        kv = q;
    else
        read_dim(root, "num_key_value_heads", DATA_MODEL_MAX_DIM, &kv);
    if (q > 0 && kv > 0 && q % kv != 0)
        data_json_fault(root, BASE_MSG_DATA_04, "num_key_value_heads",
                        "is %" PRId64 ", which does not divide num_attention_heads %" PRId64, kv,
                        q);
    if (data_json_has(root, "head_dim") || spec->family == DATA_MODEL_QWEN3)
        read_dim(root, "head_dim", DATA_MODEL_MAX_HEAD_DIM, &head_dim);
    else if (q > 0 && spec->hidden > 0) {
        head_dim = spec->hidden / q;
        if (spec->hidden % q != 0 || head_dim > DATA_MODEL_MAX_HEAD_DIM)
            data_json_fault(root, BASE_MSG_DATA_04, "head_dim",
                            "is missing, and hidden_size %" PRId64 " / num_attention_heads %" PRId64
                            " gives none",
                            spec->hidden, q);
    }
    if (head_dim % 2 != 0)
        data_json_fault(root, BASE_MSG_DATA_04, "head_dim", "is %" PRId64 ", an odd number",
                        head_dim);
    spec->num_q_heads = (int32_t)q;
    spec->num_kv_heads = (int32_t)kv;
    spec->head_dim = (int32_t)(head_dim <= DATA_MODEL_MAX_HEAD_DIM ? head_dim : 0);
}

/* A switch that a family reads, false when missing; elsewhere only `fixed` may be written. */
static bool read_switch(const data_json_object_t *root, const char *key, bool is_read, bool fixed)
{
    bool value = false;

    if (!data_json_has(root, key)) return is_read ? false : fixed;
    if (!data_json_bool(root, key, &value) || is_read || value == fixed) return value;
    data_json_fault(root, BASE_MSG_DATA_05, key, "is %s; models of this type have %s",
                    value ? "true" : "false", fixed ? "true" : "false");
    return value;
}

static void read_features(const data_json_object_t *root, data_model_spec_t *spec)
{
    const data_model_family_t family = spec->family;
    const char *act;

    (void)data_json_bool(root, "tie_word_embeddings", &spec->tied);
    if (data_json_text(root, "hidden_act", &act) && strcmp(act, "silu") != 0)
        data_json_fault(root, BASE_MSG_DATA_05, "hidden_act",
                        "is \"%.40s\", only \"silu\" is supported", act);
    spec->qkv_bias = read_switch(root, "attention_bias",
                                 family == DATA_MODEL_LLAMA || family == DATA_MODEL_QWEN3,
                                 family == DATA_MODEL_QWEN2);
    /* Llama and Qwen3 switch all four projections together; Qwen2 has no bias in o_proj. */
    spec->o_bias = spec->qkv_bias && family != DATA_MODEL_QWEN2;
    spec->mlp_bias = read_switch(root, "mlp_bias", family == DATA_MODEL_LLAMA, false);
    spec->qk_norm = family == DATA_MODEL_QWEN3;
}

/* ==== windows ==== */

/* The window by the family's own keys: its rows (0: none) and the first layer that has it. */
static int64_t read_window(const data_json_object_t *root, data_model_family_t family, bool types,
                           int64_t *first)
{
    const bool given = data_json_has(root, "sliding_window");
    data_json_kind_t kind;
    bool use = false;
    int64_t window = 0;

    *first = 0;
    if (family == DATA_MODEL_LLAMA || family == DATA_MODEL_MISTRAL)
        (void)read_switch(root, "use_sliding_window", false, false);
    if (family == DATA_MODEL_LLAMA) {
        if (given)
            data_json_fault(root, BASE_MSG_DATA_05, "sliding_window",
                            "llama models have none; only null is allowed");
        return 0;
    }
    if (family == DATA_MODEL_MISTRAL) {
        /* null is full attention, missing is nothing: the class would fill in 4096. */
        if (!data_json_kind(root, "sliding_window", &kind) || kind != DATA_JSON_NULL)
            read_dim(root, "sliding_window", DATA_MODEL_MAX_POSITIONS, &window);
        return window;
    }
    if (given || data_json_has(root, "use_sliding_window"))
        (void)data_json_bool(root, "use_sliding_window", &use);
    if (!use) return 0;
    read_dim(root, "sliding_window", DATA_MODEL_MAX_POSITIONS, &window);
    if (!types) (void)data_json_int(root, "max_window_layers", 0, DATA_MODEL_MAX_LAYERS, first);
    return window;
}

static void read_layers(const data_json_object_t *root, data_model_spec_t *spec)
{
    const bool types = data_json_has(root, "layer_types");
    const bool by_type = types && spec->family >= DATA_MODEL_QWEN2;
    int64_t first, count;
    const int64_t window = read_window(root, spec->family, types, &first);

    for (int32_t l = 0; l < spec->num_layers; l++)
        spec->layer_window[l] = l >= first ? window : 0;
    if (!types || !data_json_array(root, "layer_types", &count) || spec->num_layers == 0) return;
    if (count != spec->num_layers) {
        data_json_fault(root, BASE_MSG_DATA_04, "layer_types",
                        "has %" PRId64 " elements, num_hidden_layers is %" PRId32, count,
                        spec->num_layers);
        return;
    }
    for (int32_t l = 0; l < spec->num_layers; l++) {
        const char *word;
        bool slides;

        if (!data_json_array_text(root, "layer_types", l, &word)) return;
        slides = strcmp(word, "sliding_attention") == 0;
        if (!slides && strcmp(word, "full_attention") != 0) {
            data_json_fault(root, BASE_MSG_DATA_05, "layer_types",
                            "layer %" PRId32 " is \"%.40s\"; full_attention and "
                            "sliding_attention are supported",
                            l, word);
            return;
        }
        /* Mistral and Llama do not look at it, so it has to say what they do. */
        if (slides ? window == 0 : !by_type && window != 0) {
            data_json_fault(root, BASE_MSG_DATA_04, "layer_types",
                            "layer %" PRId32 " is \"%.40s\", the other keys give a window of "
                            "%" PRId64 " rows (0: none)",
                            l, word, window);
            return;
        }
        spec->layer_window[l] = slides ? window : 0;
    }
}

/* ==== the rest ==== */

static void read_eos(const data_json_object_t *root, data_model_spec_t *spec)
{
    const char *const key = "eos_token_id";
    const int64_t max = spec->vocab > 0 ? spec->vocab - 1 : DATA_MODEL_MAX_DIM;
    data_json_kind_t kind;
    int64_t count = 1, id;

    if (!data_json_kind(root, key, &kind) || kind == DATA_JSON_NULL) return;
    if (kind == DATA_JSON_ARRAY && !data_json_array(root, key, &count)) return;
    if (count > DATA_MODEL_MAX_EOS) {
        data_json_fault(root, BASE_MSG_DATA_04, key, "has %" PRId64 " elements, at most %d", count,
                        DATA_MODEL_MAX_EOS);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        if (kind == DATA_JSON_ARRAY ? !data_json_array_int(root, key, i, 0, max, &id)
                                    : !data_json_int(root, key, 0, max, &id))
            return;
        spec->eos[spec->num_eos++] = (int32_t)id;
    }
}

static void read_all(const data_json_object_t *root, data_model_spec_t *spec)
{
    int64_t layers;

    data_hf_keys_check(root);
    if (!read_family(root, &spec->family)) return;
    read_dim(root, "num_hidden_layers", DATA_MODEL_MAX_LAYERS, &layers);
    spec->num_layers = (int32_t)layers;
    read_dim(root, "hidden_size", DATA_MODEL_MAX_DIM, &spec->hidden);
    read_dim(root, "intermediate_size", DATA_MODEL_MAX_DIM, &spec->intermediate);
    read_dim(root, "vocab_size", DATA_MODEL_MAX_DIM, &spec->vocab);
    read_dim(root, "max_position_embeddings", DATA_MODEL_MAX_POSITIONS, &spec->max_positions);
    (void)data_json_number(root, "rms_norm_eps", 1e-30, 1.0, &spec->rms_eps);
    read_heads(root, spec);
    read_features(root, spec);
    data_hf_rope_read(root,
                      spec->family == DATA_MODEL_LLAMA && older_than(root, 4, 33) ? 10000.0 : 0.0,
                      &spec->rope);
    read_layers(root, spec);
    read_eos(root, spec);
    if (spec->head_dim > 0) spec->softmax_scale = 1.0 / sqrt((double)spec->head_dim);
}

/* The list that faults go to: the caller's, or one of our own that is finished here. */
static base_status_t finish(base_error_list_t *own, base_status_t st)
{
    if (own->count > 0) st = data_errors_finish(own);
    base_error_list_deinit(own);
    return st;
}

base_status_t data_hf_config_parse(base_ctx_t *ctx, const char *source, const char *text,
                                   size_t bytes, base_error_list_t *errors, data_model_spec_t *spec)
{
    data_model_spec_t found = {.family = DATA_MODEL_NUM_FAMILIES};
    base_error_list_t own, *list = errors != NULL ? errors : &own;
    const size_t before = errors != NULL ? errors->count : 0;
    data_json_t *json;
    data_json_object_t root;
    const char *field;
    base_status_t st;

    base_error_list_init(&own, ctx);
    st = data_json_parse(ctx, source, text, bytes, list, &json);
    if (st < 0) return finish(&own, st);
    root = data_json_root(json);
    read_all(&root, &found);
    /* What no single key shows, such as products that are too large. */
    if (list->count == before && (field = data_model_spec_check(&found)) != NULL)
        data_json_fault(&root, BASE_MSG_DATA_04, NULL,
                        "%s is out of range or contradicts another value", field);
    data_json_close(json);
    if (list->pool.failed) st = BASE_ERR_NOMEM;
    if (st >= 0 && list->count > before) st = BASE_ERR_FORMAT;
    if (st >= 0) *spec = found;
    return finish(&own, st);
}

base_status_t data_hf_config_read(base_ctx_t *ctx, const char *path, base_error_list_t *errors,
                                  data_model_spec_t *spec)
{
    char *text;
    size_t bytes;
    base_status_t st;

    BASE_TRY(base_file_read(ctx, path, DATA_JSON_MAX_BYTES, &text, &bytes));
    st = data_hf_config_parse(ctx, path, text, bytes, errors, spec);
    base_free(ctx, text);
    return st;
}
