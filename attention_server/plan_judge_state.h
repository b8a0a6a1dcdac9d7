/* The judge's state. Private to attention_server/: plan_judge.c makes it and works out times,
 * plan_bytes.c counts what moves and what it takes. */
#ifndef CADRE_ATTENTION_SERVER_PLAN_JUDGE_STATE_H
#define CADRE_ATTENTION_SERVER_PLAN_JUDGE_STATE_H

#include "attention_server/plan_judge.h"

enum { AS_RECEIVED, AS_SENT, AS_DIRECTIONS };

/* Keys of the run at hand that one server needs for one KV head (as_need_t of schedule.h). */
typedef struct as_judge_need {
    int64_t row0, row1; /* row1 0: none */
    int32_t has_ping;
} as_judge_need_t;

/* The run at hand of one server: contiguous keys of the document (as_run_t of schedule.h). */
typedef struct as_judge_run {
    int64_t k0, k1; /* k1 0: none */
    int32_t h0, h1, retained;
    int32_t is_touched; /* in touched */
} as_judge_run_t;

struct as_judge {
    base_ctx_t *ctx;
    as_machine_t machine;
    int32_t num_kv_heads;
    const as_cost_t *cost; /* of the run at hand */
    const data_batch_t *batch;
    int64_t *busy;             /* [pass][half][server], ns at speed one */
    int64_t *bytes;            /* [half][flow][tier][direction][rank] */
    int64_t *scratch, *retain; /* [rank]; retain: of one layer */
    as_judge_need_t *needs;    /* [server][head] */
    as_judge_run_t *runs;      /* [server] */
    int32_t *touched;          /* servers with a run */
    int32_t num_touched;
};

static inline int64_t *as_judge_busy(const as_judge_t *j, int pass, int half)
{
    return j->busy + (int64_t)(2 * pass + half) * j->machine.topology->num_servers;
}

static inline int64_t *as_judge_bytes_of(const as_judge_t *j, int half, int flow, int tier,
                                         int direction)
{
    const int64_t row = ((half * AS_NUM_FLOWS + flow) * AS_NUM_TIERS + tier) * AS_DIRECTIONS;

    return j->bytes + (row + direction) * j->machine.topology->num_ranks;
}

/* Clears and counts bytes and memory of these tasks of j->batch. */
void as_judge_count(as_judge_t *j, const as_task_t *tasks, int32_t num_tasks);

#endif
