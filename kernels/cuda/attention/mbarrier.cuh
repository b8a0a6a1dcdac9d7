/* How the warpgroups of a block on sm_90a wait for each other: mbarriers in shared memory, which
 * copies complete and waits see by the parity of their phase; named barriers; and the registers
 * that a warpgroup gives up or takes over. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_MBARRIER_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_MBARRIER_CUH

#include <cstdint>

namespace kern_ptx
{

/* A phase of the barrier at that shared address ends with `arrivals` arrivals and the bytes they
 * announced. */
__device__ __forceinline__ void barrier_begin(uint32_t barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

/* What this thread has stored in shared memory is there for products and the copy engine, once it
 * has met those who start them; and what threads that it has met have read there, the copy engine may overwrite. */
__device__ __forceinline__ void stores_for_engines()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* After the last barrier_begin: the copy engine sees them as well; then the block meets. */
__device__ __forceinline__ void barriers_begun()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    stores_for_engines();
}

__device__ __forceinline__ void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* An arrival that announces bytes. */
__device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

/* Returns when the phase of that parity is over; parity 1 of a new barrier is. */
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/* Named barriers of THREADS threads: those that meet and those that only announce. 0 belongs to
 * __syncthreads. */
template <int THREADS> __device__ __forceinline__ void named_meet(int id)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(THREADS) : "memory");
}

template <int THREADS> __device__ __forceinline__ void named_arrive(int id)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "n"(THREADS) : "memory");
}

/* Registers a thread, all warps of a warpgroup. Who grows waits until others have given up as many, if need be for ever: a
 * block has no more than what it began with, where all threads have alike. Blocks of one loader and so many consumers. */
constexpr bool registers_suffice(int loader, int consumers, int consumer)
{
    const int warpgroups = 1 + consumers, each = 65536 / (128 * warpgroups) / 8 * 8;
    return loader + consumers * consumer <= warpgroups * each;
}

template <int REGISTERS> __device__ __forceinline__ void registers_shrink()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS> __device__ __forceinline__ void registers_grow()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

} // namespace kern_ptx

#endif
