/* Rules and operands of the LoRA ops. */
#include "kernels/op_check_macros.h"

#include <inttypes.h>
#include <math.h>

/* ==== the route, which all of them have ==== */

static base_status_t fail_entry(base_ctx_t *ctx, const char *list, int64_t index, const char *text)
{
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "lora: %s %" PRId64 ": %s", list, index,
                     text);
}

static base_status_t check_segments(base_ctx_t *ctx, const kern_lora_route_t *route, int64_t rows)
{
    int64_t end = 0;

    for (int64_t i = 0; i < route->num_segments; i++) {
        const kern_lora_segment_t *segment = &route->segments[i];

        if (segment->row0 < end || segment->row1 < segment->row0 || segment->row1 > rows)
            return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "lora: segment %" PRId64 " has rows [%" PRId64 ", %" PRId64
                             "), want ascending ones within [%" PRId64 ", %" PRId64 ")",
                             i, segment->row0, segment->row1, end, rows);
        if (segment->adapter < 0 || segment->adapter >= route->num_adapters ||
            segment->reserved != 0)
            return fail_entry(ctx, "segment", i, "adapter is out of range or reserved is not 0");
        end = segment->row1;
    }
    return BASE_OK;
}

static base_status_t check_adapters(base_ctx_t *ctx, const kern_lora_route_t *route)
{
    for (int64_t i = 0; i < route->num_adapters; i++) {
        const kern_lora_adapter_t *adapter = &route->adapters[i];

        if (!isfinite(adapter->scale)) return fail_entry(ctx, "adapter", i, "scale is not finite");
        if (!(adapter->dropout >= 0.0 && adapter->dropout < 1.0))
            return fail_entry(ctx, "adapter", i, "dropout is not in [0, 1)");
        if (adapter->reserved != 0) return fail_entry(ctx, "adapter", i, "reserved is not 0");
    }
    return BASE_OK;
}

/* `cols`: of s or ds. */
static base_status_t check_blocks(base_ctx_t *ctx, const kern_lora_route_t *route, int64_t cols)
{
    int64_t end = 0;

    for (int64_t i = 0; i < route->num_blocks; i++) {
        const kern_lora_block_t *block = &route->blocks[i];

        if (block->rank < 1 || block->column < end || block->column > cols ||
            block->rank > cols - block->column)
            return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "lora: block %" PRId64 " has columns %" PRId64 " + %" PRId64
                             ", want ascending ones within [%" PRId64 ", %" PRId64 ")",
                             i, block->column, block->rank, end, cols);
        if (block->adapter < 0 || block->adapter >= route->num_adapters || block->module < 0)
            return fail_entry(ctx, "block", i, "adapter or module is out of range");
        end = block->column + block->rank;
    }
    return BASE_OK;
}

static int has_dropout(const kern_lora_route_t *route)
{
    for (int64_t i = 0; i < route->num_blocks; i++)
        if (route->adapters[route->blocks[i].adapter].dropout > 0.0) return 1;
    return 0;
}

static base_status_t check_route(base_ctx_t *ctx, const kern_lora_route_t *route, int64_t rows,
                                 int64_t cols)
{
    BASE_TRY(kern_want_true(
        ctx, route->num_segments >= 0 && route->num_adapters >= 0 && route->num_blocks >= 0,
        "lora: a list has a negative length"));
    BASE_TRY(kern_want_true(ctx,
                            (route->num_segments == 0 || route->segments != NULL) &&
                                (route->num_adapters == 0 || route->adapters != NULL) &&
                                (route->num_blocks == 0 || route->blocks != NULL),
                            "lora: a list is missing"));
    BASE_TRY(check_adapters(ctx, route));
    BASE_TRY(check_segments(ctx, route, rows));
    return check_blocks(ctx, route, cols);
}

/* For the ops that regenerate the mask. */
static base_status_t check_mask(base_ctx_t *ctx, const kern_lora_route_t *route, int64_t rows)
{
    BASE_TRY(kern_want_true(ctx, route->layer >= 0, "lora: layer is negative"));
    if (!has_dropout(route)) return BASE_OK;
    WANT(route->documents, "lora: documents", rows, 2, KERN_I32);
    WANT(route->positions, "lora: positions", 1, rows, KERN_I32);
    return BASE_OK;
}

static base_status_t visit_mask(const kern_lora_route_t *route, kern_visitor_t *v)
{
    if (!has_dropout(route)) return BASE_OK;
    VISIT(route->documents, BASE_READ, "lora: documents");
    VISIT(route->positions, BASE_READ, "lora: positions");
    return BASE_OK;
}

/* BLAS and cuBLASLt count in int. */
static base_status_t check_int(base_ctx_t *ctx, const kern_mat_t *mat, const char *name)
{
    if (mat->rows <= INT32_MAX && mat->cols <= INT32_MAX && mat->pitch <= INT32_MAX) return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                     "%s has a dimension or pitch above 2147483647", name);
}

/* The matrices of an op: `wide` is x, dx or dy, `narrow` s or ds. */
static base_status_t check_pair(base_ctx_t *ctx, const kern_mat_t *wide, const char *wide_name,
                                const kern_mat_t *narrow, const char *narrow_name)
{
    BASE_TRY(kern_want_real(ctx, wide->dtype, wide_name));
    WANT(*wide, wide_name, -1, -1, wide->dtype);
    WANT(*narrow, narrow_name, wide->rows, -1, wide->dtype);
    BASE_TRY(check_int(ctx, wide, wide_name));
    return check_int(ctx, narrow, narrow_name);
}

static base_status_t check_a(base_ctx_t *ctx, const kern_lora_route_t *route, kern_dtype_t dtype,
                             int64_t cols)
{
    for (int64_t i = 0; i < route->num_blocks; i++) {
        WANT(route->blocks[i].a, "lora: a", route->blocks[i].rank, cols, dtype);
        BASE_TRY(check_int(ctx, &route->blocks[i].a, "lora: a"));
    }
    return BASE_OK;
}

/* The rows of b or db are outputs of the module: columns of dy. */
static base_status_t check_outputs(base_ctx_t *ctx, const kern_lora_block_t *block, int64_t index,
                                   int64_t rows, int64_t cols)
{
    if (block->out_column >= 0 && block->out_column <= cols && rows <= cols - block->out_column)
        return BASE_OK;
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                     "lora: block %" PRId64 " has output columns %" PRId64 " + %" PRId64
                     ", dy has %" PRId64,
                     index, block->out_column, rows, cols);
}

/* ==== lora_s ==== */

kern_dtype_t kern_lora_s_dtype(const kern_lora_s_t *args)
{
    return args->x.dtype;
}

base_status_t kern_lora_s_check(base_ctx_t *ctx, const kern_lora_s_t *args)
{
    BASE_TRY(check_pair(ctx, &args->x, "lora_s: x", &args->s, "lora_s: s"));
    BASE_TRY(check_route(ctx, &args->route, args->x.rows, args->s.cols));
    BASE_TRY(check_mask(ctx, &args->route, args->x.rows));
    BASE_TRY(check_a(ctx, &args->route, args->x.dtype, args->x.cols));
    BOUNDS(lora_s, ctx, args);
}

base_status_t kern_lora_s_visit(const kern_lora_s_t *args, kern_visitor_t *v)
{
    VISIT(args->x, BASE_READ, "lora_s: x");
    VISIT(args->s, BASE_READ_WRITE, "lora_s: s"); /* sums grow in it */
    for (int64_t i = 0; i < args->route.num_blocks; i++)
        VISIT(args->route.blocks[i].a, BASE_READ, "lora_s: a");
    return visit_mask(&args->route, v);
}

/* ==== lora_ds ==== */

kern_dtype_t kern_lora_ds_dtype(const kern_lora_ds_t *args)
{
    return args->dy.dtype;
}

static base_status_t check_b(base_ctx_t *ctx, const kern_lora_route_t *route, const kern_mat_t *dy,
                             const char *name)
{
    for (int64_t i = 0; i < route->num_blocks; i++) {
        const kern_lora_block_t *block = &route->blocks[i];

        WANT(block->b, name, -1, block->rank, dy->dtype);
        BASE_TRY(check_int(ctx, &block->b, name));
        BASE_TRY(check_outputs(ctx, block, i, block->b.rows, dy->cols));
    }
    return BASE_OK;
}

base_status_t kern_lora_ds_check(base_ctx_t *ctx, const kern_lora_ds_t *args)
{
    BASE_TRY(check_pair(ctx, &args->dy, "lora_ds: dy", &args->ds, "lora_ds: ds"));
    BASE_TRY(check_route(ctx, &args->route, args->dy.rows, args->ds.cols));
    BASE_TRY(check_b(ctx, &args->route, &args->dy, "lora_ds: b"));
    BOUNDS(lora_ds, ctx, args);
}

base_status_t kern_lora_ds_visit(const kern_lora_ds_t *args, kern_visitor_t *v)
{
    VISIT(args->dy, BASE_READ, "lora_ds: dy");
    VISIT(args->ds, BASE_READ_WRITE, "lora_ds: ds");
    for (int64_t i = 0; i < args->route.num_blocks; i++)
        VISIT(args->route.blocks[i].b, BASE_READ, "lora_ds: b");
    return BASE_OK;
}

/* ==== lora_da, lora_db ==== */

kern_dtype_t kern_lora_da_dtype(const kern_lora_da_t *args)
{
    return args->x.dtype;
}

base_status_t kern_lora_da_check(base_ctx_t *ctx, const kern_lora_da_t *args)
{
    BASE_TRY(check_pair(ctx, &args->x, "lora_da: x", &args->ds, "lora_da: ds"));
    BASE_TRY(check_route(ctx, &args->route, args->x.rows, args->ds.cols));
    BASE_TRY(check_mask(ctx, &args->route, args->x.rows));
    for (int64_t i = 0; i < args->route.num_blocks; i++) {
        const kern_lora_block_t *block = &args->route.blocks[i];

        WANT(block->da, "lora_da: da", block->rank, args->x.cols, kern_dtype_acc(args->x.dtype));
        BASE_TRY(check_int(ctx, &block->da, "lora_da: da"));
    }
    BOUNDS(lora_da, ctx, args);
}

base_status_t kern_lora_da_visit(const kern_lora_da_t *args, kern_visitor_t *v)
{
    VISIT(args->x, BASE_READ, "lora_da: x");
    VISIT(args->ds, BASE_READ, "lora_da: ds");
    for (int64_t i = 0; i < args->route.num_blocks; i++)
        VISIT(args->route.blocks[i].da, BASE_READ_WRITE, "lora_da: da");
    return visit_mask(&args->route, v);
}

kern_dtype_t kern_lora_db_dtype(const kern_lora_db_t *args)
{
    return args->dy.dtype;
}

static base_status_t check_db(base_ctx_t *ctx, const kern_lora_route_t *route, const kern_mat_t *dy,
                              const char *name)
{
    for (int64_t i = 0; i < route->num_blocks; i++) {
        const kern_lora_block_t *block = &route->blocks[i];

        WANT(block->db, name, -1, block->rank, kern_dtype_acc(dy->dtype));
        BASE_TRY(check_int(ctx, &block->db, name));
        BASE_TRY(check_outputs(ctx, block, i, block->db.rows, dy->cols));
    }
    return BASE_OK;
}

base_status_t kern_lora_db_check(base_ctx_t *ctx, const kern_lora_db_t *args)
{
    BASE_TRY(check_pair(ctx, &args->dy, "lora_db: dy", &args->s, "lora_db: s"));
    BASE_TRY(check_route(ctx, &args->route, args->dy.rows, args->s.cols));
    BASE_TRY(check_db(ctx, &args->route, &args->dy, "lora_db: db"));
    BOUNDS(lora_db, ctx, args);
}

base_status_t kern_lora_db_visit(const kern_lora_db_t *args, kern_visitor_t *v)
{
    VISIT(args->dy, BASE_READ, "lora_db: dy");
    VISIT(args->s, BASE_READ, "lora_db: s");
    for (int64_t i = 0; i < args->route.num_blocks; i++)
        VISIT(args->route.blocks[i].db, BASE_READ_WRITE, "lora_db: db");
    return BASE_OK;
}

/* ==== lora_dy ==== */

kern_dtype_t kern_lora_dy_dtype(const kern_lora_dy_t *args)
{
    return args->dy.dtype;
}

base_status_t kern_lora_dy_check(base_ctx_t *ctx, const kern_lora_dy_t *args)
{
    const kern_lora_route_t *route = &args->route;

    BASE_TRY(check_pair(ctx, &args->dy, "lora_dy: dy", &args->ds, "lora_dy: ds"));
    BASE_TRY(check_pair(ctx, &args->dy, "lora_dy: dy", &args->s, "lora_dy: s"));
    BASE_TRY(check_route(ctx, route, args->dy.rows, args->ds.cols));
    BASE_TRY(check_route(ctx, route, args->dy.rows, args->s.cols));
    BASE_TRY(check_b(ctx, route, &args->dy, "lora_dy: b"));
    BASE_TRY(check_db(ctx, route, &args->dy, "lora_dy: db"));
    for (int64_t i = 0; i < route->num_blocks; i++)
        if (route->blocks[i].b.rows != route->blocks[i].db.rows)
            return fail_entry(ctx, "block", i, "b and db differ in rows");
    BOUNDS(lora_dy, ctx, args);
}

base_status_t kern_lora_dy_visit(const kern_lora_dy_t *args, kern_visitor_t *v)
{
    VISIT(args->dy, BASE_READ, "lora_dy: dy");
    VISIT(args->s, BASE_READ, "lora_dy: s");
    VISIT(args->ds, BASE_READ_WRITE, "lora_dy: ds");
    for (int64_t i = 0; i < args->route.num_blocks; i++) {
        VISIT(args->route.blocks[i].b, BASE_READ, "lora_dy: b");
        VISIT(args->route.blocks[i].db, BASE_READ_WRITE, "lora_dy: db");
    }
    return BASE_OK;
}

/* ==== lora_dx_dropout ==== */

kern_dtype_t kern_lora_dx_dropout_dtype(const kern_lora_dx_dropout_t *args)
{
    return args->dx.dtype;
}

base_status_t kern_lora_dx_dropout_check(base_ctx_t *ctx, const kern_lora_dx_dropout_t *args)
{
    BASE_TRY(check_pair(ctx, &args->dx, "lora_dx_dropout: dx", &args->ds, "lora_dx_dropout: ds"));
    BASE_TRY(check_route(ctx, &args->route, args->dx.rows, args->ds.cols));
    BASE_TRY(check_mask(ctx, &args->route, args->dx.rows));
    BASE_TRY(check_a(ctx, &args->route, args->dx.dtype, args->dx.cols));
    BOUNDS(lora_dx_dropout, ctx, args);
}

base_status_t kern_lora_dx_dropout_visit(const kern_lora_dx_dropout_t *args, kern_visitor_t *v)
{
    VISIT(args->ds, BASE_READ, "lora_dx_dropout: ds");
    VISIT(args->dx, BASE_READ_WRITE, "lora_dx_dropout: dx");
    for (int64_t i = 0; i < args->route.num_blocks; i++)
        VISIT(args->route.blocks[i].a, BASE_READ, "lora_dx_dropout: a");
    return visit_mask(&args->route, v);
}
