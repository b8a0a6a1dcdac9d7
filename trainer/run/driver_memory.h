/* What a GPU's memory holds of a run besides its buffers: CUDA, its libraries, and the scratch that ops take by themselves. By
 * rule and by measurement, so that a plan made on any machine foretells what the driver counts.
 *
 *   cuda     the context, from when the device is opened: 536 MiB (docs/measurements/2026-11-30-gpu-training-3,
 *            "used_before_bytes"). With the first launches 6 MiB more; where ranks are processes 12, since the code of all
 *            our kernels is loaded then (CUDA_MODULE_LOADING=EAGER, comm/mpi_run.c)
 *   kernels  those of libraries. cuBLASLt's, on ranks that have layers and load eagerly: 391 MiB, by how much trainers differ from
 *            a rank that only serves (docs/measurements/2026-11-30-two-gpus-2); 330 MiB of code for sm_90 are in the library. One
 *            rank by itself loads the few it runs. NCCL's, code (100 MiB) and stacks, which CUDA keeps for every thread that the GPU can
 *            hold once a kernel with a frame has run: 441 MiB, measured on two GPUs as what its buffers leave over
 *   scratch  of the ops (kernels/cuda/stream_state.h), on ranks that have layers: 84 MiB with what else is allocated behind
 *            the arena
 *   nccl     buffers of its communicators (comm/nccl_memory.h)
 *
 * All measured on H200s (132 processors), CUDA 13.0, NCCL 2.28; on other GPUs stacks go with the number of processors.
 * Not foretold: NCCL's staging (comm/nccl_state.h), 0.14 to 0.26 GB there. */
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
