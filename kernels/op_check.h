/* Rules and operands of every op, shared by all devices.
 *
 * For each op of KERN_OP_MAP:
 *   kern_<op>_dtype(args)        the dtype by which an implementation is chosen ("real" of op.h)
 *   kern_<op>_check(ctx, args)   shapes, dtypes and bounds of every operand within its buffer.
 * BASE_ERR_ARG (INT-01) with op, operand, numbers found and wanted. What is only known when the
 * work runs (token values, positions) is checked by the implementation. kern_<op>_visit(args, v)
 * hands every operand (range and access) to the visitor; only after a check has passed
 *
 * One list serves the bounds check and the strict device, which opens exactly what the list names:
 * an operand that is forgotten here faults there.
 *
 * Thread-safe; nothing is kept. Not for hot loops below the op: a call costs O(operands). */
#ifndef CADRE_KERNELS_OP_CHECK_H
#define CADRE_KERNELS_OP_CHECK_H

#include "base/device/device_host.h"
#include "kernels/op.h"

/* Takes one operand; `name` is a literal such as "gemm: c", the same pointer for the same operand
 * of all tasks. A negative status ends the visit and is returned by it. */
typedef struct kern_visitor kern_visitor_t;
struct kern_visitor {
    base_status_t (*visit)(kern_visitor_t *v, const base_operand_t *operand, const char *name);
    /* Of the operand that is visited: its dtype, and where it is counted from: a place within the
     * argument struct or one of its lists, the same pointer for all pieces of one operand. */
    kern_dtype_t dtype;
    const base_mem_t *place;
};

#define X(op)                                                                                      \
    kern_dtype_t kern_##op##_dtype(const kern_##op##_t *args);                                     \
    base_status_t kern_##op##_check(base_ctx_t *ctx, const kern_##op##_t *args) BASE_MUST_CHECK;   \
    base_status_t kern_##op##_visit(const kern_##op##_t *args, kern_visitor_t *v) BASE_MUST_CHECK;
KERN_OP_MAP(X)
#undef X

/* ==== for the files that implement the above ==== */

/* What a matrix must look like. rows or cols < 0: any. */
typedef struct kern_want {
    const char *name; /* "gemm: c" */
    int64_t rows, cols;
    kern_dtype_t dtype;
    int optional;
} kern_want_t;

/* Present (unless optional), the wanted shape and dtype, pitch >= cols. */
base_status_t kern_want_mat(base_ctx_t *ctx, const kern_mat_t *mat,
                            kern_want_t want) BASE_MUST_CHECK;

/* BASE_ERR_ARG unless `ok`; `text` says what is wanted. */
base_status_t kern_want_true(base_ctx_t *ctx, int ok, const char *text) BASE_MUST_CHECK;

/* BASE_ERR_ARG unless dtype is one that the op can have: F32, F64, BF16. */
base_status_t kern_want_real(base_ctx_t *ctx, kern_dtype_t dtype, const char *name) BASE_MUST_CHECK;

/* Hand on a matrix (absent ones are skipped), or `rows` pieces of `count` elements, `pitch`
 * elements apart, that begin `offset` elements after *place. Products that do not fit give a range
 * that every bounds check refuses. */
base_status_t kern_visit_mat(kern_visitor_t *v, const kern_mat_t *mat, base_access_t access,
                             const char *name) BASE_MUST_CHECK;
typedef struct kern_piece {
    const base_mem_t *place;
    kern_dtype_t dtype;
    int64_t offset, count, rows, pitch; /* elements */
} kern_piece_t;
base_status_t kern_visit_piece(kern_visitor_t *v, kern_piece_t piece, base_access_t access,
                               const char *name) BASE_MUST_CHECK;

/* Visits with base_range_check. */
typedef struct kern_bounds_visitor {
    kern_visitor_t base; /* first */
    base_ctx_t *ctx;
} kern_bounds_visitor_t;
kern_bounds_visitor_t kern_bounds_visitor(base_ctx_t *ctx);

#endif
