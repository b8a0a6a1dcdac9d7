/* The golden files of one model family as plain arrays: what transformers and PEFT get for two
 * adapters of a small random model (README.md of this folder says how the files were made).
 *
 *   golden_case_t *g = golden_case_open(ctx, "qwen2");
 *   ... g->adapters[a].documents[d].tokens, g->adapters[a].losses[step] ...
 *   golden_case_close(g);
 *
 * Open fails the running cmocka test when a file is missing or is not as the others say; so a
 * case that was opened has everything below, in these shapes. All numbers are doubles; F32 values of
 * the files are exact in them. The context is used while opening only. */
#ifndef CADRE_TESTS_GOLDEN_GOLDEN_CASE_H
#define CADRE_TESTS_GOLDEN_GOLDEN_CASE_H

#include "base/context.h"

#include <stdbool.h>
#include <stddef.h>

#define GOLDEN_STEPS        10
#define GOLDEN_NUM_ADAPTERS 2
#define GOLDEN_MAX_TARGETS  7
#define GOLDEN_NUM_FAMILIES 4
extern const char *const golden_families[GOLDEN_NUM_FAMILIES]; /* llama mistral qwen2 qwen3 */

/* A path below the folder of golden files, such as "llama/model-v4". Returns `path`; needs
 * CADRE_SOURCE_DIR, which every test has. */
const char *golden_path(const char *relative, char *path, size_t bytes);

typedef struct golden_document {
    int64_t rows;
    int32_t *tokens;        /* [rows] */
    uint8_t *loss_mask;     /* [rows] 1: the token is a target; of token 0 it says nothing */
    int64_t num_supervised; /* ones after the first row */
    double loss_sum;        /* of -ln p over the supervised tokens, initial adapter */
    double base_loss_sum;   /* without an adapter */
    int64_t num_logit_rows;
    int64_t *logit_rows; /* [num_logit_rows] ascending */
    double *logits;      /* (num_logit_rows, vocab), initial adapter */
    double *base_logits; /* without an adapter */
} golden_document_t;

/* One A or B. Names as in the PEFT file: base_model.model.<module>.lora_A.weight */
typedef struct golden_tensor {
    char *name;
    int64_t rows, cols; /* A (rank, in), B (out, rank) */
    double *initial;    /* F32 values */
    double *gradient;   /* of the loss of batch 0 at the initial values, not clipped */
    double *final;      /* after GOLDEN_STEPS steps */
} golden_tensor_t;

/* The documents of one optimizer step. Its loss is the sum of -ln p over the supervised tokens of
 * all of them, over the number of these tokens. */
typedef struct golden_batch {
    int64_t num_documents;
    int32_t *documents; /* indices, in the order of the dataset */
    int64_t num_supervised;
} golden_batch_t;

typedef struct golden_adapter {
    char *name;   /* "wide", "narrow" */
    char *folder; /* the PEFT folder with the initial values */
    int64_t rank;
    double alpha;
    bool rslora;
    double scale; /* alpha / rank, or alpha / sqrt(rank) with rsLoRA */
    int32_t num_targets;
    const char *targets[GOLDEN_MAX_TARGETS]; /* "q_proj": modules that have an A and B, in the order
                                                q k v o gate up down */
    int64_t num_documents;
    golden_document_t *documents;
    int64_t num_trained;     /* documents [0, num_trained) are the dataset; those after it are in no
                                batch, for their logits only */
    int64_t batch_documents; /* batches take so many in the order of the dataset; the last batch of
                                an epoch takes what is left */
    golden_batch_t batches[GOLDEN_STEPS];
    double *losses, *grad_norms, *learning_rates; /* [GOLDEN_STEPS]; norms before clipping */
    int64_t num_tensors;
    golden_tensor_t *tensors; /* ascending by name */
} golden_adapter_t;

/* AdamW with clipping; linear warm-up, then cosine to 0. */
typedef struct golden_training {
    int64_t steps, warmup_steps; /* steps == GOLDEN_STEPS */
    double learning_rate;        /* at its highest */
    double beta1, beta2, eps, weight_decay, clip_norm;
} golden_training_t;

typedef struct golden_block golden_block_t;
typedef struct golden_case {
    char *model; /* the base model's folder */
    int64_t vocab;
    golden_training_t training;
    golden_adapter_t adapters[GOLDEN_NUM_ADAPTERS];
    golden_block_t *blocks; /* all memory of the case */
} golden_case_t;

golden_case_t *golden_case_open(base_ctx_t *ctx, const char *family);
void golden_case_close(golden_case_t *g); /* NULL is legal */

/* NULL: none of that name. */
const golden_tensor_t *golden_find(const golden_adapter_t *adapter, const char *name);

/* |got - want| / |want|, Euclidean norms; NaN when got has one. */
double golden_distance(const double *got, const double *want, int64_t count);

#endif
