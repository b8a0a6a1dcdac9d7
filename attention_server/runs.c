/* Task info, KV runs, and where staged pieces lie on their server. */
#include "attention_server/schedule.h"

#include "base/sort.h"

static int compare_run_keys(const void *pa, const void *pb, const void *unused)
{
    (void)unused;
    const as_run_key_t *a = pa, *b = pb;
    if (a->server != b->server) return a->server < b->server ? -1 : 1;
    if (a->document != b->document) return a->document < b->document ? -1 : 1;
    if (a->k0 != b->k0) return a->k0 < b->k0 ? -1 : 1;
    return a->task < b->task ? -1 : a->task > b->task;
}

static base_status_t fill_info(as_schedule_t *s)
{
    const as_plan_t *plan = s->plan;
    s->info.count = 0;
    BASE_TRY(as_list_resize(&s->info, plan->num_tasks));
    s->run_keys.count = 0;
    for (int32_t i = 0; i < plan->num_tasks; i++) {
        const as_task_t *task = &plan->tasks[i];
        const data_piece_t *piece = &s->batch->pieces[task->piece];
        as_task_info_t *info = as_info(s, i);
        info->owner_rank = s->topology->trainer_rank[piece->trainer];
        info->server_rank = s->topology->server_rank[task->server];
        info->half = piece->half;
        info->local_row = piece->local_row + task->q0 - piece->doc_row;
        info->in_place = info->owner_rank == info->server_rank && task->k0 >= piece->doc_row;
        info->run = -1;
        info->real = 0;
        if (!info->in_place) {
            const as_run_key_t key = {task->server, task->document, task->k0, i};
            BASE_TRY(as_list_push(&s->run_keys, &key));
        }
    }
    return BASE_OK;
}

/* Tasks in ascending k0 whose keys overlap share a run. Without a window that is one run per
 * document and server. */
static base_status_t merge_runs(as_schedule_t *s)
{
    as_run_key_t *keys = s->run_keys.items;
    base_sort(keys, s->run_keys.count, sizeof *keys, compare_run_keys, NULL);
    s->runs.count = 0;
    s->run_members.count = 0;
    for (int64_t i = 0; i < s->run_keys.count; i++) {
        const as_task_t *task = &s->plan->tasks[keys[i].task];
        as_run_t *run = s->runs.count > 0 ? (as_run_t *)s->runs.items + s->runs.count - 1 : NULL;
        if (run == NULL || run->server != task->server || run->document != task->document ||
            task->k0 >= run->k1) {
            const as_run_t fresh = {.server = task->server,
                                    .document = task->document,
                                    .h0 = task->h0,
                                    .h1 = task->h1,
                                    .k0 = task->k0,
                                    .k1 = task->q1,
                                    .first_member = i};
            BASE_TRY(as_list_push(&s->runs, &fresh));
            run = (as_run_t *)s->runs.items + s->runs.count - 1;
        }
        if (task->h0 < run->h0) run->h0 = task->h0;
        if (task->h1 > run->h1) run->h1 = task->h1;
        run->k1 = as_max(run->k1, task->q1);
        run->retained |= task->retained;
        if (as_info(s, keys[i].task)->half == DATA_PONG &&
            data_batch_piece_at(s->batch, task->document, run->k0)->half == DATA_PING)
            run->spans = 1;
        run->num_members++;
        as_info(s, keys[i].task)->run = (int32_t)(s->runs.count - 1);
        BASE_TRY(as_list_push(&s->run_members, &keys[i].task));
    }
    return BASE_OK;
}

as_need_t as_run_need(const as_schedule_t *s, const as_run_t *run, int32_t h)
{
    const int32_t *members = (const int32_t *)s->run_members.items + run->first_member;
    as_need_t need = {.row0 = INT64_MAX, .only = -1};
    for (int64_t i = 0; i < run->num_members; i++) {
        const as_task_t *task = &s->plan->tasks[members[i]];
        if (h < task->h0 || h >= task->h1) continue;
        need.only = need.row1 > 0 ? -1 : members[i];
        need.row0 = as_min(need.row0, task->k0);
        need.row1 = as_max(need.row1, task->q1);
        need.has_ping |= as_info(s, members[i])->half == DATA_PING;
    }
    return need;
}

static int64_t take(int64_t *cursor, int64_t bytes)
{
    const int64_t offset = *cursor;
    *cursor = as_align(offset + bytes);
    return offset;
}

/* Staged q, o, lse and so on of the tasks served here whose rows are elsewhere. */
static void place_tasks(as_schedule_t *s, int64_t *scratch, int64_t *keep)
{
    const as_shape_t *sh = &s->shape;
    for (int32_t i = 0; i < s->plan->num_tasks; i++) {
        const as_task_t *task = &s->plan->tasks[i];
        as_task_info_t *info = as_info(s, i);
        if (info->server_rank != s->rank) continue;
        s->tasks_here++;
        if (info->owner_rank == s->rank) {
            s->local_tasks++;
            continue;
        }
        const int64_t lanes = (task->q1 - task->q0) * (task->h1 - task->h0) * sh->group;
        int64_t *where = task->retained ? keep : scratch;
        info->q = take(where, lanes * sh->head_dim * sh->real_bytes);
        info->lse = take(where, lanes * sh->acc_bytes);
        info->o =
            take(scratch, lanes * sh->head_dim * sh->real_bytes); /* later dq: o has left by then */
        info->d_o = take(scratch, lanes * sh->head_dim * sh->real_bytes);
        info->delta = take(scratch, lanes * sh->acc_bytes);
    }
}

static int64_t run_bytes(const as_schedule_t *s, const as_run_t *run)
{
    return (run->k1 - run->k0) * (run->h1 - run->h0) * s->shape.head_dim * s->shape.real_bytes;
}

/* k of all runs one after another, then v of all: one distance from k to v serves every task. */
static void place_runs(as_schedule_t *s, int64_t *scratch, int64_t *keep)
{
    const int64_t scratch0 = *scratch, keep0 = *keep;
    for (int64_t r = 0; r < s->runs.count; r++) {
        as_run_t *run = (as_run_t *)s->runs.items + r;
        if (s->topology->server_rank[run->server] == s->rank)
            run->k_offset = take(run->retained ? keep : scratch, run_bytes(s, run));
    }
    s->run_stride = *scratch - scratch0;
    s->keep_stride = *keep - keep0;
    *scratch += s->run_stride;
    *keep += s->keep_stride;
}

base_status_t as_schedule_runs(as_schedule_t *s)
{
    BASE_TRY(fill_info(s));
    BASE_TRY(merge_runs(s));
    s->tasks_here = s->local_tasks = 0;
    int64_t scratch = 0, keep = 0;
    place_tasks(s, &scratch, &keep);
    place_runs(s, &scratch, &keep);
    s->scratch_bytes = scratch;
    s->keep_bytes = keep;
    return BASE_OK;
}
