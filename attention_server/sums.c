/* dk and dv of this trainer's rows: which partial sums, in ascending q0, make them. */
#include "attention_server/schedule.h"

#include "base/sort.h"

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

/* First task of `document` in the plan (tasks are sorted by document). */
static int32_t first_task(const as_plan_t *plan, int32_t document)
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

/* The partial sum of `task` for rows from row0 and heads from h0: computed here, or received for
 * this piece. */
static kern_sum_part_t part_of(const as_schedule_t *s, int32_t i, int32_t piece, int64_t row0,
                               int32_t h0)
{
    const as_task_t *task = &s->plan->tasks[i];
    const as_task_info_t *info = as_info(s, i);
    const int64_t d = s->shape.head_dim, a = s->shape.acc_bytes;
    if (info->server_rank == s->rank) {
        const int64_t head = (task->q1 - task->k0) * d;
        return (kern_sum_part_t){info->partial / a + (h0 - task->h0) * head + (row0 - task->k0) * d,
                                 head};
    }
    const as_received_t *r = find_received(s, i, piece);
    const int64_t head = r->rows * d;
    return (kern_sum_part_t){r->offset / a + (h0 - task->h0) * head + (row0 - r->row0) * d, head};
}

/* Rows [row0, row1) and heads [h0, h1) of a piece in which every task of the document covers all or
 * nothing. */
static base_status_t add_sum(as_schedule_t *s, int32_t p, int32_t task0, int32_t task1,
                             int64_t row0, int64_t row1, int32_t h0, int32_t h1)
{
    const data_piece_t *piece = &s->batch->pieces[p];
    const int64_t d = s->shape.head_dim;
    as_list_t *parts = &s->parts[piece->half];
    kern_sum_t sum = {.dst =
                          (h0 * s->shape.head_rows + piece->local_row + row0 - piece->doc_row) * d,
                      .dst_head = s->shape.head_rows * d,
                      .count = (row1 - row0) * d,
                      .heads = h1 - h0,
                      .first_part = parts->count};
    for (int32_t i = task0; i < task1; i++) {
        const as_task_t *task = &s->plan->tasks[i];
        if (task->h0 > h0 || task->h1 < h1 || task->k0 > row0 || task->q1 < row1) continue;
        const kern_sum_part_t part = part_of(s, i, p, row0, h0);
        BASE_TRY(as_list_push(parts, &part));
        sum.num_parts++;
    }
    return as_list_push(&s->sums[piece->half], &sum);
}

static base_status_t add_piece(as_schedule_t *s, int32_t p)
{
    const data_piece_t *piece = &s->batch->pieces[p];
    const int64_t begin = piece->doc_row, end = piece->doc_row + piece->rows;
    const int32_t task0 = first_task(s->plan, piece->document),
                  task1 = first_task(s->plan, piece->document + 1);
    s->row_cuts.count = s->head_cuts.count = 0;
    BASE_TRY(as_list_push(&s->row_cuts, &begin));
    BASE_TRY(as_list_push(&s->row_cuts, &end));
    for (int32_t i = task0; i < task1; i++) {
        const as_task_t *task = &s->plan->tasks[i];
        const int64_t heads[2] = {task->h0, task->h1}, rows[2] = {task->k0, task->q1};
        for (int side = 0; side < 2; side++) {
            BASE_TRY(as_list_push(&s->head_cuts, &heads[side]));
            if (rows[side] > begin && rows[side] < end)
                BASE_TRY(as_list_push(&s->row_cuts, &rows[side]));
        }
    }
    make_set(&s->row_cuts);
    make_set(&s->head_cuts);
    const int64_t *rows = s->row_cuts.items, *heads = s->head_cuts.items;
    for (int64_t h = 0; h + 1 < s->head_cuts.count; h++)
        for (int64_t r = 0; r + 1 < s->row_cuts.count; r++)
            BASE_TRY(add_sum(s, p, task0, task1, rows[r], rows[r + 1], (int32_t)heads[h],
                             (int32_t)heads[h + 1]));
    return BASE_OK;
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
    if (trainer < 0) return BASE_OK;
    for (int32_t p = 0; p < s->batch->num_pieces; p++)
        if (s->batch->pieces[p].trainer == trainer) BASE_TRY(add_piece(s, p));
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        BASE_TRY(add_pads(s, half, trainer));
    return BASE_OK;
}
