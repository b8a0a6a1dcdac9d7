/* dq, dk and dv on wgmma and the copy engine, 5 products (see bwd_sm90_keys.cuh for the roles in a
 * block, dqkv_sm90_consume.cuh for who multiplies); dq is summed over blocks in the caller's workspace
 * (dqkv_sm90_sums.cuh).
 *
 * All blocks walk their rows from the last one on; so the blocks of a head that begin together
 * follow each other with a tile between them and do not wait for long. Items go to blocks in the
 * order in which they begin, those with lower keys first: a block waits only for blocks that have
 * begun. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_DQKV_SM90_KERNEL_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_DQKV_SM90_KERNEL_CUH

#include "kernels/cuda/attention/dqkv_sm90_consume.cuh"

namespace kern_attention
{
namespace bwd_keys
{

/* Looks for the rest of a group, 200 ns and the way to memory apart: far more than it takes to come (32 tiles of rows at 2.6 us). Then a
 * block begins without it, so that a launch also ends where others hold the processors that the group needs. */
constexpr int GROUP_POLLS = 4096;

template <int D> __device__ __forceinline__ void dqkv_block(const bwd_sm90_params &p)
{
    extern __shared__ __align__(1024) uint8_t shared[];
    const dqkv_arena<D> a = arena_in<dqkv_arena<D>>(shared);
    key_item &w = *reinterpret_cast<key_item *>(shared + (a.own_barrier(ITEM) - a.base));
    const int item =
        threadIdx.x == 0 ? atomicAdd(p.turns, 1) : 0; /* on its way under the barriers */
    begin_stages<D>(p, a);
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            kern_ptx::barrier_begin(a.own_barrier(DS_FULL + i), CONSUMER_WARPS);
            kern_ptx::barrier_begin(a.own_barrier(DS_EMPTY + i), CONSUMER_WARPS);
            kern_ptx::barrier_begin(a.own_barrier(STAGED + i), CONSUMER_WARPS);
            kern_ptx::barrier_begin(a.own_barrier(GRANTED + i), 1);
        }
        kern_ptx::barrier_begin(a.own_barrier(STAGE_EMPTY), 1);
        if constexpr (FETCH<D>) kern_ptx::barrier_begin(a.own_barrier(SUM_EMPTY), CONSUMER_THREADS);
        kern_ptx::barriers_begun();
        w = key_item_of(p, item);
        int drawn = item + 1;
        for (int polls = 0; drawn < w.drawn && polls < GROUP_POLLS; polls++) {
            __nanosleep(200);
            drawn = kern_ptx::load_acquire(p.turns);
        }
    }
    __syncthreads();
    /* The same for all threads of a warp, and the compiler should know it. */
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), warpgroup = warp / 4;
    if (warpgroup == 0) {
        kern_ptx::registers_shrink<LOADER_REGISTERS>();
        if (warp == STATISTICS_WARP)
            load_statistics<D>(p, a, w);
        else if (threadIdx.x == 0)
            load_tiles<D>(p, a, w);
        else if (warp >= ADDING_WARPS && threadIdx.x % 32 == 0)
            add_tiles<D>(p, a, w, warp - ADDING_WARPS);
    } else {
        kern_ptx::registers_grow<CONSUMER_REGISTERS>();
        consume<D>(p, a, w, warpgroup - 1);
    }
}

} // namespace bwd_keys

} // namespace kern_attention

#endif
