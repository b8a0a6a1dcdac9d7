#include "tests/support/op_fixture.h"

#include "kernels/cases/op_cases.h"

#include <math.h>
#include <stdlib.h>

#define NUM_POSITIONS 40

typedef struct rope_rig {
    op_fixture_t *fx;
    const kern_case_rope_t *c;
    kern_dtype_t dtype;
    int64_t T, G, R, D, head_rows, columns;
    double *qkv, *positions, *table; /* table: as the op made it */
    op_tensor_t t_qkv, t_positions, t_table, q, k, v;
} rope_rig_t;

static void rig_table(rope_rig_t *rig)
{
    double inv_freq[64];

    for (int64_t i = 0; i < rig->D / 2; i++)
        inv_freq[i] = pow(10000.0, -2.0 * (double)i / (double)rig->D);
    rig->t_table = op_tensor(rig->fx, NUM_POSITIONS, rig->D, rig->D + rig->c->pad, rig->dtype);
    op_run(rig->fx, rope_table, (&(kern_rope_table_t){inv_freq, 1.25, rig->t_table.mat}));
    op_tensor_get(&rig->t_table, rig->table); /* waits, so inv_freq may go */
    for (int64_t p = 0; p < NUM_POSITIONS; p++)
        for (int64_t i = 0; i < rig->D / 2; i++) {
            const double want[] = {1.25 * cos((double)p * inv_freq[i]),
                                   1.25 * sin((double)p * inv_freq[i])};
            const double got[] = {rig->table[p * rig->D + i],
                                  rig->table[p * rig->D + rig->D / 2 + i]};

            op_assert_close(got, want, 2, rig->dtype == KERN_F64 ? 1e-15 : 1e-7);
        }
}

static rope_rig_t rig_open(op_fixture_t *fx, const kern_case_rope_t *c, kern_dtype_t dtype)
{
    rope_rig_t rig = {.fx = fx, .c = c, .dtype = dtype, .T = c->rows, .G = c->num_kv_heads};
    uint64_t seed = c->seed;

    rig.R = c->num_q_heads / c->num_kv_heads;
    rig.D = c->head_dim;
    rig.head_rows = c->rows + c->extra_head_rows;
    rig.columns = (c->num_q_heads + 2 * rig.G) * rig.D;
    rig.qkv = op_doubles(rig.T * rig.columns);
    rig.positions = op_doubles(rig.T);
    rig.table = op_doubles(NUM_POSITIONS * rig.D);
    op_random_fill(c->seed, rig.T * rig.columns, rig.qkv);
    for (int64_t t = 0; t < rig.T; t++)
        rig.positions[t] = (double)op_random_below(&seed, NUM_POSITIONS);
    rig_table(&rig);
    rig.t_qkv = op_tensor_from(fx, rig.T, rig.columns, rig.columns + c->pad, dtype, rig.qkv);
    rig.t_positions = op_tensor_from(fx, 1, rig.T, rig.T, KERN_I32, rig.positions);
    /* (G, T, width) seen as G rows of T width elements: the rows between KV heads are watched */
    rig.q = op_tensor(fx, rig.G, rig.T * rig.R * rig.D, rig.head_rows * rig.R * rig.D, dtype);
    rig.k = op_tensor(fx, rig.G, rig.T * rig.D, rig.head_rows * rig.D, dtype);
    rig.v = op_tensor(fx, rig.G, rig.T * rig.D, rig.head_rows * rig.D, dtype);
    return rig;
}

static void rig_close(rope_rig_t *rig)
{
    op_tensor_t *const all[] = {&rig->t_qkv, &rig->t_positions, &rig->t_table,
                                &rig->q,     &rig->k,           &rig->v};

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        op_tensor_end(all[i]);
    free(rig->qkv);
    free(rig->positions);
    free(rig->table);
}

/* Rotates D values at position p by the formula in op.h. */
static void rotate(const rope_rig_t *rig, int64_t t, const double *x, double *out)
{
    const double *angle = rig->table + (int64_t)rig->positions[t] * rig->D;
    const int64_t half = rig->D / 2;

    for (int64_t j = 0; j < half; j++) {
        out[j] = x[j] * angle[j] - x[j + half] * angle[half + j];
        out[j + half] = x[j + half] * angle[j] + x[j] * angle[half + j];
    }
}

static void check_forward(rope_rig_t *rig)
{
    const int64_t T = rig->T, G = rig->G, R = rig->R, D = rig->D;
    double *q = op_doubles(G * T * R * D), *k = op_doubles(G * T * D), *v = op_doubles(G * T * D);
    double *want = op_doubles(D);
    const double tolerance = rig->dtype == KERN_F64 ? 1e-15 : 1e-6;

    op_tensor_get(&rig->q, q);
    op_tensor_get(&rig->k, k);
    op_tensor_get(&rig->v, v);
    for (int64_t t = 0; t < T; t++)
        for (int64_t g = 0; g < G; g++) {
            const double *row = rig->qkv + t * rig->columns;

            for (int64_t r = 0; r < R; r++) {
                rotate(rig, t, row + (g * R + r) * D, want);
                op_assert_close(q + ((g * T + t) * R + r) * D, want, D, tolerance);
            }
            rotate(rig, t, row + (G * R + g) * D, want);
            op_assert_close(k + (g * T + t) * D, want, D, tolerance);
            op_assert_close(v + (g * T + t) * D, row + (G * R + G + g) * D, D, tolerance);
        }
    free(q);
    free(k);
    free(v);
    free(want);
}

/* Back and forth is scale^2 for q and k, and the identity for v. */
static void check_backward(rope_rig_t *rig)
{
    op_tensor_t back = op_tensor(rig->fx, rig->T, rig->columns, rig->columns + 1, rig->dtype);
    const kern_rope_bwd_t args = {rig->q.mat.mem,  rig->k.mat.mem,       rig->v.mat.mem,
                                  rig->head_rows,  rig->t_positions.mat, rig->t_table.mat,
                                  back.mat,        rig->c->num_q_heads,  rig->c->num_kv_heads,
                                  rig->c->head_dim};
    const int64_t rotated = (rig->R + 1) * rig->G * rig->D;
    double *got = op_doubles(rig->T * rig->columns);

    op_run(rig->fx, rope_bwd, &args);
    op_tensor_get(&back, got);
    for (int64_t i = 0; i < rig->T * rig->columns; i++)
        rig->qkv[i] *= i % rig->columns < rotated ? 1.25 * 1.25 : 1;
    op_assert_close(got, rig->qkv, rig->T * rig->columns, rig->dtype == KERN_F64 ? 1e-15 : 1e-6);
    op_tensor_end(&back);
    free(got);
}

static kern_rope_fwd_t fwd_args(const rope_rig_t *rig)
{
    const kern_rope_fwd_t args = {rig->t_qkv.mat,  rig->t_positions.mat, rig->t_table.mat,
                                  rig->q.mat.mem,  rig->k.mat.mem,       rig->v.mat.mem,
                                  rig->head_rows,  rig->c->num_q_heads,  rig->c->num_kv_heads,
                                  rig->c->head_dim};

    return args;
}

static void test_cases(void **state)
{
    for (int i = 0; i < num_kern_cases_rope; i++)
        for (int f32 = 0; f32 < 2; f32++) {
            rope_rig_t rig = rig_open(*state, &kern_cases_rope[i], f32 ? KERN_F32 : KERN_F64);
            const kern_rope_fwd_t args = fwd_args(&rig);

            op_run(rig.fx, rope_fwd, &args);
            check_forward(&rig);
            check_backward(&rig);
            rig_close(&rig);
        }
}

static void test_position_out_of_range(void **state)
{
    rope_rig_t rig = rig_open(*state, &kern_cases_rope[1], KERN_F32);
    const kern_rope_fwd_t args = fwd_args(&rig);

    rig.positions[2] = NUM_POSITIONS;
    op_tensor_set(&rig.t_positions, rig.positions);
    (void)!kern_rope_fwd_run(rig.fx->s, &args);
    op_fixture_expect_stream_error(rig.fx, BASE_ERR_ARG, "row 2 has position 40, the table 40");
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_position_out_of_range),
    };

    return OP_FIXTURE_RUN(tests);
}
