/* What the CUDA ops keep with a stream, made when the first op of the stream needs it and destroyed
 * with the stream (base_stream_keep):
 *
 *   scratch  device memory for sums that several blocks share. Ops of one stream follow each other,
 *            so one piece serves all of them; a second stream has its own
 *   ticket   a counter in device memory, by which a kernel's blocks tell which of them ends last
 *   gemm     the cuBLASLt handle and the algorithm of every shape that was met (gemm_plans.h)
 *
 * The first such op allocates; later ones do not. An op that runs beside others on another stream
 * (copies, partial_sum, attention) needs none of it. */
#ifndef CADRE_KERNELS_CUDA_STREAM_STATE_H
#define CADRE_KERNELS_CUDA_STREAM_STATE_H

#include "base/device/device_host.h"
#include "kernels/cuda/gemm_plans.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KERN_CUDA_SCRATCH_BYTES ((int64_t)80 << 20)

typedef struct kern_cuda_state {
    base_stream_part_t part; /* first */
    base_ctx_t *ctx;
    base_buffer_t *scratch;  /* KERN_CUDA_SCRATCH_BYTES, then the ticket */
    kern_gemm_plans_t *gemm; /* NULL until kern_cuda_gemm_plans */
} kern_cuda_state_t;

/* BASE_ERR_NOMEM, BASE_ERR_DEVICE. */
base_status_t kern_cuda_state_of(base_stream_t *s, kern_cuda_state_t **state_p) BASE_MUST_CHECK;

/* The scratch memory's address. */
base_status_t kern_cuda_scratch(base_stream_t *s, void **scratch_p) BASE_MUST_CHECK;

/* The ticket's address: 0 at first, and a kernel leaves it so. */
base_status_t kern_cuda_ticket(base_stream_t *s, uint32_t **ticket_p) BASE_MUST_CHECK;

/* BASE_ERR_UNSUPPORTED is never returned: a host without cuBLASLt is BASE_ERR_DEVICE (DEV-01). */
base_status_t kern_cuda_gemm_plans(base_stream_t *s, kern_gemm_plans_t **plans_p) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
