#include "trainer/run/driver_memory.h"

#include "comm/nccl_memory.h"

#define MIB (INT64_C(1) << 20)

#define CONTEXT        (536 * MIB)
#define FIRST_LAUNCHES (6 * MIB)
#define SCRATCH        (84 * MIB)
#define NCCL_KERNELS   (838 * MIB)

#define PROCESSORS  INT64_C(132)
#define THREADS     INT64_C(2048) /* of a processor */
#define STACK_BYTES INT64_C(1536) /* of a thread */

static int has_nccl(const tr_driver_case_t *of)
{
    return of->uses_nccl && of->num_ranks > 1;
}

tr_driver_memory_t tr_driver_memory(const tr_driver_case_t *of)
{
    tr_driver_memory_t memory = {0};

    if (of->device != BASE_DEVICE_CUDA) return memory;
    memory.cuda = CONTEXT + FIRST_LAUNCHES;
    if (of->is_trainer) {
        memory.kernels = PROCESSORS * THREADS * STACK_BYTES;
        memory.scratch = SCRATCH;
    }
    if (has_nccl(of)) {
        memory.kernels = NCCL_KERNELS;
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
    const tr_driver_memory_t memory = tr_driver_memory(of);

    if (of->device != BASE_DEVICE_CUDA) return 0;
    return CONTEXT + memory.nccl + (has_nccl(of) ? memory.kernels : 0);
}
