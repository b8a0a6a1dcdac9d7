/* `cadre bench train`: training steps of a model of that shape with random weights
 * on one device, by the wall clock: forward, backward and the optimizer of every adapter, as in a
 * run.
 *
 * `warm` steps are not measured (on a GPU what was not searched yet is searched in the first), `repeat`
 * are, and one more runs op by op, waiting for the device after each, which says where the
 * time goes; then a bare product (the layer's gate and up, without LoRA), a bare copy and a half's attention
 * by itself, which say what it could be. What is measured besides: the parts of the compute stream's time (base/meter.h), where
 * idle includes the beginning of each step, which the host gives when the step before is over, and
 * waits and allocations inside microbatches. A step is one microbatch: `documents` documents of `rows` rows, dealt out to the
 * adapters in turn; its layout and plan are made before it, as the planner's thread does in a run. */
#ifndef CADRE_TRAINER_BENCH_BENCH_TRAIN_H
#define CADRE_TRAINER_BENCH_BENCH_TRAIN_H

#include "comm/comm.h"
#include "trainer/bench/bench_bare.h"
#include "trainer/bench/op_clock.h"
#include "trainer/loop/trainer.h"
#include "trainer/model/activations.h"

#include <stdbool.h>
#include <stdio.h>

#define TR_BENCH_TRAIN_REPEAT   50 /* most measured steps */
#define TR_BENCH_TRAIN_ADAPTERS 16

typedef struct tr_bench_train {
    const char *shape; /* model_shape.h */
    int64_t layers;    /* 0: the shape's */
    int64_t documents, rows, adapters, rank, warm, repeat;
    kern_dtype_t dtype;
    int recompute_auto; /* the least that fits, from `recompute` on */
    tr_recompute_t recompute;
    int follow_servers; /* as tr_build_t: what a run does on a GPU */
    bool steps_only;    /* no step op by op, and nothing bare */
    bool memory;        /* only say what each policy takes; nothing is allocated on the device */
    bool json;
    FILE *out;
} tr_bench_train_t;

typedef struct tr_bench_train_result {
    char device[96];
    int64_t parameters, batch_rows;
    int64_t arena_bytes, device_bytes; /* of all our buffers, at most */
    int64_t planned_bytes; /* the arena, and what trainer/run/driver_memory.h foretells */
    int64_t used_bytes
        [2]; /* of the device, by the driver's count: before anything was made; after the steps */
    tr_recompute_t recompute; /* that was at work */
    int64_t step_ns[TR_BENCH_TRAIN_REPEAT];
    int64_t given_ns[TR_BENCH_TRAIN_REPEAT]; /* until all of forward and backward was given */
    int64_t median_ns, serial_ns;            /* of a step; of the one that ran op by op */
    int64_t part_ns[BASE_NUM_PARTS];         /* of all measured steps; NONE: idle */
    tr_stalls_t stalls;                      /* of all steps so far, the first `warm` too */
    double loss[2];                          /* adapter 0's: of the first and the last step */
    tr_op_clock_t clock;                     /* of the last */
    tr_bare_t bare;
    tr_bare_attention_t attention; /* of a half's documents */
} tr_bench_train_result_t;

/* A comm_rank_fn for one rank; `user` is a tr_bench_train_t. */
base_status_t tr_bench_train_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                  void *user);

/* bench_train_report.c */
base_status_t tr_bench_train_report(base_ctx_t *ctx, const tr_bench_train_t *bench,
                                    tr_bench_train_result_t *result) BASE_MUST_CHECK;

#endif
