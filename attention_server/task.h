/* CA-tasks, plans and who plays which part: the words that client, server and planner share. */
#ifndef CADRE_ATTENTION_SERVER_TASK_H
#define CADRE_ATTENTION_SERVER_TASK_H

#include "data/batch.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum as_placement {
    AS_IN_PLACE, /* every trainer is also a server */
    AS_POOL,     /* the last `servers` ranks of each host only serve */
    AS_LOCAL     /* every task runs where its rows are; no exchange */
} as_placement_t;

/* Roles of the ranks. Trainers and servers are numbered in ascending rank. */
typedef struct as_topology {
    as_placement_t placement;
    int32_t num_ranks, num_trainers, num_servers;
    int32_t *trainer_rank; /* [num_trainers] */
    int32_t *server_rank;  /* [num_servers] */
    int32_t *rank_trainer; /* [num_ranks], -1: none */
    int32_t *rank_server;  /* [num_ranks], -1: none */
    int32_t num_hosts;
    int32_t *rank_host; /* [num_ranks] */
    base_ctx_t *ctx;
} as_topology_t;

/* rank_host[r] is the host of rank r (copied; NULL: all on host 0). Hosts are numbered from 0
 * without gaps (else BASE_ERR_ARG); they may differ in size, and the ranks of a host need not be
 * consecutive. With AS_POOL the last servers_per_host ranks of each host only serve (at least 1, and
 * each host needs at least one trainer: BASE_ERR_CONFIG, CONF-04). With AS_IN_PLACE and AS_LOCAL
 * every rank is trainer and server of its own number, and servers_per_host is not looked at. The
 * caller frees it with as_topology_destroy. */
base_status_t as_topology_create(base_ctx_t *ctx, as_placement_t placement, int32_t num_ranks,
                                 const int32_t *rank_host, int32_t servers_per_host,
                                 as_topology_t **topology_p) BASE_MUST_CHECK;
void as_topology_destroy(as_topology_t *topology);

/* Most KV heads of a model: keeps pairs times heads of a batch in 63 bits (see DATA_MAX_ROWS). */
#define AS_MAX_KV_HEADS 1024

/* The unit that is shipped: q rows [q0, q1) of a document with keys [k0, q1), for KV heads [h0, h1)
 * and their query heads, in every layer of the plan's attention kind, forward and backward. Its q
 * rows lie in one piece. k0 = 0, or with a window W the multiple of 128 at or below
 * max(0, q0 - W + 1). q0 and q1 are multiples of 128 or edges of the piece. */
typedef struct as_task {
    int32_t document;
    int32_t piece;  /* index in the batch: gives half, trainer and local rows */
    int32_t server; /* index among the servers */
    int32_t h0, h1;
    int32_t retained; /* 1: the server keeps q, k, v and lse from the forward to the backward; 0:
                         they are sent again */
    int64_t q0, q1, k0;
} as_task_t;

/* Who runs what in one microbatch for one attention kind. Tasks in ascending (document, q0, h0).
 * Every (row, KV head) of every document is in exactly one task. */
typedef struct as_plan {
    int64_t microbatch;
    int64_t window; /* W; 0: full causal attention */
    int32_t num_kv_heads;
    int32_t num_tasks, capacity;
    as_task_t *tasks;
    uint64_t hash; /* of all the above, the layout and the topology; 0 until as_plan_finish */
    base_ctx_t *ctx;

    /* Private to task.c and the planners: counters of servers or of KV heads. */
    int64_t *scratch;
    int32_t capacity_scratch;
} as_plan_t;

base_status_t as_plan_create(base_ctx_t *ctx, int32_t max_tasks,
                             as_plan_t **plan_p) BASE_MUST_CHECK;
void as_plan_destroy(as_plan_t *plan);

/* Empties the plan; adds a task (BASE_ERR_ARG when full); sorts, checks every sentence above
 * against the finished layout and the topology (with AS_LOCAL also that each task runs where its
 * rows are) and sets the hash. as_plan_finish fails with BASE_ERR_INTERNAL and names document and
 * rows. */
base_status_t as_plan_begin(as_plan_t *plan, int64_t microbatch, int64_t window,
                            int32_t num_kv_heads) BASE_MUST_CHECK;
base_status_t as_plan_add(as_plan_t *plan, const as_task_t *task) BASE_MUST_CHECK;
base_status_t as_plan_finish(as_plan_t *plan, const data_batch_t *batch,
                             const as_topology_t *topology) BASE_MUST_CHECK;

/* For planners: makes scratch hold `count` numbers. Allocates only when `count` was never as large
 * in this plan; as_plan_begin does it for the KV heads. */
base_status_t as_plan_reserve(as_plan_t *plan, int32_t count) BASE_MUST_CHECK;

/* k0 of a task that begins at row q0. */
int64_t as_task_first_key(int64_t q0, int64_t window);
/* Whether a task has all rows of its document. */
int as_task_is_whole(const as_task_t *task, const data_batch_t *batch);
/* Whether some key of a KV head gets gradients from both. */
int as_tasks_share_keys(const as_task_t *a, const as_task_t *b);
/* (q, k) pairs of a task under its mask, times its KV heads: the unit of work until there is a cost
 * model. */
int64_t as_task_pairs(const as_task_t *task, int64_t window);

#ifdef __cplusplus
}
#endif
#endif
