/* Short forms for the op_check_*.c files only; they expect `ctx` or `v` in scope and return on
 * failure. */
#ifndef CADRE_KERNELS_OP_CHECK_MACROS_H
#define CADRE_KERNELS_OP_CHECK_MACROS_H

#include "kernels/op_check.h"

/* The end of a check: every operand of the visit lies within its buffer. */
#define BOUNDS(op, ctx, args)                                                                      \
    do {                                                                                           \
        kern_bounds_visitor_t bounds_ = kern_bounds_visitor(ctx);                                  \
        return kern_##op##_visit(args, &bounds_.base);                                             \
    } while (0)

#define WANT(mat, name, rows, cols, dtype)                                                         \
    BASE_TRY(kern_want_mat(ctx, &(mat), (kern_want_t){name, rows, cols, dtype, 0}))
#define WANT_IF(mat, name, rows, cols, dtype) /* or absent */                                      \
    BASE_TRY(kern_want_mat(ctx, &(mat), (kern_want_t){name, rows, cols, dtype, 1}))

#define VISIT(mat, access, name) BASE_TRY(kern_visit_mat(v, &(mat), access, name))
#define VISIT_PIECE(access, name, mem, ...)                                                        \
    BASE_TRY(kern_visit_piece(v, (kern_piece_t){&(mem), __VA_ARGS__}, access, name))

#endif
