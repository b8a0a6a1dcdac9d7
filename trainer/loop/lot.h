/* A lot: the documents of one microbatch with their tokens, packed and planned.
 *
 *   tr_lot_begin(lot, microbatch);
 *   while (tr_lot_fits(lot, data_dataset_rows(ds, i)))
 *       BASE_TRY(tr_lot_add(lot, ds, i, adapter, row_weight));
 *   BASE_TRY(tr_lot_finish(lot));
 *   BASE_TRY(tr_microbatch_run(trainer, lot->batch, tr_lot_plans(lot)));
 *
 * What comes out is a pure function of what was added: every rank adds the same. A rank that only
 * serves reads no tokens. Memory is allocated at creation, for the largest lot.
 *
 * A microbatch's batch and plans are borrowed until the next-but-one (microbatch.h): a loop needs
 * two lots, in turn. Borrows the topology. One thread. */
#ifndef CADRE_TRAINER_LOOP_LOT_H
#define CADRE_TRAINER_LOOP_LOT_H

#include "data/dataset.h"
#include "trainer/loop/attention_plans.h"

typedef struct tr_lot_options {
    /* tokens_per_trainer is a multiple of 2 DATA_ROW_ALIGN; max_documents and max_pieces are set by
     * tr_lot_create. */
    tr_attention_plans_options_t plans;
    int tokens; /* 0: a rank that only serves */
} tr_lot_options_t;

typedef struct tr_lot {
    base_ctx_t *ctx;
    tr_lot_options_t options;
    int64_t capacity;     /* rows that always fit together */
    int64_t rows;         /* of what was added */
    int64_t aligned_rows; /* the same, each document's rounded up (lora/pack.h) */
    int32_t num_documents, max_documents;
    data_document_t *documents; /* [max_documents] */
    int32_t *trainers;          /* [max_documents] of tr_lot_place */
    int placed;                 /* 1: trainers is set */
    int32_t *tokens;            /* [capacity_tokens] */
    uint8_t *masks;
    int64_t capacity_tokens;
    data_batch_t *batch;
    tr_attention_plans_t *planner; /* shared with the lot that it was made with */
    int owns_planner;
    as_plan_t *plans[AS_MAX_KINDS];
    as_score_t scores[AS_MAX_KINDS]; /* after tr_lot_finish: what the plans reach */
} tr_lot_t;

/* Pieces that a microbatch can have at most, and tasks that it hardly ever has more of: for the
 * trainer's config, whose lists grow when it has. */
int32_t tr_lot_max_pieces(const tr_lot_options_t *options);
int32_t tr_lot_max_tasks(const tr_lot_options_t *options);

/* The planner's workspace is that of `with`, a lot of the same options that outlives this one; NULL:
 * its own. The caller frees *lot_p with tr_lot_destroy. */
base_status_t tr_lot_create(base_ctx_t *ctx, const tr_lot_options_t *options, const tr_lot_t *with,
                            tr_lot_t **lot_p) BASE_MUST_CHECK;
void tr_lot_destroy(tr_lot_t *lot); /* NULL is legal */

/* Rows that the trainers hold at most in one microbatch: the longest document that can be trained
 * on. With AS_LOCAL that is one trainer's. */
int64_t tr_lot_longest(const tr_lot_options_t *options);

void tr_lot_begin(tr_lot_t *lot, int64_t microbatch);
/* 1 when a document of so many rows can be added. The first one always fits unless it is longer
 * than tr_lot_longest. */
int tr_lot_fits(const tr_lot_t *lot, int64_t rows);
/* Reads document `index` of the dataset. Errors: those of data_dataset_read. */
base_status_t tr_lot_add(tr_lot_t *lot, const data_dataset_t *dataset, int64_t index,
                         int32_t adapter, double row_weight) BASE_MUST_CHECK;
/* Whole documents (AS_LOCAL): the one added last lies on this trainer when spreading them evenly
 * does not fit. For all documents of a lot or none. */
void tr_lot_place(tr_lot_t *lot, int32_t trainer);
/* A document without tokens, for sizing. */
base_status_t tr_lot_add_rows(tr_lot_t *lot, int64_t rows) BASE_MUST_CHECK;

/* Packs and plans. PLAN-01 when whole documents (AS_LOCAL) do not fit as they are: the caller takes
 * the last one back (tr_lot_drop) and tries again. */
base_status_t tr_lot_finish(tr_lot_t *lot) BASE_MUST_CHECK;
void tr_lot_drop(tr_lot_t *lot);

const as_plan_t *const *tr_lot_plans(const tr_lot_t *lot);

#endif
