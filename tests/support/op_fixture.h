/* For tests of ops: a device with a stream, and tensors whose surroundings are watched.
 *
 * A tensor is a matrix in a buffer of its own, with guard zones before and after it and, with pitch
 * > cols, between its rows. Guards hold a pattern that is a NaN in every dtype: reading them
 * poisons the result, writing them is found by op_tensor_end. A new tensor's elements are NaN too
 * (integers: -1), so an output that is not fully written shows. Values travel as doubles.
 *
 * Every test program runs its groups on the cpu and on the strict device: OP_FIXTURE_RUN. */
#ifndef CADRE_TESTS_SUPPORT_OP_FIXTURE_H
#define CADRE_TESTS_SUPPORT_OP_FIXTURE_H

#include "tests/support/ctx_fixture.h"

#include "kernels/op.h"

typedef struct op_fixture {
    base_ctx_t *ctx;
    base_device_t *dev;
    base_stream_t *s;
    base_device_kind_t kind;
} op_fixture_t;

/* cmocka group setup and teardown; *state becomes the fixture. */
int op_fixture_setup_cpu(void **state);
int op_fixture_setup_strict(void **state);
int op_fixture_teardown(void **state);

#define OP_FIXTURE_RUN(tests)                                                                      \
    (cmocka_run_group_tests_name("cpu", tests, op_fixture_setup_cpu, op_fixture_teardown) +        \
     cmocka_run_group_tests_name("strict", tests, op_fixture_setup_strict, op_fixture_teardown))

typedef struct op_tensor {
    op_fixture_t *fx;
    kern_mat_t mat;
} op_tensor_t;

op_tensor_t op_tensor(op_fixture_t *fx, int64_t rows, int64_t cols, int64_t pitch,
                      kern_dtype_t dtype);
/* op_tensor and op_tensor_set */
op_tensor_t op_tensor_from(op_fixture_t *fx, int64_t rows, int64_t cols, int64_t pitch,
                           kern_dtype_t dtype, const double *values);
void op_tensor_set(op_tensor_t *t, const double *values); /* rows x cols, dense; rounds */
void op_tensor_get(op_tensor_t *t, double *values);       /* waits for the stream */
/* Checks the guards and frees. */
void op_tensor_end(op_tensor_t *t);

/* The stream is synchronised and has no error. */
void op_fixture_sync(op_fixture_t *fx);
/* The stream's error is `st` and the recorded text holds `piece`; the stream is made anew. */
void op_fixture_expect_stream_error(op_fixture_t *fx, base_status_t st, const char *piece);

/* Repeatable values: uniform in [-1, 1], and integers in [0, n). */
double op_random(uint64_t *state);
int64_t op_random_below(uint64_t *state, int64_t n);
void op_random_fill(uint64_t seed, int64_t count, double *values);

#define op_run(fx, op, args) assert_int_equal(kern_##op##_run((fx)->s, (args)), BASE_OK)

/* The call is refused at once with this status and a text that holds `piece`. */
#define op_refuse(fx, op, args, st, piece)                                                         \
    do {                                                                                           \
        assert_int_equal(kern_##op##_run((fx)->s, (args)), (st));                                  \
        fixture_expect_error((fx)->ctx, (st), "INT-01", (piece));                                  \
    } while (0)

/* max |got - want| <= tolerance * max(1, max |want|); NaN anywhere fails. */
void op_assert_close(const double *got, const double *want, int64_t count, double tolerance);

/* ==== gradients ==== */

/* A scalar function of values that the test holds on the host. */
typedef double (*op_scalar_fn)(void *user);

/* Central differences of 4th order, step 1e-3, at up to `samples` random elements of values, which
 * `scalar` reads, against `gradient`: the error is at most 1e-7 of the largest gradient. `values`
 * is as before afterwards. */
void op_assert_gradient(double *values, int64_t count, const double *gradient, op_scalar_fn scalar,
                        void *user, int samples, uint64_t seed);

/* sum a b, what a scalar function mostly returns: an output against its random gradient */
double op_dot(const double *a, const double *b, int64_t count);

/* Memory for `count` doubles, or the test fails; zeroed. */
double *op_doubles(int64_t count);

#endif
