#include "data/hf_write_config.h"

#include "base/file.h"
#include "base/json_write.h"
#include "base/memory.h"
#include "data/hf_config.h"
#include "data/json_read.h"

/* layer_types of 512 layers has the most: about 15 KiB. */
#define TEXT_BYTES 65536

/* ==== what is carried ==== */

static void carry_id(const data_json_object_t *root, const char *key, int64_t *id)
{
    data_json_kind_t kind;

    *id = -1;
    if (data_json_kind(root, key, &kind) && kind == DATA_JSON_NUMBER)
        (void)data_json_int(root, key, 0, DATA_MODEL_MAX_DIM, id);
}

base_status_t data_hf_carried_read(base_ctx_t *ctx, const char *path, data_hf_carried_t *carried)
{
    const char *const range = "initializer_range";
    data_hf_carried_t found = {.bos = -1, .pad = -1};
    base_error_list_t errors;
    data_json_object_t root;
    data_json_kind_t kind;
    data_json_t *json;
    base_status_t st;

    if (path == NULL) {
        *carried = found;
        return BASE_OK;
    }
    base_error_list_init(&errors, ctx);
    st = data_json_read(ctx, path, DATA_JSON_MAX_BYTES, &errors, &json);
    if (st >= 0) {
        root = data_json_root(json);
        carry_id(&root, "bos_token_id", &found.bos);
        carry_id(&root, "pad_token_id", &found.pad);
        if (data_json_kind(&root, range, &kind) && kind == DATA_JSON_NUMBER)
            (void)data_json_number(&root, range, 0.0, 1e3, &found.initializer_range);
        data_json_close(json);
        *carried = found;
    } else if (errors.count > 0) {
        st = data_errors_finish(&errors);
    }
    base_error_list_deinit(&errors);
    return st;
}

/* ==== the text ==== */

/* With a point: transformers warns of a factor that is written 4. */
static void put_double(base_json_t *j, const char *key, double value)
{
    base_json_key(j, key);
    base_json_real(j, value);
}

static void put_null(base_json_t *j, const char *key)
{
    base_json_key(j, key);
    base_json_null(j);
}

static void put_rope(base_json_t *j, const data_rope_t *rope)
{
    static const char *const word[] = {"default", "linear", "llama3", "yarn"};

    put_double(j, "rope_theta", rope->theta);
    if (rope->kind == DATA_ROPE_PLAIN) {
        put_null(j, "rope_scaling");
        return;
    }
    base_json_key(j, "rope_scaling");
    base_json_begin_object(j);
    base_json_put_string(j, "rope_type", word[rope->kind]);
    put_double(j, "factor", rope->factor);
    if (rope->kind != DATA_ROPE_LINEAR)
        base_json_put_int(j, "original_max_position_embeddings", rope->original_max_positions);
    if (rope->kind == DATA_ROPE_LLAMA3) {
        put_double(j, "low_freq_factor", rope->low_freq_factor);
        put_double(j, "high_freq_factor", rope->high_freq_factor);
    }
    if (rope->kind == DATA_ROPE_YARN) {
        put_double(j, "attention_factor", rope->attention_factor);
        put_double(j, "beta_fast", rope->beta_fast);
        put_double(j, "beta_slow", rope->beta_slow);
        /* A younger key: written only where it says something. */
        if (!rope->truncate) base_json_put_bool(j, "truncate", false);
    }
    base_json_end(j);
}

/* Llama has no window, Mistral one for all layers, Qwen one by layer. */
static void put_windows(base_json_t *j, const data_model_spec_t *spec)
{
    int32_t first = 0;

    if (spec->family == DATA_MODEL_LLAMA) return;
    while (first < spec->num_layers && spec->layer_window[first] == 0)
        first++;
    if (first == spec->num_layers)
        put_null(j, "sliding_window");
    else
        base_json_put_int(j, "sliding_window", spec->layer_window[first]);
    if (spec->family == DATA_MODEL_MISTRAL) return;
    base_json_put_bool(j, "use_sliding_window", first < spec->num_layers);
    base_json_put_int(j, "max_window_layers", first);
    if (first == spec->num_layers) return;
    base_json_key(j, "layer_types");
    base_json_begin_array(j);
    for (int32_t l = 0; l < spec->num_layers; l++)
        base_json_string(j, spec->layer_window[l] > 0 ? "sliding_attention" : "full_attention");
    base_json_end(j);
}

static void put_tokens(base_json_t *j, const data_model_spec_t *spec,
                       const data_hf_carried_t *carried)
{
    /* null, where nothing is known: the classes would fill in ids of their own. */
    if (carried->bos >= 0)
        base_json_put_int(j, "bos_token_id", carried->bos);
    else
        put_null(j, "bos_token_id");
    base_json_key(j, "eos_token_id");
    if (spec->num_eos == 0)
        base_json_null(j);
    else if (spec->num_eos == 1)
        base_json_int(j, spec->eos[0]);
    else {
        base_json_begin_array(j);
        for (int32_t i = 0; i < spec->num_eos; i++)
            base_json_int(j, spec->eos[i]);
        base_json_end(j);
    }
    if (carried->pad >= 0) base_json_put_int(j, "pad_token_id", carried->pad);
}

static void put_config(base_json_t *j, const data_model_spec_t *spec, data_dtype_t dtype,
                       const data_hf_carried_t *carried)
{
    const data_model_family_t family = spec->family;

    base_json_begin_object(j);
    base_json_key(j, "architectures");
    base_json_begin_array(j);
    base_json_string(j, data_model_family_architecture(family));
    base_json_end(j);
    base_json_put_string(j, "model_type", data_model_family_name(family));
    base_json_put_int(j, "hidden_size", spec->hidden);
    base_json_put_int(j, "intermediate_size", spec->intermediate);
    base_json_put_int(j, "num_hidden_layers", spec->num_layers);
    base_json_put_int(j, "num_attention_heads", spec->num_q_heads);
    base_json_put_int(j, "num_key_value_heads", spec->num_kv_heads);
    base_json_put_int(j, "head_dim", spec->head_dim);
    base_json_put_int(j, "vocab_size", spec->vocab);
    base_json_put_int(j, "max_position_embeddings", spec->max_positions);
    put_double(j, "rms_norm_eps", spec->rms_eps);
    base_json_put_string(j, "hidden_act", "silu");
    if (family == DATA_MODEL_LLAMA || family == DATA_MODEL_QWEN3)
        base_json_put_bool(j, "attention_bias", spec->qkv_bias);
    if (family == DATA_MODEL_LLAMA) base_json_put_bool(j, "mlp_bias", spec->mlp_bias);
    put_double(j, "attention_dropout", 0.0);
    put_rope(j, &spec->rope);
    put_windows(j, spec);
    base_json_put_bool(j, "tie_word_embeddings", spec->tied);
    put_tokens(j, spec, carried);
    if (carried->initializer_range > 0.0)
        put_double(j, "initializer_range", carried->initializer_range);
    base_json_put_string(j, "torch_dtype", dtype == DATA_BF16 ? "bfloat16" : "float32");
    base_json_put_bool(j, "use_cache", true);
    base_json_end(j);
    base_json_newline(j);
}

/* ==== writing ==== */

bool data_hf_config_same(const data_model_spec_t *a, const data_model_spec_t *b)
{
    if (data_model_spec_hash(a) != data_model_spec_hash(b)) return false;
    if (a->max_positions != b->max_positions || a->num_eos != b->num_eos) return false;
    for (int32_t i = 0; i < a->num_eos; i++)
        if (a->eos[i] != b->eos[i]) return false;
    return true;
}

/* Families fix what their config.json does not say (Qwen2 has biases, Llama no window); reading
 * the text back compares all of that at once. */
static base_status_t check_text(base_ctx_t *ctx, const char *path, const data_model_spec_t *spec,
                                const char *text, size_t bytes)
{
    data_model_spec_t found;
    base_error_list_t faults;
    base_status_t st;

    base_error_list_init(&faults, ctx);
    st = data_hf_config_parse(ctx, path, text, bytes, &faults, &found);
    if (st == BASE_ERR_FORMAT || (st >= 0 && !data_hf_config_same(spec, &found)))
        st = BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                       "%s: config.json of a %s model cannot express this spec%s%s", path,
                       data_model_family_name(spec->family), faults.count > 0 ? ": " : "",
                       faults.count > 0 ? faults.items[0].text : "");
    base_error_list_deinit(&faults);
    return st;
}

base_status_t data_hf_config_write(base_ctx_t *ctx, const char *path, const data_model_spec_t *spec,
                                   data_dtype_t dtype, const data_hf_carried_t *carried)
{
    const char *field = data_model_spec_check(spec);
    base_json_t j;
    base_status_t st;
    char *text;

    if (field != NULL || (dtype != DATA_F32 && dtype != DATA_BF16))
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s: %s is out of range", path,
                         field != NULL ? field : "dtype");
    text = base_alloc(ctx, TEXT_BYTES, path);
    if (text == NULL) return BASE_ERR_NOMEM;
    base_json_to_buffer(&j, text, TEXT_BYTES);
    base_json_set_indent(&j, 2);
    base_json_refuse_nonfinite(&j);
    put_config(&j, spec, dtype, carried);
    BASE_TRY_GOTO(base_json_finish(&j, ctx, path), st, out_free_text);
    BASE_TRY_GOTO(check_text(ctx, path, spec, text, j.bytes), st, out_free_text);
    st = base_file_write(ctx, path, text, j.bytes);
out_free_text:
    base_free(ctx, text);
    return st;
}
