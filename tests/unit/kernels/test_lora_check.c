/* What the LoRA and optimizer ops refuse, and that they say what they found and want. */
#include "tests/unit/kernels/lora_rig.h"

#include <math.h>
#include <stdlib.h>

/* A rig whose lists may be changed; `route` refers to it. */
typedef struct bad {
    op_fixture_t *fx;
    lora_rig_t rig;
    kern_lora_s_t s;
    kern_lora_ds_t ds;
    kern_lora_dx_dropout_t dx;
    kern_lora_da_t da;
    kern_lora_db_t db;
    kern_lora_dy_t dy;
} bad_t;

static bad_t *bad_begin(void **state)
{
    bad_t *bad = calloc(1, sizeof *bad);
    kern_mat_t x, s, dy, ds;
    kern_lora_route_t route;

    assert_non_null(bad);
    bad->fx = *state;
    bad->rig = lora_rig(*state, &kern_cases_lora[2], KERN_F32);
    route = lora_rig_route(&bad->rig);
    x = lora_rig_left(&bad->rig.t_x, bad->rig.K);
    s = lora_rig_right(&bad->rig.t_x, bad->rig.K);
    dy = lora_rig_left(&bad->rig.t_dy, bad->rig.N);
    ds = lora_rig_right(&bad->rig.t_dy, bad->rig.N);
    bad->s = (kern_lora_s_t){route, x, s};
    bad->ds = (kern_lora_ds_t){route, dy, ds};
    bad->da = (kern_lora_da_t){route, x, ds};
    bad->db = (kern_lora_db_t){route, dy, s};
    bad->dy = (kern_lora_dy_t){route, dy, s, ds};
    bad->dx = (kern_lora_dx_dropout_t){route, ds, bad->rig.t_dx.mat};
    return bad;
}

static void bad_end(bad_t *bad)
{
    lora_rig_end(&bad->rig);
    free(bad);
}

static void test_segments(void **state)
{
    bad_t *bad = bad_begin(state);
    kern_lora_segment_t *segments = bad->rig.segments;

    segments[1].row0 = 2;
    op_refuse(bad->fx, lora_s, &bad->s, BASE_ERR_ARG,
              "lora: segment 1 has rows [2, 7), want ascending ones within [3, 20)");
    segments[1].row0 = 3;
    segments[4].row1 = 21;
    op_refuse(bad->fx, lora_db, &bad->db, BASE_ERR_ARG, "lora: segment 4 has rows [15, 21)");
    segments[4].row1 = 14;
    op_refuse(bad->fx, lora_da, &bad->da, BASE_ERR_ARG, "lora: segment 4 has rows [15, 14)");
    segments[4].row1 = 20;
    segments[4].adapter = 3;
    op_refuse(bad->fx, lora_ds, &bad->ds, BASE_ERR_ARG, "lora: segment 4: adapter is out of range");
    segments[4].adapter = 2;
    bad->dx.route.segments = NULL;
    op_refuse(bad->fx, lora_dx_dropout, &bad->dx, BASE_ERR_ARG, "lora: a list is missing");
    bad->dx.route.num_segments = -1;
    op_refuse(bad->fx, lora_dx_dropout, &bad->dx, BASE_ERR_ARG, "a list has a negative length");
    bad_end(bad);
}

static void test_adapters(void **state)
{
    bad_t *bad = bad_begin(state);
    kern_lora_adapter_t *adapter = &bad->rig.adapters[1];

    adapter->dropout = 1;
    op_refuse(bad->fx, lora_s, &bad->s, BASE_ERR_ARG, "lora: adapter 1: dropout is not in [0, 1)");
    adapter->dropout = (double)NAN;
    op_refuse(bad->fx, lora_s, &bad->s, BASE_ERR_ARG, "lora: adapter 1: dropout is not in [0, 1)");
    adapter->dropout = 0;
    adapter->scale = (double)INFINITY;
    op_refuse(bad->fx, lora_ds, &bad->ds, BASE_ERR_ARG, "lora: adapter 1: scale is not finite");
    bad_end(bad);
}

static void test_blocks(void **state)
{
    bad_t *bad = bad_begin(state);
    kern_lora_block_t *block = &bad->rig.blocks[1], good = *block;

    block->column--;
    block->column--; /* the gap before it is one column */
    op_refuse(bad->fx, lora_s, &bad->s, BASE_ERR_ARG, "lora: block 1 has columns 2 + 1, want");
    *block = good;
    block->rank = INT64_MAX;
    op_refuse(bad->fx, lora_s, &bad->s, BASE_ERR_ARG, "lora: block 1 has columns");
    *block = good;
    block->adapter = -1;
    op_refuse(bad->fx, lora_s, &bad->s, BASE_ERR_ARG, "lora: block 1: adapter or module");
    *block = good;
    block->a.rows = 2;
    op_refuse(bad->fx, lora_s, &bad->s, BASE_ERR_ARG, "lora: a has 2 x 14 elements, want 1 x 14");
    op_refuse(bad->fx, lora_dx_dropout, &bad->dx, BASE_ERR_ARG, "lora: a has 2 x 14 elements");
    block->a.mem.buffer = NULL; /* lora_ds does not use it */
    block->b.cols = 2;
    op_refuse(bad->fx, lora_ds, &bad->ds, BASE_ERR_ARG,
              "lora_ds: b has 5 x 2 elements, want any x 1");
    op_refuse(bad->fx, lora_dy, &bad->dy, BASE_ERR_ARG,
              "lora_dy: b has 5 x 2 elements, want any x 1");
    block->b = good.b;
    block->out_column = 5;
    op_refuse(bad->fx, lora_ds, &bad->ds, BASE_ERR_ARG,
              "lora: block 1 has output columns 5 + 5, dy has 9");
    block->out_column = -1;
    op_refuse(bad->fx, lora_db, &bad->db, BASE_ERR_ARG, "lora: block 1 has output columns -1 + 5");
    *block = good;
    block->b.rows = 4;
    op_refuse(bad->fx, lora_dy, &bad->dy, BASE_ERR_ARG, "lora: block 1: b and db differ in rows");
    *block = good;
    block->da.dtype = KERN_F64;
    op_refuse(bad->fx, lora_da, &bad->da, BASE_ERR_ARG, "lora_da: da is fp64, want fp32");
    block->db.mem.offset += 4096;
    op_refuse(bad->fx, lora_db, &bad->db, BASE_ERR_ARG, "lora_db: db");
    op_refuse(bad->fx, lora_dy, &bad->dy, BASE_ERR_ARG, "lora_dy: db");
    bad_end(bad);
}

static void test_matrices(void **state)
{
    bad_t *bad = bad_begin(state);

    bad->s.s.rows--;
    op_refuse(bad->fx, lora_s, &bad->s, BASE_ERR_ARG, "lora_s: s has 19 x");
    bad->ds.ds.cols = 1;
    op_refuse(bad->fx, lora_ds, &bad->ds, BASE_ERR_ARG, "lora: block 0 has columns");
    bad->dy.ds.cols = 1;
    op_refuse(bad->fx, lora_dy, &bad->dy, BASE_ERR_ARG, "lora: block 0 has columns");
    bad->da.route.documents.cols = 1;
    op_refuse(bad->fx, lora_da, &bad->da, BASE_ERR_ARG,
              "lora: documents has 20 x 1 elements, want 20 x 2");
    bad->dx.route.positions.mem.buffer = NULL;
    op_refuse(bad->fx, lora_dx_dropout, &bad->dx, BASE_ERR_ARG, "lora: positions is absent");
    bad->db.s.pitch = (int64_t)1 << 40;
    op_refuse(bad->fx, lora_db, &bad->db, BASE_ERR_ARG,
              "lora_db: s has a dimension or pitch above 2147483647");
    bad->dy.s.rows--;
    op_refuse(bad->fx, lora_dy, &bad->dy, BASE_ERR_ARG, "lora_dy: s has 19 x");
    bad_end(bad);
}

/* ==== optimizer ==== */

static void test_rates(void **state)
{
    op_fixture_t *fx = *state;
    op_tensor_t one = op_tensor(fx, 1, 1, 1, KERN_F32), flag = op_tensor(fx, 1, 1, 1, KERN_I32);
    kern_adamw_tensor_t tensor = {one.mat, one.mat, one.mat, one.mat, one.mat};
    const kern_adamw_t good = {.num_tensors = 1, .tensors = &tensor, .eps = 1e-8, .step = 1};
    kern_adamw_t args = good;

    args.step = 0;
    op_refuse(fx, adamw, &args, BASE_ERR_ARG, "adamw: step must be at least 1");
    args = good;
    args.beta2 = 1;
    op_refuse(fx, adamw, &args, BASE_ERR_ARG, "adamw: betas must be in [0, 1)");
    args = good;
    args.eps = 0;
    op_refuse(fx, adamw, &args, BASE_ERR_ARG, "adamw: eps must be finite and above 0");
    args = good;
    args.learning_rate = (double)NAN;
    op_refuse(fx, adamw, &args, BASE_ERR_ARG, "adamw: learning_rate must be finite");
    args = good;
    args.weight_decay = -1;
    op_refuse(fx, adamw, &args, BASE_ERR_ARG, "adamw: weight_decay must be finite");
    args = good;
    args.skip = one.mat;
    op_refuse(fx, adamw, &args, BASE_ERR_ARG, "adamw: skip is fp32, want int32");
    args = good;
    args.tensors = NULL;
    op_refuse(fx, adamw, &args, BASE_ERR_ARG, "adamw: 1 tensors without a list");
    tensor.v.cols = 0;
    op_refuse(fx, adamw, &good, BASE_ERR_ARG, "adamw: v has 1 x 0 elements, want 1 x 1");
    op_tensor_end(&one);
    op_tensor_end(&flag);
}

static void test_norms(void **state)
{
    op_fixture_t *fx = *state;
    op_tensor_t one = op_tensor(fx, 1, 1, 1, KERN_F32), flag = op_tensor(fx, 1, 1, 1, KERN_I32);
    kern_grad_norm_t norm = {1, &flag.mat, one.mat};
    kern_clip_factor_t clip = {one.mat, one.mat, one.mat, 0};
    kern_finite_check_t finite = {KERN_F32, 1, &one.mat, one.mat, 0};

    op_refuse(fx, grad_norm, &norm, BASE_ERR_ARG, "grad_norm: gradient is int32, want fp32");
    norm.sum.dtype = KERN_BF16;
    op_refuse(fx, grad_norm, &norm, BASE_ERR_ARG, "grad_norm: sum is bf16, want fp32 or fp64");
    op_refuse(fx, clip_factor, &clip, BASE_ERR_ARG, "clip_factor: clip must be above 0");
    op_refuse(fx, finite_check, &finite, BASE_ERR_ARG, "finite_check: count is fp32, want int32");
    finite.count = flag.mat;
    finite.num_tensors = -1;
    op_refuse(fx, finite_check, &finite, BASE_ERR_ARG, "finite_check: -1 tensors without a list");
    op_tensor_end(&one);
    op_tensor_end(&flag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segments), cmocka_unit_test(test_adapters),
        cmocka_unit_test(test_blocks),   cmocka_unit_test(test_matrices),
        cmocka_unit_test(test_rates),    cmocka_unit_test(test_norms),
    };

    return OP_FIXTURE_RUN(tests);
}
