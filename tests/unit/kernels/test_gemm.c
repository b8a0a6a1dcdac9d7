#include "tests/support/op_fixture.h"

#include "kernels/cases/op_cases.h"

#include <math.h>
#include <stdlib.h>

/* c = op(a) op(b) + (accumulate ? c : 0) */
static void reference(const kern_case_gemm_t *p, const double *a, const double *b, double *c)
{
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double sum = p->accumulate ? c[i * p->n + j] : 0;

            for (int64_t l = 0; l < p->k; l++)
                sum += (p->transpose_a ? a[l * p->m + i] : a[i * p->k + l]) *
                       (p->transpose_b ? b[j * p->k + l] : b[l * p->n + j]);
            c[i * p->n + j] = sum;
        }
}

static void run_case(op_fixture_t *fx, const kern_case_gemm_t *p, kern_dtype_t dtype)
{
    const int64_t m = p->m, n = p->n, k = p->k;
    const int64_t a_rows = p->transpose_a ? k : m, a_cols = p->transpose_a ? m : k;
    const int64_t b_rows = p->transpose_b ? n : k, b_cols = p->transpose_b ? k : n;
    double *a = op_doubles(m * k), *b = op_doubles(n * k), *c = op_doubles(m * n),
           *got = op_doubles(m * n);
    op_tensor_t ta, tb, tc;

    op_random_fill(p->seed, m * k, a);
    op_random_fill(p->seed + 1000, n * k, b);
    op_random_fill(p->seed + 2000, m * n, c);
    ta = op_tensor_from(fx, a_rows, a_cols, a_cols + p->pad, dtype, a);
    tb = op_tensor_from(fx, b_rows, b_cols, b_cols + p->pad, dtype, b);
    tc = op_tensor(fx, m, n, n + p->pad, dtype); /* NaN unless it is read */
    if (p->accumulate) op_tensor_set(&tc, c);
    op_run(fx, gemm,
           (&(kern_gemm_t){ta.mat, tb.mat, tc.mat, p->transpose_a, p->transpose_b, p->accumulate}));
    op_tensor_get(&tc, got);
    reference(p, a, b, c);
    op_assert_close(got, c, m * n, dtype == KERN_F64 ? 1e-14 : 2e-6);
    op_tensor_end(&ta);
    op_tensor_end(&tb);
    op_tensor_end(&tc);
    free(a);
    free(b);
    free(c);
    free(got);
}

static void test_cases(void **state)
{
    for (int i = 0; i < num_kern_cases_gemm; i++) {
        run_case(*state, &kern_cases_gemm[i], KERN_F64);
        run_case(*state, &kern_cases_gemm[i], KERN_F32);
    }
}

static void test_hand(void **state)
{
    const double a[] = {1, 2, 3, 4}, b[] = {5, 6, 7, 8};
    const double plain[] = {19, 22, 43, 50}, transposed_b[] = {17, 23, 39, 53};
    const double transposed_a[] = {26, 30, 38, 44};
    const double *const want[] = {plain, transposed_b, transposed_a};
    op_fixture_t *fx = *state;
    double got[4];

    for (int i = 0; i < 3; i++) {
        op_tensor_t ta = op_tensor_from(fx, 2, 2, 2, KERN_F32, a),
                    tb = op_tensor_from(fx, 2, 2, 2, KERN_F32, b);
        op_tensor_t tc = op_tensor(fx, 2, 2, 2, KERN_F32);

        op_run(fx, gemm, (&(kern_gemm_t){ta.mat, tb.mat, tc.mat, i == 2, i == 1, 0}));
        op_tensor_get(&tc, got);
        assert_memory_equal(got, want[i], sizeof got);
        op_tensor_end(&ta);
        op_tensor_end(&tb);
        op_tensor_end(&tc);
    }
}

/* The dense layers of two ranks must not meet: a row that is not finite stays alone. */
static void test_rows_alone(void **state)
{
    enum { M = 37, N = 29, K = 19 };
    op_fixture_t *fx = *state;
    double *a = op_doubles(M * K), *b = op_doubles(N * K), *clean = op_doubles(M * N),
           *got = op_doubles(M * N);
    op_tensor_t ta, tb, tc;

    op_random_fill(1, M * K, a);
    op_random_fill(2, N * K, b);
    ta = op_tensor_from(fx, M, K, K, KERN_F32, a);
    tb = op_tensor_from(fx, N, K, K, KERN_F32, b);
    tc = op_tensor(fx, M, N, N, KERN_F32);
    op_run(fx, gemm, (&(kern_gemm_t){ta.mat, tb.mat, tc.mat, 0, 1, 0}));
    op_tensor_get(&tc, clean);
    a[5 * K + 3] = (double)NAN;
    op_tensor_set(&ta, a);
    op_run(fx, gemm, (&(kern_gemm_t){ta.mat, tb.mat, tc.mat, 0, 1, 0}));
    op_tensor_get(&tc, got);
    for (int i = 0; i < M * N; i++)
        if (i / N == 5)
            assert_true(isnan(got[i]));
        else
            assert_memory_equal(&got[i], &clean[i], sizeof got[i]);
    op_tensor_end(&ta);
    op_tensor_end(&tb);
    op_tensor_end(&tc);
    free(a);
    free(b);
    free(clean);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_hand),
        cmocka_unit_test(test_rows_alone),
    };

    return OP_FIXTURE_RUN(tests);
}
