/* What an adapter is made of: its modules, and where each lies in the adapter's one vector.
 *
 * A module is a linear layer of the base that the adapter sits on: A (rank, in) and B (out, rank).
 * Masters, gradients and both moments of AdamW are vectors of `count` elements in the same layout,
 * so that an adapter is reduced, clipped, stepped, saved and exported as one piece:
 *
 *   modules ascending by layer, then by target in the order of BASE_CONFIG_TARGET_MAP (q, k, v, o,
 *   gate, up, down); of each module A, then B, both row-major and dense.
 *
 * A pure function of model and config, equal on all ranks; only read after creation. */
#ifndef CADRE_LORA_LAYOUT_H
#define CADRE_LORA_LAYOUT_H

#include "base/config/config.h"
#include "data/model_spec.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LORA_NUM_TARGETS 7

typedef struct lora_module {
    int32_t layer;
    int32_t target; /* 0 (q_proj) to 6 (down_proj): bit number of base_config_target_t */
    int64_t in, out;
    int64_t a, b; /* first element of A and of B in the vector */
} lora_module_t;

typedef struct lora_layout {
    int32_t rank;
    uint32_t targets;
    int64_t num_modules;
    lora_module_t *modules;
    int64_t count; /* elements of the vector: the adapter's trainable parameters */
    base_ctx_t *ctx;
} lora_layout_t;

/* Copies nothing of `spec`. The caller frees *layout_p with lora_layout_destroy. */
base_status_t lora_layout_create(base_ctx_t *ctx, const data_model_spec_t *spec, int32_t rank,
                                 uint32_t targets, lora_layout_t **layout_p) BASE_MUST_CHECK;
void lora_layout_destroy(lora_layout_t *layout); /* NULL is legal */

/* PEFT's word, "q_proj"; and where the module hangs in a block, "self_attn" or "mlp". */
const char *lora_target_name(int32_t target);
const char *lora_target_parent(int32_t target);
/* Inputs and outputs of a target's linear layer. */
void lora_target_shape(const data_model_spec_t *spec, int32_t target, int64_t *in, int64_t *out);
/* The base's tensor of that target. */
data_model_tensor_kind_t lora_target_tensor(int32_t target);

/* Turns `count` floats at the beginning of `values` into as many doubles, in place: for vectors that
 * were read in the precision of a file. */
void lora_widen(double *values, int64_t count);

/* By what the adapter's output is multiplied: alpha / rank, with rsLoRA alpha / sqrt(rank)
 * (Kalajdzievski 2023). */
double lora_scale(double alpha, int64_t rank, bool rslora);

#ifdef __cplusplus
}
#endif
#endif
