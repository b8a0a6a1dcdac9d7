/* Where a kernel hangs: barrier_wait of kernels/cuda/attention/mbarrier.cuh with an end. A file that includes this before the kernels
 * has them with it. It does not see who waits in setmaxnreg or at a named barrier: those say nothing, while others wait for them.
 *
 * The kernel begins with barrier_watch_begin(stalls), a place for each warp of the launch in host memory, zero. A warp that waits
 * longer than two seconds leaves there what for, and half a second later, when others have done so as well, ends the kernel. */
#ifndef CADRE_TESTS_GPU_BARRIER_WATCH_CUH
#define CADRE_TESTS_GPU_BARRIER_WATCH_CUH

#define barrier_wait barrier_wait_for_ever
#include "kernels/cuda/attention/mbarrier.cuh"
#undef barrier_wait

#include <cuda_runtime.h>

struct barrier_stall {
    uint32_t waits, barrier, parity; /* waits: 1 when the others are set */
};

namespace kern_ptx
{

constexpr uint32_t WATCH_NS = 2000000000,
                   WATCH_OTHERS_NS = 500000000; /* the clock's lower half turns at 4.3 s */

__device__ __forceinline__ barrier_stall *&barrier_watch_place()
{
    __shared__ barrier_stall *stalls;
    return stalls;
}

/* All threads of a block. */
__device__ __forceinline__ void barrier_watch_begin(barrier_stall *stalls)
{
    if (threadIdx.x == 0) barrier_watch_place() = stalls;
    __syncthreads();
}

/* One piece, with nothing that the compiler could prepare before it is needed: the loops of the kernels have no register to spare. */
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done, early;\n"
                 ".reg .b32 begin, now, warp, block;\n"
                 ".reg .b64 place, offset;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "mov.u32 begin, %%globaltimer_lo;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "mov.u32 now, %%globaltimer_lo;\n"
                 "sub.u32 now, now, begin;\n"
                 "setp.lt.u32 early, now, %3;\n"
                 "@early bra again;\n"
                 /* stalls[block * warps of a block + warp] */
                 "mov.u32 warp, %%tid.x;\n"
                 "mov.u32 block, %%ctaid.x;\n"
                 "mov.u32 now, %%ntid.x;\n"
                 "mad.lo.u32 warp, block, now, warp;\n"
                 "shr.u32 warp, warp, 5;\n"
                 "ld.shared.u64 place, [%2];\n"
                 "mul.wide.u32 offset, warp, %5;\n"
                 "add.u64 place, place, offset;\n"
                 "mov.u32 now, 1;\n"
                 "st.global.u32 [place], now;\n"
                 "st.global.u32 [place + 4], %0;\n"
                 "st.global.u32 [place + 8], %1;\n"
                 "fence.acq_rel.sys;\n"
                 "others:\n"
                 "mov.u32 now, %%globaltimer_lo;\n"
                 "sub.u32 now, now, begin;\n"
                 "setp.lt.u32 early, now, %4;\n"
                 "@early bra others;\n"
                 "trap;\n"
                 "over:\n"
                 "}" ::"r"(barrier),
                 "r"(parity),
                 "r"(static_cast<uint32_t>(__cvta_generic_to_shared(&barrier_watch_place()))),
                 "n"(WATCH_NS), "n"(WATCH_NS + WATCH_OTHERS_NS), "n"(sizeof(barrier_stall))
                 : "memory");
}

} // namespace kern_ptx

#endif
