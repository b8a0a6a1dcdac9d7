#include "tests/unit/kernels/lora_rig.h"

#include "kernels/dropout.h"

#include <math.h>
#include <stdlib.h>

/* ==== set-up ==== */

static void add_runs(lora_rig_t *rig, const kern_case_lora_t *c)
{
    int64_t row = 0;

    for (int32_t i = 0; i < c->num_runs; i++)
        rig->T += c->run_rows[i];
    rig->row_adapter = calloc((size_t)rig->T + 1, sizeof *rig->row_adapter);
    rig->document = calloc((size_t)rig->T + 1, sizeof *rig->document);
    rig->position = calloc((size_t)rig->T + 1, sizeof *rig->position);
    assert_true(rig->row_adapter != NULL && rig->document != NULL && rig->position != NULL);
    for (int32_t i = 0; i < c->num_runs; i++) {
        if (c->run_adapter[i] >= 0)
            rig->segments[rig->num_segments++] =
                (kern_lora_segment_t){row, row + c->run_rows[i], c->run_adapter[i], 0};
        for (int32_t j = 0; j < c->run_rows[i]; j++, row++) {
            rig->row_adapter[row] = c->run_adapter[i];
            /* all bits of a document's number are in use */
            rig->document[row] = (INT64_C(0x7edcba98) << 32 | 0xf0000000) + i;
            rig->position[row] = 1000 + j;
        }
    }
}

static void add_blocks(lora_rig_t *rig, const kern_case_lora_t *c)
{
    int64_t out_column = 0;

    for (int32_t i = 0; i < c->num_adapters; i++) {
        rig->adapters[i] = (kern_lora_adapter_t){
            0.5 + i, c->dropout[i], UINT64_C(0x100000007) * (c->seed + 1) + (uint64_t)i,
            (uint32_t)(17 + i), 0};
        rig->has_dropout |= c->dropout[i] > 0;
    }
    for (int32_t m = 0; m < c->num_modules; m++, out_column += c->out[m - 1])
        for (int32_t i = 0; i < c->num_adapters; i++) {
            const int32_t n = rig->num_blocks++;

            rig->out[n] = c->out[m];
            rig->blocks[n] = (kern_lora_block_t){.adapter = i,
                                                 .module = m + 2,
                                                 .column = rig->C,
                                                 .rank = c->rank[i],
                                                 .out_column = out_column};
            rig->C += c->rank[i] + 1;
        }
    rig->N = out_column;
}

static void add_values(lora_rig_t *rig, uint64_t seed)
{
    rig->x = op_doubles(rig->T * rig->K);
    rig->w = op_doubles(rig->N * rig->K);
    rig->g = op_doubles(rig->T * rig->N);
    rig->y = op_doubles(rig->T * rig->N);
    rig->s = op_doubles(rig->T * rig->C);
    rig->ds = op_doubles(rig->T * rig->C);
    rig->dx = op_doubles(rig->T * rig->K);
    op_random_fill(seed, rig->T * rig->K, rig->x);
    op_random_fill(seed + 1, rig->N * rig->K, rig->w);
    op_random_fill(seed + 2, rig->T * rig->N, rig->g);
    for (int32_t n = 0; n < rig->num_blocks; n++) {
        const int64_t rank = rig->blocks[n].rank;

        rig->a[n] = op_doubles(rank * rig->K);
        rig->b[n] = op_doubles(rig->out[n] * rank);
        rig->da[n] = op_doubles(rank * rig->K);
        rig->db[n] = op_doubles(rig->out[n] * rank);
        op_random_fill(seed + 10 + (uint64_t)n, rank * rig->K, rig->a[n]);
        op_random_fill(seed + 30 + (uint64_t)n, rig->out[n] * rank, rig->b[n]);
    }
}

/* A part of `t` that begins at (row, col). */
static kern_mat_t part(const op_tensor_t *t, int64_t row, int64_t col, int64_t rows, int64_t cols)
{
    const int64_t at = (row * t->mat.pitch + col) * kern_dtype_bytes(t->mat.dtype);

    return kern_mat(base_mem_at(t->mat.mem, at), rows, cols, t->mat.pitch, t->mat.dtype);
}

kern_mat_t lora_rig_left(const op_tensor_t *t, int64_t cols)
{
    return part(t, 0, 0, t->mat.rows, cols);
}

kern_mat_t lora_rig_right(const op_tensor_t *t, int64_t first)
{
    return part(t, 0, first, t->mat.rows, t->mat.cols - first);
}

static void add_tensors(lora_rig_t *rig, int64_t pad)
{
    op_fixture_t *fx = rig->fx;
    const kern_dtype_t dtype = rig->dtype;
    const int64_t T = rig->T, K = rig->K, N = rig->N, C = rig->C;
    double *pairs = op_doubles(2 * T), *positions = op_doubles(T);

    for (int64_t t = 0; t < T; t++) {
        pairs[2 * t] = (double)(int32_t)(uint32_t)(rig->document[t] & 0xffffffff);
        pairs[2 * t + 1] = (double)(int32_t)(rig->document[t] >> 32);
        positions[t] = (double)rig->position[t];
    }
    rig->t_documents = op_tensor_from(fx, T, 2, 2 + (pad > 0), KERN_I32, pairs);
    rig->t_positions = op_tensor_from(fx, 1, T, T, KERN_I32, positions);
    rig->t_x = op_tensor(fx, T, K + C, K + C + pad, dtype);
    rig->t_w = op_tensor(fx, N + C, K + C, K + C + pad, dtype);
    rig->t_y = op_tensor(fx, T, N, N + pad, dtype);
    rig->t_dy = op_tensor(fx, T, N + C, N + C + pad, dtype);
    rig->t_dx = op_tensor(fx, T, K, K + pad, dtype);
    for (int32_t n = 0; n < rig->num_blocks; n++) {
        kern_lora_block_t *block = &rig->blocks[n];

        rig->t_da[n] = op_tensor(fx, block->rank, K, K + pad, dtype);
        rig->t_db[n] = op_tensor(fx, rig->out[n], block->rank, block->rank + pad, dtype);
        block->a = part(&rig->t_w, N + block->column, 0, block->rank, K);
        block->b = part(&rig->t_w, block->out_column, K + block->column, rig->out[n], block->rank);
        block->da = rig->t_da[n].mat;
        block->db = rig->t_db[n].mat;
    }
    free(pairs);
    free(positions);
}

lora_rig_t lora_rig(op_fixture_t *fx, const kern_case_lora_t *c, kern_dtype_t dtype)
{
    lora_rig_t rig = {.fx = fx, .dtype = dtype, .K = c->in, .C = 1, .layer = 3};

    rig.num_adapters = c->num_adapters;
    add_runs(&rig, c);
    add_blocks(&rig, c);
    add_values(&rig, c->seed);
    add_tensors(&rig, c->pad);
    return rig;
}

void lora_rig_end(lora_rig_t *rig)
{
    op_tensor_t *const tensors[] = {&rig->t_x,  &rig->t_w,         &rig->t_y,        &rig->t_dy,
                                    &rig->t_dx, &rig->t_documents, &rig->t_positions};
    double *const values[] = {rig->x, rig->w, rig->g, rig->y, rig->s, rig->ds, rig->dx};

    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++)
        op_tensor_end(tensors[i]);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        free(values[i]);
    for (int32_t n = 0; n < rig->num_blocks; n++) {
        op_tensor_end(&rig->t_da[n]);
        op_tensor_end(&rig->t_db[n]);
        free(rig->a[n]);
        free(rig->b[n]);
        free(rig->da[n]);
        free(rig->db[n]);
    }
    free(rig->row_adapter);
    free(rig->document);
    free(rig->position);
}

kern_lora_route_t lora_rig_route(const lora_rig_t *rig)
{
    const kern_lora_route_t route = {rig->num_segments,    rig->num_adapters,    rig->num_blocks,
                                     rig->segments,        rig->adapters,        rig->blocks,
                                     rig->t_documents.mat, rig->t_positions.mat, rig->layer};

    return route;
}

/* ==== by the ops ==== */

/* [W B; A 0] with zeros where nobody's columns are and NaN in the corner. */
static void upload_weights(lora_rig_t *rig)
{
    const int64_t K = rig->K, N = rig->N, C = rig->C, cols = K + C;
    double *image = op_doubles((N + C) * cols);

    for (int64_t i = N; i < N + C; i++)
        for (int64_t j = K; j < cols; j++)
            image[i * cols + j] = (double)NAN;
    for (int64_t i = 0; i < N; i++)
        memcpy(image + i * cols, rig->w + i * K, (size_t)K * sizeof *image);
    for (int32_t n = 0; n < rig->num_blocks; n++) {
        const kern_lora_block_t *block = &rig->blocks[n];

        for (int64_t r = 0; r < block->rank; r++) {
            memcpy(image + (N + block->column + r) * cols, rig->a[n] + r * K,
                   (size_t)K * sizeof *image);
            for (int64_t i = 0; i < rig->out[n]; i++)
                image[(block->out_column + i) * cols + K + block->column + r] =
                    rig->b[n][i * block->rank + r];
        }
    }
    op_tensor_set(&rig->t_w, image);
    free(image);
}

/* `values` into the left columns, NaN into the extra ones, which are to be written. */
static void upload_left(op_tensor_t *t, const double *values, int64_t cols)
{
    double *image = op_doubles(t->mat.rows * t->mat.cols);

    for (int64_t i = 0; i < t->mat.rows; i++)
        for (int64_t j = 0; j < t->mat.cols; j++)
            image[i * t->mat.cols + j] = j < cols ? values[i * cols + j] : (double)NAN;
    op_tensor_set(t, image);
    free(image);
}

static void download_right(op_tensor_t *t, double *values, int64_t first)
{
    const int64_t cols = t->mat.cols - first;
    double *image = op_doubles(t->mat.rows * t->mat.cols);

    op_tensor_get(t, image);
    for (int64_t i = 0; i < t->mat.rows; i++)
        memcpy(values + i * cols, image + i * t->mat.cols + first, (size_t)cols * sizeof *values);
    free(image);
}

void lora_rig_forward(lora_rig_t *rig)
{
    const kern_mat_t x = lora_rig_left(&rig->t_x, rig->K), s = lora_rig_right(&rig->t_x, rig->K);

    upload_weights(rig);
    upload_left(&rig->t_x, rig->x, rig->K);
    op_run(rig->fx, lora_s, (&(kern_lora_s_t){lora_rig_route(rig), x, s}));
    op_run(rig->fx, gemm,
           (&(kern_gemm_t){rig->t_x.mat, part(&rig->t_w, 0, 0, rig->N, rig->K + rig->C),
                           rig->t_y.mat, 0, 1, 0}));
    op_tensor_get(&rig->t_y, rig->y);
    download_right(&rig->t_x, rig->s, rig->K);
}

void lora_rig_backward(lora_rig_t *rig, int apart)
{
    op_fixture_t *fx = rig->fx;
    const kern_lora_route_t route = lora_rig_route(rig);
    const kern_mat_t x = lora_rig_left(&rig->t_x, rig->K), s = lora_rig_right(&rig->t_x, rig->K);
    const kern_mat_t dy = lora_rig_left(&rig->t_dy, rig->N),
                     ds = lora_rig_right(&rig->t_dy, rig->N);

    upload_left(&rig->t_dy, rig->g, rig->N);
    for (int32_t n = 0; n < rig->num_blocks; n++) {
        op_tensor_set(&rig->t_da[n], rig->da[n]);
        op_tensor_set(&rig->t_db[n], rig->db[n]);
    }
    if (apart) {
        op_run(fx, lora_ds, (&(kern_lora_ds_t){route, dy, ds}));
        op_run(fx, lora_db, (&(kern_lora_db_t){route, dy, s}));
    } else {
        op_run(fx, lora_dy, (&(kern_lora_dy_t){route, dy, s, ds}));
    }
    apart |= rig->has_dropout;
    op_run(fx, gemm,
           (&(kern_gemm_t){apart ? dy : rig->t_dy.mat,
                           part(&rig->t_w, 0, 0, apart ? rig->N : rig->N + rig->C, rig->K),
                           rig->t_dx.mat, 0, 0, 0}));
    if (apart) op_run(fx, lora_dx_dropout, (&(kern_lora_dx_dropout_t){route, ds, rig->t_dx.mat}));
    op_run(fx, lora_da, (&(kern_lora_da_t){route, x, ds}));
    download_right(&rig->t_dy, rig->ds, rig->N);
    op_tensor_get(&rig->t_dx, rig->dx);
    for (int32_t n = 0; n < rig->num_blocks; n++) {
        op_tensor_get(&rig->t_da[n], rig->da[n]);
        op_tensor_get(&rig->t_db[n], rig->db[n]);
    }
}

/* ==== by plain loops ==== */

double lora_rig_mask(const lora_rig_t *rig, int32_t block, int64_t t, int64_t j)
{
    const kern_lora_adapter_t *adapter = &rig->adapters[rig->blocks[block].adapter];
    const base_philox_key_t key = kern_dropout_key(
        adapter->seed, adapter->step, (uint32_t)rig->layer, (uint32_t)rig->blocks[block].module);
    const base_philox_t r =
        kern_dropout_words(key, rig->document[t], rig->position[t], kern_dropout_block(j));
    const uint32_t limit = kern_dropout_limit(r, kern_dropout_threshold(adapter->dropout));

    if (!kern_dropout_keeps(r, limit, j)) return 0;
    return kern_dropout_factor(adapter->dropout);
}

static void reference_row(lora_rig_t *rig, int32_t n, int64_t t, double *kept)
{
    const kern_lora_block_t *block = &rig->blocks[n];
    const double scale = rig->adapters[block->adapter].scale;
    const double *x = rig->x + t * rig->K, *g = rig->g + t * rig->N + block->out_column;
    double *y = rig->y + t * rig->N + block->out_column;

    for (int64_t j = 0; j < rig->K; j++)
        kept[j] = lora_rig_mask(rig, n, t, j);
    for (int64_t r = 0; r < block->rank; r++) {
        double *s = rig->s + t * rig->C + block->column + r,
               *ds = rig->ds + t * rig->C + block->column + r;

        for (int64_t j = 0; j < rig->K; j++)
            *s += scale * kept[j] * x[j] * rig->a[n][r * rig->K + j];
        for (int64_t i = 0; i < rig->out[n]; i++)
            *ds += scale * g[i] * rig->b[n][i * block->rank + r];
        for (int64_t i = 0; i < rig->out[n]; i++) {
            y[i] += *s * rig->b[n][i * block->rank + r];
            rig->db[n][i * block->rank + r] += g[i] * *s;
        }
        for (int64_t j = 0; j < rig->K; j++) {
            rig->dx[t * rig->K + j] += kept[j] * *ds * rig->a[n][r * rig->K + j];
            rig->da[n][r * rig->K + j] += *ds * kept[j] * x[j];
        }
    }
}

void lora_rig_reference(lora_rig_t *rig)
{
    double *kept = op_doubles(rig->K);

    memset(rig->s, 0, (size_t)(rig->T * rig->C) * sizeof *rig->s);
    memset(rig->ds, 0, (size_t)(rig->T * rig->C) * sizeof *rig->ds);
    memset(rig->dx, 0, (size_t)(rig->T * rig->K) * sizeof *rig->dx);
    for (int64_t t = 0; t < rig->T; t++)
        for (int64_t i = 0; i < rig->N; i++) {
            rig->y[t * rig->N + i] = op_dot(rig->x + t * rig->K, rig->w + i * rig->K, rig->K);
            for (int64_t j = 0; j < rig->K; j++)
                rig->dx[t * rig->K + j] += rig->g[t * rig->N + i] * rig->w[i * rig->K + j];
        }
    for (int32_t n = 0; n < rig->num_blocks; n++)
        for (int64_t t = 0; t < rig->T; t++)
            if (rig->row_adapter[t] == rig->blocks[n].adapter) reference_row(rig, n, t, kept);
    free(kept);
}
