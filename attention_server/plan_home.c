/* The plan of last resort, and what it takes at most. */
#include "attention_server/plan_work.h"
#include "attention_server/schedule.h"

/* Where cuts follow the servers plans are made again for less, so that hardly any is replaced. Where
 * they follow the layout they are not, and are of many tasks, which leave partial sums over the same
 * keys: twice the bound and more. The test has layouts of both, none of which is replaced. Local
 * servers and one rank gain nothing by more. */
#define STAGING_PER_CENT        125
#define STAGING_LAYOUT_PER_CENT 300

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

/* Rows of each kind that a plan of last resort holds at most. */
typedef struct home_rows {
    int64_t partial; /* keys of all tasks */
    int64_t keys;    /* of runs */
    int64_t sent;    /* of runs, that belong to other ranks */
    int64_t staged;  /* queries of others */
} home_rows_t;

/* Streams of at most M rows a trainer, `count` trainers that share them, documents of at most L rows;
 * trainers and servers on how many ranks. */
typedef struct home_layout {
    int64_t max_rows, longest, count, servers;
    int pool, per_task;
} home_layout_t;

static home_layout_t layout_of(const as_planner_t *p, int64_t longest, int64_t max_rows)
{
    const as_topology_t *t = p->config.machine->topology;

    return (home_layout_t){.max_rows = max_rows,
                           .longest = longest,
                           .count = t->placement == AS_LOCAL ? 1 : t->num_trainers,
                           .servers = t->num_servers,
                           .pool = t->placement == AS_POOL,
                           .per_task = p->config.machine->wire.partial_per_task};
}

/* What the trainer at `place` of the streams adds to the rows of its server. Layouts of
 * lora/pack_fast.c: both streams are cut at the trainers' edges, and one document may span, its tail
 * beginning anywhere in pong.
 *
 * Only a trainer's first piece of a half has keys on trainers before it: in ping as many as lie
 * before it, in pong a spanning document's head too. On the one trainer where a tail begins two
 * pieces of pong have some: its first, of a document in pong, and the tail, which has the head.
 * `more` is by how much that is more.
 *
 * - Keys of tasks: the trainer's own rows and those before. In a pool every task needs a run, in
 *   place those whose first keys are elsewhere. A window only takes keys away.
 * - A server's runs are disjoint rows of the streams: all of ping, pong up to its last trainer. */
static void add_trainer(const home_layout_t *l, int64_t place, home_rows_t *rows, home_rows_t *more)
{
    const int64_t m = l->max_rows, most = l->longest, n = l->count;
    const int64_t ping = as_least(most, place * m), pong = as_least(most, (n + place) * m);
    const int64_t tail = as_most(0, ping + as_least(most, n * m) - pong);
    const int64_t ping_run = place > 0 ? as_least(most, (place + 1) * m) : 0;
    const int64_t pong_run = as_least(most, (n + place + 1) * m);
    const int64_t tail_run = as_most(0, ping_run + as_least(most, (n + 1) * m) - pong_run);

    rows->partial += 2 * m + ping + pong;
    rows->keys += l->pool ? 2 * m + ping + pong : ping_run + pong_run;
    rows->sent += l->pool ? 2 * m + ping + pong : ping + pong;
    rows->staged += l->pool ? 2 * m : 0;
    more->partial = as_most(more->partial, tail);
    more->keys = as_most(more->keys, l->pool ? tail : tail_run);
    more->sent = as_most(more->sent, tail);
}

static home_rows_t server_rows(const as_planner_t *p, const home_layout_t *l, int32_t server)
{
    const int32_t trainers = p->config.machine->topology->num_trainers;
    home_rows_t rows = {0}, more = {0};
    int64_t last = 0;

    for (int32_t t = 0; t < trainers; t++) {
        const int64_t place = l->count == 1 ? 0 : t;

        if (p->trainer_nearest[t] != server) continue;
        add_trainer(l, place, &rows, &more);
        last = as_most(last, place);
    }
    const int64_t streams = (l->count + last + 1) * l->max_rows;
    const int64_t own = l->pool ? 0 : 2 * l->max_rows;

    rows.partial += more.partial;
    rows.keys = as_least(rows.keys + more.keys, streams);
    rows.sent = as_least(rows.sent + more.sent, streams - own);
    return rows;
}

/* What the trainer at `place` receives of dk and dv: each of its rows as often as there are tasks,
 * or servers, of its document's later rows (in a pool also of the piece itself) on other ranks. Two
 * bounds:
 *
 * - Of ping the trainers after it and all of pong's; of pong the trainers after it.
 * - At most three pieces have later rows elsewhere: the last of each half and a head that ends here.
 *   All later pieces but three are m rows long, one of these three where the document does not span.
 *   So r rows are received at most (L - r) / m + 1 times, of a head + 3: r <= m, so L rows in all,
 *   L + 2 m of a head. */
static int64_t received_rows(const home_layout_t *l, int64_t place)
{
    const int64_t m = l->max_rows, n = l->count, self = l->pool;
    const int64_t after = n - place - 1 + self, all = n - 1 + self;
    int64_t times = l->per_task ? after + all + after : all + after;

    if (!l->per_task && l->pool) times = as_least(all, l->servers) + as_least(after, l->servers);
    if (n == 1) return times * m;
    return as_least(times * m, 3 * l->longest + 2 * m + self * 2 * m);
}

/* Each staged area is rounded up to AS_ALIGN: of a task 7, of runs and sums 2 for each piece of the
 * batch and run, of what is received 2 for each own piece and each piece after one of three. */
static int64_t areas_of(const as_planner_t *p, const home_layout_t *l)
{
    return 16 * (int64_t)p->config.max_pieces +
           2 * 3 * as_least(l->longest / DATA_ROW_ALIGN + 4, 2 * l->count);
}

as_home_bytes_t as_planner_home_bytes(const as_planner_t *p, int64_t longest, int64_t max_rows)
{
    const as_machine_t *m = p->config.machine;
    const as_topology_t *t = m->topology;
    const as_wire_t *w = &m->wire;
    const home_layout_t l = layout_of(p, longest, max_rows);
    const int64_t heads = p->config.num_kv_heads, areas = areas_of(p, &l) * AS_ALIGN;
    const int64_t q = w->row[AS_FLOW_FWD_OUT][0], stat = w->row[AS_FLOW_FWD_BACK][0] - q;
    const int64_t grad = w->key[AS_FLOW_BWD_BACK][0];
    int64_t server = 0, trainer = 0;

    for (int32_t s = 0; s < t->num_servers; s++) {
        const home_rows_t rows = server_rows(p, &l, s);
        int64_t bytes = rows.partial * w->partial + rows.keys * w->key[AS_FLOW_FWD_OUT][0] +
                        rows.staged * (3 * q + 2 * stat);

        if (!l.per_task) bytes += rows.sent * grad;
        if (!l.pool) bytes += received_rows(&l, l.count == 1 ? 0 : s) * grad;
        server = as_most(server, bytes);
    }
    for (int32_t i = 0; i < t->num_trainers && l.pool; i++)
        trainer = as_most(trainer, received_rows(&l, i) * grad);
    return (as_home_bytes_t){.server = as_page(server * heads + areas),
                             .trainer = l.pool ? as_page(trainer * heads + areas) : 0};
}

as_home_bytes_t as_planner_staging_bytes(const as_planner_t *p, int64_t longest, int64_t max_rows)
{
    const as_topology_t *t = p->config.machine->topology;
    const int layout =
        !p->config.cuts_follow_servers && t->placement != AS_LOCAL && t->num_ranks > 1;
    const int64_t per_cent = layout ? STAGING_LAYOUT_PER_CENT : STAGING_PER_CENT;
    const as_home_bytes_t most = as_planner_home_bytes(p, longest, max_rows);

    return (as_home_bytes_t){.server = as_page(most.server * per_cent / 100),
                             .trainer = as_page(most.trainer * per_cent / 100)};
}
