/* The plan of last resort, and what it takes at most. */
#include "attention_server/plan_work.h"
#include "attention_server/schedule.h"

base_status_t as_plan_home(as_planner_t *p, as_plan_t *plan)
{
    const int64_t window = p->config.cost->window;

    BASE_TRY(as_plan_begin(plan, p->batch->microbatch, window, p->config.num_kv_heads));
    for (int32_t i = 0; i < p->batch->num_pieces; i++) {
        const data_piece_t *piece = &p->batch->pieces[i];
        const as_task_t task = {.document = piece->document,
                                .piece = i,
                                .server = p->trainer_nearest[piece->trainer],
                                .h1 = p->config.num_kv_heads,
                                .q0 = piece->doc_row,
                                .q1 = piece->doc_row + piece->rows,
                                .k0 = as_task_first_key(piece->doc_row, window)};

        BASE_TRY(as_plan_add(plan, &task));
    }
    return BASE_OK;
}

/* Most trainers whose rows one server has. */
static int64_t most_trainers(const as_planner_t *p)
{
    const as_topology_t *t = p->config.machine->topology;
    int64_t most = 0;

    for (int32_t s = 0; s < t->num_servers; s++) {
        int64_t trainers = 0;

        for (int32_t i = 0; i < t->num_trainers; i++)
            trainers += p->trainer_nearest[i] == s;
        most = as_most(most, trainers);
    }
    return most;
}

/* With n trainers on a server, M rows of a half, documents of at most L rows (lora/pack_fast.c):
 *
 * - Pieces that do not begin their document: at a trainer's edge in each half, and the tail of the
 *   one document that spans; so at most X = 3 a trainer, 1 when trainers share no document. In the
 *   same way at most X have rows of their document after them. Tasks with no such piece hold their
 *   own rows as keys, those with one at most L.
 * - Partial sums: one for each key of each task: 2 n M + X n L.
 * - Runs: in place only tasks with such a piece need one: X n L keys. In a pool all: 2 n M more.
 * - What a server sends of dk and dv (sums_per_server): its runs at most.
 * - What an owner receives of them: rows r <= m of a piece from each later piece of the document. It
 *   has at most L / m + 4 pieces where a trainer has m rows: r (L / m + 4) <= L + 4 M for each of X
 *   pieces. In a pool 2 M more, its own tasks' own rows.
 * - Each staged area is rounded up to AS_ALIGN: of a task 7, of runs and sums 2 for each piece of
 *   the batch and run, of what is received 2 for each own piece and X (L / m + 4).
 *
 * A window only takes keys away; a document's runs are then several, disjoint, one a task at most. */
as_home_bytes_t as_planner_home_bytes(const as_planner_t *p, int64_t longest, int64_t max_rows)
{
    const as_machine_t *m = p->config.machine;
    const as_topology_t *t = m->topology;
    const as_wire_t *w = &m->wire;
    const int pool = t->placement == AS_POOL;
    const int64_t x = t->num_trainers == 1 || t->placement == AS_LOCAL ? 1 : 3;
    const int64_t n = most_trainers(p), heads = p->config.num_kv_heads;
    const int64_t rows = 2 * n * max_rows, cut = x * n * longest;
    const int64_t keys = cut + (pool ? rows : 0);
    const int64_t received =
        (t->num_ranks == 1 || t->placement == AS_LOCAL ? 0 : x * (longest + 4 * max_rows)) +
        (pool ? 2 * max_rows : 0);
    const int64_t areas =
        16 * (int64_t)p->config.max_pieces + 2 * x * (longest / DATA_ROW_ALIGN + 4);
    const int64_t q = w->row[AS_FLOW_FWD_OUT][0], stat = w->row[AS_FLOW_FWD_BACK][0] - q;
    const int64_t grad = w->key[AS_FLOW_BWD_BACK][0];
    int64_t server = (rows + cut) * heads * w->partial + keys * heads * w->key[AS_FLOW_FWD_OUT][0];
    int64_t owner = received * heads * grad;

    if (pool) server += rows * heads * (3 * q + 2 * stat);
    if (!w->partial_per_task && t->num_ranks > 1) server += keys * heads * grad;
    if (!pool) server += owner;
    return (as_home_bytes_t){.server = as_page(server + areas * AS_ALIGN),
                             .trainer = pool ? as_page(owner + areas * AS_ALIGN) : 0};
}
