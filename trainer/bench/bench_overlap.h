/* `cadre bench overlap`: what ping-pong hides of a slow link.
 *
 * Two trainers, threads of this process, each also a server, run a step (one microbatch, forward
 * and backward) of a random model on two documents that lie on both of them, one in ping and one in
 * pong. It is timed with and without a delay of every message, with ping-pong and without
 * (static_program.h), the four kinds by turns in the same process so that all meet the same load;
 * medians are compared. What the delay could add is that of 8 messages a layer, one after the
 * other: out and back, two halves, forward and backward. */
#ifndef CADRE_TRAINER_BENCH_BENCH_OVERLAP_H
#define CADRE_TRAINER_BENCH_BENCH_OVERLAP_H

#include "base/context.h"

#include <stdio.h>

#define TR_BENCH_OVERLAP_ROUNDS 50
#define TR_BENCH_OVERLAP_HIDDEN 0.10 /* with ping-pong at most so much of the delay is seen */
#define TR_BENCH_OVERLAP_SEEN   0.80 /* without it at least so much */

typedef struct tr_bench_overlap {
    int64_t hidden, layers, rows; /* rows of each document */
    int64_t delay_ms, rounds;
    FILE *out;
    int met; /* written: both bounds */
} tr_bench_overlap_t;

base_status_t tr_bench_overlap(base_ctx_t *ctx, tr_bench_overlap_t *bench) BASE_MUST_CHECK;

#endif
