/* Exchange lists: every transfer of the plan in canonical order, those of this rank kept. */
#include "attention_server/schedule.h"

#include "base/sort.h"

#include <string.h>

base_status_t as_schedule_transfer(as_schedule_t *s, as_exchange_t *leg, int32_t src, int32_t dst,
                                   const as_place_t *from, const as_place_t *to, int64_t row_bytes,
                                   int64_t rows)
{
    if ((src != s->rank) == (dst != s->rank)) return BASE_OK;
    const int send = src == s->rank;
    const as_place_t *mine = send ? from : to;
    const as_entry_t entry = {.peer = send ? dst : src,
                              .send = (int16_t)send,
                              .region = (int8_t)mine->region,
                              .half = (int8_t)mine->half,
                              .offset = mine->offset,
                              .row_bytes = row_bytes,
                              .rows = rows,
                              .pitch = mine->pitch};
    if (send) leg->sent_bytes += row_bytes * rows;
    return as_list_push(&leg->entries, &entry);
}

static base_status_t add_transfer(as_schedule_t *s, as_exchange_t *leg, int32_t src, int32_t dst,
                                  as_place_t from, as_place_t to, int64_t row_bytes, int64_t rows)
{
    return as_schedule_transfer(s, leg, src, dst, &from, &to, row_bytes, rows);
}

/* A head-group-major tensor of the owner, `lane` bytes per row and KV head: rows from local_row on
 * of heads from h0 on. */
static as_place_t owner_heads(const as_schedule_t *s, as_region_t region, int half,
                              int64_t local_row, int32_t h0, int64_t lane)
{
    return (as_place_t){region, half, (h0 * s->shape.head_rows + local_row) * lane,
                        s->shape.head_rows * lane};
}

/* A token-major tensor of the owner (o, d_o). */
static as_place_t owner_rows(const as_schedule_t *s, as_region_t region, int half,
                             int64_t local_row, int32_t h0, int64_t pitch)
{
    const int64_t e = s->shape.real_bytes;
    return (as_place_t){region, half,
                        (local_row * pitch + (int64_t)h0 * s->shape.group * s->shape.head_dim) * e,
                        pitch * e};
}

static as_place_t staged(as_region_t region, int64_t offset, int64_t pitch)
{
    return (as_place_t){region, DATA_PING, offset, pitch};
}

/* q, o, dq and their companions of one task whose rows are on another rank than its server. */
static base_status_t add_task(as_schedule_t *s, int32_t i)
{
    const as_task_t *task = &s->plan->tasks[i];
    const as_task_info_t *info = as_info(s, i);
    if (info->owner_rank == info->server_rank) return BASE_OK;
    const as_shape_t *sh = &s->shape;
    const int32_t owner = info->owner_rank, server = info->server_rank;
    const int half = info->half;
    const int64_t rows = task->q1 - task->q0, heads = task->h1 - task->h0;
    const int64_t lane = (int64_t)sh->group * sh->head_dim * sh->real_bytes,
                  stat = sh->group * sh->acc_bytes;
    const as_region_t kept = task->retained ? AS_REGION_KEEP : AS_REGION_SCRATCH;
    as_exchange_t *legs = s->legs[half];

    const as_place_t q = owner_heads(s, AS_REGION_Q, half, info->local_row, task->h0, lane);
    const as_place_t dq = owner_heads(s, AS_REGION_DQ, half, info->local_row, task->h0, lane);
    const as_place_t lse = owner_heads(s, AS_REGION_LSE, half, info->local_row, task->h0, stat);
    const as_place_t delta = owner_heads(s, AS_REGION_DELTA, half, info->local_row, task->h0, stat);
    const as_place_t o = owner_rows(s, AS_REGION_O, half, info->local_row, task->h0, sh->o_pitch);
    const as_place_t d_o =
        owner_rows(s, AS_REGION_D_O, half, info->local_row, task->h0, sh->d_o_pitch);
    const as_place_t q_staged = staged(kept, info->q, rows * lane);
    const as_place_t lse_staged = staged(kept, info->lse, rows * stat);

    BASE_TRY(add_transfer(s, &legs[AS_FWD_OUT], owner, server, q, q_staged, rows * lane, heads));
    BASE_TRY(add_transfer(s, &legs[AS_FWD_BACK], server, owner,
                          staged(AS_REGION_SCRATCH, info->o, heads * lane), o, heads * lane, rows));
    BASE_TRY(
        add_transfer(s, &legs[AS_FWD_BACK], server, owner, lse_staged, lse, rows * stat, heads));
    if (!task->retained) {
        BASE_TRY(
            add_transfer(s, &legs[AS_BWD_OUT], owner, server, q, q_staged, rows * lane, heads));
        BASE_TRY(
            add_transfer(s, &legs[AS_BWD_OUT], owner, server, lse, lse_staged, rows * stat, heads));
    }
    BASE_TRY(add_transfer(s, &legs[AS_BWD_OUT], owner, server, d_o,
                          staged(AS_REGION_SCRATCH, info->d_o, heads * lane), heads * lane, rows));
    BASE_TRY(add_transfer(s, &legs[AS_BWD_OUT], owner, server, delta,
                          staged(AS_REGION_SCRATCH, info->delta, rows * stat), rows * stat, heads));
    return add_transfer(s, &legs[AS_BWD_BACK], server, owner,
                        staged(AS_REGION_SCRATCH, info->o, rows * lane), dq, rows * lane, heads);
}

/* Keys [row0, row1) of KV heads [h0, h1) of a run that lie in one piece: from the piece's trainer
 * to the run. */
static base_status_t add_run_piece(as_schedule_t *s, const as_run_t *run, const data_piece_t *piece,
                                   int32_t h0, int32_t h1, int64_t row0, int64_t row1)
{
    const int32_t server = s->topology->server_rank[run->server],
                  owner = s->topology->trainer_rank[piece->trainer];
    if (server != s->rank && owner != s->rank) return BASE_OK;
    const int64_t lane = s->shape.head_dim * s->shape.real_bytes, run_rows = run->k1 - run->k0;
    const int64_t local_row = piece->local_row + row0 - piece->doc_row;
    const as_place_t k = owner_heads(s, AS_REGION_K, piece->half, local_row, h0, lane);
    const as_place_t v = owner_heads(s, AS_REGION_V, piece->half, local_row, h0, lane);
    const as_region_t region = run->retained ? AS_REGION_KEEP : AS_REGION_SCRATCH;
    const int64_t to = run->k_offset + ((h0 - run->h0) * run_rows + row0 - run->k0) * lane;
    const int64_t to_v = to + (run->retained ? s->keep_stride : s->run_stride);
    const int64_t row_bytes = (row1 - row0) * lane;

    if (server == owner) {
        const as_local_copy_t copy = {.half = (int8_t)piece->half,
                                      .backward_half = (int8_t)(run->retained ? -1
                                                                : run->spans  ? DATA_PONG
                                                                              : piece->half),
                                      .to_region = (int8_t)region,
                                      .from = k.offset,
                                      .to = to,
                                      .to_v = to_v,
                                      .row_bytes = row_bytes,
                                      .rows = h1 - h0,
                                      .from_pitch = k.pitch,
                                      .to_pitch = run_rows * lane};
        return as_list_push(&s->copies, &copy);
    }
    const as_place_t run_k = staged(region, to, run_rows * lane),
                     run_v = staged(region, to_v, run_rows * lane);
    for (int leg = AS_FWD_OUT; leg <= AS_BWD_OUT; leg += AS_BWD_OUT - AS_FWD_OUT) {
        if (leg == AS_BWD_OUT && run->retained) break;
        as_exchange_t *exchange = &s->legs[piece->half][leg];
        BASE_TRY(add_transfer(s, exchange, owner, server, k, run_k, row_bytes, h1 - h0));
        BASE_TRY(add_transfer(s, exchange, owner, server, v, run_v, row_bytes, h1 - h0));
    }
    return BASE_OK;
}

/* All keys of a run: consecutive heads that need the same rows go together, cut at the document's
 * pieces. */
static base_status_t add_run(as_schedule_t *s, const as_run_t *run)
{
    const int32_t piece0 = s->batch->document_piece[run->document],
                  piece1 = s->batch->document_piece[run->document + 1];
    for (int32_t h = run->h0, h1; h < run->h1; h = h1) {
        const as_need_t need = as_run_need(s, run, h);
        for (h1 = h + 1; h1 < run->h1; h1++) {
            const as_need_t next = as_run_need(s, run, h1);
            if (next.row0 != need.row0 || next.row1 != need.row1) break;
        }
        for (int32_t p = piece0; p < piece1; p++) {
            const data_piece_t *piece = &s->batch->pieces[p];
            const int64_t a = as_max(need.row0, piece->doc_row),
                          b = as_min(need.row1, piece->doc_row + piece->rows);
            if (a < b) BASE_TRY(add_run_piece(s, run, piece, h, h1, a, b));
        }
    }
    return BASE_OK;
}

static int compare_entries(const void *pa, const void *pb, const void *unused)
{
    (void)unused;
    const as_sort_entry_t *a = pa, *b = pb;
    if (a->entry.peer != b->entry.peer) return a->entry.peer < b->entry.peer ? -1 : 1;
    if (a->entry.send != b->entry.send) return a->entry.send > b->entry.send ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

/* Groups a leg's entries by peer; the canonical order stays within a group. */
static base_status_t group_by_peer(as_schedule_t *s, as_exchange_t *leg)
{
    const int64_t n = leg->entries.count;
    as_entry_t *entries = leg->entries.items;
    s->sort_entries.count = 0;
    BASE_TRY(as_list_resize(&s->sort_entries, n));
    as_sort_entry_t *sorted = s->sort_entries.items;
    for (int64_t e = 0; e < n; e++)
        sorted[e] = (as_sort_entry_t){e, entries[e]};
    base_sort(sorted, n, sizeof *sorted, compare_entries, NULL);
    leg->peers.count = 0;
    for (int64_t e = 0; e < n; e++) {
        entries[e] = sorted[e].entry;
        as_peer_span_t *span =
            leg->peers.count > 0 ? (as_peer_span_t *)leg->peers.items + leg->peers.count - 1 : NULL;
        if (span == NULL || span->rank != entries[e].peer) {
            const as_peer_span_t fresh = {.rank = entries[e].peer, .first = e};
            BASE_TRY(as_list_push(&leg->peers, &fresh));
            span = (as_peer_span_t *)leg->peers.items + leg->peers.count - 1;
        }
        if (entries[e].send)
            span->num_send++;
        else
            span->num_recv++;
    }
    return BASE_OK;
}

base_status_t as_schedule_transfers(as_schedule_t *s)
{
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        for (int leg = 0; leg < AS_NUM_LEGS; leg++) {
            s->legs[half][leg].entries.count = 0;
            s->legs[half][leg].sent_bytes = 0;
        }
    s->copies.count = 0;
    for (int32_t i = 0; i < s->plan->num_tasks; i++)
        BASE_TRY(add_task(s, i));
    for (int64_t r = 0; r < s->runs.count; r++)
        BASE_TRY(add_run(s, (const as_run_t *)s->runs.items + r));
    BASE_TRY(as_schedule_partials(s));
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        for (int leg = 0; leg < AS_NUM_LEGS; leg++)
            BASE_TRY(group_by_peer(s, &s->legs[half][leg]));
    return BASE_OK;
}
