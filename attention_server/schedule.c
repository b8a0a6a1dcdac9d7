#include "attention_server/schedule.h"

typedef struct list_of {
    size_t offset, element_bytes;
    const char *what;
} list_of_t;

/* Every list of a schedule, for init and deinit. */
#define LIST(field, type)                                                                          \
    {                                                                                              \
        offsetof(as_schedule_t, field), sizeof(type), "schedule " #field                           \
    }
static const list_of_t schedule_lists[] = {
    LIST(info, as_task_info_t),
    LIST(run_keys, as_run_key_t),
    LIST(runs, as_run_t),
    LIST(run_members, int32_t),
    LIST(sort_entries, as_sort_entry_t),
    LIST(copies, as_local_copy_t),
    LIST(kernel_tasks, kern_attention_task_t),
    LIST(launch_keys, as_launch_key_t),
    LIST(launches, as_launch_t),
    LIST(waits, as_wait_t),
    LIST(received, as_received_t),
    LIST(grads, as_grad_t),
    LIST(terms, as_term_t),
    LIST(row_cuts, int64_t),
    LIST(head_cuts, int64_t),
    LIST(sums[DATA_PING], kern_sum_t),
    LIST(sums[DATA_PONG], kern_sum_t),
    LIST(parts[DATA_PING], kern_sum_part_t),
    LIST(parts[DATA_PONG], kern_sum_part_t),
    LIST(server_sums[DATA_PING], kern_sum_t),
    LIST(server_sums[DATA_PONG], kern_sum_t),
    LIST(server_parts[DATA_PING], kern_sum_part_t),
    LIST(server_parts[DATA_PONG], kern_sum_part_t),
    LIST(pads[DATA_PING], as_pad_t),
    LIST(pads[DATA_PONG], as_pad_t),
};
#undef LIST
#define NUM_LISTS (sizeof schedule_lists / sizeof *schedule_lists)

static as_list_t *list_at(as_schedule_t *s, size_t i)
{
    return (as_list_t *)((char *)s + schedule_lists[i].offset);
}

void as_schedule_init(as_schedule_t *s, base_ctx_t *ctx, const as_topology_t *topology,
                      const as_shape_t *shape, int rank)
{
    *s = (as_schedule_t){.topology = topology, .shape = *shape, .rank = rank};
    for (size_t i = 0; i < NUM_LISTS; i++)
        as_list_init(list_at(s, i), ctx, schedule_lists[i].element_bytes, schedule_lists[i].what);
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        for (int leg = 0; leg < AS_NUM_LEGS; leg++) {
            as_list_init(&s->legs[half][leg].entries, ctx, sizeof(as_entry_t), "exchange entries");
            as_list_init(&s->legs[half][leg].peers, ctx, sizeof(as_peer_span_t), "exchange peers");
        }
}

void as_schedule_deinit(as_schedule_t *s)
{
    for (size_t i = 0; i < NUM_LISTS; i++)
        as_list_deinit(list_at(s, i));
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        for (int leg = 0; leg < AS_NUM_LEGS; leg++) {
            as_list_deinit(&s->legs[half][leg].entries);
            as_list_deinit(&s->legs[half][leg].peers);
        }
}

base_status_t as_schedule_reserve(as_schedule_t *s, int32_t max_tasks)
{
    for (size_t i = 0; i < NUM_LISTS; i++)
        BASE_TRY(as_list_reserve(list_at(s, i), 4 * (int64_t)max_tasks));
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        for (int leg = 0; leg < AS_NUM_LEGS; leg++) {
            BASE_TRY(as_list_reserve(&s->legs[half][leg].entries, 4 * (int64_t)max_tasks));
            BASE_TRY(as_list_reserve(&s->legs[half][leg].peers, s->topology->num_ranks));
        }
    return BASE_OK;
}

base_status_t as_schedule_build(as_schedule_t *s, const data_batch_t *batch, const as_plan_t *plan)
{
    s->batch = batch;
    s->plan = plan;
    BASE_TRY(as_schedule_runs(s));
    BASE_TRY(as_schedule_transfers(s));
    BASE_TRY(as_schedule_launches(s));
    return as_schedule_sums(s);
}
