/* Rules and operands of core attention and of the sums of its partial gradients. */
#include "kernels/op_check_macros.h"

#include <inttypes.h>

#define COUNT_LIMIT 65536              /* heads of a group, KV heads of a task */
#define PLACE_LIMIT ((int64_t)1 << 46) /* offsets and strides per row and head, elements */

static base_status_t fail_task(base_ctx_t *ctx, const char *op, int64_t task, const char *text)
{
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s: task %" PRId64 ": %s", op, task,
                     text);
}

static int64_t tile_floor(int64_t row)
{
    return row - row % KERN_ATTENTION_TILE;
}

/* The largest kv_row0 from which all keys of the task's rows are there. */
static int64_t kv_row0_limit(const kern_attention_task_t *t, int64_t window)
{
    if (window == 0 || t->q_row0 - window + 1 <= 0) return 0;
    return tile_floor(t->q_row0 - window + 1);
}

static base_status_t check_task(base_ctx_t *ctx, const char *op, int64_t index,
                                const kern_attention_task_t *t, int64_t window)
{
    /* With these limits and those of check_common no product of the visit overflows. */
    const int64_t row_limit = (int64_t)1 << 32;

    if (t->q_row0 < 0 || t->q_rows < 0 || t->q_row0 > row_limit || t->q_rows > row_limit)
        return fail_task(ctx, op, index, "q_row0 or q_rows is out of range");
    if (t->kv_heads < 0 || t->kv_heads > COUNT_LIMIT || (t->real != 0 && t->real != 1))
        return fail_task(ctx, op, index, "kv_heads is out of range or real is not 0 or 1");
    if (t->q_rows == 0 || t->kv_heads == 0) return BASE_OK;
    if (t->kv_row0 < 0 || t->kv_row0 % KERN_ATTENTION_TILE != 0)
        return fail_task(ctx, op, index, "kv_row0 is not on the grid of tiles");
    if (t->kv_row0 > kv_row0_limit(t, window))
        return fail_task(ctx, op, index, "kv_row0 leaves out keys that the rows see");
    return BASE_OK;
}

static base_status_t check_common(base_ctx_t *ctx, const char *op, kern_dtype_t dtype,
                                  int32_t group, int32_t head_dim, int64_t window)
{
    BASE_TRY(kern_want_real(ctx, dtype, op));
    if (group < 1 || group > COUNT_LIMIT || head_dim < 1 || window < 0)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: group %" PRId32 ", head_dim %" PRId32 ", window %" PRId64
                         " is out of range",
                         op, group, head_dim, window);
    if (head_dim > KERN_ATTENTION_MAX_HEAD_DIM)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                         "%s: head_dim %" PRId32 " is above %d", op, head_dim,
                         KERN_ATTENTION_MAX_HEAD_DIM);
    return BASE_OK;
}

static base_status_t check_tasks(base_ctx_t *ctx, const char *op,
                                 const kern_attention_task_t *tasks, int64_t num_tasks,
                                 int64_t window)
{
    if (num_tasks < 0 || (num_tasks > 0 && tasks == NULL))
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s: %" PRId64 " tasks without a list",
                         op, num_tasks);
    for (int64_t i = 0; i < num_tasks; i++)
        BASE_TRY(check_task(ctx, op, i, &tasks[i], window));
    return BASE_OK;
}

static int is_empty(const kern_attention_task_t *t)
{
    return t->q_rows == 0 || t->kv_heads == 0;
}

/* Rows of R D elements whose place is given per row and head: one piece a head. */
static base_status_t visit_token_rows(kern_visitor_t *v, const base_mem_t *mem, kern_dtype_t dtype,
                                      int64_t offset, int64_t row, int64_t head,
                                      const kern_attention_task_t *t, int64_t width,
                                      base_access_t access, const char *name)
{
    const int legal = offset >= 0 && offset <= PLACE_LIMIT && head >= 0 && head <= PLACE_LIMIT;

    for (int32_t h = 0; h < t->kv_heads; h++)
        VISIT_PIECE(access, name, *mem, dtype, legal ? offset + h * head : INT64_MIN, width,
                    t->q_rows, row);
    return BASE_OK;
}

/* ==== attention_fwd ==== */

kern_dtype_t kern_attention_fwd_dtype(const kern_attention_fwd_t *args)
{
    return args->dtype;
}

base_status_t kern_attention_fwd_check(base_ctx_t *ctx, const kern_attention_fwd_t *args)
{
    const char *op = "attention_fwd";

    BASE_TRY(check_common(ctx, op, args->dtype, args->group, args->head_dim, args->window));
    BASE_TRY(check_tasks(ctx, op, args->tasks, args->num_tasks, args->window));
    BOUNDS(attention_fwd, ctx, args);
}

base_status_t kern_attention_fwd_visit(const kern_attention_fwd_t *args, kern_visitor_t *v)
{
    const kern_dtype_t dtype = args->dtype, acc = kern_dtype_acc(dtype);
    const int64_t width = (int64_t)args->group * args->head_dim;

    for (int64_t i = 0; i < args->num_tasks; i++) {
        const kern_attention_task_t *t = &args->tasks[i];
        const int64_t kv_count = (t->q_row0 + t->q_rows - t->kv_row0) * args->head_dim;

        if (is_empty(t)) continue;
        VISIT_PIECE(BASE_READ, "attention_fwd: q", args->q, dtype, t->q, t->q_rows * width,
                    t->kv_heads, t->q_head);
        VISIT_PIECE(BASE_READ, "attention_fwd: k", args->k, dtype, t->kv, kv_count, t->kv_heads,
                    t->kv_head);
        VISIT_PIECE(BASE_READ, "attention_fwd: v", args->v, dtype, t->kv, kv_count, t->kv_heads,
                    t->kv_head);
        BASE_TRY(visit_token_rows(v, &args->o, dtype, t->o, t->o_row, t->o_head, t, width,
                                  BASE_WRITE, "attention_fwd: o"));
        VISIT_PIECE(BASE_WRITE, "attention_fwd: lse", args->lse, acc, t->lse,
                    t->q_rows * args->group, t->kv_heads, t->lse_head);
    }
    return BASE_OK;
}

/* ==== attention_bwd ==== */

kern_dtype_t kern_attention_bwd_dtype(const kern_attention_bwd_t *args)
{
    return args->dtype;
}

base_status_t kern_attention_bwd_check(base_ctx_t *ctx, const kern_attention_bwd_t *args)
{
    const char *op = "attention_bwd";

    BASE_TRY(check_common(ctx, op, args->dtype, args->group, args->head_dim, args->window));
    BASE_TRY(check_tasks(ctx, op, args->tasks, args->num_tasks, args->window));
    BOUNDS(attention_bwd, ctx, args);
}

/* Of the CUDA kernels (kernels/cuda/attention/bwd_sm90.cuh): packed rows come in tiles of whole
 * tokens, 8192 elements; a tile has its sums in fp32 and a counter, and there is one more. */
int64_t kern_attention_bwd_workspace(const kern_attention_bwd_t *args)
{
    const int64_t tile_elements = 8192, align = 256;
    int64_t tokens = 0, tiles = 0;

    if (args->dtype != KERN_BF16 || (args->head_dim != 64 && args->head_dim != 128) ||
        (args->window > 0 && args->window <= KERN_ATTENTION_NARROW_WINDOW))
        return 0;
    if (args->group > 0) tokens = tile_elements / args->head_dim / args->group;
    if (tokens == 0) return 0;
    for (int64_t i = 0; i < args->num_tasks; i++)
        tiles += (args->tasks[i].q_rows + tokens - 1) / tokens * args->tasks[i].kv_heads;
    if (tiles == 0) return 0;
    return ((1 + tiles) * 4 + align - 1) / align * align + tiles * tile_elements * 4;
}

static base_status_t visit_bwd_inputs(const kern_attention_bwd_t *args,
                                      const kern_attention_task_t *t, kern_visitor_t *v)
{
    const kern_dtype_t dtype = args->dtype, acc = kern_dtype_acc(dtype);
    const int64_t width = (int64_t)args->group * args->head_dim, stats = t->q_rows * args->group;
    const int64_t kv_count = (t->q_row0 + t->q_rows - t->kv_row0) * args->head_dim;

    VISIT_PIECE(BASE_READ, "attention_bwd: q", args->q, dtype, t->q, t->q_rows * width, t->kv_heads,
                t->q_head);
    VISIT_PIECE(BASE_READ, "attention_bwd: k", args->k, dtype, t->kv, kv_count, t->kv_heads,
                t->kv_head);
    VISIT_PIECE(BASE_READ, "attention_bwd: v", args->v, dtype, t->kv, kv_count, t->kv_heads,
                t->kv_head);
    VISIT_PIECE(BASE_READ, "attention_bwd: lse", args->lse, acc, t->lse, stats, t->kv_heads,
                t->lse_head);
    VISIT_PIECE(BASE_READ, "attention_bwd: delta", args->delta, acc, t->delta, stats, t->kv_heads,
                t->delta_head);
    return visit_token_rows(v, &args->d_o, dtype, t->d_o, t->d_o_row, t->d_o_head, t, width,
                            BASE_READ, "attention_bwd: d_o");
}

static base_status_t visit_dkv(const kern_attention_bwd_t *args, const kern_attention_task_t *t,
                               kern_visitor_t *v)
{
    const kern_dtype_t dtype = args->dtype, acc = kern_dtype_acc(dtype);
    const int64_t count = (t->q_row0 + t->q_rows - t->kv_row0) * args->head_dim;

    if (t->real) {
        VISIT_PIECE(BASE_READ_WRITE, "attention_bwd: dk_real", args->dk_real, dtype, t->dkv, count,
                    t->kv_heads, t->dkv_head);
        VISIT_PIECE(BASE_READ_WRITE, "attention_bwd: dv_real", args->dv_real, dtype, t->dkv, count,
                    t->kv_heads, t->dkv_head);
        return BASE_OK;
    }
    VISIT_PIECE(BASE_READ_WRITE, "attention_bwd: dk", args->dk, acc, t->dkv, count, t->kv_heads,
                t->dkv_head);
    VISIT_PIECE(BASE_READ_WRITE, "attention_bwd: dv", args->dv, acc, t->dkv, count, t->kv_heads,
                t->dkv_head);
    return BASE_OK;
}

base_status_t kern_attention_bwd_visit(const kern_attention_bwd_t *args, kern_visitor_t *v)
{
    const kern_dtype_t dtype = args->dtype;
    const int64_t width = (int64_t)args->group * args->head_dim;

    for (int64_t i = 0; i < args->num_tasks; i++) {
        const kern_attention_task_t *t = &args->tasks[i];

        if (is_empty(t)) continue;
        BASE_TRY(visit_bwd_inputs(args, t, v));
        /* sums grow in dq, dk and dv, so they are read as well */
        VISIT_PIECE(BASE_READ_WRITE, "attention_bwd: dq", args->dq, dtype, t->dq, t->q_rows * width,
                    t->kv_heads, t->dq_head);
        BASE_TRY(visit_dkv(args, t, v));
    }
    if (args->workspace.buffer != NULL && kern_attention_bwd_workspace(args) > 0)
        VISIT_PIECE(BASE_READ_WRITE, "attention_bwd: workspace", args->workspace, KERN_F32, 0,
                    kern_attention_bwd_workspace(args) / 4, 1, 0);
    return BASE_OK;
}

/* ==== partial_sum ==== */

kern_dtype_t kern_partial_sum_dtype(const kern_partial_sum_t *args)
{
    return args->dtype;
}

base_status_t kern_partial_sum_check(base_ctx_t *ctx, const kern_partial_sum_t *args)
{
    BASE_TRY(kern_want_real(ctx, args->dtype, "partial_sum: dst"));
    BASE_TRY(
        kern_want_true(ctx,
                       args->num_sums >= 0 && args->num_parts >= 0 &&
                           (args->num_sums == 0 || (args->sums != NULL && args->parts != NULL)),
                       "partial_sum: a list is missing or has a negative length"));
    for (int64_t i = 0; i < args->num_sums; i++) {
        const kern_sum_t *sum = &args->sums[i];

        if (sum->num_parts < 0 || sum->first_part < 0 ||
            sum->first_part > args->num_parts - sum->num_parts || sum->heads < 0 || sum->count < 0)
            return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "partial_sum: sum %" PRId64 ": parts [%" PRId64 ", + %" PRId32
                             ") of %" PRId64 ", %" PRId32 " heads of %" PRId64 " elements",
                             i, sum->first_part, sum->num_parts, args->num_parts, sum->heads,
                             sum->count);
    }
    BOUNDS(partial_sum, ctx, args);
}

base_status_t kern_partial_sum_visit(const kern_partial_sum_t *args, kern_visitor_t *v)
{
    const kern_dtype_t acc = kern_dtype_acc(args->dtype);

    for (int64_t i = 0; i < args->num_sums; i++) {
        const kern_sum_t *sum = &args->sums[i];
        const kern_sum_part_t *parts = args->parts + sum->first_part;

        if (sum->heads == 0 || sum->count == 0) continue;
        for (int32_t p = 0; p < sum->num_parts; p++)
            if (parts[p].real)
                VISIT_PIECE(BASE_READ, "partial_sum: src_real", args->src_real, args->dtype,
                            parts[p].src, sum->count, sum->heads, parts[p].src_head);
            else
                VISIT_PIECE(BASE_READ, "partial_sum: src", args->src, acc, parts[p].src, sum->count,
                            sum->heads, parts[p].src_head);
        VISIT_PIECE(BASE_READ_WRITE, "partial_sum: dst", args->dst, args->dtype, sum->dst,
                    sum->count, sum->heads, sum->dst_head);
    }
    return BASE_OK;
}
