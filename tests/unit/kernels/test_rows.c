/* Ops that work row by row: add, bias, embedding, rmsnorm, head_norm, swiglu. Their gradients are in
 * tests/gradient. */
#include "tests/support/op_fixture.h"

#include "kernels/cases/op_cases.h"

#include <math.h>
#include <stdlib.h>

static double tolerance(kern_dtype_t dtype)
{
    return dtype == KERN_F64 ? 1e-14 : 1e-6;
}

static void add_case(op_fixture_t *fx, const kern_case_rows_t *c, kern_dtype_t dtype)
{
    const int64_t count = c->rows * c->cols;
    double *a = op_doubles(count), *b = op_doubles(count), *got = op_doubles(count);
    op_tensor_t ta, tb, out = op_tensor(fx, c->rows, c->cols, c->cols + c->pad, dtype);

    op_random_fill(c->seed, count, a);
    op_random_fill(c->seed + 1, count, b);
    ta = op_tensor_from(fx, c->rows, c->cols, c->cols, dtype, a);
    tb = op_tensor_from(fx, c->rows, c->cols, c->cols + 1, dtype, b);
    op_run(fx, add, (&(kern_add_t){ta.mat, tb.mat, out.mat}));
    op_tensor_get(&out, got);
    for (int64_t i = 0; i < count; i++)
        b[i] += a[i];
    op_assert_close(got, b, count, tolerance(dtype));
    op_run(fx, add, (&(kern_add_t){ta.mat, out.mat, out.mat})); /* in place */
    op_tensor_get(&out, got);
    for (int64_t i = 0; i < count; i++)
        b[i] += a[i];
    op_assert_close(got, b, count, tolerance(dtype));
    op_tensor_end(&ta);
    op_tensor_end(&tb);
    op_tensor_end(&out);
    free(a);
    free(b);
    free(got);
}

static void bias_case(op_fixture_t *fx, const kern_case_rows_t *c, kern_dtype_t dtype)
{
    const int64_t rows = c->rows, cols = c->cols;
    double *bias = op_doubles(cols), *y = op_doubles(rows * cols), *sum = op_doubles(cols),
           *want = op_doubles(cols);
    op_tensor_t tb, ty, tsum;

    op_random_fill(c->seed, rows * cols, y);
    op_random_fill(c->seed + 1, cols, bias);
    op_random_fill(c->seed + 2, cols, sum);
    tb = op_tensor_from(fx, 1, cols, cols, dtype, bias);
    ty = op_tensor_from(fx, rows, cols, cols + c->pad, dtype, y);
    tsum = op_tensor_from(fx, 1, cols, cols, dtype, sum);
    op_run(fx, bias_add, (&(kern_bias_add_t){tb.mat, ty.mat}));
    op_run(fx, column_sum, (&(kern_column_sum_t){ty.mat, tsum.mat}));
    for (int64_t t = 0; t < rows; t++)
        for (int64_t j = 0; j < cols; j++)
            y[t * cols + j] += bias[j];
    for (int64_t j = 0; j < cols; j++) {
        want[j] = sum[j];
        for (int64_t t = 0; t < rows; t++)
            want[j] += y[t * cols + j];
    }
    op_tensor_get(&tsum, sum);
    op_assert_close(sum, want, cols, tolerance(dtype) * (double)rows); /* a rounding a row */
    {
        double *got = op_doubles(rows * cols);

        op_tensor_get(&ty, got);
        op_assert_close(got, y, rows * cols, tolerance(dtype));
        free(got);
    }
    op_tensor_end(&tb);
    op_tensor_end(&ty);
    op_tensor_end(&tsum);
    free(bias);
    free(y);
    free(sum);
    free(want);
}

static void embedding_case(op_fixture_t *fx, const kern_case_rows_t *c, kern_dtype_t dtype)
{
    enum { V = 11 };
    double *table = op_doubles(V * c->cols), *got = op_doubles(c->rows * c->cols),
           *tokens = op_doubles(c->rows);
    op_tensor_t t_table, t_tokens, out = op_tensor(fx, c->rows, c->cols, c->cols + c->pad, dtype);
    uint64_t seed = c->seed;

    for (int64_t i = 0; i < c->rows; i++)
        tokens[i] = (double)op_random_below(&seed, V);
    for (int64_t i = 0; i < V * c->cols; i++)
        table[i] = (double)i;
    t_table = op_tensor_from(fx, V, c->cols, c->cols + 2, dtype, table);
    t_tokens = op_tensor_from(fx, 1, c->rows, c->rows, KERN_I32, tokens);
    op_run(fx, embedding_fwd, (&(kern_embedding_fwd_t){t_tokens.mat, t_table.mat, out.mat}));
    op_tensor_get(&out, got);
    for (int64_t i = 0; i < c->rows; i++)
        for (int64_t j = 0; j < c->cols; j++)
            assert_true(got[i * c->cols + j] == tokens[i] * (double)c->cols + (double)j);
    op_tensor_end(&t_table);
    op_tensor_end(&t_tokens);
    op_tensor_end(&out);
    free(table);
    free(got);
    free(tokens);
}

static void rmsnorm_case(op_fixture_t *fx, const kern_case_rows_t *c, kern_dtype_t dtype)
{
    const int64_t rows = c->rows, cols = c->cols;
    double *x = op_doubles(rows * cols), *w = op_doubles(cols), *y = op_doubles(rows * cols);
    double *want = op_doubles(rows * cols), *rstd = op_doubles(rows);
    op_tensor_t tx, tw, ty = op_tensor(fx, rows, cols, cols + c->pad, dtype),
                        tr = op_tensor(fx, 1, rows, rows, dtype);

    op_random_fill(c->seed, rows * cols, x);
    op_random_fill(c->seed + 1, cols, w);
    tx = op_tensor_from(fx, rows, cols, cols + 1, dtype, x);
    tw = op_tensor_from(fx, 1, cols, cols, dtype, w);
    op_run(fx, rmsnorm_fwd, (&(kern_rmsnorm_fwd_t){tx.mat, tw.mat, ty.mat, tr.mat, 1e-5}));
    op_tensor_get(&ty, y);
    op_tensor_get(&tr, rstd);
    for (int64_t t = 0; t < rows; t++) {
        const double r = 1 / sqrt(op_dot(x + t * cols, x + t * cols, cols) / (double)cols + 1e-5);

        op_assert_close(&rstd[t], &r, 1, tolerance(dtype));
        for (int64_t j = 0; j < cols; j++)
            want[t * cols + j] = x[t * cols + j] * r * w[j];
    }
    op_assert_close(y, want, rows * cols, tolerance(dtype));
    op_tensor_end(&tx);
    op_tensor_end(&tw);
    op_tensor_end(&ty);
    op_tensor_end(&tr);
    free(x);
    free(w);
    free(y);
    free(want);
    free(rstd);
}

/* rmsnorm of each head by itself has the same bits; the columns that are not named stay. */
static void head_norm_case(op_fixture_t *fx, const kern_case_rope_t *c, kern_dtype_t dtype)
{
    const int64_t rows = c->rows, dim = c->head_dim, heads = c->num_q_heads;
    const int64_t width = (heads + 1) * dim, bytes = kern_dtype_bytes(dtype);
    double *x = op_doubles(rows * width), *w = op_doubles(dim), *y = op_doubles(rows * width),
           *want = op_doubles(rows * width), *rstd = op_doubles(rows * heads),
           *want_rstd = op_doubles(rows * heads);
    op_tensor_t tx, tw, ty, tr = op_tensor(fx, rows, heads, heads + c->pad, dtype),
                            tr_one = op_tensor(fx, heads, rows, rows, dtype);
    kern_mat_t in, out;

    op_random_fill(c->seed, rows * width, x);
    op_random_fill(c->seed + 1, dim, w);
    tx = op_tensor_from(fx, rows, width, width + c->pad, dtype, x);
    ty = op_tensor_from(fx, rows, width, width + c->pad, dtype, x);
    tw = op_tensor_from(fx, 1, dim, dim, dtype, w);
    in = tx.mat;
    out = ty.mat;
    in.cols = out.cols = dim;
    for (int64_t h = 0; h < heads; h++) {
        const kern_mat_t r = kern_vec(
            base_mem(tr_one.mat.mem.buffer, tr_one.mat.mem.offset + h * rows * bytes), rows, dtype);

        op_run(fx, rmsnorm_fwd, (&(kern_rmsnorm_fwd_t){in, tw.mat, out, r, 1e-5}));
        in.mem.offset += dim * bytes;
        out.mem.offset += dim * bytes;
    }
    op_tensor_get(&ty, want);
    op_tensor_get(&tr_one, want_rstd); /* (heads, rows) */
    in = tx.mat;
    in.cols = heads * dim;
    op_run(fx, head_norm_fwd, (&(kern_head_norm_fwd_t){in, tw.mat, in, tr.mat, c->head_dim, 1e-5}));
    op_tensor_get(&tx, y);
    op_tensor_get(&tr, rstd);
    assert_memory_equal(y, want, (size_t)(rows * width) * sizeof *y);
    for (int64_t t = 0; t < rows; t++)
        for (int64_t h = 0; h < heads; h++)
            assert_true(rstd[t * heads + h] == want_rstd[h * rows + t]);
    op_tensor_end(&tx);
    op_tensor_end(&tw);
    op_tensor_end(&ty);
    op_tensor_end(&tr);
    op_tensor_end(&tr_one);
    free(x);
    free(w);
    free(y);
    free(want);
    free(rstd);
    free(want_rstd);
}

static void swiglu_case(op_fixture_t *fx, const kern_case_rows_t *c, kern_dtype_t dtype)
{
    const int64_t rows = c->rows, cols = c->cols;
    double *x = op_doubles(rows * cols * 2), *got = op_doubles(rows * cols),
           *want = op_doubles(rows * cols);
    op_tensor_t tx, out = op_tensor(fx, rows, cols, cols + c->pad, dtype);

    op_random_fill(c->seed, rows * cols * 2, x);
    x[0] = -200; /* exp(200) overflows in fp32 */
    tx = op_tensor_from(fx, rows, 2 * cols, 2 * cols + 1, dtype, x);
    op_run(fx, swiglu_fwd, (&(kern_swiglu_fwd_t){tx.mat, out.mat}));
    op_tensor_get(&out, got);
    for (int64_t t = 0; t < rows; t++)
        for (int64_t j = 0; j < cols; j++) {
            const double g = x[t * 2 * cols + j], u = x[t * 2 * cols + cols + j];

            want[t * cols + j] = g / (1 + exp(-g)) * u;
        }
    op_assert_close(got, want, rows * cols, tolerance(dtype));
    op_tensor_end(&tx);
    op_tensor_end(&out);
    free(x);
    free(got);
    free(want);
}

static void test_cases(void **state)
{
    for (int i = 0; i < num_kern_cases_rows; i++)
        for (int f32 = 0; f32 < 2; f32++) {
            const kern_case_rows_t *c = &kern_cases_rows[i];
            const kern_dtype_t dtype = f32 ? KERN_F32 : KERN_F64;

            add_case(*state, c, dtype);
            bias_case(*state, c, dtype);
            embedding_case(*state, c, dtype);
            rmsnorm_case(*state, c, dtype);
            swiglu_case(*state, c, dtype);
        }
}

static void test_head_norm(void **state)
{
    for (int i = 0; i < num_kern_cases_rope; i++) {
        head_norm_case(*state, &kern_cases_rope[i], KERN_F64);
        head_norm_case(*state, &kern_cases_rope[i], KERN_F32);
    }
}

/* x = (3, 4), mean square 12.5, eps 3.5: rstd = 1/4 */
static void test_rmsnorm_hand(void **state)
{
    const double x[] = {3, 4}, w[] = {2, -1}, want[] = {1.5, -1};
    op_fixture_t *fx = *state;
    op_tensor_t tx = op_tensor_from(fx, 1, 2, 2, KERN_F32, x),
                tw = op_tensor_from(fx, 1, 2, 2, KERN_F32, w);
    op_tensor_t ty = op_tensor(fx, 1, 2, 2, KERN_F32), tr = op_tensor(fx, 1, 1, 1, KERN_F32);
    double got[2];

    op_run(fx, rmsnorm_fwd, (&(kern_rmsnorm_fwd_t){tx.mat, tw.mat, ty.mat, tr.mat, 3.5}));
    op_tensor_get(&ty, got);
    assert_memory_equal(got, want, sizeof want);
    op_tensor_get(&tr, got);
    assert_true(got[0] == 0.25);
    op_tensor_end(&tx);
    op_tensor_end(&tw);
    op_tensor_end(&ty);
    op_tensor_end(&tr);
}

static void test_token_out_of_range(void **state)
{
    const double tokens[] = {1, 3}, negative[] = {0, -1};
    op_fixture_t *fx = *state;
    double zeros[8] = {0};
    op_tensor_t t_tokens = op_tensor_from(fx, 1, 2, 2, KERN_I32, tokens);
    op_tensor_t table = op_tensor_from(fx, 3, 2, 2, KERN_F32, zeros);
    op_tensor_t out = op_tensor(fx, 2, 2, 2, KERN_F32);

    /* The call itself may report it (a stream that works at once) or a later one. */
    (void)!kern_embedding_fwd_run(fx->s, &(kern_embedding_fwd_t){t_tokens.mat, table.mat, out.mat});
    op_fixture_expect_stream_error(fx, BASE_ERR_FORMAT, "row 1 has token 3, the vocabulary 3");
    op_tensor_set(&t_tokens, negative);
    op_tensor_set(&out, zeros);
    (void)!kern_embedding_bwd_run(fx->s, &(kern_embedding_bwd_t){t_tokens.mat, out.mat, table.mat});
    op_fixture_expect_stream_error(fx, BASE_ERR_FORMAT, "row 1 has token -1");
    op_tensor_end(&t_tokens);
    op_tensor_end(&table);
    op_tensor_end(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_head_norm),
        cmocka_unit_test(test_rmsnorm_hand),
        cmocka_unit_test(test_token_out_of_range),
    };

    return OP_FIXTURE_RUN(tests);
}
