/* What a device does when it does nothing else: the rates of a matrix product and of a copy, each repeated
 * for a tenth of a second on the stream. A step's time goes against these two ceilings. */
#ifndef CADRE_TRAINER_BENCH_BENCH_BARE_H
#define CADRE_TRAINER_BENCH_BENCH_BARE_H

#include "kernels/op.h"

/* C = A B^T with A (m, k), B (n, k), all of `dtype`, numbers of the interval [-1, 1). The copy moves C.
 * Both operands of a copy count, what is read and what is written. */
typedef struct tr_bare {
    kern_dtype_t dtype;
    int64_t m, n, k;
    double flops_per_ns, copy_bytes_per_ns; /* written */
} tr_bare_t;

/* Takes device memory for A, B and twice C, and frees it. Searches the product's algorithm. */
base_status_t tr_bare_measure(base_stream_t *stream, tr_bare_t *bare) BASE_MUST_CHECK;

#endif
