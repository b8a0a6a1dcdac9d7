/* Which rows and columns belong to which adapter in one microbatch on one trainer: the lists that
 * the LoRA ops read (kern_lora_route_t), for every linear layer and both halves.
 *
 * Rows of a half are sorted by adapter, so an adapter's rows are one segment, or two where the tail
 * of a spanning document comes first. Lists are kept twice: the ops of one microbatch may still be
 * pending when the next is prepared, and the caller waits for the microbatch before the last
 * (tr_rows_install does).
 *
 *   lora_adapter_set_place(set, microbatch, used, num_used, stream)
 *   lora_route_install(route, batch, trainer, used, num_used, rows, 0)
 *   ... lora/linear.h ...
 *
 * Borrows the set. Allocates at creation only. One thread. */
#ifndef CADRE_LORA_ROUTE_H
#define CADRE_LORA_ROUTE_H

#include "data/batch.h"
#include "lora/adapter_set.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LORA_ROUTE_STAGES 2

/* Rows of one half as the dropout needs them; absent when no adapter has dropout. */
typedef struct lora_route_rows {
    kern_mat_t documents[DATA_NUM_HALVES]; /* I32 (T, 2) */
    kern_mat_t positions[DATA_NUM_HALVES]; /* I32 (1, T) */
} lora_route_rows_t;

/* The blocks of one linear layer: those without dropout first. */
typedef struct lora_route_linear {
    kern_lora_block_t *blocks;
    int64_t num_blocks, num_plain;  /* all; without dropout */
    int64_t columns, plain_columns; /* that the gemms of forward and backward take along */
} lora_route_linear_t;

typedef struct lora_route_stage {
    kern_lora_segment_t *segments[DATA_NUM_HALVES];
    int64_t num_segments[DATA_NUM_HALVES];
    kern_lora_adapter_t *adapters; /* [num_adapters] */
    kern_lora_block_t *blocks;     /* of all linear layers */
    lora_route_linear_t *linears;  /* [num_layers][LORA_NUM_LINEARS] */
} lora_route_stage_t;

typedef struct lora_route {
    base_ctx_t *ctx;
    const lora_adapter_set_t *set;
    int32_t max_pieces;
    int64_t installs;
    lora_route_stage_t stage[LORA_ROUTE_STAGES];
    const lora_route_stage_t *now; /* of the installed microbatch */
    lora_route_rows_t rows;
    int32_t *order;     /* [max_pieces] scratch: pieces of a half by row */
    int32_t *by_column; /* [num_adapters] scratch */
} lora_route_t;

/* For microbatches of at most max_pieces pieces. The caller frees *route_p with
 * lora_route_destroy. */
base_status_t lora_route_create(const lora_adapter_set_t *set, int32_t max_pieces,
                                lora_route_t **route_p) BASE_MUST_CHECK;
void lora_route_destroy(lora_route_t *route); /* NULL is legal */

/* Lists for trainer `trainer` of a finished batch; the adapters of its documents are `used`, and
 * have their places. `evaluate`: no dropout. */
base_status_t lora_route_install(lora_route_t *route, const data_batch_t *batch, int32_t trainer,
                                 const int32_t *used, int32_t num_used,
                                 const lora_route_rows_t *rows, int evaluate) BASE_MUST_CHECK;

/* What the installed microbatch has in a linear layer. */
const lora_route_linear_t *lora_route_of(const lora_route_t *route, int32_t layer,
                                         lora_linear_t linear);
/* The op's argument for blocks [first, first + count) of it. */
kern_lora_route_t lora_route_args(const lora_route_t *route, int32_t layer, lora_linear_t linear,
                                  data_half_t half, int64_t first, int64_t count);

#ifdef __cplusplus
}
#endif
#endif
