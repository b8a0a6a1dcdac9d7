/* Time of CA-tasks in integer nanoseconds, for planners: a profile (cost_profile.h) summed up once
 * for a window and a longest document.
 *
 *   as_cost_create(ctx, &profile, window, max_rows, &cost);
 *   ns = as_cost_task(cost, AS_COST_FORWARD, &task);
 *   as_cost_destroy(cost);
 *
 * Tile row i of a document is its rows [128 i, 128 (i + 1)). All tile rows of a document up to i
 * cost prefix[direction][i] for one KV head, so that any cut is two look-ups; what keys take once for
 * each task (key_ps) comes on top. Immutable after
 * creation: all threads may read it. */
#ifndef CADRE_ATTENTION_SERVER_COST_H
#define CADRE_ATTENTION_SERVER_COST_H

#include "attention_server/cost_profile.h"
#include "attention_server/task.h"

#ifdef __cplusplus
extern "C" {
#endif

/* FORWARD, BACKWARD, and BOTH: their sum, which planners balance. */
typedef enum as_cost_kind {
    AS_COST_FORWARD,
    AS_COST_BACKWARD,
    AS_COST_BOTH,
    AS_COST_KINDS
} as_cost_kind_t;

typedef struct as_cost {
    base_ctx_t *ctx;
    int64_t window, row_grain;
    int64_t num_tile_rows;          /* of the longest document */
    int64_t *prefix[AS_COST_KINDS]; /* [num_tile_rows + 1], ns */
    int64_t task_ns[AS_COST_KINDS];
    int64_t key_ps[AS_COST_BOTH]; /* of a tile of keys */
    int32_t has_idle, has_keys;
    int32_t idle_per_mille[AS_COST_BOTH];
} as_cost_t;

/* For documents of at most max_rows rows (1 to DATA_MAX_ROWS). BASE_ERR_ARG when a whole batch
 * could overflow 63 bits of nanoseconds. The profile is not needed afterwards. */
base_status_t as_cost_create(base_ctx_t *ctx, const as_profile_t *profile, int64_t window,
                             int64_t max_rows, as_cost_t **cost_p) BASE_MUST_CHECK;
void as_cost_destroy(as_cost_t *cost);

static inline int64_t as_tile_floor(int64_t row)
{
    return (int64_t)((uint64_t)row / DATA_ROW_ALIGN);
}

static inline int64_t as_tile_ceil(int64_t row)
{
    return as_tile_floor(row + DATA_ROW_ALIGN - 1);
}

/* The rows before `row`, one KV head, without the rounding to row_grain. */
static inline int64_t as_cost_before(const as_cost_t *cost, as_cost_kind_t kind, int64_t row)
{
    const int64_t *tile_row = cost->prefix[kind] + as_tile_floor(row),
                  part = row & (DATA_ROW_ALIGN - 1);

    return part == 0 ? tile_row[0]
                     : tile_row[0] + (int64_t)((uint64_t)((tile_row[1] - tile_row[0]) * part) /
                                               DATA_ROW_ALIGN);
}

/* What rows that are not there cost, of a task that holds rows [a, b) and with them a tile row in
 * part. */
int64_t as_cost_idle(const as_cost_t *cost, as_cost_kind_t kind, int64_t a, int64_t b);

/* What the keys of a task of rows [q0, q1) take once, one KV head. */
int64_t as_cost_keys(const as_cost_t *cost, as_cost_kind_t kind, int64_t q0, int64_t q1);

/* Rows [q0, q1), q0 < q1, of a document, one KV head, and their keys, without the constant of a task.
 * row_grain divides 128, so that it is a power of two. */
static inline int64_t as_cost_rows(const as_cost_t *cost, as_cost_kind_t kind, int64_t q0,
                                   int64_t q1)
{
    const int64_t below = cost->row_grain - 1, a = q0 & ~below, b = (q1 + below) & ~below;
    int64_t ns = as_cost_before(cost, kind, b) - as_cost_before(cost, kind, a);

    if (cost->has_keys) ns += as_cost_keys(cost, kind, q0, q1);
    if (cost->has_idle && ((a | b) & (DATA_ROW_ALIGN - 1)) != 0)
        return ns + as_cost_idle(cost, kind, a, b);
    return ns;
}

static inline int64_t as_cost_task(const as_cost_t *cost, as_cost_kind_t kind,
                                   const as_task_t *task)
{
    return cost->task_ns[kind] +
           as_cost_rows(cost, kind, task->q0, task->q1) * (task->h1 - task->h0);
}

#ifdef __cplusplus
}
#endif
#endif
