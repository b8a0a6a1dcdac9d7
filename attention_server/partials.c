/* Where tasks leave dk and dv, and the way home of every task's partial sums when the owner adds them
 * (without sums_per_server).
 *
 * A task to whose sums nothing is added rounds them itself, which gives the bits that a sum of one part would. One that has
 * all rows of its document where they are writes to the trainer's tensors. With sums_per_server one task's may also be
 * all that a server sends of a run's keys; then they leave from where the task left them. Every other task leaves
 * partial sums. A place in SCRATCH has room for partial sums, so that what is staged follows from tasks one by one
 * (plan_bytes.c). */
#include "attention_server/schedule.h"

/* Rows of a document on this rank: one piece of each half at most. */
typedef struct rows_here {
    int32_t document, num;
    int64_t row0[DATA_NUM_HALVES], row1[DATA_NUM_HALVES];
} rows_here_t;

static rows_here_t find_rows(const as_schedule_t *s, int32_t document)
{
    rows_here_t here = {.document = document};
    for (int32_t p = s->batch->document_piece[document]; p < s->batch->document_piece[document + 1];
         p++) {
        const data_piece_t *piece = &s->batch->pieces[p];
        if (s->topology->trainer_rank[piece->trainer] != s->rank) continue;
        here.row0[here.num] = piece->doc_row;
        here.row1[here.num++] = piece->doc_row + piece->rows;
    }
    return here;
}

static int has_some(const rows_here_t *here, int64_t row0, int64_t row1)
{
    for (int32_t i = 0; i < here->num; i++)
        if (as_max(row0, here->row0[i]) < as_min(row1, here->row1[i])) return 1;
    return 0;
}

/* Another task has gradients for keys of this one of which the owner is here, to whose sum they are added before it is
 * rounded. Of each head the task before reads all keys of this one up to its own rows, and no task after the next one
 * reads more of them than that. */
static int is_added_to(const as_schedule_t *s, const as_task_t *task, const rows_here_t *here)
{
    if (has_some(here, task->k0, task->q0)) return 1;
    return task->q1 < s->batch->documents[task->document].rows &&
           has_some(here, as_max(task->k0, as_task_first_key(task->q1, s->plan->window)), task->q1);
}

/* Of two tasks of a run that have a head in common, no one is alone. */
static void mark_shared(const as_schedule_t *s, const as_run_t *run)
{
    const int32_t *members = (const int32_t *)s->run_members.items + run->first_member;
    for (int32_t h = run->h0; h < run->h1; h++) {
        if (as_run_need(s, run, h).only >= 0) continue;
        for (int64_t m = 0; m < run->num_members; m++) {
            const as_task_t *task = &s->plan->tasks[members[m]];
            if (task->h0 <= h && h < task->h1) as_info(s, members[m])->real = 0;
        }
    }
}

static void mark_real(const as_schedule_t *s)
{
    rows_here_t here = {.document = -1};
    for (int32_t i = 0; i < s->plan->num_tasks; i++) { /* ascending document */
        const as_task_t *task = &s->plan->tasks[i];
        as_task_info_t *info = as_info(s, i);
        if (info->server_rank != s->rank) continue;
        if (here.document != task->document) here = find_rows(s, task->document);
        info->real = info->in_place ? as_task_is_whole(task, s->batch)
                                    : s->shape.sums_per_server && !is_added_to(s, task, &here);
    }
    for (int64_t r = 0; r < s->runs.count && s->shape.sums_per_server; r++) {
        const as_run_t *run = (const as_run_t *)s->runs.items + r;
        if (s->topology->server_rank[run->server] == s->rank) mark_shared(s, run);
    }
}

static void place_tasks(as_schedule_t *s)
{
    const int64_t lane = s->shape.head_dim * s->shape.acc_bytes;
    for (int32_t i = 0; i < s->plan->num_tasks; i++) {
        const as_task_t *task = &s->plan->tasks[i];
        as_task_info_t *info = as_info(s, i);
        if (info->server_rank != s->rank) continue;
        if (info->real && info->in_place) continue;
        info->partial = s->partial_stride;
        s->partial_stride =
            as_align(s->partial_stride + (task->h1 - task->h0) * (task->q1 - task->k0) * lane);
    }
}

/* dk, dv of a task's keys, piece by piece, to the trainers that hold them. Every task has its own
 * partial sums on its server; where the rows are elsewhere, the owner receives them beside its own.
 */
static base_status_t add_partials(as_schedule_t *s, int32_t i)
{
    const as_task_t *task = &s->plan->tasks[i];
    const as_task_info_t *info = as_info(s, i);
    const int64_t lane = s->shape.head_dim * s->shape.acc_bytes, heads = task->h1 - task->h0;
    const int64_t task_rows = task->q1 - task->k0;
    as_exchange_t *leg = &s->legs[info->half][AS_BWD_BACK];
    for (int32_t p = s->batch->document_piece[task->document];
         p < s->batch->document_piece[task->document + 1]; p++) {
        const data_piece_t *piece = &s->batch->pieces[p];
        const int64_t a = as_max(task->k0, piece->doc_row),
                      b = as_min(task->q1, piece->doc_row + piece->rows);
        const int32_t owner = s->topology->trainer_rank[piece->trainer];
        if (a >= b || owner == info->server_rank) continue;
        int64_t received = 0;
        if (owner == s->rank) {
            const as_received_t r = {
                .task = i, .piece = p, .row0 = a, .rows = b - a, .offset = s->partial_stride};
            received = r.offset;
            s->partial_stride = as_align(s->partial_stride + heads * (b - a) * lane);
            BASE_TRY(as_list_push(&s->received, &r));
        }
        const int64_t row_bytes = (b - a) * lane;
        for (int dv = 0; dv < 2; dv++) { /* the stride to dv is added when it is known */
            const int mark = dv ? DATA_PONG : DATA_PING;
            const as_place_t from = {AS_REGION_SCRATCH, mark, info->partial + (a - task->k0) * lane,
                                     task_rows * lane};
            const as_place_t to = {AS_REGION_SCRATCH, mark, received, row_bytes};
            BASE_TRY(as_schedule_transfer(s, leg, info->server_rank, owner, &from, &to, row_bytes,
                                          heads));
        }
    }
    return BASE_OK;
}

/* They lie behind everything else: [dk computed here | dk sent or received | dv computed here | dv
 * sent or received]. Until their sizes are known, offsets count from the start of the dk part, and
 * entries of dv carry the mark half = DATA_PONG. */
base_status_t as_schedule_partials(as_schedule_t *s)
{
    s->partial_stride = 0;
    s->received.count = s->grads.count = 0;
    mark_real(s);
    place_tasks(s);
    int64_t first[DATA_NUM_HALVES];
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        first[half] = s->legs[half][AS_BWD_BACK].entries.count;
    for (int32_t i = 0; i < s->plan->num_tasks && !s->shape.sums_per_server; i++)
        BASE_TRY(add_partials(s, i));
    if (s->shape.sums_per_server) BASE_TRY(as_schedule_grads(s));
    const int64_t base = s->scratch_bytes;
    for (int half = 0; half < DATA_NUM_HALVES; half++) {
        as_entry_t *entries = s->legs[half][AS_BWD_BACK].entries.items;
        for (int64_t e = first[half]; e < s->legs[half][AS_BWD_BACK].entries.count; e++) {
            entries[e].offset += base + (entries[e].half == DATA_PONG ? s->partial_stride : 0);
            entries[e].half = DATA_PING;
        }
    }
    for (int32_t i = 0; i < s->plan->num_tasks; i++)
        as_info(s, i)->partial += base;
    as_received_t *received = s->received.items;
    for (int64_t r = 0; r < s->received.count; r++)
        received[r].offset += base;
    as_grad_t *grads = s->grads.items;
    for (int64_t g = 0; g < s->grads.count; g++)
        grads[g].offset += base;
    s->scratch_bytes = base + 2 * s->partial_stride;
    return BASE_OK;
}
