/* Rules and operands of the ops that know heads: norm of heads, rotary embedding, delta of the
 * attention's backward. */
#include "kernels/op_check_macros.h"

#include <inttypes.h>

static base_status_t check_heads(base_ctx_t *ctx, const char *op, int64_t rows, int64_t head_rows,
                                 int32_t num_q_heads, int32_t num_kv_heads, int32_t head_dim)
{
    if (num_kv_heads < 1 || num_q_heads < 1 || num_q_heads % num_kv_heads != 0 || head_dim < 1)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: %" PRId32 " query heads over %" PRId32 " KV heads of %" PRId32
                         " elements, want a multiple",
                         op, num_q_heads, num_kv_heads, head_dim);
    if (head_rows < rows)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: head_rows is %" PRId64 ", want at least the %" PRId64 " rows", op,
                         head_rows, rows);
    return BASE_OK;
}

/* ==== head_norm ==== */

/* x has whole heads; *heads of them. */
static base_status_t count_heads(base_ctx_t *ctx, const char *op, const kern_mat_t *x,
                                 int32_t head_dim, int64_t *heads)
{
    if (head_dim < 1 || x->cols % head_dim != 0)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: x has %" PRId64 " columns, want a multiple of head_dim %" PRId32, op,
                         x->cols, head_dim);
    *heads = x->cols / head_dim;
    return BASE_OK;
}

kern_dtype_t kern_head_norm_fwd_dtype(const kern_head_norm_fwd_t *args)
{
    return args->x.dtype;
}

base_status_t kern_head_norm_fwd_check(base_ctx_t *ctx, const kern_head_norm_fwd_t *args)
{
    const kern_dtype_t dtype = args->x.dtype;
    const int64_t rows = args->x.rows, cols = args->x.cols;
    int64_t heads = 0;

    BASE_TRY(kern_want_real(ctx, dtype, "head_norm_fwd: x"));
    WANT(args->x, "head_norm_fwd: x", -1, -1, dtype);
    BASE_TRY(count_heads(ctx, "head_norm_fwd", &args->x, args->head_dim, &heads));
    WANT(args->w, "head_norm_fwd: w", 1, args->head_dim, dtype);
    WANT(args->y, "head_norm_fwd: y", rows, cols, dtype);
    WANT(args->rstd, "head_norm_fwd: rstd", rows, heads, kern_dtype_acc(dtype));
    BASE_TRY(kern_want_true(ctx, args->eps > 0.0, "head_norm_fwd: eps must be above 0"));
    BOUNDS(head_norm_fwd, ctx, args);
}

base_status_t kern_head_norm_fwd_visit(const kern_head_norm_fwd_t *args, kern_visitor_t *v)
{
    VISIT(args->x, BASE_READ, "head_norm_fwd: x");
    VISIT(args->w, BASE_READ, "head_norm_fwd: w");
    VISIT(args->y, BASE_WRITE, "head_norm_fwd: y");
    VISIT(args->rstd, BASE_WRITE, "head_norm_fwd: rstd");
    return BASE_OK;
}

kern_dtype_t kern_head_norm_bwd_dtype(const kern_head_norm_bwd_t *args)
{
    return args->x.dtype;
}

base_status_t kern_head_norm_bwd_check(base_ctx_t *ctx, const kern_head_norm_bwd_t *args)
{
    const kern_dtype_t dtype = args->x.dtype;
    const int64_t rows = args->x.rows, cols = args->x.cols;
    int64_t heads = 0;

    BASE_TRY(kern_want_real(ctx, dtype, "head_norm_bwd: x"));
    WANT(args->x, "head_norm_bwd: x", -1, -1, dtype);
    BASE_TRY(count_heads(ctx, "head_norm_bwd", &args->x, args->head_dim, &heads));
    WANT(args->dy, "head_norm_bwd: dy", rows, cols, dtype);
    WANT(args->w, "head_norm_bwd: w", 1, args->head_dim, dtype);
    WANT(args->rstd, "head_norm_bwd: rstd", rows, heads, kern_dtype_acc(dtype));
    WANT(args->dx, "head_norm_bwd: dx", rows, cols, dtype);
    WANT_IF(args->dw, "head_norm_bwd: dw", 1, args->head_dim, kern_dtype_acc(dtype));
    BOUNDS(head_norm_bwd, ctx, args);
}

base_status_t kern_head_norm_bwd_visit(const kern_head_norm_bwd_t *args, kern_visitor_t *v)
{
    VISIT(args->dy, BASE_READ, "head_norm_bwd: dy");
    VISIT(args->x, BASE_READ, "head_norm_bwd: x");
    VISIT(args->w, BASE_READ, "head_norm_bwd: w");
    VISIT(args->rstd, BASE_READ, "head_norm_bwd: rstd");
    VISIT(args->dx, BASE_WRITE, "head_norm_bwd: dx");
    VISIT(args->dw, BASE_READ_WRITE, "head_norm_bwd: dw");
    return BASE_OK;
}

/* ==== rope ==== */

kern_dtype_t kern_rope_table_dtype(const kern_rope_table_t *args)
{
    return args->cos_sin.dtype;
}

base_status_t kern_rope_table_check(base_ctx_t *ctx, const kern_rope_table_t *args)
{
    const kern_dtype_t dtype = args->cos_sin.dtype;

    BASE_TRY(kern_want_true(ctx, dtype == KERN_F32 || dtype == KERN_F64,
                            "rope_table: cos_sin must be fp32 or fp64"));
    WANT(args->cos_sin, "rope_table: cos_sin", -1, -1, dtype);
    BASE_TRY(kern_want_true(ctx, args->cos_sin.cols > 0 && args->cos_sin.cols % 2 == 0,
                            "rope_table: cos_sin must have an even number of columns"));
    BASE_TRY(kern_want_true(ctx, args->inv_freq != NULL, "rope_table: inv_freq is absent"));
    BOUNDS(rope_table, ctx, args);
}

base_status_t kern_rope_table_visit(const kern_rope_table_t *args, kern_visitor_t *v)
{
    VISIT(args->cos_sin, BASE_WRITE, "rope_table: cos_sin");
    return BASE_OK;
}

kern_dtype_t kern_rope_fwd_dtype(const kern_rope_fwd_t *args)
{
    return args->qkv.dtype;
}

base_status_t kern_rope_fwd_check(base_ctx_t *ctx, const kern_rope_fwd_t *args)
{
    const kern_dtype_t dtype = args->qkv.dtype;
    const int64_t rows = args->qkv.rows, dim = args->head_dim;

    BASE_TRY(kern_want_real(ctx, dtype, "rope_fwd: qkv"));
    BASE_TRY(check_heads(ctx, "rope_fwd", rows, args->head_rows, args->num_q_heads,
                         args->num_kv_heads, args->head_dim));
    BASE_TRY(kern_want_true(ctx, dim % 2 == 0, "rope_fwd: head_dim must be even"));
    WANT(args->qkv, "rope_fwd: qkv", -1,
         (args->num_q_heads + 2 * (int64_t)args->num_kv_heads) * dim, dtype);
    WANT(args->positions, "rope_fwd: positions", 1, rows, KERN_I32);
    WANT(args->cos_sin, "rope_fwd: cos_sin", -1, dim, kern_dtype_acc(dtype));
    BOUNDS(rope_fwd, ctx, args);
}

base_status_t kern_rope_fwd_visit(const kern_rope_fwd_t *args, kern_visitor_t *v)
{
    const kern_dtype_t dtype = args->qkv.dtype;
    const int64_t heads = args->num_kv_heads, dim = args->head_dim;
    const int64_t width = args->num_q_heads / heads * dim, rows = args->qkv.rows;

    VISIT(args->qkv, BASE_READ, "rope_fwd: qkv");
    VISIT(args->positions, BASE_READ, "rope_fwd: positions");
    VISIT(args->cos_sin, BASE_READ, "rope_fwd: cos_sin");
    VISIT_PIECE(BASE_WRITE, "rope_fwd: q", args->q, dtype, 0, rows * width, heads,
                args->head_rows * width);
    VISIT_PIECE(BASE_WRITE, "rope_fwd: k", args->k, dtype, 0, rows * dim, heads,
                args->head_rows * dim);
    VISIT_PIECE(BASE_WRITE, "rope_fwd: v", args->v, dtype, 0, rows * dim, heads,
                args->head_rows * dim);
    return BASE_OK;
}

kern_dtype_t kern_rope_bwd_dtype(const kern_rope_bwd_t *args)
{
    return args->dqkv.dtype;
}

base_status_t kern_rope_bwd_check(base_ctx_t *ctx, const kern_rope_bwd_t *args)
{
    const kern_dtype_t dtype = args->dqkv.dtype;
    const int64_t rows = args->dqkv.rows, dim = args->head_dim;

    BASE_TRY(kern_want_real(ctx, dtype, "rope_bwd: dqkv"));
    BASE_TRY(check_heads(ctx, "rope_bwd", rows, args->head_rows, args->num_q_heads,
                         args->num_kv_heads, args->head_dim));
    BASE_TRY(kern_want_true(ctx, dim % 2 == 0, "rope_bwd: head_dim must be even"));
    WANT(args->dqkv, "rope_bwd: dqkv", -1,
         (args->num_q_heads + 2 * (int64_t)args->num_kv_heads) * dim, dtype);
    WANT(args->positions, "rope_bwd: positions", 1, rows, KERN_I32);
    WANT(args->cos_sin, "rope_bwd: cos_sin", -1, dim, kern_dtype_acc(dtype));
    BOUNDS(rope_bwd, ctx, args);
}

base_status_t kern_rope_bwd_visit(const kern_rope_bwd_t *args, kern_visitor_t *v)
{
    const kern_dtype_t dtype = args->dqkv.dtype;
    const int64_t heads = args->num_kv_heads, dim = args->head_dim;
    const int64_t width = args->num_q_heads / heads * dim, rows = args->dqkv.rows;

    VISIT_PIECE(BASE_READ, "rope_bwd: dq", args->dq, dtype, 0, rows * width, heads,
                args->head_rows * width);
    VISIT_PIECE(BASE_READ, "rope_bwd: dk", args->dk, dtype, 0, rows * dim, heads,
                args->head_rows * dim);
    VISIT_PIECE(BASE_READ, "rope_bwd: dv", args->dv, dtype, 0, rows * dim, heads,
                args->head_rows * dim);
    VISIT(args->positions, BASE_READ, "rope_bwd: positions");
    VISIT(args->cos_sin, BASE_READ, "rope_bwd: cos_sin");
    VISIT(args->dqkv, BASE_WRITE, "rope_bwd: dqkv");
    return BASE_OK;
}

/* ==== attention_delta ==== */

kern_dtype_t kern_attention_delta_dtype(const kern_attention_delta_t *args)
{
    return args->o.dtype;
}

base_status_t kern_attention_delta_check(base_ctx_t *ctx, const kern_attention_delta_t *args)
{
    const kern_dtype_t dtype = args->o.dtype;
    const int64_t rows = args->o.rows, cols = (int64_t)args->num_q_heads * args->head_dim;

    BASE_TRY(kern_want_real(ctx, dtype, "attention_delta: o"));
    BASE_TRY(check_heads(ctx, "attention_delta", rows, args->head_rows, args->num_q_heads,
                         args->num_kv_heads, args->head_dim));
    WANT(args->o, "attention_delta: o", -1, cols, dtype);
    WANT(args->d_o, "attention_delta: d_o", rows, cols, dtype);
    BOUNDS(attention_delta, ctx, args);
}

base_status_t kern_attention_delta_visit(const kern_attention_delta_t *args, kern_visitor_t *v)
{
    const int64_t heads = args->num_kv_heads, group = args->num_q_heads / heads;

    VISIT(args->d_o, BASE_READ, "attention_delta: d_o");
    VISIT(args->o, BASE_READ, "attention_delta: o");
    VISIT_PIECE(BASE_WRITE, "attention_delta: delta", args->delta, kern_dtype_acc(args->o.dtype), 0,
                args->o.rows * group, heads, args->head_rows * group);
    return BASE_OK;
}
