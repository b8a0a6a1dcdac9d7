/* The weights of a model on one trainer, and their gradients.
 *
 * One arena region for each weight (owner "trainer", its name from the model) and, unless the model
 * is frozen, one for its gradient ("grad.NAME"), both for the whole run. A weight has its model's
 * dtype and pitch; a gradient has the acc dtype and no extra columns, so that a reduction over
 * trainers is one contiguous vector.
 *
 *   BASE_TRY(tr_weights_create(model, arena, &weights));        declares
 *   BASE_TRY(base_arena_commit(arena));
 *   BASE_TRY(tr_weights_random(weights, stream, seed));
 *
 * Values: element i of weight number w is a pure function of (seed, w, i), drawn in double and
 * rounded to the dtype (BF16: to F32 first): equal on every rank, and up to rounding in every
 * dtype.
 * Linears N(0, 1/K), embedding N(0, 1), norms 1 + N(0, 0.01), biases N(0, 0.01).
 *
 * Borrows model and arena. All work is given to the stream that the call names; read and write
 * functions wait for it, allocate and are for setup, checkpoints and tests, never inside a
 * microbatch. One thread. */
#ifndef CADRE_TRAINER_MODEL_WEIGHTS_H
#define CADRE_TRAINER_MODEL_WEIGHTS_H

#include "base/arena.h"
#include "trainer/model/model.h"

typedef struct tr_weights {
    const tr_model_t *model;
    const base_arena_t *arena;
    base_region_t *weight;   /* [model->num_weights] */
    base_region_t *gradient; /* [model->num_weights] */
    base_ctx_t *ctx;
} tr_weights_t;

/* The caller frees *weights_p with tr_weights_destroy. */
base_status_t tr_weights_create(const tr_model_t *model, base_arena_t *arena,
                                tr_weights_t **weights_p) BASE_MUST_CHECK;
void tr_weights_destroy(tr_weights_t *weights); /* NULL is legal; the memory is the arena's */

/* Weight `index` of the model's list, and its gradient (absent: frozen). After commit. */
kern_mat_t tr_weights_mat(const tr_weights_t *weights, int32_t index);
kern_mat_t tr_weights_gradient(const tr_weights_t *weights, int32_t index);

/* NaN into the extra columns and rows; given to the stream. After commit, once, before anything is
 * written there: writing weights leaves them as they are. */
base_status_t tr_weights_fill(const tr_weights_t *weights, base_stream_t *stream) BASE_MUST_CHECK;

/* Draws all weights and uploads them; waits for the stream. */
base_status_t tr_weights_random(const tr_weights_t *weights, base_stream_t *stream,
                                uint64_t seed) BASE_MUST_CHECK;

/* The same distributions for benchmarks, at once and without the host: some millions of values are
 * drawn, and repeated on the device, shifted from weight to weight. */
base_status_t tr_weights_repeat(const tr_weights_t *weights, base_stream_t *stream,
                                uint64_t seed) BASE_MUST_CHECK;

/* Rows [row, row + rows) of a weight from rows x cols doubles. */
base_status_t tr_weights_write_rows(const tr_weights_t *weights, int32_t index, int64_t row,
                                    int64_t rows, base_stream_t *stream,
                                    const double *values) BASE_MUST_CHECK;
/* One weight from, or to, rows x cols doubles without extra columns. */
base_status_t tr_weights_write(const tr_weights_t *weights, int32_t index, base_stream_t *stream,
                               const double *values) BASE_MUST_CHECK;
base_status_t tr_weights_read(const tr_weights_t *weights, int32_t index, base_stream_t *stream,
                              double *values) BASE_MUST_CHECK;

/* Any matrix of dtype F32, F64 or BF16 to rows x cols doubles; waits for the stream. For the functions
 * above, gradients and hidden states. */
base_status_t tr_weights_download(base_ctx_t *ctx, base_stream_t *stream, const kern_mat_t *mat,
                                  double *values) BASE_MUST_CHECK;

#endif
