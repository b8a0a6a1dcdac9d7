/* Rules and operands of SwiGLU and the loss. */
#include "kernels/op_check_macros.h"

kern_dtype_t kern_swiglu_fwd_dtype(const kern_swiglu_fwd_t *args)
{
    return args->act.dtype;
}

base_status_t kern_swiglu_fwd_check(base_ctx_t *ctx, const kern_swiglu_fwd_t *args)
{
    const kern_mat_t *act = &args->act;

    BASE_TRY(kern_want_real(ctx, act->dtype, "swiglu_fwd: act"));
    WANT(*act, "swiglu_fwd: act", -1, -1, act->dtype);
    WANT(args->gate_up, "swiglu_fwd: gate_up", act->rows, 2 * act->cols, act->dtype);
    BOUNDS(swiglu_fwd, ctx, args);
}

base_status_t kern_swiglu_fwd_visit(const kern_swiglu_fwd_t *args, kern_visitor_t *v)
{
    VISIT(args->gate_up, BASE_READ, "swiglu_fwd: gate_up");
    VISIT(args->act, BASE_WRITE, "swiglu_fwd: act");
    return BASE_OK;
}

kern_dtype_t kern_swiglu_bwd_dtype(const kern_swiglu_bwd_t *args)
{
    return args->dact.dtype;
}

base_status_t kern_swiglu_bwd_check(base_ctx_t *ctx, const kern_swiglu_bwd_t *args)
{
    const kern_mat_t *dact = &args->dact;

    BASE_TRY(kern_want_real(ctx, dact->dtype, "swiglu_bwd: dact"));
    WANT(*dact, "swiglu_bwd: dact", -1, -1, dact->dtype);
    WANT(args->gate_up, "swiglu_bwd: gate_up", dact->rows, 2 * dact->cols, dact->dtype);
    WANT(args->dgate_up, "swiglu_bwd: dgate_up", dact->rows, 2 * dact->cols, dact->dtype);
    BOUNDS(swiglu_bwd, ctx, args);
}

base_status_t kern_swiglu_bwd_visit(const kern_swiglu_bwd_t *args, kern_visitor_t *v)
{
    VISIT(args->dact, BASE_READ, "swiglu_bwd: dact");
    VISIT(args->gate_up, BASE_READ, "swiglu_bwd: gate_up");
    VISIT(args->dgate_up, BASE_WRITE, "swiglu_bwd: dgate_up");
    return BASE_OK;
}

kern_dtype_t kern_loss_linear_ce_dtype(const kern_loss_linear_ce_t *args)
{
    return args->x.dtype;
}

base_status_t kern_loss_linear_ce_check(base_ctx_t *ctx, const kern_loss_linear_ce_t *args)
{
    const kern_dtype_t dtype = args->x.dtype, acc = kern_dtype_acc(dtype);
    const int64_t num = args->rows.cols, hidden = args->x.cols, vocabulary = args->w.rows;

    BASE_TRY(kern_want_real(ctx, dtype, "loss_linear_ce: x"));
    WANT(args->x, "loss_linear_ce: x", -1, -1, dtype);
    WANT(args->w, "loss_linear_ce: w", -1, hidden, dtype);
    WANT(args->rows, "loss_linear_ce: rows", 1, -1, KERN_I32);
    WANT(args->targets, "loss_linear_ce: targets", 1, num, KERN_I32);
    WANT(args->weights, "loss_linear_ce: weights", 1, num, acc);
    WANT(args->loss, "loss_linear_ce: loss", 1, num, acc);
    WANT_IF(args->dx, "loss_linear_ce: dx", args->x.rows, hidden, dtype);
    WANT_IF(args->dw, "loss_linear_ce: dw", vocabulary, hidden, acc);
    WANT(args->logits, "loss_linear_ce: logits", -1, vocabulary,
         args->logits.dtype == acc ? acc : dtype);
    WANT(args->gathered, "loss_linear_ce: gathered", args->logits.rows, hidden, dtype);
    BASE_TRY(kern_want_true(ctx, num <= args->x.rows,
                            "loss_linear_ce: more rows are listed than x has"));
    BASE_TRY(kern_want_true(ctx, num == 0 || (args->logits.rows > 0 && vocabulary > 0),
                            "loss_linear_ce: logits has no rows or no columns"));
    BASE_TRY(kern_want_true(ctx,
                            args->logits.rows <= INT32_MAX && args->logits.pitch <= INT32_MAX &&
                                vocabulary <= INT32_MAX && args->w.pitch <= INT32_MAX &&
                                args->gathered.pitch <= INT32_MAX && args->dw.pitch <= INT32_MAX,
                            "loss_linear_ce: a dimension or pitch is above 2147483647"));
    BOUNDS(loss_linear_ce, ctx, args);
}

base_status_t kern_loss_linear_ce_visit(const kern_loss_linear_ce_t *args, kern_visitor_t *v)
{
    VISIT(args->x, BASE_READ, "loss_linear_ce: x");
    VISIT(args->w, BASE_READ, "loss_linear_ce: w");
    VISIT(args->rows, BASE_READ, "loss_linear_ce: rows");
    VISIT(args->targets, BASE_READ, "loss_linear_ce: targets");
    VISIT(args->weights, BASE_READ, "loss_linear_ce: weights");
    VISIT(args->loss, BASE_WRITE, "loss_linear_ce: loss");
    VISIT(args->dx, BASE_WRITE, "loss_linear_ce: dx");
    VISIT(args->dw, BASE_READ_WRITE, "loss_linear_ce: dw");
    VISIT(args->logits, BASE_READ_WRITE, "loss_linear_ce: logits");
    VISIT(args->gathered, BASE_READ_WRITE, "loss_linear_ce: gathered");
    return BASE_OK;
}

kern_dtype_t kern_loss_sum_dtype(const kern_loss_sum_t *args)
{
    return args->sums.dtype;
}

base_status_t kern_loss_sum_check(base_ctx_t *ctx, const kern_loss_sum_t *args)
{
    const kern_dtype_t dtype = args->sums.dtype;

    BASE_TRY(kern_want_true(ctx, dtype == KERN_F32 || dtype == KERN_F64,
                            "loss_sum: sums must be fp32 or fp64"));
    WANT(args->sums, "loss_sum: sums", 1, -1, dtype);
    WANT(args->values, "loss_sum: values", 1, -1, dtype);
    WANT(args->weights, "loss_sum: weights", 1, args->values.cols, dtype);
    WANT(args->segments, "loss_sum: segments", 1, args->values.cols, KERN_I32);
    BOUNDS(loss_sum, ctx, args);
}

base_status_t kern_loss_sum_visit(const kern_loss_sum_t *args, kern_visitor_t *v)
{
    VISIT(args->values, BASE_READ, "loss_sum: values");
    VISIT(args->weights, BASE_READ, "loss_sum: weights");
    VISIT(args->segments, BASE_READ, "loss_sum: segments");
    VISIT(args->sums, BASE_READ_WRITE, "loss_sum: sums");
    return BASE_OK;
}
