/* The order and the sizes of an adapter's vector, and what follows from names. */
#include "tests/support/ctx_fixture.h"

#include "lora/adapter_set.h"

static data_model_spec_t llama_8b(void)
{
    return (data_model_spec_t){.num_layers = 32,
                               .hidden = 4096,
                               .intermediate = 14336,
                               .vocab = 128256,
                               .num_q_heads = 32,
                               .num_kv_heads = 8,
                               .head_dim = 128};
}

/* What PEFT's print_trainable_parameters says for Llama-3.1-8B. */
static void test_parameters_of_llama_8b(void **state)
{
    static const struct {
        int32_t rank;
        uint32_t targets;
        int64_t count;
    } want[] = {
        {16, BASE_CONFIG_TARGET_ALL, 41943040},
        {8, BASE_CONFIG_TARGET_ALL, 20971520},
        {8, BASE_CONFIG_TARGET_Q | BASE_CONFIG_TARGET_V, 3407872},
    };
    const data_model_spec_t spec = llama_8b();
    base_ctx_t *ctx = fixture_ctx();

    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        lora_layout_t *layout;
        assert_int_equal(lora_layout_create(ctx, &spec, want[i].rank, want[i].targets, &layout),
                         BASE_OK);
        assert_int_equal(layout->count, want[i].count);
        lora_layout_destroy(layout);
    }
    lora_layout_destroy(NULL);
    fixture_ctx_end(ctx);
}

/* Modules by layer, then target; A, then B; no gap and no overlap. */
static void test_order(void **state)
{
    data_model_spec_t spec = llama_8b();
    const uint32_t targets = BASE_CONFIG_TARGET_K | BASE_CONFIG_TARGET_O | BASE_CONFIG_TARGET_UP |
                             BASE_CONFIG_TARGET_DOWN;
    static const int32_t order[] = {1, 3, 5, 6};
    static const int64_t in[] = {4096, 4096, 4096, 14336}, out[] = {1024, 4096, 14336, 4096};
    base_ctx_t *ctx = fixture_ctx();
    lora_layout_t *layout;
    int64_t at = 0;

    (void)state;
    spec.num_layers = 3;
    assert_int_equal(lora_layout_create(ctx, &spec, 5, targets, &layout), BASE_OK);
    assert_int_equal(layout->num_modules, 12);
    assert_int_equal(layout->rank, 5);
    assert_int_equal(layout->targets, targets);
    for (int64_t i = 0; i < layout->num_modules; i++) {
        const lora_module_t *m = &layout->modules[i];

        assert_int_equal(m->layer, i / 4);
        assert_int_equal(m->target, order[i % 4]);
        assert_int_equal(m->in, in[i % 4]);
        assert_int_equal(m->out, out[i % 4]);
        assert_int_equal(m->a, at);
        assert_int_equal(m->b, at + 5 * m->in);
        at = m->b + 5 * m->out;
    }
    assert_int_equal(layout->count, at);
    lora_layout_destroy(layout);
    fixture_ctx_end(ctx);
}

/* A head dim that is not hidden / heads (Qwen3): q and o follow the heads. */
static void test_shapes_follow_heads(void **state)
{
    const data_model_spec_t spec = {
        .hidden = 48, .intermediate = 80, .num_q_heads = 4, .num_kv_heads = 2, .head_dim = 16};
    static const int64_t want[LORA_NUM_TARGETS][2] = {{48, 64}, {48, 32}, {48, 32}, {64, 48},
                                                      {48, 80}, {48, 80}, {80, 48}};
    static const int64_t column[LORA_NUM_TARGETS] = {0, 64, 96, 0, 0, 80, 0};

    (void)state;
    for (int32_t t = 0; t < LORA_NUM_TARGETS; t++) {
        int64_t in, out;
        lora_target_shape(&spec, t, &in, &out);
        assert_int_equal(in, want[t][0]);
        assert_int_equal(out, want[t][1]);
        assert_int_equal(lora_target_out_column(&spec, t), column[t]);
    }
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(lora_target_name(0), "q_proj");
    assert_string_equal(lora_target_name(6), "down_proj");
    assert_null(lora_target_name(7));
    assert_string_equal(lora_target_parent(3), "self_attn");
    assert_string_equal(lora_target_parent(4), "mlp");
    assert_int_equal(lora_target_tensor(2), DATA_TENSOR_V);
    assert_int_equal(lora_target_tensor(5), DATA_TENSOR_UP);
    assert_int_equal(lora_target_linear(1), LORA_LINEAR_QKV);
    assert_int_equal(lora_target_linear(3), LORA_LINEAR_O);
    assert_int_equal(lora_target_linear(5), LORA_LINEAR_GATE_UP);
    assert_int_equal(lora_target_linear(6), LORA_LINEAR_DOWN);
}

static void test_scale(void **state)
{
    (void)state;
    assert_true(lora_scale(32.0, 16, false) == 2.0);
    assert_true(lora_scale(32.0, 16, true) == 8.0);
    assert_true(lora_scale(16.0, 64, true) == 2.0);
}

/* The layer with the most modules decides; multiples of 8. */
static void test_extra_columns(void **state)
{
    (void)state;
    assert_int_equal(lora_extra_columns(BASE_CONFIG_TARGET_ALL, 64), 3 * 64);
    assert_int_equal(lora_extra_columns(BASE_CONFIG_TARGET_GATE | BASE_CONFIG_TARGET_UP, 9), 24);
    assert_int_equal(lora_extra_columns(BASE_CONFIG_TARGET_DOWN, 3), 8);
    assert_int_equal(lora_extra_columns(0, 64), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters_of_llama_8b),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_shapes_follow_heads),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_scale),
        cmocka_unit_test(test_extra_columns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
