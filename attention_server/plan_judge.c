#include "attention_server/plan_judge_state.h"

#include "attention_server/schedule.h"
#include "base/memory.h"

#include <string.h>

/* ==== creation ==== */

void as_wire_seam(int32_t group, int32_t head_dim, int32_t real_bytes, int32_t acc_bytes,
                  int32_t grad_bytes, as_wire_t *wire)
{
    const int64_t q = (int64_t)group * head_dim * real_bytes, stat = (int64_t)group * acc_bytes;
    const int64_t kv = 2 * (int64_t)head_dim * real_bytes, dkv = 2 * (int64_t)head_dim * grad_bytes;

    *wire = (as_wire_t){
        .row = {{q, q}, {q + stat, q + stat}, {2 * q + 2 * stat, q + stat}, {q, q}},
        .key = {{kv, kv}, {0, 0}, {kv, 0}, {dkv, dkv}},
        .partial = 2 * (int64_t)head_dim * acc_bytes,
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
        (j->bytes =
             base_calloc(ctx, (int64_t)ranks * 2 * AS_NUM_FLOWS * AS_NUM_TIERS * AS_DIRECTIONS,
                         sizeof(int64_t), "judge: links")) == NULL ||
        (j->scratch = base_calloc(ctx, ranks, sizeof(int64_t), "judge: memory")) == NULL ||
        (j->retain = base_calloc(ctx, ranks, sizeof(int64_t), "judge: memory")) == NULL ||
        (j->needs = base_calloc(ctx, (int64_t)servers * num_kv_heads, sizeof *j->needs,
                                "judge: keys")) == NULL ||
        (j->touched = base_calloc(ctx, servers, sizeof(int32_t), "judge: servers")) == NULL ||
        (j->runs = base_calloc(ctx, servers, sizeof *j->runs, "judge: servers")) == NULL) {
        as_judge_destroy(j);
        return BASE_ERR_NOMEM;
    }
    *judge_p = j;
    return BASE_OK;
}

void as_judge_destroy(as_judge_t *judge)
{
    if (judge == NULL) return;
    base_free(judge->ctx, judge->runs);
    base_free(judge->ctx, judge->touched);
    base_free(judge->ctx, judge->needs);
    base_free(judge->ctx, judge->retain);
    base_free(judge->ctx, judge->scratch);
    base_free(judge->ctx, judge->bytes);
    base_free(judge->ctx, judge->busy);
    base_free(judge->ctx, judge);
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
    if (c->has_keys) ns += as_cost_keys(c, kind, t->q0, t->q1);
    return c->task_ns[kind] + ns * (t->h1 - t->h0);
}

static void add_time(as_judge_t *j, const as_task_t *task, int own_grid)
{
    const data_piece_t *piece = &j->batch->pieces[task->piece];

    for (int pass = 0; pass < 2; pass++)
        as_judge_busy(j, pass, piece->half)[task->server] +=
            own_grid ? own_grid_ns(j->cost, (as_cost_kind_t)pass, task)
                     : as_cost_task(j->cost, (as_cost_kind_t)pass, task);
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
        speeds += as_machine_speed(machine, s);
        fastest = max_i64(fastest, as_machine_speed(machine, s));
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
    int64_t total[AS_COST_KINDS] = {0};
    for (int pass = 0; pass < AS_COST_BOTH; pass++) {
        for (int32_t d = 0; d < batch->num_documents; d++)
            total[pass] += as_cost_rows(cost, (as_cost_kind_t)pass, 0, batch->documents[d].rows);
        total[pass] = total[pass] * num_kv_heads + batch->num_documents * cost->task_ns[pass];
        total[AS_COST_BOTH] += total[pass];
    }
    for (int kind = 0; kind < AS_COST_KINDS; kind++) {
        const int64_t undivided =
            cost->task_ns[kind] + dearest_rows(cost, (as_cost_kind_t)kind, &batch->pieces[dearest]);

        bounds->ns[kind] =
            max_i64(as_at_speed(total[kind], speeds), as_at_speed(undivided, fastest));
    }
}

/* The rank whose exchange takes longest; links of different tiers and directions work at once. */
static int64_t flow_ns(const as_judge_t *j, int half, int flow)
{
    int64_t most = 0;

    for (int tier = 0; tier < AS_NUM_TIERS; tier++)
        for (int direction = 0; direction < AS_DIRECTIONS; direction++)
            for (int32_t r = 0; r < j->machine.topology->num_ranks; r++)
                most = max_i64(most, as_judge_bytes_of(j, half, flow, tier, direction)[r] / 1024 *
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
        const int64_t speed = as_machine_speed(&j->machine, s);
        const int64_t end_a =
            max_i64(2 * dense, in_a) + as_at_speed(as_judge_busy(j, pass, a)[s], speed);
        const int64_t end_b =
            max_i64(end_a, in_b) + as_at_speed(as_judge_busy(j, pass, b)[s], speed);

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

        for (int direction = 0; direction < AS_DIRECTIONS; direction++) {
            int64_t all = 0, network = 0;

            for (int flow = 0; flow < AS_NUM_FLOWS; flow++) {
                int64_t bytes = 0;

                for (int half = 0; half < DATA_NUM_HALVES; half++)
                    for (int tier = 0; tier < AS_NUM_TIERS; tier++)
                        bytes += as_judge_bytes_of(j, half, flow, tier, direction)[r];
                for (int half = 0; half < DATA_NUM_HALVES; half++)
                    network += as_judge_bytes_of(j, half, flow, AS_OTHER_HOST, direction)[r];
                score->flow_bytes[flow] = max_i64(score->flow_bytes[flow], bytes);
                all += bytes;
            }
            if (direction == AS_SENT) score->total_bytes += all;
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

    for (int32_t r = 0; r < m->topology->num_ranks; r++) {
        const int32_t s = m->topology->rank_server[r];
        const int64_t scratch = as_judge_scratch_bytes(j, r);

        if (s < 0 && m->trainer_scratch_bytes != NULL && scratch > *m->trainer_scratch_bytes)
            return 0;
        if (s < 0) continue;
        if (m->scratch_bytes != NULL && scratch > m->scratch_bytes[s]) return 0;
        if (m->retain_bytes != NULL && as_judge_retain_bytes(j, r) > m->retain_bytes[s]) return 0;
    }
    return 1;
}

void as_judge_run(as_judge_t *j, const as_cost_t *cost, const data_batch_t *batch,
                  const as_bounds_t *bounds, const as_task_t *tasks, int32_t num_tasks,
                  int own_grid, as_score_t *score)
{
    const as_topology_t *t = j->machine.topology;

    memset(j->busy, 0, (size_t)t->num_servers * 4 * sizeof(int64_t));
    *score = (as_score_t){.num_tasks = num_tasks};
    j->cost = cost;
    j->batch = batch;
    as_judge_count(j, tasks, num_tasks);
    for (int32_t i = 0; i < num_tasks; i++) {
        add_time(j, &tasks[i], own_grid);
        if (t->server_rank[tasks[i].server] !=
            t->trainer_rank[batch->pieces[tasks[i].piece].trainer])
            score->num_remote++;
    }

    for (int32_t s = 0; s < t->num_servers; s++)
        score->compute_ns = max_i64(score->compute_ns, as_judge_server_ns(j, s));
    score->bound_ns = bounds->ns[AS_COST_BOTH];
    for (int pass = 0; pass < 2; pass++) {
        score->pass_ns[pass] = pass_ns(j, pass);
        score->pass_bound_ns[pass] = 2 * j->machine.dense_ns[pass] + bounds->ns[pass];
    }
    score_links(j, score);
    for (int32_t r = 0; r < t->num_ranks; r++) {
        score->scratch_bytes = max_i64(score->scratch_bytes, as_judge_scratch_bytes(j, r));
        score->retain_bytes = max_i64(score->retain_bytes, as_judge_retain_bytes(j, r));
    }
    score->fits = fits(j);
}

/* ==== looking ==== */

int64_t as_judge_server_ns(const as_judge_t *j, int32_t server)
{
    int64_t ns = 0;

    for (int pass = 0; pass < 2; pass++)
        for (int half = 0; half < DATA_NUM_HALVES; half++)
            ns += as_judge_busy(j, pass, half)[server];
    return as_at_speed(ns, as_machine_speed(&j->machine, server));
}

int64_t as_judge_flow_bytes(const as_judge_t *j, int32_t rank, data_half_t half, as_flow_t flow,
                            int sent)
{
    int64_t bytes = 0;

    for (int tier = 0; tier < AS_NUM_TIERS; tier++)
        bytes +=
            as_judge_bytes_of(j, (int)half, (int)flow, tier, sent ? AS_SENT : AS_RECEIVED)[rank];
    return bytes;
}

int64_t as_judge_link_bytes(const as_judge_t *j, int32_t rank, int sent)
{
    int64_t bytes = 0;

    for (int half = 0; half < DATA_NUM_HALVES; half++)
        for (int flow = 0; flow < AS_NUM_FLOWS; flow++)
            bytes += as_judge_flow_bytes(j, rank, (data_half_t)half, (as_flow_t)flow, sent);
    return bytes;
}

int64_t as_judge_scratch_bytes(const as_judge_t *j, int32_t rank)
{
    return as_page(j->scratch[rank]);
}

int64_t as_judge_retain_bytes(const as_judge_t *j, int32_t rank)
{
    return as_page(j->retain[rank]) * j->machine.num_layers;
}
