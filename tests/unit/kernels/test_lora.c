/* The LoRA ops as a trainer uses them, against plain loops in double. */
#include "tests/unit/kernels/lora_rig.h"

#include <math.h>
#include <stdlib.h>

/* Sums of up to 519 products of values in [-1, 1]: errors of 519 roundings would be 3e-5 of the
 * largest in fp32; they cancel, and the largest sums are above 10. */
static double tolerance(kern_dtype_t dtype)
{
    return dtype == KERN_F64 ? 1e-13 : 5e-6;
}

static void expect_same(const lora_rig_t *got, const lora_rig_t *want)
{
    const double limit = tolerance(got->dtype);

    op_assert_close(got->s, want->s, got->T * got->C, limit);
    op_assert_close(got->y, want->y, got->T * got->N, limit);
    op_assert_close(got->ds, want->ds, got->T * got->C, limit);
    op_assert_close(got->dx, want->dx, got->T * got->K, limit);
    for (int32_t n = 0; n < got->num_blocks; n++) {
        op_assert_close(got->da[n], want->da[n], got->blocks[n].rank * got->K, limit);
        op_assert_close(got->db[n], want->db[n], got->blocks[n].rank * got->out[n], limit);
    }
}

/* Gradients begin at 1: they are added to. */
static void begin_at_one(lora_rig_t *rig)
{
    for (int32_t n = 0; n < rig->num_blocks; n++) {
        for (int64_t i = 0; i < rig->blocks[n].rank * rig->K; i++)
            rig->da[n][i] = 1;
        for (int64_t i = 0; i < rig->blocks[n].rank * rig->out[n]; i++)
            rig->db[n][i] = 1;
    }
}

static void test_cases(void **state)
{
    for (int i = 0; i < num_kern_cases_lora; i++)
        for (int f32 = 0; f32 < 2; f32++) {
            const kern_dtype_t dtype = f32 ? KERN_F32 : KERN_F64;
            lora_rig_t got = lora_rig(*state, &kern_cases_lora[i], dtype);
            lora_rig_t want = lora_rig(*state, &kern_cases_lora[i], dtype);

            begin_at_one(&got);
            begin_at_one(&want);
            lora_rig_reference(&want);
            lora_rig_forward(&got);
            lora_rig_backward(&got, 0);
            expect_same(&got, &want);
            begin_at_one(&got);
            lora_rig_backward(&got, 1); /* dx apart from the gemm, ds from db: the same */
            expect_same(&got, &want);
            lora_rig_end(&got);
            lora_rig_end(&want);
        }
}

/* Extra columns of pad rows, of rows of other adapters and of nobody are 0, and so exactly. */
static void test_zeros(void **state)
{
    lora_rig_t rig = lora_rig(*state, &kern_cases_lora[2], KERN_F32);

    lora_rig_forward(&rig);
    lora_rig_backward(&rig, 0);
    for (int64_t t = 0; t < rig.T; t++)
        for (int64_t c = 0; c < rig.C; c++) {
            int owner = -2;

            for (int32_t n = 0; n < rig.num_blocks; n++)
                if (c >= rig.blocks[n].column && c < rig.blocks[n].column + rig.blocks[n].rank)
                    owner = rig.blocks[n].adapter;
            if (owner == rig.row_adapter[t]) continue;
            assert_true(rig.s[t * rig.C + c] == 0 && !signbit(rig.s[t * rig.C + c]));
            assert_true(rig.ds[t * rig.C + c] == 0 && !signbit(rig.ds[t * rig.C + c]));
        }
    lora_rig_end(&rig);
}

/* The same arguments, the same bits. */
static void test_repeatable(void **state)
{
    for (int i = 2; i < 4; i++) {
        lora_rig_t one = lora_rig(*state, &kern_cases_lora[i], KERN_F32);
        lora_rig_t two = lora_rig(*state, &kern_cases_lora[i], KERN_F32);
        lora_rig_t *const both[] = {&one, &two};

        for (int j = 0; j < 2; j++) {
            lora_rig_forward(both[j]);
            lora_rig_backward(both[j], 0);
        }
        assert_memory_equal(one.y, two.y, (size_t)(one.T * one.N) * sizeof(double));
        assert_memory_equal(one.dx, two.dx, (size_t)(one.T * one.K) * sizeof(double));
        for (int32_t n = 0; n < one.num_blocks; n++) {
            const int64_t rank = one.blocks[n].rank;

            assert_memory_equal(one.da[n], two.da[n], (size_t)(rank * one.K) * sizeof(double));
            assert_memory_equal(one.db[n], two.db[n], (size_t)(rank * one.out[n]) * sizeof(double));
        }
        lora_rig_end(&one);
        lora_rig_end(&two);
    }
}

/* ==== isolation ==== */

/* Everything of adapter 0 becomes NaN, and of pad rows: x, dy, A, B, and its gradients. */
static void poison(lora_rig_t *rig)
{
    for (int64_t t = 0; t < rig->T; t++) {
        if (rig->row_adapter[t] > 0) continue;
        for (int64_t j = 0; j < rig->K; j++)
            rig->x[t * rig->K + j] = (double)NAN;
        for (int64_t i = 0; i < rig->N; i++)
            rig->g[t * rig->N + i] = (double)NAN;
    }
    for (int32_t n = 0; n < rig->num_blocks; n++) {
        const int64_t rank = rig->blocks[n].rank;

        if (rig->blocks[n].adapter != 0) continue;
        for (int64_t i = 0; i < rank * rig->K; i++)
            rig->a[n][i] = rig->da[n][i] = (double)NAN;
        for (int64_t i = 0; i < rank * rig->out[n]; i++)
            rig->b[n][i] = rig->db[n][i] = (double)NAN;
    }
}

/* dx is made apart: what the gemm with extra columns would do to it is the caller's to prevent. */
static void isolation_case(op_fixture_t *fx, const kern_case_lora_t *c)
{
    lora_rig_t clean = lora_rig(fx, c, KERN_F32), broken = lora_rig(fx, c, KERN_F32);
    lora_rig_t *const both[] = {&clean, &broken};

    poison(&broken);
    for (int j = 0; j < 2; j++) {
        lora_rig_forward(both[j]);
        lora_rig_backward(both[j], 1);
    }
    for (int64_t t = 0; t < clean.T; t++) {
        if (clean.row_adapter[t] <= 0) continue;
        assert_memory_equal(clean.s + t * clean.C, broken.s + t * clean.C,
                            (size_t)clean.C * sizeof(double));
        assert_memory_equal(clean.ds + t * clean.C, broken.ds + t * clean.C,
                            (size_t)clean.C * sizeof(double));
        assert_memory_equal(clean.dx + t * clean.K, broken.dx + t * clean.K,
                            (size_t)clean.K * sizeof(double));
    }
    for (int32_t n = 0; n < clean.num_blocks; n++) {
        const int64_t rank = clean.blocks[n].rank;

        if (clean.blocks[n].adapter == 0) continue;
        assert_memory_equal(clean.da[n], broken.da[n], (size_t)(rank * clean.K) * sizeof(double));
        assert_memory_equal(clean.db[n], broken.db[n],
                            (size_t)(rank * clean.out[n]) * sizeof(double));
    }
    lora_rig_end(&clean);
    lora_rig_end(&broken);
}

static void test_isolation(void **state)
{
    for (int i = 1; i < num_kern_cases_lora; i++)
        isolation_case(*state, &kern_cases_lora[i]);
}

/* Rows whose dy is 0 (weight 0 in the loss) change no bit of dA and dB, whatever x they have. */
static void test_weight_zero(void **state)
{
    lora_rig_t one = lora_rig(*state, &kern_cases_lora[3], KERN_F32);
    lora_rig_t two = lora_rig(*state, &kern_cases_lora[3], KERN_F32);

    for (int64_t t = 0; t < one.T; t++) {
        if (t % 3 != 0) continue;
        for (int64_t i = 0; i < one.N; i++)
            one.g[t * one.N + i] = two.g[t * one.N + i] = 0;
        for (int64_t j = 0; j < one.K; j++)
            two.x[t * one.K + j] = 100;
    }
    lora_rig_forward(&one);
    lora_rig_backward(&one, 0);
    lora_rig_forward(&two);
    lora_rig_backward(&two, 0);
    for (int32_t n = 0; n < one.num_blocks; n++) {
        const int64_t rank = one.blocks[n].rank;

        assert_memory_equal(one.da[n], two.da[n], (size_t)(rank * one.K) * sizeof(double));
        assert_memory_equal(one.db[n], two.db[n], (size_t)(rank * one.out[n]) * sizeof(double));
    }
    lora_rig_end(&one);
    lora_rig_end(&two);
}

/* Without a segment or a block: zeros, gradients stay. Documents and positions may be absent. */
static void test_empty(void **state)
{
    lora_rig_t rig = lora_rig(*state, &kern_cases_lora[1], KERN_F64);
    kern_lora_route_t route = lora_rig_route(&rig);
    const kern_mat_t x = lora_rig_left(&rig.t_x, rig.K), s = lora_rig_right(&rig.t_x, rig.K);
    double got[64 * 64];

    lora_rig_forward(&rig);
    route.documents.mem.buffer = route.positions.mem.buffer = NULL;
    op_run(rig.fx, lora_s, (&(kern_lora_s_t){route, x, s}));
    route.num_segments = 0;
    op_run(rig.fx, lora_s, (&(kern_lora_s_t){route, x, s}));
    route.num_blocks = 0;
    op_run(rig.fx, lora_s, (&(kern_lora_s_t){route, x, s}));
    op_run(rig.fx, lora_dx_dropout, (&(kern_lora_dx_dropout_t){route, s, x}));
    assert_true(rig.t_x.mat.rows * rig.t_x.mat.cols <= 64 * 64);
    op_tensor_get(&rig.t_x, got);
    for (int64_t t = 0; t < rig.T; t++)
        for (int64_t c = 0; c < rig.K + rig.C; c++)
            assert_true(got[t * (rig.K + rig.C) + c] == (c < rig.K ? rig.x[t * rig.K + c] : 0));
    lora_rig_end(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),       cmocka_unit_test(test_zeros),
        cmocka_unit_test(test_repeatable),  cmocka_unit_test(test_isolation),
        cmocka_unit_test(test_weight_zero), cmocka_unit_test(test_empty),
    };

    return OP_FIXTURE_RUN(tests);
}
