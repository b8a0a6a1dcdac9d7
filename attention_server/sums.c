/* dk and dv of this trainer's rows: which partial sums make them, in which order. */
#include "attention_server/schedule.h"

#include "base/sort.h"

#include <assert.h>

static int compare_int64(const void *pa, const void *pb, const void *unused)
{
    (void)unused;
    return base_compare_i64(*(const int64_t *)pa, *(const int64_t *)pb);
}

/* Sorts and removes repetitions. */
static void make_set(as_list_t *cuts)
{
    int64_t *v = cuts->items, n = 0;
    base_sort(v, cuts->count, sizeof *v, compare_int64, NULL);
    for (int64_t i = 0; i < cuts->count; i++)
        if (n == 0 || v[n - 1] != v[i]) v[n++] = v[i];
    cuts->count = n;
}

int32_t as_first_task(const as_plan_t *plan, int32_t document)
{
    int32_t low = 0, high = plan->num_tasks;
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        if (plan->tasks[middle].document < document)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const as_received_t *find_received(const as_schedule_t *s, int32_t task, int32_t piece)
{
    const as_received_t *received = s->received.items;
    int64_t low = 0, high = s->received.count;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        const as_received_t *r = &received[middle];
        if (r->task < task || (r->task == task && r->piece < piece))
            low = middle + 1;
        else
            high = middle;
    }
    return &received[low];
}

as_term_t as_task_term(const as_schedule_t *s, int32_t i)
{
    const as_task_t *task = &s->plan->tasks[i];
    const as_task_info_t *info = as_info(s, i);
    return (as_term_t){.row0 = task->k0,
                       .row1 = task->q1,
                       .h0 = task->h0,
                       .h1 = task->h1,
                       .src =
                           info->partial / (info->real ? s->shape.real_bytes : s->shape.acc_bytes),
                       .src_head = (task->q1 - task->k0) * s->shape.head_dim,
                       .real = info->real,
                       .placed = info->real && info->in_place};
}

/* The partial sums of a task, computed here or received for this piece. */
static as_term_t term_of(const as_schedule_t *s, int32_t i, int32_t piece)
{
    const as_task_t *task = &s->plan->tasks[i];
    if (as_info(s, i)->server_rank == s->rank) return as_task_term(s, i);
    const as_received_t *r = find_received(s, i, piece);
    return (as_term_t){.row0 = r->row0,
                       .row1 = r->row0 + r->rows,
                       .h0 = task->h0,
                       .h1 = task->h1,
                       .src = r->offset / s->shape.acc_bytes,
                       .src_head = r->rows * s->shape.head_dim};
}

/* Every task's partial sums, in ascending q0. */
static base_status_t task_terms(as_schedule_t *s, int32_t p, int only_here)
{
    const data_piece_t *piece = &s->batch->pieces[p];
    const int32_t task0 = as_first_task(s->plan, piece->document),
                  task1 = as_first_task(s->plan, piece->document + 1);
    for (int32_t i = task0; i < task1; i++) {
        const as_task_t *task = &s->plan->tasks[i];
        if (task->q1 <= piece->doc_row || task->k0 >= piece->doc_row + piece->rows) continue;
        if (only_here && as_info(s, i)->server_rank != s->rank) continue;
        const as_term_t term = term_of(s, i, p);
        BASE_TRY(as_list_push(&s->terms, &term));
    }
    return BASE_OK;
}

/* Every server's sum, in ascending server; this rank's own tasks, in ascending q0, in its place. */
static base_status_t server_terms(as_schedule_t *s, int32_t p)
{
    const int32_t own = s->topology->rank_server[s->rank];
    int own_added = own < 0;
    for (int64_t g = 0; g < s->grads.count; g++) {
        const as_grad_t *grad = (const as_grad_t *)s->grads.items + g;
        if (!grad->received || grad->piece != p) continue;
        if (!own_added && ((const as_run_t *)s->runs.items + grad->run)->server > own) {
            own_added = 1;
            BASE_TRY(task_terms(s, p, 1));
        }
        const as_term_t term = {.row0 = grad->row0,
                                .row1 = grad->row0 + grad->rows,
                                .h0 = grad->h0,
                                .h1 = grad->h1,
                                .src = grad->offset / s->shape.real_bytes,
                                .src_head = grad->rows * s->shape.head_dim,
                                .real = 1};
        BASE_TRY(as_list_push(&s->terms, &term));
    }
    return own_added ? BASE_OK : task_terms(s, p, 1);
}

/* Rows [row0, row1) and heads [h0, h1) of a block, in which every term covers all or nothing. */
static base_status_t add_sum(as_schedule_t *s, const as_block_t *block, int64_t row0, int64_t row1,
                             int32_t h0, int32_t h1, as_list_t *sums, as_list_t *parts)
{
    const int64_t d = s->shape.head_dim;
    kern_sum_t sum = {.dst = block->dst + (h0 - block->h0) * block->dst_head +
                             (row0 - block->row0) * d,
                      .dst_head = block->dst_head,
                      .count = (row1 - row0) * d,
                      .heads = h1 - h0,
                      .first_part = parts->count};
    for (int64_t t = 0; t < s->terms.count; t++) {
        const as_term_t *term = (const as_term_t *)s->terms.items + t;
        if (term->h0 > h0 || term->h1 < h1 || term->row0 > row0 || term->row1 < row1) continue;
        if (term->placed) {
            assert(sum.num_parts == 0);
            return BASE_OK;
        }
        const kern_sum_part_t part = {.src = term->src + (h0 - term->h0) * term->src_head +
                                             (row0 - term->row0) * d,
                                      .src_head = term->src_head,
                                      .real = term->real};
        BASE_TRY(as_list_push(parts, &part));
        sum.num_parts++;
    }
    return as_list_push(sums, &sum);
}

/* The edges of block and terms: every term covers all or nothing between two of them. */
static base_status_t find_cuts(as_schedule_t *s, const as_block_t *block)
{
    const int64_t edges[] = {block->row0, block->row1, block->h0, block->h1};
    s->row_cuts.count = s->head_cuts.count = 0;
    for (int i = 0; i < 4; i++)
        BASE_TRY(as_list_push(i < 2 ? &s->row_cuts : &s->head_cuts, &edges[i]));
    for (int64_t t = 0; t < s->terms.count; t++) {
        const as_term_t *term = (const as_term_t *)s->terms.items + t;
        const int64_t heads[2] = {term->h0, term->h1}, rows[2] = {term->row0, term->row1};
        for (int side = 0; side < 2; side++) {
            if (heads[side] > block->h0 && heads[side] < block->h1)
                BASE_TRY(as_list_push(&s->head_cuts, &heads[side]));
            if (rows[side] > block->row0 && rows[side] < block->row1)
                BASE_TRY(as_list_push(&s->row_cuts, &rows[side]));
        }
    }
    make_set(&s->row_cuts);
    make_set(&s->head_cuts);
    return BASE_OK;
}

base_status_t as_add_block_sums(as_schedule_t *s, const as_block_t *block, as_list_t *sums,
                                as_list_t *parts)
{
    BASE_TRY(find_cuts(s, block));
    const int64_t *rows = s->row_cuts.items, *heads = s->head_cuts.items;
    for (int64_t h = 0; h + 1 < s->head_cuts.count; h++)
        for (int64_t r = 0; r + 1 < s->row_cuts.count; r++)
            BASE_TRY(add_sum(s, block, rows[r], rows[r + 1], (int32_t)heads[h],
                             (int32_t)heads[h + 1], sums, parts));
    return BASE_OK;
}

static base_status_t add_piece(as_schedule_t *s, int32_t p)
{
    const data_piece_t *piece = &s->batch->pieces[p];
    const as_block_t block = {.row0 = piece->doc_row,
                              .row1 = piece->doc_row + piece->rows,
                              .h1 = s->shape.num_kv_heads,
                              .dst = piece->local_row * s->shape.head_dim,
                              .dst_head = s->shape.head_rows * s->shape.head_dim};
    s->terms.count = 0;
    BASE_TRY(s->shape.sums_per_server ? server_terms(s, p) : task_terms(s, p, 0));
    return as_add_block_sums(s, &block, &s->sums[piece->half], &s->parts[piece->half]);
}

static int compare_pads(const void *pa, const void *pb, const void *unused)
{
    (void)unused;
    return base_compare_i64(((const as_pad_t *)pa)->row, ((const as_pad_t *)pb)->row);
}

/* The gaps between the pieces of one half of trainer `t`. */
static base_status_t add_pads(as_schedule_t *s, int half, int32_t t)
{
    as_list_t *pads = &s->pads[half];
    pads->count = 0;
    for (int32_t p = 0; p < s->batch->num_pieces; p++) {
        const data_piece_t *piece = &s->batch->pieces[p];
        const as_pad_t used = {piece->local_row, piece->rows};
        if (piece->half == half && piece->trainer == t) BASE_TRY(as_list_push(pads, &used));
    }
    const as_pad_t last = {s->batch->trainer_rows[t], 0};
    BASE_TRY(as_list_push(pads, &last));
    as_pad_t *v = pads->items;
    base_sort(v, pads->count, sizeof *v, compare_pads, NULL);
    int64_t row = 0, n = 0;
    for (int64_t i = 0; i < pads->count; i++) {
        const as_pad_t used = v[i];
        if (used.row > row) v[n++] = (as_pad_t){row, used.row - row};
        row = used.row + used.rows;
    }
    pads->count = n;
    return BASE_OK;
}

base_status_t as_schedule_sums(as_schedule_t *s)
{
    const int32_t trainer = s->topology->rank_trainer[s->rank];
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        s->sums[half].count = s->parts[half].count = s->pads[half].count = 0;
    BASE_TRY(as_schedule_server_sums(s));
    if (trainer < 0) return BASE_OK;
    for (int32_t p = 0; p < s->batch->num_pieces; p++)
        if (s->batch->pieces[p].trainer == trainer) BASE_TRY(add_piece(s, p));
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        BASE_TRY(add_pads(s, half, trainer));
    return BASE_OK;
}
