/* Dimensions, weights and activations: what the model's parts are before anything runs. */
#include "tests/support/ctx_fixture.h"

#include "trainer/loop/trainer.h"
#include "trainer/model/activations.h"
#include "trainer/model/weights.h"

#include <math.h>
#include <stdlib.h>

static tr_model_config_t small_config(void)
{
    return (tr_model_config_t){.num_layers = 2,
                               .hidden = 6,
                               .intermediate = 10,
                               .vocab = 11,
                               .num_q_heads = 4,
                               .num_kv_heads = 2,
                               .head_dim = 4,
                               .max_positions = 64,
                               .rms_eps = 1e-5,
                               .rope_theta = 1e4,
                               .dtype = KERN_F32,
                               .extra_columns = 3};
}

/* ==== model ==== */

static void test_dimensions(void **state)
{
    static const int64_t windows[] = {128, 0, 128, 0};
    base_ctx_t *ctx = fixture_ctx();
    tr_model_config_t config = small_config();
    tr_model_t *m;

    (void)state;
    config.num_layers = 4;
    config.layer_window = windows;
    assert_int_equal(tr_model_create(ctx, &config, &m), BASE_OK);
    assert_int_equal(m->qkv_cols, (4 + 2 * 2) * 4);
    assert_int_equal(m->num_kinds, 2);
    assert_int_equal(m->window[0], 128); /* in the order of first use */
    assert_int_equal(m->window[1], 0);
    assert_int_equal(m->layer_kind[2], 0);
    assert_int_equal(m->layer_kind[3], 1);
    assert_int_equal(m->num_weights, 4 * 6 + 3);
    assert_true(m->inv_freq[0] == 1.0 && fabs(m->inv_freq[1] - 0.01) < 1e-15);

    const tr_weight_spec_t *down = &m->weights[tr_model_weight(m, TR_WEIGHT_DOWN, 3)];
    assert_string_equal(down->name, "layers.3.down_proj");
    assert_int_equal(down->rows, 6);
    assert_int_equal(down->cols, 10);
    assert_int_equal(down->pitch, 13);
    assert_int_equal(tr_model_weight(m, TR_WEIGHT_LM_HEAD, -1), m->num_weights - 1);
    assert_int_equal(tr_model_largest_weight(m), 32 * 6);
    assert_int_equal(tr_model_parameters(m),
                     4 * (6 + 32 * 6 + 6 * 16 + 6 + 20 * 6 + 6 * 10) + 11 * 6 + 6 + 11 * 6);
    tr_model_destroy(m);
    tr_model_destroy(NULL);
    fixture_ctx_end(ctx);
}

/* A model in bf16 has rows of whole lines of a GPU's L2 where adapters lie beside something: weights,
 * activations, and the o that attention writes; nothing else, and no rows more. */
static void expect_pitch(tr_model_config_t config, int64_t cols, int64_t pitch)
{
    base_ctx_t *ctx = fixture_ctx();
    const tr_trainer_config_t trainer = {.max_rows = 8};
    tr_activations_t *a;
    base_arena_t *arena;
    base_device_t *dev;
    tr_model_t *m;

    config.hidden = (int32_t)cols;
    assert_int_equal(tr_model_create(ctx, &config, &m), BASE_OK);
    assert_int_equal(base_device_open(ctx, BASE_DEVICE_CPU, 0, &dev), BASE_OK);
    assert_int_equal(base_arena_create(dev, BASE_MEMORY_DEVICE, "device", &arena), BASE_OK);
    assert_int_equal(tr_activations_create(m, arena, 8, TR_RECOMPUTE_NOTHING, &a), BASE_OK);
    assert_int_equal(tr_model_pitch(m, cols), pitch);
    for (int32_t i = 0; i < m->num_weights; i++) {
        const tr_weight_spec_t *w = &m->weights[i];
        const int linear = w->extra_rows > 0;

        assert_int_equal(w->pitch, linear ? tr_model_pitch(m, w->cols) : w->cols);
        assert_int_equal(w->extra_rows, linear ? config.extra_columns : 0);
    }
    assert_int_equal(m->weights[tr_model_weight(m, TR_WEIGHT_QKV, 1)].pitch, pitch);
    assert_int_equal(tr_activations_pitch(a, TR_SLOT_N1), pitch);
    assert_int_equal(tr_activations_pitch(a, TR_SLOT_DX), pitch);
    assert_int_equal(tr_activations_pitch(a, TR_SLOT_X), cols);
    assert_int_equal(tr_trainer_attention_config(m, &trainer).o_pitch,
                     tr_activations_pitch(a, TR_SLOT_O));
    tr_activations_destroy(a);
    base_arena_destroy(arena);
    base_device_close(dev);
    tr_model_destroy(m);
    fixture_ctx_end(ctx);
}

static void test_pitches(void **state)
{
    tr_model_config_t narrow = small_config();

    (void)state;
    expect_pitch(narrow, 4096, 4099);
    narrow.dtype = KERN_BF16;
    expect_pitch(narrow, 4096, 4160);
    narrow.extra_columns = 48;
    expect_pitch(narrow, 4096, 4160);
    narrow.extra_columns = 64;
    expect_pitch(narrow, 4096, 4160);
    narrow.extra_columns = 192;
    expect_pitch(narrow, 4096, 4288);
    narrow.extra_columns = 48;
    expect_pitch(narrow, 70, 128);
    narrow.extra_columns = 0; /* no adapters: dense, whatever the width */
    expect_pitch(narrow, 70, 70);
}

static void expect_refused(const tr_model_config_t *config, base_status_t st, const char *piece)
{
    base_ctx_t *ctx = fixture_ctx();
    tr_model_t *m;

    assert_int_equal(tr_model_create(ctx, config, &m), st);
    fixture_expect_error(ctx, st, "CONF-04", piece);
    fixture_ctx_end(ctx);
}

static void test_models_that_cannot_be(void **state)
{
    static const int64_t three[] = {0, 10, 20}, negative[] = {0, -1};
    tr_model_config_t c;

    (void)state;
    c = small_config(), c.num_layers = 0;
    expect_refused(&c, BASE_ERR_CONFIG, "layers is 0, want 1 to 4096");
    c = small_config(), c.vocab = -4;
    expect_refused(&c, BASE_ERR_CONFIG, "vocab is -4");
    c = small_config(), c.num_q_heads = 5;
    expect_refused(&c, BASE_ERR_CONFIG, "5 query heads are not a multiple of 2 KV heads");
    c = small_config(), c.head_dim = 7;
    expect_refused(&c, BASE_ERR_CONFIG, "head dim is 7, want an even number");
    c = small_config(), c.dtype = KERN_I32;
    expect_refused(&c, BASE_ERR_UNSUPPORTED, "dtype int32, want fp32, fp64 or bf16");
    c = small_config(), c.rms_eps = (double)NAN;
    expect_refused(&c, BASE_ERR_CONFIG, "rms_eps");
    c = small_config(), c.num_layers = 3, c.layer_window = three;
    expect_refused(&c, BASE_ERR_UNSUPPORTED, "layer 2: window 20 is another attention kind");
    c = small_config(), c.layer_window = negative;
    expect_refused(&c, BASE_ERR_CONFIG, "layer 1: window is -1");
}

/* ==== weights ==== */

typedef struct holder {
    base_ctx_t *ctx;
    base_device_t *dev;
    base_stream_t *stream;
    base_arena_t *arena;
    tr_model_t *model;
    tr_weights_t *weights;
} holder_t;

static void hold_model(holder_t *h, const tr_model_config_t *config)
{
    h->ctx = fixture_ctx();
    assert_int_equal(base_device_open(h->ctx, BASE_DEVICE_STRICT, 0, &h->dev), BASE_OK);
    assert_int_equal(base_stream_create(h->dev, BASE_STREAM_COMPUTE, "compute", &h->stream),
                     BASE_OK);
    assert_int_equal(base_arena_create(h->dev, BASE_MEMORY_DEVICE, "device", &h->arena), BASE_OK);
    assert_int_equal(tr_model_create(h->ctx, config, &h->model), BASE_OK);
    assert_int_equal(tr_weights_create(h->model, h->arena, &h->weights), BASE_OK);
}

static void hold(holder_t *h, kern_dtype_t dtype, int32_t layers)
{
    tr_model_config_t config = small_config();

    config.dtype = dtype;
    config.num_layers = layers;
    hold_model(h, &config);
}

static void let_go(holder_t *h)
{
    tr_weights_destroy(h->weights);
    tr_model_destroy(h->model);
    base_stream_destroy(h->stream);
    base_arena_destroy(h->arena);
    base_device_close(h->dev);
    fixture_ctx_end(h->ctx);
}

static void test_values_do_not_depend_on_dtype(void **state)
{
    holder_t single, both;
    double a[32 * 6], b[32 * 6];

    (void)state;
    hold(&single, KERN_F32, 2);
    hold(&both, KERN_F64, 2);
    assert_int_equal(base_arena_commit(single.arena), BASE_OK);
    assert_int_equal(base_arena_commit(both.arena), BASE_OK);
    assert_int_equal(tr_weights_random(single.weights, single.stream, 5), BASE_OK);
    assert_int_equal(tr_weights_random(both.weights, both.stream, 5), BASE_OK);
    for (int32_t i = 0; i < single.model->num_weights; i++) {
        const tr_weight_spec_t *spec = &single.model->weights[i];

        assert_int_equal(tr_weights_read(single.weights, i, single.stream, a), BASE_OK);
        assert_int_equal(tr_weights_read(both.weights, i, both.stream, b), BASE_OK);
        for (int64_t e = 0; e < spec->rows * spec->cols; e++)
            assert_true(a[e] == (double)(float)b[e] && isfinite(a[e]));
    }
    /* Another weight of the same shape has other numbers. */
    const int32_t first = tr_model_weight(both.model, TR_WEIGHT_QKV, 0);
    const int32_t second = tr_model_weight(both.model, TR_WEIGHT_QKV, 1);
    assert_int_equal(tr_weights_read(both.weights, first, both.stream, a), BASE_OK);
    assert_int_equal(tr_weights_read(both.weights, second, both.stream, b), BASE_OK);
    assert_true(a[0] != b[0] && a[1] != b[1]);
    let_go(&single);
    let_go(&both);
}

static void test_extra_columns_hold_nan(void **state)
{
    holder_t h;
    float raw[32 * 9];

    (void)state;
    hold(&h, KERN_F32, 2);
    assert_int_equal(base_arena_commit(h.arena), BASE_OK);
    assert_int_equal(tr_weights_fill(h.weights, h.stream), BASE_OK);
    assert_int_equal(tr_weights_random(h.weights, h.stream, 5), BASE_OK);
    const kern_mat_t qkv = tr_weights_mat(h.weights, tr_model_weight(h.model, TR_WEIGHT_QKV, 0));
    assert_int_equal(qkv.pitch, 9);
    assert_int_equal(base_download(h.stream, raw, qkv.mem, sizeof raw), BASE_OK);
    assert_int_equal(base_stream_sync(h.stream), BASE_OK);
    for (int i = 0; i < 32 * 9; i++)
        assert_true((i % 9 >= 6) == (isnan(raw[i]) != 0));
    /* Gradients are dense. */
    assert_int_equal(
        tr_weights_gradient(h.weights, tr_model_weight(h.model, TR_WEIGHT_QKV, 0)).pitch, 6);
    let_go(&h);
}

/* Mean and spread of a weight's kind (weights.h), and what its values have. */
static void expect_distribution(const holder_t *h, int32_t index, const double *values)
{
    const tr_weight_spec_t *spec = &h->model->weights[index];
    const int64_t count = spec->rows * spec->cols;
    const int norm = spec->kind == TR_WEIGHT_NORM1 || spec->kind == TR_WEIGHT_NORM2 ||
                     spec->kind == TR_WEIGHT_FINAL_NORM;
    const double mean = norm ? 1.0 : 0.0;
    const double spread = norm                                ? 0.1
                          : spec->kind == TR_WEIGHT_EMBEDDING ? 1.0
                                                              : 1.0 / sqrt((double)spec->cols);
    const double deviation = 6.0 * spread / sqrt((double)count); /* of either, 6 sigma */
    double sum = 0.0, squares = 0.0;

    for (int64_t i = 0; i < count; i++) {
        assert_true(isfinite(values[i]));
        sum += values[i] - mean;
        squares += (values[i] - mean) * (values[i] - mean);
    }
    if (fabs(sum / (double)count) > deviation ||
        fabs(sqrt(squares / (double)count) - spread) > deviation + 0.004 * spread)
        fail_msg("%s: mean %g, spread %g; wanted %g, %g", spec->name, mean + sum / (double)count,
                 sqrt(squares / (double)count), mean, spread);
}

static void check_repeated(int32_t hidden, int32_t intermediate, kern_dtype_t dtype)
{
    tr_model_config_t config = small_config();
    holder_t h;

    config.hidden = hidden;
    config.intermediate = intermediate;
    config.frozen = 1;
    config.dtype = dtype;
    hold_model(&h, &config);
    assert_int_equal(base_arena_commit(h.arena), BASE_OK);
    assert_int_equal(tr_weights_fill(h.weights, h.stream), BASE_OK);
    assert_int_equal(tr_weights_repeat(h.weights, h.stream, 5), BASE_OK);
    const int64_t largest = tr_model_largest_weight(h.model);
    double *values = calloc((size_t)largest, sizeof *values);
    double *other = calloc((size_t)largest, sizeof *other);
    assert_true(values != NULL && other != NULL);
    for (int32_t i = 0; i < h.model->num_weights; i++) {
        assert_int_equal(tr_weights_read(h.weights, i, h.stream, values), BASE_OK);
        expect_distribution(&h, i, values);
    }
    /* What is beside them stays, and the next layer's are others. */
    kern_mat_t o = tr_weights_mat(h.weights, tr_model_weight(h.model, TR_WEIGHT_O, 0));
    assert_int_equal(tr_weights_download(h.ctx, h.stream, &o, values), BASE_OK);
    assert_int_equal(
        tr_weights_read(h.weights, tr_model_weight(h.model, TR_WEIGHT_O, 1), h.stream, other),
        BASE_OK);
    assert_memory_not_equal(values, other, (size_t)(o.rows * o.cols) * sizeof *values);
    o.mem = base_mem_at(o.mem, o.cols * kern_dtype_bytes(dtype));
    o.cols = config.extra_columns;
    assert_int_equal(tr_weights_download(h.ctx, h.stream, &o, values), BASE_OK);
    for (int64_t i = 0; i < o.rows * o.cols; i++)
        assert_true(isnan(values[i]));
    free(values);
    free(other);
    let_go(&h);
}

/* Weights for benchmarks: of odd shapes, and with rows longer than what is drawn at first. */
static void test_repeated_values(void **state)
{
    (void)state;
    check_repeated(54, 331, KERN_F32);
    check_repeated(130, 77, KERN_BF16);
    check_repeated(2, (1 << 20) + 3, KERN_F32);
}

/* ==== activations ==== */

static void test_shapes_and_places(void **state)
{
    holder_t h;
    tr_activations_t *a;

    (void)state;
    hold(&h, KERN_F32, 3);
    assert_int_equal(tr_activations_create(h.model, h.arena, 4096, TR_RECOMPUTE_NOTHING, &a),
                     BASE_OK);
    assert_int_equal(base_arena_commit(h.arena), BASE_OK);
    assert_int_equal(tr_activations_fill(a, h.stream), BASE_OK);
    assert_int_equal(base_stream_sync(h.stream), BASE_OK);

    const kern_mat_t o = tr_activations_mat(a, TR_SLOT_O, DATA_PONG, 1, 128);
    assert_int_equal(o.rows, 128);
    assert_int_equal(o.cols, 16);
    assert_int_equal(o.pitch, 16 + 3);
    assert_int_equal(o.dtype, KERN_F32);
    const kern_mat_t rstd = tr_activations_mat(a, TR_SLOT_RSTD1, DATA_PING, 1, 128);
    assert_int_equal(rstd.rows, 1);
    assert_int_equal(rstd.cols, 128);

    /* Kept for the backward: never two in one place. Shared scratch: one place for both halves. */
    for (int32_t l = 0; l < 3; l++)
        assert_true(tr_activations_mem(a, TR_SLOT_Q, DATA_PING, l).offset !=
                    tr_activations_mem(a, TR_SLOT_Q, DATA_PONG, l).offset);
    assert_true(tr_activations_mem(a, TR_SLOT_K, DATA_PING, 0).offset !=
                tr_activations_mem(a, TR_SLOT_K, DATA_PING, 1).offset);
    assert_true(tr_activations_mem(a, TR_SLOT_QKV, DATA_PING, 0).offset ==
                tr_activations_mem(a, TR_SLOT_QKV, DATA_PONG, 2).offset);
    /* Lifetimes save something: forward scratch and backward scratch share bytes. */
    assert_true(base_arena_bytes(h.arena) < base_arena_declared(h.arena));
    tr_activations_destroy(a);
    let_go(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dimensions),
        cmocka_unit_test(test_pitches),
        cmocka_unit_test(test_models_that_cannot_be),
        cmocka_unit_test(test_values_do_not_depend_on_dtype),
        cmocka_unit_test(test_extra_columns_hold_nan),
        cmocka_unit_test(test_repeated_values),
        cmocka_unit_test(test_shapes_and_places),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
