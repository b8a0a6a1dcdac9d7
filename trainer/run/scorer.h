/* A model, with or without an adapter, that can be asked about documents: what `score` and `verify`
 * do, forward only, on one rank: in fp32 on the CPU, in bf16 on a GPU.
 *
 *   BASE_TRY(tr_scorer_create(ctx, dev, group, &options, &scorer));
 *   BASE_TRY(tr_scorer_losses(scorer, dataset, sums));
 *   tr_scorer_destroy(scorer);
 *
 * One thread. Everything waits. */
#ifndef CADRE_TRAINER_RUN_SCORER_H
#define CADRE_TRAINER_RUN_SCORER_H

#include "data/dataset.h"
#include "data/hf_folder.h"
#include "lora/peft_import.h"
#include "trainer/loop/build.h"
#include "trainer/loop/gradients.h"
#include "trainer/loop/microbatch.h"

typedef struct tr_scorer_options {
    const data_hf_folder_t *folder; /* borrowed while the scorer lives */
    const lora_peft_t *adapter;     /* borrowed for the call; NULL: the base alone */
    int64_t longest;                /* rows of the longest document */
    int64_t tokens_per_trainer;     /* 0: as many as suit */
} tr_scorer_options_t;

typedef struct tr_scorer {
    base_ctx_t *ctx;
    const data_model_spec_t *spec;
    as_topology_t *topology;
    tr_trainer_t *trainer;
    lora_adapter_options_t adapter;
    double *values; /* of the adapter; NULL: none */
    tr_lot_t *lots[2];
    int64_t microbatch;
} tr_scorer_t;

base_status_t tr_scorer_create(base_ctx_t *ctx, base_device_t *dev, comm_group_t *group,
                               const tr_scorer_options_t *options,
                               tr_scorer_t **scorer_p) BASE_MUST_CHECK;
void tr_scorer_destroy(tr_scorer_t *scorer); /* NULL is legal */

/* Whether the adapter takes part from now on; at first it does. Without one: no effect. */
base_status_t tr_scorer_use_adapter(tr_scorer_t *scorer, int use) BASE_MUST_CHECK;

/* Sum of the losses of the supervised tokens of every document, nats, added in double in the order
 * of its rows: num_documents doubles of the caller's. */
base_status_t tr_scorer_losses(tr_scorer_t *scorer, const data_dataset_t *dataset,
                               double *sums) BASE_MUST_CHECK;

/* Logits (rows x vocabulary) of a document's rows, in their order. Tokens are the caller's. */
base_status_t tr_scorer_logits(tr_scorer_t *scorer, const int32_t *tokens, int64_t rows,
                               double *logits) BASE_MUST_CHECK;

#endif
