/* lora/ against files that PEFT wrote: every adapter folder opens on its model and reads to the
 * values in it, and the schedule has transformers' rates. */
#include "tests/support/ctx_fixture.h"

#include "data/hf_folder.h"
#include "lora/learning_rate.h"
#include "lora/peft_import.h"
#include "tests/golden/golden_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A and B of each module lie in the vector where the layout says, bit for bit. */
static void check_values(const golden_adapter_t *a, const lora_layout_t *layout,
                         const float *values)
{
    int64_t count = 0;

    for (int64_t i = 0; i < layout->num_modules; i++) {
        const lora_module_t *m = &layout->modules[i];

        for (int part = 0; part < 2; part++) {
            const float *found = values + (part == 0 ? m->a : m->b);
            const golden_tensor_t *t;
            char name[128];

            (void)snprintf(name, sizeof name,
                           "base_model.model.model.layers.%d.%s.%s.lora_%s.weight", m->layer,
                           lora_target_parent(m->target), lora_target_name(m->target),
                           part == 0 ? "A" : "B");
            t = golden_find(a, name);
            if (t == NULL) fail_msg("no tensor %s", name);
            assert_int_equal(t->rows, part == 0 ? layout->rank : m->out);
            assert_int_equal(t->cols, part == 0 ? m->in : layout->rank);
            for (int64_t j = 0; j < t->rows * t->cols; j++)
                assert_true((double)found[j] == t->initial[j]);
            count += t->rows * t->cols;
        }
    }
    assert_int_equal(count, layout->count);
    assert_int_equal(2 * layout->num_modules, a->num_tensors);
}

static void check_adapter(base_ctx_t *ctx, const data_model_spec_t *spec, const golden_adapter_t *a)
{
    const lora_peft_info_t *info;
    lora_layout_t *layout = NULL;
    lora_peft_t *peft = NULL;
    base_error_t error;
    float *values;

    if (lora_peft_open(ctx, a->folder, spec, NULL, &peft) != BASE_OK) {
        assert_true(base_ctx_error(ctx, &error));
        fail_msg("%s", error.text);
    }
    info = lora_peft_info(peft);
    assert_int_equal(info->rank, a->rank);
    assert_true(info->scale == a->scale);
    assert_int_equal(info->rslora, a->rslora);
    assert_false(info->patterns);
    assert_int_equal(lora_layout_create(ctx, spec, info->rank, info->targets, &layout), BASE_OK);
    values = calloc((size_t)layout->count, sizeof *values);
    assert_non_null(values);
    assert_int_equal(lora_peft_read(peft, layout, info->scale, values), BASE_OK);
    check_values(a, layout, values);
    free(values);
    lora_layout_destroy(layout);
    lora_peft_close(peft);
}

/* Also folders whose target_modules are full names, as PEFT writes all-linear of a small model. */
static void test_import(void **state)
{
    base_ctx_t *ctx = fixture_ctx();

    (void)state;
    for (int f = 0; f < GOLDEN_NUM_FAMILIES; f++) {
        golden_case_t *g = golden_case_open(ctx, golden_families[f]);
        data_hf_folder_t *folder;

        assert_int_equal(data_hf_folder_open(ctx, g->model, NULL, &folder), BASE_OK);
        for (int i = 0; i < GOLDEN_NUM_ADAPTERS; i++)
            check_adapter(ctx, data_hf_folder_spec(folder), &g->adapters[i]);
        data_hf_folder_close(folder);
        golden_case_close(g);
    }
    fixture_ctx_end(ctx);
}

static void test_schedule(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    golden_case_t *g = golden_case_open(ctx, golden_families[0]);
    const golden_training_t *t = &g->training;

    (void)state;
    for (int64_t s = 0; s < GOLDEN_STEPS; s++) {
        const double rate = lora_learning_rate_at(BASE_CONFIG_SCHEDULE_COSINE, t->learning_rate, s,
                                                  t->warmup_steps, t->steps);

        /* The same formula in double: some roundings. */
        assert_true(fabs(rate - g->adapters[0].learning_rates[s]) <= 1e-15 * t->learning_rate);
    }
    golden_case_close(g);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_import),
        cmocka_unit_test(test_schedule),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
