/* The dense part of the model on a trainer: everything between two attentions, forward and
 * backward.
 *
 * A dense step of the static program is the part of layer l-1 behind its attention and the part of
 * layer l before its attention, on one half's rows:
 *
 *   forward l    l = 0: embedding; else post(l-1): output projection, residual, norm, gate|up,
 *                SwiGLU, down, residual
 *                l < L: pre(l): norm, q|k|v projection, rotary embedding into q, k, v
 *                l = L: head (head.h)
 *   backward l   l = L-1: nothing before; else pre(l+1) backward, from dq, dk, dv
 *                l >= 0: what was not kept of layer l is made again (activations.h)
 *                l >= 0: post(l) backward, giving d_o;  l = -1: embedding backward
 *
 * With adapters (`route` given) every linear layer is that of lora/linear.h and the model itself is
 * frozen: the backward makes the gradients of the adapters and ends at the lowest layer's
 * projection, since nothing below it learns. Without, gradients of all weights are made.
 *
 * Gradients are added to what is there, in the order of the steps: pong before ping, layers
 * descending. All work goes to one compute stream, in the order of the calls; nothing waits on the
 * host or allocates. Every op has a fixed order and sees this trainer's rows only, so the bits
 * depend on trainers and packing, never on who computed the attention.
 *
 * A half with no rows is legal: the steps do nothing. Errors: those of the ops. One thread. */
#ifndef CADRE_TRAINER_MODEL_GRAPH_H
#define CADRE_TRAINER_MODEL_GRAPH_H

#include "lora/linear.h"
#include "trainer/model/activations.h"
#include "trainer/model/head.h"
#include "trainer/model/rows.h"
#include "trainer/model/weights.h"

typedef struct tr_graph {
    const tr_model_t *model;
    const base_arena_t *arena;
    const tr_weights_t *weights;
    const tr_activations_t *activations;
    const tr_rows_t *rows;
    const tr_head_t *head;
    const lora_route_t *route; /* NULL: no adapters */
    base_region_t cos_sin;     /* acc (max_positions, D) */
    base_stream_t *stream;
} tr_graph_t;

/* Declares the rotary table (owner "trainer", "cos_sin"); the fields above are set and borrowed. No
 * resources of its own: there is nothing to destroy. */
base_status_t tr_graph_init(tr_graph_t *graph, base_arena_t *arena, const tr_weights_t *weights,
                            const tr_activations_t *activations, const tr_rows_t *rows,
                            const tr_head_t *head, const lora_route_t *route,
                            base_stream_t *stream) BASE_MUST_CHECK;
/* After commit, once: gives the rotary table to the stream. */
base_status_t tr_graph_start(const tr_graph_t *graph) BASE_MUST_CHECK;

/* The steps of the legend: 0 <= layer <= L forward, -1 <= layer < L backward. evaluate: the head
 * makes losses only (head.h), and no backward follows. */
base_status_t tr_graph_forward(const tr_graph_t *graph, data_half_t half, int32_t layer,
                               int evaluate) BASE_MUST_CHECK;
base_status_t tr_graph_backward(const tr_graph_t *graph, data_half_t half,
                                int32_t layer) BASE_MUST_CHECK;

/* What attention of that half and layer reads and writes. */
as_tensors_t tr_graph_tensors(const tr_graph_t *graph, data_half_t half, int32_t layer,
                              as_direction_t direction);

#endif
