/* Places of adapters in the weights of the base: who lies where, what is there, and that an adapter
 * which had to go and comes back finds itself as if it had stayed. */
#include "tests/support/adapter_rig.h"

#include <stdlib.h>

#define Q  BASE_CONFIG_TARGET_Q
#define K  BASE_CONFIG_TARGET_K
#define V  BASE_CONFIG_TARGET_V
#define UP BASE_CONFIG_TARGET_UP

/* The region of a linear layer holds these adapters' A and B, at their places, and zeros in the
 * other modules' rows of their columns. */
static void check_placed(adapter_rig_t *rig, int32_t adapter, const double *values)
{
    const lora_adapter_t *a = &rig->set->adapters[adapter];

    for (int64_t i = 0; i < a->layout->num_modules; i++) {
        const lora_module_t *m = &a->layout->modules[i];
        const lora_linear_t linear = lora_target_linear(m->target);
        const int64_t column = lora_placed_column(rig->set, adapter, i);
        const int64_t first = lora_target_out_column(&rig->spec, m->target);
        double *w = adapter_rig_weight(rig, m->layer, linear);
        int64_t n, k;

        adapter_rig_shape(rig, linear, &n, &k);
        const int64_t pitch = k + rig->beside;
        for (int32_t r = 0; r < a->layout->rank; r++) {
            for (int64_t j = 0; j < k; j++)
                assert_true(w[(n + column + r) * pitch + j] == values[m->a + r * k + j]);
            for (int64_t o = 0; o < n; o++) {
                const int64_t at = o - first;
                const double want =
                    at >= 0 && at < m->out ? values[m->b + at * a->layout->rank + r] : 0.0;
                assert_true(w[o * pitch + k + column + r] == want);
            }
        }
        free(w);
    }
}

/* A start leaves W as it was, every layer's, and zeroes what is beside and below it. */
static void test_start(void **state)
{
    static const lora_adapter_options_t options[] = {
        {.name = "a", .rank = 3, .scale = 1, .targets = Q | V}};
    adapter_rig_t rig = adapter_rig(*state, KERN_F64, options, 1, 9);

    for (int32_t i = 0; i < rig.spec.num_layers * LORA_NUM_LINEARS; i++) {
        const lora_linear_t linear = (lora_linear_t)(i % LORA_NUM_LINEARS);
        double *w = adapter_rig_weight(&rig, i / LORA_NUM_LINEARS, linear);
        int64_t n, k;

        adapter_rig_shape(&rig, linear, &n, &k);
        const int64_t pitch = k + rig.beside, count = (n + rig.extra) * pitch;
        double *values = op_doubles(count);
        op_random_fill(ADAPTER_RIG_WEIGHT_SEED + (uint64_t)i, count, values);
        for (int64_t e = 0; e < count; e++)
            assert_true(w[e] == (e < n * pitch && e % pitch < k ? values[e] : 0.0));
        free(values);
        free(w);
    }
    adapter_rig_end(&rig);
}

/* Without dropout from the low end, with it from the high end; who has a place keeps it. */
static void test_places(void **state)
{
    static const lora_adapter_options_t options[] = {
        {.name = "a", .rank = 3, .scale = 1, .targets = Q | V},
        {.name = "b", .rank = 2, .scale = 1, .dropout = 0.1, .targets = Q | K | V},
        {.name = "c", .rank = 4, .scale = 1, .targets = UP}};
    adapter_rig_t rig = adapter_rig(*state, KERN_F32, options, 3, 9);
    double *values[3];

    for (int32_t a = 0; a < 3; a++) {
        values[a] = adapter_rig_write(&rig, a, 5 + (uint64_t)a);
        assert_int_equal(rig.set->adapters[a].column, -1);
    }
    adapter_rig_place(&rig, 0, (const int32_t[]){0, 1, 2}, 3);
    assert_int_equal(rig.set->adapters[0].column, 0);
    assert_int_equal(rig.set->adapters[1].column, 7);
    assert_int_equal(rig.set->adapters[2].column, 3);
    adapter_rig_place(&rig, 1, (const int32_t[]){2}, 1);
    adapter_rig_place(&rig, 2, (const int32_t[]){1, 2}, 2);
    assert_int_equal(rig.set->adapters[0].column, 0);
    assert_int_equal(rig.set->adapters[1].column, 7);
    assert_int_equal(rig.set->adapters[2].column, 3);
    assert_int_equal(rig.set->adapters[0].last_used, 0);
    assert_int_equal(rig.set->adapters[2].last_used, 2);
    for (int32_t a = 0; a < 3; a++) {
        check_placed(&rig, a, values[a]);
        free(values[a]);
    }
    adapter_rig_end(&rig);
}

/* Five adapters and columns for about two: they come and go in all orders, and whoever is in the
 * microbatch is there to the bit, also where another had q, k and v before and left its B. */
static void test_eviction_and_return(void **state)
{
    static const lora_adapter_options_t options[] = {
        {.name = "a", .rank = 3, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL},
        {.name = "b", .rank = 4, .scale = 1, .targets = Q | UP},
        {.name = "c", .rank = 2, .scale = 1, .dropout = 0.5, .targets = K | V},
        {.name = "d", .rank = 5, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL & ~Q},
        {.name = "e", .rank = 1, .scale = 1, .dropout = 0.1, .targets = BASE_CONFIG_TARGET_ALL}};
    adapter_rig_t rig = adapter_rig(*state, KERN_F32, options, 5, 7);
    uint64_t random = 3;
    int evictions = 0;
    double *values[5];

    for (int32_t a = 0; a < 5; a++)
        values[a] = adapter_rig_write(&rig, a, 5 + (uint64_t)a);
    for (int64_t microbatch = 0; microbatch < 40; microbatch++) {
        int32_t used[5], count = 0, ranks = 0, plain_end = 0, masked = 7;

        for (int32_t a = 0; a < 5; a++) {
            if (op_random_below(&random, 2) == 0 || ranks + options[a].rank > 7) continue;
            evictions += microbatch > 10 && rig.set->adapters[a].column < 0;
            ranks += options[a].rank;
            used[count++] = a;
        }
        adapter_rig_place(&rig, microbatch, used, count);
        for (int32_t i = 0; i < count; i++) {
            const lora_adapter_t *a = &rig.set->adapters[used[i]];
            const int32_t end = a->column + a->layout->rank;

            assert_true(a->column >= 0 && end <= 7);
            if (a->options.dropout > 0.0)
                masked = a->column < masked ? a->column : masked;
            else
                plain_end = end > plain_end ? end : plain_end;
            check_placed(&rig, used[i], values[used[i]]);
        }
        assert_true(plain_end <= masked);
    }
    assert_true(evictions > 5);
    for (int32_t a = 0; a < 5; a++) {
        double *masters = adapter_rig_read(&rig, a, rig.set->adapters[a].weights);
        assert_memory_equal(masters, values[a],
                            (size_t)rig.set->adapters[a].layout->count * sizeof *masters);
        free(masters);
        free(values[a]);
    }
    adapter_rig_end(&rig);
}

/* The one that was used last stays. */
static void test_least_recently_used_goes(void **state)
{
    static const lora_adapter_options_t options[] = {
        {.name = "a", .rank = 2, .scale = 1, .targets = Q},
        {.name = "b", .rank = 2, .scale = 1, .targets = Q},
        {.name = "c", .rank = 2, .scale = 1, .targets = Q}};
    adapter_rig_t rig = adapter_rig(*state, KERN_F32, options, 3, 4);

    for (int32_t a = 0; a < 3; a++)
        free(adapter_rig_write(&rig, a, 1));
    adapter_rig_place(&rig, 0, (const int32_t[]){0, 1}, 2);
    adapter_rig_place(&rig, 1, (const int32_t[]){0}, 1);
    adapter_rig_place(&rig, 2, (const int32_t[]){2}, 1);
    assert_int_equal(rig.set->adapters[0].column, 0);
    assert_int_equal(rig.set->adapters[1].column, -1);
    assert_int_equal(rig.set->adapters[2].column, 2);
    adapter_rig_end(&rig);
}

static void test_too_many_ranks(void **state)
{
    static const lora_adapter_options_t options[] = {
        {.name = "a", .rank = 3, .scale = 1, .targets = Q},
        {.name = "b", .rank = 2, .scale = 1, .targets = Q}};
    op_fixture_t *fx = *state;
    adapter_rig_t rig = adapter_rig(fx, KERN_F32, options, 2, 4);

    for (int32_t a = 0; a < 2; a++)
        free(adapter_rig_write(&rig, a, 1));
    assert_int_equal(lora_adapter_set_place(rig.set, 0, (const int32_t[]){0, 1}, 2, fx->s),
                     BASE_ERR_ARG);
    fixture_expect_error(fx->ctx, BASE_ERR_ARG, "INT-01", "more than 4 columns");
    adapter_rig_end(&rig);
}

/* Written while it has a place, and while it has none. */
static void test_write_and_read(void **state)
{
    static const lora_adapter_options_t options[] = {
        {.name = "a", .rank = 3, .scale = 1, .targets = Q | V},
        {.name = "b", .rank = 3, .scale = 1, .targets = Q | K}};

    for (int wide = 0; wide < 2; wide++) {
        adapter_rig_t rig = adapter_rig(*state, wide ? KERN_F64 : KERN_F32, options, 2, 3);
        double *first = adapter_rig_write(&rig, 0, 1), *other = adapter_rig_write(&rig, 1, 2);

        adapter_rig_place(&rig, 0, (const int32_t[]){0}, 1);
        check_placed(&rig, 0, first);
        free(first);
        first = adapter_rig_write(&rig, 0, 8);
        check_placed(&rig, 0, first);
        adapter_rig_place(&rig, 1, (const int32_t[]){1}, 1);
        free(first);
        first = adapter_rig_write(&rig, 0, 9);
        check_placed(&rig, 1, other);
        adapter_rig_place(&rig, 2, (const int32_t[]){0}, 1);
        check_placed(&rig, 0, first);
        double *moment = adapter_rig_read(&rig, 0, rig.set->adapters[0].moment1);
        for (int64_t i = 0; i < rig.set->adapters[0].layout->count; i++)
            assert_true(moment[i] == 0.0);
        free(moment);
        free(first);
        free(other);
        adapter_rig_end(&rig);
    }
}

/* CONF-04: no column is there for its last rank. */
static void test_rank_above_columns(void **state)
{
    static const lora_adapter_options_t options = {.name = "big", .rank = 9, .targets = Q};
    const data_model_spec_t spec = adapter_rig_spec();
    op_fixture_t *fx = *state;
    const lora_adapter_set_config_t config = {.spec = &spec,
                                              .dtype = KERN_F32,
                                              .num_adapters = 1,
                                              .adapters = &options,
                                              .rank_columns = 8};
    lora_adapter_set_t *set;
    base_arena_t *arena;

    assert_int_equal(base_arena_create(fx->dev, BASE_MEMORY_DEVICE, "rig", &arena), BASE_OK);
    assert_int_equal(lora_adapter_set_create(fx->ctx, &config, arena, &set), BASE_ERR_CONFIG);
    fixture_expect_error(fx->ctx, BASE_ERR_CONFIG, "CONF-04", "adapter big: rank 9");
    base_arena_destroy(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_eviction_and_return),
        cmocka_unit_test(test_least_recently_used_goes),
        cmocka_unit_test(test_too_many_ranks),
        cmocka_unit_test(test_write_and_read),
        cmocka_unit_test(test_rank_above_columns),
    };

    return OP_FIXTURE_RUN(tests);
}
