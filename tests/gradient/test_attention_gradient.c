/* dq, dk, dv of core attention against differences of sum(o d_o), in double. */
#include "tests/support/attention_doc.h"

static double scalar(void *user)
{
    attention_doc_t *doc = user;

    attention_doc_run_whole(doc, 0);
    return op_dot(doc->o, doc->d_o, attention_doc_q_count(doc));
}

static void check(op_fixture_t *fx, const kern_case_attention_t *c, int samples)
{
    attention_doc_t doc = attention_doc(fx, c, KERN_F64);

    attention_doc_run_whole(&doc, 1);
    op_assert_gradient(doc.q, attention_doc_q_count(&doc), doc.dq, scalar, &doc, samples, c->seed);
    op_assert_gradient(doc.k, attention_doc_kv_count(&doc), doc.dk, scalar, &doc, samples,
                       c->seed + 1);
    op_assert_gradient(doc.v, attention_doc_kv_count(&doc), doc.dv, scalar, &doc, samples,
                       c->seed + 2);
    attention_doc_end(&doc);
}

static void test_cases(void **state)
{
    op_fixture_t *fx = *state;

    for (int i = 0; i < num_kern_cases_attention; i++) {
        const kern_case_attention_t *c = &kern_cases_attention[i];
        const int is_large = c->rows * c->head_dim > 8000;

        /* A sample costs four forward passes. */
        if (fx->kind == BASE_DEVICE_CPU)
            check(fx, c, is_large ? 4 : 12);
        else if (!is_large)
            check(fx, c, 2);
    }
}

/* Few rows, all elements, for every group and window that is told apart. */
static void test_every_element(void **state)
{
    static const int32_t groups[] = {1, 2, 4};
    static const int64_t windows[] = {0, 1, 5};
    op_fixture_t *fx = *state;

    for (int r = 0; r < 3 && fx->kind == BASE_DEVICE_CPU; r++)
        for (int w = 0; w < 3; w++)
            check(fx,
                  &(kern_case_attention_t){9, windows[w], 1, groups[r], 3, (uint64_t)(r * 3 + w)},
                  200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_every_element),
    };

    return OP_FIXTURE_RUN(tests);
}
