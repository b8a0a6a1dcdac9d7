/* dk and dv of tasks that are real: the bits that a sum of their partial sums alone would have, and nothing where the
 * partial sums would be. */
#include "tests/support/op_fixture.h"

#include <math.h>
#include <stdlib.h>

enum { ROWS = 200, HEADS = 2, GROUP = 2, DIM = 8, LANE = GROUP * DIM, WINDOW = 20 };
enum { GAP = 5, DKV_HEAD = ROWS * DIM + GAP, SPAN = HEADS * DKV_HEAD, DKV = 2 * SPAN };

/* The second sees keys from row 109 on; of those before it has zeros. */
static kern_attention_task_t task_of(int index, int real)
{
    const int64_t row0 = index == 0 ? 0 : 128, rows = index == 0 ? 128 : ROWS - 128;

    return (kern_attention_task_t){.q_row0 = row0,
                                   .q_rows = rows,
                                   .kv_heads = HEADS,
                                   .real = real,
                                   .q = row0 * LANE,
                                   .q_head = ROWS * LANE,
                                   .kv_head = ROWS * DIM,
                                   .lse = row0 * GROUP,
                                   .lse_head = ROWS * GROUP,
                                   .d_o = row0 * HEADS * LANE,
                                   .d_o_row = HEADS * LANE,
                                   .d_o_head = LANE,
                                   .delta = row0 * GROUP,
                                   .delta_head = ROWS * GROUP,
                                   .dq = row0 * LANE,
                                   .dq_head = ROWS * LANE,
                                   .dkv = index * SPAN,
                                   .dkv_head = DKV_HEAD};
}

typedef struct rig {
    op_fixture_t *fx;
    kern_dtype_t dtype;
    op_tensor_t q, k, v, d_o, lse, delta, dq;
} rig_t;

/* Values that bf16 holds. */
static op_tensor_t random_tensor(op_fixture_t *fx, int64_t count, kern_dtype_t dtype, uint64_t seed)
{
    double *values = op_doubles(count);

    for (int64_t i = 0; i < count; i++)
        values[i] = (double)(op_random_below(&seed, 255) - 127) / 64;
    op_tensor_t t = op_tensor_from(fx, 1, count, count, dtype, values);
    free(values);
    return t;
}

static rig_t rig_open(op_fixture_t *fx, kern_dtype_t dtype)
{
    const int64_t rows = ROWS * HEADS;
    const kern_dtype_t acc = kern_dtype_acc(dtype);

    return (rig_t){.fx = fx,
                   .dtype = dtype,
                   .q = random_tensor(fx, rows * LANE, dtype, 1),
                   .k = random_tensor(fx, rows * DIM, dtype, 2),
                   .v = random_tensor(fx, rows * DIM, dtype, 3),
                   .d_o = random_tensor(fx, rows * LANE, dtype, 4),
                   .lse = random_tensor(fx, rows * GROUP, acc, 5),
                   .delta = random_tensor(fx, rows * GROUP, acc, 6),
                   .dq = op_tensor(fx, 1, rows * LANE, rows * LANE, dtype)};
}

static void rig_close(rig_t *rig)
{
    op_tensor_t *all[] = {&rig->q, &rig->k, &rig->v, &rig->d_o, &rig->lse, &rig->delta, &rig->dq};

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        op_tensor_end(all[i]);
}

static kern_attention_bwd_t args_of(const rig_t *rig, const kern_attention_task_t *tasks)
{
    return (kern_attention_bwd_t){.dtype = rig->dtype,
                                  .group = GROUP,
                                  .head_dim = DIM,
                                  .window = WINDOW,
                                  .scale = 0.3,
                                  .num_tasks = 2,
                                  .tasks = tasks,
                                  .q = rig->q.mat.mem,
                                  .k = rig->k.mat.mem,
                                  .v = rig->v.mat.mem,
                                  .lse = rig->lse.mat.mem,
                                  .d_o = rig->d_o.mat.mem,
                                  .delta = rig->delta.mat.mem,
                                  .dq = rig->dq.mat.mem};
}

/* dk and dv, of both tasks: what the tasks have left, as doubles; NaN where nothing was written. */
typedef struct left {
    double acc[2][DKV], real[2][DKV];
} left_t;

/* Without `sums` there is no memory for partial sums. */
static void run(const rig_t *rig, int real0, int real1, int sums, left_t *left)
{
    const kern_attention_task_t tasks[] = {task_of(0, real0), task_of(1, real1)};
    kern_attention_bwd_t args = args_of(rig, tasks);
    op_tensor_t acc[2], real[2];

    for (int v = 0; v < 2; v++) {
        acc[v] = op_tensor(rig->fx, 1, DKV, DKV, kern_dtype_acc(rig->dtype));
        real[v] = op_tensor(rig->fx, 1, DKV, DKV, rig->dtype);
    }
    args.dk = sums ? acc[0].mat.mem : (base_mem_t){0};
    args.dv = sums ? acc[1].mat.mem : (base_mem_t){0};
    args.dk_real = real[0].mat.mem;
    args.dv_real = real[1].mat.mem;
    op_run(rig->fx, attention_bwd, &args);
    for (int v = 0; v < 2; v++) {
        op_tensor_get(&acc[v], left->acc[v]);
        op_tensor_get(&real[v], left->real[v]);
        op_tensor_end(&acc[v]);
        op_tensor_end(&real[v]);
    }
}

/* Each task's partial sums by themselves, rounded. */
static void sum_alone(const rig_t *rig, const double *acc, double *real)
{
    const kern_sum_part_t parts[] = {{.src = 0, .src_head = DKV_HEAD},
                                     {.src = SPAN, .src_head = DKV_HEAD}};
    const kern_sum_t sums[] = {{0, DKV_HEAD, 128 * DIM, HEADS, 1, 0},
                               {SPAN, DKV_HEAD, ROWS * DIM, HEADS, 1, 1}};
    op_tensor_t from = op_tensor_from(rig->fx, 1, DKV, DKV, kern_dtype_acc(rig->dtype), acc),
                to = op_tensor(rig->fx, 1, DKV, DKV, rig->dtype);
    const kern_partial_sum_t args = {.dtype = rig->dtype,
                                     .num_sums = 2,
                                     .num_parts = 2,
                                     .sums = sums,
                                     .parts = parts,
                                     .dst = to.mat.mem,
                                     .src = from.mat.mem};

    op_run(rig->fx, partial_sum, &args);
    op_tensor_get(&to, real);
    op_tensor_end(&from);
    op_tensor_end(&to);
}

static void assert_same(const double *got, const double *want, int task)
{
    assert_memory_equal(got + task * SPAN, want + task * SPAN, SPAN * sizeof *got);
}

static void assert_nothing(const double *got, int task)
{
    for (int i = 0; i < SPAN; i++)
        assert_true(isnan(got[task * SPAN + i]));
}

static void check_dtype(op_fixture_t *fx, kern_dtype_t dtype)
{
    rig_t rig = rig_open(fx, dtype);
    left_t *plain = calloc(1, sizeof *plain), *mixed = calloc(1, sizeof *mixed),
           *real = calloc(1, sizeof *real);
    double *want = op_doubles(DKV);

    assert_true(plain != NULL && mixed != NULL && real != NULL);
    run(&rig, 0, 0, 1, plain);
    run(&rig, 0, 1, 1, mixed);
    run(&rig, 1, 1, 0, real);
    for (int v = 0; v < 2; v++) {
        sum_alone(&rig, plain->acc[v], want);
        assert_true(want[SPAN] == 0 && want[SPAN + 150 * DIM] != 0 && want[0] != 0);
        assert_same(mixed->acc[v], plain->acc[v], 0);
        assert_nothing(mixed->acc[v], 1);
        assert_nothing(mixed->real[v], 0);
        assert_same(mixed->real[v], want, 1);
        assert_same(real->real[v], want, 0);
        assert_same(real->real[v], want, 1);
    }
    free(want);
    free(real);
    free(mixed);
    free(plain);
    rig_close(&rig);
}

static void test_bits(void **state)
{
    check_dtype(*state, KERN_F32);
    check_dtype(*state, KERN_F64);
    check_dtype(*state, KERN_BF16);
}

static void test_refused(void **state)
{
    rig_t rig = rig_open(*state, KERN_F32);
    kern_attention_task_t tasks[] = {task_of(0, 0), task_of(1, 1)};
    kern_attention_bwd_t args = args_of(&rig, tasks);
    op_tensor_t sums = op_tensor(rig.fx, 1, DKV, DKV, KERN_F32);

    args.dk = args.dv = sums.mat.mem;
    op_refuse(rig.fx, attention_bwd, &args, BASE_ERR_ARG, "attention_bwd: dk_real");
    args.dk = args.dv = (base_mem_t){0};
    args.dk_real = args.dv_real = sums.mat.mem;
    op_refuse(rig.fx, attention_bwd, &args, BASE_ERR_ARG, "attention_bwd: dk");
    args.dk = args.dv = sums.mat.mem;
    tasks[1].real = -1;
    op_refuse(rig.fx, attention_bwd, &args, BASE_ERR_ARG, "task 1: kv_heads is out of range or");
    op_tensor_end(&sums);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_refused),
    };

    return OP_FIXTURE_RUN(tests);
}
