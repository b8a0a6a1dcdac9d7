/* The attention seam: core attention as an asynchronous service.
 *
 * trainer/ gives q, k, v (or d_o) of one half and layer and later takes o (or dq, dk, dv); where
 * the CA-tasks run is the plan's business. The same calls serve every placement, also one rank.
 *
 * The static program of a layer, the same on every rank and known to all from the plan (dense steps
 * only on trainers):
 *
 *   forward    finish(ping, l-1) dense(ping, l) begin(ping, l)
 *              finish(pong, l-1) dense(pong, l) begin(pong, l)
 *              serve(ping, l) serve(pong, l)
 *   backward   finish(pong, l+1) dense(pong, l) begin(pong, l)
 *              finish(ping, l+1) dense(ping, l) begin(ping, l)
 *              serve(pong, l) serve(ping, l)
 *
 * begin sends q, k, v to the servers, serve runs this rank's tasks on its compute stream and sends
 * the results back, finish makes the compute stream wait for what this rank is owed. begin and
 * serve wait on the host only while COMM_MAX_OPEN_EXCHANGES exchanges of the half are open (and on
 * the cpu device the waits of the compute stream block). Every rank of the group makes the same
 * sequence of begin, serve and finish; a pool rank passes tensors = NULL.
 *
 * Spanning documents: a tail task (pong) reads the head's k and v of the same layer, which ping's
 * exchange has put where the task needs them; therefore ping is finished only after pong was
 * served, and in the backward ping's begin precedes pong's serve, as above. Other orders are
 * BASE_ERR_STATE.
 *
 * Bits (invariant Placement): o, lse and dq are the same for every plan. dk and dv are the same for
 * every plan with the same cuts, whoever computes: every task's partial sums (acc) go to the owner
 * of the rows, which adds them in ascending q0; a sum of one part is rounded by the task, where that is
 * possible, and has the same bits. With sums_per_server a server adds the partial sums
 * of its tasks of a document, in ascending q0, rounds once to the compute dtype and sends that; the
 * owner adds one such sum for each server, in ascending server. Then dk and dv are the same for the
 * same plan, and much less is sent.
 *
 * All work is ordered on the compute stream given at creation. Errors of later work stick to that
 * stream. One thread. */
#ifndef CADRE_ATTENTION_SERVER_ATTENTION_H
#define CADRE_ATTENTION_SERVER_ATTENTION_H

#include "attention_server/plan.h"
#include "base/arena.h"
#include "comm/comm.h"
#include "kernels/op.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct as_attention as_attention_t;
typedef enum as_direction { AS_FORWARD, AS_BACKWARD } as_direction_t;

/* Attention kinds of a model: full, and sliding window. */
#define AS_MAX_KINDS 2

typedef struct as_attention_config {
    kern_dtype_t dtype; /* of q, k, v, o; statistics are kern_dtype_acc(dtype) */
    int32_t num_q_heads, num_kv_heads, head_dim;
    double scale; /* of the scores */
    int32_t num_layers;
    int32_t num_kinds;
    int64_t window[AS_MAX_KINDS]; /* of each kind; 0: full */
    const int32_t *layer_kind;    /* [num_layers]; NULL: all kind 0; borrowed for the call */
    int64_t max_rows;             /* most rows of a half on a trainer */
    int64_t head_rows;          /* rows between KV heads in q, k, v, lse, dq, dk, dv; >= max_rows */
    int64_t o_pitch, d_o_pitch; /* elements between rows of o and d_o; >= num_q_heads head_dim */
    int32_t sums_per_server;    /* 0: dk, dv have the same bits whoever computes; 1: see above */
    int64_t scratch_bytes;      /* what a microbatch's staged pieces may take on this rank */
    int64_t retain_bytes;       /* what retained tasks may take, all layers */
    int32_t max_tasks;          /* lists are allocated for so many; a larger plan grows them */
} as_attention_config_t;

/* A half's tensors of one layer on a trainer. Shapes as in kernels/op.h: q (G, head_rows, R, D), k
 * and v (G, head_rows, D), lse (G, head_rows, R); o and d_o (rows, Q D) with the config's pitches.
 * Forward reads q, k, v and writes o, lse; backward reads q, k, v, o, lse, d_o and writes dq, dk,
 * dv. Pad rows of o, dq, dk, dv are set to zero. Between begin and finish they belong to the seam.
 * */
typedef struct as_tensors {
    base_mem_t q, k, v;
    base_mem_t o, lse;
    base_mem_t d_o;
    base_mem_t dq, dk, dv;
} as_tensors_t;

/* Declares its memory in `arena` (owner "attention_server"); usable once the arena is committed.
 * Borrows group, topology, arena and stream. The caller frees it with as_attention_destroy. Not
 * collective. */
base_status_t as_attention_create(base_ctx_t *ctx, const as_attention_config_t *config,
                                  const as_topology_t *topology, comm_group_t *group,
                                  base_arena_t *arena, base_stream_t *compute,
                                  as_attention_t **attention_p) BASE_MUST_CHECK;
/* Waits for nothing: the compute stream must have been synchronised. NULL is legal. */
void as_attention_destroy(as_attention_t *attention);

/* Installs the layout and the plans (one per kind) of the next microbatch: derives this rank's
 * tasks, exchange lists and sums. Both are borrowed until the next-but-one call of this function
 * returns. Waits on the host for the microbatch before the last (its lists are reused). MEM-01 when
 * the plan needs more than scratch_bytes or retain_bytes. After an error the group must be stopped:
 * other ranks may have succeeded. */
base_status_t as_attention_microbatch(as_attention_t *attention, const data_batch_t *batch,
                                      const as_plan_t *const *plans) BASE_MUST_CHECK;

base_status_t as_attention_begin(as_attention_t *attention, data_half_t half, int32_t layer,
                                 as_direction_t direction,
                                 const as_tensors_t *tensors) BASE_MUST_CHECK;
base_status_t as_attention_serve(as_attention_t *attention, data_half_t half, int32_t layer,
                                 as_direction_t direction) BASE_MUST_CHECK;
base_status_t as_attention_finish(as_attention_t *attention, data_half_t half) BASE_MUST_CHECK;

/* Makes the compute stream wait for the exchange that the half's last begin or serve has begun: to
 * take away what hides it, for comparison. (base_stream_settle of the compute stream does so with all
 * that is under way, on the ranks that call it.) */
base_status_t as_attention_settle(as_attention_t *attention, data_half_t half) BASE_MUST_CHECK;

/* Makes the compute stream wait until no peer reads this rank's memory any more. After the last
 * finish and before the final synchronisation; as_attention_microbatch does it itself. */
base_status_t as_attention_drain(as_attention_t *attention) BASE_MUST_CHECK;

/* What the installed microbatch takes and moves on this rank, for reports and tests. */
typedef struct as_attention_stats {
    int64_t tasks, local_tasks; /* served here; of those, rows that are here too */
    int64_t sent_bytes[2];      /* by direction, one layer of each kind, both halves */
    int64_t scratch_bytes, retain_bytes;
} as_attention_stats_t;
void as_attention_stats(const as_attention_t *attention, as_attention_stats_t *stats);

#ifdef __cplusplus
}
#endif
#endif
