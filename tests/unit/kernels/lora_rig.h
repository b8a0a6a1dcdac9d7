/* A linear layer with LoRA, run by the ops as a trainer would and by plain loops in double: unit
 * and gradient tests of the LoRA ops share it.
 *
 * Buffers are as kernels/op.h describes them: [x s], [dy ds] and [W B; A 0], whose unused corner is
 * NaN. The loss is sum(y g). */
#ifndef CADRE_TESTS_UNIT_KERNELS_LORA_RIG_H
#define CADRE_TESTS_UNIT_KERNELS_LORA_RIG_H

#include "tests/support/op_fixture.h"

#include "kernels/cases/op_cases.h"

#define LORA_RIG_BLOCKS (KERN_CASE_LORA_MAX * KERN_CASE_LORA_MAX)

typedef struct lora_rig {
    op_fixture_t *fx;
    kern_dtype_t dtype;
    int64_t T, K, N, C; /* rows, inputs, outputs, extra columns */
    int32_t num_segments, num_adapters, num_blocks;
    int has_dropout;
    kern_lora_segment_t segments[KERN_CASE_LORA_RUNS];
    kern_lora_adapter_t adapters[KERN_CASE_LORA_MAX];
    kern_lora_block_t blocks[LORA_RIG_BLOCKS];
    int64_t out[LORA_RIG_BLOCKS]; /* outputs of the block's module */
    int32_t layer;
    int32_t *row_adapter; /* [T], -1: pad */
    int64_t *document;    /* [T] */
    int32_t *position;    /* [T] */

    double *x, *w, *g;                               /* (T, K), (N, K), (T, N) */
    double *a[LORA_RIG_BLOCKS], *b[LORA_RIG_BLOCKS]; /* (r, K), (out, r) */

    double *y, *s, *ds, *dx;                           /* (T, N), (T, C), (T, C), (T, K): results */
    double *da[LORA_RIG_BLOCKS], *db[LORA_RIG_BLOCKS]; /* begin as 0 */

    op_tensor_t t_x, t_w, t_y, t_dy, t_dx, t_documents, t_positions;
    op_tensor_t t_da[LORA_RIG_BLOCKS], t_db[LORA_RIG_BLOCKS];
} lora_rig_t;

/* Random inputs from the case's seed. */
lora_rig_t lora_rig(op_fixture_t *fx, const kern_case_lora_t *c, kern_dtype_t dtype);
void lora_rig_end(lora_rig_t *rig); /* checks the guards of all tensors */

/* Uploads x and weights; lora_s and the gemm; s and y. */
void lora_rig_forward(lora_rig_t *rig);
/* After forward. dx goes through lora_dx_dropout when an adapter has dropout or `apart` is set,
 * else through the gemm. With `apart` ds and db are made by an op each, else by lora_dy. da and db
 * are added to what they hold. */
void lora_rig_backward(lora_rig_t *rig, int apart);
/* The same in plain loops: s, y, ds, dx, da, db. */
void lora_rig_reference(lora_rig_t *rig);

kern_lora_route_t lora_rig_route(const lora_rig_t *rig);

/* Parts of the tensors: columns [0, K) and [K, K + C) of x, likewise of dy. */
kern_mat_t lora_rig_left(const op_tensor_t *t, int64_t cols);
kern_mat_t lora_rig_right(const op_tensor_t *t, int64_t first);

/* 0, or 1 / (1 - p): what dropout does to x[t][j] for that block. */
double lora_rig_mask(const lora_rig_t *rig, int32_t block, int64_t t, int64_t j);

#endif
