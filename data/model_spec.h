/* What a base model is: dimensions, features, tensors of its checkpoint, rotary frequencies.
 *
 * Llama 2 and 3, Mistral, Qwen2 (and 2.5) and dense Qwen3 are one decoder with switches: embedding;
 * layers of {RMSNorm, q k v projections (with bias or not), RMSNorm over head_dim of q and k or
 * not, rotary embedding in half-rotation layout, causal grouped-query attention within a window or
 * not, output projection, residual; RMSNorm, SwiGLU, residual}; RMSNorm, loss head, which may be
 * the embedding (tied).
 *
 * A spec is a plain value without pointers, filled by data/hf_config.h or by hand; it is complete:
 * nothing about the model is left for a reader to assume. Only read after data_model_spec_check,
 * from any thread; equal on all ranks (data_model_spec_hash).
 *
 *   for (int64_t i = 0; i < data_model_spec_num_tensors(&spec); i++) {
 *       data_model_tensor_t t;
 *       data_model_spec_tensor(&spec, i, &t);                      t.name, t.shape
 *   }
 *   double inv_freq[64];
 *   const double factor = data_model_spec_rope(&spec, inv_freq);   cos and sin are times factor */
#ifndef CADRE_DATA_MODEL_SPEC_H
#define CADRE_DATA_MODEL_SPEC_H

#include "base/context.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bounds of what is believed, far above any released dense model (126 layers, hidden 16384). With
 * them every product of two dimensions times 8 bytes fits in 63 bits. */
#define DATA_MODEL_MAX_LAYERS    512
#define DATA_MODEL_MAX_DIM       (INT64_C(1) << 24)
#define DATA_MODEL_MAX_HEAD_DIM  1024
#define DATA_MODEL_MAX_POSITIONS (INT64_C(1) << 30)
#define DATA_MODEL_MAX_EOS       16
#define DATA_MODEL_NAME_BYTES    96

/* X(name, model_type, class in "architectures") */
#define DATA_MODEL_FAMILY_MAP(X)                                                                   \
    X(LLAMA, "llama", "LlamaForCausalLM")                                                          \
    X(MISTRAL, "mistral", "MistralForCausalLM")                                                    \
    X(QWEN2, "qwen2", "Qwen2ForCausalLM")                                                          \
    X(QWEN3, "qwen3", "Qwen3ForCausalLM")

typedef enum data_model_family {
#define X(name, type, architecture) DATA_MODEL_##name,
    DATA_MODEL_FAMILY_MAP(X)
#undef X
        DATA_MODEL_NUM_FAMILIES
} data_model_family_t;

typedef enum data_rope_kind {
    DATA_ROPE_PLAIN,
    DATA_ROPE_LINEAR,
    DATA_ROPE_LLAMA3,
    DATA_ROPE_YARN
} data_rope_kind_t;

/* Fields that a kind does not use are 0. */
typedef struct data_rope {
    data_rope_kind_t kind;
    double theta;
    double factor;                            /* >= 1; linear, llama3, yarn */
    int64_t original_max_positions;           /* llama3, yarn */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn */
    double attention_factor;                  /* yarn: of cos and sin; resolved, never 0 */
    bool truncate;                            /* yarn: bounds of the ramp are whole dimensions */
} data_rope_t;

typedef struct data_model_spec {
    data_model_family_t family;
    int32_t num_layers;
    int64_t hidden, intermediate, vocab;
    int32_t num_q_heads, num_kv_heads, head_dim; /* num_q_heads head_dim need not equal hidden */
    int64_t max_positions;
    double rms_eps; /* of all norms */
    double softmax_scale;
    data_rope_t rope;
    bool tied;                       /* the loss head is the embedding */
    bool qkv_bias, o_bias, mlp_bias; /* mlp_bias: gate, up and down */
    bool qk_norm;                    /* per head, after the projection, before rope */
    /* Of each layer: a row sees itself and the window - 1 rows before it; 0: all before it. */
    int64_t layer_window[DATA_MODEL_MAX_LAYERS];
    int32_t num_eos; /* 0: the checkpoint names none */
    int32_t eos[DATA_MODEL_MAX_EOS];
} data_model_spec_t;

/* "llama". Static string; NULL for a value that is not in the list. */
const char *data_model_family_name(data_model_family_t family);
const char *data_model_family_architecture(data_model_family_t family);

/* The name of the field that is out of range or contradicts another one, NULL when the spec holds
 * together. Static string. */
const char *data_model_spec_check(const data_model_spec_t *spec);

/* Hash of everything that changes numbers: an adapter trained on one spec is wrong on another. Not
 * the end-of-text tokens and not max_positions, which do not. */
uint64_t data_model_spec_hash(const data_model_spec_t *spec);

/* ==== rotary embedding ==== */

/* Writes head_dim / 2 inverse frequencies, in radians per position, and returns the factor by which
 * cos and sin are multiplied (1 except for yarn). Double throughout: the caller rounds once.
 *
 *   plain   theta^(-2i/d)
 *   linear  divided by factor
 *   llama3  wavelength w = 2 pi / inv: w < C/high keeps, w > C/low is divided by factor, between
 *           them s = (C/w - low) / (high - low) mixes (1-s) inv/factor + s inv;
 *           C = original_max_positions
 *   yarn    a ramp over the dimensions, from the one that turns beta_fast times within C (kept) to
 *           the one that turns beta_slow times (divided by factor) */
double data_model_spec_rope(const data_model_spec_t *spec, double *inv_freq);

/* What yarn multiplies cos and sin with unless it is told: 0.1 ln(factor) + 1. */
double data_rope_yarn_attention_factor(double factor);

/* ==== tensors ==== */

/* In the order of the list; the first group once, those of a layer for each layer. Linears are
 * (out, in) as in the file. X(name, name in the file) */
#define DATA_MODEL_TENSOR_MAP(X)                                                                   \
    X(EMBEDDING, "model.embed_tokens.weight")                                                      \
    X(FINAL_NORM, "model.norm.weight")                                                             \
    X(LM_HEAD, "lm_head.weight") /* untied only */                                                 \
    X(NORM1, "input_layernorm.weight")                                                             \
    X(Q, "self_attn.q_proj.weight")                                                                \
    X(Q_BIAS, "self_attn.q_proj.bias")                                                             \
    X(Q_NORM, "self_attn.q_norm.weight")                                                           \
    X(K, "self_attn.k_proj.weight")                                                                \
    X(K_BIAS, "self_attn.k_proj.bias")                                                             \
    X(K_NORM, "self_attn.k_norm.weight")                                                           \
    X(V, "self_attn.v_proj.weight")                                                                \
    X(V_BIAS, "self_attn.v_proj.bias")                                                             \
    X(O, "self_attn.o_proj.weight")                                                                \
    X(O_BIAS, "self_attn.o_proj.bias")                                                             \
    X(NORM2, "post_attention_layernorm.weight")                                                    \
    X(GATE, "mlp.gate_proj.weight")                                                                \
    X(GATE_BIAS, "mlp.gate_proj.bias")                                                             \
    X(UP, "mlp.up_proj.weight")                                                                    \
    X(UP_BIAS, "mlp.up_proj.bias")                                                                 \
    X(DOWN, "mlp.down_proj.weight")                                                                \
    X(DOWN_BIAS, "mlp.down_proj.bias")

typedef enum data_model_tensor_kind {
#define X(name, file_name) DATA_TENSOR_##name,
    DATA_MODEL_TENSOR_MAP(X)
#undef X
        DATA_TENSOR_NUM_KINDS
} data_model_tensor_kind_t;
#define DATA_TENSOR_FIRST_OF_LAYER DATA_TENSOR_NORM1

typedef struct data_model_tensor {
    char name[DATA_MODEL_NAME_BYTES]; /* "model.layers.3.self_attn.q_proj.weight" */
    data_model_tensor_kind_t kind;
    int32_t layer; /* -1: outside the layers */
    int32_t rank;  /* 1 or 2 */
    int64_t shape[2];
} data_model_tensor_t;

int64_t data_model_spec_num_tensors(const data_model_spec_t *spec);
/* Tensor 0 <= index < num_tensors of the list. */
void data_model_spec_tensor(const data_model_spec_t *spec, int64_t index,
                            data_model_tensor_t *tensor);
/* Index of a tensor, -1 when the model has none of that kind; layer is ignored outside the layers.
 */
int64_t data_model_spec_index(const data_model_spec_t *spec, data_model_tensor_kind_t kind,
                              int32_t layer);
/* Index of the tensor of that name in the file, -1 when the model has none. */
int64_t data_model_spec_find(const data_model_spec_t *spec, const char *name);
/* Elements of all tensors; a tied head counts once. */
int64_t data_model_spec_parameters(const data_model_spec_t *spec);

#ifdef __cplusplus
}
#endif
#endif
