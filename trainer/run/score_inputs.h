/* What `score` and `verify` read: a model folder, an adapter, a dataset, checked in one pass.
 *
 *   const tr_score_sources_t sources = {.model = dir, .adapter = NULL, .data = "held-out.h5"};
 *   st = tr_score_inputs_open(ctx, &sources, stderr, &reported, &inputs);
 *
 * Faults of all three are found in one go; what cannot be judged without the model (an adapter's
 * shapes, a dataset's tokenizer) is not looked at when the model is at fault. */
#ifndef CADRE_TRAINER_RUN_SCORE_INPUTS_H
#define CADRE_TRAINER_RUN_SCORE_INPUTS_H

#include "data/dataset.h"
#include "data/hf_folder.h"
#include "lora/adapter_verify.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct tr_score_sources {
    const char *model;
    const char *adapter; /* NULL: the base alone */
    const char *data;    /* NULL: none; else it has to be made for the model's tokenizer */
} tr_score_sources_t;

typedef struct tr_score_inputs {
    base_ctx_t *ctx;
    data_hf_folder_t *folder;
    lora_peft_t *adapter;    /* NULL: none */
    lora_verify_t *verified; /* of the adapter; NULL: none */
    data_dataset_t *dataset; /* NULL: none */
} tr_score_inputs_t;

/* Several faults are printed to `err` and *reported is set; one alone is only recorded. The caller
 * closes *inputs_p. */
base_status_t tr_score_inputs_open(base_ctx_t *ctx, const tr_score_sources_t *sources, FILE *err,
                                   bool *reported, tr_score_inputs_t **inputs_p) BASE_MUST_CHECK;
void tr_score_inputs_close(tr_score_inputs_t *inputs); /* NULL is legal */

#endif
