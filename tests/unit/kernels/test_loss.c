#include "tests/support/loss_rig.h"

#include <math.h>
#include <stdlib.h>

static void test_cases(void **state)
{
    for (int i = 0; i < num_kern_cases_loss; i++)
        for (int f32 = 0; f32 < 2; f32++) {
            loss_rig_t got = loss_rig(*state, &kern_cases_loss[i], f32 ? KERN_F32 : KERN_F64);
            loss_rig_t want = loss_rig(*state, &kern_cases_loss[i], f32 ? KERN_F32 : KERN_F64);
            const double tolerance = f32 ? 5e-6 : 1e-14;

            loss_rig_reference(&want);
            assert_int_equal(loss_rig_run(&got, 1), BASE_OK);
            op_assert_close(got.loss, want.loss, got.N, tolerance);
            op_assert_close(got.dx, want.dx, got.T * got.H, tolerance);
            op_assert_close(got.dw, want.dw, got.V * got.H, tolerance);
            memset(got.loss, 0, (size_t)got.N * sizeof *got.loss);
            assert_int_equal(loss_rig_run(&got, 0), BASE_OK);
            op_assert_close(got.loss, want.loss, got.N, tolerance);
            loss_rig_end(&got);
            loss_rig_end(&want);
        }
}

/* Logits of +-1e4: the loss is finite and right. */
static void test_large_logits(void **state)
{
    loss_rig_t rig = loss_rig(*state, &kern_cases_loss[0], KERN_F32);

    for (int64_t i = 0; i < rig.V * rig.H; i++)
        rig.w[i] *= 1e4;
    assert_int_equal(loss_rig_run(&rig, 1), BASE_OK);
    for (int64_t i = 0; i < rig.N; i++)
        assert_true(isfinite(rig.loss[i]) && rig.loss[i] >= 0);
    for (int64_t i = 0; i < rig.T * rig.H; i++)
        assert_true(isfinite(rig.dx[i]));
    loss_rig_end(&rig);
}

/* A row of weight 0 that is not finite changes no bit of the others' gradients. */
static void test_weight_zero_isolates(void **state)
{
    loss_rig_t clean = loss_rig(*state, &kern_cases_loss[2], KERN_F32);
    loss_rig_t broken = loss_rig(*state, &kern_cases_loss[2], KERN_F32);

    broken.x[(int64_t)broken.rows[1] * broken.H + 2] = (double)NAN; /* weights[1] is 0 */
    assert_int_equal(loss_rig_run(&clean, 1), BASE_OK);
    assert_int_equal(loss_rig_run(&broken, 1), BASE_OK);
    assert_true(isnan(broken.loss[1]));
    assert_memory_equal(clean.dx, broken.dx, (size_t)(clean.T * clean.H) * sizeof(double));
    assert_memory_equal(clean.dw, broken.dw, (size_t)(clean.V * clean.H) * sizeof(double));
    loss_rig_end(&clean);
    loss_rig_end(&broken);
}

static void expect_run_error(loss_rig_t *rig, base_status_t st, const char *piece)
{
    assert_int_equal(loss_rig_run(rig, 1), st);
    op_fixture_expect_stream_error(rig->fx, st, piece);
    loss_rig_end(rig);
}

static void test_bad_lists(void **state)
{
    loss_rig_t rig = loss_rig(*state, &kern_cases_loss[0], KERN_F32);

    rig.targets[1] = (double)rig.V;
    expect_run_error(&rig, BASE_ERR_FORMAT, "entry 1 has target 7, the vocabulary 7");
    rig = loss_rig(*state, &kern_cases_loss[0], KERN_F32);
    rig.rows[2] = rig.rows[1];
    expect_run_error(&rig, BASE_ERR_ARG, "entry 2 lists row");
    rig = loss_rig(*state, &kern_cases_loss[0], KERN_F32);
    rig.rows[0] = -1;
    expect_run_error(&rig, BASE_ERR_ARG, "entry 0 lists row -1");
}

/* sums[segments[i]] += weights[i] values[i] */
static void test_loss_sum(void **state)
{
    const double values[] = {1, 2, 3, 4, (double)NAN}, weights[] = {0.5, 1, 2, 0.25, 0};
    const double segments[] = {0, 2, 0, 2, 1}, before[] = {10, 20, 30}, want[] = {16.5, 20, 33};
    op_fixture_t *fx = *state;

    for (int f32 = 0; f32 < 2; f32++) {
        const kern_dtype_t dtype = f32 ? KERN_F32 : KERN_F64;
        op_tensor_t v = op_tensor_from(fx, 1, 5, 5, dtype, values),
                    w = op_tensor_from(fx, 1, 5, 5, dtype, weights);
        op_tensor_t seg = op_tensor_from(fx, 1, 5, 5, KERN_I32, segments);
        op_tensor_t sums = op_tensor_from(fx, 1, 3, 3, dtype, before);
        double got[3];

        op_run(fx, loss_sum, (&(kern_loss_sum_t){v.mat, w.mat, seg.mat, sums.mat}));
        op_tensor_get(&sums, got);
        assert_memory_equal(got, want, sizeof want);
        sums.mat.cols = 2;
        (void)!kern_loss_sum_run(fx->s, &(kern_loss_sum_t){v.mat, w.mat, seg.mat, sums.mat});
        op_fixture_expect_stream_error(fx, BASE_ERR_ARG, "value 1 has segment 2, sums has 2");
        sums.mat.cols = 3;
        op_tensor_end(&v);
        op_tensor_end(&w);
        op_tensor_end(&seg);
        op_tensor_end(&sums);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_large_logits),
        cmocka_unit_test(test_weight_zero_isolates),
        cmocka_unit_test(test_bad_lists),
        cmocka_unit_test(test_loss_sum),
    };

    return OP_FIXTURE_RUN(tests);
}
