#include "tests/support/adapter_rig.h"

#include <stdio.h>
#include <stdlib.h>

#define GAP 5

data_model_spec_t adapter_rig_spec(void)
{
    return (data_model_spec_t){.family = DATA_MODEL_LLAMA,
                               .num_layers = 2,
                               .hidden = 12,
                               .intermediate = 10,
                               .vocab = 32,
                               .num_q_heads = 4,
                               .num_kv_heads = 2,
                               .head_dim = 4,
                               .max_positions = 512,
                               .rms_eps = 1e-5,
                               .softmax_scale = 0.5,
                               .rope = {.kind = DATA_ROPE_PLAIN, .theta = 10000.0}};
}

void adapter_rig_shape(const adapter_rig_t *rig, lora_linear_t linear, int64_t *n, int64_t *k)
{
    const data_model_spec_t *s = &rig->spec;
    const int64_t q = (int64_t)s->num_q_heads * s->head_dim;
    const int64_t kv = (int64_t)s->num_kv_heads * s->head_dim;

    switch (linear) {
    case LORA_LINEAR_QKV:
        *n = q + 2 * kv, *k = s->hidden;
        break;
    case LORA_LINEAR_O:
        *n = s->hidden, *k = q;
        break;
    case LORA_LINEAR_GATE_UP:
        *n = 2 * s->intermediate, *k = s->hidden;
        break;
    default:
        *n = s->hidden, *k = s->intermediate;
        break;
    }
}

static kern_mat_t whole(const adapter_rig_t *rig, int32_t layer, lora_linear_t linear)
{
    int64_t n, k;

    adapter_rig_shape(rig, linear, &n, &k);
    return kern_mat(
        base_arena_mem(rig->arena, rig->weight[layer * LORA_NUM_LINEARS + (int32_t)linear]),
        n + rig->extra, k + rig->beside, k + rig->beside, rig->dtype);
}

static void upload(adapter_rig_t *rig, const kern_mat_t *mat, const double *values)
{
    const int64_t count = mat->rows * mat->cols;
    float *single = calloc((size_t)count, sizeof *single);

    assert_non_null(single);
    for (int64_t i = 0; i < count; i++)
        single[i] = (float)values[i];
    const void *from = rig->dtype == KERN_F64 ? (const void *)values : (const void *)single;
    assert_int_equal(base_upload(rig->fx->s, mat->mem, from, count * kern_dtype_bytes(rig->dtype)),
                     BASE_OK);
    op_fixture_sync(rig->fx);
    free(single);
}

static void download(adapter_rig_t *rig, base_mem_t mem, int64_t count, kern_dtype_t dtype,
                     double *values)
{
    float *single = calloc((size_t)count, sizeof *single);

    assert_non_null(single);
    void *to = dtype == KERN_F64 ? (void *)values : (void *)single;
    assert_int_equal(base_download(rig->fx->s, to, mem, count * kern_dtype_bytes(dtype)), BASE_OK);
    op_fixture_sync(rig->fx);
    for (int64_t i = 0; i < count && dtype != KERN_F64; i++)
        values[i] = (double)single[i];
    free(single);
}

static void declare_weights(adapter_rig_t *rig)
{
    for (int32_t i = 0; i < rig->spec.num_layers * LORA_NUM_LINEARS; i++) {
        char name[32];
        int64_t n, k;

        adapter_rig_shape(rig, (lora_linear_t)(i % LORA_NUM_LINEARS), &n, &k);
        (void)snprintf(name, sizeof name, "weight %d", i);
        assert_int_equal(
            base_arena_declare(rig->arena, "test", name,
                               (n + rig->extra) * (k + rig->beside) * kern_dtype_bytes(rig->dtype),
                               BASE_LIFETIME_RUN, &rig->weight[i]),
            BASE_OK);
    }
}

static void bind_weights(adapter_rig_t *rig)
{
    for (int32_t i = 0; i < rig->spec.num_layers * LORA_NUM_LINEARS; i++) {
        const lora_linear_t linear = (lora_linear_t)(i % LORA_NUM_LINEARS);
        kern_mat_t w = whole(rig, i / LORA_NUM_LINEARS, linear);
        double *values = op_doubles(w.rows * w.cols);

        op_random_fill(ADAPTER_RIG_WEIGHT_SEED + (uint64_t)i, w.rows * w.cols, values);
        upload(rig, &w, values);
        free(values);
        adapter_rig_shape(rig, linear, &w.rows, &w.cols);
        lora_adapter_set_bind(rig->set, i / LORA_NUM_LINEARS, linear, w);
    }
}

adapter_rig_t adapter_rig(op_fixture_t *fx, kern_dtype_t dtype,
                          const lora_adapter_options_t *options, int32_t count,
                          int32_t rank_columns)
{
    adapter_rig_t rig = {.fx = fx, .spec = adapter_rig_spec(), .dtype = dtype};
    /* Borrowed by the set: a copy that does not move with the rig. */
    data_model_spec_t *spec = malloc(sizeof *spec);
    uint32_t targets = 0;

    assert_non_null(spec);
    *spec = rig.spec;
    for (int32_t a = 0; a < count; a++)
        targets |= options[a].targets;
    rig.extra = lora_extra_columns(targets, rank_columns);
    rig.beside = rig.extra + GAP;
    const lora_adapter_set_config_t config = {.spec = spec,
                                              .dtype = dtype,
                                              .num_adapters = count,
                                              .adapters = options,
                                              .rank_columns = rank_columns,
                                              .optimizer = 1};
    assert_int_equal(base_arena_create(fx->dev, BASE_MEMORY_DEVICE, "rig", &rig.arena), BASE_OK);
    declare_weights(&rig);
    assert_int_equal(lora_adapter_set_create(fx->ctx, &config, rig.arena, &rig.set), BASE_OK);
    assert_int_equal(lora_route_create(rig.set, 32, &rig.route), BASE_OK);
    assert_int_equal(
        lora_optimizer_declare(&rig.optimizer, rig.arena, kern_dtype_acc(dtype), count), BASE_OK);
    assert_int_equal(base_arena_commit(rig.arena), BASE_OK);
    bind_weights(&rig);
    assert_int_equal(lora_adapter_set_start(rig.set, fx->s), BASE_OK);
    assert_int_equal(lora_optimizer_start(&rig.optimizer, fx->s), BASE_OK);
    assert_int_equal(data_batch_create(fx->ctx, 16, 32, 1, &rig.batch), BASE_OK);
    return rig;
}

void adapter_rig_end(adapter_rig_t *rig)
{
    const data_model_spec_t *spec = rig->set->spec;

    op_fixture_sync(rig->fx);
    data_batch_destroy(rig->batch);
    lora_route_destroy(rig->route);
    lora_adapter_set_destroy(rig->set);
    base_arena_destroy(rig->arena);
    free((void *)(uintptr_t)spec);
}

double *adapter_rig_weight(adapter_rig_t *rig, int32_t layer, lora_linear_t linear)
{
    const kern_mat_t w = whole(rig, layer, linear);
    double *values = op_doubles(w.rows * w.cols);

    download(rig, w.mem, w.rows * w.cols, w.dtype, values);
    return values;
}

double *adapter_rig_write(adapter_rig_t *rig, int32_t adapter, uint64_t seed)
{
    const int64_t count = rig->set->adapters[adapter].layout->count;
    double *values = op_doubles(count);

    op_random_fill(seed, count, values);
    for (int64_t i = 0; i < count; i++)
        values[i] = (double)(float)values[i];
    assert_int_equal(lora_adapter_set_write(rig->set, adapter, rig->fx->s, values), BASE_OK);
    return values;
}

double *adapter_rig_read(adapter_rig_t *rig, int32_t adapter, base_region_t region)
{
    double *values = op_doubles(rig->set->adapters[adapter].layout->count);

    assert_int_equal(lora_adapter_set_read_region(rig->set, adapter, region, rig->fx->s, values),
                     BASE_OK);
    return values;
}

void adapter_rig_place(adapter_rig_t *rig, int64_t microbatch, const int32_t *used, int32_t count)
{
    assert_int_equal(lora_adapter_set_place(rig->set, microbatch, used, count, rig->fx->s),
                     BASE_OK);
}

void adapter_rig_begin(adapter_rig_t *rig)
{
    assert_int_equal(data_batch_begin(rig->batch, 0, 1), BASE_OK);
    rig->batch->trainer_rows[0] = ADAPTER_RIG_ROWS;
}

void adapter_rig_document(adapter_rig_t *rig, int32_t adapter, int64_t index, int64_t rows,
                          int64_t head, int64_t ping, int64_t pong)
{
    const data_document_t document = {.rows = rows, .adapter = adapter, .index = index};
    data_piece_t piece = {.half = DATA_PING, .rows = head, .local_row = ping};

    assert_int_equal(data_batch_add_document(rig->batch, &document, &piece.document), BASE_OK);
    if (head > 0) assert_int_equal(data_batch_add_piece(rig->batch, &piece), BASE_OK);
    piece.half = DATA_PONG;
    piece.doc_row = head;
    piece.rows = rows - head;
    piece.local_row = pong;
    if (rows > head) assert_int_equal(data_batch_add_piece(rig->batch, &piece), BASE_OK);
}
