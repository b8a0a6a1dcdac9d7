/* Where tasks leave dk and dv, and the way home of every task's partial sums when the owner adds them
 * (without sums_per_server).
 *
 * A task to whose sums nothing is added rounds them itself, which gives the bits that a sum of one part would. One that has
 * all rows of its document where they are writes to the trainer's tensors. With sums_per_server one task's may also be
 * all that a server sends of a run's keys; then they leave from where the task left them. Every other task leaves
 * partial sums. A place in SCRATCH has room for partial sums, so that what is staged follows from tasks one by one
 * (plan_bytes.c). */
#include "attention_server/schedule.h"

/* Of these rows of a document some lie on this rank. */
static int has_rows_here(const as_schedule_t *s, int32_t document, int64_t row0, int64_t row1)
{
    for (int32_t p = s->batch->document_piece[document]; p < s->batch->document_piece[document + 1];
         p++) {
        const data_piece_t *piece = &s->batch->pieces[p];
        if (s->topology->trainer_rank[piece->trainer] == s->rank && piece->doc_row < row1 &&
            piece->doc_row + piece->rows > row0)
            return 1;
    }
    return 0;
}

/* No other task of the run has any of its heads; and none anywhere gradients for those of its keys of
 * which the owner is here, to whose sum the others' are added before it is rounded. */
static int is_alone_in_run(const as_schedule_t *s, int32_t i)
{
    const as_task_t *task = &s->plan->tasks[i];
    const int32_t task1 = as_first_task(s->plan, task->document + 1);
    for (int32_t j = as_first_task(s->plan, task->document); j < task1; j++) {
        const as_task_t *other = &s->plan->tasks[j];
        if (j == i || other->h0 >= task->h1 || other->h1 <= task->h0) continue;
        if (as_info(s, j)->run == as_info(s, i)->run) return 0;
        if (as_tasks_share_keys(task, other) &&
            has_rows_here(s, task->document, as_max(task->k0, other->k0),
                          as_min(task->q1, other->q1)))
            return 0;
    }
    return 1;
}

static int is_real(const as_schedule_t *s, int32_t i)
{
    if (as_info(s, i)->in_place) return as_task_is_whole(&s->plan->tasks[i], s->batch);
    return s->shape.sums_per_server && is_alone_in_run(s, i);
}

static void place_tasks(as_schedule_t *s)
{
    const int64_t lane = s->shape.head_dim * s->shape.acc_bytes;
    for (int32_t i = 0; i < s->plan->num_tasks; i++) {
        const as_task_t *task = &s->plan->tasks[i];
        as_task_info_t *info = as_info(s, i);
        if (info->server_rank != s->rank) continue;
        info->real = is_real(s, i);
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
