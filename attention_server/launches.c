/* Kernel calls of this rank's tasks: grouped by where their operands lie, local ones first, each
 * with the exchanges that it has to wait for. */
#include "attention_server/schedule.h"

#include "base/sort.h"

static int compare_launch_keys(const void *pa, const void *pb, const void *unused)
{
    (void)unused;
    const as_launch_key_t *a = pa, *b = pb;
    const int32_t as[] = {a->half, a->remote, a->kv_region, a->retained, a->owner, a->task};
    const int32_t bs[] = {b->half, b->remote, b->kv_region, b->retained, b->owner, b->task};
    for (size_t i = 0; i < sizeof as / sizeof *as; i++)
        if (as[i] != bs[i]) return as[i] < bs[i] ? -1 : 1;
    return 0;
}

static int same_launch(const as_launch_key_t *a, const as_launch_key_t *b)
{
    return a->half == b->half && a->remote == b->remote && a->kv_region == b->kv_region &&
           a->retained == b->retained && a->owner == b->owner;
}

static base_status_t collect_keys(as_schedule_t *s)
{
    s->launch_keys.count = 0;
    for (int32_t i = 0; i < s->plan->num_tasks; i++) {
        const as_task_info_t *info = as_info(s, i);
        if (info->server_rank != s->rank) continue;
        const int32_t remote = info->owner_rank != s->rank;
        as_launch_key_t key = {.half = info->half,
                               .remote = remote,
                               .kv_region = AS_REGION_K,
                               .task = i,
                               .retained = remote && s->plan->tasks[i].retained,
                               .owner = info->owner_rank};
        if (info->run >= 0)
            key.kv_region = ((const as_run_t *)s->runs.items + info->run)->retained
                                ? AS_REGION_KEEP
                                : AS_REGION_SCRATCH;
        BASE_TRY(as_list_push(&s->launch_keys, &key));
    }
    base_sort(s->launch_keys.items, s->launch_keys.count, sizeof(as_launch_key_t),
              compare_launch_keys, NULL);
    return BASE_OK;
}

static kern_attention_task_t kernel_task(const as_schedule_t *s, int32_t i)
{
    const as_shape_t *sh = &s->shape;
    const as_task_t *task = &s->plan->tasks[i];
    const as_task_info_t *info = as_info(s, i);
    const int64_t rows = task->q1 - task->q0, heads = task->h1 - task->h0,
                  lane = (int64_t)sh->group * sh->head_dim;
    const int64_t e = sh->real_bytes, a = sh->acc_bytes;
    kern_attention_task_t k = {
        .q_row0 = task->q0, .q_rows = rows, .kv_row0 = task->k0, .kv_heads = (int32_t)heads};

    if (info->owner_rank == s->rank) {
        const int64_t head_row = task->h0 * sh->head_rows + info->local_row;
        k.q = k.dq = head_row * lane;
        k.q_head = k.dq_head = sh->head_rows * lane;
        k.lse = k.delta = head_row * sh->group;
        k.lse_head = k.delta_head = sh->head_rows * sh->group;
        k.o = info->local_row * sh->o_pitch + task->h0 * lane;
        k.o_row = sh->o_pitch;
        k.d_o = info->local_row * sh->d_o_pitch + task->h0 * lane;
        k.d_o_row = sh->d_o_pitch;
    } else {
        k.q = info->q / e;
        k.dq = info->o / e;
        k.q_head = k.dq_head = rows * lane;
        k.lse = info->lse / a;
        k.delta = info->delta / a;
        k.lse_head = k.delta_head = rows * sh->group;
        k.o = info->o / e;
        k.d_o = info->d_o / e;
        k.o_row = k.d_o_row = heads * lane;
    }
    k.o_head = k.d_o_head = lane;
    if (info->in_place) {
        const data_piece_t *piece = &s->batch->pieces[task->piece];
        k.kv = (task->h0 * sh->head_rows + piece->local_row + task->k0 - piece->doc_row) *
               sh->head_dim;
        k.kv_head = sh->head_rows * sh->head_dim;
    } else {
        const as_run_t *run = (const as_run_t *)s->runs.items + info->run;
        k.kv_head = (run->k1 - run->k0) * sh->head_dim;
        k.kv = run->k_offset / e + (task->h0 - run->h0) * k.kv_head +
               (task->k0 - run->k0) * sh->head_dim;
    }
    k.real = info->real;
    k.dkv = info->partial / (info->real ? e : a);
    k.dkv_head = (task->q1 - task->k0) * sh->head_dim;
    if (info->real && info->in_place) { /* dk and dv lie as k and v do */
        k.dkv = k.kv;
        k.dkv_head = k.kv_head;
    }
    return k;
}

/* Adds {half, peer} once to the waits from `first` on. */
static base_status_t add_wait(as_schedule_t *s, int64_t first, int32_t half, int32_t peer)
{
    const as_wait_t *waits = s->waits.items;
    for (int64_t w = first; w < s->waits.count; w++)
        if (waits[w].half == half && waits[w].peer == peer) return BASE_OK;
    const as_wait_t wait = {half, peer};
    return as_list_push(&s->waits, &wait);
}

/* Whom a task waits for: the owner of its rows, and the owners of its keys unless the keys stay
 * from the forward. */
static base_status_t add_task_waits(as_schedule_t *s, int64_t first, int32_t i,
                                    as_direction_t direction)
{
    const as_task_t *task = &s->plan->tasks[i];
    const as_task_info_t *info = as_info(s, i);
    if (info->owner_rank != s->rank) BASE_TRY(add_wait(s, first, info->half, info->owner_rank));
    if (info->in_place) return BASE_OK;
    if (direction == AS_BACKWARD && ((const as_run_t *)s->runs.items + info->run)->retained)
        return BASE_OK;
    for (int32_t p = s->batch->document_piece[task->document];
         p < s->batch->document_piece[task->document + 1]; p++) {
        const data_piece_t *piece = &s->batch->pieces[p];
        const int32_t owner = s->topology->trainer_rank[piece->trainer];
        if (owner != s->rank && piece->doc_row < task->q1 &&
            piece->doc_row + piece->rows > task->k0)
            BASE_TRY(add_wait(s, first, piece->half, owner));
    }
    return BASE_OK;
}

static base_status_t fill_waits(as_schedule_t *s, const as_launch_key_t *keys, int64_t count,
                                as_direction_t direction, int64_t *first_p, int64_t *count_p)
{
    *first_p = s->waits.count;
    for (int64_t i = 0; i < count; i++)
        BASE_TRY(add_task_waits(s, *first_p, keys[i].task, direction));
    *count_p = s->waits.count - *first_p;
    return BASE_OK;
}

/* Workspace of a backward call, of this task alone: those of several are together enough for all. */
static int64_t workspace_of(const as_schedule_t *s, const kern_attention_task_t *task)
{
    const kern_attention_bwd_t bwd = {.dtype = s->shape.dtype,
                                      .group = s->shape.group,
                                      .head_dim = s->shape.head_dim,
                                      .window = s->plan->window,
                                      .num_tasks = 1,
                                      .tasks = task};
    return s->shape.workspace_bytes > 0 ? kern_attention_bwd_workspace(&bwd) : 0;
}

/* Appends the kernel tasks of keys [begin, ...) that make one launch: the same places, and no more
 * than the workspace holds. Gives the end. */
static base_status_t fill_tasks(as_schedule_t *s, const as_launch_key_t *keys, int64_t begin,
                                int64_t *end_p)
{
    int64_t end = begin, workspace = 0;
    while (end < s->launch_keys.count && same_launch(&keys[begin], &keys[end])) {
        const kern_attention_task_t task = kernel_task(s, keys[end].task);
        workspace += workspace_of(s, &task);
        if (end > begin && workspace > s->shape.workspace_bytes) break;
        BASE_TRY(as_list_push(&s->kernel_tasks, &task));
        end++;
    }
    *end_p = end;
    return BASE_OK;
}

base_status_t as_schedule_launches(as_schedule_t *s)
{
    BASE_TRY(collect_keys(s));
    const as_launch_key_t *keys = s->launch_keys.items;
    s->kernel_tasks.count = s->launches.count = s->waits.count = 0;
    for (int64_t i = 0; i < s->launch_keys.count;) {
        int64_t end;
        BASE_TRY(fill_tasks(s, keys, i, &end));
        as_launch_t launch = {.half = keys[i].half,
                              .remote = keys[i].remote,
                              .retained = keys[i].retained,
                              .kv_region = (int8_t)keys[i].kv_region,
                              .first_task = i,
                              .num_tasks = end - i};
        BASE_TRY(
            fill_waits(s, keys + i, end - i, AS_FORWARD, &launch.first_wait, &launch.num_waits));
        BASE_TRY(fill_waits(s, keys + i, end - i, AS_BACKWARD, &launch.first_bwd_wait,
                            &launch.num_bwd_waits));
        BASE_TRY(as_list_push(&s->launches, &launch));
        i = end;
    }
    return BASE_OK;
}
