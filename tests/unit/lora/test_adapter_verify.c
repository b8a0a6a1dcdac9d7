#include "tests/unit/lora/peft_fixture.h"

#include "data/json_read.h"
#include "lora/adapter_verify.h"

#include <math.h>
#include <stdlib.h>

#define ROOT "adapter_verify_test"

typedef struct rig {
    peft_case_t c;
    peft_folder_t *f; /* r 4, alpha 8, q and v */
} rig_t;

static void rig_init(rig_t *r)
{
    peft_case_init(&r->c, ROOT);
    r->f = peft_folder_create(&r->c, "in");
}

static void rig_deinit(rig_t *r)
{
    free(r->f);
    peft_case_deinit(&r->c);
}

static lora_verify_t *verify_good(rig_t *r)
{
    lora_verify_t *report = NULL;
    base_error_t error;

    peft_folder_write(&r->c, r->f);
    if (lora_adapter_verify(r->c.ctx, r->f->dir, r->c.base, NULL, &report) != BASE_OK)
        fail_msg("%s", base_ctx_error(r->c.ctx, &error) ? error.text : "no text");
    return report;
}

/* |scale B A| element by element, of module `index` of the folder. */
static double direct_norm(const rig_t *r, int index, double scale)
{
    const peft_tensor_t *a = &r->f->tensors[2 * index], *b = &r->f->tensors[2 * index + 1];
    double squares = 0.0;

    for (int64_t o = 0; o < b->rows; o++)
        for (int64_t i = 0; i < a->columns; i++) {
            double sum = 0.0;

            for (int64_t k = 0; k < a->rows; k++)
                sum += (double)b->values[o * a->rows + k] * (double)a->values[k * a->columns + i];
            squares += scale * sum * scale * sum;
        }
    return sqrt(squares);
}

/* The products of 8-bit numbers are exact in double, so only the last sums, the scale and the
 * square root round, in the report and in the test: some units of 1e-16 each. */
static bool close_to(double found, double wanted)
{
    return fabs(found - wanted) <= 1e-14 * wanted;
}

static void the_change_of_each_module_is_measured(void **state)
{
    rig_t r;
    lora_verify_t *report;
    double squares = 0.0, largest = 0.0;

    (void)state;
    rig_init(&r);
    report = verify_good(&r);
    assert_int_equal(report->rank, 4);
    assert_int_equal(report->targets, QV);
    assert_int_equal(report->num_tensors, 8);
    assert_int_equal(report->parameters, 2 * 4 * ((8 + 12) + (8 + 6)));
    assert_int_equal(report->num_modules, 4);
    for (int i = 0; i < 4; i++) {
        const double wanted = direct_norm(&r, i, 2.0);

        assert_true(wanted > 1.0);
        assert_int_equal(report->modules[i].layer, i / 2);
        assert_int_equal(report->modules[i].target, i % 2 == 0 ? 0 : 2);
        assert_true(close_to(report->modules[i].delta, wanted));
        squares += wanted * wanted;
        largest = wanted > largest ? wanted : largest;
    }
    assert_true(close_to(report->delta, sqrt(squares)));
    assert_true(close_to(report->max_delta, largest));
    assert_true(report->modules[report->max_module].delta == report->max_delta);
    assert_false(report->does_nothing);
    assert_int_equal(report->num_zero_b, 0);
    lora_verify_destroy(report);
    rig_deinit(&r);
}

/* Complaint 14: an adapter that loads and does nothing. */
static void an_adapter_that_does_nothing_is_named_complaint_14(void **state)
{
    rig_t r;
    lora_verify_t *report;

    (void)state;
    rig_init(&r);
    for (int i = 0; i < 3; i++)
        memset(r.f->tensors[2 * i + 1].values, 0, sizeof r.f->tensors[0].values);
    report = verify_good(&r);
    assert_int_equal(report->num_zero_b, 3);
    assert_true(report->modules[0].zero_b && !report->modules[3].zero_b);
    assert_false(report->does_nothing);
    assert_int_equal(report->max_module, 3);
    lora_verify_destroy(report);
    memset(r.f->tensors[7].values, 0, sizeof r.f->tensors[0].values);
    report = verify_good(&r);
    assert_true(report->does_nothing);
    assert_int_equal(report->num_zero_b, 4);
    assert_true(report->delta == 0.0 && report->max_delta == 0.0);
    lora_verify_destroy(report);
    /* A zero does as well. */
    peft_fill(r.f->tensors[7].values, 24, 3);
    memset(r.f->tensors[6].values, 0, sizeof r.f->tensors[0].values);
    report = verify_good(&r);
    assert_true(report->does_nothing);
    assert_int_equal(report->num_zero_b, 3);
    lora_verify_destroy(report);
    rig_deinit(&r);
}

/* B A that is small against |B| |A|: two columns of B that cancel with two rows of A. The bound is
 * that of the header. */
static void cancellation_stays_within_its_bound(void **state)
{
    rig_t r;
    lora_verify_t *report;
    peft_tensor_t *a, *b;

    (void)state;
    rig_init(&r);
    a = &r.f->tensors[0];
    b = &r.f->tensors[1];
    for (int i = 0; i < 8; i++) {
        a->values[8 + i] = a->values[i];
        a->values[16 + i] = a->values[24 + i] = 0.0f;
    }
    for (int o = 0; o < 12; o++)
        b->values[4 * o + 1] = -b->values[4 * o];
    report = verify_good(&r);
    assert_true(direct_norm(&r, 0, 2.0) == 0.0);
    assert_true(report->modules[0].delta <= 1e-8 * 2.0 * sqrt(2.0 * 12.0) * sqrt(2.0 * 8.0));
    lora_verify_destroy(report);
    rig_deinit(&r);
}

static void faults_are_reported_in_one_pass(void **state)
{
    rig_t r;
    lora_verify_t *report = NULL;
    base_error_list_t errors;

    (void)state;
    rig_init(&r);
    r.f->tensors[1].values[5] = NAN;
    r.f->tensors[1].values[40] = INFINITY;
    r.f->tensors[4].values[0] = -INFINITY;
    peft_folder_write(&r.c, r.f);
    base_error_list_init(&errors, r.c.ctx);
    assert_int_equal(lora_adapter_verify(r.c.ctx, r.f->dir, r.c.base, &errors, &report),
                     BASE_ERR_FORMAT);
    assert_null(report);
    assert_int_equal(errors.count, 2);
    assert_int_equal(data_errors_finish(&errors), BASE_ERR_FORMAT);
    fixture_expect_error(r.c.ctx, BASE_ERR_FORMAT, "DATA-47",
                         "layers.0.self_attn.q_proj.lora_B.weight\": 2 of 48 elements are not "
                         "finite, the first is element 5");
    base_error_list_deinit(&errors);
    r.f->tensors[3].rows = 7; /* v gives 6 */
    peft_folder_write(&r.c, r.f);
    assert_int_equal(lora_adapter_verify(r.c.ctx, r.f->dir, r.c.base, NULL, &report),
                     BASE_ERR_FORMAT);
    fixture_expect_error(r.c.ctx, BASE_ERR_FORMAT, "DATA-45",
                         "has shape [7, 4], the base and rank 4 give [6, 4]");
    assert_int_equal(lora_adapter_verify(r.c.ctx, ROOT "/none", r.c.base, NULL, &report),
                     BASE_ERR_FORMAT);
    fixture_expect_error(r.c.ctx, BASE_ERR_FORMAT, "DATA-40", "there is no such folder");
    rig_deinit(&r);
}

static void the_base_folder_has_the_last_word(void **state)
{
    rig_t r;
    base_error_list_t errors;

    (void)state;
    rig_init(&r);
    base_error_list_init(&errors, r.c.ctx);
    lora_adapter_check_base(r.c.base, "x", 1, 6, 10, 8, &errors);
    assert_int_equal(errors.count, 0);
    lora_adapter_check_base(r.c.base, "x", 1, 6, 8, 10, &errors);
    assert_int_equal(errors.count, 1);
    assert_int_equal(errors.items[0].message, BASE_MSG_DATA_45);
    assert_string_equal(errors.items[0].text,
                        "x: B A of \"model.layers.1.mlp.down_proj\" has shape [10, 8], the base's "
                        "\"model.layers.1.mlp.down_proj.weight\" has [8, 10]");
    base_error_list_deinit(&errors);
    rig_deinit(&r);
}

static void memory_failures_leave_nothing(void **state)
{
    rig_t r;
    base_status_t st = BASE_ERR_NOMEM;

    (void)state;
    rig_init(&r);
    peft_folder_write(&r.c, r.f);
    for (int n = 1; st != BASE_OK; n++) {
        const int64_t live = base_memory_live_total(base_ctx_memory(r.c.ctx));
        lora_verify_t *report = NULL;

        assert_true(n < 200);
        base_memory_fail_at(base_ctx_memory(r.c.ctx), n);
        st = lora_adapter_verify(r.c.ctx, r.f->dir, r.c.base, NULL, &report);
        base_memory_fail_at(base_ctx_memory(r.c.ctx), 0);
        assert_true(st == BASE_OK || st == BASE_ERR_NOMEM);
        base_ctx_clear_error(r.c.ctx);
        lora_verify_destroy(report);
        assert_int_equal(base_memory_live_total(base_ctx_memory(r.c.ctx)), live);
    }
    rig_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_change_of_each_module_is_measured),
        cmocka_unit_test(an_adapter_that_does_nothing_is_named_complaint_14),
        cmocka_unit_test(cancellation_stays_within_its_bound),
        cmocka_unit_test(faults_are_reported_in_one_pass),
        cmocka_unit_test(the_base_folder_has_the_last_word),
        cmocka_unit_test(memory_failures_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
