/* What a plan moves and what memory it takes, of all ranks at once. The same as the schedules of the
 * ranks (runs.c, transfers.c, partials.c, grads.c), byte for byte; a test compares them. */
#include "attention_server/plan_judge_state.h"
#include "attention_server/schedule.h"

#include <string.h>

static void add_bytes(as_judge_t *j, int half, int flow, int32_t from, int32_t to, int64_t bytes)
{
    const int32_t *host = j->machine.topology->rank_host;
    const int tier = host[from] == host[to] ? AS_SAME_HOST : AS_OTHER_HOST;

    as_judge_bytes_of(j, half, flow, tier, AS_SENT)[from] += bytes;
    as_judge_bytes_of(j, half, flow, tier, AS_RECEIVED)[to] += bytes;
}

/* k and v, or dk and dv, of which `lane` bytes a row and head are given: two areas. */
static int64_t pair_bytes(int64_t rows, int64_t heads, int64_t lane)
{
    return 2 * as_align(rows * heads * (lane / 2));
}

/* ==== keys, and a server's sums of their gradients ==== */

/* Keys of KV heads [h0, h0 + heads) that come from elsewhere. */
static void send_keys(as_judge_t *j, int32_t document, int32_t server, const as_judge_need_t *need,
                      int64_t heads)
{
    const as_topology_t *t = j->machine.topology;
    const as_wire_t *w = &j->machine.wire;
    const int32_t to = t->server_rank[server], r = j->runs[server].retained;

    for (int32_t p = j->batch->document_piece[document]; p < j->batch->document_piece[document + 1];
         p++) {
        const data_piece_t *piece = &j->batch->pieces[p];
        const int64_t row0 = as_max(need->row0, piece->doc_row),
                      row1 = as_min(need->row1, piece->doc_row + piece->rows);
        const int32_t from = t->trainer_rank[piece->trainer];
        const int64_t keys = (row1 - row0) * heads;

        if (row0 >= row1 || from == to) continue;
        add_bytes(j, piece->half, AS_FLOW_FWD_OUT, from, to, keys * w->key[AS_FLOW_FWD_OUT][r]);
        add_bytes(j, piece->half, AS_FLOW_BWD_OUT, from, to, keys * w->key[AS_FLOW_BWD_OUT][r]);
        if (w->partial_per_task) continue;
        const int64_t lane = w->key[AS_FLOW_BWD_BACK][r];

        add_bytes(j, need->has_ping ? piece->half : DATA_PONG, AS_FLOW_BWD_BACK, to, from,
                  keys * lane);
        j->scratch[from] += pair_bytes(row1 - row0, heads, lane);
        j->scratch[to] += pair_bytes(row1 - row0, heads, lane);
    }
}

static int is_same(const as_judge_need_t *a, const as_judge_need_t *b)
{
    return a->row0 == b->row0 && a->row1 == b->row1 && a->has_ping == b->has_ping;
}

static void end_run(as_judge_t *j, int32_t document, int32_t server)
{
    as_judge_need_t *needs = j->needs + (int64_t)server * j->num_kv_heads;
    as_judge_run_t *run = &j->runs[server];
    const int32_t rank = j->machine.topology->server_rank[server];
    const int64_t *lane = j->machine.wire.key[AS_FLOW_FWD_OUT];

    if (run->k1 == 0) return;
    for (int32_t h = run->h0, end; h < run->h1; h = end) {
        for (end = h + 1; end < run->h1; end++)
            if (!is_same(&needs[end], &needs[h])) break;
        if (needs[h].row1 > 0) send_keys(j, document, server, &needs[h], end - h);
    }
    *(run->retained ? &j->retain[rank] : &j->scratch[rank]) +=
        pair_bytes(run->k1 - run->k0, run->h1 - run->h0, lane[0]);
    memset(needs + run->h0, 0, (size_t)(run->h1 - run->h0) * sizeof *needs);
    run->k1 = 0;
}

static void end_document(as_judge_t *j, int32_t document)
{
    for (int32_t i = 0; i < j->num_touched; i++) {
        end_run(j, document, j->touched[i]);
        j->runs[j->touched[i]].is_touched = 0;
    }
    j->num_touched = 0;
}

static void need_keys(as_judge_t *j, const as_task_t *task, int32_t half)
{
    as_judge_need_t *needs = j->needs + (int64_t)task->server * j->num_kv_heads;
    as_judge_run_t *run = &j->runs[task->server];

    if (!run->is_touched) {
        run->is_touched = 1;
        j->touched[j->num_touched++] = task->server;
    }
    /* A window may leave a gap: another run. */
    if (run->k1 > 0 && task->k0 >= run->k1) end_run(j, task->document, task->server);
    if (run->k1 == 0)
        *run = (as_judge_run_t){.k0 = task->k0, .h0 = task->h0, .h1 = task->h1, .is_touched = 1};
    run->k0 = as_min(run->k0, task->k0);
    run->k1 = as_max(run->k1, task->q1);
    run->h0 = task->h0 < run->h0 ? task->h0 : run->h0;
    run->h1 = task->h1 > run->h1 ? task->h1 : run->h1;
    run->retained |= task->retained;
    for (int32_t h = task->h0; h < task->h1; h++) {
        as_judge_need_t *n = &needs[h];

        n->row0 = n->row1 > 0 ? as_min(n->row0, task->k0) : task->k0;
        n->row1 = as_max(n->row1, task->q1);
        n->has_ping |= half == DATA_PING;
    }
}

/* ==== tasks ==== */

/* q, o (later dq) and d_o, and two statistics, as they are staged. */
static void stage_task(as_judge_t *j, const as_task_t *task, int32_t rank)
{
    const as_wire_t *w = &j->machine.wire;
    const int64_t rows = (task->q1 - task->q0) * (task->h1 - task->h0);
    const int64_t q = as_align(rows * w->row[AS_FLOW_FWD_OUT][0]);
    const int64_t stat =
        as_align(rows * (w->row[AS_FLOW_FWD_BACK][0] - w->row[AS_FLOW_FWD_OUT][0]));

    *(task->retained ? &j->retain[rank] : &j->scratch[rank]) += q + stat;
    j->scratch[rank] += 2 * q + stat;
}

static void count_task(as_judge_t *j, const as_task_t *task)
{
    const as_topology_t *t = j->machine.topology;
    const as_wire_t *w = &j->machine.wire;
    const data_piece_t *piece = &j->batch->pieces[task->piece];
    const int32_t owner = t->trainer_rank[piece->trainer], server = t->server_rank[task->server];
    const int64_t rows = (task->q1 - task->q0) * (task->h1 - task->h0);

    if (owner != server || !as_task_is_whole(task, j->batch))
        j->scratch[server] += pair_bytes(task->q1 - task->k0, task->h1 - task->h0, w->partial);
    if (owner != server || task->k0 < piece->doc_row) need_keys(j, task, piece->half);
    if (owner == server) return;
    for (int flow = 0; flow < AS_NUM_FLOWS; flow++) {
        const int out = flow == AS_FLOW_FWD_OUT || flow == AS_FLOW_BWD_OUT;

        add_bytes(j, piece->half, flow, out ? owner : server, out ? server : owner,
                  rows * w->row[flow][task->retained]);
    }
    stage_task(j, task, server);
}

/* With partial_per_task: dk and dv of one task, over all keys that it holds. */
static void send_partials(as_judge_t *j, const as_task_t *task)
{
    const as_topology_t *t = j->machine.topology;
    const int64_t lane = j->machine.wire.key[AS_FLOW_BWD_BACK][0], heads = task->h1 - task->h0;
    const int32_t from = t->server_rank[task->server];

    for (int32_t p = j->batch->document_piece[task->document]; p <= task->piece; p++) {
        const data_piece_t *piece = &j->batch->pieces[p];
        const int64_t k0 = as_max(task->k0, piece->doc_row),
                      k1 = as_min(task->q1, piece->doc_row + piece->rows);
        const int32_t to = t->trainer_rank[piece->trainer];

        if (k0 >= k1 || from == to) continue;
        add_bytes(j, j->batch->pieces[task->piece].half, AS_FLOW_BWD_BACK, from, to,
                  (k1 - k0) * heads * lane);
        j->scratch[to] += pair_bytes(k1 - k0, heads, lane);
    }
}

void as_judge_count(as_judge_t *j, const as_task_t *tasks, int32_t num_tasks)
{
    const size_t ranks = (size_t)j->machine.topology->num_ranks * sizeof(int64_t);

    memset(j->bytes, 0, ranks * 2 * AS_NUM_FLOWS * AS_NUM_TIERS * AS_DIRECTIONS);
    memset(j->scratch, 0, ranks);
    memset(j->retain, 0, ranks);
    for (int32_t i = 0; i < num_tasks; i++) {
        count_task(j, &tasks[i]);
        if (j->machine.wire.partial_per_task) send_partials(j, &tasks[i]);
        if (i + 1 == num_tasks || tasks[i + 1].document != tasks[i].document)
            end_document(j, tasks[i].document);
    }
}
