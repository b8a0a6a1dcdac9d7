/* `cadre bench load`: how fast the weights of a model folder reach the device (trainer/model/hf_load.c),
 * beside what the page cache gives: the same tensors, read by threads and thrown away.
 *
 * The first reading is not measured: it fills the page cache, if there is room. Then loading and
 * reading take turns; the best time of each counts, and of several numbers of threads the one that reads
 * fastest. */
#ifndef CADRE_TRAINER_BENCH_BENCH_LOAD_H
#define CADRE_TRAINER_BENCH_BENCH_LOAD_H

#include "comm/comm.h"
#include "kernels/op.h"

#include <stdbool.h>
#include <stdio.h>

#define TR_BENCH_LOAD_REPEAT  20 /* most */
#define TR_BENCH_LOAD_THREADS 16 /* most that read */

typedef struct tr_bench_load {
    const char *model; /* folder */
    kern_dtype_t dtype;
    int64_t repeat;
    double want_share; /* of what the page cache gives; 0: whatever it is */
    bool json;
    FILE *out;
    bool met; /* written: false when it falls short */
} tr_bench_load_t;

/* A comm_rank_fn for one rank; `user` is a tr_bench_load_t. */
base_status_t tr_bench_load_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user);

#endif
