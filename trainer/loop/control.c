#include "trainer/loop/control.h"

#include "base/memory.h"

#include <inttypes.h>
#include <string.h>

struct tr_control {
    const tr_trainer_t *trainer;
    comm_control_t *records;                  /* NULL: one rank, which asks itself; */
    tr_control_told_t own[TR_CONTROL_TRAVEL]; /* what it said in the last calls */
    int64_t calls;
};

base_status_t tr_control_create(const tr_trainer_t *trainer, tr_control_t **control_p)
{
    tr_control_t *c = base_calloc(trainer->ctx, 1, sizeof *c, "control");

    if (c == NULL) return BASE_ERR_NOMEM;
    c->trainer = trainer;
    if (trainer->topology->num_ranks > 1) {
        const base_status_t st = comm_control_create(
            trainer->group, base_stream_device(trainer->stream), TR_CONTROL_TRAVEL, &c->records);
        if (st < 0) {
            tr_control_destroy(c);
            return st;
        }
    }
    *control_p = c;
    return BASE_OK;
}

void tr_control_destroy(tr_control_t *control)
{
    if (control == NULL) return;
    comm_control_destroy(control->records);
    base_free(control->trainer->ctx, control);
}

static comm_control_record_t to_record(const tr_control_told_t *mine, uint64_t plan_hash)
{
    comm_control_record_t record = {.microbatch = mine->microbatch,
                                    .plan_hash = plan_hash,
                                    .wants = mine->wants,
                                    .num_events = mine->num_ends};

    for (int32_t i = 0; i < mine->num_ends; i++)
        record.events[i] = (comm_control_event_t){mine->ends[i].job, mine->ends[i].state};
    return record;
}

static int ends_differ(const comm_control_record_t *a, const comm_control_record_t *b)
{
    return a->num_events != b->num_events ||
           memcmp(a->events, b->events, (size_t)a->num_events * sizeof a->events[0]) != 0;
}

/* All trainers have computed their results from the same bits. */
static base_status_t compare_ends(const tr_control_t *c, const comm_control_record_t *all)
{
    const as_topology_t *t = c->trainer->topology;
    const comm_control_record_t *first = &all[t->trainer_rank[0]];

    for (int32_t i = 1; i < t->num_trainers; i++) {
        const int32_t rank = t->trainer_rank[i];

        if (ends_differ(first, &all[rank]))
            return BASE_FAIL(c->trainer->ctx, BASE_ERR_MISMATCH, BASE_MSG_COMM_03,
                             "microbatch %" PRId64
                             ": ranks %d and %d have different results: %d and %d jobs end",
                             first->microbatch, t->trainer_rank[0], rank, first->num_events,
                             all[rank].num_events);
    }
    return BASE_OK;
}

static void take_records(const tr_control_t *c, const comm_control_record_t *all,
                         tr_control_told_t *told)
{
    const as_topology_t *t = c->trainer->topology;
    const comm_control_record_t *first = &all[t->trainer_rank[0]];

    told->microbatch = first->microbatch;
    for (int32_t r = 0; r < t->num_ranks; r++)
        told->wants |= all[r].wants;
    told->num_ends = first->num_events;
    for (int32_t i = 0; i < told->num_ends; i++)
        told->ends[i] = (tr_control_end_t){first->events[i].subject, first->events[i].kind};
}

base_status_t tr_control_exchange(tr_control_t *control, const tr_control_told_t *mine,
                                  uint64_t plan_hash, tr_control_told_t *told)
{
    const comm_control_record_t record = to_record(mine, plan_hash);
    const comm_control_record_t *all = NULL;
    const int64_t call = control->calls++;

    *told = (tr_control_told_t){.microbatch = -1};
    if (control->records == NULL) {
        if (call >= TR_CONTROL_TRAVEL) *told = control->own[call % TR_CONTROL_TRAVEL];
        control->own[call % TR_CONTROL_TRAVEL] = *mine;
        return BASE_OK;
    }
    BASE_TRY(comm_control_exchange(control->records, &record, &all));
    if (all == NULL) return BASE_OK;
    BASE_TRY(compare_ends(control, all));
    take_records(control, all, told);
    return BASE_OK;
}

base_status_t tr_control_finish(tr_control_t *control)
{
    return control->records == NULL ? BASE_OK : comm_control_finish(control->records);
}
