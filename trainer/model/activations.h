/* What a trainer keeps of its rows while a microbatch runs: which tensors there are, how wide, how
 * long they live.
 *
 * Every tensor is a slot of one table (TR_SLOT_MAP), declared in the arena as one region for each
 * layer and half, for each half, or once (owner "trainer", name "q.layer3.pong"). Lifetimes are
 * phases of the static program (trainer/loop/static_program.h): tensors that never live together
 * share bytes.
 *
 * Policy. What the backward reads either stays from the forward, or is made again from what does
 * (tr_recompute_t); then its memory is that of one layer, or of one dense step. It is made again by
 * the same ops from the same bits, so gradients do not depend on the policy. o and LSE stay in every
 * policy: core attention is never repeated.
 *
 * All memory is filled with NaN once at tr_activations_fill, so that a tensor that is read before
 * it is written shows in the first loss. Pad rows are computed like others and are finite: token 0
 * at position 0, attention output 0.
 *
 * Borrows model and arena. Only read after commit. */
#ifndef CADRE_TRAINER_MODEL_ACTIVATIONS_H
#define CADRE_TRAINER_MODEL_ACTIVATIONS_H

#include "base/arena.h"
#include "trainer/model/model.h"

/* When a slot lives. L layers; forward of layer l is phase l, the head L, backward of layer l is
 * phase 2 L - l and the end of the backward 2 L + 1. The part of layer l behind attention runs with
 * the next layer's dense step, so at l + 1. */
typedef enum tr_lifetime {
    TR_LIVES_FROM_PRE,  /* [l, 2 L - l + 1]: made before attention of layer l */
    TR_LIVES_FROM_POST, /* [l + 1, 2 L - l]: made behind attention of layer l */
    TR_LIVES_FORWARD,   /* [0, L]: scratch of one dense step */
    TR_LIVES_HEAD,      /* [L, L] */
    TR_LIVES_GRADIENT,  /* [L, 2 L + 1]: made by the head, carried through the backward */
    TR_LIVES_BACKWARD,  /* [L + 1, 2 L + 1] */
    TR_LIVES_RUN
} tr_lifetime_t;

typedef enum tr_scope { TR_PER_LAYER, TR_PER_HALF, TR_SHARED } tr_scope_t;

/* What is made again in the backward: nothing; q, k, v (and what head norms keep); all of a layer but
 * its x, o and LSE. */
typedef enum tr_recompute {
    TR_RECOMPUTE_NOTHING,
    TR_RECOMPUTE_QKV,
    TR_RECOMPUTE_BLOCK,
    TR_NUM_RECOMPUTES
} tr_recompute_t;
const char *tr_recompute_name(tr_recompute_t recompute); /* "none", "qkv", "block" */

/* Which policies make a slot again, and where it is between that and its use. */
typedef enum tr_made {
    TR_MADE_ONCE,
    TR_MADE_QKV,    /* from TR_RECOMPUTE_QKV on, per half: until the layer before is made */
    TR_MADE_PRE,    /* with TR_RECOMPUTE_BLOCK, per half */
    TR_MADE_POST,   /* with TR_RECOMPUTE_BLOCK, within one dense step */
    TR_MADE_SCRATCH /* of what is made again: lives in the backward too */
} tr_made_t;

/* X(slot, name, scope, elements a row, extra columns?, acc dtype?, lifetime, made). m is the model.
 * q, k, v, dq, dk, dv and lse are head-group-major as in kernels/op.h with head_rows = max_rows. */
#define TR_SLOT_MAP(X)                                                                             \
    X(X, "x", TR_PER_LAYER, m->config.hidden, 0, 0, TR_LIVES_FROM_PRE, TR_MADE_ONCE)               \
    X(RSTD1, "rstd1", TR_PER_LAYER, 1, 0, 1, TR_LIVES_FROM_PRE, TR_MADE_PRE)                       \
    X(N1, "n1", TR_PER_LAYER, m->config.hidden, 1, 0, TR_LIVES_FROM_PRE, TR_MADE_PRE)              \
    X(Q, "q", TR_PER_LAYER, m->q_cols, 0, 0, TR_LIVES_FROM_PRE, TR_MADE_QKV)                       \
    X(K, "k", TR_PER_LAYER, m->kv_cols, 0, 0, TR_LIVES_FROM_PRE, TR_MADE_QKV)                      \
    X(V, "v", TR_PER_LAYER, m->kv_cols, 0, 0, TR_LIVES_FROM_PRE, TR_MADE_QKV)                      \
    X(O, "o", TR_PER_LAYER, m->q_cols, 1, 0, TR_LIVES_FROM_PRE, TR_MADE_ONCE)                      \
    X(LSE, "lse", TR_PER_LAYER, m->config.num_q_heads, 0, 1, TR_LIVES_FROM_PRE, TR_MADE_ONCE)      \
    X(MID, "mid", TR_PER_LAYER, m->config.hidden, 0, 0, TR_LIVES_FROM_POST, TR_MADE_POST)          \
    X(RSTD2, "rstd2", TR_PER_LAYER, 1, 0, 1, TR_LIVES_FROM_POST, TR_MADE_POST)                     \
    X(N2, "n2", TR_PER_LAYER, m->config.hidden, 1, 0, TR_LIVES_FROM_POST, TR_MADE_POST)            \
    X(GATE_UP, "gate_up", TR_PER_LAYER, 2 * (int64_t)m->config.intermediate, 0, 0,                 \
      TR_LIVES_FROM_POST, TR_MADE_POST)                                                            \
    X(ACT, "act", TR_PER_LAYER, m->config.intermediate, 1, 0, TR_LIVES_FROM_POST, TR_MADE_POST)    \
    /* of one dense step */                                                                        \
    X(QKV, "qkv", TR_SHARED, m->qkv_cols, 0, 0, TR_LIVES_FORWARD, TR_MADE_SCRATCH)                 \
    /* models with head norms: q|k as projected, and the norms' rstd */                            \
    X(QK_RAW, "qk_raw", TR_PER_LAYER, m->config.qk_norm ? m->q_cols + m->kv_cols : 0, 0, 0,        \
      TR_LIVES_FROM_PRE, TR_MADE_QKV)                                                              \
    X(RSTD_Q, "rstd_q", TR_PER_LAYER, m->config.qk_norm ? m->config.num_q_heads : 0, 0, 1,         \
      TR_LIVES_FROM_PRE, TR_MADE_QKV)                                                              \
    X(RSTD_K, "rstd_k", TR_PER_LAYER, m->config.qk_norm ? m->config.num_kv_heads : 0, 0, 1,        \
      TR_LIVES_FROM_PRE, TR_MADE_QKV)                                                              \
    X(BRANCH, "branch", TR_SHARED, m->config.hidden, 0, 0, TR_LIVES_FORWARD, TR_MADE_SCRATCH)      \
    /* head */                                                                                     \
    X(LAST, "last", TR_SHARED, m->config.hidden, 0, 0, TR_LIVES_HEAD, TR_MADE_ONCE)                \
    X(RSTD_LAST, "rstd_last", TR_SHARED, 1, 0, 1, TR_LIVES_HEAD, TR_MADE_ONCE)                     \
    X(HIDDEN, "hidden", TR_PER_HALF, m->config.hidden, 0, 0, TR_LIVES_RUN, TR_MADE_ONCE)           \
    X(DHIDDEN, "dhidden", TR_SHARED, m->config.hidden, 0, 0, TR_LIVES_HEAD, TR_MADE_ONCE)          \
    /* backward; dx is the gradient of the residual stream */                                      \
    X(DX, "dx", TR_PER_HALF, m->config.hidden, 1, 0, TR_LIVES_GRADIENT, TR_MADE_ONCE)              \
    X(DO, "d_o", TR_PER_HALF, m->q_cols, 0, 0, TR_LIVES_BACKWARD, TR_MADE_ONCE)                    \
    X(DQ, "dq", TR_PER_HALF, m->q_cols, 0, 0, TR_LIVES_BACKWARD, TR_MADE_ONCE)                     \
    X(DK, "dk", TR_PER_HALF, m->kv_cols, 0, 0, TR_LIVES_BACKWARD, TR_MADE_ONCE)                    \
    X(DV, "dv", TR_PER_HALF, m->kv_cols, 0, 0, TR_LIVES_BACKWARD, TR_MADE_ONCE)                    \
    X(DQKV, "dqkv", TR_SHARED, m->qkv_cols, 1, 0, TR_LIVES_BACKWARD, TR_MADE_ONCE)                 \
    X(DNORM, "dnorm", TR_SHARED, m->config.hidden, 0, 0, TR_LIVES_BACKWARD, TR_MADE_ONCE)          \
    X(DACT, "dact", TR_SHARED, m->config.intermediate, 0, 0, TR_LIVES_BACKWARD, TR_MADE_ONCE)      \
    X(DGATE_UP, "dgate_up", TR_SHARED, 2 * (int64_t)m->config.intermediate, 1, 0,                  \
      TR_LIVES_BACKWARD, TR_MADE_ONCE)

typedef enum tr_slot {
#define X(slot, name, scope, width, extra, acc, lifetime, made) TR_SLOT_##slot,
    TR_SLOT_MAP(X)
#undef X
        TR_SLOT_COUNT
} tr_slot_t;

typedef struct tr_activations {
    const tr_model_t *model;
    const base_arena_t *arena;
    int64_t max_rows; /* rows of a half for which there is room */
    tr_recompute_t recompute;
    base_region_t *regions; /* [TR_SLOT_COUNT][num_layers][DATA_NUM_HALVES], not all in use */
    base_ctx_t *ctx;
} tr_activations_t;

/* Declares all slots for halves of up to max_rows rows. The caller frees *activations_p with
 * tr_activations_destroy. */
base_status_t tr_activations_create(const tr_model_t *model, base_arena_t *arena, int64_t max_rows,
                                    tr_recompute_t recompute,
                                    tr_activations_t **activations_p) BASE_MUST_CHECK;
void tr_activations_destroy(
    tr_activations_t *activations); /* NULL is legal; the memory is the arena's */

/* NaN everywhere; given to `stream`. After commit, once. */
base_status_t tr_activations_fill(const tr_activations_t *activations,
                                  base_stream_t *stream) BASE_MUST_CHECK;

/* Elements from row to row of a slot: its width, or tr_model_pitch of it with extra columns. */
int64_t tr_activations_pitch(const tr_activations_t *activations, tr_slot_t slot);

/* `rows` rows of a slot as an operand: (rows, width) with its pitch; the rstd slots as a vector (1,
 * rows). half and layer are ignored where the scope has none. */
kern_mat_t tr_activations_mat(const tr_activations_t *activations, tr_slot_t slot, data_half_t half,
                              int32_t layer, int64_t rows);
/* The same as a place, for the head-group-major slots. */
base_mem_t tr_activations_mem(const tr_activations_t *activations, tr_slot_t slot, data_half_t half,
                              int32_t layer);

#endif
