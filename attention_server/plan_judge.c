#include "attention_server/plan_judge.h"

#include "base/memory.h"

#include <string.h>

enum { RECEIVED, SENT, DIRECTIONS };

/* Keys of the document at hand that one server needs for one KV head. */
typedef struct need {
    int64_t k0, k1; /* k1 0: none */
    int32_t retained, half;
} need_t;

struct as_judge {
    base_ctx_t *ctx;
    as_machine_t machine;
    int32_t num_kv_heads;
    const as_cost_t *cost; /* of the run at hand */
    const data_batch_t *batch;
    int64_t *busy;             /* [pass][half][server], ns at speed one */
    int64_t *bytes;            /* [half][flow][tier][direction][rank] */
    int64_t *scratch, *retain; /* [rank] */
    need_t *needs;             /* [server][head], of the document at hand */
    int32_t *touched;          /* servers with needs */
    int32_t *is_touched;       /* [server] */
    int32_t num_touched;
};

/* ==== creation ==== */

void as_wire_seam(int32_t group, int32_t head_dim, int32_t real_bytes, int32_t acc_bytes,
                  int32_t grad_bytes, as_wire_t *wire)
{
    const int64_t q = (int64_t)group * head_dim * real_bytes, stat = (int64_t)group * acc_bytes;
    const int64_t kv = 2 * (int64_t)head_dim * real_bytes, dkv = 2 * (int64_t)head_dim * grad_bytes;

    *wire = (as_wire_t){
        .row = {{q, q}, {q + stat, q + stat}, {2 * q + 2 * stat, q + stat}, {q, q}},
        .key = {{kv, kv}, {0, 0}, {kv, 0}, {dkv, dkv}},
    };
}

base_status_t as_judge_create(base_ctx_t *ctx, const as_machine_t *machine, int32_t num_kv_heads,
                              as_judge_t **judge_p)
{
    const int32_t ranks = machine->topology->num_ranks, servers = machine->topology->num_servers;
    as_judge_t *j = base_calloc(ctx, 1, sizeof *j, "plan judge");

    if (j == NULL) return BASE_ERR_NOMEM;
    j->ctx = ctx;
    j->machine = *machine;
    j->num_kv_heads = num_kv_heads;
    if ((j->busy = base_calloc(ctx, (int64_t)servers * 4, sizeof(int64_t), "judge: busy")) ==
            NULL ||
        (j->bytes = base_calloc(ctx, (int64_t)ranks * 2 * AS_NUM_FLOWS * AS_NUM_TIERS * DIRECTIONS,
                                sizeof(int64_t), "judge: links")) == NULL ||
        (j->scratch = base_calloc(ctx, ranks, sizeof(int64_t), "judge: memory")) == NULL ||
        (j->retain = base_calloc(ctx, ranks, sizeof(int64_t), "judge: memory")) == NULL ||
        (j->needs = base_calloc(ctx, (int64_t)servers * num_kv_heads, sizeof *j->needs,
                                "judge: keys")) == NULL ||
        (j->touched = base_calloc(ctx, servers, sizeof(int32_t), "judge: servers")) == NULL ||
        (j->is_touched = base_calloc(ctx, servers, sizeof(int32_t), "judge: servers")) == NULL) {
        as_judge_destroy(j);
        return BASE_ERR_NOMEM;
    }
    *judge_p = j;
    return BASE_OK;
}

void as_judge_destroy(as_judge_t *judge)
{
    if (judge == NULL) return;
    base_free(judge->ctx, judge->is_touched);
    base_free(judge->ctx, judge->touched);
    base_free(judge->ctx, judge->needs);
    base_free(judge->ctx, judge->retain);
    base_free(judge->ctx, judge->scratch);
    base_free(judge->ctx, judge->bytes);
    base_free(judge->ctx, judge->busy);
    base_free(judge->ctx, judge);
}

/* ==== places of the numbers ==== */

static int64_t *busy_of(const as_judge_t *j, int pass, int half)
{
    return j->busy + (int64_t)(2 * pass + half) * j->machine.topology->num_servers;
}

static int64_t *bytes_of(const as_judge_t *j, int half, int flow, int tier, int direction)
{
    const int64_t row = ((half * AS_NUM_FLOWS + flow) * AS_NUM_TIERS + tier) * DIRECTIONS;

    return j->bytes + (row + direction) * j->machine.topology->num_ranks;
}

static void add_bytes(as_judge_t *j, int half, int flow, int32_t from, int32_t to, int64_t bytes)
{
    const int32_t *host = j->machine.topology->rank_host;
    const int tier = host[from] == host[to] ? AS_SAME_HOST : AS_OTHER_HOST;

    bytes_of(j, half, flow, tier, SENT)[from] += bytes;
    bytes_of(j, half, flow, tier, RECEIVED)[to] += bytes;
}

/* ==== keys ==== */

/* Keys of KV heads [h0, h1) that come from elsewhere: sent with the half in which they lie; their
 * gradients return with the half of the last task. */
static void send_keys(as_judge_t *j, int32_t document, int32_t server, const need_t *need,
                      int64_t heads)
{
    const as_topology_t *t = j->machine.topology;
    const as_wire_t *w = &j->machine.wire;
    const int32_t to = t->server_rank[server], r = need->retained;

    for (int32_t p = j->batch->document_piece[document]; p < j->batch->document_piece[document + 1];
         p++) {
        const data_piece_t *piece = &j->batch->pieces[p];
        const int64_t end = piece->doc_row + piece->rows;
        const int64_t k0 = need->k0 > piece->doc_row ? need->k0 : piece->doc_row;
        const int64_t k1 = need->k1 < end ? need->k1 : end;
        const int32_t from = t->trainer_rank[piece->trainer];
        const int64_t keys = (k1 - k0) * heads;

        if (k0 >= k1 || from == to) continue;
        add_bytes(j, piece->half, AS_FLOW_FWD_OUT, from, to, keys * w->key[AS_FLOW_FWD_OUT][r]);
        add_bytes(j, piece->half, AS_FLOW_BWD_OUT, from, to, keys * w->key[AS_FLOW_BWD_OUT][r]);
        if (!w->partial_per_task)
            add_bytes(j, need->half, AS_FLOW_BWD_BACK, to, from,
                      keys * w->key[AS_FLOW_BWD_BACK][r]);
    }
}

/* Heads that need the same keys go together. */
static void flush_server(as_judge_t *j, int32_t document, int32_t server)
{
    need_t *needs = j->needs + (int64_t)server * j->num_kv_heads;
    const int32_t rank = j->machine.topology->server_rank[server];
    int64_t lo = INT64_MAX, hi = 0;
    int32_t retained = 0, first = -1, last = 0; /* heads; a run holds all between */

    /* All of it is retained when one of its tasks is. */
    for (int32_t h = 0; h < j->num_kv_heads; h++)
        retained |= needs[h].retained;
    for (int32_t h = 0; h < j->num_kv_heads; h++)
        needs[h].retained = retained;
    for (int32_t h = 0; h < j->num_kv_heads;) {
        int32_t end = h + 1;

        while (end < j->num_kv_heads && needs[end].k0 == needs[h].k0 &&
               needs[end].k1 == needs[h].k1 && needs[end].half == needs[h].half)
            end++;
        if (needs[h].k1 > 0) {
            send_keys(j, document, server, &needs[h], end - h);
            lo = needs[h].k0 < lo ? needs[h].k0 : lo;
            hi = needs[h].k1 > hi ? needs[h].k1 : hi;
            if (first < 0) first = h;
            last = end;
        }
        h = end;
    }
    memset(needs, 0, (size_t)j->num_kv_heads * sizeof *needs);
    j->is_touched[server] = 0;
    if (hi == 0) return;
    const int64_t heads = last - first;
    *(retained ? &j->retain[rank] : &j->scratch[rank]) += (hi - lo) * heads *
                                                          j->machine.wire.key[AS_FLOW_FWD_OUT][0] *
                                                          (retained ? j->machine.num_layers : 1);
    if (!j->machine.wire.partial_per_task)
        j->scratch[rank] += (hi - lo) * heads * j->machine.wire.key[AS_FLOW_BWD_BACK][0];
}

static void flush_document(as_judge_t *j, int32_t document)
{
    for (int32_t i = 0; i < j->num_touched; i++)
        flush_server(j, document, j->touched[i]);
    j->num_touched = 0;
}

static void need_keys(as_judge_t *j, const as_task_t *task, int32_t half)
{
    need_t *needs = j->needs + (int64_t)task->server * j->num_kv_heads;

    if (!j->is_touched[task->server]) {
        j->is_touched[task->server] = 1;
        j->touched[j->num_touched++] = task->server;
    }
    for (int32_t h = task->h0; h < task->h1; h++) {
        need_t *n = &needs[h];

        /* A window may leave a gap: another run. */
        if (n->k1 > 0 && task->k0 >= n->k1) {
            send_keys(j, task->document, task->server, n, 1);
            *n = (need_t){0};
        }
        if (n->k1 == 0) *n = (need_t){task->k0, task->q1, 0, 0};
        if (task->k0 < n->k0) n->k0 = task->k0;
        if (task->q1 > n->k1) n->k1 = task->q1;
        n->retained |= task->retained;
        n->half = half;
    }
}

/* ==== tasks ==== */

/* Rows are charged in multiples of row_grain from the task's first row on. */
static int64_t own_grid_ns(const as_cost_t *c, as_cost_kind_t kind, const as_task_t *t)
{
    int64_t end = t->q0 + (t->q1 - t->q0 + c->row_grain - 1) / c->row_grain * c->row_grain;

    if (end > c->num_tile_rows * DATA_ROW_ALIGN) end = c->num_tile_rows * DATA_ROW_ALIGN;
    int64_t ns = as_cost_before(c, kind, end) - as_cost_before(c, kind, t->q0);
    /* Tiles from q0 on: only the last one may hold rows that are not there. */
    const int64_t tail = (end - t->q0) % DATA_ROW_ALIGN;
    if (c->has_idle && tail != 0)
        ns += as_cost_idle(c, kind, as_tile_floor(end - 1) * DATA_ROW_ALIGN,
                           as_tile_floor(end - 1) * DATA_ROW_ALIGN + tail);
    return c->task_ns[kind] + ns * (t->h1 - t->h0);
}

static void add_task(as_judge_t *j, const as_task_t *task, int own_grid)
{
    const as_topology_t *t = j->machine.topology;
    const as_wire_t *w = &j->machine.wire;
    const data_piece_t *piece = &j->batch->pieces[task->piece];
    const int32_t owner = t->trainer_rank[piece->trainer], server = t->server_rank[task->server];
    const int64_t rows = (task->q1 - task->q0) * (task->h1 - task->h0);

    for (int pass = 0; pass < 2; pass++)
        busy_of(j, pass, piece->half)[task->server] +=
            own_grid ? own_grid_ns(j->cost, (as_cost_kind_t)pass, task)
                     : as_cost_task(j->cost, (as_cost_kind_t)pass, task);
    if (w->partial_per_task)
        j->scratch[server] +=
            (task->q1 - task->k0) * (task->h1 - task->h0) * w->key[AS_FLOW_BWD_BACK][0];
    if (owner != server || task->k0 < piece->doc_row) need_keys(j, task, piece->half);
    if (owner == server) return;

    const int32_t r = task->retained;
    for (int flow = 0; flow < AS_NUM_FLOWS; flow++) {
        const int out = flow == AS_FLOW_FWD_OUT || flow == AS_FLOW_BWD_OUT;

        add_bytes(j, piece->half, flow, out ? owner : server, out ? server : owner,
                  rows * w->row[flow][r]);
    }
    /* q, o or dq, d_o and two statistics, as the seam stages them (runs.c). */
    const int64_t kept = w->row[AS_FLOW_BWD_OUT][0] - w->row[AS_FLOW_BWD_OUT][1];
    j->scratch[server] += rows * (w->row[AS_FLOW_BWD_OUT][r] + w->row[AS_FLOW_FWD_OUT][0]);
    if (r) j->retain[server] += rows * kept * j->machine.num_layers;
}

/* With partial_per_task: dk and dv of one task, over all keys that it holds. */
static void send_partials(as_judge_t *j, const as_task_t *task)
{
    const as_topology_t *t = j->machine.topology;
    const int64_t lane = j->machine.wire.key[AS_FLOW_BWD_BACK][0] * (task->h1 - task->h0);
    const int32_t from = t->server_rank[task->server];

    for (int32_t p = j->batch->document_piece[task->document]; p <= task->piece; p++) {
        const data_piece_t *piece = &j->batch->pieces[p];
        const int64_t end = piece->doc_row + piece->rows;
        const int64_t k0 = task->k0 > piece->doc_row ? task->k0 : piece->doc_row;
        const int64_t k1 = task->q1 < end ? task->q1 : end;
        const int32_t to = t->trainer_rank[piece->trainer];

        if (k0 >= k1 || from == to) continue;
        add_bytes(j, j->batch->pieces[task->piece].half, AS_FLOW_BWD_BACK, from, to,
                  (k1 - k0) * lane);
        j->scratch[to] += (k1 - k0) * lane;
    }
}

/* ==== the whole ==== */

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t as_at_speed(int64_t ns, int64_t speed)
{
    return ns / speed * AS_SPEED_ONE + (ns % speed * AS_SPEED_ONE + speed - 1) / speed;
}

static int64_t speed_of(const as_machine_t *m, int32_t server)
{
    return m->speed != NULL ? m->speed[server] : AS_SPEED_ONE;
}

/* The dearest rows between two places where a piece may be cut: its last ones, or the tile row
 * before them. */
static int64_t dearest_rows(const as_cost_t *cost, as_cost_kind_t kind, const data_piece_t *piece)
{
    int64_t end = piece->doc_row + piece->rows, most = 0;

    for (int i = 0; i < 2 && end > piece->doc_row; i++) {
        const int64_t row = max_i64((end - 1) / DATA_ROW_ALIGN * DATA_ROW_ALIGN, piece->doc_row);

        most = max_i64(most, as_cost_rows(cost, kind, row, end));
        end = row;
    }
    return most;
}

void as_bounds_of(const as_machine_t *machine, const as_cost_t *cost, int32_t num_kv_heads,
                  const data_batch_t *batch, as_bounds_t *bounds)
{
    int64_t speeds = 0, fastest = 0, last = 0;
    int32_t dearest = 0;

    for (int32_t s = 0; s < machine->topology->num_servers; s++) {
        speeds += speed_of(machine, s);
        fastest = max_i64(fastest, speed_of(machine, s));
    }
    /* Among pieces of a tile row or more the one that ends last has the dearest rows; without a
     * window the first that ends there serves. */
    for (int32_t p = 0; p < batch->num_pieces; p++) {
        const int64_t end = batch->pieces[p].doc_row + batch->pieces[p].rows;

        if (end > last && batch->pieces[p].rows >= 2 * DATA_ROW_ALIGN) {
            last = end;
            dearest = p;
        }
    }
    for (int kind = 0; kind < AS_COST_KINDS; kind++) {
        const as_cost_kind_t k = (as_cost_kind_t)kind;
        int64_t total = 0;

        if (kind < AS_COST_BOTH)
            for (int32_t d = 0; d < batch->num_documents; d++)
                total += as_cost_rows(cost, k, 0, batch->documents[d].rows);
        else
            total = (bounds->ns[AS_COST_FORWARD] + bounds->ns[AS_COST_BACKWARD]);
        bounds->ns[kind] = kind < AS_COST_BOTH ? total * num_kv_heads : total;
    }
    for (int kind = 0; kind < AS_COST_KINDS; kind++)
        bounds->ns[kind] =
            max_i64(as_at_speed(bounds->ns[kind], speeds),
                    as_at_speed(dearest_rows(cost, (as_cost_kind_t)kind, &batch->pieces[dearest]),
                                fastest));
}

/* The rank whose exchange takes longest; links of different tiers and directions work at once. */
static int64_t flow_ns(const as_judge_t *j, int half, int flow)
{
    int64_t most = 0;

    for (int tier = 0; tier < AS_NUM_TIERS; tier++)
        for (int direction = 0; direction < DIRECTIONS; direction++)
            for (int32_t r = 0; r < j->machine.topology->num_ranks; r++)
                most = max_i64(most, bytes_of(j, half, flow, tier, direction)[r] / 1024 *
                                         j->machine.link_ps_per_kib[tier] / 1000);
    return most;
}

/* The model of the header. `first` is the half that is served first. */
static int64_t pass_ns(const as_judge_t *j, int pass)
{
    const int a = pass == 0 ? DATA_PING : DATA_PONG, b = 1 - a;
    const int out = pass == 0 ? AS_FLOW_FWD_OUT : AS_FLOW_BWD_OUT, back = out + 1;
    const int64_t dense = j->machine.dense_ns[pass];
    const int64_t in_a = dense + flow_ns(j, a, out);
    const int64_t in_b = max_i64(2 * dense, in_a) + flow_ns(j, b, out);
    int64_t done_a = 0, done_b = 0;

    for (int32_t s = 0; s < j->machine.topology->num_servers; s++) {
        const int64_t speed = speed_of(&j->machine, s);
        const int64_t end_a = max_i64(2 * dense, in_a) + as_at_speed(busy_of(j, pass, a)[s], speed);
        const int64_t end_b = max_i64(end_a, in_b) + as_at_speed(busy_of(j, pass, b)[s], speed);

        done_a = max_i64(done_a, end_a);
        done_b = max_i64(done_b, end_b);
    }
    const int64_t home_a = max_i64(done_a, in_b) + flow_ns(j, a, back);
    const int64_t home_b = max_i64(done_b, home_a) + flow_ns(j, b, back);

    return max_i64(max_i64(done_b, home_a), home_b - dense);
}

static void score_links(const as_judge_t *j, as_score_t *score)
{
    for (int32_t r = 0; r < j->machine.topology->num_ranks; r++) {
        int64_t duplex = 0;

        for (int direction = 0; direction < DIRECTIONS; direction++) {
            int64_t all = 0, network = 0;

            for (int flow = 0; flow < AS_NUM_FLOWS; flow++) {
                int64_t bytes = 0;

                for (int half = 0; half < DATA_NUM_HALVES; half++)
                    for (int tier = 0; tier < AS_NUM_TIERS; tier++)
                        bytes += bytes_of(j, half, flow, tier, direction)[r];
                for (int half = 0; half < DATA_NUM_HALVES; half++)
                    network += bytes_of(j, half, flow, AS_OTHER_HOST, direction)[r];
                score->flow_bytes[flow] = max_i64(score->flow_bytes[flow], bytes);
                all += bytes;
            }
            if (direction == SENT) score->total_bytes += all;
            score->link_bytes = max_i64(score->link_bytes, all);
            score->network_bytes = max_i64(score->network_bytes, network);
            duplex += all;
        }
        score->duplex_bytes = max_i64(score->duplex_bytes, duplex);
    }
}

static int fits(const as_judge_t *j)
{
    const as_machine_t *m = &j->machine;

    for (int32_t s = 0; s < m->topology->num_servers; s++) {
        const int32_t r = m->topology->server_rank[s];

        if (m->scratch_bytes != NULL && j->scratch[r] > m->scratch_bytes[s]) return 0;
        if (m->retain_bytes != NULL && j->retain[r] > m->retain_bytes[s]) return 0;
    }
    return 1;
}

static void clear(as_judge_t *j)
{
    const as_topology_t *t = j->machine.topology;
    const size_t ranks = (size_t)t->num_ranks * sizeof(int64_t);

    memset(j->busy, 0, (size_t)t->num_servers * 4 * sizeof(int64_t));
    memset(j->bytes, 0, ranks * 2 * AS_NUM_FLOWS * AS_NUM_TIERS * DIRECTIONS);
    memset(j->scratch, 0, ranks);
    memset(j->retain, 0, ranks);
    j->num_touched = 0;
}

void as_judge_run(as_judge_t *j, const as_cost_t *cost, const data_batch_t *batch,
                  const as_bounds_t *bounds, const as_task_t *tasks, int32_t num_tasks,
                  int own_grid, as_score_t *score)
{
    const as_topology_t *t = j->machine.topology;

    clear(j);
    *score = (as_score_t){.num_tasks = num_tasks};
    j->cost = cost;
    j->batch = batch;
    for (int32_t i = 0; i < num_tasks; i++) {
        if (i > 0 && tasks[i].document != tasks[i - 1].document)
            flush_document(j, tasks[i - 1].document);
        add_task(j, &tasks[i], own_grid);
        if (t->server_rank[tasks[i].server] !=
            t->trainer_rank[batch->pieces[tasks[i].piece].trainer])
            score->num_remote++;
        if (j->machine.wire.partial_per_task) send_partials(j, &tasks[i]);
    }
    if (num_tasks > 0) flush_document(j, tasks[num_tasks - 1].document);

    for (int32_t s = 0; s < t->num_servers; s++)
        score->compute_ns = max_i64(score->compute_ns, as_judge_server_ns(j, s));
    score->bound_ns = bounds->ns[AS_COST_BOTH];
    for (int pass = 0; pass < 2; pass++) {
        score->pass_ns[pass] = pass_ns(j, pass);
        score->pass_bound_ns[pass] = 2 * j->machine.dense_ns[pass] + bounds->ns[pass];
    }
    score_links(j, score);
    for (int32_t r = 0; r < t->num_ranks; r++) {
        score->scratch_bytes = max_i64(score->scratch_bytes, j->scratch[r]);
        score->retain_bytes = max_i64(score->retain_bytes, j->retain[r]);
    }
    score->fits = fits(j);
}

/* ==== looking ==== */

int64_t as_judge_server_ns(const as_judge_t *j, int32_t server)
{
    int64_t ns = 0;

    for (int pass = 0; pass < 2; pass++)
        for (int half = 0; half < DATA_NUM_HALVES; half++)
            ns += busy_of(j, pass, half)[server];
    return as_at_speed(ns, speed_of(&j->machine, server));
}

int64_t as_judge_link_bytes(const as_judge_t *j, int32_t rank, int sent)
{
    int64_t bytes = 0;

    for (int half = 0; half < DATA_NUM_HALVES; half++)
        for (int flow = 0; flow < AS_NUM_FLOWS; flow++)
            for (int tier = 0; tier < AS_NUM_TIERS; tier++)
                bytes += bytes_of(j, half, flow, tier, sent ? SENT : RECEIVED)[rank];
    return bytes;
}

int64_t as_judge_scratch_bytes(const as_judge_t *j, int32_t rank)
{
    return j->scratch[rank];
}

int64_t as_judge_retain_bytes(const as_judge_t *j, int32_t rank)
{
    return j->retain[rank];
}
