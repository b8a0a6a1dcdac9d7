#include "attention_server/plan.h"

#include "base/sort.h"

#include <inttypes.h>

/* Tasks of a half per trainer, about. More give a better balance, fewer give larger tasks and fewer
 * partial sums of dk and dv. */
#define TASKS_PER_TRAINER 4

static int64_t div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static as_task_t make_task(const as_plan_options_t *options, const data_batch_t *batch,
                           int32_t piece, int64_t q0, int64_t q1)
{
    return (as_task_t){
        .document = batch->pieces[piece].document,
        .piece = piece,
        .server = 0,
        .h0 = 0,
        .h1 = options->num_kv_heads,
        .retained = options->retain != 0,
        .q0 = q0,
        .q1 = q1,
        .k0 = as_task_first_key(q0, options->window),
    };
}

static void count_pairs(const as_plan_options_t *options, const data_batch_t *batch,
                        int64_t pairs[DATA_NUM_HALVES])
{
    pairs[DATA_PING] = pairs[DATA_PONG] = 0;
    for (int32_t i = 0; i < batch->num_pieces; i++) {
        const data_piece_t *p = &batch->pieces[i];
        const as_task_t all = make_task(options, batch, i, p->doc_row, p->doc_row + p->rows);

        pairs[p->half] += as_task_pairs(&all, options->window);
    }
}

/* Tasks take as many tiles as stay within `limit`. Two neighbours of a piece together exceed it, so
 * that a half has fewer than 2 pairs / limit cuts: with limit >= pairs / (4 trainers) fewer than 8
 * trainers, the bound that plan.h states. */
static base_status_t cut_piece(const as_plan_options_t *options, const data_batch_t *batch,
                               int32_t piece, int64_t limit, as_plan_t *plan)
{
    const int64_t end = batch->pieces[piece].doc_row + batch->pieces[piece].rows;
    int64_t q0 = batch->pieces[piece].doc_row;

    while (q0 < end) {
        as_task_t task = make_task(options, batch, piece, q0, q0);

        for (;;) {
            as_task_t longer = task;

            longer.q1 = (task.q1 / DATA_ROW_ALIGN + 1) * DATA_ROW_ALIGN;
            if (longer.q1 > end) longer.q1 = end;
            if (task.q1 > q0 && (task.q1 == end || as_task_pairs(&longer, options->window) > limit))
                break;
            task = longer;
        }
        BASE_TRY(as_plan_add(plan, &task));
        q0 = task.q1;
    }
    return BASE_OK;
}

typedef struct order {
    const data_batch_t *batch;
    int64_t window;
} order_t;

/* By half, then longest first; ties in the order of the rows. */
static int by_pairs(const void *a, const void *b, const void *arg)
{
    const order_t *order = arg;
    const data_piece_t *pieces = order->batch->pieces;
    const as_task_t *x = a, *y = b;
    int c = base_compare_i64(pieces[x->piece].half, pieces[y->piece].half);

    if (c == 0)
        c = base_compare_i64(as_task_pairs(y, order->window), as_task_pairs(x, order->window));
    if (c == 0) c = base_compare_i64(x->document, y->document);
    return c != 0 ? c : base_compare_i64(x->q0, y->q0);
}

/* The server of one task; `mean` is what each server would have in perfect balance, rounded up. */
static int32_t choose_server(const as_topology_t *topology, int32_t trainer, int64_t pairs,
                             int64_t mean, const int64_t *load)
{
    const int32_t own = topology->rank_server[topology->trainer_rank[trainer]];
    int32_t least = 0;

    if (own >= 0 && (topology->placement == AS_LOCAL || load[own] + pairs <= mean)) return own;
    for (int32_t s = 1; s < topology->num_servers; s++) {
        if (load[s] < load[least]) least = s;
    }
    /* Among equals the own server: nothing has to travel. */
    return own >= 0 && load[own] == load[least] ? own : least;
}

static void assign_half(const data_batch_t *batch, const as_topology_t *topology, int32_t half,
                        int64_t pairs, as_plan_t *plan)
{
    const int64_t mean = div_up(pairs, topology->num_servers);
    int64_t *load = plan->scratch;

    for (int32_t s = 0; s < topology->num_servers; s++)
        load[s] = 0;
    for (int32_t i = 0; i < plan->num_tasks; i++) {
        as_task_t *task = &plan->tasks[i];
        const data_piece_t *piece = &batch->pieces[task->piece];

        if (piece->half != half) continue;
        const int64_t work = as_task_pairs(task, plan->window);
        task->server = choose_server(topology, piece->trainer, work, mean, load);
        load[task->server] += work;
    }
}

base_status_t as_plan_token(base_ctx_t *ctx, const as_plan_options_t *options,
                            const data_batch_t *batch, const as_topology_t *topology,
                            as_plan_t *plan)
{
    const order_t order = {.batch = batch, .window = options->window};
    const int64_t max_tasks = TASKS_PER_TRAINER * (int64_t)batch->num_trainers;
    int64_t pairs[DATA_NUM_HALVES];

    if (!batch->finished || topology->num_trainers != batch->num_trainers)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "microbatch %" PRId64 ": %s layout of %" PRId32 " trainers, want %" PRId32,
                         batch->microbatch, batch->finished ? "finished" : "unfinished",
                         batch->num_trainers, topology->num_trainers);
    BASE_TRY(as_plan_begin(plan, batch->microbatch, options->window, options->num_kv_heads));
    BASE_TRY(as_plan_reserve(plan, topology->num_servers));

    count_pairs(options, batch, pairs);
    for (int32_t i = 0; i < batch->num_pieces; i++) {
        const int64_t limit = div_up(pairs[batch->pieces[i].half], max_tasks);

        BASE_TRY(cut_piece(options, batch, i, limit, plan));
    }
    base_sort(plan->tasks, plan->num_tasks, sizeof *plan->tasks, by_pairs, &order);
    for (int32_t half = 0; half < DATA_NUM_HALVES; half++)
        assign_half(batch, topology, half, pairs[half], plan);
    return as_plan_finish(plan, batch, topology);
}
