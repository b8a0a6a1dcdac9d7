#include "trainer/loop/lot.h"

#include "base/memory.h"
#include "lora/pack.h"

#include <string.h>

/* Documents shorter than this on average do not fill a microbatch. */
#define SHORTEST_MEAN_ROWS 16
/* Beside one a piece, for the trainer's list sizes. */
#define TASKS_PER_TRAINER 16

static int64_t all_rows(const tr_lot_options_t *o)
{
    return o->plans.topology->num_trainers * o->plans.tokens_per_trainer;
}

static int32_t max_documents(const tr_lot_options_t *o)
{
    return (int32_t)(all_rows(o) / SHORTEST_MEAN_ROWS) + 16;
}

int32_t tr_lot_max_pieces(const tr_lot_options_t *options)
{
    return max_documents(options) + 2 * options->plans.topology->num_trainers;
}

int32_t tr_lot_max_tasks(const tr_lot_options_t *options)
{
    return tr_lot_max_pieces(options) + TASKS_PER_TRAINER * options->plans.topology->num_trainers;
}

int64_t tr_lot_longest(const tr_lot_options_t *options)
{
    return options->plans.topology->placement == AS_LOCAL ? options->plans.tokens_per_trainer
                                                          : all_rows(options);
}

static base_status_t create_plans(tr_lot_t *lot, const tr_lot_t *with)
{
    if (with != NULL) {
        lot->planner = with->planner;
    } else {
        BASE_TRY(tr_attention_plans_create(lot->ctx, &lot->options.plans, &lot->planner));
        lot->owns_planner = 1;
    }
    for (int32_t k = 0; k < lot->options.plans.num_kinds; k++) {
        BASE_TRY(
            as_plan_create(lot->ctx, tr_attention_plans_max_tasks(lot->planner), &lot->plans[k]));
        BASE_TRY(as_plan_reserve(lot->plans[k], lot->options.plans.num_kv_heads));
    }
    return BASE_OK;
}

base_status_t tr_lot_create(base_ctx_t *ctx, const tr_lot_options_t *options, const tr_lot_t *with,
                            tr_lot_t **lot_p)
{
    base_status_t st = BASE_ERR_NOMEM;

    tr_lot_t *lot = base_calloc(ctx, 1, sizeof *lot, "lot");
    if (lot == NULL) return BASE_ERR_NOMEM;
    lot->ctx = ctx;
    lot->options = *options;
    lot->options.plans.max_documents = max_documents(options);
    lot->options.plans.max_pieces = tr_lot_max_pieces(options);
    /* What a trainer holds of whole documents is known when they are packed. */
    lot->capacity = all_rows(options);
    if (options->plans.topology->placement != AS_LOCAL) lot->capacity -= DATA_ROW_ALIGN - 1;
    lot->capacity_tokens = options->tokens ? all_rows(options) : 0;
    lot->max_documents = max_documents(options);
    lot->documents = base_calloc(ctx, lot->max_documents, sizeof *lot->documents, "lot");
    lot->trainers = base_calloc(ctx, lot->max_documents, sizeof *lot->trainers, "lot");
    lot->tokens = base_calloc(ctx, lot->capacity_tokens, sizeof *lot->tokens, "lot");
    lot->masks = base_calloc(ctx, lot->capacity_tokens, sizeof *lot->masks, "lot");
    if (lot->documents == NULL || lot->trainers == NULL || lot->tokens == NULL ||
        lot->masks == NULL)
        goto err_destroy;
    BASE_TRY_GOTO(data_batch_create(ctx, lot->max_documents, tr_lot_max_pieces(options),
                                    options->plans.topology->num_trainers, &lot->batch),
                  st, err_destroy);
    BASE_TRY_GOTO(create_plans(lot, with), st, err_destroy);
    *lot_p = lot;
    return BASE_OK;
err_destroy:
    tr_lot_destroy(lot);
    return st;
}

void tr_lot_destroy(tr_lot_t *lot)
{
    if (lot == NULL) return;
    for (int32_t k = 0; k < AS_MAX_KINDS; k++)
        as_plan_destroy(lot->plans[k]);
    if (lot->owns_planner) tr_attention_plans_destroy(lot->planner);
    data_batch_destroy(lot->batch);
    base_free(lot->ctx, lot->masks);
    base_free(lot->ctx, lot->tokens);
    base_free(lot->ctx, lot->trainers);
    base_free(lot->ctx, lot->documents);
    base_free(lot->ctx, lot);
}

void tr_lot_begin(tr_lot_t *lot, int64_t microbatch)
{
    lot->batch->microbatch = microbatch;
    lot->num_documents = 0;
    lot->rows = lot->aligned_rows = 0;
    lot->placed = 0;
}

int tr_lot_fits(const tr_lot_t *lot, int64_t rows)
{
    if (lot->num_documents == lot->max_documents) return 0;
    if (rows > tr_lot_longest(&lot->options)) return 0;
    if (lot->num_documents == 0) return 1;
    return lot->rows + rows <= lot->capacity ||
           lot->aligned_rows + lora_pack_aligned(rows) <= all_rows(&lot->options);
}

static base_status_t add(tr_lot_t *lot, const data_document_t *document)
{
    if (!tr_lot_fits(lot, document->rows))
        return BASE_FAIL(lot->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "microbatch %lld: %lld rows more do not fit",
                         (long long)lot->batch->microbatch, (long long)document->rows);
    lot->documents[lot->num_documents++] = *document;
    lot->rows += document->rows;
    lot->aligned_rows += lora_pack_aligned(document->rows);
    return BASE_OK;
}

base_status_t tr_lot_add(tr_lot_t *lot, const data_dataset_t *dataset, int64_t index,
                         int32_t adapter, double row_weight)
{
    const int64_t at = lot->rows;
    data_document_t document = {.rows = data_dataset_rows(dataset, index),
                                .adapter = adapter,
                                .index = index,
                                .supervised = data_dataset_supervised(dataset, index),
                                .row_weight = row_weight};

    if (lot->options.tokens) {
        document.tokens = lot->tokens + at;
        document.loss_mask = lot->masks + at;
    }
    BASE_TRY(add(lot, &document));
    if (!lot->options.tokens) return BASE_OK;
    return data_dataset_read(dataset, index, lot->tokens + at, lot->masks + at);
}

void tr_lot_place(tr_lot_t *lot, int32_t trainer)
{
    lot->trainers[lot->num_documents - 1] = trainer;
    lot->placed = 1;
}

base_status_t tr_lot_add_rows(tr_lot_t *lot, int64_t rows)
{
    const data_document_t document = {.rows = rows};

    return add(lot, &document);
}

void tr_lot_drop(tr_lot_t *lot)
{
    const int64_t rows = lot->documents[--lot->num_documents].rows;

    lot->rows -= rows;
    lot->aligned_rows -= lora_pack_aligned(rows);
}

base_status_t tr_lot_finish(tr_lot_t *lot)
{
    const as_topology_t *topology = lot->options.plans.topology;
    const lora_pack_t pack = {.microbatch = lot->batch->microbatch,
                              .num_trainers = topology->num_trainers,
                              .tokens_per_trainer = lot->options.plans.tokens_per_trainer,
                              .whole_documents = topology->placement == AS_LOCAL,
                              .num_documents = lot->num_documents,
                              .documents = lot->documents,
                              .trainers = lot->placed ? lot->trainers : NULL};

    BASE_TRY(lora_pack_fast(lot->ctx, &pack, lot->batch));
    return tr_attention_plans_run(lot->planner, lot->batch, lot->plans, lot->scores);
}

const as_plan_t *const *tr_lot_plans(const tr_lot_t *lot)
{
    return (const as_plan_t *const *)lot->plans;
}
