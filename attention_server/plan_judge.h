/* What a plan costs: time of every server, bytes of every link, memory, and how far from the best
 * any plan could be.
 *
 * The judge knows nothing of how a plan came about; planners, tests and benchmarks all ask it.
 *
 *   as_judge_create(ctx, &machine, num_kv_heads, &judge);
 *   as_bounds_of(&machine, cost, num_kv_heads, batch, &bounds);
 *   as_judge_run(judge, cost, batch, &bounds, plan->tasks, plan->num_tasks, 0, &score);
 *
 * Model of one layer, one pass (forward; the backward is the same with pong first), of every rank:
 *
 *   compute   dense A | dense B | serve A    | serve B
 *   link               out A    | out B      | back A   | back B (under dense A of the next layer)
 *
 * A server starts serving a half when its inputs are there and its step before is done; results of
 * a half leave when the last server has finished it. The links of a rank carry one exchange at a
 * time, full duplex; links within a host and between hosts are separate. docs/planner.md has the
 * formulas. Integers only; no allocation after as_judge_create. One thread. */
#ifndef CADRE_ATTENTION_SERVER_PLAN_JUDGE_H
#define CADRE_ATTENTION_SERVER_PLAN_JUDGE_H

#include "attention_server/cost.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The four exchanges of a half. */
typedef enum as_flow {
    AS_FLOW_FWD_OUT,
    AS_FLOW_FWD_BACK,
    AS_FLOW_BWD_OUT,
    AS_FLOW_BWD_BACK,
    AS_NUM_FLOWS
} as_flow_t;

/* Bytes that travel, per row (or key row) and KV head, layer: [flow][retained]. */
typedef struct as_wire {
    int64_t row[AS_NUM_FLOWS][2];
    int64_t key[AS_NUM_FLOWS][2];
    int64_t partial; /* dk and dv of a task where it leaves them, per key row and KV head: memory */
    int32_t partial_per_task; /* 1: every task sends dk and dv over its own keys; 0: one sum for
                                 all tasks of a document on a server */
} as_wire_t;

/* The seam's own: q, k, v out; o and lse back; d_o and delta out, with q, lse, k, v unless
 * retained; dq and dk, dv back. real_bytes: of an element; grad_bytes: of an element of dk and dv
 * on their way. */
void as_wire_seam(int32_t group, int32_t head_dim, int32_t real_bytes, int32_t acc_bytes,
                  int32_t grad_bytes, as_wire_t *wire);

#define AS_SPEED_ONE 1024 /* speed of the server that the profile was measured on */

typedef enum as_tier { AS_SAME_HOST, AS_OTHER_HOST, AS_NUM_TIERS } as_tier_t;

/* Who computes and what connects them. Arrays are borrowed for the judge's life. */
typedef struct as_machine {
    const as_topology_t *topology;
    const int32_t *speed;         /* [num_servers], > 0; NULL: all AS_SPEED_ONE */
    const int64_t *scratch_bytes; /* [num_servers] for staged pieces; NULL: no limit */
    const int64_t
        *trainer_scratch_bytes;  /* one number for every rank that does not serve; or NULL */
    const int64_t *retain_bytes; /* [num_servers] for retained tasks, all layers; NULL: no limit */
    int32_t num_layers;          /* of the attention kind: what retained tasks take memory for */
    int64_t link_ps_per_kib[AS_NUM_TIERS];
    int64_t dense_ns[2]; /* dense layers of one half on a trainer, forward and backward */
    as_wire_t wire;
} as_machine_t;

static inline int32_t as_machine_speed(const as_machine_t *machine, int32_t server)
{
    return machine->speed != NULL ? machine->speed[server] : AS_SPEED_ONE;
}

typedef struct as_score {
    /* Compute, forward and backward together, both halves. */
    int64_t compute_ns; /* of the server that is busy longest */
    int64_t bound_ns;   /* no plan is faster: all work over all speeds, or the dearest tile row */
    /* One layer with its links; bound: its dense layers and the compute bound of the pass. */
    int64_t pass_ns[2], pass_bound_ns[2];
    /* Bytes of the busiest rank in one direction: all exchanges of a layer; of each flow. */
    int64_t link_bytes, flow_bytes[AS_NUM_FLOWS];
    int64_t duplex_bytes;  /* of the busiest rank, both directions together */
    int64_t network_bytes; /* link_bytes between hosts only */
    int64_t total_bytes;
    int64_t scratch_bytes, retain_bytes; /* of the rank with the most */
    int32_t num_tasks, num_remote;
    int32_t fits;    /* 1: no rank is over its memory */
    int32_t at_home; /* as_planner_run: a plan of last resort */
} as_score_t;

typedef struct as_judge as_judge_t;

base_status_t as_judge_create(base_ctx_t *ctx, const as_machine_t *machine, int32_t num_kv_heads,
                              as_judge_t **judge_p) BASE_MUST_CHECK;
void as_judge_destroy(as_judge_t *judge);

/* What no plan for these servers can beat: compute_ns and, of each pass alone, its compute. All
 * documents, each as one task, over all speeds, or on the fastest server the dearest rows that no plan
 * divides (of one KV head when the model has several, since those may be divided). */
typedef struct as_bounds {
    int64_t ns[AS_COST_KINDS];
} as_bounds_t;
void as_bounds_of(const as_machine_t *machine, const as_cost_t *cost, int32_t num_kv_heads,
                  const data_batch_t *batch, as_bounds_t *bounds);

/* Tasks in the order of a finished plan; `bounds` of the same machine and batch. With own_grid != 0 a
 * task's tile rows begin at its first row instead of lying on the document's grid (kernels that know
 * no document). */
void as_judge_run(as_judge_t *judge, const as_cost_t *cost, const data_batch_t *batch,
                  const as_bounds_t *bounds, const as_task_t *tasks, int32_t num_tasks,
                  int own_grid, as_score_t *score);

/* After as_judge_run. Time of a server in both halves and passes, at its own speed; bytes of a rank
 * in one direction (1: sent), all exchanges, or of one half and flow; memory of a rank, exactly what
 * the seam will take for one kind (as_attention_stats), with num_layers of all kinds. */
int64_t as_judge_server_ns(const as_judge_t *judge, int32_t server);
int64_t as_judge_link_bytes(const as_judge_t *judge, int32_t rank, int sent);
int64_t as_judge_flow_bytes(const as_judge_t *judge, int32_t rank, data_half_t half, as_flow_t flow,
                            int sent);
int64_t as_judge_scratch_bytes(const as_judge_t *judge, int32_t rank);
int64_t as_judge_retain_bytes(const as_judge_t *judge, int32_t rank);

/* ceil(ns * AS_SPEED_ONE / speed) without overflow. */
int64_t as_at_speed(int64_t ns, int64_t speed);

#ifdef __cplusplus
}
#endif
#endif
