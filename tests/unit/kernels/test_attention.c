/* Core attention: against its definition, and the property of the seam: bits do not depend on the
 * cut. */
#include "tests/support/attention_doc.h"

#include <math.h>
#include <stdlib.h>

static int num_cases(const op_fixture_t *fx)
{
    /* The strict device is slow; what it proves does not need the largest shapes. */
    return fx->kind == BASE_DEVICE_STRICT ? num_kern_cases_attention - 3 : num_kern_cases_attention;
}

static void compare(const attention_doc_t *got, const attention_doc_t *want, double tolerance)
{
    const int64_t q_count = attention_doc_q_count(got), kv_count = attention_doc_kv_count(got);

    op_assert_close(got->o, want->o, q_count, tolerance);
    op_assert_close(got->lse, want->lse, attention_doc_lse_count(got), tolerance);
    op_assert_close(got->delta, want->delta, attention_doc_lse_count(got), tolerance);
    op_assert_close(got->dq, want->dq, q_count, tolerance);
    op_assert_close(got->dk, want->dk, kv_count, tolerance);
    op_assert_close(got->dv, want->dv, kv_count, tolerance);
}

static void test_definition(void **state)
{
    for (int i = 0; i < num_cases(*state); i++)
        for (int f32 = 0; f32 < 2; f32++) {
            const kern_dtype_t dtype = f32 ? KERN_F32 : KERN_F64;
            attention_doc_t got = attention_doc(*state, &kern_cases_attention[i], dtype);
            attention_doc_t want = attention_doc(*state, &kern_cases_attention[i], dtype);

            attention_doc_run_whole(&got, 1);
            attention_doc_reference(&want);
            compare(&got, &want, f32 ? 2e-5 : 1e-13);
            attention_doc_end(&got);
            attention_doc_end(&want);
        }
}

/* Random rows, and in each row range random groups of heads, in shuffled order of rows. */
static int random_cuts(const attention_doc_t *doc, uint64_t *seed, attention_cut_t *cuts, int max)
{
    int n = 0;

    for (int64_t row = 0, end; row < doc->T; row = end) {
        const int64_t step = 1 + op_random_below(seed, op_random_below(seed, 3) == 0 ? 20 : 260);

        end = row + step < doc->T && n + doc->G * 2 < max ? row + step : doc->T;
        for (int32_t h = 0, heads; h < doc->G; h += heads) {
            heads = 1 + (int32_t)op_random_below(seed, doc->G - h);
            assert_true(n < max);
            cuts[n++] = (attention_cut_t){row, end - row, h, heads};
        }
    }
    for (int i = n - 1; i > 0; i--) {
        const int j = (int)op_random_below(seed, i + 1);
        const attention_cut_t c = cuts[i];

        cuts[i] = cuts[j];
        cuts[j] = c;
    }
    return n;
}

static void assert_same_bits(const double *a, const double *b, int64_t count, const char *what)
{
    for (int64_t i = 0; i < count; i++)
        if (memcmp(&a[i], &b[i], sizeof a[i]) != 0)
            fail_msg("%s: element %lld is %.17g cut, %.17g whole", what, (long long)i, b[i], a[i]);
}

static void check_cuts(op_fixture_t *fx, const kern_case_attention_t *c, kern_dtype_t dtype,
                       int rounds)
{
    attention_doc_t whole = attention_doc(fx, c, dtype), cut = attention_doc(fx, c, dtype);
    attention_cut_t cuts[64];
    uint64_t seed = c->seed * 77 + (uint64_t)dtype;

    attention_doc_run_whole(&whole, 1);
    for (int round = 0; round < rounds; round++) {
        const int n = random_cuts(&cut, &seed, cuts, 64);

        attention_doc_run(&cut, cuts, n, 1);
        assert_same_bits(whole.o, cut.o, attention_doc_q_count(&cut), "o");
        assert_same_bits(whole.lse, cut.lse, attention_doc_lse_count(&cut), "lse");
        assert_same_bits(whole.dq, cut.dq, attention_doc_q_count(&cut), "dq");
        compare(&cut, &whole, dtype == KERN_F64 ? 1e-12 : 1e-5);
    }
    attention_doc_end(&whole);
    attention_doc_end(&cut);
}

static void test_cuts(void **state)
{
    op_fixture_t *fx = *state;

    for (int i = 0; i < num_cases(fx); i++) {
        check_cuts(fx, &kern_cases_attention[i], KERN_F64, fx->kind == BASE_DEVICE_CPU ? 3 : 1);
        check_cuts(fx, &kern_cases_attention[i], KERN_F32, fx->kind == BASE_DEVICE_CPU ? 3 : 1);
    }
}

/* Rows one by one through the edge of a tile: every task has one row, most tiles are masked. */
static void test_single_rows(void **state)
{
    const kern_case_attention_t c = {140, 7, 1, 2, 8, 91};
    attention_doc_t whole = attention_doc(*state, &c, KERN_F64);
    attention_doc_t cut = attention_doc(*state, &c, KERN_F64);
    attention_cut_t cuts[16] = {{0, 125, 0, 1}};
    int n = 1;

    for (int64_t row = 125; row < 132; row++)
        cuts[n++] = (attention_cut_t){row, 1, 0, 1};
    cuts[n++] = (attention_cut_t){132, 0, 0, 1}; /* a task without rows */
    cuts[n++] = (attention_cut_t){132, 8, 0, 1};
    attention_doc_run_whole(&whole, 1);
    attention_doc_run(&cut, cuts, n, 1);
    assert_same_bits(whole.o, cut.o, attention_doc_q_count(&cut), "o");
    assert_same_bits(whole.dq, cut.dq, attention_doc_q_count(&cut), "dq");
    compare(&cut, &whole, 1e-12);
    attention_doc_end(&whole);
    attention_doc_end(&cut);
}

/* Scores of +-1000 and more: nothing overflows, and rows whose running maximum jumps keep their
 * bits under cuts. */
static void test_large_scores(void **state)
{
    const kern_case_attention_t c = {300, 150, 1, 2, 8, 92};
    const attention_cut_t cuts[] = {{0, 131, 0, 1}, {131, 68, 0, 1}, {199, 101, 0, 1}};
    attention_doc_t whole = attention_doc(*state, &c, KERN_F32);
    attention_doc_t cut = attention_doc(*state, &c, KERN_F32);

    for (int64_t i = 0; i < attention_doc_q_count(&cut); i++)
        whole.q[i] = cut.q[i] = 300 * cut.q[i];
    attention_doc_run_whole(&whole, 1);
    attention_doc_run(&cut, cuts, 3, 1);
    for (int64_t i = 0; i < attention_doc_q_count(&cut); i++)
        assert_true(isfinite(whole.o[i]) && isfinite(whole.dq[i]));
    assert_same_bits(whole.o, cut.o, attention_doc_q_count(&cut), "o");
    assert_same_bits(whole.lse, cut.lse, attention_doc_lse_count(&cut), "lse");
    assert_same_bits(whole.dq, cut.dq, attention_doc_q_count(&cut), "dq");
    attention_doc_end(&whole);
    attention_doc_end(&cut);
}

/* Scores that overflow to -infinity are probabilities of 0, also where they fill the first tile
 * that a row sees. */
static void test_overflow(void **state)
{
    const kern_case_attention_t c = {130, 0, 1, 1, 1, 93};
    attention_doc_t doc = attention_doc(*state, &c, KERN_F32);

    for (int64_t i = 0; i < doc.T; i++) {
        doc.q[i] = i == 129 ? 1e38 : 0;
        doc.k[i] = i < 128 ? -1e38 : 0;
    }
    attention_doc_run_whole(&doc, 0);
    assert_true(doc.o[129] == (double)(float)((float)(doc.v[128] + doc.v[129]) / 2.0f));
    assert_true(fabs(doc.lse[129] - log(2.0)) < 1e-6);
    attention_doc_end(&doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),  cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_single_rows), cmocka_unit_test(test_large_scores),
        cmocka_unit_test(test_overflow),
    };

    return OP_FIXTURE_RUN(tests);
}
