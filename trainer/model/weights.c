#include "trainer/model/weights.h"

#include "base/memory.h"
#include "base/philox.h"
#include "data/tensor_dtype.h"

#include <math.h>
#include <stdio.h>

base_status_t tr_weights_create(const tr_model_t *model, base_arena_t *arena,
                                tr_weights_t **weights_p)
{
    base_ctx_t *ctx = model->ctx;
    const int64_t real = kern_dtype_bytes(model->config.dtype), acc = kern_dtype_bytes(model->acc);
    base_status_t st;

    tr_weights_t *w = base_calloc(ctx, 1, sizeof *w, "weights");
    if (w == NULL) return BASE_ERR_NOMEM;
    w->ctx = ctx;
    w->model = model;
    w->arena = arena;
    w->weight = base_calloc(ctx, model->num_weights, sizeof *w->weight, "weights");
    w->gradient = base_calloc(ctx, model->num_weights, sizeof *w->gradient, "gradients");
    if (w->weight == NULL || w->gradient == NULL) {
        st = BASE_ERR_NOMEM;
        goto err_destroy;
    }
    for (int32_t i = 0; i < model->num_weights; i++) {
        const tr_weight_spec_t *spec = &model->weights[i];
        char name[TR_WEIGHT_NAME_BYTES + 8];

        BASE_TRY_GOTO(base_arena_declare(arena, "trainer", spec->name,
                                         (spec->rows + spec->extra_rows) * spec->pitch * real,
                                         BASE_LIFETIME_RUN, &w->weight[i]),
                      st, err_destroy);
        w->gradient[i] = BASE_REGION_NONE;
        if (model->config.frozen) continue;
        (void)snprintf(name, sizeof name, "grad.%s", spec->name);
        BASE_TRY_GOTO(base_arena_declare(arena, "trainer", name, spec->rows * spec->cols * acc,
                                         BASE_LIFETIME_RUN, &w->gradient[i]),
                      st, err_destroy);
    }
    *weights_p = w;
    return BASE_OK;
err_destroy:
    tr_weights_destroy(w);
    return st;
}

void tr_weights_destroy(tr_weights_t *weights)
{
    if (weights == NULL) return;
    base_free(weights->ctx, weights->gradient);
    base_free(weights->ctx, weights->weight);
    base_free(weights->ctx, weights);
}

kern_mat_t tr_weights_mat(const tr_weights_t *weights, int32_t index)
{
    const tr_weight_spec_t *spec = &weights->model->weights[index];

    return kern_mat(base_arena_mem(weights->arena, weights->weight[index]), spec->rows, spec->cols,
                    spec->pitch, weights->model->config.dtype);
}

kern_mat_t tr_weights_gradient(const tr_weights_t *weights, int32_t index)
{
    const tr_weight_spec_t *spec = &weights->model->weights[index];

    return kern_mat(base_arena_mem(weights->arena, weights->gradient[index]), spec->rows,
                    spec->cols, spec->cols, weights->model->acc);
}

/* Mean and spread of what tr_weights_random draws. */
static void distribution(const tr_weight_spec_t *spec, double *mean, double *spread)
{
    *mean = 0.0;
    *spread = 0.1;
    switch (spec->kind) {
    case TR_WEIGHT_NORM1:
    case TR_WEIGHT_NORM2:
    case TR_WEIGHT_FINAL_NORM:
    case TR_WEIGHT_Q_NORM:
    case TR_WEIGHT_K_NORM:
        *mean = 1.0;
        return;
    case TR_WEIGHT_QKV_BIAS:
    case TR_WEIGHT_O_BIAS:
    case TR_WEIGHT_GATE_UP_BIAS:
    case TR_WEIGHT_DOWN_BIAS:
        return;
    case TR_WEIGHT_EMBEDDING:
        *spread = 1.0;
        return;
    case TR_WEIGHT_QKV:
    case TR_WEIGHT_O:
    case TR_WEIGHT_GATE_UP:
    case TR_WEIGHT_DOWN:
    case TR_WEIGHT_LM_HEAD:
    case TR_WEIGHT_NUM_KINDS:
        break;
    }
    *spread = 1.0 / sqrt((double)spec->cols);
}

/* Key: the seed. Counter: {pair of elements, low and high word; weight number; 'W'}, so that other
 * users of the seed (dropout, orders) never meet these numbers. */
static void draw(const tr_weight_spec_t *spec, int32_t index, uint64_t seed, double *values)
{
    const base_philox_key_t key = base_philox_key(seed);
    const int64_t count = spec->rows * spec->cols;
    double mean, spread;

    distribution(spec, &mean, &spread);
    for (int64_t i = 0; i < count; i += 2) {
        const uint64_t pair = (uint64_t)i / 2;
        double normal[2];

        base_philox_normal2(base_philox(key, (uint32_t)(pair & 0xffffffffu), (uint32_t)(pair >> 32),
                                        (uint32_t)index, 0x57u),
                            normal);
        values[i] = mean + spread * normal[0];
        if (i + 1 < count) values[i + 1] = mean + spread * normal[1];
    }
}

/* `rows` rows of values into rows as they lie in the region; extra columns stay. */
static void to_dtype(const tr_weight_spec_t *spec, kern_dtype_t dtype, int64_t rows,
                     const double *values, void *out)
{
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < spec->cols; c++) {
            const double value = values[r * spec->cols + c];
            const int64_t at = r * spec->pitch + c;

            if (dtype == KERN_F64)
                ((double *)out)[at] = value;
            else if (dtype == KERN_BF16)
                ((uint16_t *)out)[at] = data_bf16_from_float((float)value);
            else
                ((float *)out)[at] = (float)value;
        }
    }
}

base_status_t tr_weights_write_rows(const tr_weights_t *weights, int32_t index, int64_t row,
                                    int64_t rows, base_stream_t *stream, const double *values)
{
    const tr_weight_spec_t *spec = &weights->model->weights[index];
    const kern_dtype_t dtype = weights->model->config.dtype;
    const int64_t pitch_bytes = spec->pitch * kern_dtype_bytes(dtype);
    const base_mem_t to = base_mem_at(tr_weights_mat(weights, index).mem, row * pitch_bytes);
    base_status_t st = BASE_OK, synced = BASE_OK;

    void *staging = base_alloc(weights->ctx, (size_t)(rows * pitch_bytes), "weight staging");
    if (staging == NULL) return BASE_ERR_NOMEM;
    /* An upload is of whole rows; adapters lie in the extra columns. */
    if (spec->pitch > spec->cols) {
        st = base_download(stream, staging, to, rows * pitch_bytes);
        synced = base_stream_sync(stream);
    }
    if (st >= 0 && synced >= 0) {
        to_dtype(spec, dtype, rows, values, staging);
        st = base_upload(stream, to, staging, rows * pitch_bytes);
        synced = base_stream_sync(stream); /* staging is free only after that */
    }
    base_free(weights->ctx, staging);
    return st < 0 ? st : synced;
}

base_status_t tr_weights_write(const tr_weights_t *weights, int32_t index, base_stream_t *stream,
                               const double *values)
{
    return tr_weights_write_rows(weights, index, 0, weights->model->weights[index].rows, stream,
                                 values);
}

/* An operator that takes the pitch for the width shows. */
static base_status_t fill_extra(const tr_weights_t *weights, int32_t index, base_stream_t *stream)
{
    const tr_weight_spec_t *spec = &weights->model->weights[index];
    const int64_t element = kern_dtype_bytes(weights->model->config.dtype);
    const int64_t pitch_bytes = spec->pitch * element;
    const base_mem_t mem = tr_weights_mat(weights, index).mem;
    const base_range_t beside = {.mem = base_mem_at(mem, spec->cols * element),
                                 .row_bytes = pitch_bytes - spec->cols * element,
                                 .rows = spec->rows,
                                 .pitch = pitch_bytes};
    const base_range_t below = {.mem = base_mem_at(mem, spec->rows * pitch_bytes),
                                .row_bytes = spec->extra_rows * pitch_bytes,
                                .rows = 1};

    if (spec->pitch > spec->cols) BASE_TRY(base_fill(stream, &beside, 0xff));
    return spec->extra_rows == 0 ? BASE_OK : base_fill(stream, &below, 0xff);
}

base_status_t tr_weights_fill(const tr_weights_t *weights, base_stream_t *stream)
{
    for (int32_t i = 0; i < weights->model->num_weights; i++)
        BASE_TRY(fill_extra(weights, i, stream));
    return BASE_OK;
}

base_status_t tr_weights_random(const tr_weights_t *weights, base_stream_t *stream, uint64_t seed)
{
    const tr_model_t *model = weights->model;
    const int64_t largest = tr_model_largest_weight(model);
    base_status_t st = BASE_OK;

    double *values = base_calloc(weights->ctx, largest, sizeof *values, "weight values");
    if (values == NULL) return BASE_ERR_NOMEM;
    for (int32_t i = 0; i < model->num_weights && st >= 0; i++) {
        draw(&model->weights[i], i, seed, values);
        st = tr_weights_write(weights, i, stream, values);
    }
    base_free(weights->ctx, values);
    return st;
}

/* ==== repeated values ==== */

#define TILE_ELEMENTS (INT64_C(1) << 21)

/* Values of one distribution, on the device. */
typedef struct tile {
    double *normal; /* [elements] N(0, 1) */
    void *values;   /* in the dtype */
    int64_t elements;
    base_buffer_t *buffer;
} tile_t;

static base_status_t tile_load(const tr_weights_t *weights, tile_t *t, double mean, double spread,
                               base_stream_t *stream)
{
    const kern_dtype_t dtype = weights->model->config.dtype;
    const tr_weight_spec_t line = {.cols = t->elements, .pitch = t->elements};

    BASE_TRY(base_stream_sync(stream)); /* the upload before has passed */
    double *scaled = base_calloc(weights->ctx, t->elements, sizeof *scaled, "weight values");
    if (scaled == NULL) return BASE_ERR_NOMEM;
    for (int64_t i = 0; i < t->elements; i++)
        scaled[i] = mean + spread * t->normal[i];
    to_dtype(&line, dtype, 1, scaled, t->values);
    base_free(weights->ctx, scaled);
    return base_upload(stream, base_mem(t->buffer, 0), t->values,
                       t->elements * kern_dtype_bytes(dtype));
}

/* Rows out of the tile, as many at once as it has, each time from another place on. */
static base_status_t tile_copy(const tr_weights_t *weights, const tile_t *t, int32_t index,
                               base_stream_t *stream)
{
    const tr_weight_spec_t *spec = &weights->model->weights[index];
    const int64_t element = kern_dtype_bytes(weights->model->config.dtype);
    const base_mem_t to = tr_weights_mat(weights, index).mem;
    const int64_t most = t->elements / 2 / spec->cols;

    for (int64_t row = 0; row < spec->rows; row += most) {
        const int64_t rows = spec->rows - row < most ? spec->rows - row : most;
        const int64_t shift = (index * INT64_C(7919) + row * INT64_C(31)) % (t->elements / 2);
        const base_range_t src = {.mem = base_mem(t->buffer, shift * element),
                                  .row_bytes = spec->cols * element,
                                  .rows = rows,
                                  .pitch = spec->cols * element};
        const base_range_t dst = {.mem = base_mem_at(to, row * spec->pitch * element),
                                  .row_bytes = spec->cols * element,
                                  .rows = rows,
                                  .pitch = spec->pitch * element};
        BASE_TRY(base_copy(stream, &dst, &src));
    }
    return BASE_OK;
}

static int same_distribution(const tr_model_t *model, int32_t i, int32_t j)
{
    double mean[2], spread[2];

    distribution(&model->weights[i], &mean[0], &spread[0]);
    distribution(&model->weights[j], &mean[1], &spread[1]);
    return mean[0] == mean[1] && spread[0] == spread[1];
}

/* A model has few distributions; each tile is made once, for all weights of its own. */
static base_status_t repeat_all(const tr_weights_t *weights, tile_t *t, base_stream_t *stream,
                                uint64_t seed)
{
    const tr_model_t *model = weights->model;
    const tr_weight_spec_t line = {
        .kind = TR_WEIGHT_EMBEDDING, .rows = 1, .cols = t->elements}; /* N(0, 1) */

    draw(&line, model->num_weights, seed, t->normal);
    for (int32_t i = 0; i < model->num_weights; i++) {
        double mean, spread;
        int32_t first = 0;

        while (!same_distribution(model, first, i))
            first++;
        if (first < i) continue;
        distribution(&model->weights[i], &mean, &spread);
        BASE_TRY(tile_load(weights, t, mean, spread, stream));
        for (int32_t j = i; j < model->num_weights; j++)
            if (same_distribution(model, i, j)) BASE_TRY(tile_copy(weights, t, j, stream));
    }
    return BASE_OK;
}

base_status_t tr_weights_repeat(const tr_weights_t *weights, base_stream_t *stream, uint64_t seed)
{
    const int64_t element = kern_dtype_bytes(weights->model->config.dtype);
    tile_t t = {.elements = TILE_ELEMENTS};
    base_status_t st = BASE_ERR_NOMEM;

    for (int32_t i = 0; i < weights->model->num_weights; i++)
        if (2 * weights->model->weights[i].cols > t.elements)
            t.elements = 2 * weights->model->weights[i].cols;
    t.normal = base_calloc(weights->ctx, t.elements, sizeof *t.normal, "weight values");
    t.values = base_calloc(weights->ctx, t.elements, (size_t)element, "weight values");
    if (t.normal != NULL && t.values != NULL)
        st = base_buffer_alloc(base_stream_device(stream), BASE_MEMORY_DEVICE, t.elements * element,
                               "weight values", &t.buffer);
    if (st >= 0) st = repeat_all(weights, &t, stream, seed);
    const base_status_t synced = base_stream_sync(stream);
    base_buffer_free(t.buffer);
    base_free(weights->ctx, t.values);
    base_free(weights->ctx, t.normal);
    return st < 0 ? st : synced;
}

base_status_t tr_weights_read(const tr_weights_t *weights, int32_t index, base_stream_t *stream,
                              double *values)
{
    const kern_mat_t mat = tr_weights_mat(weights, index);

    return tr_weights_download(weights->ctx, stream, &mat, values);
}

base_status_t tr_weights_download(base_ctx_t *ctx, base_stream_t *stream, const kern_mat_t *mat,
                                  double *values)
{
    const int64_t elements = mat->rows == 0 ? 0 : (mat->rows - 1) * mat->pitch + mat->cols;
    const int64_t bytes = elements * kern_dtype_bytes(mat->dtype);
    const int64_t row_bytes = mat->pitch * kern_dtype_bytes(mat->dtype);
    const data_dtype_t from = mat->dtype == KERN_F64    ? DATA_F64
                              : mat->dtype == KERN_BF16 ? DATA_BF16
                                                        : DATA_F32;
    base_status_t st;

    if (mat->dtype != KERN_F32 && mat->dtype != KERN_F64 && mat->dtype != KERN_BF16)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                         "download: dtype %s, want fp32, fp64 or bf16",
                         kern_dtype_name(mat->dtype));
    void *staging = base_alloc(ctx, (size_t)bytes, "download staging");
    if (staging == NULL) return BASE_ERR_NOMEM;
    st = base_download(stream, staging, mat->mem, bytes);
    const base_status_t synced = base_stream_sync(stream);
    st = st < 0 ? st : synced;
    for (int64_t r = 0; r < mat->rows && st >= 0; r++)
        data_dtype_to_double(from, (const unsigned char *)staging + r * row_bytes,
                             values + r * mat->cols, mat->cols);
    base_free(ctx, staging);
    return st;
}
