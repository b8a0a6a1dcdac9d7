#include "attention_server/cost.h"

#include "base/memory.h"

#include <inttypes.h>

#define PS_PER_NS 1000

/* Keys that some row of tile row i sees, from the first one that a task beginning there holds. */
static int64_t tile_row_keys(int64_t i, int64_t window)
{
    return (i + 1) * DATA_ROW_ALIGN - as_task_first_key(i * DATA_ROW_ALIGN, window);
}

/* Nanoseconds are rounded where sums end, not in each tile row: short ones take few. */
static void sum_up(const as_profile_t *profile, as_cost_t *c, as_cost_kind_t kind)
{
    int64_t ns = 0, ps = 0;

    c->prefix[kind][0] = 0;
    for (int64_t i = 0; i < c->num_tile_rows; i++) {
        ps += as_profile_tile_row_ps(profile, (int)kind, tile_row_keys(i, c->window));
        ns += ps / PS_PER_NS;
        ps %= PS_PER_NS;
        c->prefix[kind][i + 1] = ns + (ps >= PS_PER_NS / 2);
    }
    c->task_ns[kind] = (profile->task_ps[kind] + PS_PER_NS / 2) / PS_PER_NS;
}

/* The dearest batch: documents of max_rows rows, DATA_MAX_ROWS rows in all, AS_MAX_KV_HEADS heads.
 * Fewer heads than that are usual; a factor of 2 for tile rows held in part. */
static base_status_t check_range(base_ctx_t *ctx, const as_profile_t *profile, int64_t max_rows)
{
    const int64_t rows = 2 * (DATA_MAX_ROWS / DATA_ROW_ALIGN);
    const int64_t keys = as_tile_ceil(max_rows) * (profile->key_ps[AS_PROFILE_FORWARD] +
                                                   profile->key_ps[AS_PROFILE_BACKWARD]);
    const int64_t each =
        as_profile_tile_row_ps(profile, AS_PROFILE_FORWARD, max_rows) / PS_PER_NS +
        as_profile_tile_row_ps(profile, AS_PROFILE_BACKWARD, max_rows) / PS_PER_NS +
        keys / PS_PER_NS;

    if (each > INT64_MAX / rows / AS_MAX_KV_HEADS)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "attention profile of %s: %" PRId64 " ns for 128 rows at %" PRId64
                         " keys is more than a plan can add up",
                         profile->device, each, max_rows);
    return BASE_OK;
}

base_status_t as_cost_create(base_ctx_t *ctx, const as_profile_t *profile, int64_t window,
                             int64_t max_rows, as_cost_t **cost_p)
{
    if (max_rows < 1 || max_rows > DATA_MAX_ROWS || window < 0)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "cost of documents of %" PRId64 " rows, window %" PRId64, max_rows,
                         window);
    BASE_TRY(check_range(ctx, profile, max_rows));
    as_cost_t *c = base_calloc(ctx, 1, sizeof *c, "attention cost");
    if (c == NULL) return BASE_ERR_NOMEM;
    c->ctx = ctx;
    c->window = window;
    c->row_grain = profile->row_grain;
    c->num_tile_rows = as_tile_ceil(max_rows);
    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++) {
        c->idle_per_mille[d] = profile->idle_per_mille[d];
        c->has_idle |= profile->idle_per_mille[d] != 0;
        c->key_ps[d] = profile->key_ps[d];
        c->has_keys |= profile->key_ps[d] != 0;
    }
    for (int kind = 0; kind < AS_COST_KINDS; kind++) {
        c->prefix[kind] =
            base_calloc(ctx, c->num_tile_rows + 1, sizeof(int64_t), "attention cost: tile rows");
        if (c->prefix[kind] == NULL) {
            as_cost_destroy(c);
            return BASE_ERR_NOMEM;
        }
    }
    sum_up(profile, c, AS_COST_FORWARD);
    sum_up(profile, c, AS_COST_BACKWARD);
    for (int64_t i = 0; i <= c->num_tile_rows; i++)
        c->prefix[AS_COST_BOTH][i] = c->prefix[AS_COST_FORWARD][i] + c->prefix[AS_COST_BACKWARD][i];
    c->task_ns[AS_COST_BOTH] = c->task_ns[AS_COST_FORWARD] + c->task_ns[AS_COST_BACKWARD];
    *cost_p = c;
    return BASE_OK;
}

static int64_t tile_row_ns(const as_cost_t *c, as_cost_kind_t kind, int64_t i)
{
    return c->prefix[kind][i + 1] - c->prefix[kind][i];
}

int64_t as_cost_idle(const as_cost_t *c, as_cost_kind_t kind, int64_t a, int64_t b)
{
    const int64_t first = as_tile_floor(a), last = as_tile_floor(b - 1);
    int64_t before = a - first * DATA_ROW_ALIGN, after = (last + 1) * DATA_ROW_ALIGN - b;

    if (kind == AS_COST_BOTH)
        return as_cost_idle(c, AS_COST_FORWARD, a, b) + as_cost_idle(c, AS_COST_BACKWARD, a, b);
    before = tile_row_ns(c, kind, first) * before / DATA_ROW_ALIGN;
    after = tile_row_ns(c, kind, last) * after / DATA_ROW_ALIGN;
    return (before + after) / 1000 * c->idle_per_mille[kind] +
           (before + after) % 1000 * c->idle_per_mille[kind] / 1000;
}

int64_t as_cost_keys(const as_cost_t *c, as_cost_kind_t kind, int64_t q0, int64_t q1)
{
    const int64_t tiles =
        as_tile_ceil(q1) -
        as_tile_floor(as_task_first_key(q0, c->window)); /* the first is on the grid */

    if (kind == AS_COST_BOTH)
        return as_cost_keys(c, AS_COST_FORWARD, q0, q1) + as_cost_keys(c, AS_COST_BACKWARD, q0, q1);
    /* Up: parts of a document take no less than the whole. */
    return (tiles * c->key_ps[kind] + PS_PER_NS - 1) / PS_PER_NS;
}

void as_cost_destroy(as_cost_t *cost)
{
    if (cost == NULL) return;
    for (int kind = 0; kind < AS_COST_KINDS; kind++)
        base_free(cost->ctx, cost->prefix[kind]);
    base_free(cost->ctx, cost);
}
