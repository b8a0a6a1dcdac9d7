/* Forward on wgmma and the copy engine: a block owns 64 packed rows a consumer, of one KV head, and
 * walks the keys they see in tiles of 128, ascending. One thread of the first warpgroup has the copy engine fetch q,
 * keys and values; the others are the consumers (fwd_sm90_consume.cuh). */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_KERNEL_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_KERNEL_CUH

#include "kernels/cuda/attention/fwd_sm90_consume.cuh"

namespace kern_attention
{
namespace fwd_sm90_kernel
{

template <int CONSUMERS> constexpr int THREADS = (1 + CONSUMERS) * GROUP_THREADS;
constexpr int LOADER_REGISTERS = 24;
template <int CONSUMERS> constexpr int CONSUMER_REGISTERS = CONSUMERS == 3 ? 160 : 240;
static_assert(kern_ptx::registers_suffice(LOADER_REGISTERS, 2, CONSUMER_REGISTERS<2>) &&
              kern_ptx::registers_suffice(LOADER_REGISTERS, 3, CONSUMER_REGISTERS<3>));

template <int D, int CONSUMERS>
__device__ __forceinline__ void fetch(const arena<D, CONSUMERS> &a, int tile, const ring &at,
                                      const CUtensorMap *map, int row, int head, int which)
{
    const int index = tile + at.stage;
    kern_ptx::barrier_wait(a.empty(index), at.parity ^ 1);
    kern_ptx::barrier_expect(a.full(index), BOX_BYTES<D>);
    load_box(a.tile(index), a.full(index), map, row, head, which);
}

/* Of the item, when the block has one. */
template <int D, int CONSUMERS>
__device__ __forceinline__ void fetch_q(const sm90_params &p, const arena<D, CONSUMERS> &a,
                                        ring *at, int item)
{
    if (item >= p.num_items) return;
    const item_work w = work_of<ROWS<CONSUMERS>>(p, item);
    const uint32_t full = a.full(Q_TILES + at->stage);
    kern_ptx::barrier_wait(a.empty(Q_TILES + at->stage), at->parity ^ 1);
    if (Q_IN_REGISTERS<D>) kern_ptx::stores_for_engines(); /* threads have read there */
    kern_ptx::barrier_expect(full, Q_BYTES<D, CONSUMERS>);
    load_box_once(a.q_tile(at->stage), full, &p.q_maps[w.task], w.first_packed, w.head, 0);
    at->next();
}

/* The loader, one thread. The next item's q comes while this item's second tile is worked on: nobody else reads it,
 * so that it comes from memory, and not from L2 as keys do that other blocks have read. */
template <int D, int CONSUMERS>
__device__ __forceinline__ void load_items(const sm90_params &p, const arena<D, CONSUMERS> &a)
{
    ring at, q_at;
    item_walk walk;
    fetch_q(p, a, &q_at, walk.item());
    while (walk.item() < p.num_items) {
        const item_work w = work_of<ROWS<CONSUMERS>>(p, walk.item());
        const CUtensorMap *map = &p.kv_maps[w.task];
        int row = w.first_key - p.tasks[w.task].kv_row0;
        walk.round++;
        for (int left = w.steps; left > 0; left--, row += KEYS, at.next()) {
            fetch(a, K_TILES, at, map, row, w.head, p.v_first);
            fetch(a, V_TILES, at, map, row, w.head, p.v_first ^ 1);
            if (left == max(1, w.steps - 1)) fetch_q(p, a, &q_at, walk.item());
        }
    }
}

template <int D, int CONSUMERS> __device__ __forceinline__ void fwd_block(const sm90_params &p)
{
    extern __shared__ uint8_t shared[];
    const uint32_t begin = kern_ptx::shared_address(shared);
    const arena<D, CONSUMERS> a = {(begin + ALIGNMENT - 1) & ~uint32_t{ALIGNMENT - 1}};
    if (threadIdx.x == 0) {
        for (int i = 0; i < TILES; i++) {
            kern_ptx::barrier_begin(a.full(i), 1);
            kern_ptx::barrier_begin(a.empty(i), CONSUMERS * GROUP_THREADS / 32);
        }
        kern_ptx::barriers_begun();
    }
    __syncthreads();
    /* The same for all threads of a warp, and the compiler should know it. */
    const int warpgroup = __shfl_sync(~0u, threadIdx.x / GROUP_THREADS, 0);
    if (warpgroup == 0) {
        kern_ptx::registers_shrink<LOADER_REGISTERS>();
        if (threadIdx.x == 0) load_items(p, a);
    } else {
        kern_ptx::registers_grow<CONSUMER_REGISTERS<CONSUMERS>>();
        consume_items(p, a, warpgroup - 1);
    }
}

} // namespace fwd_sm90_kernel
} // namespace kern_attention

#endif
