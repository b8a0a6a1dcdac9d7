/* Rules and operands of the ops of an adapter's step: sums over ranks, norm, clipping, finiteness, AdamW. */
#include "kernels/op_check_macros.h"

#include <inttypes.h>
#include <math.h>

static base_status_t check_acc(base_ctx_t *ctx, kern_dtype_t dtype, const char *name)
{
    if (dtype == KERN_F32 || dtype == KERN_F64) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s is %s, want fp32 or fp64", name,
                     kern_dtype_name(dtype));
}

static base_status_t check_list(base_ctx_t *ctx, int64_t num, const void *list, const char *name)
{
    if (num >= 0 && (num == 0 || list != NULL)) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s: %" PRId64 " tensors without a list",
                     name, num);
}

/* ==== grad_norm ==== */

kern_dtype_t kern_grad_norm_dtype(const kern_grad_norm_t *args)
{
    return args->sum.dtype;
}

base_status_t kern_grad_norm_check(base_ctx_t *ctx, const kern_grad_norm_t *args)
{
    BASE_TRY(check_acc(ctx, args->sum.dtype, "grad_norm: sum"));
    WANT(args->sum, "grad_norm: sum", 1, 1, args->sum.dtype);
    BASE_TRY(check_list(ctx, args->num_gradients, args->gradients, "grad_norm"));
    for (int64_t i = 0; i < args->num_gradients; i++)
        WANT(args->gradients[i], "grad_norm: gradient", -1, -1, args->sum.dtype);
    BOUNDS(grad_norm, ctx, args);
}

base_status_t kern_grad_norm_visit(const kern_grad_norm_t *args, kern_visitor_t *v)
{
    for (int64_t i = 0; i < args->num_gradients; i++)
        VISIT(args->gradients[i], BASE_READ, "grad_norm: gradient");
    VISIT(args->sum, BASE_WRITE, "grad_norm: sum");
    return BASE_OK;
}

/* ==== vector_sum ==== */

kern_dtype_t kern_vector_sum_dtype(const kern_vector_sum_t *args)
{
    return args->dst.dtype;
}

base_status_t kern_vector_sum_check(base_ctx_t *ctx, const kern_vector_sum_t *args)
{
    BASE_TRY(check_acc(ctx, args->dst.dtype, "vector_sum: dst"));
    WANT(args->dst, "vector_sum: dst", 1, -1, args->dst.dtype);
    BASE_TRY(kern_want_true(ctx,
                            args->num_parts >= 1 && args->num_parts <= KERN_VECTOR_SUM_MAX_PARTS,
                            "vector_sum: wants 1 to 64 parts"));
    BOUNDS(vector_sum, ctx, args);
}

base_status_t kern_vector_sum_visit(const kern_vector_sum_t *args, kern_visitor_t *v)
{
    for (int64_t i = 0; i < args->num_parts; i++)
        VISIT_PIECE(BASE_READ, "vector_sum: part", args->parts[i], args->dst.dtype, 0,
                    args->dst.cols, 1, 0);
    VISIT(args->dst, BASE_WRITE, "vector_sum: dst");
    return BASE_OK;
}

/* ==== clip_factor ==== */

kern_dtype_t kern_clip_factor_dtype(const kern_clip_factor_t *args)
{
    return args->factor.dtype;
}

base_status_t kern_clip_factor_check(base_ctx_t *ctx, const kern_clip_factor_t *args)
{
    const kern_dtype_t dtype = args->factor.dtype;

    BASE_TRY(check_acc(ctx, dtype, "clip_factor: factor"));
    WANT(args->factor, "clip_factor: factor", 1, 1, dtype);
    WANT(args->sum, "clip_factor: sum", 1, 1, dtype);
    WANT_IF(args->norm, "clip_factor: norm", 1, 1, dtype);
    BASE_TRY(kern_want_true(ctx, args->clip > 0.0, "clip_factor: clip must be above 0"));
    BOUNDS(clip_factor, ctx, args);
}

base_status_t kern_clip_factor_visit(const kern_clip_factor_t *args, kern_visitor_t *v)
{
    VISIT(args->sum, BASE_READ, "clip_factor: sum");
    VISIT(args->norm, BASE_WRITE, "clip_factor: norm");
    VISIT(args->factor, BASE_WRITE, "clip_factor: factor");
    return BASE_OK;
}

/* ==== finite_check ==== */

kern_dtype_t kern_finite_check_dtype(const kern_finite_check_t *args)
{
    return args->dtype;
}

base_status_t kern_finite_check_check(base_ctx_t *ctx, const kern_finite_check_t *args)
{
    BASE_TRY(kern_want_real(ctx, args->dtype, "finite_check: dtype"));
    WANT(args->count, "finite_check: count", 1, 1, KERN_I32);
    BASE_TRY(check_list(ctx, args->num_tensors, args->tensors, "finite_check"));
    for (int64_t i = 0; i < args->num_tensors; i++)
        WANT(args->tensors[i], "finite_check: tensor", -1, -1, args->dtype);
    BOUNDS(finite_check, ctx, args);
}

base_status_t kern_finite_check_visit(const kern_finite_check_t *args, kern_visitor_t *v)
{
    for (int64_t i = 0; i < args->num_tensors; i++)
        VISIT(args->tensors[i], BASE_READ, "finite_check: tensor");
    VISIT(args->count, args->keep ? BASE_READ_WRITE : BASE_WRITE, "finite_check: count");
    return BASE_OK;
}

/* ==== adamw ==== */

kern_dtype_t kern_adamw_dtype(const kern_adamw_t *args)
{
    return args->dtype;
}

static base_status_t check_rates(base_ctx_t *ctx, const kern_adamw_t *args)
{
    BASE_TRY(kern_want_true(ctx, args->learning_rate >= 0.0 && isfinite(args->learning_rate),
                            "adamw: learning_rate must be finite and not negative"));
    BASE_TRY(kern_want_true(ctx, args->weight_decay >= 0.0 && isfinite(args->weight_decay),
                            "adamw: weight_decay must be finite and not negative"));
    BASE_TRY(kern_want_true(
        ctx, args->beta1 >= 0.0 && args->beta1 < 1.0 && args->beta2 >= 0.0 && args->beta2 < 1.0,
        "adamw: betas must be in [0, 1)"));
    BASE_TRY(kern_want_true(ctx, args->eps > 0.0 && isfinite(args->eps),
                            "adamw: eps must be finite and above 0"));
    return kern_want_true(ctx, args->step >= 1, "adamw: step must be at least 1");
}

base_status_t kern_adamw_check(base_ctx_t *ctx, const kern_adamw_t *args)
{
    const kern_dtype_t acc = kern_dtype_acc(args->dtype);

    BASE_TRY(kern_want_real(ctx, args->dtype, "adamw: dtype"));
    BASE_TRY(check_rates(ctx, args));
    BASE_TRY(check_list(ctx, args->num_tensors, args->tensors, "adamw"));
    WANT_IF(args->clip, "adamw: clip", 1, 1, acc);
    WANT_IF(args->skip, "adamw: skip", 1, 1, KERN_I32);
    for (int64_t i = 0; i < args->num_tensors; i++) {
        const kern_adamw_tensor_t *t = &args->tensors[i];

        WANT(t->w, "adamw: w", -1, -1, acc);
        WANT(t->m, "adamw: m", t->w.rows, t->w.cols, acc);
        WANT(t->v, "adamw: v", t->w.rows, t->w.cols, acc);
        WANT(t->gradient, "adamw: gradient", t->w.rows, t->w.cols, acc);
        WANT_IF(t->copy, "adamw: copy", t->w.rows, t->w.cols, args->dtype);
    }
    BOUNDS(adamw, ctx, args);
}

base_status_t kern_adamw_visit(const kern_adamw_t *args, kern_visitor_t *v)
{
    VISIT(args->clip, BASE_READ, "adamw: clip");
    VISIT(args->skip, BASE_READ, "adamw: skip");
    for (int64_t i = 0; i < args->num_tensors; i++) {
        VISIT(args->tensors[i].w, BASE_READ_WRITE, "adamw: w");
        VISIT(args->tensors[i].m, BASE_READ_WRITE, "adamw: m");
        VISIT(args->tensors[i].v, BASE_READ_WRITE, "adamw: v");
        VISIT(args->tensors[i].gradient, BASE_READ, "adamw: gradient");
        VISIT(args->tensors[i].copy, BASE_WRITE, "adamw: copy");
    }
    return BASE_OK;
}
