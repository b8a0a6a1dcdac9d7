/* Planning: cuts documents into CA-tasks and gives them to servers.
 *
 * A planner is a pure function of layout, topology and options, in 64-bit integers with total
 * tie-break orders: every rank computes the same plan (hashes are compared). It writes into a plan
 * that was allocated before. */
#ifndef CADRE_ATTENTION_SERVER_PLAN_H
#define CADRE_ATTENTION_SERVER_PLAN_H

#include "attention_server/task.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct as_plan_options {
    int64_t window; /* 0: full */
    int32_t num_kv_heads;
    int32_t retain; /* 1: all tasks retained; 0: all resent */
} as_plan_options_t;

/* The first planner, now for tests of the seam: a run has as_planner_run (planner.h). Cuts along
 * tokens only, on the document's 128-row grid, into tasks of at most 1 / (4 trainers) of their half's
 * (q, k) pairs (one tile of 128 rows may have more); then greedy longest-first per half, to the
 * server on the rows' own rank where that does not lift it above the mean load, else to the least
 * loaded one. With AS_LOCAL always to the own one. The cuts depend on the layout alone, not on the
 * servers, so that the sums of dk and dv have the same bits whichever servers compute (placement
 * invariance end to end). A plan of capacity batch->num_pieces + 16 trainers always suffices; less
 * is BASE_ERR_ARG when it turns out too small. */
base_status_t as_plan_token(base_ctx_t *ctx, const as_plan_options_t *options,
                            const data_batch_t *batch, const as_topology_t *topology,
                            as_plan_t *plan) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
