/* What a device does when it does nothing else: the rates of a matrix product, of a copy and of core attention,
 * each repeated for a tenth of a second. A step's time goes against the first two, its two ceilings; attention's
 * own rate says what of its time is the step's. */
#ifndef CADRE_TRAINER_BENCH_BENCH_BARE_H
#define CADRE_TRAINER_BENCH_BENCH_BARE_H

#include "trainer/bench/bench_attention_rig.h"

/* C = A B^T with A (m, k), B (n, k), all of `dtype`, numbers of the interval [-1, 1). The copy moves C.
 * Both operands of a copy count, what is read and what is written. */
typedef struct tr_bare {
    kern_dtype_t dtype;
    int64_t m, n, k;
    double flops_per_ns, copy_bytes_per_ns; /* written */
} tr_bare_t;

/* Core attention over `count` whole documents of `rows` rows, as `cadre bench attention` runs it. */
typedef struct tr_bare_attention {
    tr_attention_shape_t shape;
    int64_t count, rows;
    double flops_per_ns[AS_PROFILE_DIRECTIONS]; /* written */
} tr_bare_attention_t;

/* Takes device memory for A, B and twice C, and frees it. Searches the product's algorithm. */
base_status_t tr_bare_measure(base_stream_t *stream, tr_bare_t *bare) BASE_MUST_CHECK;

/* On a device of that kind, opened for it; in bf16 on a GPU, else in fp32. */
base_status_t tr_bare_attention_measure(base_ctx_t *ctx, base_device_kind_t kind,
                                        tr_bare_attention_t *bare) BASE_MUST_CHECK;

#endif
