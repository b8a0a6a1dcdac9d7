/* A golden case run by Cadre: both adapters in one trainer on a folder of the model. */
#ifndef CADRE_TESTS_GOLDEN_GOLDEN_RUN_H
#define CADRE_TESTS_GOLDEN_GOLDEN_RUN_H

#include "lora/peft_import.h"
#include "tests/golden/golden_case.h"
#include "tests/support/train_case.h"

#define GOLDEN_MAX_DOCUMENTS 16

typedef struct golden_run {
    base_ctx_t *ctx;
    golden_case_t *g;
    char folder[1024];
    kern_dtype_t dtype;
    lora_layout_t *layouts[GOLDEN_NUM_ADAPTERS];
    lora_adapter_options_t options[GOLDEN_NUM_ADAPTERS];
    double *values[GOLDEN_NUM_ADAPTERS]; /* imported from the PEFT folders */
    /* of golden_run_documents */
    double *logits[GOLDEN_NUM_ADAPTERS][GOLDEN_MAX_DOCUMENTS]; /* rows of documents.json x vocab */
    double losses[GOLDEN_NUM_ADAPTERS][GOLDEN_MAX_DOCUMENTS];  /* sums over the document */
    /* of golden_run_train */
    train_log_t logs[GOLDEN_NUM_ADAPTERS];
} golden_run_t;

/* They fail the running test. */
golden_run_t *golden_run_create(base_ctx_t *ctx, const char *family, const char *folder,
                                kern_dtype_t dtype);
void golden_run_destroy(golden_run_t *r);

/* Forward of all documents, those of both adapters in the same microbatches. */
void golden_run_documents(golden_run_t *r, bool with_adapters);
/* All steps, by tr_train_run, on datasets that it writes. */
void golden_run_train(golden_run_t *r);

/* Tensor `index` of the adapter, A and B of each module in turn; `at`: its place in the vector. */
const golden_tensor_t *golden_run_tensor(const golden_adapter_t *adapter,
                                         const lora_layout_t *layout, int64_t index, int64_t *at);

#endif
