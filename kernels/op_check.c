#include "kernels/op_check.h"

#include <inttypes.h>
#include <stdio.h>

int64_t kern_dtype_bytes(kern_dtype_t dtype)
{
    switch (dtype) {
    case KERN_F32:
    case KERN_I32:
        return 4;
    case KERN_F64:
        return 8;
    case KERN_BF16:
        return 2;
    case KERN_DTYPE_COUNT:
        break;
    }
    return 0;
}

const char *kern_dtype_name(kern_dtype_t dtype)
{
    switch (dtype) {
    case KERN_F32:
        return "fp32";
    case KERN_F64:
        return "fp64";
    case KERN_BF16:
        return "bf16";
    case KERN_I32:
        return "int32";
    case KERN_DTYPE_COUNT:
        break;
    }
    return "unknown dtype";
}

kern_dtype_t kern_dtype_acc(kern_dtype_t dtype)
{
    return dtype == KERN_BF16 ? KERN_F32 : dtype;
}

kern_mat_t kern_mat(base_mem_t mem, int64_t rows, int64_t cols, int64_t pitch, kern_dtype_t dtype)
{
    const kern_mat_t mat = {mem, rows, cols, pitch, dtype};

    return mat;
}

kern_mat_t kern_vec(base_mem_t mem, int64_t cols, kern_dtype_t dtype)
{
    return kern_mat(mem, 1, cols, cols, dtype);
}

int kern_mat_absent(const kern_mat_t *mat)
{
    return mat->mem.buffer == NULL;
}

/* ==== rules ==== */

static base_status_t fail_shape(base_ctx_t *ctx, const kern_mat_t *mat, kern_want_t want)
{
    char rows[24], cols[24];

    (void)snprintf(rows, sizeof rows, "%" PRId64, want.rows);
    (void)snprintf(cols, sizeof cols, "%" PRId64, want.cols);
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                     "%s has %" PRId64 " x %" PRId64 " elements, want %s x %s", want.name,
                     mat->rows, mat->cols, want.rows < 0 ? "any" : rows,
                     want.cols < 0 ? "any" : cols);
}

base_status_t kern_want_mat(base_ctx_t *ctx, const kern_mat_t *mat, kern_want_t want)
{
    if (kern_mat_absent(mat)) {
        if (want.optional) return BASE_OK;
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s is absent", want.name);
    }
    if (mat->dtype != want.dtype)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s is %s, want %s", want.name,
                         kern_dtype_name(mat->dtype), kern_dtype_name(want.dtype));
    if (mat->rows < 0 || mat->cols < 0 || (want.rows >= 0 && mat->rows != want.rows) ||
        (want.cols >= 0 && mat->cols != want.cols))
        return fail_shape(ctx, mat, want);
    if (mat->pitch < mat->cols)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s has a pitch of %" PRId64 " elements, want at least its %" PRId64
                         " columns",
                         want.name, mat->pitch, mat->cols);
    return BASE_OK;
}

base_status_t kern_want_true(base_ctx_t *ctx, int ok, const char *text)
{
    if (ok) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s", text);
}

base_status_t kern_want_real(base_ctx_t *ctx, kern_dtype_t dtype, const char *name)
{
    if (dtype == KERN_F32 || dtype == KERN_F64 || dtype == KERN_BF16) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s is %s, want fp32, fp64 or bf16", name,
                     kern_dtype_name(dtype));
}

/* ==== operands ==== */

/* Elements in bytes. Saturates at a negative value, which base_range_check refuses wherever it
 * stands. */
static int64_t in_bytes(int64_t elements, kern_dtype_t dtype)
{
    int64_t bytes;

    if (__builtin_mul_overflow(elements, kern_dtype_bytes(dtype), &bytes)) return INT64_MIN;
    return bytes;
}

base_status_t kern_visit_piece(kern_visitor_t *v, kern_piece_t piece, base_access_t access,
                               const char *name)
{
    base_operand_t operand = {{*piece.place, 0, piece.rows, 0}, access};

    operand.range.row_bytes = in_bytes(piece.count, piece.dtype);
    operand.range.pitch = in_bytes(piece.pitch, piece.dtype);
    if (__builtin_add_overflow(piece.place->offset, in_bytes(piece.offset, piece.dtype),
                               &operand.range.mem.offset))
        operand.range.mem.offset = INT64_MIN;
    if (operand.range.rows == 1) /* pitch means nothing then */
        operand.range.pitch = operand.range.row_bytes;
    v->dtype = piece.dtype;
    v->place = piece.place;
    return v->visit(v, &operand, name);
}

base_status_t kern_visit_mat(kern_visitor_t *v, const kern_mat_t *mat, base_access_t access,
                             const char *name)
{
    if (kern_mat_absent(mat)) return BASE_OK;
    return kern_visit_piece(
        v, (kern_piece_t){&mat->mem, mat->dtype, 0, mat->cols, mat->rows, mat->pitch}, access,
        name);
}

static base_status_t visit_bounds(kern_visitor_t *v, const base_operand_t *operand,
                                  const char *name)
{
    kern_bounds_visitor_t *self = (kern_bounds_visitor_t *)v;

    return base_range_check(self->ctx, &operand->range, name);
}

kern_bounds_visitor_t kern_bounds_visitor(base_ctx_t *ctx)
{
    const kern_bounds_visitor_t v = {{.visit = visit_bounds}, ctx};

    return v;
}
