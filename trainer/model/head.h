/* The end of the model: final norm, loss over the supervised rows, and the gradient that starts the
 * backward.
 *
 * Loss of a supervised row: cross-entropy against the document's next token, weighted by the
 * document's row_weight, 1 / (supervised tokens of its adapter's global batch); so an adapter's
 * gradient does not depend on its neighbours in the microbatch. Weighted losses are added to one
 * acc sum for each adapter, ping before pong, rows ascending; the sums stand beside the gradients:
 * zeroed, reduced and read with them. The unsupervised rows get dx = 0.
 *
 * Logits exist for chunk_rows rows at a time, in the acc dtype: in bf16 the loss of a row would
 * have two or three digits. Borrows everything; all work goes to the
 * given stream. */
#ifndef CADRE_TRAINER_MODEL_HEAD_H
#define CADRE_TRAINER_MODEL_HEAD_H

#include "trainer/model/activations.h"
#include "trainer/model/rows.h"
#include "trainer/model/weights.h"

#define TR_HEAD_CHUNK_ROWS      128
#define TR_HEAD_CHUNK_ROWS_BF16 1024 /* enough tiles for a GPU */

typedef struct tr_head {
    const tr_model_t *model;
    const base_arena_t *arena;
    int64_t max_rows;
    int64_t chunk_rows;
    int32_t num_adapters;
    base_region_t loss[DATA_NUM_HALVES]; /* acc (1, supervised rows), until the next microbatch */
    base_region_t logits;                /* acc (chunk, V) */
    base_region_t gathered;              /* (chunk, H) */
    base_region_t sums; /* acc (1, adapters): weighted losses since they were zeroed */
} tr_head_t;

/* Declares the regions (owner "trainer", "head.*"). No resources of its own: there is nothing to
 * destroy. */
base_status_t tr_head_init(tr_head_t *head, const tr_model_t *model, base_arena_t *arena,
                           int64_t max_rows, int32_t num_adapters) BASE_MUST_CHECK;

/* Forward and backward of a half's head in one: reads TR_SLOT_LAST, leaves TR_SLOT_HIDDEN (final
 * normed states of all rows, until the next microbatch) and TR_SLOT_DX; adds to the gradients of
 * lm_head and final norm (unless the model is frozen), and to the sums. evaluate: losses and sums
 * only. */
base_status_t tr_head_run(const tr_head_t *head, const tr_weights_t *weights,
                          const tr_activations_t *activations, const tr_rows_t *rows,
                          data_half_t half, int evaluate, base_stream_t *stream) BASE_MUST_CHECK;

/* The products that the loss of a chunk of `rows` rows makes, as it makes them: the operands are the
 * head's scratch. */
typedef struct tr_head_products {
    kern_gemm_t logits, dx;
} tr_head_products_t;
void tr_head_products(const tr_head_t *head, const tr_weights_t *weights, int64_t rows,
                      tr_head_products_t *products);

kern_mat_t tr_head_sums(const tr_head_t *head);
/* The unweighted losses of the half's supervised rows, in the order of tr_rows_supervised. */
kern_mat_t tr_head_losses(const tr_head_t *head, const tr_rows_t *rows, data_half_t half);

#endif
