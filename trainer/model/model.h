/* The dimensions of a model, what follows from them, and the list of its weights.
 *
 * A model here is a decoder of the Llama kind with switches: token embedding, layers of {RMSNorm,
 * fused q|k|v projection (bias), RMSNorm over the head dim of q and of k (or not), rotary
 * embedding, causal grouped-query attention, output projection (bias), residual; RMSNorm, fused
 * gate|up projection (bias), SwiGLU, down projection (bias), residual}, a final RMSNorm and a loss
 * head, which may be the embedding (tied). trainer/model/hf_weights.h fills the config from a
 * Hugging Face folder.
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

#include <stdbool.h>

typedef struct tr_model_config {
    int32_t num_layers;
    int32_t hidden, intermediate, vocab;
    int32_t num_q_heads, num_kv_heads, head_dim;
    int64_t max_positions; /* rows of the longest document */
    double rms_eps;
    double rope_theta;      /* of the plain rotary embedding; not read when inv_freq is given */
    const double *inv_freq; /* [head_dim / 2] radians a position, or NULL. Borrowed for the call of
                               tr_model_create */
    double rope_scale;      /* of cos and sin (yarn); 0: 1 */
    double attention_scale; /* of the scores; 0: head_dim^-1/2 */
    bool qkv_bias, o_bias, mlp_bias; /* mlp_bias: gate, up and down */
    bool qk_norm;
    bool tied;   /* the loss head is the embedding: one weight, one gradient */
    bool frozen; /* no gradients of the model's own weights: there is no memory for them */
    kern_dtype_t
        dtype; /* of weights and activations; statistics and gradients of weights are kern_dtype_acc */
    /* Sliding window of each layer, 0: full attention; at most AS_MAX_KINDS different values. NULL:
     * all full. Borrowed for the call of tr_model_create. */
    const int64_t *layer_window;
    /* C: what feeds a linear layer (n1, o, n2, act) has room for K + C columns, the gradient of
     * what leaves it for N + C, and its weight is [W B; A 0] of (N + C, K + C): the columns and rows
     * of LoRA (kernels/op.h). Where no adapter has its place they hold NaN, and nobody reads them.
     * Row pitches: tr_model_pitch. */
    int32_t extra_columns;
} tr_model_config_t;

/* The weights of a layer, then those outside the layers. Linears are (N, K), as in Hugging Face.
 * Biases and head norms are there when the config has them. X(kind, name) */
#define TR_LAYER_WEIGHT_MAP(X)                                                                     \
    X(NORM1, "norm1")               /* (1, H) before attention */                                  \
    X(QKV, "qkv_proj")              /* ((Q + 2 G) D, H) rows [q | k | v] */                        \
    X(QKV_BIAS, "qkv_bias")         /* (1, (Q + 2 G) D) */                                         \
    X(Q_NORM, "q_norm")             /* (1, D) */                                                   \
    X(K_NORM, "k_norm")             /* (1, D) */                                                   \
    X(O, "o_proj")                  /* (H, Q D) */                                                 \
    X(O_BIAS, "o_bias")             /* (1, H) */                                                   \
    X(NORM2, "norm2")               /* (1, H) before the MLP */                                    \
    X(GATE_UP, "gate_up_proj")      /* (2 F, H) rows [gate | up] */                                \
    X(GATE_UP_BIAS, "gate_up_bias") /* (1, 2 F) */                                                 \
    X(DOWN, "down_proj")            /* (H, F) */                                                   \
    X(DOWN_BIAS, "down_bias")       /* (1, H) */
#define TR_OUTER_WEIGHT_MAP(X)                                                                     \
    X(EMBEDDING, "embedding")   /* (V, H) */                                                       \
    X(FINAL_NORM, "final_norm") /* (1, H) */                                                       \
    X(LM_HEAD, "lm_head")       /* (V, H); with a tied head its index is the embedding's */

typedef enum tr_weight_kind {
#define X(kind, name) TR_WEIGHT_##kind,
    TR_LAYER_WEIGHT_MAP(X) TR_WEIGHT_NUM_LAYER_KINDS,
    TR_WEIGHT_BEFORE_OUTER = TR_WEIGHT_NUM_LAYER_KINDS - 1,
    TR_OUTER_WEIGHT_MAP(X)
#undef X
        TR_WEIGHT_NUM_KINDS
} tr_weight_kind_t;

#define TR_WEIGHT_NAME_BYTES 40

typedef struct tr_weight_spec {
    char name[TR_WEIGHT_NAME_BYTES]; /* "layers.3.qkv_proj" */
    tr_weight_kind_t kind;
    int32_t layer; /* -1: outside the layers */
    int64_t rows, cols;
    int64_t pitch;      /* of the weight; its gradient is dense (pitch cols) */
    int64_t extra_rows; /* below it in its region: C of a linear layer, else 0 */
} tr_weight_spec_t;

typedef struct tr_model {
    tr_model_config_t config; /* layer_window is NULL here: see window and layer_kind */
    kern_dtype_t acc;
    int64_t q_cols, kv_cols, qkv_cols; /* Q D, G D, (Q + 2 G) D */
    double attention_scale;
    /* Attention kinds, in the order in which layers first use them: one plan each
     * (as_attention_microbatch). */
    int32_t num_kinds;
    int64_t window[AS_MAX_KINDS];
    int32_t *layer_kind; /* [num_layers] */
    double *inv_freq;    /* [D / 2]; read by the rope table op when it runs */
    double rope_scale;
    int32_t kind_at[TR_WEIGHT_NUM_KINDS]; /* place within the layer's list, or index; -1: absent */
    int32_t layer_weights;                /* weights of a layer */
    int32_t num_weights;
    tr_weight_spec_t *weights; /* [num_weights] layer by layer, then embedding, final norm, head */
    base_ctx_t *ctx;
} tr_model_t;

/* Checks the config and derives the rest. BASE_ERR_CONFIG (CONF-04) names the field that cannot be;
 * borrows ctx; the caller frees *model_p with tr_model_destroy. */
base_status_t tr_model_create(base_ctx_t *ctx, const tr_model_config_t *config,
                              tr_model_t **model_p) BASE_MUST_CHECK;
void tr_model_destroy(tr_model_t *model); /* NULL is legal */

/* Index of a weight in model->weights, -1 when the model has none of that kind; layer is ignored
 * for kinds outside the layers. */
int32_t tr_model_weight(const tr_model_t *model, tr_weight_kind_t kind, int32_t layer);

/* Elements from row to row of a matrix of `cols` columns with C extra ones beside them: in bf16 the
 * next multiple of TR_PITCH_BYTES, since every row of a tile straddles two lines of a GPU's L2
 * otherwise (docs/kernels/ops.md, "Matrix products"); the same on all devices, so that a plan made
 * on any machine foretells a run's memory. Other dtypes, which are the CPU's, have no gap. */
#define TR_PITCH_BYTES 128
int64_t tr_model_pitch(const tr_model_t *model, int64_t cols);

/* Elements of the largest and of all weights, extra columns not counted. */
int64_t tr_model_largest_weight(const tr_model_t *model);
int64_t tr_model_parameters(const tr_model_t *model);

#endif
