/* A linear layer with adapters against its definition, row by row in double:
 *   y = x W^T + scale dropout(x) A^T B^T of the row's adapter and module, and its derivatives.
 * Adapters with and without dropout and one that is not in the microbatch but has columns; a
 * spanning document's tail comes first in pong. */
#include "tests/support/adapter_rig.h"

#include "kernels/dropout.h"

#include <math.h>
#include <stdlib.h>

#define ROWS ADAPTER_RIG_ROWS

static const lora_adapter_options_t options[] = {
    {.name = "plain", .rank = 3, .scale = 1.5, .targets = BASE_CONFIG_TARGET_ALL, .seed = 1},
    {.name = "masked",
     .rank = 2,
     .scale = 0.7,
     .dropout = 0.4,
     .targets = BASE_CONFIG_TARGET_ALL & ~(uint32_t)BASE_CONFIG_TARGET_K,
     .seed = 2},
    {.name = "absent", .rank = 4, .scale = 3.0, .targets = BASE_CONFIG_TARGET_ALL, .seed = 3},
    {.name = "second",
     .rank = 1,
     .scale = 2.0,
     .targets = BASE_CONFIG_TARGET_V | BASE_CONFIG_TARGET_UP,
     .seed = 4}};

typedef struct linear_case {
    adapter_rig_t rig;
    double *values[4];
    int32_t adapter[ROWS], document[2 * ROWS], position[ROWS]; /* of pong; -1: pad */
    op_tensor_t documents, positions;
} linear_case_t;

/* pong: the tail of a masked document, then plain, second, masked with gaps. */
static void lay_out(linear_case_t *c)
{
    adapter_rig_t *rig = &c->rig;

    adapter_rig_begin(rig);
    adapter_rig_document(rig, 1, 7, 140, 128, 0, 0);
    adapter_rig_document(rig, 0, 2, 30, 0, 0, 12);
    adapter_rig_document(rig, 3, 0, 25, 0, 0, 60);
    adapter_rig_document(rig, 1, 9, 41, 0, 0, 85);
    assert_int_equal(data_batch_finish(rig->batch), BASE_OK);
    for (int64_t i = 0; i < ROWS; i++)
        c->adapter[i] = -1;
    for (int32_t p = 0; p < rig->batch->num_pieces; p++) {
        const data_piece_t *piece = &rig->batch->pieces[p];
        const data_document_t *doc = &rig->batch->documents[piece->document];

        if (piece->half != DATA_PONG) continue;
        for (int64_t i = 0; i < piece->rows; i++) {
            c->adapter[piece->local_row + i] = doc->adapter;
            c->document[2 * (piece->local_row + i)] = (int32_t)doc->index;
            c->position[piece->local_row + i] = (int32_t)(piece->doc_row + i);
        }
    }
}

static op_tensor_t integers(op_fixture_t *fx, int64_t rows, int64_t cols, const int32_t *values)
{
    double *wide = op_doubles(rows * cols);

    for (int64_t i = 0; i < rows * cols; i++)
        wide[i] = values[i];
    const op_tensor_t t = op_tensor_from(fx, rows, cols, cols, KERN_I32, wide);
    free(wide);
    return t;
}

static void begin(linear_case_t *c, op_fixture_t *fx, kern_dtype_t dtype, int evaluate)
{
    static const int32_t used[] = {0, 1, 3};
    lora_route_rows_t rows = {0};

    memset(c, 0, sizeof *c);
    c->rig = adapter_rig(fx, dtype, options, 4, 10);
    for (int32_t a = 0; a < 4; a++) {
        c->values[a] = adapter_rig_write(&c->rig, a, 30 + (uint64_t)a);
        c->rig.set->adapters[a].step = 5;
    }
    lay_out(c);
    c->documents = integers(fx, ROWS, 2, c->document);
    c->positions = integers(fx, 1, ROWS, c->position);
    rows.documents[DATA_PONG] = c->documents.mat;
    rows.positions[DATA_PONG] = c->positions.mat;
    adapter_rig_place(&c->rig, 0, (const int32_t[]){0, 1, 2, 3}, 4); /* all have columns */
    adapter_rig_place(&c->rig, 1, used, 3);
    assert_int_equal(lora_route_install(c->rig.route, c->rig.batch, 0, used, 3, &rows, evaluate),
                     BASE_OK);
}

static void end(linear_case_t *c)
{
    op_fixture_sync(c->rig.fx);
    op_tensor_end(&c->documents);
    op_tensor_end(&c->positions);
    for (int32_t a = 0; a < 4; a++)
        free(c->values[a]);
    adapter_rig_end(&c->rig);
}

/* ==== the definition ==== */

/* By what x's element is multiplied: 0 or 1 / (1 - p). */
static double mask(const linear_case_t *c, int64_t row, const lora_module_t *m, int64_t column,
                   int evaluate)
{
    const lora_adapter_options_t *o = &options[c->adapter[row]];

    if (evaluate || o->dropout == 0.0) return 1.0;
    const base_philox_key_t key =
        kern_dropout_key(o->seed, 5, (uint32_t)m->layer, (uint32_t)m->target);
    const base_philox_t words =
        kern_dropout_words(key, c->document[2 * row], c->position[row], kern_dropout_block(column));
    const uint32_t limit = kern_dropout_limit(words, kern_dropout_threshold(o->dropout));

    return kern_dropout_keeps(words, limit, column) ? kern_dropout_factor(o->dropout) : 0.0;
}

typedef struct reference {
    double *y, *dx, *gradient[4];
} reference_t;

/* One row and one module: adds to y, dx, dA, dB. */
static void add_module(const linear_case_t *c, int64_t row, int32_t a, const lora_module_t *m,
                       const double *x, const double *dy, int evaluate, int64_t n,
                       const reference_t *to)
{
    const int64_t rank = options[a].rank, out = lora_target_out_column(&c->rig.spec, m->target);
    const double *va = c->values[a] + m->a, *vb = c->values[a] + m->b;
    double *da = to->gradient[a] + m->a, *db = to->gradient[a] + m->b;

    for (int64_t r = 0; r < rank; r++) {
        double s = 0.0, ds = 0.0;

        for (int64_t j = 0; j < m->in; j++)
            s += x[row * m->in + j] * mask(c, row, m, j, evaluate) * va[r * m->in + j];
        for (int64_t o = 0; o < m->out; o++) {
            to->y[row * n + out + o] += options[a].scale * s * vb[o * rank + r];
            ds += options[a].scale * dy[row * n + out + o] * vb[o * rank + r];
            db[o * rank + r] += options[a].scale * s * dy[row * n + out + o];
        }
        for (int64_t j = 0; j < m->in; j++) {
            const double kept = mask(c, row, m, j, evaluate);
            da[r * m->in + j] += ds * kept * x[row * m->in + j];
            to->dx[row * m->in + j] += ds * kept * va[r * m->in + j];
        }
    }
}

static reference_t compute(linear_case_t *c, int32_t layer, lora_linear_t linear, const double *x,
                           const double *dy, int evaluate)
{
    reference_t to;
    int64_t n, k;

    adapter_rig_shape(&c->rig, linear, &n, &k);
    double *w = adapter_rig_weight(&c->rig, layer, linear);
    to.y = op_doubles(ROWS * n);
    to.dx = op_doubles(ROWS * k);
    for (int32_t a = 0; a < 4; a++)
        to.gradient[a] = op_doubles(c->rig.set->adapters[a].layout->count);
    for (int64_t row = 0; row < ROWS; row++) {
        for (int64_t o = 0; o < n; o++) {
            for (int64_t j = 0; j < k; j++) {
                to.y[row * n + o] += x[row * k + j] * w[o * (k + c->rig.beside) + j];
                to.dx[row * k + j] += dy[row * n + o] * w[o * (k + c->rig.beside) + j];
            }
        }
        const int32_t a = c->adapter[row];
        const lora_layout_t *layout = a < 0 ? NULL : c->rig.set->adapters[a].layout;
        for (int64_t i = 0; layout != NULL && i < layout->num_modules; i++) {
            const lora_module_t *m = &layout->modules[i];
            if (m->layer == layer && lora_target_linear(m->target) == linear)
                add_module(c, row, a, m, x, dy, evaluate, n, &to);
        }
    }
    free(w);
    return to;
}

/* ==== the layer ==== */

/* Rows of `cols` values with C more columns and a gap, which hold NaN: what is read there must have been
 * written. The operand is the first `cols` of them. */
static op_tensor_t widened(linear_case_t *c, int64_t cols, const double *values, kern_mat_t *mat)
{
    const int64_t pitch = cols + c->rig.beside;
    double *wide = op_doubles(ROWS * pitch);

    for (int64_t i = 0; i < ROWS * pitch; i++)
        wide[i] = i % pitch < cols ? values[i / pitch * cols + i % pitch] : (double)NAN;
    const op_tensor_t t = op_tensor_from(c->rig.fx, ROWS, pitch, pitch, c->rig.dtype, wide);
    *mat = t.mat;
    mat->cols = cols;
    free(wide);
    return t;
}

static void check_gradients(linear_case_t *c, const reference_t *want, double tolerance)
{
    for (int32_t a = 0; a < 4; a++) {
        double *got = adapter_rig_read(&c->rig, a, c->rig.set->adapters[a].gradient);
        op_assert_close(got, want->gradient[a], c->rig.set->adapters[a].layout->count, tolerance);
        free(got);
    }
}

static void check_linear(linear_case_t *c, int32_t layer, lora_linear_t linear, int evaluate,
                         double tolerance)
{
    op_fixture_t *fx = c->rig.fx;
    kern_mat_t mx, mdy;
    int64_t n, k;

    adapter_rig_shape(&c->rig, linear, &n, &k);
    double *x = op_doubles(ROWS * k), *dy = op_doubles(ROWS * n), *got = op_doubles(ROWS * (n + k));
    op_random_fill(1, ROWS * k, x);
    op_random_fill(2, ROWS * n, dy);
    for (int64_t i = 0; i < ROWS * n; i++)
        dy[i] = c->adapter[i / n] < 0 ? 0.0 : dy[i]; /* nothing flows into pad rows */
    const reference_t want = compute(c, layer, linear, x, dy, evaluate);
    op_tensor_t tx = widened(c, k, x, &mx), tdy = widened(c, n, dy, &mdy);
    op_tensor_t y = op_tensor(fx, ROWS, n, n, c->rig.dtype);
    op_tensor_t dx = op_tensor(fx, ROWS, k, k, c->rig.dtype);

    assert_int_equal(lora_linear_forward(c->rig.route, layer, linear, DATA_PONG, mx, y.mat, fx->s),
                     BASE_OK);
    op_tensor_get(&y, got);
    op_assert_close(got, want.y, ROWS * n, tolerance);
    if (!evaluate) {
        assert_int_equal(
            lora_linear_backward(c->rig.route, layer, linear, DATA_PONG, mdy, mx, dx.mat, fx->s),
            BASE_OK);
        op_tensor_get(&dx, got);
        op_assert_close(got, want.dx, ROWS * k, tolerance);
        check_gradients(c, &want, tolerance);
    }
    op_tensor_end(&tx);
    op_tensor_end(&tdy);
    op_tensor_end(&y);
    op_tensor_end(&dx);
    for (int32_t a = 0; a < 4; a++)
        free(want.gradient[a]);
    free(want.y);
    free(want.dx);
    free(x);
    free(dy);
    free(got);
}

/* Sums of at most 256 rows of products of order 1: roundings of 1e-16 and 6e-8 each. */
static void check_all(op_fixture_t *fx, kern_dtype_t dtype, double tolerance, int evaluate)
{
    for (int linear = 0; linear < LORA_NUM_LINEARS; linear++) {
        linear_case_t c;

        begin(&c, fx, dtype, evaluate);
        check_linear(&c, linear % 2, (lora_linear_t)linear, evaluate, tolerance);
        end(&c);
    }
}

static void test_training(void **state)
{
    check_all(*state, KERN_F64, 1e-13, 0);
    check_all(*state, KERN_F32, 1e-5, 0);
}

/* No masks. */
static void test_evaluation(void **state)
{
    check_all(*state, KERN_F64, 1e-13, 1);
}

/* A backward whose dx is not wanted makes the same gradients. */
static void test_without_dx(void **state)
{
    const lora_linear_t linear = LORA_LINEAR_GATE_UP;
    op_fixture_t *fx = *state;
    const kern_mat_t none = {0};
    kern_mat_t mx, mdy;
    linear_case_t c;
    int64_t n, k;

    begin(&c, fx, KERN_F64, 0);
    adapter_rig_shape(&c.rig, linear, &n, &k);
    double *x = op_doubles(ROWS * k), *dy = op_doubles(ROWS * n);
    op_random_fill(1, ROWS * k, x);
    op_random_fill(2, ROWS * n, dy);
    const reference_t want = compute(&c, 0, linear, x, dy, 0);
    op_tensor_t tx = widened(&c, k, x, &mx), tdy = widened(&c, n, dy, &mdy);
    op_tensor_t y = op_tensor(fx, ROWS, n, n, KERN_F64);

    assert_int_equal(lora_linear_forward(c.rig.route, 0, linear, DATA_PONG, mx, y.mat, fx->s),
                     BASE_OK);
    assert_int_equal(lora_linear_backward(c.rig.route, 0, linear, DATA_PONG, mdy, mx, none, fx->s),
                     BASE_OK);
    check_gradients(&c, &want, 1e-13);
    op_tensor_end(&tx);
    op_tensor_end(&tdy);
    op_tensor_end(&y);
    for (int32_t a = 0; a < 4; a++)
        free(want.gradient[a]);
    free(want.y);
    free(want.dx);
    free(x);
    free(dy);
    end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training),
        cmocka_unit_test(test_evaluation),
        cmocka_unit_test(test_without_dx),
    };

    return OP_FIXTURE_RUN(tests);
}
