/* Rules and operands of the ops on matrices: linear algebra, bias, embedding, norm. */
#include "kernels/op_check_macros.h"

/* ==== gemm ==== */

kern_dtype_t kern_gemm_dtype(const kern_gemm_t *args)
{
    /* c may be acc of bf16 factors */
    if (args->c.dtype == KERN_F32 && args->a.dtype == KERN_BF16) return KERN_BF16;
    return args->c.dtype;
}

base_status_t kern_gemm_check(base_ctx_t *ctx, const kern_gemm_t *args)
{
    const kern_dtype_t dtype = kern_gemm_dtype(args);
    const int64_t m = args->c.rows, n = args->c.cols;
    const int64_t k = args->transpose_a ? args->a.rows : args->a.cols;

    BASE_TRY(kern_want_real(ctx, dtype, "gemm: c"));
    WANT(args->c, "gemm: c", -1, -1, args->c.dtype);
    WANT(args->a, "gemm: a", args->transpose_a ? k : m, args->transpose_a ? m : k, dtype);
    WANT(args->b, "gemm: b", args->transpose_b ? n : k, args->transpose_b ? k : n, dtype);
    /* BLAS and cuBLASLt count in int */
    BASE_TRY(kern_want_true(ctx, m <= INT32_MAX && n <= INT32_MAX && k <= INT32_MAX,
                            "gemm: a dimension is above 2147483647"));
    BASE_TRY(kern_want_true(
        ctx, args->a.pitch <= INT32_MAX && args->b.pitch <= INT32_MAX && args->c.pitch <= INT32_MAX,
        "gemm: a pitch is above 2147483647"));
    BOUNDS(gemm, ctx, args);
}

base_status_t kern_gemm_visit(const kern_gemm_t *args, kern_visitor_t *v)
{
    VISIT(args->a, BASE_READ, "gemm: a");
    VISIT(args->b, BASE_READ, "gemm: b");
    VISIT(args->c, args->accumulate ? BASE_READ_WRITE : BASE_WRITE, "gemm: c");
    return BASE_OK;
}

/* ==== add, convert ==== */

kern_dtype_t kern_add_dtype(const kern_add_t *args)
{
    return args->out.dtype;
}

base_status_t kern_add_check(base_ctx_t *ctx, const kern_add_t *args)
{
    const kern_mat_t *out = &args->out;

    BASE_TRY(kern_want_real(ctx, out->dtype, "add: out"));
    WANT(*out, "add: out", -1, -1, out->dtype);
    WANT(args->a, "add: a", out->rows, out->cols, out->dtype);
    WANT(args->b, "add: b", out->rows, out->cols, out->dtype);
    BOUNDS(add, ctx, args);
}

base_status_t kern_add_visit(const kern_add_t *args, kern_visitor_t *v)
{
    VISIT(args->a, BASE_READ, "add: a");
    VISIT(args->b, BASE_READ, "add: b");
    VISIT(args->out, BASE_WRITE, "add: out");
    return BASE_OK;
}

kern_dtype_t kern_convert_dtype(const kern_convert_t *args)
{
    return args->out.dtype;
}

base_status_t kern_convert_check(base_ctx_t *ctx, const kern_convert_t *args)
{
    BASE_TRY(kern_want_real(ctx, args->a.dtype, "convert: a"));
    BASE_TRY(kern_want_real(ctx, args->out.dtype, "convert: out"));
    WANT(args->out, "convert: out", -1, -1, args->out.dtype);
    WANT(args->a, "convert: a", args->out.rows, args->out.cols, args->a.dtype);
    BOUNDS(convert, ctx, args);
}

base_status_t kern_convert_visit(const kern_convert_t *args, kern_visitor_t *v)
{
    VISIT(args->a, BASE_READ, "convert: a");
    VISIT(args->out, BASE_WRITE, "convert: out");
    return BASE_OK;
}

/* ==== bias ==== */

kern_dtype_t kern_bias_add_dtype(const kern_bias_add_t *args)
{
    return args->y.dtype;
}

base_status_t kern_bias_add_check(base_ctx_t *ctx, const kern_bias_add_t *args)
{
    const kern_mat_t *y = &args->y;

    BASE_TRY(kern_want_real(ctx, y->dtype, "bias_add: y"));
    WANT(*y, "bias_add: y", -1, -1, y->dtype);
    WANT(args->bias, "bias_add: bias", 1, y->cols, y->dtype);
    BOUNDS(bias_add, ctx, args);
}

base_status_t kern_bias_add_visit(const kern_bias_add_t *args, kern_visitor_t *v)
{
    VISIT(args->bias, BASE_READ, "bias_add: bias");
    VISIT(args->y, BASE_READ_WRITE, "bias_add: y");
    return BASE_OK;
}

kern_dtype_t kern_column_sum_dtype(const kern_column_sum_t *args)
{
    return args->x.dtype;
}

base_status_t kern_column_sum_check(base_ctx_t *ctx, const kern_column_sum_t *args)
{
    const kern_mat_t *x = &args->x;

    BASE_TRY(kern_want_real(ctx, x->dtype, "column_sum: x"));
    WANT(*x, "column_sum: x", -1, -1, x->dtype);
    WANT(args->sum, "column_sum: sum", 1, x->cols, kern_dtype_acc(x->dtype));
    BOUNDS(column_sum, ctx, args);
}

base_status_t kern_column_sum_visit(const kern_column_sum_t *args, kern_visitor_t *v)
{
    VISIT(args->x, BASE_READ, "column_sum: x");
    VISIT(args->sum, BASE_READ_WRITE, "column_sum: sum");
    return BASE_OK;
}

/* ==== embedding ==== */

kern_dtype_t kern_embedding_fwd_dtype(const kern_embedding_fwd_t *args)
{
    return args->out.dtype;
}

base_status_t kern_embedding_fwd_check(base_ctx_t *ctx, const kern_embedding_fwd_t *args)
{
    const kern_dtype_t dtype = args->out.dtype;

    BASE_TRY(kern_want_real(ctx, dtype, "embedding_fwd: out"));
    WANT(args->out, "embedding_fwd: out", -1, -1, dtype);
    WANT(args->tokens, "embedding_fwd: tokens", 1, args->out.rows, KERN_I32);
    WANT(args->table, "embedding_fwd: table", -1, args->out.cols, dtype);
    BOUNDS(embedding_fwd, ctx, args);
}

base_status_t kern_embedding_fwd_visit(const kern_embedding_fwd_t *args, kern_visitor_t *v)
{
    VISIT(args->tokens, BASE_READ, "embedding_fwd: tokens");
    VISIT(args->table, BASE_READ, "embedding_fwd: table");
    VISIT(args->out, BASE_WRITE, "embedding_fwd: out");
    return BASE_OK;
}

kern_dtype_t kern_embedding_bwd_dtype(const kern_embedding_bwd_t *args)
{
    return args->dout.dtype;
}

base_status_t kern_embedding_bwd_check(base_ctx_t *ctx, const kern_embedding_bwd_t *args)
{
    const kern_dtype_t dtype = args->dout.dtype;

    BASE_TRY(kern_want_real(ctx, dtype, "embedding_bwd: dout"));
    WANT(args->dout, "embedding_bwd: dout", -1, -1, dtype);
    WANT(args->tokens, "embedding_bwd: tokens", 1, args->dout.rows, KERN_I32);
    WANT(args->dtable, "embedding_bwd: dtable", -1, args->dout.cols, kern_dtype_acc(dtype));
    BOUNDS(embedding_bwd, ctx, args);
}

base_status_t kern_embedding_bwd_visit(const kern_embedding_bwd_t *args, kern_visitor_t *v)
{
    VISIT(args->tokens, BASE_READ, "embedding_bwd: tokens");
    VISIT(args->dout, BASE_READ, "embedding_bwd: dout");
    VISIT(args->dtable, BASE_READ_WRITE, "embedding_bwd: dtable");
    return BASE_OK;
}

/* ==== RMSNorm ==== */

kern_dtype_t kern_rmsnorm_fwd_dtype(const kern_rmsnorm_fwd_t *args)
{
    return args->x.dtype;
}

base_status_t kern_rmsnorm_fwd_check(base_ctx_t *ctx, const kern_rmsnorm_fwd_t *args)
{
    const kern_dtype_t dtype = args->x.dtype;
    const int64_t rows = args->x.rows, cols = args->x.cols;

    BASE_TRY(kern_want_real(ctx, dtype, "rmsnorm_fwd: x"));
    WANT(args->x, "rmsnorm_fwd: x", -1, -1, dtype);
    WANT(args->w, "rmsnorm_fwd: w", 1, cols, dtype);
    WANT(args->y, "rmsnorm_fwd: y", rows, cols, dtype);
    WANT(args->rstd, "rmsnorm_fwd: rstd", 1, rows, kern_dtype_acc(dtype));
    BASE_TRY(kern_want_true(ctx, args->eps > 0.0, "rmsnorm_fwd: eps must be above 0"));
    BOUNDS(rmsnorm_fwd, ctx, args);
}

base_status_t kern_rmsnorm_fwd_visit(const kern_rmsnorm_fwd_t *args, kern_visitor_t *v)
{
    VISIT(args->x, BASE_READ, "rmsnorm_fwd: x");
    VISIT(args->w, BASE_READ, "rmsnorm_fwd: w");
    VISIT(args->y, BASE_WRITE, "rmsnorm_fwd: y");
    VISIT(args->rstd, BASE_WRITE, "rmsnorm_fwd: rstd");
    return BASE_OK;
}

kern_dtype_t kern_add_rmsnorm_fwd_dtype(const kern_add_rmsnorm_fwd_t *args)
{
    return args->x.dtype;
}

base_status_t kern_add_rmsnorm_fwd_check(base_ctx_t *ctx, const kern_add_rmsnorm_fwd_t *args)
{
    const kern_dtype_t dtype = args->x.dtype;
    const int64_t rows = args->x.rows, cols = args->x.cols;

    BASE_TRY(kern_want_real(ctx, dtype, "add_rmsnorm_fwd: x"));
    WANT(args->x, "add_rmsnorm_fwd: x", -1, -1, dtype);
    WANT(args->a, "add_rmsnorm_fwd: a", rows, cols, dtype);
    WANT(args->b, "add_rmsnorm_fwd: b", rows, cols, dtype);
    WANT(args->w, "add_rmsnorm_fwd: w", 1, cols, dtype);
    WANT(args->y, "add_rmsnorm_fwd: y", rows, cols, dtype);
    WANT(args->rstd, "add_rmsnorm_fwd: rstd", 1, rows, kern_dtype_acc(dtype));
    BASE_TRY(kern_want_true(ctx, args->eps > 0.0, "add_rmsnorm_fwd: eps must be above 0"));
    BOUNDS(add_rmsnorm_fwd, ctx, args);
}

base_status_t kern_add_rmsnorm_fwd_visit(const kern_add_rmsnorm_fwd_t *args, kern_visitor_t *v)
{
    VISIT(args->a, BASE_READ, "add_rmsnorm_fwd: a");
    VISIT(args->b, BASE_READ, "add_rmsnorm_fwd: b");
    VISIT(args->x, BASE_WRITE, "add_rmsnorm_fwd: x");
    VISIT(args->w, BASE_READ, "add_rmsnorm_fwd: w");
    VISIT(args->y, BASE_WRITE, "add_rmsnorm_fwd: y");
    VISIT(args->rstd, BASE_WRITE, "add_rmsnorm_fwd: rstd");
    return BASE_OK;
}

kern_dtype_t kern_rmsnorm_bwd_dtype(const kern_rmsnorm_bwd_t *args)
{
    return args->x.dtype;
}

base_status_t kern_rmsnorm_bwd_check(base_ctx_t *ctx, const kern_rmsnorm_bwd_t *args)
{
    const kern_dtype_t dtype = args->x.dtype;
    const int64_t rows = args->x.rows, cols = args->x.cols;

    BASE_TRY(kern_want_real(ctx, dtype, "rmsnorm_bwd: x"));
    WANT(args->x, "rmsnorm_bwd: x", -1, -1, dtype);
    WANT(args->dy, "rmsnorm_bwd: dy", rows, cols, dtype);
    WANT(args->w, "rmsnorm_bwd: w", 1, cols, dtype);
    WANT(args->rstd, "rmsnorm_bwd: rstd", 1, rows, kern_dtype_acc(dtype));
    WANT_IF(args->dres, "rmsnorm_bwd: dres", rows, cols, dtype);
    WANT(args->dx, "rmsnorm_bwd: dx", rows, cols, dtype);
    WANT_IF(args->dw, "rmsnorm_bwd: dw", 1, cols, kern_dtype_acc(dtype));
    BOUNDS(rmsnorm_bwd, ctx, args);
}

base_status_t kern_rmsnorm_bwd_visit(const kern_rmsnorm_bwd_t *args, kern_visitor_t *v)
{
    VISIT(args->dy, BASE_READ, "rmsnorm_bwd: dy");
    VISIT(args->x, BASE_READ, "rmsnorm_bwd: x");
    VISIT(args->w, BASE_READ, "rmsnorm_bwd: w");
    VISIT(args->rstd, BASE_READ, "rmsnorm_bwd: rstd");
    VISIT(args->dres, BASE_READ, "rmsnorm_bwd: dres");
    VISIT(args->dx, BASE_WRITE, "rmsnorm_bwd: dx");
    VISIT(args->dw, BASE_READ_WRITE, "rmsnorm_bwd: dw");
    return BASE_OK;
}
