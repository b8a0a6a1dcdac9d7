#include "attention_server/task.h"

#include "base/hash.h"
#include "base/memory.h"
#include "base/sort.h"

#include <inttypes.h>

#define FAIL_PLAN(plan, ...) BASE_FAIL((plan)->ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01, __VA_ARGS__)

/* Place of a task in an error. */
#define TASK_FORMAT                                                                                \
    "plan of microbatch %" PRId64 ": document %" PRId32 " rows [%" PRId64 ", %" PRId64 "): "
#define TASK_VALUES(plan, task) (plan)->microbatch, (task)->document, (task)->q0, (task)->q1

/* ==== arithmetic of a task ==== */

int64_t as_task_first_key(int64_t q0, int64_t window)
{
    const int64_t first = q0 - window + 1;

    if (window == 0 || first <= 0) return 0;
    return first / DATA_ROW_ALIGN * DATA_ROW_ALIGN;
}

/* 1 + 2 + ... + n */
static int64_t triangle(int64_t n)
{
    return n * (n + 1) / 2;
}

int as_task_is_whole(const as_task_t *task, const data_batch_t *batch)
{
    return task->q0 == 0 && task->q1 == batch->documents[task->document].rows;
}

int as_tasks_share_keys(const as_task_t *a, const as_task_t *b)
{
    return a->document == b->document && a->h0 < b->h1 && b->h0 < a->h1 && a->k0 < b->q1 &&
           b->k0 < a->q1;
}

int64_t as_task_pairs(const as_task_t *task, int64_t window)
{
    /* Row q sees min(q + 1, window) keys: rows before `full` see all keys up to themselves, the
     * others a whole window. */
    int64_t full = task->q1;

    if (window != 0 && full > window) full = window > task->q0 ? window : task->q0;
    return (triangle(full) - triangle(task->q0) + (task->q1 - full) * window) *
           (task->h1 - task->h0);
}

/* ==== storage ==== */

base_status_t as_plan_create(base_ctx_t *ctx, int32_t max_tasks, as_plan_t **plan_p)
{
    if (max_tasks < 1)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "plan of %" PRId32 " tasks",
                         max_tasks);

    as_plan_t *plan = base_calloc(ctx, 1, sizeof *plan, "plan");
    if (plan == NULL) return BASE_ERR_NOMEM;
    plan->ctx = ctx;
    plan->capacity = max_tasks;
    if ((plan->tasks = base_calloc(ctx, max_tasks, sizeof *plan->tasks, "plan: tasks")) == NULL) {
        as_plan_destroy(plan);
        return BASE_ERR_NOMEM;
    }
    *plan_p = plan;
    return BASE_OK;
}

void as_plan_destroy(as_plan_t *plan)
{
    if (plan == NULL) return;
    base_free(plan->ctx, plan->scratch);
    base_free(plan->ctx, plan->tasks);
    base_free(plan->ctx, plan);
}

base_status_t as_plan_reserve(as_plan_t *plan, int32_t count)
{
    if (count <= plan->capacity_scratch) return BASE_OK;

    int64_t *grown = base_realloc(plan->ctx, plan->scratch, count, sizeof *grown, "plan: scratch");
    if (grown == NULL) return BASE_ERR_NOMEM;
    plan->scratch = grown;
    plan->capacity_scratch = count;
    return BASE_OK;
}

base_status_t as_plan_begin(as_plan_t *plan, int64_t microbatch, int64_t window,
                            int32_t num_kv_heads)
{
    if (window < 0 || num_kv_heads < 1 || num_kv_heads > AS_MAX_KV_HEADS)
        return BASE_FAIL(plan->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "plan of microbatch %" PRId64 ": window %" PRId64 ", %" PRId32
                         " KV heads, want at least 0, 1 to %d",
                         microbatch, window, num_kv_heads, AS_MAX_KV_HEADS);
    BASE_TRY(as_plan_reserve(plan, num_kv_heads));
    plan->microbatch = microbatch;
    plan->window = window;
    plan->num_kv_heads = num_kv_heads;
    plan->num_tasks = 0;
    plan->hash = 0;
    return BASE_OK;
}

base_status_t as_plan_add(as_plan_t *plan, const as_task_t *task)
{
    if (plan->num_tasks == plan->capacity)
        return BASE_FAIL(plan->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         TASK_FORMAT "the plan is full with %" PRId32 " tasks",
                         TASK_VALUES(plan, task), plan->capacity);
    plan->tasks[plan->num_tasks++] = *task;
    return BASE_OK;
}

/* ==== check ==== */

/* Beyond q0 and h0 the order only makes errors the same on every rank. */
static int by_document(const void *a, const void *b, const void *arg)
{
    const as_task_t *x = a, *y = b;
    int c = base_compare_i64(x->document, y->document);

    (void)arg;
    if (c == 0) c = base_compare_i64(x->q0, y->q0);
    if (c == 0) c = base_compare_i64(x->h0, y->h0);
    if (c == 0) c = base_compare_i64(x->q1, y->q1);
    if (c == 0) c = base_compare_i64(x->h1, y->h1);
    return c != 0 ? c : base_compare_i64(x->server, y->server);
}

static int is_sorted(const as_plan_t *plan)
{
    for (int32_t i = 1; i < plan->num_tasks; i++)
        if (by_document(&plan->tasks[i - 1], &plan->tasks[i], NULL) > 0) return 0;
    return 1;
}

static int on_grid(int64_t row, const data_piece_t *piece)
{
    return row % DATA_ROW_ALIGN == 0 || row == piece->doc_row ||
           row == piece->doc_row + piece->rows;
}

static base_status_t check_rows(const as_plan_t *plan, const as_task_t *task,
                                const data_batch_t *batch)
{
    if (task->piece < 0 || task->piece >= batch->num_pieces)
        return FAIL_PLAN(plan, TASK_FORMAT "piece %" PRId32 ", the layout has %" PRId32,
                         TASK_VALUES(plan, task), task->piece, batch->num_pieces);

    const data_piece_t *piece = &batch->pieces[task->piece];
    const int64_t piece_end = piece->doc_row + piece->rows;
    if (piece->document != task->document)
        return FAIL_PLAN(plan, TASK_FORMAT "piece %" PRId32 " is of document %" PRId32,
                         TASK_VALUES(plan, task), task->piece, piece->document);
    if (task->q0 >= task->q1 || task->q0 < piece->doc_row || task->q1 > piece_end)
        return FAIL_PLAN(
            plan, TASK_FORMAT "not within piece %" PRId32 ", rows [%" PRId64 ", %" PRId64 ")",
            TASK_VALUES(plan, task), task->piece, piece->doc_row, piece_end);
    if (!on_grid(task->q0, piece) || !on_grid(task->q1, piece))
        return FAIL_PLAN(
            plan,
            TASK_FORMAT
            "cut neither at a multiple of %d nor at an edge of the piece, rows [%" PRId64
            ", %" PRId64 ")",
            TASK_VALUES(plan, task), DATA_ROW_ALIGN, piece->doc_row, piece_end);
    return BASE_OK;
}

static base_status_t check_task(const as_plan_t *plan, const as_task_t *task,
                                const data_batch_t *batch, const as_topology_t *topology)
{
    BASE_TRY(check_rows(plan, task, batch));
    if (task->k0 != as_task_first_key(task->q0, plan->window))
        return FAIL_PLAN(plan,
                         TASK_FORMAT "first key %" PRId64 ", want %" PRId64 " with window %" PRId64,
                         TASK_VALUES(plan, task), task->k0,
                         as_task_first_key(task->q0, plan->window), plan->window);
    if (task->h0 < 0 || task->h0 >= task->h1 || task->h1 > plan->num_kv_heads)
        return FAIL_PLAN(plan, TASK_FORMAT "KV heads [%" PRId32 ", %" PRId32 ") of %" PRId32,
                         TASK_VALUES(plan, task), task->h0, task->h1, plan->num_kv_heads);
    if (task->retained != 0 && task->retained != 1)
        return FAIL_PLAN(plan, TASK_FORMAT "retained is %" PRId32 ", want 0 or 1",
                         TASK_VALUES(plan, task), task->retained);
    if (task->server < 0 || task->server >= topology->num_servers)
        return FAIL_PLAN(plan, TASK_FORMAT "server %" PRId32 ", there are %" PRId32,
                         TASK_VALUES(plan, task), task->server, topology->num_servers);

    const int32_t owner_rank = topology->trainer_rank[batch->pieces[task->piece].trainer];
    if (topology->placement == AS_LOCAL && topology->server_rank[task->server] != owner_rank)
        return FAIL_PLAN(plan,
                         TASK_FORMAT "on rank %" PRId32
                                     ", but placement local keeps them on rank %" PRId32,
                         TASK_VALUES(plan, task), topology->server_rank[task->server], owner_rank);
    return BASE_OK;
}

/* Tasks [first, end) are those of document d in ascending q0: exactly once is that, head by head,
 * each task begins where the one before ended. next[h] is the first row of head h that no task so
 * far has. */
static base_status_t check_cover(const as_plan_t *plan, const data_batch_t *batch, int32_t d,
                                 int32_t first, int32_t end)
{
    int64_t *next = plan->scratch;

    for (int32_t h = 0; h < plan->num_kv_heads; h++)
        next[h] = 0;
    for (int32_t i = first; i < end; i++) {
        const as_task_t *task = &plan->tasks[i];

        for (int32_t h = task->h0; h < task->h1; h++) {
            if (next[h] > task->q0)
                return FAIL_PLAN(
                    plan, TASK_FORMAT "KV head %" PRId32 " is in two tasks up to row %" PRId64,
                    TASK_VALUES(plan, task), h, next[h]);
            if (next[h] < task->q0)
                return FAIL_PLAN(plan,
                                 TASK_FORMAT "KV head %" PRId32 " of the rows before, from %" PRId64
                                             ", is in no task",
                                 TASK_VALUES(plan, task), h, next[h]);
            next[h] = task->q1;
        }
    }
    for (int32_t h = 0; h < plan->num_kv_heads; h++) {
        if (next[h] != batch->documents[d].rows)
            return FAIL_PLAN(plan,
                             "plan of microbatch %" PRId64 ": document %" PRId32 " rows [%" PRId64
                             ", %" PRId64 "): KV head %" PRId32 " is in no task",
                             plan->microbatch, d, next[h], batch->documents[d].rows, h);
    }
    return BASE_OK;
}

static uint64_t plan_hash(const as_plan_t *plan, const data_batch_t *batch,
                          const as_topology_t *topology)
{
    base_hash_t h = BASE_HASH_START;

    h = base_hash_u64(h, data_batch_hash(batch));
    h = base_hash_i64(h, topology->placement);
    h = base_hash_i64(h, topology->num_ranks);
    h = base_hash_i64(h, topology->num_hosts);
    for (int32_t r = 0; r < topology->num_ranks; r++) {
        h = base_hash_i64(h, topology->rank_host[r]);
        h = base_hash_i64(h, topology->rank_trainer[r]);
        h = base_hash_i64(h, topology->rank_server[r]);
    }
    h = base_hash_i64(h, plan->microbatch);
    h = base_hash_i64(h, plan->window);
    h = base_hash_i64(h, plan->num_kv_heads);
    h = base_hash_i64(h, plan->num_tasks);
    for (int32_t i = 0; i < plan->num_tasks; i++) {
        const as_task_t *t = &plan->tasks[i];

        /* The piece gives the document, q0 and the window give k0. */
        h = base_hash_u64(h, (uint64_t)t->piece << 32 | (uint32_t)t->server);
        h = base_hash_u64(h, (uint64_t)t->q0 << 32 | (uint64_t)t->q1);
        h = base_hash_u64(h, (uint64_t)t->h0 << 32 | (uint64_t)t->h1 << 1 | (uint32_t)t->retained);
    }
    return h;
}

base_status_t as_plan_finish(as_plan_t *plan, const data_batch_t *batch,
                             const as_topology_t *topology)
{
    if (!batch->finished)
        return BASE_FAIL(plan->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                         "plan of microbatch %" PRId64 ": the layout is not finished",
                         plan->microbatch);
    if (plan->microbatch != batch->microbatch || topology->num_trainers != batch->num_trainers)
        return FAIL_PLAN(plan,
                         "plan of microbatch %" PRId64 " with %" PRId32
                         " trainers: the layout is of microbatch %" PRId64 " with %" PRId32,
                         plan->microbatch, topology->num_trainers, batch->microbatch,
                         batch->num_trainers);
    if (!is_sorted(plan))
        base_sort(plan->tasks, plan->num_tasks, sizeof *plan->tasks, by_document, NULL);
    for (int32_t i = 0; i < plan->num_tasks; i++)
        BASE_TRY(check_task(plan, &plan->tasks[i], batch, topology));

    int32_t first = 0;
    for (int32_t d = 0; d < batch->num_documents; d++) {
        int32_t end = first;

        while (end < plan->num_tasks && plan->tasks[end].document == d)
            end++;
        BASE_TRY(check_cover(plan, batch, d, first, end));
        first = end;
    }
    plan->hash = plan_hash(plan, batch, topology);
    return BASE_OK;
}
