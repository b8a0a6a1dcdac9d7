/* Times the ops of a rank, op by op and matrix products shape by shape, with their arithmetic and memory traffic.
 *
 *   tr_op_clock_init(&clock);
 *   base_ctx_set_observer(ctx, &clock.observer);  ... a step ...  base_ctx_set_observer(ctx, NULL);
 *   ... clock.entries[0 <= i < clock.count] ...
 *
 * The clock is the thread's processor time, so that other programs on the machine show less: for CPU
 * devices, whose compute stream runs an op within the call. With a stream it is the time until the
 * stream has passed the op: for GPUs, whose ops then run one by one. */
#ifndef CADRE_TRAINER_BENCH_OP_CLOCK_H
#define CADRE_TRAINER_BENCH_OP_CLOCK_H

#include "base/context.h"
#include "kernels/op.h"

#define TR_OP_CLOCK_ENTRIES 64

typedef struct tr_op_entry {
    const char *op;  /* "gemm" */
    int64_t m, n, k; /* of a gemm, else 0 */
    int ta, tb, accumulate;
    int64_t calls, ns;
    double flops; /* multiplications and additions that the result needs; 0: not counted */
    double bytes; /* of all operands, each read once and written once */
} tr_op_entry_t;

typedef struct tr_op_clock {
    base_observer_t observer;
    base_stream_t *stream; /* NULL: processor time */
    base_status_t status;  /* with a stream: the first error of waiting for it */
    int64_t begin_ns;
    int count;
    tr_op_entry_t entries[TR_OP_CLOCK_ENTRIES]; /* the last one takes what has no place */
} tr_op_clock_t;

void tr_op_clock_init(tr_op_clock_t *clock); /* stays where it is */
void tr_op_clock_init_stream(tr_op_clock_t *clock, base_stream_t *stream);
int64_t tr_op_clock_cpu_ns(void); /* processor time of the calling thread */

#endif
