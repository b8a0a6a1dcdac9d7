/* What a GPU's memory holds of a run besides its buffers: CUDA, its libraries, and the scratch that ops take by themselves. By
 * rule and by measurement, so that a plan made on any machine foretells what the driver counts.
 *
 *   cuda     the context, from when the device is opened: 536 MiB (docs/measurements/2026-11-30-gpu-training-3,
 *            "used_before_bytes"), and 6 MiB that come with the first launches
 *   kernels  stacks: once a kernel with a frame has run, CUDA keeps that frame for every thread the GPU can hold. Ours have next to none; of
 *            cuBLASLt's those with one take 1536 bytes x 2048 threads x 132 processors = 396 MiB, which is by
 *            how much trainers differ from a rank that only serves (docs/measurements/2026-11-30-two-gpus-2). Runs whose
 *            numbers of rows are all large and even may do without them; this is not foretold. With NCCL, whose kernels have
 *            larger frames and 95 MiB of code, 838 MiB in place of that, on every rank: measured on two GPUs as what is left when the
 *            buffers are taken off
 *   scratch  of the ops (kernels/cuda/stream_state.h), on ranks that have layers: 84 MiB with what else is allocated behind
 *            the arena
 *   nccl     buffers of its communicators (comm/nccl_memory.h)
 *
 * All measured on H200s (132 processors), CUDA 13.0, NCCL 2.28. On other GPUs stacks go with the number of processors.
 * Not foretold: NCCL's staging (comm/nccl_state.h), 0.15 to 0.26 GB there. */
#ifndef CADRE_TRAINER_RUN_DRIVER_MEMORY_H
#define CADRE_TRAINER_RUN_DRIVER_MEMORY_H

#include "base/device/device.h"

/* Bytes. */
typedef struct tr_driver_memory {
    int64_t cuda, kernels, scratch, nccl;
} tr_driver_memory_t;

typedef struct tr_driver_case {
    base_device_kind_t device; /* of the run; all is 0 but for BASE_DEVICE_CUDA */
    int num_ranks;             /* of the rank's host */
    int is_trainer;            /* it has layers; else it only serves attention */
    int uses_nccl;
} tr_driver_case_t;

tr_driver_memory_t tr_driver_memory(const tr_driver_case_t *of);
int64_t tr_driver_memory_total(const tr_driver_memory_t *memory);

/* What of it is there before the first buffer is taken, so that base_device_free_bytes has it already. */
int64_t tr_driver_memory_before(const tr_driver_case_t *of);

#endif
