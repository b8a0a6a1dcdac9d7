/* What an op refuses, and that it says what it found and what it wants. */
#include "tests/support/op_fixture.h"

#include <stdlib.h>

typedef struct rig {
    op_fixture_t *fx;
    op_tensor_t a, b, c;
} rig_t;

/* a (3, 4), b (5, 4), c (3, 5) in fp32 */
static rig_t rig_open(void **state)
{
    rig_t rig = {.fx = *state};
    double zeros[20] = {0};

    rig.a = op_tensor_from(rig.fx, 3, 4, 4, KERN_F32, zeros);
    rig.b = op_tensor_from(rig.fx, 5, 4, 4, KERN_F32, zeros);
    rig.c = op_tensor(rig.fx, 3, 5, 6, KERN_F32);
    return rig;
}

static void rig_close(rig_t *rig)
{
    op_tensor_end(&rig->a);
    op_tensor_end(&rig->b);
    op_tensor_end(&rig->c);
}

static void test_gemm(void **state)
{
    rig_t rig = rig_open(state);
    const kern_gemm_t good = {rig.a.mat, rig.b.mat, rig.c.mat, 0, 1, 0};
    kern_gemm_t args = good;

    op_run(rig.fx, gemm, &args);
    assert_int_equal(kern_gemm_search(rig.fx->s, &args), BASE_OK); /* no choice here */
    args.a.rows = 2;
    op_refuse(rig.fx, gemm, &args, BASE_ERR_ARG, "gemm: a has 2 x 4 elements, want 3 x 4");
    args = good;
    args.transpose_b = 0;
    op_refuse(rig.fx, gemm, &args, BASE_ERR_ARG, "gemm: b has 5 x 4 elements, want 4 x 5");
    args = good;
    args.b.dtype = KERN_F64;
    op_refuse(rig.fx, gemm, &args, BASE_ERR_ARG, "gemm: b is fp64, want fp32");
    args = good;
    args.c.pitch = 4;
    op_refuse(rig.fx, gemm, &args, BASE_ERR_ARG,
              "gemm: c has a pitch of 4 elements, want at least its 5 columns");
    args = good;
    args.a.mem.buffer = NULL;
    op_refuse(rig.fx, gemm, &args, BASE_ERR_ARG, "gemm: a is absent");
    args = good;
    args.c.dtype = KERN_I32;
    op_refuse(rig.fx, gemm, &args, BASE_ERR_ARG, "gemm: c is int32, want fp32, fp64 or bf16");
    args = good;
    args.a.pitch = (int64_t)1 << 40;
    op_refuse(rig.fx, gemm, &args, BASE_ERR_ARG, "gemm: a pitch is above 2147483647");
    rig_close(&rig);
}

static void test_bounds(void **state)
{
    rig_t rig = rig_open(state);
    const kern_gemm_t good = {rig.a.mat, rig.b.mat, rig.c.mat, 0, 1, 0};
    kern_gemm_t args = good;

    args.c.mem.offset += 4096;
    op_refuse(rig.fx, gemm, &args, BASE_ERR_ARG, "gemm: c");
    args = good;
    args.b.mem.offset = -4;
    op_refuse(rig.fx, gemm, &args, BASE_ERR_ARG, "gemm: b");
    args = good;
    args.a.pitch = 1000000;
    op_refuse(rig.fx, gemm, &args, BASE_ERR_ARG, "gemm: a");
    {
        /* Overflowing products are refused, not wrapped. */
        kern_add_t add = {rig.a.mat, rig.a.mat, rig.a.mat};

        add.a.rows = add.b.rows = add.out.rows = INT64_MAX / 2;
        op_refuse(rig.fx, add, &add, BASE_ERR_ARG, "add: a");
        add.a.cols = add.b.cols = add.out.cols = INT64_MAX / 2;
        add.a.pitch = add.b.pitch = add.out.pitch = INT64_MAX / 2;
        op_refuse(rig.fx, add, &add, BASE_ERR_ARG, "add: a");
    }
    rig_close(&rig);
}

static void test_rows(void **state)
{
    rig_t rig = rig_open(state);
    op_tensor_t vec = op_tensor(rig.fx, 1, 3, 3, KERN_F32);
    kern_rmsnorm_fwd_t norm = {rig.a.mat, vec.mat, rig.a.mat, vec.mat, 1e-5};
    kern_add_rmsnorm_fwd_t sum = {rig.a.mat, rig.a.mat, rig.a.mat, vec.mat,
                                  rig.a.mat, vec.mat,   1e-5};
    kern_swiglu_fwd_t swiglu = {rig.a.mat, rig.a.mat};
    kern_convert_t convert = {rig.a.mat, rig.c.mat};

    op_refuse(rig.fx, rmsnorm_fwd, &norm, BASE_ERR_ARG,
              "rmsnorm_fwd: w has 1 x 3 elements, want 1 x 4");
    op_refuse(rig.fx, add_rmsnorm_fwd, &sum, BASE_ERR_ARG,
              "add_rmsnorm_fwd: w has 1 x 3 elements, want 1 x 4");
    norm.w.cols = norm.w.pitch = sum.w.cols = sum.w.pitch = 4;
    norm.eps = sum.eps = 0;
    op_refuse(rig.fx, rmsnorm_fwd, &norm, BASE_ERR_ARG, "eps must be above 0");
    op_refuse(rig.fx, add_rmsnorm_fwd, &sum, BASE_ERR_ARG, "eps must be above 0");
    sum.b.rows = 2;
    op_refuse(rig.fx, add_rmsnorm_fwd, &sum, BASE_ERR_ARG,
              "add_rmsnorm_fwd: b has 2 x 4 elements, want 3 x 4");
    op_refuse(rig.fx, swiglu_fwd, &swiglu, BASE_ERR_ARG, "gate_up has 3 x 4 elements, want 3 x 8");
    op_refuse(rig.fx, convert, &convert, BASE_ERR_ARG, "convert: a has 3 x 4 elements, want 3 x 5");
    op_tensor_end(&vec);
    rig_close(&rig);
}

static void test_bias(void **state)
{
    rig_t rig = rig_open(state);
    op_tensor_t vec = op_tensor(rig.fx, 1, 3, 3, KERN_F32);
    kern_bias_add_t add = {vec.mat, rig.a.mat};
    kern_column_sum_t sum = {rig.a.mat, vec.mat};

    op_refuse(rig.fx, bias_add, &add, BASE_ERR_ARG,
              "bias_add: bias has 1 x 3 elements, want 1 x 4");
    add.bias = rig.b.mat;
    op_refuse(rig.fx, bias_add, &add, BASE_ERR_ARG,
              "bias_add: bias has 5 x 4 elements, want 1 x 4");
    op_refuse(rig.fx, column_sum, &sum, BASE_ERR_ARG,
              "column_sum: sum has 1 x 3 elements, want 1 x 4");
    sum.x.dtype = KERN_I32;
    op_refuse(rig.fx, column_sum, &sum, BASE_ERR_ARG, "column_sum: x is int32");
    op_tensor_end(&vec);
    rig_close(&rig);
}

static void test_head_norm(void **state)
{
    rig_t rig = rig_open(state);
    op_tensor_t vec = op_tensor(rig.fx, 1, 2, 2, KERN_F32);
    op_tensor_t rstd = op_tensor(rig.fx, 3, 2, 2, KERN_F32);
    kern_head_norm_fwd_t fwd = {rig.a.mat, vec.mat, rig.a.mat, rstd.mat, 3, 1e-5};
    kern_head_norm_bwd_t bwd = {rig.a.mat, rig.a.mat, vec.mat, vec.mat, rig.a.mat, vec.mat, 2};

    op_refuse(rig.fx, head_norm_fwd, &fwd, BASE_ERR_ARG,
              "head_norm_fwd: x has 4 columns, want a multiple of head_dim 3");
    fwd.head_dim = 0;
    op_refuse(rig.fx, head_norm_fwd, &fwd, BASE_ERR_ARG, "want a multiple of head_dim 0");
    fwd.head_dim = 4;
    op_refuse(rig.fx, head_norm_fwd, &fwd, BASE_ERR_ARG,
              "head_norm_fwd: w has 1 x 2 elements, want 1 x 4");
    fwd.head_dim = 2;
    fwd.eps = 0;
    op_refuse(rig.fx, head_norm_fwd, &fwd, BASE_ERR_ARG, "eps must be above 0");
    op_refuse(rig.fx, head_norm_bwd, &bwd, BASE_ERR_ARG,
              "head_norm_bwd: rstd has 1 x 2 elements, want 3 x 2");
    bwd.rstd = rstd.mat;
    bwd.dw.mem.buffer = NULL; /* may be absent: the next operand is refused */
    bwd.dx.cols = 2;
    op_refuse(rig.fx, head_norm_bwd, &bwd, BASE_ERR_ARG,
              "head_norm_bwd: dx has 3 x 2 elements, want 3 x 4");
    op_tensor_end(&vec);
    op_tensor_end(&rstd);
    rig_close(&rig);
}

static void test_tokens_must_be_integers(void **state)
{
    rig_t rig = rig_open(state);
    op_tensor_t vec = op_tensor(rig.fx, 1, 3, 3, KERN_F32);
    kern_embedding_fwd_t args = {vec.mat, rig.b.mat, rig.a.mat};

    op_refuse(rig.fx, embedding_fwd, &args, BASE_ERR_ARG,
              "embedding_fwd: tokens is fp32, want int32");
    op_tensor_end(&vec);
    rig_close(&rig);
}

/* ==== attention ==== */

static kern_attention_fwd_t attention_args(rig_t *rig, const kern_attention_task_t *task,
                                           int64_t window)
{
    const kern_attention_fwd_t args = {.dtype = KERN_F32,
                                       .group = 1,
                                       .head_dim = 2,
                                       .window = window,
                                       .scale = 1,
                                       .num_tasks = 1,
                                       .tasks = task,
                                       .q = rig->a.mat.mem,
                                       .k = rig->b.mat.mem,
                                       .v = rig->b.mat.mem,
                                       .o = rig->c.mat.mem,
                                       .lse = rig->c.mat.mem};

    return args;
}

static void test_attention_tasks(void **state)
{
    rig_t rig = rig_open(state);
    const kern_attention_task_t good = {
        .q_rows = 2, .kv_heads = 1, .q_head = 4, .kv_head = 4, .o_row = 2, .o_head = 4};
    kern_attention_task_t task = good;
    kern_attention_fwd_t args = attention_args(&rig, &task, 0);

    task.q_rows = -1;
    op_refuse(rig.fx, attention_fwd, &args, BASE_ERR_ARG,
              "attention_fwd: task 0: q_row0 or q_rows is out of range");
    task = good;
    task.real = 2;
    op_refuse(rig.fx, attention_fwd, &args, BASE_ERR_ARG, "real is not 0 or 1");
    task = good;
    task.q_row0 = 300;
    task.kv_row0 = 128;
    op_refuse(rig.fx, attention_fwd, &args, BASE_ERR_ARG, "kv_row0 leaves out keys");
    args.window = 174; /* row 300 sees 127 */
    op_refuse(rig.fx, attention_fwd, &args, BASE_ERR_ARG, "kv_row0 leaves out keys");
    args.window = 173; /* 128 and up: now the rows are refused for lying outside the buffer */
    op_refuse(rig.fx, attention_fwd, &args, BASE_ERR_ARG, "attention_fwd: k");
    task.kv_row0 = 100;
    op_refuse(rig.fx, attention_fwd, &args, BASE_ERR_ARG, "kv_row0 is not on the grid");
    task = good;
    task.o = (int64_t)1 << 50;
    op_refuse(rig.fx, attention_fwd, &args, BASE_ERR_ARG, "attention_fwd: o");
    task.q_rows = 0; /* wherever it points */
    op_run(rig.fx, attention_fwd, &args);
    args.num_tasks = 0;
    args.tasks = NULL;
    op_run(rig.fx, attention_fwd, &args);
    rig_close(&rig);
}

static void test_attention_shape(void **state)
{
    rig_t rig = rig_open(state);
    kern_attention_task_t task = {.q_rows = 0};
    kern_attention_fwd_t args = attention_args(&rig, &task, 0);

    args.head_dim = 257;
    op_refuse(rig.fx, attention_fwd, &args, BASE_ERR_UNSUPPORTED, "head_dim 257 is above 256");
    args.head_dim = 2;
    args.group = 0;
    op_refuse(rig.fx, attention_fwd, &args, BASE_ERR_ARG, "attention_fwd: group 0");
    args.group = 1;
    args.window = -1;
    op_refuse(rig.fx, attention_fwd, &args, BASE_ERR_ARG, "window -1");
    args.window = 0;
    args.tasks = NULL;
    op_refuse(rig.fx, attention_fwd, &args, BASE_ERR_ARG, "1 tasks without a list");
    rig_close(&rig);
}

static void test_head_dims(void **state)
{
    (void)state;
    for (int64_t dim = 0; dim <= KERN_ATTENTION_MAX_HEAD_DIM + 1; dim++) {
        const int possible = dim >= 1 && dim <= KERN_ATTENTION_MAX_HEAD_DIM;

        assert_int_equal(kern_attention_has_head_dim(BASE_DEVICE_CPU, dim), possible);
        assert_int_equal(kern_attention_has_head_dim(BASE_DEVICE_CUDA, dim),
                         kern_ops_of(BASE_DEVICE_CUDA) != NULL && possible && dim % 8 == 0);
    }
}

static void test_heads(void **state)
{
    rig_t rig = rig_open(state);
    kern_attention_delta_t delta = {rig.a.mat, rig.a.mat, rig.c.mat.mem, 3, 2, 1, 2};

    op_run(rig.fx, attention_delta, &delta);
    op_fixture_sync(rig.fx);
    delta.head_rows = 2;
    op_refuse(rig.fx, attention_delta, &delta, BASE_ERR_ARG,
              "head_rows is 2, want at least the 3 rows");
    delta.head_rows = 3;
    delta.num_kv_heads = 0;
    op_refuse(rig.fx, attention_delta, &delta, BASE_ERR_ARG, "2 query heads over 0 KV heads");
    delta.num_kv_heads = 1;
    delta.num_q_heads = 4;
    op_refuse(rig.fx, attention_delta, &delta, BASE_ERR_ARG,
              "attention_delta: o has 3 x 4 elements, want any x 8");
    base_buffer_free(rig.c.mat.mem.buffer); /* delta went into its gaps */
    op_tensor_end(&rig.a);
    op_tensor_end(&rig.b);
}

static void test_tables(void **state)
{
    (void)state;
    assert_ptr_equal(kern_ops_of(BASE_DEVICE_CPU), kern_ops_of(BASE_DEVICE_STRICT));
    assert_string_equal(kern_dtype_name(KERN_BF16), "bf16");
    assert_string_equal(kern_dtype_name(KERN_DTYPE_COUNT), "unknown dtype");
    assert_int_equal(kern_dtype_bytes(KERN_BF16), 2);
    assert_int_equal(kern_dtype_acc(KERN_BF16), KERN_F32);
    assert_int_equal(kern_dtype_acc(KERN_F64), KERN_F64);
#define X(op) assert_non_null(kern_ops_of(BASE_DEVICE_CPU)->op);
    KERN_OP_MAP(X)
#undef X
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_bias),
        cmocka_unit_test(test_head_norm),
        cmocka_unit_test(test_tokens_must_be_integers),
        cmocka_unit_test(test_attention_tasks),
        cmocka_unit_test(test_attention_shape),
        cmocka_unit_test(test_head_dims),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_tables),
    };

    return OP_FIXTURE_RUN(tests);
}
