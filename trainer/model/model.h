/* The dimensions of a model, what follows from them, and the list of its weights.
 *
 * A model here is a Llama: token embedding, layers of {RMSNorm, fused q|k|v projection, rotary
 * embedding, causal grouped-query attention, output projection, residual; RMSNorm, fused gate|up
 * projection, SwiGLU, down projection, residual}, a final RMSNorm and an untied loss head. No
 * biases.
 *
 *   tr_model_t *model;
 *   BASE_TRY(tr_model_create(ctx, &config, &model));
 *   for (int32_t i = 0; i < model->num_weights; i++) ... model->weights[i].name, rows, cols
 *   tr_model_destroy(model);
 *
 * A tr_model_t is a pure function of its config: all ranks hold the same one, pool ranks too (they
 * need the list of weights to keep in step with the gradients' reduction). Only read after
 * creation, so from any thread.
 *
 * Letters: H hidden, F intermediate, V vocabulary, Q query heads, G KV heads, D head dim, C extra
 * columns. */
#ifndef CADRE_TRAINER_MODEL_MODEL_H
#define CADRE_TRAINER_MODEL_MODEL_H

#include "attention_server/attention.h"

typedef struct tr_model_config {
    int32_t num_layers;
    int32_t hidden, intermediate, vocab;
    int32_t num_q_heads, num_kv_heads, head_dim;
    int64_t max_positions; /* rows of the longest document */
    double rms_eps, rope_theta;
    kern_dtype_t
        dtype; /* KERN_F32 or KERN_F64: weights and activations; statistics are kern_dtype_acc */
    /* Sliding window of each layer, 0: full attention; at most AS_MAX_KINDS different values. NULL:
     * all full. Borrowed for the call of tr_model_create. */
    const int64_t *layer_window;
    /* C: what feeds a linear layer (n1, o, n2, act) and the linear's weight have row pitch K + C,
     * the columns that LoRA will use. Until then they hold NaN and nobody may read them. */
    int32_t extra_columns;
} tr_model_config_t;

/* The weights of a layer, then those outside the layers. Linears are (N, K), as in Hugging Face. */
typedef enum tr_weight_kind {
    TR_WEIGHT_NORM1,   /* (1, H) before attention */
    TR_WEIGHT_QKV,     /* ((Q + 2 G) D, H) rows [q | k | v] */
    TR_WEIGHT_O,       /* (H, Q D) */
    TR_WEIGHT_NORM2,   /* (1, H) before the MLP */
    TR_WEIGHT_GATE_UP, /* (2 F, H) rows [gate | up] */
    TR_WEIGHT_DOWN,    /* (H, F) */
    TR_WEIGHT_NUM_LAYER_KINDS,
    TR_WEIGHT_EMBEDDING = TR_WEIGHT_NUM_LAYER_KINDS, /* (V, H) */
    TR_WEIGHT_FINAL_NORM,                            /* (1, H) */
    TR_WEIGHT_LM_HEAD,                               /* (V, H) */
    TR_WEIGHT_NUM_KINDS
} tr_weight_kind_t;

#define TR_WEIGHT_NAME_BYTES 40

typedef struct tr_weight_spec {
    char name[TR_WEIGHT_NAME_BYTES]; /* "layers.3.qkv_proj" */
    tr_weight_kind_t kind;
    int32_t layer; /* -1: outside the layers */
    int64_t rows, cols;
    int64_t pitch; /* of the weight; its gradient is dense (pitch cols) */
} tr_weight_spec_t;

typedef struct tr_model {
    tr_model_config_t config; /* layer_window is NULL here: see window and layer_kind */
    kern_dtype_t acc;
    int64_t q_cols, kv_cols, qkv_cols; /* Q D, G D, (Q + 2 G) D */
    double attention_scale;            /* D^-1/2 */
    /* Attention kinds, in the order in which layers first use them: one plan each
     * (as_attention_microbatch). */
    int32_t num_kinds;
    int64_t window[AS_MAX_KINDS];
    int32_t *layer_kind; /* [num_layers] */
    double *inv_freq;    /* [D / 2] theta^(-2 i / D); read by the rope table op when it runs */
    int32_t num_weights;
    tr_weight_spec_t *weights; /* [num_weights] layer by layer, then embedding, final norm, head */
    base_ctx_t *ctx;
} tr_model_t;

/* Checks the config and derives the rest. BASE_ERR_CONFIG (CONF-04) names the field that cannot be;
 * borrows ctx; the caller frees *model_p with tr_model_destroy. */
base_status_t tr_model_create(base_ctx_t *ctx, const tr_model_config_t *config,
                              tr_model_t **model_p) BASE_MUST_CHECK;
void tr_model_destroy(tr_model_t *model); /* NULL is legal */

/* Index of a weight in model->weights; layer is ignored for kinds outside the layers. */
int32_t tr_model_weight(const tr_model_t *model, tr_weight_kind_t kind, int32_t layer);

/* Elements of the largest and of all weights, extra columns not counted. */
int64_t tr_model_largest_weight(const tr_model_t *model);
int64_t tr_model_parameters(const tr_model_t *model);

#endif
