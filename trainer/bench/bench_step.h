/* `cadre bench step`: one training step of a random model on random documents, and where its time
 * goes on the CPU.
 *
 * LoRA of rank 16 on seven linears, forward, backward and optimizer step, warm. Three shares are
 * judged, all of processor time of the rank's thread:
 *   blas       of the step inside OpenBLAS, sampled (blas_sampler.h)        at least TR_BENCH_BLAS
 *   dense      speed of the step's matrix products to that of bare sgemm    at least TR_BENCH_DENSE
 *   attention  GFLOP/s of attention (visible pairs only) to sgemm's best    at least TR_BENCH_ATTENTION
 * Bare sgemm runs the same shapes, without pitches, after each step of the same run, so that both
 * meet the same load of the machine. */
#ifndef CADRE_TRAINER_BENCH_BENCH_STEP_H
#define CADRE_TRAINER_BENCH_BENCH_STEP_H

#include "comm/comm.h"
#include "trainer/bench/op_clock.h"

#include <stdbool.h>
#include <stdio.h>

#define TR_BENCH_BLAS      0.60
#define TR_BENCH_DENSE     0.80
#define TR_BENCH_ATTENTION 0.40
#define TR_BENCH_REPEAT    20 /* most measured steps */

typedef struct tr_bench_step {
    int64_t hidden, layers, vocab, documents, rows; /* rows of a document */
    int64_t repeat;                                 /* measured steps */
    bool json;
    FILE *out;
    bool met; /* written: every share is as high as it should be */
} tr_bench_step_t;

/* What was measured; bare and counts belong to entries of the clock of the same number. */
typedef struct tr_bench_result {
    tr_op_clock_t clock;                  /* sums over the measured steps */
    int64_t bare_ns[TR_OP_CLOCK_ENTRIES]; /* of one product, median; 0: not a gemm */
    int64_t step_ns, wall_ns;             /* median of processor and wall time of a step */
    int64_t op_ns;                        /* of all ops, over all measured steps */
    int64_t all_ns;                       /* of all measured steps */
    double blas, dense, attention, peak;  /* shares; peak in FLOP/s */
    int64_t samples;
    double load; /* of the machine, one minute, at the end */
} tr_bench_result_t;

/* A comm_rank_fn for one rank; `user` is a tr_bench_step_t. Writes the table, or the JSON, to out. */
base_status_t tr_bench_step_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user);

/* bench_report.c */
void tr_bench_step_text(const tr_bench_step_t *bench, const tr_bench_result_t *result);
base_status_t tr_bench_step_json(base_ctx_t *ctx, const tr_bench_step_t *bench,
                                 const tr_bench_result_t *result) BASE_MUST_CHECK;

#endif
