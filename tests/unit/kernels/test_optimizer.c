/* The ops of an adapter's step: grad_norm, clip_factor, finite_check, adamw. */
#include "tests/support/op_fixture.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

/* ==== norm, clipping, finiteness ==== */

static double run_norm(op_fixture_t *fx, int64_t num, const kern_mat_t *gradients,
                       kern_dtype_t dtype)
{
    op_tensor_t sum = op_tensor(fx, 1, 1, 1, dtype);
    double got;

    op_run(fx, grad_norm, (&(kern_grad_norm_t){num, gradients, sum.mat}));
    op_tensor_get(&sum, &got);
    op_tensor_end(&sum);
    return got;
}

static void test_norm(void **state)
{
    enum { NUM = 4 };
    static const int64_t rows[NUM] = {1, 3, 0, 17}, cols[NUM] = {1, 7, 5, 130};
    op_fixture_t *fx = *state;

    for (int f32 = 0; f32 < 2; f32++) {
        const kern_dtype_t dtype = f32 ? KERN_F32 : KERN_F64;
        op_tensor_t t[NUM];
        kern_mat_t list[NUM];
        double want = 0, got;

        for (int i = 0; i < NUM; i++) {
            double *values = op_doubles(rows[i] * cols[i]);

            op_random_fill((uint64_t)i, rows[i] * cols[i], values);
            want += op_dot(values, values, rows[i] * cols[i]);
            t[i] = op_tensor_from(fx, rows[i], cols[i], cols[i] + i, dtype, values);
            list[i] = t[i].mat;
            free(values);
        }
        got = run_norm(fx, NUM, list, dtype);
        op_assert_close(&got, &want, 1, f32 ? 1e-6 : 1e-14);
        assert_true(run_norm(fx, NUM, list, dtype) == got);
        assert_true(run_norm(fx, 0, NULL, dtype) == 0);
        for (int i = 0; i < NUM; i++)
            op_tensor_end(&t[i]);
    }
}

/* 2^24 + 5000 times 1/4 in fp32: added one by one nothing would be added. */
static void test_norm_of_many(void **state)
{
    enum { T = 5001 };
    double values[T];
    op_tensor_t t;

    for (int i = 0; i < T; i++)
        values[i] = i == 0 ? 4096 : 0.5;
    t = op_tensor_from(*state, T, 1, 1, KERN_F32, values);
    assert_true(run_norm(*state, 1, &t.mat, KERN_F32) == 16777216 + 1250);
    op_tensor_end(&t);
}

static void expect_factor(op_fixture_t *fx, double sum, double clip, double norm, double factor)
{
    op_tensor_t t_sum = op_tensor_from(fx, 1, 1, 1, KERN_F64, &sum);
    op_tensor_t t_norm = op_tensor(fx, 1, 1, 1, KERN_F64),
                t_factor = op_tensor(fx, 1, 1, 1, KERN_F64);
    kern_clip_factor_t args = {t_sum.mat, t_norm.mat, t_factor.mat, clip};
    double got[2];

    op_run(fx, clip_factor, &args);
    op_tensor_get(&t_norm, &got[0]);
    op_tensor_get(&t_factor, &got[1]);
    assert_true(got[0] == norm || (isnan(got[0]) && isnan(norm)));
    assert_true(got[1] == factor || (isnan(got[1]) && isnan(factor)));
    args.norm.mem.buffer = NULL;
    op_run(fx, clip_factor, &args);
    op_tensor_end(&t_sum);
    op_tensor_end(&t_norm);
    op_tensor_end(&t_factor);
}

/* torch.nn.utils.clip_grad_norm_: max_norm / (total_norm + 1e-6), clamped to 1.0 */
static void test_clip(void **state)
{
    expect_factor(*state, 25, 1, 5, 1 / (5 + 1e-6));
    expect_factor(*state, 25, 10, 5, 1);
    expect_factor(*state, 0, 1, 0, 1);
    expect_factor(*state, 1, 1, 1, 1 / (1 + 1e-6));
    expect_factor(*state, (double)INFINITY, 1, (double)INFINITY, 0);
    expect_factor(*state, (double)NAN, 1, (double)NAN, (double)NAN);
    expect_factor(*state, (double)INFINITY, (double)INFINITY, (double)INFINITY, 1);
}

static void test_finite(void **state)
{
    const double one[6] = {0, -0.0, 1e-42, (double)FLT_MAX, -(double)FLT_MAX, 3};
    const double two[6] = {(double)NAN, 1, (double)INFINITY, -(double)INFINITY, 2, -(double)NAN};
    op_fixture_t *fx = *state;

    for (int f32 = 0; f32 < 2; f32++) {
        const kern_dtype_t dtype = f32 ? KERN_F32 : KERN_F64;
        op_tensor_t a = op_tensor_from(fx, 2, 3, 5, dtype, one);
        op_tensor_t b = op_tensor_from(fx, 3, 2, 3, dtype, two);
        op_tensor_t count = op_tensor(fx, 1, 1, 1, KERN_I32);
        const kern_mat_t list[] = {a.mat, b.mat, b.mat};
        static const double want[] = {0, 0, 4, 8};

        for (int64_t num = 0; num <= 3; num++) {
            double got;

            op_run(fx, finite_check, (&(kern_finite_check_t){dtype, num, list, count.mat, 0}));
            op_tensor_get(&count, &got);
            assert_true(got == want[num]);
        }
        /* What was found stays, also when nothing more is. */
        for (int64_t num = 2; num >= 1; num--) {
            double got;

            op_run(fx, finite_check, (&(kern_finite_check_t){dtype, num, list, count.mat, 1}));
            op_tensor_get(&count, &got);
            assert_true(got == want[3] + want[2]);
        }
        op_tensor_end(&a);
        op_tensor_end(&b);
        op_tensor_end(&count);
    }
}

/* ==== adamw ==== */

enum { NUM_TENSORS = 4, NUM_STEPS = 6 };
static const int64_t ROWS[NUM_TENSORS] = {1, 3, 0, 16}, COLS[NUM_TENSORS] = {1, 7, 4, 33};

static const kern_adamw_t RATES = {
    .learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .weight_decay = 0.1};

/* One tensor of an adapter, here and on the device. */
typedef struct weight {
    int64_t count;
    double *w, *m, *v, *g, *copy;
    op_tensor_t t_w, t_m, t_v, t_g, t_copy;
} weight_t;

static weight_t weight_begin(op_fixture_t *fx, int64_t rows, int64_t cols, int64_t pad,
                             kern_dtype_t dtype, uint64_t seed)
{
    const int64_t count = rows * cols;
    weight_t one = {.count = count,
                    .w = op_doubles(count),
                    .m = op_doubles(count),
                    .v = op_doubles(count),
                    .g = op_doubles(count),
                    .copy = op_doubles(count)};

    op_random_fill(seed, count, one.w);
    one.t_w = op_tensor_from(fx, rows, cols, cols + pad, dtype, one.w);
    one.t_m = op_tensor_from(fx, rows, cols, cols, dtype, one.m);
    one.t_v = op_tensor_from(fx, rows, cols, cols + 2 * pad, dtype, one.v);
    one.t_g = op_tensor(fx, rows, cols, cols + 3 * pad, dtype);
    one.t_copy = op_tensor(fx, rows, cols, cols + 40, dtype); /* strided, as in [W B; A 0] */
    return one;
}

static void weight_end(weight_t *one)
{
    op_tensor_t *const tensors[] = {&one->t_w, &one->t_m, &one->t_v, &one->t_g, &one->t_copy};
    double *const values[] = {one->w, one->m, one->v, one->g, one->copy};

    for (int i = 0; i < 5; i++) {
        op_tensor_end(tensors[i]);
        free(values[i]);
    }
}

static kern_adamw_tensor_t weight_tensor(const weight_t *one)
{
    const kern_adamw_tensor_t tensor = {one->t_w.mat, one->t_m.mat, one->t_v.mat, one->t_g.mat,
                                        one->t_copy.mat};

    return tensor;
}

/* The text of the paper and of torch.optim.AdamW's documentation: corrected moments, then the
 * update. */
static void reference_step(weight_t *one, double clip, int64_t t)
{
    for (int64_t i = 0; i < one->count; i++) {
        const double g = clip * one->g[i];

        one->w[i] -= RATES.learning_rate * RATES.weight_decay * one->w[i];
        one->m[i] = RATES.beta1 * one->m[i] + (1 - RATES.beta1) * g;
        one->v[i] = RATES.beta2 * one->v[i] + (1 - RATES.beta2) * g * g;
        one->w[i] -= RATES.learning_rate * (one->m[i] / (1 - pow(RATES.beta1, (double)t))) /
                     (sqrt(one->v[i] / (1 - pow(RATES.beta2, (double)t))) + RATES.eps);
    }
}

static void expect_weight(weight_t *one, double tolerance)
{
    double *got = op_doubles(one->count);

    op_tensor_get(&one->t_m, got);
    op_assert_close(got, one->m, one->count, tolerance);
    op_tensor_get(&one->t_v, got);
    op_assert_close(got, one->v, one->count, tolerance);
    op_tensor_get(&one->t_w, got);
    op_assert_close(got, one->w, one->count, tolerance);
    op_tensor_get(&one->t_copy, one->copy);
    assert_memory_equal(got, one->copy, (size_t)one->count * sizeof *got);
    free(got);
}

static void test_steps(void **state)
{
    op_fixture_t *fx = *state;

    for (int f32 = 0; f32 < 2; f32++) {
        const kern_dtype_t dtype = f32 ? KERN_F32 : KERN_F64;
        const double clip = 0.375;
        op_tensor_t t_clip = op_tensor_from(fx, 1, 1, 1, dtype, &clip);
        weight_t weights[NUM_TENSORS];
        kern_adamw_tensor_t tensors[NUM_TENSORS];
        kern_adamw_t args = RATES;

        for (int i = 0; i < NUM_TENSORS; i++) {
            weights[i] = weight_begin(fx, ROWS[i], COLS[i], i, dtype, (uint64_t)i + 60);
            tensors[i] = weight_tensor(&weights[i]);
        }
        args.dtype = dtype;
        args.num_tensors = NUM_TENSORS;
        args.tensors = tensors;
        for (args.step = 1; args.step <= NUM_STEPS; args.step++) {
            const int clipped = args.step > 2;

            for (int i = 0; i < NUM_TENSORS; i++) {
                op_random_fill((uint64_t)(args.step * 10 + i), weights[i].count, weights[i].g);
                op_tensor_set(&weights[i].t_g, weights[i].g);
                reference_step(&weights[i], clipped ? clip : 1, args.step);
            }
            if (clipped) args.clip = t_clip.mat;
            op_run(fx, adamw, &args);
            for (int i = 0; i < NUM_TENSORS; i++)
                expect_weight(&weights[i], f32 ? 2e-6 : 1e-14);
        }
        for (int i = 0; i < NUM_TENSORS; i++)
            weight_end(&weights[i]);
        op_tensor_end(&t_clip);
    }
}

/* From m = v = 0 the first step is lr g / (|g| + eps), whatever the betas. */
static void test_first_step(void **state)
{
    op_fixture_t *fx = *state;
    weight_t one = weight_begin(fx, 1, 1, 0, KERN_F64, 1);
    kern_adamw_tensor_t tensor = weight_tensor(&one);
    const double start = 2, gradient = -0.5,
                 want = 2 * (1 - 1e-2 * 0.1) + 1e-2 * 0.5 / (0.5 + 1e-8);
    kern_adamw_t args = RATES;
    double got;

    args.dtype = KERN_F64;
    args.num_tensors = args.step = 1;
    args.tensors = &tensor;
    tensor.copy.mem.buffer = NULL;
    op_tensor_set(&one.t_w, &start);
    op_tensor_set(&one.t_g, &gradient);
    op_run(fx, adamw, &args);
    op_tensor_get(&one.t_w, &got);
    assert_true(fabs(got - want) < 1e-15);
    op_tensor_get(&one.t_copy, &got);
    assert_true(isnan(got)); /* absent: not written */
    weight_end(&one);
}

/* ==== the chain, as a trainer queues it: nothing comes back to the host in between ==== */

static void run_chain(op_fixture_t *fx, weight_t *one, op_tensor_t *scalars, op_tensor_t *count)
{
    const kern_adamw_tensor_t tensor = weight_tensor(one);
    kern_adamw_t args = RATES;

    args.dtype = KERN_F32;
    args.num_tensors = args.step = 1;
    args.tensors = &tensor;
    args.clip = scalars[1].mat;
    args.skip = count->mat;
    op_run(fx, finite_check, (&(kern_finite_check_t){KERN_F32, 1, &one->t_g.mat, count->mat, 0}));
    op_run(fx, grad_norm, (&(kern_grad_norm_t){1, &one->t_g.mat, scalars[0].mat}));
    op_run(fx, clip_factor,
           (&(kern_clip_factor_t){scalars[0].mat, {.mem = {NULL, 0}}, scalars[1].mat, 1.0}));
    op_run(fx, adamw, &args);
    op_fixture_sync(fx); /* the list is on this function's stack */
}

/* A NaN in adapter 0's gradient leaves its state alone; adapter 1 has the bits that it has without
 * it. */
static void test_quarantine(void **state)
{
    enum { COUNT = 3 * 7 };
    op_fixture_t *fx = *state;
    double before[COUNT], after[3][COUNT], bad;

    for (int round = 0; round < 3; round++) { /* adapter 0 broken, adapter 1 beside it, alone */
        op_tensor_t scalars[2] = {op_tensor(fx, 1, 1, 1, KERN_F32),
                                  op_tensor(fx, 1, 1, 1, KERN_F32)};
        op_tensor_t count = op_tensor(fx, 1, 1, 1, KERN_I32);
        weight_t one = weight_begin(fx, 3, 7, 1, KERN_F32, round == 0 ? 5 : 6);

        op_random_fill(7, COUNT, one.g);
        if (round == 0) one.g[COUNT - 1] = (double)NAN;
        op_tensor_set(&one.t_g, one.g);
        op_tensor_get(&one.t_w, before);
        run_chain(fx, &one, scalars, &count);
        op_tensor_get(&count, &bad);
        assert_true(bad == (round == 0));
        op_tensor_get(&one.t_w, after[round]);
        if (round == 0) {
            assert_memory_equal(before, after[0], sizeof before);
            op_tensor_get(&one.t_m, one.m);
            assert_true(one.m[0] == 0 && one.m[COUNT - 1] == 0);
            op_tensor_get(&one.t_copy, one.copy);
            assert_true(isnan(one.copy[0])); /* as it was */
        } else {
            assert_memory_not_equal(before, after[round], sizeof before);
        }
        weight_end(&one);
        op_tensor_end(&count);
        op_tensor_end(&scalars[0]);
        op_tensor_end(&scalars[1]);
    }
    assert_memory_equal(after[1], after[2], sizeof after[1]);
}

/* ==== long lists: the strict device gets one range per operand and buffer ==== */

static kern_mat_t row_of(const op_tensor_t *t, int64_t row)
{
    return kern_vec(base_mem_at(t->mat.mem, row * t->mat.pitch * 8), t->mat.cols, t->mat.dtype);
}

static void test_many_tensors(void **state)
{
    enum { NUM = 40, COUNT = 9 };
    op_fixture_t *fx = *state;
    weight_t all = weight_begin(fx, NUM, COUNT, 1, KERN_F64, 3);
    weight_t half = weight_begin(fx, NUM, COUNT, 1, KERN_F64, 3);
    weight_t separate[17];
    kern_adamw_tensor_t tensors[NUM];
    kern_adamw_t args = RATES;

    op_random_fill(4, all.count, all.g);
    op_tensor_set(&all.t_g, all.g);
    op_tensor_set(&half.t_g, all.g);
    for (int i = 0; i < NUM; i++) { /* odd rows lie in other buffers */
        const weight_t *from = i % 2 ? &half : &all;

        tensors[i] = (kern_adamw_tensor_t){row_of(&from->t_w, i), row_of(&from->t_m, i),
                                           row_of(&from->t_v, i), row_of(&from->t_g, i),
                                           row_of(&from->t_copy, i)};
    }
    args.dtype = KERN_F64;
    args.num_tensors = NUM;
    args.step = 1;
    args.tensors = tensors;
    op_run(fx, adamw, &args);
    reference_step(&all, 1, 1);
    op_tensor_get(&half.t_w, half.g);
    op_tensor_get(&all.t_w, all.v);
    for (int i = 0; i < NUM; i++)
        op_assert_close((i % 2 ? half.g : all.v) + i * COUNT, all.w + i * COUNT, COUNT, 1e-14);
    for (int i = 0; i < 17; i++) {
        separate[i] = weight_begin(fx, 1, 1, 0, KERN_F64, 1);
        tensors[i] = weight_tensor(&separate[i]);
    }
    args.num_tensors = 17;
    op_refuse(fx, adamw, &args, BASE_ERR_ARG,
              "the operands lie in too many buffers, want at most 64 in all");
    for (int i = 0; i < 17; i++)
        weight_end(&separate[i]);
    weight_end(&all);
    weight_end(&half);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm),       cmocka_unit_test(test_norm_of_many),
        cmocka_unit_test(test_clip),       cmocka_unit_test(test_finite),
        cmocka_unit_test(test_steps),      cmocka_unit_test(test_first_step),
        cmocka_unit_test(test_quarantine), cmocka_unit_test(test_many_tensors),
    };

    return OP_FIXTURE_RUN(tests);
}
