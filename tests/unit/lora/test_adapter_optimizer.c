/* One step of an adapter: every element as AdamW says, the copy in the base's weight, clipping by
 * the norm of all of it, and nothing at all when a gradient is not finite. */
#include "tests/support/adapter_rig.h"

#include <math.h>
#include <stdlib.h>

static const lora_adapter_options_t options[] = {
    {.name = "a", .rank = 3, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL},
    {.name = "b", .rank = 2, .scale = 1, .targets = BASE_CONFIG_TARGET_Q | BASE_CONFIG_TARGET_V}};

static adapter_rig_t make(op_fixture_t *fx, double *values[2])
{
    adapter_rig_t rig = adapter_rig(fx, KERN_F64, options, 2, 5);

    for (int32_t a = 0; a < 2; a++)
        values[a] = adapter_rig_write(&rig, a, 3 + (uint64_t)a);
    adapter_rig_place(&rig, 0, (const int32_t[]){0, 1}, 2);
    return rig;
}

static void set_gradient(adapter_rig_t *rig, int32_t adapter, const double *gradient)
{
    const lora_adapter_t *a = &rig->set->adapters[adapter];

    assert_int_equal(base_upload(rig->fx->s, base_arena_mem(rig->arena, a->gradient), gradient,
                                 a->layout->count * (int64_t)sizeof *gradient),
                     BASE_OK);
    op_fixture_sync(rig->fx);
}

static lora_optimizer_result_t step(adapter_rig_t *rig, int32_t adapter, int64_t number,
                                    double clip)
{
    lora_optimizer_step_t s;
    lora_optimizer_landing_t landing;

    lora_optimizer_adapter(rig->set, adapter, &s);
    s.learning_rate = 0.01;
    s.beta1 = 0.9;
    s.beta2 = 0.99;
    s.eps = 1e-6;
    s.weight_decay = 0.1;
    s.clip_norm = clip;
    s.step = number;
    assert_int_equal(lora_optimizer_step(&rig->optimizer, &s, rig->fx->s), BASE_OK);
    assert_int_equal(lora_optimizer_download(&rig->optimizer, adapter, rig->fx->s, &landing),
                     BASE_OK);
    op_fixture_sync(rig->fx);
    return lora_optimizer_landed(&rig->optimizer, &landing);
}

/* AdamW as it is written down (kernels/op.h). */
static void reference(double *w, double *m, double *v, const double *gradient, int64_t count,
                      double factor, int64_t t)
{
    for (int64_t i = 0; i < count; i++) {
        const double g = factor * gradient[i];

        w[i] -= 0.01 * 0.1 * w[i];
        m[i] = 0.9 * m[i] + 0.1 * g;
        v[i] = 0.99 * v[i] + 0.01 * g * g;
        w[i] -= 0.01 * (m[i] / (1 - pow(0.9, (double)t))) /
                (sqrt(v[i] / (1 - pow(0.99, (double)t))) + 1e-6);
    }
}

static double norm_of(const double *values, int64_t count)
{
    double sum = 0.0;

    for (int64_t i = 0; i < count; i++)
        sum += values[i] * values[i];
    return sqrt(sum);
}

static void check_masters(adapter_rig_t *rig, int32_t adapter, const double *want, double tolerance)
{
    double *got = adapter_rig_read(rig, adapter, rig->set->adapters[adapter].weights);

    op_assert_close(got, want, rig->set->adapters[adapter].layout->count, tolerance);
    free(got);
}

static void test_steps(void **state)
{
    double *values[2];
    adapter_rig_t rig = make(*state, values);
    const int64_t count = rig.set->adapters[0].layout->count;
    double *gradient = op_doubles(count), *m = op_doubles(count), *v = op_doubles(count);

    for (int64_t t = 1; t <= 3; t++) {
        op_random_fill(50 + (uint64_t)t, count, gradient);
        set_gradient(&rig, 0, gradient);
        const double norm = norm_of(gradient, count);
        const double clip = t == 2 ? 0.0 : 1.5; /* 0: never clipped */
        const lora_optimizer_result_t result = step(&rig, 0, t, clip);

        assert_int_equal(result.nonfinite, 0);
        assert_true(fabs(result.norm - norm) <= 1e-13 * norm);
        reference(values[0], m, v, gradient, count, clip > 0 ? clip / (norm + 1e-6) : 1.0, t);
        check_masters(&rig, 0, values[0], 1e-14);
    }
    /* The other adapter has the bits that it had, and the copy follows its masters. */
    check_masters(&rig, 1, values[1], 0.0);
    double *w = adapter_rig_weight(&rig, 1, LORA_LINEAR_O);
    double *masters = adapter_rig_read(&rig, 0, rig.set->adapters[0].weights);
    const lora_module_t *o = &rig.set->adapters[0].layout->modules[7 + 3];
    const int64_t pitch = 16 + rig.beside;
    for (int64_t i = 0; i < 12; i++)
        assert_true(w[i * pitch + 16 + rig.set->adapters[0].column] == masters[o->b + i * 3]);
    free(masters);
    free(w);
    free(gradient);
    free(m);
    free(v);
    free(values[0]);
    free(values[1]);
    adapter_rig_end(&rig);
}

static void check_refused(adapter_rig_t *rig, double *gradient, double *const values[2], double bad,
                          int32_t found)
{
    const int64_t count = rig->set->adapters[0].layout->count;
    const double kept = gradient[count / 3];

    gradient[count / 3] = bad;
    gradient[count - 1] = bad;
    set_gradient(rig, 0, gradient);
    assert_int_equal(step(rig, 0, 2, 1.0).nonfinite, found);
    check_masters(rig, 0, values[0], 0.0);
    gradient[count / 3] = gradient[count - 1] = kept;
}

/* Neither masters, nor moments, nor the copy; nor in a later step, with a gradient that is finite. The
 * other adapter goes on. */
static void test_not_finite(void **state)
{
    double *values[2];
    adapter_rig_t rig = make(*state, values);
    const int64_t count = rig.set->adapters[0].layout->count;
    double *gradient = op_doubles(count);

    op_random_fill(8, count, gradient);
    set_gradient(&rig, 0, gradient);
    (void)step(&rig, 0, 1, 1.0);
    free(values[0]);
    values[0] = adapter_rig_read(&rig, 0, rig.set->adapters[0].weights);
    double *moment = adapter_rig_read(&rig, 0, rig.set->adapters[0].moment2);
    double *before = adapter_rig_weight(&rig, 0, LORA_LINEAR_DOWN);

    check_refused(&rig, gradient, values, (double)NAN, 2);
    check_refused(&rig, gradient, values, -(double)INFINITY, 4);
    set_gradient(&rig, 0, gradient);
    assert_int_equal(step(&rig, 0, 3, 1.0).nonfinite, 4);
    check_masters(&rig, 0, values[0], 0.0);
    assert_int_equal(step(&rig, 1, 1, 1.0).nonfinite, 0);
    double *after = adapter_rig_weight(&rig, 0, LORA_LINEAR_DOWN);
    double *moment_after = adapter_rig_read(&rig, 0, rig.set->adapters[0].moment2);
    assert_memory_equal(moment, moment_after, (size_t)count * sizeof *moment);
    assert_memory_equal(before, after,
                        (size_t)((12 + rig.extra) * (10 + rig.beside)) * sizeof *after);
    free(after);
    free(before);
    free(moment);
    free(moment_after);
    free(gradient);
    free(values[0]);
    free(values[1]);
    adapter_rig_end(&rig);
}

/* An adapter that has lost its place is stepped all the same, and comes back stepped. */
static void test_without_a_place(void **state)
{
    double *values[2];
    adapter_rig_t rig = make(*state, values);
    const int64_t count = rig.set->adapters[1].layout->count;
    double *gradient = op_doubles(count), *m = op_doubles(count), *v = op_doubles(count);

    rig.set->adapters[1].column = -1;
    op_random_fill(8, count, gradient);
    set_gradient(&rig, 1, gradient);
    (void)step(&rig, 1, 1, 0.0);
    reference(values[1], m, v, gradient, count, 1.0, 1);
    check_masters(&rig, 1, values[1], 1e-14);
    adapter_rig_place(&rig, 1, (const int32_t[]){1}, 1);
    double *w = adapter_rig_weight(&rig, 0, LORA_LINEAR_QKV);
    const int64_t pitch = 12 + rig.beside;
    const int64_t row = 32 + lora_placed_column(rig.set, 1, 1);
    double *masters = adapter_rig_read(&rig, 1, rig.set->adapters[1].weights);
    for (int64_t j = 0; j < 12; j++)
        assert_true(w[row * pitch + j] == masters[rig.set->adapters[1].layout->modules[1].a + j]);
    free(masters);
    free(w);
    free(gradient);
    free(m);
    free(v);
    free(values[0]);
    free(values[1]);
    adapter_rig_end(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_without_a_place),
    };

    return OP_FIXTURE_RUN(tests);
}
