/* The static program: the order of steps that every rank follows, the same for all placements.
 *
 *   forward, layer l = 0 ... L-1
 *       finish(ping, l-1) dense(ping, l) begin(ping, l)
 *       finish(pong, l-1) dense(pong, l) begin(pong, l)
 *       serve(ping, l) serve(pong, l)
 *   turn: dense(L) is the end of the last layer and the head
 *       finish(ping, L-1) dense(ping, L)
 *       finish(pong, L-1) dense(pong, L)
 *   backward, layer l = L-1 ... 0
 *       finish(pong, l+1) dense(pong, l) begin(pong, l)
 *       finish(ping, l+1) dense(ping, l) begin(ping, l)
 *       serve(pong, l) serve(ping, l)
 *   end: dense(-1) is the embedding's backward
 *       finish(pong, 0) dense(pong, -1)
 *       finish(ping, 0) dense(ping, -1)
 *
 * A finish without a begin before it (layer -1 forward, layer L backward) does not exist. So q, k,
 * v of ping fly under dense(pong), those of pong under serve(ping), o of ping under serve(pong), o
 * of pong under the next dense(ping).
 *
 * That is ping-pong. Without it (serial, to see what it is worth) a settle follows every begin and
 * serve: the exchange is waited for where it begins, under nothing.
 *
 * A trainer runs all steps; a pool rank runs begin, serve and finish, and leaves the dense ones
 * out. The program is data, a table of steps: what runs it, numbers it for lifetimes (phase),
 * prints or simulates it reads the same table. */
#ifndef CADRE_TRAINER_LOOP_STATIC_PROGRAM_H
#define CADRE_TRAINER_LOOP_STATIC_PROGRAM_H

#include "attention_server/attention.h"

typedef enum tr_step_kind {
    TR_STEP_FINISH,
    TR_STEP_DENSE,
    TR_STEP_BEGIN,
    TR_STEP_SERVE,
    TR_STEP_SETTLE
} tr_step_kind_t;

typedef struct tr_step {
    tr_step_kind_t kind;
    as_direction_t direction;
    data_half_t half;
    int32_t layer; /* of finish: the layer of the begin that it finishes */
    int32_t phase; /* forward l and turn: l; backward l and end: 2 L - l; the last is 2 L + 1 */
} tr_step_t;

typedef struct tr_program {
    int32_t num_layers;
    int32_t num_steps;
    int32_t num_forward_steps; /* the first of them: forward and turn */
    int serial;                /* without ping-pong */
    tr_step_t *steps;
    base_ctx_t *ctx;
} tr_static_program_t;

/* Builds the table for a model of num_layers (>= 1) layers. The caller frees it with
 * tr_static_program_destroy. */
base_status_t tr_static_program_create(base_ctx_t *ctx, int32_t num_layers, int serial,
                                       tr_static_program_t **program_p) BASE_MUST_CHECK;
void tr_static_program_destroy(tr_static_program_t *program); /* NULL is legal */

/* What runs a step. A rank without dense layers has dense = NULL. */
typedef struct tr_static_program_ops {
    base_status_t (*dense)(void *user, const tr_step_t *step);
    base_status_t (*begin)(void *user, const tr_step_t *step);
    base_status_t (*serve)(void *user, const tr_step_t *step);
    base_status_t (*finish)(void *user, const tr_step_t *step);
    base_status_t (*settle)(void *user, const tr_step_t *step); /* of a serial program only */
} tr_static_program_ops_t;

/* Runs the table's first num_steps steps once (all, or num_forward_steps for an evaluation); stops
 * at the first failure and forwards it. */
base_status_t tr_static_program_run(const tr_static_program_t *program, int32_t num_steps,
                                    const tr_static_program_ops_t *ops, void *user) BASE_MUST_CHECK;

#endif
