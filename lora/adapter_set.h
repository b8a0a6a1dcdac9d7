/* The adapters of a job on one trainer: their vectors in device memory, and their places in the
 * weights of the base.
 *
 * Every adapter has four vectors of `layout->count` acc elements for the whole run: masters, both
 * moments of AdamW, and the gradient. What the products of the model read is a copy of the masters
 * in the model's dtype, written into the extra columns and rows of the base's linear layers,
 * [W B; A 0] (kernels/op.h). There are `rank_columns` columns for each module of a linear layer; an
 * adapter of rank r needs r of them and keeps them while it can. When a microbatch brings an
 * adapter that has no place, those that it does not bring make room, least recently used first; so
 * there may be more adapters than columns, only not in one microbatch.
 *
 * Adapters without dropout lie at the low end of the columns, those with dropout at the high end:
 * in the backward the gemm takes the low end along, and the others need their mask
 * (lora_dx_dropout).
 *
 *   lora_adapter_set_create(ctx, &config, arena, &set)    declares
 *   base_arena_commit(arena)
 *   lora_adapter_set_bind(set, layer, linear, weight)     for every linear layer
 *   lora_adapter_set_start(set, stream)
 *   lora_adapter_set_write(set, adapter, stream, values)  initial masters
 *   for each microbatch: lora_adapter_set_place, then lora/route.h, lora/linear.h
 *
 * Borrows arena and spec. One thread. All device work goes to the given stream; functions that wait
 * say so. */
#ifndef CADRE_LORA_ADAPTER_SET_H
#define CADRE_LORA_ADAPTER_SET_H

#include "base/arena.h"
#include "kernels/op.h"
#include "lora/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Linear layers of a block, as the model fuses them. */
typedef enum lora_linear {
    LORA_LINEAR_QKV,
    LORA_LINEAR_O,
    LORA_LINEAR_GATE_UP,
    LORA_LINEAR_DOWN,
    LORA_NUM_LINEARS
} lora_linear_t;

/* The fused layer of a target, and the first of its outputs there. */
lora_linear_t lora_target_linear(int32_t target);
int64_t lora_target_out_column(const data_model_spec_t *spec, int32_t target);

/* How an adapter is computed; what it learns from is trainer/'s business. */
typedef struct lora_adapter_options {
    const char *name; /* borrowed while the set lives */
    int32_t rank;
    double scale;   /* lora_scale */
    double dropout; /* 0 <= p < 1 */
    uint32_t targets;
    uint64_t seed; /* of dropout */
} lora_adapter_options_t;

/* What a step of an adapter names (lora/optimizer.h), until the stream has passed it. */
#define LORA_ADAPTER_LISTS 2
typedef struct lora_adapter_lists {
    kern_adamw_tensor_t *tensors; /* [num_tensors] A and B of each module */
    kern_mat_t gradient;
} lora_adapter_lists_t;

typedef struct lora_adapter {
    lora_adapter_options_t options;
    lora_layout_t *layout;
    base_region_t weights, moment1, moment2, gradient; /* acc [layout->count] */
    uint32_t step;       /* optimizer steps done: AdamW's t is step + 1, dropout's key is step */
    int32_t column;      /* first column of its place; -1: it has none */
    int64_t last_used;   /* microbatch that brought it last; -1 */
    int32_t num_tensors; /* of each list */
    int32_t next_lists;
    lora_adapter_lists_t lists[LORA_ADAPTER_LISTS];
} lora_adapter_t;

typedef struct lora_adapter_set_config {
    const data_model_spec_t *spec;
    kern_dtype_t dtype; /* of the model */
    int32_t num_adapters;
    const lora_adapter_options_t *adapters; /* copied */
    int32_t rank_columns;                   /* >= the largest rank */
    int optimizer; /* 0: forward only, no moments and gradients (scoring) */
} lora_adapter_set_config_t;

typedef struct lora_adapter_set {
    base_ctx_t *ctx;
    const base_arena_t *arena;
    const data_model_spec_t *spec;
    kern_dtype_t dtype, acc;
    int32_t num_adapters, rank_columns, optimizer;
    lora_adapter_t *adapters;
    uint32_t targets;                      /* of any adapter */
    int32_t num_modules[LORA_NUM_LINEARS]; /* of those, in each linear layer */
    kern_mat_t *weight; /* [num_layers][LORA_NUM_LINEARS] (N, K) with pitch >= K + C */
    int32_t *order;     /* [num_adapters] scratch of place */
} lora_adapter_set_t;

/* C, the extra columns that a model needs for these targets: a multiple of 8. */
int32_t lora_extra_columns(uint32_t targets, int32_t rank_columns);

/* The caller frees *set_p with lora_adapter_set_destroy. */
base_status_t lora_adapter_set_create(base_ctx_t *ctx, const lora_adapter_set_config_t *config,
                                      base_arena_t *arena,
                                      lora_adapter_set_t **set_p) BASE_MUST_CHECK;
void lora_adapter_set_destroy(lora_adapter_set_t *set); /* NULL is legal */

/* Tells where W (N, K) of a linear layer lies; its region is [W B; A 0] of N + C rows, with a pitch of
 * at least K + C. */
void lora_adapter_set_bind(lora_adapter_set_t *set, int32_t layer, lora_linear_t linear,
                           kern_mat_t weight);
/* Zeroes what lies beside W up to its pitch, the C rows below it, moments and gradients. After bind,
 * once. */
base_status_t lora_adapter_set_start(lora_adapter_set_t *set,
                                     base_stream_t *stream) BASE_MUST_CHECK;

/* Masters of an adapter from or to layout->count doubles; they wait for the stream and allocate.
 * Written values must be finite. The place, if it has one, is written too. */
base_status_t lora_adapter_set_write(lora_adapter_set_t *set, int32_t adapter,
                                     base_stream_t *stream, const double *values) BASE_MUST_CHECK;
base_status_t lora_adapter_set_read(const lora_adapter_set_t *set, int32_t adapter,
                                    base_stream_t *stream, double *values) BASE_MUST_CHECK;
/* Any of the adapter's vectors (its region) to doubles; waits. */
base_status_t lora_adapter_set_read_region(const lora_adapter_set_t *set, int32_t adapter,
                                           base_region_t region, base_stream_t *stream,
                                           double *values) BASE_MUST_CHECK;

/* Gives every adapter of the list a place. `used`: indices, ascending, their ranks together at most
 * rank_columns (BASE_ERR_ARG). Copies masters, in stream order, where a place changes hands, which
 * it does not while all adapters fit. Allocates nothing. */
base_status_t lora_adapter_set_place(lora_adapter_set_t *set, int64_t microbatch,
                                     const int32_t *used, int32_t num_used,
                                     base_stream_t *stream) BASE_MUST_CHECK;

/* Gives an adapter the place that it had in an earlier run of the same set: the first column (-1:
 * none) and the microbatch that brought it last. Its masters have been written; before the first
 * microbatch. BASE_ERR_ARG when there is no such place. */
base_status_t lora_adapter_set_restore_place(lora_adapter_set_t *set, int32_t adapter,
                                             int32_t column, int64_t last_used,
                                             base_stream_t *stream) BASE_MUST_CHECK;

/* The whole vector as an operand (1, count), acc. */
kern_mat_t lora_adapter_set_vector(const lora_adapter_set_t *set, int32_t adapter,
                                   base_region_t region);
/* A module's A (r, in) and B (out, r) in a vector; and where they lie in the base's weight (the
 * adapter must have a place), dtype of the model. */
kern_mat_t lora_module_a(const lora_adapter_set_t *set, int32_t adapter, int64_t module,
                         base_region_t region);
kern_mat_t lora_module_b(const lora_adapter_set_t *set, int32_t adapter, int64_t module,
                         base_region_t region);
kern_mat_t lora_placed_a(const lora_adapter_set_t *set, int32_t adapter, int64_t module);
kern_mat_t lora_placed_b(const lora_adapter_set_t *set, int32_t adapter, int64_t module);
/* First of the module's columns in s and ds. */
int64_t lora_placed_column(const lora_adapter_set_t *set, int32_t adapter, int64_t module);

#ifdef __cplusplus
}
#endif
#endif
