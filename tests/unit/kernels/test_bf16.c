/* bf16 on the CPU: every result is that of the fp32 op on the same bf16 values, rounded once; what an
 * op does not write keeps its bytes. */
#include "tests/support/op_fixture.h"

#include <math.h>
#include <stdlib.h>

#define ROWS 5
#define COLS 12

/* Values that bf16 holds. */
static void fill_bf16(op_fixture_t *fx, uint64_t seed, int64_t count, double *values)
{
    op_random_fill(seed, count, values);
    op_tensor_t t = op_tensor_from(fx, 1, count, count, KERN_BF16, values);
    op_tensor_get(&t, values);
    op_tensor_end(&t);
}

/* The same values in both dtypes; acc ones are fp32 twice. */
typedef struct twin {
    op_tensor_t narrow, wide;
} twin_t;

static twin_t twin_of(op_fixture_t *fx, int64_t rows, int64_t cols, int64_t pitch,
                      kern_dtype_t narrow, uint64_t seed)
{
    double *values = op_doubles(rows * cols);
    twin_t t;

    fill_bf16(fx, seed, rows * cols, values);
    t.narrow = op_tensor_from(fx, rows, cols, pitch, narrow, values);
    t.wide = op_tensor_from(fx, rows, cols, pitch, KERN_F32, values);
    free(values);
    return t;
}

/* What `convert` makes of a matrix: it rounds to nearest even (test_convert.c). */
static void rounded(op_fixture_t *fx, const kern_mat_t *mat, kern_dtype_t dtype, double *values)
{
    op_tensor_t out = op_tensor(fx, mat->rows, mat->cols, mat->cols, dtype);
    const kern_convert_t args = {*mat, out.mat};

    op_run(fx, convert, &args);
    op_tensor_get(&out, values);
    op_tensor_end(&out);
}

/* The narrow one is the wide one rounded; guards are checked. */
static void twin_end(op_fixture_t *fx, twin_t *t)
{
    const kern_mat_t *mat = &t->narrow.mat;
    const int64_t count = mat->rows * mat->cols;
    double *got = op_doubles(count), *want = op_doubles(count);

    op_tensor_get(&t->narrow, got);
    rounded(fx, &t->wide.mat, mat->dtype, want);
    for (int64_t i = 0; i < count; i++)
        if (!(got[i] == want[i] || (isnan(got[i]) && isnan(want[i]))))
            fail_msg("element %lld is %.9g, want %.9g", (long long)i, got[i], want[i]);
    op_tensor_end(&t->narrow);
    op_tensor_end(&t->wide);
    free(got);
    free(want);
}

static void test_gemm(void **state)
{
    op_fixture_t *fx = *state;

    for (int accumulate = 0; accumulate < 2; accumulate++) {
        for (int acc = 0; acc < 2; acc++) {
            twin_t a = twin_of(fx, ROWS, COLS, COLS + 3, KERN_BF16, 1),
                   b = twin_of(fx, 7, COLS, COLS, KERN_BF16, 2),
                   c = twin_of(fx, ROWS, 7, 9, acc ? KERN_F32 : KERN_BF16, 3);
            const kern_gemm_t narrow = {a.narrow.mat, b.narrow.mat, c.narrow.mat, 0, 1, accumulate},
                              wide = {a.wide.mat, b.wide.mat, c.wide.mat, 0, 1, accumulate};

            op_run(fx, gemm, &narrow);
            op_run(fx, gemm, &wide);
            twin_end(fx, &a);
            twin_end(fx, &b);
            twin_end(fx, &c);
        }
    }
}

/* In place: the sum of a tensor and itself, into itself. */
static void test_add_in_place(void **state)
{
    op_fixture_t *fx = *state;
    twin_t a = twin_of(fx, ROWS, COLS, COLS + 1, KERN_BF16, 4);
    const kern_add_t narrow = {a.narrow.mat, a.narrow.mat, a.narrow.mat},
                     wide = {a.wide.mat, a.wide.mat, a.wide.mat};

    op_run(fx, add, &narrow);
    op_run(fx, add, &wide);
    twin_end(fx, &a);
}

/* Real and acc operands beside each other; the residual's gradient in place. */
static void test_rmsnorm(void **state)
{
    op_fixture_t *fx = *state;
    twin_t x = twin_of(fx, ROWS, COLS, COLS, KERN_BF16, 5),
           w = twin_of(fx, 1, COLS, COLS, KERN_BF16, 6),
           y = twin_of(fx, ROWS, COLS, COLS + 4, KERN_BF16, 7),
           rstd = twin_of(fx, 1, ROWS, ROWS, KERN_F32, 8),
           dx = twin_of(fx, ROWS, COLS, COLS, KERN_BF16, 9),
           dw = twin_of(fx, 1, COLS, COLS, KERN_F32, 10);
    const kern_rmsnorm_fwd_t narrow = {x.narrow.mat, w.narrow.mat, y.narrow.mat, rstd.narrow.mat,
                                       1e-5},
                             wide = {x.wide.mat, w.wide.mat, y.wide.mat, rstd.wide.mat, 1e-5};

    op_run(fx, rmsnorm_fwd, &narrow);
    op_run(fx, rmsnorm_fwd, &wide);
    kern_rmsnorm_bwd_t back_narrow = {.dy = x.narrow.mat,
                                      .x = x.narrow.mat,
                                      .w = w.narrow.mat,
                                      .rstd = rstd.narrow.mat,
                                      .dres = dx.narrow.mat,
                                      .dx = dx.narrow.mat,
                                      .dw = dw.narrow.mat};
    kern_rmsnorm_bwd_t back_wide = {.dy = x.wide.mat,
                                    .x = x.wide.mat,
                                    .w = w.wide.mat,
                                    .rstd = rstd.wide.mat,
                                    .dres = dx.wide.mat,
                                    .dx = dx.wide.mat,
                                    .dw = dw.wide.mat};
    op_run(fx, rmsnorm_bwd, &back_narrow);
    op_run(fx, rmsnorm_bwd, &back_wide);
    twin_end(fx, &x);
    twin_end(fx, &w);
    twin_end(fx, &y);
    twin_end(fx, &rstd);
    twin_end(fx, &dx);
    twin_end(fx, &dw);
}

static void assert_same(op_tensor_t *got, op_tensor_t *want)
{
    const int64_t count = want->mat.rows * want->mat.cols;
    double *a = op_doubles(count), *b = op_doubles(count);

    op_tensor_get(got, a);
    op_tensor_get(want, b);
    assert_memory_equal(a, b, (size_t)count * sizeof *a);
    free(a);
    free(b);
}

/* In every dtype the bits of add and rmsnorm_fwd, one after the other; x in a's place as well. */
static void test_add_rmsnorm(void **state)
{
    op_fixture_t *fx = *state;
    const kern_dtype_t dtypes[] = {KERN_BF16, KERN_F32, KERN_F64};
    double *values = op_doubles(3 * ROWS * COLS), *w_values = values + 2 * ROWS * COLS;

    op_random_fill(21, 3 * ROWS * COLS, values);
    for (int i = 0; i < 6; i++) {
        const kern_dtype_t dtype = dtypes[i / 2], acc = kern_dtype_acc(dtype);
        op_tensor_t a = op_tensor_from(fx, ROWS, COLS, COLS + 1, dtype, values),
                    b = op_tensor_from(fx, ROWS, COLS, COLS, dtype, values + ROWS * COLS),
                    w = op_tensor_from(fx, 1, COLS, COLS, dtype, w_values);
        op_tensor_t x[2], y[2], rstd[2];

        for (int k = 0; k < 2; k++) {
            x[k] = op_tensor(fx, ROWS, COLS, COLS + 3, dtype);
            y[k] = op_tensor(fx, ROWS, COLS, COLS + 2, dtype);
            rstd[k] = op_tensor(fx, 1, ROWS, ROWS, acc);
        }
        op_run(fx, add, (&(kern_add_t){a.mat, b.mat, x[0].mat}));
        op_run(fx, rmsnorm_fwd,
               (&(kern_rmsnorm_fwd_t){x[0].mat, w.mat, y[0].mat, rstd[0].mat, 1e-5}));
        op_tensor_t *out = i % 2 ? &a : &x[1];
        const kern_add_rmsnorm_fwd_t both = {a.mat,    b.mat,       out->mat, w.mat,
                                             y[1].mat, rstd[1].mat, 1e-5};

        op_run(fx, add_rmsnorm_fwd, &both);
        assert_same(out, &x[0]);
        assert_same(&y[1], &y[0]);
        assert_same(&rstd[1], &rstd[0]);
        for (int k = 0; k < 2; k++) {
            op_tensor_end(&x[k]);
            op_tensor_end(&y[k]);
            op_tensor_end(&rstd[k]);
        }
        op_tensor_end(&a);
        op_tensor_end(&b);
        op_tensor_end(&w);
    }
    free(values);
}

/* Places of an attention call: two tasks in the same buffers, the second one's rows alone first. */
static void test_attention(void **state)
{
    enum { LEN = 150, GROUP = 2, DIM = 8, WIDTH = GROUP * DIM };
    op_fixture_t *fx = *state;
    twin_t q = twin_of(fx, LEN, WIDTH, WIDTH, KERN_BF16, 11),
           k = twin_of(fx, LEN, DIM, DIM, KERN_BF16, 12),
           v = twin_of(fx, LEN, DIM, DIM, KERN_BF16, 13),
           o = twin_of(fx, LEN, WIDTH, WIDTH + 3, KERN_BF16, 14),
           lse = twin_of(fx, LEN, GROUP, GROUP, KERN_F32, 15);
    kern_attention_task_t tasks[2];

    for (int i = 0; i < 2; i++) {
        const int64_t row = i == 0 ? 0 : 128;
        tasks[i] = (kern_attention_task_t){.q_row0 = row,
                                           .q_rows = i == 0 ? 128 : LEN - 128,
                                           .kv_heads = 1,
                                           .q = row * WIDTH,
                                           .o = row * (WIDTH + 3),
                                           .o_row = WIDTH + 3,
                                           .lse = row * GROUP};
    }
    for (int i = 0; i < 2; i++) {
        kern_attention_fwd_t narrow = {.dtype = KERN_BF16,
                                       .group = GROUP,
                                       .head_dim = DIM,
                                       .scale = 0.5,
                                       .num_tasks = 1,
                                       .tasks = &tasks[1 - i],
                                       .q = q.narrow.mat.mem,
                                       .k = k.narrow.mat.mem,
                                       .v = v.narrow.mat.mem,
                                       .o = o.narrow.mat.mem,
                                       .lse = lse.narrow.mat.mem};
        op_run(fx, attention_fwd, &narrow);
        op_fixture_sync(fx);
    }
    const kern_attention_fwd_t wide = {.dtype = KERN_F32,
                                       .group = GROUP,
                                       .head_dim = DIM,
                                       .scale = 0.5,
                                       .num_tasks = 2,
                                       .tasks = tasks,
                                       .q = q.wide.mat.mem,
                                       .k = k.wide.mat.mem,
                                       .v = v.wide.mat.mem,
                                       .o = o.wide.mat.mem,
                                       .lse = lse.wide.mat.mem};
    op_run(fx, attention_fwd, &wide);
    op_fixture_sync(fx);
    twin_end(fx, &q);
    twin_end(fx, &k);
    twin_end(fx, &v);
    twin_end(fx, &o);
    twin_end(fx, &lse);
}

/* A list of tensors: the fp32 masters are stepped in place, the copies are the masters rounded. */
static void test_adamw(void **state)
{
    op_fixture_t *fx = *state;
    op_tensor_t w[2], m[2], v[2], gradient[2], copy[2];
    kern_adamw_tensor_t list[2];
    double values[ROWS * COLS], zeros[ROWS * COLS] = {0}, got[ROWS * COLS];

    for (uint64_t i = 0; i < 2; i++) {
        op_random_fill(20 + i, ROWS * COLS, values);
        w[i] = op_tensor_from(fx, ROWS, COLS, COLS, KERN_F32, values);
        m[i] = op_tensor_from(fx, ROWS, COLS, COLS, KERN_F32, zeros);
        v[i] = op_tensor_from(fx, ROWS, COLS, COLS, KERN_F32, zeros);
        gradient[i] = op_tensor_from(fx, ROWS, COLS, COLS, KERN_F32, values);
        copy[i] = op_tensor(fx, ROWS, COLS, COLS + 5, KERN_BF16);
        list[i] = (kern_adamw_tensor_t){w[i].mat, m[i].mat, v[i].mat, gradient[i].mat, copy[i].mat};
    }
    const kern_adamw_t args = {.dtype = KERN_BF16,
                               .num_tensors = 2,
                               .tensors = list,
                               .learning_rate = 0.1,
                               .beta1 = 0.9,
                               .beta2 = 0.999,
                               .eps = 1e-8,
                               .step = 1};
    op_run(fx, adamw, &args);
    for (int i = 0; i < 2; i++) {
        rounded(fx, &w[i].mat, KERN_BF16, values);
        op_tensor_get(&copy[i], got);
        assert_memory_equal(got, values, sizeof got);
        op_tensor_end(&w[i]);
        op_tensor_end(&m[i]);
        op_tensor_end(&v[i]);
        op_tensor_end(&gradient[i]);
        op_tensor_end(&copy[i]);
    }
}

static void test_finite(void **state)
{
    op_fixture_t *fx = *state;
    const double values[4] = {1.0, (double)INFINITY, -(double)INFINITY, (double)NAN};
    op_tensor_t t = op_tensor_from(fx, 1, 4, 4, KERN_BF16, values);
    op_tensor_t count = op_tensor(fx, 1, 1, 1, KERN_I32);
    const kern_finite_check_t args = {
        .dtype = KERN_BF16, .num_tensors = 1, .tensors = &t.mat, .count = count.mat};
    double got;

    op_run(fx, finite_check, &args);
    op_tensor_get(&count, &got);
    assert_true(got == 3.0);
    op_tensor_end(&t);
    op_tensor_end(&count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm),      cmocka_unit_test(test_add_in_place),
        cmocka_unit_test(test_rmsnorm),   cmocka_unit_test(test_add_rmsnorm),
        cmocka_unit_test(test_attention), cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_finite),
    };
    return OP_FIXTURE_RUN(tests);
}
