/* Stages of shared memory between the copy engine and the warpgroups that multiply. Each has two
 * barriers: "full" ends a phase with the bytes of the stage, "empty" with an arrival of each
 * consumer warp. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_SM90_PIPELINE_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_SM90_PIPELINE_CUH

#include "kernels/cuda/attention/mbarrier.cuh"

namespace kern_attention
{

/* The n-th use of STAGES stages. */
template <int STAGES> struct stage_ring {
    int stage = 0;
    uint32_t parity = 0;

    __device__ __forceinline__ void next()
    {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

/* Pairs of barriers at a shared address: those of stage i. */
struct stage_barriers {
    uint32_t base;

    static constexpr int BYTES = 16; /* a stage */

    __device__ __forceinline__ uint32_t full(int stage) const
    {
        return base + BYTES * stage;
    }
    __device__ __forceinline__ uint32_t empty(int stage) const
    {
        return full(stage) + 8;
    }
    __device__ __forceinline__ void begin(int stages, int full_arrivals, int empty_arrivals) const
    {
        for (int i = 0; i < stages; i++) {
            kern_ptx::barrier_begin(full(i), full_arrivals);
            kern_ptx::barrier_begin(empty(i), empty_arrivals);
        }
    }
    template <int STAGES>
    __device__ __forceinline__ void wait_empty(const stage_ring<STAGES> &at) const
    {
        kern_ptx::barrier_wait(empty(at.stage), at.parity ^ 1);
    }
    template <int STAGES>
    __device__ __forceinline__ void wait_full(const stage_ring<STAGES> &at) const
    {
        kern_ptx::barrier_wait(full(at.stage), at.parity);
    }
    /* This thread is done with the stage. */
    __device__ __forceinline__ void release_as_thread(int stage) const
    {
        kern_ptx::barrier_arrive(empty(stage));
    }
    /* This warp is done with the stage, which only the engines have read. */
    __device__ __forceinline__ void release(int stage) const
    {
        if (threadIdx.x % 32 == 0) kern_ptx::barrier_arrive(empty(stage));
    }
};

} // namespace kern_attention

#endif
