/* The plans of a microbatch, one for each attention kind of the model: planner and cost model
 * (attention_server/planner.h), set up once for a rank's lots.
 *
 *   BASE_TRY(tr_attention_plans_create(ctx, &options, &plans));
 *   BASE_TRY(tr_attention_plans_run(plans, batch, plan, score));       once for each microbatch
 *   tr_attention_plans_destroy(plans);
 *
 * A pure function of options and layout: every rank makes the same plans. What may be retained on a
 * server is the same on all of them, whatever a rank's own memory. Nothing is allocated after
 * creation. One thread at a time. */
#ifndef CADRE_TRAINER_LOOP_ATTENTION_PLANS_H
#define CADRE_TRAINER_LOOP_ATTENTION_PLANS_H

#include "attention_server/attention.h"
#include "attention_server/planner.h"

typedef struct tr_attention_plans_options {
    const as_topology_t *topology;
    const as_profile_t *profile; /* borrowed for creation; NULL: built in (builtin_profile.h) */
    /* [servers] 1: that of the profile's device; borrowed for creation. NULL: all 1 */
    const double *server_speeds;
    kern_dtype_t dtype;
    int32_t group, head_dim, num_kv_heads;
    int32_t num_layers, num_kinds;
    int64_t window[AS_MAX_KINDS];
    int64_t dense_flop[2];       /* dense layers of one row and layer, forward and backward */
    int64_t tokens_per_trainer;  /* both halves */
    int64_t retain_bytes;        /* most that a server may keep from the forward to the backward */
    int32_t cuts_follow_servers; /* as_planner_config_t; with 0 a run has the same bits whichever
                                    servers compute */
    int32_t sums_per_server;     /* as_attention_config_t */
    int64_t longest;             /* most rows of a document; 0: all that the trainers hold */
    int32_t max_documents, max_pieces;
} tr_attention_plans_options_t;

typedef struct tr_attention_plans tr_attention_plans_t;

base_status_t tr_attention_plans_create(base_ctx_t *ctx,
                                        const tr_attention_plans_options_t *options,
                                        tr_attention_plans_t **plans_p) BASE_MUST_CHECK;
void tr_attention_plans_destroy(tr_attention_plans_t *plans); /* NULL is legal */

/* Tasks that a plan has at most. */
int32_t tr_attention_plans_max_tasks(const tr_attention_plans_t *plans);

/* Memory with which every plan of documents up to `longest` fits (as_attention_config_t): staging on
 * this rank, which is proven to suffice (as_planner_staging_bytes), and for retained tasks on every
 * server what retain_bytes allows or, when that is less, all that there could be to keep. */
int64_t tr_attention_plans_scratch(const tr_attention_plans_t *plans, int rank);
int64_t tr_attention_plans_retained(const tr_attention_plans_t *plans);

/* Fills and finishes plan[k] and score[k] of every kind. A plan of last resort is a warning on rank 0
 * ("plan-at-home"). Errors: those of as_planner_run. */
base_status_t tr_attention_plans_run(tr_attention_plans_t *plans, const data_batch_t *batch,
                                     as_plan_t *const *plan, as_score_t *score) BASE_MUST_CHECK;

#endif
