/* How much of a thread's time is spent inside OpenBLAS: a timer on the thread's processor time
 * interrupts it, and the place it was at is looked up among the library's code.
 *
 *   BASE_TRY(tr_blas_sampler_create(ctx, &sampler));           for the calling thread
 *   tr_blas_sampler_run(sampler, 1); ... work ... tr_blas_sampler_run(sampler, 0);
 *   tr_blas_sampler_share(sampler, &samples)
 *
 * Nothing in the work's way is changed. The kernel samples at its own tick, 100 to 1000 times a
 * second: a share from n samples is good to about 1/sqrt(n). SIGPROF belongs to the sampler while it
 * lives; one at a time in a process. */
#ifndef CADRE_TRAINER_BENCH_BLAS_SAMPLER_H
#define CADRE_TRAINER_BENCH_BLAS_SAMPLER_H

#include "base/context.h"

typedef struct tr_blas_sampler tr_blas_sampler_t;

/* BASE_ERR_UNSUPPORTED where the place cannot be read (not x86-64 or aarch64, or OpenBLAS is not a
 * shared library). */
base_status_t tr_blas_sampler_create(base_ctx_t *ctx,
                                     tr_blas_sampler_t **sampler_p) BASE_MUST_CHECK;
void tr_blas_sampler_destroy(tr_blas_sampler_t *sampler); /* NULL is legal; by the same thread */

void tr_blas_sampler_run(tr_blas_sampler_t *sampler, int on);
/* 0 without samples. */
double tr_blas_sampler_share(const tr_blas_sampler_t *sampler, int64_t *samples);

#endif
