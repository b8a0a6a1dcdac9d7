#include "trainer/run/driver_memory.h"

#include "comm/nccl_memory.h"

#define MIB (INT64_C(1) << 20)

#define CONTEXT          (536 * MIB)
#define FIRST_LAUNCHES   (6 * MIB)
#define OUR_KERNELS      (12 * MIB) /* and the first launches, when all of them are loaded at once */
#define CUBLASLT_KERNELS (391 * MIB)
#define NCCL_KERNELS     (441 * MIB)
#define SCRATCH          (84 * MIB)

static int has_nccl(const tr_driver_case_t *of)
{
    return of->uses_nccl && of->num_ranks > 1;
}

tr_driver_memory_t tr_driver_memory(const tr_driver_case_t *of)
{
    const int loads_all = of->num_ranks > 1; /* comm/mpi_run.c */
    tr_driver_memory_t memory = {0};

    if (of->device != BASE_DEVICE_CUDA) return memory;
    memory.cuda = CONTEXT + (loads_all ? OUR_KERNELS : FIRST_LAUNCHES);
    if (of->is_trainer) {
        memory.scratch = SCRATCH;
        if (loads_all) memory.kernels += CUBLASLT_KERNELS;
    }
    if (has_nccl(of)) {
        memory.kernels += NCCL_KERNELS;
        memory.nccl = comm_nccl_buffer_bytes(of->num_ranks);
    }
    return memory;
}

int64_t tr_driver_memory_total(const tr_driver_memory_t *memory)
{
    return memory->cuda + memory->kernels + memory->scratch + memory->nccl;
}

int64_t tr_driver_memory_before(const tr_driver_case_t *of)
{
    if (of->device != BASE_DEVICE_CUDA) return 0;
    return CONTEXT + (has_nccl(of) ? NCCL_KERNELS + comm_nccl_buffer_bytes(of->num_ranks) : 0);
}
