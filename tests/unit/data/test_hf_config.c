#include "tests/support/ctx_fixture.h"

#include "base/file.h"
#include "base/philox.h"
#include "data/hf_config.h"
#include "data/json_read.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

/* As released; numbers of the real checkpoints. */
static const char llama31[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,"
    "\"bos_token_id\":128000,\"eos_token_id\":[128001,128008,128009],\"hidden_act\":\"silu\","
    "\"hidden_size\":4096,\"initializer_range\":0.02,\"intermediate_size\":14336,"
    "\"max_position_embeddings\":131072,\"mlp_bias\":false,\"model_type\":\"llama\","
    "\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":8,"
    "\"pretraining_tp\":1,\"rms_norm_eps\":1e-05,\"rope_scaling\":{\"factor\":8.0,"
    "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192,"
    "\"rope_type\":\"llama3\"},\"rope_theta\":500000.0,\"tie_word_embeddings\":false,"
    "\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4.43.0\",\"use_cache\":true,"
    "\"vocab_size\":128256}";
static const char llama2[] =
    "{\"_name_or_path\":\"x\",\"architectures\":[\"LlamaForCausalLM\"],\"bos_token_id\":1,"
    "\"eos_token_id\":2,\"hidden_act\":\"silu\",\"hidden_size\":4096,\"initializer_range\":0.02,"
    "\"intermediate_size\":11008,\"max_position_embeddings\":4096,\"model_type\":\"llama\","
    "\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":32,"
    "\"pretraining_tp\":1,\"rms_norm_eps\":1e-05,\"rope_scaling\":null,"
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"float16\","
    "\"transformers_version\":\"4.31.0.dev0\",\"use_cache\":true,\"vocab_size\":32000}";
static const char mistral01[] =
    "{\"architectures\":[\"MistralForCausalLM\"],\"bos_token_id\":1,\"eos_token_id\":2,"
    "\"hidden_act\":\"silu\",\"hidden_size\":4096,\"initializer_range\":0.02,"
    "\"intermediate_size\":14336,\"max_position_embeddings\":32768,\"model_type\":\"mistral\","
    "\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":8,"
    "\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"sliding_window\":4096,"
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\","
    "\"transformers_version\":\"4.34.0.dev0\",\"use_cache\":true,\"vocab_size\":32000}";
static const char qwen25[] =
    "{\"architectures\":[\"Qwen2ForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":151643,"
    "\"eos_token_id\":151645,\"hidden_act\":\"silu\",\"hidden_size\":896,"
    "\"initializer_range\":0.02,\"intermediate_size\":4864,\"max_position_embeddings\":32768,"
    "\"max_window_layers\":21,\"model_type\":\"qwen2\",\"num_attention_heads\":14,"
    "\"num_hidden_layers\":24,\"num_key_value_heads\":2,\"rms_norm_eps\":1e-06,"
    "\"rope_theta\":1000000.0,\"sliding_window\":32768,\"tie_word_embeddings\":true,"
    "\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4.43.1\",\"use_cache\":true,"
    "\"use_sliding_window\":false,\"vocab_size\":151936}";
/* transformers 5 */
static const char qwen3[] =
    "{\"architectures\":[\"Qwen3ForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,"
    "\"bos_token_id\":151643,\"dtype\":\"bfloat16\",\"eos_token_id\":151645,\"head_dim\":128,"
    "\"hidden_act\":\"silu\",\"hidden_size\":1024,\"initializer_range\":0.02,"
    "\"intermediate_size\":3072,\"layer_types\":[\"full_attention\",\"sliding_attention\"],"
    "\"max_position_embeddings\":40960,\"max_window_layers\":28,\"model_type\":\"qwen3\","
    "\"num_attention_heads\":16,\"num_hidden_layers\":2,\"num_key_value_heads\":8,"
    "\"pad_token_id\":null,\"rms_norm_eps\":1e-06,\"rope_parameters\":{\"rope_theta\":1000000,"
    "\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":32768},"
    "\"sliding_window\":512,\"tie_word_embeddings\":true,\"transformers_version\":\"5.0.0\","
    "\"use_cache\":true,\"use_sliding_window\":true,\"vocab_size\":151936}";

#define TEXT_BYTES 4096

/* The text with one piece of it replaced. */
static void edit(char *text, const char *base, const char *from, const char *to)
{
    const char *at = strstr(base, from);

    if (at == NULL) fail_msg("%s is not in the fixture", from);
    (void)snprintf(text, TEXT_BYTES, "%.*s%s%s", (int)(at - base), base, to, at + strlen(from));
}

static data_model_spec_t good(const char *text)
{
    base_ctx_t *ctx = fixture_ctx();
    data_model_spec_t spec;
    base_error_t error;

    if (data_hf_config_parse(ctx, "config.json", text, strlen(text), NULL, &spec) != BASE_OK)
        fail_msg("%s", base_ctx_error(ctx, &error) ? error.text : "no text");
    assert_null(data_model_spec_check(&spec));
    fixture_ctx_end(ctx);
    return spec;
}

static data_model_spec_t good_edit(const char *base, const char *from, const char *to)
{
    char text[TEXT_BYTES];

    edit(text, base, from, to);
    return good(text);
}

static void bad(const char *base, const char *from, const char *to, const char *id,
                const char *piece)
{
    base_ctx_t *ctx = fixture_ctx();
    char text[TEXT_BYTES];
    data_model_spec_t spec = {.num_layers = -7};
    base_error_list_t errors;
    bool found = false;

    edit(text, base, from, to);
    base_error_list_init(&errors, ctx);
    assert_int_equal(data_hf_config_parse(ctx, "c.json", text, strlen(text), &errors, &spec),
                     BASE_ERR_FORMAT);
    assert_int_equal(spec.num_layers, -7);
    assert_true(errors.count > 0);
    for (size_t i = 0; i < errors.count; i++)
        found = found || (strcmp(base_message_id(errors.items[i].message), id) == 0 &&
                          strstr(errors.items[i].text, piece) != NULL);
    if (!found) fail_msg("%s \"%s\" is not reported, but %s", id, piece, errors.items[0].text);
    base_error_list_deinit(&errors);
    fixture_ctx_end(ctx);
}

static void llama_files(void **state)
{
    data_model_spec_t s = good(llama31);
    double inv[64];

    (void)state;
    assert_int_equal(s.family, DATA_MODEL_LLAMA);
    assert_int_equal(s.num_layers, 32);
    assert_int_equal(s.head_dim, 128);
    assert_int_equal(s.num_kv_heads, 8);
    assert_int_equal(s.num_eos, 3);
    assert_int_equal(s.eos[2], 128009);
    assert_true(s.rms_eps == 1e-5 && !s.tied && !s.qkv_bias && !s.o_bias && !s.mlp_bias);
    assert_false(s.qk_norm);
    assert_true(fabs(s.softmax_scale - 0.08838834764831845) < 1e-16);
    assert_int_equal(s.rope.kind, DATA_ROPE_LLAMA3);
    assert_true(data_model_spec_rope(&s, inv) == 1.0);
    assert_true(fabs(inv[29] - 0.00216657076) < 1e-11);
    assert_int_equal(data_model_spec_parameters(&s), INT64_C(8030261248)); /* as published */
    assert_int_equal(data_model_spec_num_tensors(&s), 291);

    s = good(llama2); /* written before rope_theta was a key */
    assert_true(s.rope.theta == 10000.0);
    assert_int_equal(s.rope.kind, DATA_ROPE_PLAIN);
    assert_int_equal(s.num_eos, 1);
    assert_int_equal(data_model_spec_parameters(&s), INT64_C(6738415616));
    bad(llama2, "4.31.0.dev0", "4.33.0", "DATA-03", "\"rope_theta\": is missing");
    bad(llama2, "\"num_key_value_heads\":32,", "", "DATA-03", "\"num_key_value_heads\"");
    s = good_edit(llama31, "\"attention_bias\":false", "\"attention_bias\":true");
    assert_true(s.qkv_bias && s.o_bias && !s.mlp_bias);
    s = good_edit(llama31, "\"mlp_bias\":false", "\"mlp_bias\":true");
    assert_true(!s.qkv_bias && s.mlp_bias);
    s = good_edit(llama31, "\"mlp_bias\":false", "\"head_dim\":64");
    assert_int_equal(s.head_dim, 64);
    s = good_edit(llama31, "\"rope_type\":\"llama3\"",
                  "\"type\":\"llama3\",\"rope_type\":\"llama3\"");
    assert_int_equal(s.rope.kind, DATA_ROPE_LLAMA3);
}

static void mistral_files(void **state)
{
    data_model_spec_t s = good(mistral01);

    (void)state;
    assert_int_equal(s.family, DATA_MODEL_MISTRAL);
    assert_int_equal(s.layer_window[0], 4096);
    assert_int_equal(s.layer_window[31], 4096);
    s = good_edit(mistral01, "\"sliding_window\":4096", "\"sliding_window\":null");
    assert_int_equal(s.layer_window[31], 0);
    bad(mistral01, "\"sliding_window\":4096,", "", "DATA-03", "\"sliding_window\": is missing");
    bad(mistral01, "\"rope_theta\":10000.0,", "", "DATA-03", "\"rope_theta\"");
    bad(mistral01, "\"num_key_value_heads\":8,", "", "DATA-03", "\"num_key_value_heads\"");
    bad(mistral01, "\"use_cache\"", "\"attention_bias\":true,\"use_cache\"", "DATA-05",
        "\"attention_bias\": is true; models of this type have false");
}

static void qwen_files(void **state)
{
    data_model_spec_t s = good(qwen25);
    double inv[64];

    (void)state;
    assert_int_equal(s.family, DATA_MODEL_QWEN2);
    assert_true(s.qkv_bias && !s.o_bias && s.tied && !s.qk_norm);
    assert_int_equal(s.head_dim, 64);
    assert_int_equal(s.layer_window[23], 0);
    assert_int_equal(data_model_spec_parameters(&s), INT64_C(494032768)); /* as published */
    s = good_edit(qwen25, "\"use_sliding_window\":false", "\"use_sliding_window\":true");
    assert_int_equal(s.layer_window[20], 0);
    assert_int_equal(s.layer_window[21], 32768);
    bad(qwen25, "\"use_sliding_window\":false,", "", "DATA-03", "\"use_sliding_window\"");
    bad(qwen25, "\"use_cache\"", "\"attention_bias\":false,\"use_cache\"", "DATA-05",
        "\"attention_bias\": is false");

    s = good(qwen3);
    assert_true(s.qk_norm && s.tied && !s.qkv_bias);
    assert_int_equal(s.head_dim, 128);
    assert_int_equal(s.num_q_heads * s.head_dim, 2048);
    assert_int_equal(s.layer_window[0], 0);
    assert_int_equal(s.layer_window[1], 512);
    assert_int_equal(s.rope.kind, DATA_ROPE_YARN);
    assert_true(s.rope.theta == 1e6 && s.rope.beta_fast == 32.0 && s.rope.beta_slow == 1.0);
    assert_true(s.rope.truncate);
    assert_true(fabs(data_model_spec_rope(&s, inv) - 1.1386294361119891) < 1e-15);
    bad(qwen3, "\"head_dim\":128,", "", "DATA-03", "\"head_dim\"");
    bad(qwen3, "\"use_sliding_window\":true", "\"use_sliding_window\":false", "DATA-04",
        "\"layer_types\": layer 1 is \"sliding_attention\"");
    bad(qwen3, ",\"sliding_attention\"", "", "DATA-04", "has 1 elements, num_hidden_layers is 2");
    bad(qwen3, "\"sliding_attention\"", "\"chunked_attention\"", "DATA-05",
        "layer 1 is \"chunked_attention\"");
}

static void rope_spellings(void **state)
{
    static const char v5[] = "\"rope_theta\":1000000,\"rope_type\":\"yarn\",\"factor\":4.0,"
                             "\"original_max_position_embeddings\":32768";
    data_model_spec_t s = good_edit(qwen3, v5, "\"rope_theta\":7e5,\"rope_type\":\"default\"");

    (void)state;
    assert_int_equal(s.rope.kind, DATA_ROPE_PLAIN);
    assert_true(s.rope.theta == 7e5);
    s = good_edit(qwen3, v5, "\"rope_theta\":7e5,\"rope_type\":\"linear\",\"factor\":2");
    assert_int_equal(s.rope.kind, DATA_ROPE_LINEAR);
    assert_true(s.rope.factor == 2.0);
    s = good_edit(qwen3, "\"factor\":4.0",
                  "\"factor\":4.0,\"attention_factor\":1.5,\"beta_fast\":16,"
                  "\"beta_slow\":2,\"truncate\":false");
    assert_true(s.rope.attention_factor == 1.5 && s.rope.beta_fast == 16.0 &&
                s.rope.beta_slow == 2.0 && !s.rope.truncate);
    bad(qwen3, "\"rope_theta\":1000000,", "", "DATA-03", "\"rope_theta\"");
    bad(qwen3, "\"vocab_size\"", "\"rope_theta\":5,\"vocab_size\"", "DATA-04",
        "\"rope_theta\": is 5 and \"rope_parameters.rope_theta\" is 1000000");
    bad(qwen3, "\"vocab_size\"", "\"rope_scaling\":{},\"vocab_size\"", "DATA-04",
        "\"rope_scaling\": is given besides");
    bad(qwen3, ",\"original_max_position_embeddings\":32768", "", "DATA-03",
        "\"rope_parameters.original_max_position_embeddings\": is missing");
    bad(qwen3, "\"factor\":4.0", "\"factor\":4.0,\"mscale\":1.0", "DATA-05",
        "\"rope_parameters.mscale\": is no key of rope type yarn");
    bad(qwen3, "\"factor\":4.0", "\"factor\":4.0,\"partial_rotary_factor\":0.5", "DATA-05",
        "is 0.5, only 1");
    bad(qwen3, "\"rope_type\":\"yarn\",", "", "DATA-03", "\"rope_parameters.rope_type\"");
    bad(qwen3, "\"yarn\"", "\"longrope\"", "DATA-05",
        "\"rope_parameters.rope_type\": is \"longrope\"");
    bad(qwen3, "\"rope_type\"", "\"type\":\"linear\",\"rope_type\"", "DATA-04",
        "is \"linear\" and \"rope_type\" is \"yarn\"");
    bad(llama31, "\"high_freq_factor\":4.0", "\"high_freq_factor\":1.0", "DATA-04",
        "\"rope_scaling.high_freq_factor\": is 1, not above low_freq_factor 1");
    bad(llama31, "\"factor\":8.0", "\"factor\":0.5", "DATA-04", "\"rope_scaling.factor\"");
    bad(llama31, "\"rope_scaling\":{", "\"rope_scaling\":[],\"x\":{", "DATA-04",
        "\"rope_scaling\": is an array");
}

static void unsupported_features_are_named(void **state)
{
    static const struct {
        const char *text, *piece;
    } cases[] = {
        {"\"attention_dropout\":0.1", "\"attention_dropout\": is not supported; only 0 is allowed"},
        {"\"quantization_config\":{\"bits\":4}", "\"quantization_config\""},
        {"\"num_experts\":8", "\"num_experts\""},
        {"\"num_local_experts\":8", "\"num_local_experts\""},
        {"\"attention_multiplier\":0.5", "\"attention_multiplier\""},
        {"\"logits_scaling\":8.0", "\"logits_scaling\": is not supported; only 1 is allowed"},
        {"\"final_logit_softcapping\":30.0", "\"final_logit_softcapping\""},
        {"\"partial_rotary_factor\":0.5", "\"partial_rotary_factor\""},
        {"\"auto_map\":{\"AutoModel\":\"x.Y\"}", "\"auto_map\""},
        {"\"pruned_heads\":{\"1\":[2]}", "\"pruned_heads\""},
        {"\"use_mrope\":true", "\"use_mrope\": is not supported; only false is allowed"},
        {"\"sliding_window\":4096", "\"sliding_window\": llama models have none"},
        {"\"some_new_scale\":2.0", "\"some_new_scale\": is not known"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char with[200];

        (void)snprintf(with, sizeof with, "%s,\"pretraining_tp\":1", cases[i].text);
        if (i == 0)
            bad(llama31, "\"attention_dropout\":0.0", cases[i].text, "DATA-05", cases[i].piece);
        else
            bad(llama31, "\"pretraining_tp\":1", with, "DATA-05", cases[i].piece);
    }
    (void)good_edit(llama31, "\"pretraining_tp\":1",
                    "\"some_new_scale\":null,\"quantization_config\":null,\"use_mrope\":false,"
                    "\"logits_scaling\":1,\"pruned_heads\":{},\"_x\":{\"y\":1}");
    bad(llama31, "\"silu\"", "\"gelu\"", "DATA-05", "\"hidden_act\": is \"gelu\"");
    bad(llama31, "\"model_type\":\"llama\"", "\"model_type\":\"gemma2\"", "DATA-05",
        "\"model_type\": is \"gemma2\"; llama, mistral");
    bad(llama31, "LlamaForCausalLM", "LlamaForSequenceClassification", "DATA-05",
        "\"architectures\": is \"LlamaForSequenceClassification\"");
}

/* Without any of these keys the file is refused: nothing is filled in. */
static void every_missing_key_is_an_error(void **state)
{
    static const char *const keys[] = {
        "hidden_size",         "intermediate_size",   "max_position_embeddings",
        "num_attention_heads", "num_hidden_layers",   "rms_norm_eps",
        "vocab_size",          "num_key_value_heads", "rope_theta",
        "hidden_act",          "tie_word_embeddings", "model_type",
    };

    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char from[64], to[64], piece[64];

        (void)snprintf(from, sizeof from, "\"%s\":", keys[i]);
        (void)snprintf(to, sizeof to, "\"_%s\":", keys[i]);
        (void)snprintf(piece, sizeof piece, "\"%s\": is missing", keys[i]);
        bad(llama31, from, to, "DATA-03", piece);
    }
}

static void values_are_checked(void **state)
{
    (void)state;
    bad(llama31, "\"hidden_size\":4096", "\"hidden_size\":4096.0", "DATA-04", "an integer");
    bad(llama31, "\"hidden_size\":4096", "\"hidden_size\":4100", "DATA-04", "\"head_dim\"");
    bad(llama31, "\"num_key_value_heads\":8", "\"num_key_value_heads\":7", "DATA-04",
        "is 7, which does not divide num_attention_heads 32");
    bad(llama31, "\"num_hidden_layers\":32", "\"num_hidden_layers\":0", "DATA-04",
        "is 0, 1 to 512 is allowed");
    bad(llama31, "1e-05", "\"1e-05\"", "DATA-04", "\"rms_norm_eps\": is a string");
    bad(llama31, "128009]", "128256]", "DATA-04", "\"eos_token_id[2]\": is 128256");
    bad(llama31, "\"tie_word_embeddings\":false", "\"tie_word_embeddings\":0", "DATA-04",
        "true or false");
    bad(llama31, "\"mlp_bias\":false", "\"head_dim\":33", "DATA-04", "an odd number");
    bad(llama31, "\"num_attention_heads\":32", "\"num_attention_heads\":16777216,\"head_dim\":128",
        "DATA-04", "num_q_heads is out of range");
}

static void all_faults_in_one_pass(void **state)
{
    static const char text[] = "{\"model_type\":\"mistral\",\"hidden_size\":\"x\",\"zap\":1}";
    base_ctx_t *ctx = fixture_ctx();
    base_error_list_t errors;
    data_model_spec_t spec;

    (void)state;
    base_error_list_init(&errors, ctx);
    assert_int_equal(data_hf_config_parse(ctx, "c.json", text, strlen(text), &errors, &spec),
                     BASE_ERR_FORMAT);
    assert_int_equal(errors.count, 13);
    assert_string_equal(errors.items[0].text,
                        "c.json: \"zap\": is not known; it may change what the model computes");
    assert_int_equal(data_errors_finish(&errors), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-05", "\"zap\"");
    base_error_list_deinit(&errors);
    assert_int_equal(data_hf_config_parse(ctx, "c.json", "{", 1, NULL, &spec), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-02", "c.json:1:");
    assert_int_equal(base_file_write(ctx, "hf_config.json", qwen25, strlen(qwen25)), BASE_OK);
    assert_int_equal(data_hf_config_read(ctx, "hf_config.json", NULL, &spec), BASE_OK);
    assert_int_equal(spec.vocab, 151936);
    assert_int_equal(unlink("hf_config.json"), 0);
    assert_int_equal(data_hf_config_read(ctx, "hf_config.json", NULL, &spec), BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-01", "hf_config.json");
    fixture_ctx_end(ctx);
}

/* Seeded changes of good files, by bytes and by whole values: a complete spec or an id. */
static void mutations_are_read_or_refused(void **state)
{
    static const char *const files[] = {llama31, llama2, mistral01, qwen25, qwen3};
    static const char *const values[] = {
        "null", "true", "-1",   "0",    "1e308",  "9223372036854775807",      "0.5",
        "[]",   "{}",   "\"\"", "[[]]", "1e-320", "{\"rope_type\":\"yarn\"}",
    };
    const base_philox_key_t key = base_philox_key(21);
    base_ctx_t *ctx = fixture_ctx();
    int read = 0, refused = 0;

    (void)state;
    for (uint32_t round = 0; round < 20000; round++) {
        const base_philox_t r = base_philox(key, round, 0, 0, 0);
        const char *file = files[r.word[0] % 5];
        char text[TEXT_BYTES];
        size_t bytes = strlen(file);
        data_model_spec_t spec;
        base_status_t st;
        base_error_t error;

        memcpy(text, file, bytes + 1);
        if (r.word[1] % 2 == 0) {
            const size_t at = r.word[2] % bytes;

            text[at] = r.word[1] % 4 == 0 ? (char)(r.word[3] & 0x7f) : file[r.word[3] % bytes];
        } else {
            /* The value behind a colon gives way to another one. */
            const char *colon = strchr(file + r.word[2] % bytes, ':');
            const char *end = colon == NULL ? NULL : strpbrk(colon, ",}");

            if (end == NULL) continue;
            (void)snprintf(text, sizeof text, "%.*s%s%s", (int)(colon + 1 - file), file,
                           values[r.word[3] % (sizeof values / sizeof *values)], end);
            bytes = strlen(text);
        }
        st = data_hf_config_parse(ctx, "c.json", text, bytes, NULL, &spec);
        if (st == BASE_OK) {
            double inv[DATA_MODEL_MAX_HEAD_DIM / 2];

            assert_null(data_model_spec_check(&spec));
            assert_true(isfinite(data_model_spec_rope(&spec, inv)));
            for (int32_t i = 0; i < spec.head_dim / 2; i++)
                assert_true(isfinite(inv[i]) && inv[i] >= 0.0);
            assert_true(data_model_spec_parameters(&spec) > 0);
            read++;
            continue;
        }
        assert_int_equal(st, BASE_ERR_FORMAT);
        assert_true(base_ctx_error(ctx, &error));
        assert_memory_equal(base_message_id(error.message), "DATA-0", 6);
        base_ctx_clear_error(ctx);
        refused++;
    }
    assert_true(read > 1000 && refused > 1000);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_files),
        cmocka_unit_test(mistral_files),
        cmocka_unit_test(qwen_files),
        cmocka_unit_test(rope_spellings),
        cmocka_unit_test(unsupported_features_are_named),
        cmocka_unit_test(every_missing_key_is_an_error),
        cmocka_unit_test(values_are_checked),
        cmocka_unit_test(all_faults_in_one_pass),
        cmocka_unit_test(mutations_are_read_or_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
