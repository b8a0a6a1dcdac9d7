/* Servers of tasks whose cuts were not made for them, and what they retain. */
#include "attention_server/plan_work.h"
#include "attention_server/schedule.h"

#include "base/sort.h"

#include <string.h>

/* goal, done with by now, counts what each server has. */

typedef struct order {
    const as_planner_t *p;
    const as_plan_t *plan;
} order_t;

static int64_t task_work(const as_planner_t *p, const as_task_t *task)
{
    return as_cost_task(p->config.cost, AS_COST_BOTH, task);
}

/* Longest first; ties in the order of the rows. */
static int by_work(const void *a, const void *b, const void *arg)
{
    const order_t *o = arg;
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    const int c =
        base_compare_i64(task_work(o->p, &o->plan->tasks[j]), task_work(o->p, &o->plan->tasks[i]));

    return c != 0 ? c : base_compare_i64(i, j);
}

/* Every trainer is a server of the same speed: the servers are those that the cuts were made for. */
static int as_reference(const as_machine_t *m)
{
    if (m->topology->placement != AS_IN_PLACE) return 0;
    for (int32_t s = 1; s < m->topology->num_servers; s++)
        if (as_machine_speed(m, s) != as_machine_speed(m, 0)) return 0;
    return 1;
}

/* Where it would end first. */
static int32_t least_loaded(const as_planner_t *p, int64_t work)
{
    const as_machine_t *m = p->config.machine;
    int64_t least = INT64_MAX;
    int32_t chosen = 0;

    for (int32_t s = 0; s < m->topology->num_servers; s++) {
        const int64_t end = as_at_speed(p->goal[s] + work, as_machine_speed(m, s));

        if (end < least) {
            least = end;
            chosen = s;
        }
    }
    return chosen;
}

/* Longest first: to the nearest server while that has less than its share, else where it ends
 * first. */
static void assign_free(as_planner_t *p, as_plan_t *plan)
{
    const as_machine_t *m = p->config.machine;
    const order_t order = {p, plan};
    int64_t total = 0, speeds = 0;

    memset(p->goal, 0, (size_t)m->topology->num_servers * sizeof *p->goal);
    for (int32_t s = 0; s < m->topology->num_servers; s++)
        speeds += as_machine_speed(m, s);
    for (int32_t i = 0; i < plan->num_tasks; i++) {
        p->order[i] = i;
        total += task_work(p, &plan->tasks[i]);
    }
    base_sort(p->order, plan->num_tasks, sizeof *p->order, by_work, &order);
    for (int32_t i = 0; i < plan->num_tasks; i++) {
        as_task_t *task = &plan->tasks[p->order[i]];
        const int64_t work = task_work(p, task);
        const int32_t near = p->trainer_nearest[p->batch->pieces[task->piece].trainer];
        const int64_t share = total / speeds * as_machine_speed(m, near);

        task->server = p->goal[near] + work <= share ? near : least_loaded(p, work);
        p->goal[task->server] += work;
    }
}

void as_plan_assign(as_planner_t *p, as_plan_t *plan)
{
    const as_topology_t *t = p->config.machine->topology;

    if (p->config.cuts_follow_servers) return;
    if (t->placement == AS_LOCAL)
        for (int32_t i = 0; i < plan->num_tasks; i++)
            plan->tasks[i].server =
                p->trainer_nearest[p->batch->pieces[plan->tasks[i].piece].trainer];
    else if (as_reference(p->config.machine))
        for (int32_t i = 0; i < plan->num_tasks; i++)
            plan->tasks[i].server = t->rank_server[t->trainer_rank[plan->tasks[i].server]];
    else
        assign_free(p, plan);
}

/* ==== retention ==== */

/* Bytes of one layer that a retained task takes, about: its own q and lse when they come from
 * elsewhere, and all its keys, as if no other task had them. */
static int64_t retained_bytes(const as_planner_t *p, const as_task_t *task)
{
    const as_machine_t *m = p->config.machine;
    const as_topology_t *t = m->topology;
    const as_wire_t *w = &m->wire;
    const data_piece_t *piece = &p->batch->pieces[task->piece];
    const int far = t->server_rank[task->server] != t->trainer_rank[piece->trainer];
    const int64_t heads = task->h1 - task->h0;
    int64_t bytes = 0;

    if (far)
        bytes += 2 * AS_ALIGN + (task->q1 - task->q0) * heads *
                                    (w->row[AS_FLOW_BWD_OUT][0] - w->row[AS_FLOW_BWD_OUT][1]);
    if (far || task->k0 < piece->doc_row)
        bytes += 2 * AS_ALIGN + (task->q1 - task->k0) * heads * w->key[AS_FLOW_FWD_OUT][0];
    return bytes;
}

void as_plan_retain(as_planner_t *p, as_plan_t *plan)
{
    const as_machine_t *m = p->config.machine;

    memset(p->goal, 0, (size_t)m->topology->num_servers * sizeof *p->goal);
    for (int32_t i = 0; i < plan->num_tasks; i++) {
        as_task_t *task = &plan->tasks[i];

        task->retained = p->config.retain;
        if (!task->retained || m->retain_bytes == NULL) continue;
        const int64_t bytes = retained_bytes(p, task);
        const int64_t room = m->retain_bytes[task->server] / m->num_layers / AS_PAGE * AS_PAGE;

        task->retained = p->goal[task->server] + bytes <= room;
        if (task->retained) p->goal[task->server] += bytes;
    }
}
