/* Backward ops of rows against differences of sum(y g) in double: rmsnorm, head_norm, swiglu,
 * embedding, bias, gemm. */
#include "tests/support/op_fixture.h"

#include "kernels/cases/op_cases.h"

#include <math.h>
#include <stdlib.h>

#define SAMPLES 40

/* ==== rmsnorm ==== */

typedef struct norm {
    op_fixture_t *fx;
    int64_t rows, cols, pad;
    double *x, *w, *g, *y, *rstd, *res, *dx, *dw;
} norm_t;

static double norm_scalar(void *user)
{
    norm_t *n = user;
    op_tensor_t x = op_tensor_from(n->fx, n->rows, n->cols, n->cols + n->pad, KERN_F64, n->x);
    op_tensor_t w = op_tensor_from(n->fx, 1, n->cols, n->cols, KERN_F64, n->w);
    op_tensor_t y = op_tensor(n->fx, n->rows, n->cols, n->cols, KERN_F64);
    op_tensor_t rstd = op_tensor(n->fx, 1, n->rows, n->rows, KERN_F64);

    op_run(n->fx, rmsnorm_fwd, (&(kern_rmsnorm_fwd_t){x.mat, w.mat, y.mat, rstd.mat, 1e-3}));
    op_tensor_get(&y, n->y);
    op_tensor_get(&rstd, n->rstd);
    op_tensor_end(&x);
    op_tensor_end(&w);
    op_tensor_end(&y);
    op_tensor_end(&rstd);
    return op_dot(n->y, n->g, n->rows * n->cols);
}

/* dw begins at 1; the residual's gradient is in dx itself, as in the model. */
static void norm_backward(norm_t *n)
{
    op_tensor_t x = op_tensor_from(n->fx, n->rows, n->cols, n->cols + n->pad, KERN_F64, n->x);
    op_tensor_t w = op_tensor_from(n->fx, 1, n->cols, n->cols, KERN_F64, n->w);
    op_tensor_t dy = op_tensor_from(n->fx, n->rows, n->cols, n->cols + 1, KERN_F64, n->g);
    op_tensor_t rstd = op_tensor_from(n->fx, 1, n->rows, n->rows, KERN_F64, n->rstd);
    op_tensor_t dx = op_tensor_from(n->fx, n->rows, n->cols, n->cols + 2, KERN_F64, n->res);
    op_tensor_t dw = op_tensor_from(n->fx, 1, n->cols, n->cols, KERN_F64, n->dw);
    op_tensor_t *const all[] = {&x, &w, &dy, &rstd, &dx, &dw};
    kern_rmsnorm_bwd_t args = {dy.mat, x.mat, w.mat, rstd.mat, dx.mat, dx.mat, dw.mat};

    op_run(n->fx, rmsnorm_bwd, &args);
    op_tensor_get(&dx, n->dx);
    op_tensor_get(&dw, n->dw);
    args.dres.mem.buffer = args.dw.mem.buffer = NULL;
    op_run(n->fx, rmsnorm_bwd, &args);
    op_tensor_get(&dx, n->y);
    for (int64_t i = 0; i < n->rows * n->cols; i++)
        assert_true(fabs(n->y[i] + n->res[i] - n->dx[i]) < 1e-13);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        op_tensor_end(all[i]);
}

static void norm_case(op_fixture_t *fx, const kern_case_rows_t *c)
{
    const int64_t count = c->rows * c->cols;
    norm_t n = {fx,
                c->rows,
                c->cols,
                c->pad,
                op_doubles(count),
                op_doubles(c->cols),
                op_doubles(count),
                op_doubles(count),
                op_doubles(c->rows),
                op_doubles(count),
                op_doubles(count),
                op_doubles(c->cols)};
    double *const all[] = {n.x, n.w, n.g, n.y, n.rstd, n.res, n.dx, n.dw};

    op_random_fill(c->seed, count, n.x);
    op_random_fill(c->seed + 1, c->cols, n.w);
    op_random_fill(c->seed + 2, count, n.g);
    op_random_fill(c->seed + 3, count, n.res);
    for (int64_t i = 0; i < c->cols; i++)
        n.dw[i] = 1;
    /* x of one row and two columns may be small against the step */
    for (int64_t i = 0; i < count; i++)
        n.x[i] += n.x[i] > 0 ? 0.5 : -0.5;
    (void)norm_scalar(&n);
    norm_backward(&n);
    for (int64_t i = 0; i < count; i++)
        n.dx[i] -= n.res[i];
    for (int64_t i = 0; i < c->cols; i++)
        n.dw[i] -= 1;
    op_assert_gradient(n.x, count, n.dx, norm_scalar, &n, SAMPLES, c->seed);
    op_assert_gradient(n.w, c->cols, n.dw, norm_scalar, &n, SAMPLES, c->seed);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

static void test_rmsnorm(void **state)
{
    for (int i = 0; i < num_kern_cases_rows; i++)
        norm_case(*state, &kern_cases_rows[i]);
}

/* ==== head_norm, of the k columns of a fused projection, in place ==== */

typedef struct heads {
    op_fixture_t *fx;
    const kern_case_rope_t *c;
    int64_t first, heads, cols, width; /* columns [first, first + cols) of `width` */
    double *x, *y;                     /* rows x width */
    double *w, *g, *dx, *rstd, *dw;
} heads_t;

static op_tensor_t fused(const heads_t *n, const double *values)
{
    return op_tensor_from(n->fx, n->c->rows, n->width, n->width + n->c->pad, KERN_F64, values);
}

static kern_mat_t k_columns(const heads_t *n, const op_tensor_t *fused)
{
    kern_mat_t mat = fused->mat;

    mat.mem.offset += n->first * kern_dtype_bytes(KERN_F64);
    mat.cols = n->cols;
    return mat;
}

static double heads_scalar(void *user)
{
    heads_t *n = user;
    op_tensor_t x = fused(n, n->x);
    op_tensor_t w = op_tensor_from(n->fx, 1, n->c->head_dim, n->c->head_dim, KERN_F64, n->w);
    op_tensor_t rstd = op_tensor(n->fx, n->c->rows, n->heads, n->heads + 1, KERN_F64);
    const kern_mat_t k = k_columns(n, &x);
    double sum = 0;

    op_run(n->fx, head_norm_fwd,
           (&(kern_head_norm_fwd_t){k, w.mat, k, rstd.mat, n->c->head_dim, 1e-3}));
    op_tensor_get(&x, n->y);
    op_tensor_get(&rstd, n->rstd);
    op_tensor_end(&x);
    op_tensor_end(&w);
    op_tensor_end(&rstd);
    for (int64_t t = 0; t < n->c->rows; t++)
        sum += op_dot(n->y + t * n->width + n->first, n->g + t * n->cols, n->cols);
    return sum;
}

/* dw begins at 1. First with a dx of its own, then in place and without dw: the same bits. */
static void heads_backward(heads_t *n)
{
    const int64_t rows = n->c->rows, dim = n->c->head_dim, count = rows * n->cols;
    op_tensor_t x = fused(n, n->x), w = op_tensor_from(n->fx, 1, dim, dim, KERN_F64, n->w);
    op_tensor_t dy = op_tensor_from(n->fx, rows, n->cols, n->cols + 1, KERN_F64, n->g);
    op_tensor_t dx = op_tensor(n->fx, rows, n->cols, n->cols + 2, KERN_F64);
    op_tensor_t rstd = op_tensor_from(n->fx, rows, n->heads, n->heads + 1, KERN_F64, n->rstd);
    op_tensor_t dw = op_tensor_from(n->fx, 1, dim, dim, KERN_F64, n->dw);
    op_tensor_t *const all[] = {&x, &w, &dy, &dx, &rstd, &dw};
    kern_head_norm_bwd_t args = {dy.mat, k_columns(n, &x), w.mat,         rstd.mat,
                                 dx.mat, dw.mat,           n->c->head_dim};
    double *in_place = op_doubles(count);

    op_run(n->fx, head_norm_bwd, &args);
    op_tensor_get(&dx, n->dx);
    op_tensor_get(&dw, n->dw);
    args.dx = dy.mat;
    args.dw.mem.buffer = NULL;
    op_run(n->fx, head_norm_bwd, &args);
    op_tensor_get(&dy, in_place);
    assert_memory_equal(in_place, n->dx, (size_t)count * sizeof *in_place);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        op_tensor_end(all[i]);
    free(in_place);
}

static void heads_case(op_fixture_t *fx, const kern_case_rope_t *c)
{
    const int64_t dim = c->head_dim, cols = c->num_kv_heads * dim, first = c->num_q_heads * dim;
    const int64_t width = first + 2 * cols;
    heads_t n = {fx,
                 c,
                 first,
                 c->num_kv_heads,
                 cols,
                 width,
                 op_doubles(c->rows * width),
                 op_doubles(c->rows * width),
                 op_doubles(dim),
                 op_doubles(c->rows * cols),
                 op_doubles(c->rows * cols),
                 op_doubles(c->rows * c->num_kv_heads),
                 op_doubles(dim)};
    double *const all[] = {n.x, n.y, n.w, n.g, n.dx, n.rstd, n.dw};
    double *wide = op_doubles(c->rows * width); /* dx where x is; 0 in the other columns */

    op_random_fill(c->seed, c->rows * width, n.x);
    op_random_fill(c->seed + 1, dim, n.w);
    op_random_fill(c->seed + 2, c->rows * cols, n.g);
    for (int64_t i = 0; i < c->rows * width; i++) /* a head of two may be small against the step */
        n.x[i] += n.x[i] > 0 ? 0.5 : -0.5;
    for (int64_t i = 0; i < dim; i++)
        n.dw[i] = 1;
    (void)heads_scalar(&n);
    heads_backward(&n);
    for (int64_t i = 0; i < dim; i++)
        n.dw[i] -= 1;
    for (int64_t t = 0; t < c->rows; t++)
        memcpy(wide + t * width + first, n.dx + t * cols, (size_t)cols * sizeof *wide);
    op_assert_gradient(n.x, c->rows * width, wide, heads_scalar, &n, 3 * SAMPLES, c->seed);
    op_assert_gradient(n.w, dim, n.dw, heads_scalar, &n, SAMPLES, c->seed);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    free(wide);
}

static void test_head_norm(void **state)
{
    for (int i = 0; i < num_kern_cases_rope; i++)
        heads_case(*state, &kern_cases_rope[i]);
}

/* ==== swiglu ==== */

typedef struct swiglu {
    op_fixture_t *fx;
    int64_t rows, cols, pad;
    double *x, *g, *y, *dx;
} swiglu_t;

static double swiglu_scalar(void *user)
{
    swiglu_t *s = user;
    op_tensor_t x =
        op_tensor_from(s->fx, s->rows, 2 * s->cols, 2 * s->cols + s->pad, KERN_F64, s->x);
    op_tensor_t y = op_tensor(s->fx, s->rows, s->cols, s->cols, KERN_F64);

    op_run(s->fx, swiglu_fwd, (&(kern_swiglu_fwd_t){x.mat, y.mat}));
    op_tensor_get(&y, s->y);
    op_tensor_end(&x);
    op_tensor_end(&y);
    return op_dot(s->y, s->g, s->rows * s->cols);
}

static void swiglu_case(op_fixture_t *fx, const kern_case_rows_t *c)
{
    const int64_t rows = c->rows, cols = c->cols, count = rows * cols;
    swiglu_t s = {fx,
                  rows,
                  cols,
                  c->pad,
                  op_doubles(2 * count),
                  op_doubles(count),
                  op_doubles(count),
                  op_doubles(2 * count)};
    op_tensor_t x, dact, dx = op_tensor(fx, rows, 2 * cols, 2 * cols + c->pad, KERN_F64);

    op_random_fill(c->seed, 2 * count, s.x);
    op_random_fill(c->seed + 1, count, s.g);
    for (int64_t i = 0; i < 2 * count; i++)
        s.x[i] *= 4;
    x = op_tensor_from(fx, rows, 2 * cols, 2 * cols, KERN_F64, s.x);
    dact = op_tensor_from(fx, rows, cols, cols + 1, KERN_F64, s.g);
    op_run(fx, swiglu_bwd, (&(kern_swiglu_bwd_t){dact.mat, x.mat, dx.mat}));
    op_tensor_get(&dx, s.dx);
    op_assert_gradient(s.x, 2 * count, s.dx, swiglu_scalar, &s, SAMPLES, c->seed);
    op_tensor_end(&x);
    op_tensor_end(&dact);
    op_tensor_end(&dx);
    free(s.x);
    free(s.g);
    free(s.y);
    free(s.dx);
}

static void test_swiglu(void **state)
{
    for (int i = 0; i < num_kern_cases_rows; i++)
        swiglu_case(*state, &kern_cases_rows[i]);
}

/* ==== linear ops: the backward is the transpose, <A x, g> = <x, A^T g>, and needs no differences
 * ==== */

static void test_embedding(void **state)
{
    enum { T = 9, V = 5, H = 7 };
    op_fixture_t *fx = *state;
    const double tokens[T] = {4, 0, 0, 3, 4, 4, 1, 0, 3};
    double dout[T * H], start[V * H], got[V * H], want[V * H];
    op_tensor_t t_tokens = op_tensor_from(fx, 1, T, T, KERN_I32, tokens), t_dout, t_dtable;

    op_random_fill(1, T * H, dout);
    op_random_fill(2, V * H, start);
    memcpy(want, start, sizeof want);
    for (int t = 0; t < T; t++)
        for (int j = 0; j < H; j++)
            want[(int)tokens[t] * H + j] += dout[t * H + j];
    t_dout = op_tensor_from(fx, T, H, H + 3, KERN_F64, dout);
    t_dtable = op_tensor_from(fx, V, H, H + 1, KERN_F64, start);
    op_run(fx, embedding_bwd, (&(kern_embedding_bwd_t){t_tokens.mat, t_dout.mat, t_dtable.mat}));
    op_tensor_get(&t_dtable, got);
    assert_memory_equal(got, want, sizeof want); /* rows ascending: the same bits */
    op_tensor_end(&t_tokens);
    op_tensor_end(&t_dout);
    op_tensor_end(&t_dtable);
}

/* y += bias in each row: the gradient of bias is the sum of the rows, ascending: the same bits. */
static void test_bias(void **state)
{
    enum { T = 23, N = 19 };
    op_fixture_t *fx = *state;
    double g[T * N], bias[N], y[T * N] = {0}, start[N], sum[N], want[N];
    op_tensor_t t_g, t_bias, t_y, t_sum;

    op_random_fill(1, T * N, g);
    op_random_fill(2, N, bias);
    op_random_fill(3, N, start);
    memcpy(want, start, sizeof want);
    for (int t = 0; t < T; t++)
        for (int j = 0; j < N; j++)
            want[j] += g[t * N + j];
    t_g = op_tensor_from(fx, T, N, N + 3, KERN_F64, g);
    t_sum = op_tensor_from(fx, 1, N, N, KERN_F64, start);
    op_run(fx, column_sum, (&(kern_column_sum_t){t_g.mat, t_sum.mat}));
    op_tensor_get(&t_sum, sum);
    assert_memory_equal(sum, want, sizeof want);
    t_bias = op_tensor_from(fx, 1, N, N, KERN_F64, bias);
    t_y = op_tensor_from(fx, T, N, N + 1, KERN_F64, y);
    op_run(fx, bias_add, (&(kern_bias_add_t){t_bias.mat, t_y.mat}));
    op_tensor_get(&t_y, y);
    for (int j = 0; j < N; j++)
        sum[j] -= start[j];
    assert_true(fabs(op_dot(y, g, T * N) - op_dot(bias, sum, N)) < 1e-12);
    op_tensor_end(&t_g);
    op_tensor_end(&t_bias);
    op_tensor_end(&t_y);
    op_tensor_end(&t_sum);
}

/* y = x W^T: dx = dy W, dW += dy^T x */
static void test_gemm(void **state)
{
    enum { M = 21, N = 13, K = 34 };
    op_fixture_t *fx = *state;
    double *x = op_doubles(M * K), *w = op_doubles(N * K), *g = op_doubles(M * N),
           *y = op_doubles(M * N);
    double *dx = op_doubles(M * K), *dw = op_doubles(N * K);
    op_tensor_t tx, tw, tg, ty = op_tensor(fx, M, N, N, KERN_F64),
                            tdx = op_tensor(fx, M, K, K + 1, KERN_F64);
    op_tensor_t tdw = op_tensor_from(fx, N, K, K + 2, KERN_F64, dw); /* zeros */
    op_tensor_t *const all[] = {&tx, &tw, &tg, &ty, &tdx, &tdw};
    double form;

    op_random_fill(1, M * K, x);
    op_random_fill(2, N * K, w);
    op_random_fill(3, M * N, g);
    tx = op_tensor_from(fx, M, K, K, KERN_F64, x);
    tw = op_tensor_from(fx, N, K, K + 3, KERN_F64, w);
    tg = op_tensor_from(fx, M, N, N + 5, KERN_F64, g);
    op_run(fx, gemm, (&(kern_gemm_t){tx.mat, tw.mat, ty.mat, 0, 1, 0}));
    op_run(fx, gemm, (&(kern_gemm_t){tg.mat, tw.mat, tdx.mat, 0, 0, 0}));
    op_run(fx, gemm, (&(kern_gemm_t){tg.mat, tx.mat, tdw.mat, 1, 0, 1}));
    op_tensor_get(&ty, y);
    op_tensor_get(&tdx, dx);
    op_tensor_get(&tdw, dw);
    form = op_dot(y, g, M * N);
    assert_true(fabs(op_dot(dx, x, M * K) - form) < 1e-12 * M * N);
    assert_true(fabs(op_dot(dw, w, N * K) - form) < 1e-12 * M * N);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        op_tensor_end(all[i]);
    free(x);
    free(w);
    free(g);
    free(y);
    free(dx);
    free(dw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm), cmocka_unit_test(test_head_norm),
        cmocka_unit_test(test_swiglu),  cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_bias),    cmocka_unit_test(test_gemm),
    };

    return OP_FIXTURE_RUN(tests);
}
