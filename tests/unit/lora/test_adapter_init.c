/* Initial values: B is zero, A has PEFT's distribution, and the same bits for ever. */
#include "tests/support/ctx_fixture.h"

#include "lora/adapter_init.h"

#include <math.h>
#include <stdlib.h>

typedef struct drawn {
    base_ctx_t *ctx;
    lora_layout_t *layout;
    double *values;
} drawn_t;

static drawn_t draw(int32_t rank, lora_init_t kind, uint64_t seed)
{
    const data_model_spec_t spec = {.num_layers = 3,
                                    .hidden = 250,
                                    .intermediate = 400,
                                    .num_q_heads = 5,
                                    .num_kv_heads = 1,
                                    .head_dim = 30};
    drawn_t d = {.ctx = fixture_ctx()};

    assert_int_equal(lora_layout_create(d.ctx, &spec, rank, BASE_CONFIG_TARGET_ALL, &d.layout),
                     BASE_OK);
    d.values = malloc((size_t)d.layout->count * sizeof *d.values);
    assert_non_null(d.values);
    for (int64_t i = 0; i < d.layout->count; i++)
        d.values[i] = (double)NAN;
    lora_adapter_init(d.layout, kind, seed, d.values);
    return d;
}

static void end(drawn_t *d)
{
    free(d->values);
    lora_layout_destroy(d->layout);
    fixture_ctx_end(d->ctx);
}

typedef struct moments {
    double mean, deviation, largest;
    int64_t count;
} moments_t;

/* Of a module's A, in units of `unit`; B must be 0. */
static moments_t measure(const drawn_t *d, int64_t module, double unit)
{
    const lora_module_t *m = &d->layout->modules[module];
    moments_t s = {.count = d->layout->rank * m->in};

    for (int64_t i = 0; i < s.count; i++) {
        const double x = d->values[m->a + i] / unit;
        s.mean += x / (double)s.count;
        s.deviation += x * x / (double)s.count;
        s.largest = fmax(s.largest, fabs(x));
    }
    s.deviation = sqrt(s.deviation - s.mean * s.mean);
    for (int64_t i = 0; i < m->out * d->layout->rank; i++)
        assert_true(d->values[m->b + i] == 0.0);
    return s;
}

/* Bounds: five standard errors of mean and deviation over n numbers. */
static void check(moments_t s, double deviation)
{
    const double error = deviation / sqrt((double)s.count);

    assert_true(fabs(s.mean) <= 5 * error);
    assert_true(fabs(s.deviation - deviation) <= 5 * error);
}

/* kaiming_uniform_ with a = sqrt(5): bound sqrt(6 / ((1 + 5) in)) = 1 / sqrt(in). */
static void test_kaiming(void **state)
{
    drawn_t d = draw(9, LORA_INIT_KAIMING, 5);

    (void)state;
    for (int64_t m = 0; m < d.layout->num_modules; m++) {
        const moments_t s = measure(&d, m, 1.0 / sqrt((double)d.layout->modules[m].in));
        check(s, sqrt(1.0 / 3.0));
        assert_true(s.largest <= 1.0 && s.largest > 0.98);
    }
    end(&d);
}

static void test_gaussian(void **state)
{
    drawn_t d = draw(9, LORA_INIT_GAUSSIAN, 5);

    (void)state;
    for (int64_t m = 0; m < d.layout->num_modules; m++) {
        const moments_t s = measure(&d, m, 1.0 / 9);
        check(s, 1.0);
        assert_true(s.largest > 2.5 && s.largest < 6.0);
    }
    end(&d);
}

/* Kaiming takes products, a quotient and a square root, all rounded as IEEE says: the same bits on
 * every machine. The numbers come from the header's formula in Python; a change of them breaks
 * every run that is repeated from its seed. */
static void test_bits(void **state)
{
    static const struct {
        int64_t module, element;
        double value;
    } want[] = {{0, 0, -0x1.931ea4be51cb5p-5},
                {0, 1, 0x1.2d0e625b7d307p-5},
                {0, 1749, 0x1.0de893a37fc2cp-5},
                {3, 4, -0x1.a2af93d433569p-10},
                {20, 2799, -0x1.bca53ce35c9f0p-6}};
    drawn_t d = draw(7, LORA_INIT_KAIMING, UINT64_C(0x123456789abcdef0));

    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        const double got = d.values[d.layout->modules[want[i].module].a + want[i].element];
        if (got != want[i].value) fail_msg("%a, want %a", got, want[i].value);
    }
    end(&d);
}

/* Seeds and modules have numbers of their own; rank changes them too, or not: what counts is that
 * two adapters of a job do not begin alike. */
static void test_seeds_differ(void **state)
{
    drawn_t a = draw(4, LORA_INIT_KAIMING, 1), b = draw(4, LORA_INIT_KAIMING, 2);
    const lora_module_t *first = &a.layout->modules[0], *next = &a.layout->modules[7];
    int same_seed = 0, same_module = 0;

    (void)state;
    assert_int_equal(first->in, next->in);
    for (int64_t i = 0; i < 4 * first->in; i++) {
        same_seed += a.values[first->a + i] == b.values[first->a + i];
        same_module += a.values[first->a + i] == a.values[next->a + i];
    }
    assert_int_equal(same_seed, 0);
    assert_int_equal(same_module, 0);
    end(&a);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kaiming),
        cmocka_unit_test(test_gaussian),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_seeds_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
