/* dk and dv added on the server: what it sends of each run, and from which tasks' partial sums it is
 * made. The owner of the rows adds one such sum for each server.
 *
 * A sum travels with the results of the half whose tasks complete it. Keys in pong are read in pong
 * only. Keys in ping may be read by tasks of both halves: pong's are served first in the backward,
 * so a sum with tasks in ping travels with ping, others with pong. */
#include "attention_server/schedule.h"

static int64_t grad_lane(const as_schedule_t *s)
{
    return s->shape.head_dim * s->shape.real_bytes;
}

static base_status_t add_grad(as_schedule_t *s, int64_t r, int32_t p, int32_t h0, int32_t h1,
                              const as_need_t *need)
{
    const as_run_t *run = (const as_run_t *)s->runs.items + r;
    const data_piece_t *piece = &s->batch->pieces[p];
    const int64_t row0 = as_max(need->row0, piece->doc_row),
                  row1 = as_min(need->row1, piece->doc_row + piece->rows);
    const int32_t owner = s->topology->trainer_rank[piece->trainer],
                  server = s->topology->server_rank[run->server];
    if (row0 >= row1 || owner == server || (owner != s->rank && server != s->rank)) return BASE_OK;
    const as_grad_t grad = {.run = (int32_t)r,
                            .piece = p,
                            .h0 = h0,
                            .h1 = h1,
                            .half = need->has_ping ? piece->half : DATA_PONG,
                            .received = owner == s->rank,
                            .row0 = row0,
                            .rows = row1 - row0,
                            .offset = s->partial_stride};
    s->partial_stride = as_align(s->partial_stride + (h1 - h0) * grad.rows * grad_lane(s));
    return as_list_push(&s->grads, &grad);
}

/* As add_run of transfers.c: heads that need the same rows, and in the same half, go together. */
static base_status_t add_run(as_schedule_t *s, int64_t r)
{
    const as_run_t *run = (const as_run_t *)s->runs.items + r;
    for (int32_t h = run->h0, h1; h < run->h1; h = h1) {
        const as_need_t need = as_run_need(s, run, h);
        for (h1 = h + 1; h1 < run->h1; h1++) {
            const as_need_t next = as_run_need(s, run, h1);
            if (next.row0 != need.row0 || next.row1 != need.row1 || next.has_ping != need.has_ping)
                break;
        }
        for (int32_t p = s->batch->document_piece[run->document];
             p < s->batch->document_piece[run->document + 1]; p++)
            BASE_TRY(add_grad(s, r, p, h, h1, &need));
    }
    return BASE_OK;
}

/* Where the server has dk of KV heads [h, ...) of a grad, from its first row on: where their only
 * task left it, or in the sum. */
static as_place_t place_of(const as_schedule_t *s, const as_grad_t *grad, int32_t h, int32_t only)
{
    const int64_t lane = grad_lane(s), row_bytes = grad->rows * lane;
    if (only < 0 || !as_info(s, only)->real)
        return (as_place_t){AS_REGION_SCRATCH, DATA_PING, grad->offset + (h - grad->h0) * row_bytes,
                            row_bytes};
    const as_task_t *task = &s->plan->tasks[only];
    const int64_t pitch = (task->q1 - task->k0) * lane;
    return (as_place_t){
        AS_REGION_SCRATCH, DATA_PING,
        as_info(s, only)->partial + (h - task->h0) * pitch + (grad->row0 - task->k0) * lane, pitch};
}

/* Both sides cut a grad where the only task of its heads changes, whether that is real or not, which
 * the server alone knows. */
static base_status_t add_transfers(as_schedule_t *s, const as_grad_t *grad)
{
    const as_run_t *run = (const as_run_t *)s->runs.items + grad->run;
    const int32_t owner = s->topology->trainer_rank[s->batch->pieces[grad->piece].trainer],
                  server = s->topology->server_rank[run->server];
    const int64_t row_bytes = grad->rows * grad_lane(s);
    as_exchange_t *leg = &s->legs[grad->half][AS_BWD_BACK];
    for (int32_t h = grad->h0, end; h < grad->h1; h = end) {
        const int32_t only = as_run_need(s, run, h).only;
        for (end = h + 1; end < grad->h1 && as_run_need(s, run, end).only == only; end++)
            ;
        as_place_t from = place_of(s, grad, h, only), to = place_of(s, grad, h, -1);
        for (int dv = 0; dv < 2; dv++) { /* partials.c adds the way to dv */
            from.half = to.half = dv ? DATA_PONG : DATA_PING;
            BASE_TRY(as_schedule_transfer(s, leg, server, owner, &from, &to, row_bytes, end - h));
        }
    }
    return BASE_OK;
}

base_status_t as_schedule_grads(as_schedule_t *s)
{
    for (int64_t r = 0; r < s->runs.count; r++)
        BASE_TRY(add_run(s, r));
    const as_grad_t *grads = s->grads.items;
    for (int64_t g = 0; g < s->grads.count; g++)
        BASE_TRY(add_transfers(s, &grads[g]));
    return BASE_OK;
}

base_status_t as_schedule_server_sums(as_schedule_t *s)
{
    const int32_t *members = s->run_members.items;
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        s->server_sums[half].count = s->server_parts[half].count = 0;
    if (!s->shape.sums_per_server) return BASE_OK;
    for (int64_t g = 0; g < s->grads.count; g++) {
        const as_grad_t *grad = (const as_grad_t *)s->grads.items + g;
        const as_run_t *run = (const as_run_t *)s->runs.items + grad->run;
        if (grad->received) continue;
        s->terms.count = 0;
        for (int64_t m = 0; m < run->num_members; m++) { /* ascending q0 */
            as_term_t term = as_task_term(s, members[run->first_member + m]);
            term.placed = term.real; /* sent from there */
            BASE_TRY(as_list_push(&s->terms, &term));
        }
        const as_block_t block = {.row0 = grad->row0,
                                  .row1 = grad->row0 + grad->rows,
                                  .h0 = grad->h0,
                                  .h1 = grad->h1,
                                  .dst = grad->offset / s->shape.real_bytes,
                                  .dst_head = grad->rows * s->shape.head_dim};
        BASE_TRY(as_add_block_sums(s, &block, &s->server_sums[grad->half],
                                   &s->server_parts[grad->half]));
    }
    return BASE_OK;
}
