/* DistCA's scheduler as an arm of comparisons: its greedy as the paper gives it (arXiv 2510.18121,
 * section 4 and appendix B) and as its repository ships it (hao-ai-lab/DistCA,
 * distca/planner/planner.py), written anew from their description.
 *
 * Common: every trainer is a server; each half is planned by itself; cost is (q, k) pairs; all KV
 * heads of a row go together; servers below the mean load take, most needy first, from those above
 * it, one item at a time: the one with most pairs for its bytes.
 *   published   bytes by appendix B, for the best place of the shard within its item; shards are
 *               multiples of 128 rows; both sides are brought within (1 +- tolerance) of the mean
 *   shipped     bytes as the code estimates them; a document is divided in head and tail from its
 *               middle, at any row; servers below the mean stop at (1 - tolerance), those above are
 *               not looked at
 * Our reading where the description leaves it open: documents lie on the trainers as in the given
 * layout (theirs does the same: one after another, cut at the edges); what of a document lies on one
 * trainer is one item; with a cut edge it is divided from its end. */
#ifndef CADRE_TRAINER_SIMULATE_ARM_DISTCA_H
#define CADRE_TRAINER_SIMULATE_ARM_DISTCA_H

#include "attention_server/plan_judge.h"

typedef struct tr_distca_config {
    int shipped;
    int32_t tolerance_per_mille; /* of the mean load */
    int32_t num_kv_heads;
    int32_t q_bytes, kv_bytes; /* of a row of q, and of k and v, for the greedy's own estimate */
    int32_t max_documents, max_pieces, num_servers;
} tr_distca_config_t;

typedef struct tr_distca tr_distca_t;

base_status_t tr_distca_create(base_ctx_t *ctx, const tr_distca_config_t *config,
                               tr_distca_t **arm_p) BASE_MUST_CHECK;
void tr_distca_destroy(tr_distca_t *arm);

/* Tasks for as_judge_run (own_grid), in the order of a plan; they are not on the grid of a plan.
 * *tasks_p is the arm's and valid until its next call. Server s is trainer s. */
base_status_t tr_distca_run(tr_distca_t *arm, const data_batch_t *batch, const as_task_t **tasks_p,
                            int32_t *num_tasks_p) BASE_MUST_CHECK;

/* What its messages carry: backward sends q, o, d_o, lse, k and v again; dk and dv in the compute
 * type. */
void tr_distca_wire(int32_t group, int32_t head_dim, int32_t real_bytes, int32_t acc_bytes,
                    as_wire_t *wire);

#endif
