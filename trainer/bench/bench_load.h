/* `cadre bench load`: how fast the weights of a model folder reach the device (trainer/model/hf_load.h),
 * beside what bounds it, timed in the same run (trainer/bench/bench_load_bare.h):
 *
 *   read   the same tensors, copied out of the page cache into pinned memory and no further
 *   link   uploads from pinned memory, nothing being read: 1 and 2 streams, copies of a slot and of 64 MiB,
 *          copies of a slot's worth of rows that lie apart on the device, and copies from 8 bytes out of step
 *
 * The wanted share is of the slower of the two. A GPU's copy engines reach memory that is pinned, the page
 * cache is not: every byte is copied by a processor once and crosses PCIe once, and both go on at the same
 * time at best. PCIe 5.0 x16 carries 63 GB/s and some 55 of payload, less than a page cache gives sixteen threads,
 * so that a share of the page cache alone could not reach 0.8 on such a host however loading is written.
 *
 * Weights lie as in a run with adapters, with columns beside them; the time is that of the whole call, with
 * the pinned memory, threads and streams that it takes and gives back, and without the weights' own
 * memory. `pin` is what a way's slots cost by themselves.
 *
 * The first reading is not measured: it fills the page cache, if there is room. Then all take turns, and the
 * best time of each counts; of reading, the best number of threads, of uploading, the best way. */
#ifndef CADRE_TRAINER_BENCH_BENCH_LOAD_H
#define CADRE_TRAINER_BENCH_BENCH_LOAD_H

#include "comm/comm.h"
#include "kernels/op.h"

#include <stdbool.h>
#include <stdio.h>

#define TR_BENCH_LOAD_REPEAT 20 /* most */

typedef struct tr_bench_load {
    const char *model; /* folder */
    kern_dtype_t dtype;
    int64_t repeat;
    bool ways; /* also with other threads, slots and landings than loading takes by itself */
    double want_share; /* of the slower bound, in per cent; 0: whatever it is */
    bool json;
    FILE *out;
    bool met; /* written: false when it falls short */
} tr_bench_load_t;

/* A comm_rank_fn for one rank; `user` is a tr_bench_load_t. */
base_status_t tr_bench_load_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user);

#endif
