/* `cadre bench placement`: microbatches of documents of natural lengths on several ranks, under one placement
 * of attention, by the wall clock.
 *
 * Forward and backward of one adapter of rank 16 on seven linears, of a model of a known shape with random
 * weights. Documents are drawn from one of the distributions of draw_lengths.h, or all have the same rows;
 * the last one of a microbatch is cut so that every microbatch has ranks x rows_each rows. They depend on
 * seed, ranks and rows_each alone: all placements get the same. With pool the trainers hold more rows each,
 * with local as many as the documents need, whole, on the fullest trainer.
 *
 * The first microbatch runs `warm` times first; then each runs once, from a barrier to a barrier. Beside that
 * it is measured on each rank until when its own work lasts. With local, where no rank waits for another
 * within a microbatch, the mean over the ranks of that is what any placement could reach at best: the ideal. */
#ifndef CADRE_TRAINER_BENCH_BENCH_PLACEMENT_H
#define CADRE_TRAINER_BENCH_BENCH_PLACEMENT_H

#include "attention_server/task.h"
#include "base/meter.h"
#include "comm/comm.h"
#include "trainer/loop/trainer.h"
#include "trainer/model/activations.h"
#include "trainer/simulate/draw_lengths.h"

#include <stdbool.h>
#include <stdio.h>

#define TR_BENCH_PLACEMENT_MICROBATCHES 64
#define TR_BENCH_PLACEMENT_RANKS        64
#define TR_BENCH_PLACEMENT_ADAPTER_RANK 16

typedef struct tr_bench_placement {
    const char *shape; /* model_shape.h */
    int64_t layers;    /* 0: the shape's */
    as_placement_t placement;
    int64_t servers; /* pool: the last ranks, so many */
    tr_lengths_t lengths;
    int64_t rows;     /* of every document; 0: drawn */
    int64_t max_rows; /* longer ones are cut */
    int64_t rows_each, microbatches, seed;
    int64_t warm;         /* times that the first microbatch runs before */
    int64_t retain_bytes; /* as tr_build_t */
    kern_dtype_t dtype;
    int follow_servers; /* as tr_build_t */
    tr_recompute_t recompute;
    const char *trace; /* folder, NULL: none */
    bool memory; /* only say what each rank's arena takes; nothing is allocated on the device */
    bool json;
    FILE *out;
} tr_bench_placement_t;

/* Of one rank. */
typedef struct tr_bench_placement_times {
    int64_t own_ns[TR_BENCH_PLACEMENT_MICROBATCHES]; /* until its own work was done */
    int64_t part_ns[BASE_NUM_PARTS];   /* of all microbatches; 0 where nothing is measured */
    int64_t arena_bytes, device_bytes; /* device: of all our buffers, at most */
    int64_t planned_bytes; /* the arena, and what trainer/run/driver_memory.h foretells */
    /* Of the rank's device, by the driver's count: before anything but the transport was made; after the
     * last microbatch. */
    int64_t used_before_bytes, used_bytes;
    tr_stalls_t stalls; /* of all microbatches, those that warmed up too */
} tr_bench_placement_times_t;

typedef struct tr_bench_placement_result {
    char device[96];
    int num_ranks, num_trainers;
    int64_t layers;
    const char *transport;
    int64_t tokens_per_trainer, rows; /* rows: of a microbatch */
    int64_t documents[TR_BENCH_PLACEMENT_MICROBATCHES];
    int64_t longest[TR_BENCH_PLACEMENT_MICROBATCHES];
    int64_t step_ns[TR_BENCH_PLACEMENT_MICROBATCHES]; /* rank 0's, barrier to barrier */
    double loss; /* weighted, a microbatch: the same for every placement up to rounding */
    tr_bench_placement_times_t of[TR_BENCH_PLACEMENT_RANKS];
} tr_bench_placement_result_t;

/* A comm_rank_fn; `user` is a tr_bench_placement_t. Rank 0 writes. */
base_status_t tr_bench_placement_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                      void *user);

/* bench_placement_report.c */
base_status_t tr_bench_placement_report(base_ctx_t *ctx, const tr_bench_placement_t *bench,
                                        const tr_bench_placement_result_t *result) BASE_MUST_CHECK;
const char *tr_bench_placement_name(as_placement_t placement);

#endif
