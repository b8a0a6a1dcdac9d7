#include "tests/support/ctx_fixture.h"

#include "data/model_spec.h"

#include <math.h>

/* A small model with every switch on. */
static data_model_spec_t full_spec(void)
{
    return (data_model_spec_t){
        .family = DATA_MODEL_QWEN3,
        .num_layers = 3,
        .hidden = 48,
        .intermediate = 80,
        .vocab = 100,
        .num_q_heads = 4,
        .num_kv_heads = 2,
        .head_dim = 16,
        .max_positions = 1024,
        .rms_eps = 1e-6,
        .softmax_scale = 0.25,
        .rope = {.kind = DATA_ROPE_PLAIN, .theta = 1e4},
        .qkv_bias = true,
        .o_bias = true,
        .mlp_bias = true,
        .qk_norm = true,
        .layer_window = {0, 64, 0},
        .num_eos = 1,
        .eos = {7},
    };
}

static data_model_spec_t llama31(void)
{
    data_model_spec_t spec = full_spec();

    spec.head_dim = 128;
    spec.rope = (data_rope_t){.kind = DATA_ROPE_LLAMA3,
                              .theta = 5e5,
                              .factor = 8.0,
                              .original_max_positions = 8192,
                              .low_freq_factor = 1.0,
                              .high_freq_factor = 4.0};
    return spec;
}

/* Nine digits are known: half a unit of the last one is at most 5e-9 of the value. */
static void nearly(double found, double wanted)
{
    if (fabs(found - wanted) > 5.1e-9 * fabs(wanted)) fail_msg("%.12g, wanted %.9g", found, wanted);
}

static void llama3_frequencies_are_those_of_the_released_code(void **state)
{
    const data_model_spec_t spec = llama31();
    double inv[64], plain[64];
    data_model_spec_t without = spec;

    (void)state;
    without.rope.kind = DATA_ROPE_PLAIN;
    assert_true(data_model_spec_rope(&spec, inv) == 1.0);
    assert_true(data_model_spec_rope(&without, plain) == 1.0);
    nearly(inv[28], 0.00321144599);
    nearly(inv[29], 0.00216657076);
    nearly(inv[32], 0.000524846161);
    nearly(inv[34], 0.000178507813);
    nearly(inv[35], 9.55621235e-05);
    nearly(inv[63], 3.06892599e-07);
    for (int i = 0; i < 64; i++) {
        assert_true(i > 28 || inv[i] == plain[i]);
        assert_true(i < 35 || inv[i] == plain[i] / 8.0);
        assert_true(i < 29 || i > 34 || (inv[i] < plain[i] && inv[i] > plain[i] / 8.0));
    }
}

static void plain_and_linear_frequencies(void **state)
{
    data_model_spec_t spec = full_spec();
    double inv[8];

    (void)state;
    assert_true(data_model_spec_rope(&spec, inv) == 1.0);
    assert_true(inv[0] == 1.0);
    nearly(inv[4], 0.01);
    nearly(inv[7], 3.16227766e-4); /* 10^-3.5 */
    spec.rope.kind = DATA_ROPE_LINEAR;
    spec.rope.factor = 4.0;
    assert_true(data_model_spec_rope(&spec, inv) == 1.0);
    assert_true(inv[0] == 0.25);
    nearly(inv[4], 0.0025);
}

/* Qwen2.5 with its documented extension: theta 1e6, d 128, factor 4, original 32768. The ramp runs
 * from floor(128 ln(32768/(32 2 pi)) / (2 ln 1e6)) = floor(23.59) = 23 to
 * ceil(128 ln(32768/(2 pi)) / (2 ln 1e6)) = ceil(39.65) = 40. */
static void yarn_frequencies(void **state)
{
    data_model_spec_t spec = llama31();
    double inv[64], factor;

    (void)state;
    spec.rope = (data_rope_t){.kind = DATA_ROPE_YARN,
                              .theta = 1e6,
                              .factor = 4.0,
                              .original_max_positions = 32768,
                              .beta_fast = 32.0,
                              .beta_slow = 1.0,
                              .attention_factor = data_rope_yarn_attention_factor(4.0),
                              .truncate = true};
    factor = data_model_spec_rope(&spec, inv);
    nearly(factor, 1.13862943611);
    for (int i = 0; i < 64; i++) {
        const double plain = pow(1e6, -2.0 * i / 128.0);
        const double ramp = i <= 23 ? 0.0 : i >= 40 ? 1.0 : (i - 23) / 17.0;

        if (fabs(inv[i] - plain * (1.0 - ramp * 0.75)) > 1e-15 * plain)
            fail_msg("%d: %.17g", i, inv[i]);
    }
    spec.rope.truncate = false;
    (void)data_model_spec_rope(&spec, inv);
    assert_true(inv[23] == pow(1e6, -46.0 / 128.0)); /* 23 lies before the ramp's start, 23.59 */
    assert_true(inv[40] < 0.2501 * pow(1e6, -80.0 / 128.0));
    assert_true(inv[39] < pow(1e6, -78.0 / 128.0) && inv[39] > 0.25 * pow(1e6, -78.0 / 128.0));
    assert_true(data_rope_yarn_attention_factor(1.0) == 1.0);

    /* The end of the ramp is at most the last dimension: floor(5.65) = 5 to min(18, 16 - 1). */
    spec.head_dim = 16;
    spec.rope.theta = 10.0;
    spec.rope.original_max_positions = 1024;
    spec.rope.truncate = true;
    (void)data_model_spec_rope(&spec, inv);
    nearly(inv[5], pow(10.0, -10.0 / 16.0));
    nearly(inv[7], pow(10.0, -14.0 / 16.0) * (1.0 - 0.2 * 0.75));
}

static int64_t find(const data_model_spec_t *spec, const char *name, data_model_tensor_t *t)
{
    for (int64_t i = 0; i < data_model_spec_num_tensors(spec); i++) {
        data_model_spec_tensor(spec, i, t);
        if (strcmp(t->name, name) == 0) return i;
    }
    return -1;
}

static void expect_tensor(const data_model_spec_t *spec, const char *name, int64_t rows,
                          int64_t cols)
{
    data_model_tensor_t t;

    if (find(spec, name, &t) < 0) fail_msg("%s is not in the list", name);
    assert_int_equal(t.shape[0], rows);
    assert_int_equal(t.rank, cols == 0 ? 1 : 2);
    assert_int_equal(t.shape[1], cols);
}

static void tensors_have_names_and_shapes(void **state)
{
    data_model_spec_t spec = full_spec();
    data_model_tensor_t t;

    (void)state;
    assert_int_equal(data_model_spec_num_tensors(&spec), 3 + 3 * 18);
    expect_tensor(&spec, "model.embed_tokens.weight", 100, 48);
    expect_tensor(&spec, "lm_head.weight", 100, 48);
    expect_tensor(&spec, "model.norm.weight", 48, 0);
    expect_tensor(&spec, "model.layers.2.self_attn.q_proj.weight", 64, 48);
    expect_tensor(&spec, "model.layers.0.self_attn.k_proj.bias", 32, 0);
    expect_tensor(&spec, "model.layers.1.self_attn.v_proj.weight", 32, 48);
    expect_tensor(&spec, "model.layers.1.self_attn.o_proj.weight", 48, 64);
    expect_tensor(&spec, "model.layers.1.self_attn.o_proj.bias", 48, 0);
    expect_tensor(&spec, "model.layers.1.self_attn.q_norm.weight", 16, 0);
    expect_tensor(&spec, "model.layers.1.mlp.gate_proj.weight", 80, 48);
    expect_tensor(&spec, "model.layers.1.mlp.up_proj.bias", 80, 0);
    expect_tensor(&spec, "model.layers.1.mlp.down_proj.weight", 48, 80);
    expect_tensor(&spec, "model.layers.1.mlp.down_proj.bias", 48, 0);
    expect_tensor(&spec, "model.layers.2.post_attention_layernorm.weight", 48, 0);

    spec.tied = true;
    spec.qkv_bias = spec.o_bias = spec.mlp_bias = spec.qk_norm = false;
    assert_int_equal(data_model_spec_num_tensors(&spec), 2 + 3 * 9);
    assert_int_equal(find(&spec, "lm_head.weight", &t), -1);
    assert_int_equal(data_model_spec_parameters(&spec),
                     100 * 48 + 48 + 3 * (2 * 48 + 48 * (64 + 32 + 32 + 64 + 3 * 80)));
}

static void index_is_the_inverse_of_the_list(void **state)
{
    static const char *const none[] = {
        "",
        "lm_head.weight",
        "model.layers.",
        "model.layers.0",
        "model.layers.3.mlp.up_proj.weight",
        "model.layers.00.mlp.up_proj.weight",
        "model.layers.99999999999.mlp.up_proj.weight",
        "model.layers.-1.mlp.up_proj.weight",
        "model.layers..mlp.up_proj.weight",
        "model.layers.0.mlp.up_proj",
        "mlp.up_proj.weight",
        "model.layers.0.model.norm.weight",
    };
    data_model_spec_t spec = full_spec();

    (void)state;
    for (int round = 0; round < 2; round++) {
        for (int64_t i = 0; i < data_model_spec_num_tensors(&spec); i++) {
            data_model_tensor_t t;

            data_model_spec_tensor(&spec, i, &t);
            assert_int_equal(data_model_spec_index(&spec, t.kind, t.layer), i);
            assert_int_equal(data_model_spec_find(&spec, t.name), i);
        }
        spec.tied = true;
        spec.o_bias = spec.qk_norm = false;
    }
    assert_int_equal(data_model_spec_index(&spec, DATA_TENSOR_LM_HEAD, -1), -1);
    assert_int_equal(data_model_spec_index(&spec, DATA_TENSOR_Q_NORM, 0), -1);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_int_equal(data_model_spec_find(&spec, none[i]), -1);
}

static void check_names_the_field(void **state)
{
    data_model_spec_t spec = full_spec();

    (void)state;
    assert_null(data_model_spec_check(&spec));
#define EXPECT(change, field)                                                                      \
    do {                                                                                           \
        data_model_spec_t bad = spec;                                                              \
        bad.change;                                                                                \
        assert_string_equal(data_model_spec_check(&bad), field);                                   \
    } while (0)
    EXPECT(family = DATA_MODEL_NUM_FAMILIES, "family");
    EXPECT(num_layers = 513, "num_layers");
    EXPECT(hidden = 0, "hidden");
    EXPECT(intermediate = -1, "intermediate");
    EXPECT(vocab = DATA_MODEL_MAX_DIM + 1, "vocab");
    EXPECT(head_dim = 15, "head_dim");
    EXPECT(num_q_heads = 0, "num_q_heads");
    EXPECT(num_kv_heads = 3, "num_kv_heads");
    EXPECT(max_positions = 0, "max_positions");
    EXPECT(rms_eps = (double)NAN, "rms_eps");
    EXPECT(softmax_scale = 0.0, "softmax_scale");
    EXPECT(layer_window[2] = -1, "layer_window");
    EXPECT(num_eos = 17, "num_eos");
    EXPECT(eos[0] = 100, "eos");
    EXPECT(rope.theta = 1.0, "rope.theta");
    spec = llama31();
    assert_null(data_model_spec_check(&spec));
    EXPECT(rope.factor = 0.5, "rope.factor");
    EXPECT(rope.high_freq_factor = 1.0, "rope.high_freq_factor");
    EXPECT(rope.kind = DATA_ROPE_YARN, "rope.beta_slow");
#undef EXPECT
}

static void hash_sees_what_changes_numbers(void **state)
{
    const data_model_spec_t spec = full_spec();
    data_model_spec_t other = spec;

    (void)state;
    other.max_positions = 1;
    other.num_eos = 0;
    assert_true(data_model_spec_hash(&other) == data_model_spec_hash(&spec));
    other.rope.theta = 2e4;
    assert_false(data_model_spec_hash(&other) == data_model_spec_hash(&spec));
    other = spec;
    other.layer_window[2] = 64;
    assert_false(data_model_spec_hash(&other) == data_model_spec_hash(&spec));
    other = spec;
    other.family = DATA_MODEL_LLAMA;
    assert_false(data_model_spec_hash(&other) == data_model_spec_hash(&spec));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama3_frequencies_are_those_of_the_released_code),
        cmocka_unit_test(plain_and_linear_frequencies),
        cmocka_unit_test(yarn_frequencies),
        cmocka_unit_test(tensors_have_names_and_shapes),
        cmocka_unit_test(index_is_the_inverse_of_the_list),
        cmocka_unit_test(check_names_the_field),
        cmocka_unit_test(hash_sees_what_changes_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
