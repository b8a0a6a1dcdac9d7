/* dq of the kernel that makes all three gradients (dqkv_sm90_kernel.cuh): what it keeps in shared memory for
 * it, whose turn it is to add to a tile's sum, and the ways of a tile's dq into the sum.
 *
 * dq of a tile of rows is a sum over the blocks whose keys it sees: fp32 in the caller's workspace,
 * in ascending order of keys, so that its bits depend on nothing else. Blocks take turns tile by
 * tile: the first one stores, others add, the last one adds in registers and stores dq. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_DQKV_SM90_SUMS_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_DQKV_SM90_SUMS_CUH

#include "kernels/cuda/attention/bwd_sm90_keys.cuh"

namespace kern_attention
{
namespace bwd_keys
{

constexpr int ADDING_WARPS = 2; /* the first of two */
constexpr int SLOT_VECTORS = 8; /* of 4 floats a thread */
constexpr int CONSUMER_THREADS = CONSUMERS * GROUP_THREADS;

/* ds^T of a tile: panels of 64 packed rows, in a panel a line for each key; two buffers. */
template <int D> constexpr int DS_BYTES = BWD_ROWS<D> / PANEL_COLUMNS *PANEL_BYTES;
enum {
    DS_FULL,
    DS_EMPTY = DS_FULL + 2,
    STAGED = DS_EMPTY + 2, /* dq of every other tile */
    STAGE_EMPTY = STAGED + 2,
    GRANTED, /* every other tile to which nobody adds after the block: its turn has come */
    ITEM = GRANTED + 2, /* no barrier: a key_item, read where it is needed, registers are scarce */
    SUM_EMPTY = ITEM + (sizeof(key_item) + 7) / 8, /* FETCH: consumers are done with the place */
    OWN_BARRIERS
};
/* See add_tiles; head dim 64 is 2 % slower with it. */
template <int D> constexpr bool FETCH = D == 128;
template <int D> constexpr int STAGE_COUNT = D == 128 ? 3 : 2;
template <int D>
using dqkv_arena = arena<D, STAGE_COUNT<D>, 2 * DS_BYTES<D> + 4 * SLOT_FLOATS, OWN_BARRIERS>;

/* The tile's dq on its way to the sum, behind the buffers of ds. */
template <int D> __device__ __forceinline__ uint32_t staged_dq(const dqkv_arena<D> &a)
{
    return a.own() + 2 * DS_BYTES<D>;
}

/* A tile of rows among the blocks that add to its dq. */
struct dq_turn {
    int turn; /* blocks before this one */
    int64_t slot;

    __device__ __forceinline__ dq_turn(const bwd_sm90_params &p, const key_item &w, int tile)
    {
        const bwd_sm90_task &t = p.tasks[w.task];
        const int first_row = t.q_row0 + tile * p.box_tokens;
        turn = (w.first_key - first_tile(first_row, p.dims.window, BWD_KEYS)) / BWD_KEYS;
        slot = t.first_slot + static_cast<int64_t>(w.head) * t.row_tiles + tile;
    }
};

/* Tiles of the block to which others add after it. They come first: later rows see later keys. */
__device__ __forceinline__ int staged_tiles(const bwd_sm90_params &p, const key_item &w)
{
    const bwd_sm90_task &t = p.tasks[w.task];
    const int tokens = w.first_key + BWD_KEYS - t.q_row0; /* before the first such row */
    int last = max(tokens, 0) / p.box_tokens;             /* tiles to which nobody does */
    if (tokens >= t.q_rows) last = t.row_tiles;
    return max(w.tiles.end - max(last, w.tiles.begin), 0);
}

/* The sum so far of the `count`-th tile, count >= staged, into the place of staged dq, once nobody needs
 * what lies there: dq of the last staged tile, which consumers have stored and the engine has read, or
 * the sum of the tile before, which consumers have read. Whoever comes here has waited for ds of the
 * tile; so consumers were done with the place two tiles ago, and neither wait takes another phase for
 * its own. At SUM_EMPTY every thread arrives that has touched the place: racecheck follows a thread's
 * accesses through its own arrivals only, not through those of its warp's first lane. */
template <int D>
__device__ __forceinline__ void fetch_sum(const bwd_sm90_params &p, const dqkv_arena<D> &a,
                                          const dq_turn &at, int count, int staged)
{
    const uint32_t granted = a.own_barrier(GRANTED + count % 2);
    const int before = count - staged + (staged > 0 ? 1 : 0); /* what has lain there */
    if (before > 0) kern_ptx::barrier_wait(a.own_barrier(SUM_EMPTY), (before - 1) & 1);
    if (count == staged && staged > 0)
        kern_ptx::barrier_wait(a.own_barrier(STAGE_EMPTY), (staged - 1) & 1);
    if (at.turn == 0) { /* there is none */
        kern_ptx::barrier_arrive(granted);
        return;
    }
    /* What consumers have read there, before what the engine writes; then what other blocks have added. */
    kern_ptx::stores_for_engines();
    engine_fence();
    kern_ptx::barrier_expect(granted, 4 * SLOT_FLOATS);
    load_floats(staged_dq<D>(a), granted, p.dq_sums + at.slot * SLOT_FLOATS, 4 * SLOT_FLOATS);
}

/* One thread of two, for every other tile that the block visits, beginning with `first`: adds the
 * consumers' dq to the tile's sum when it is the block's turn, and passes the turn on. Where the
 * block is the last to add, the consumers do it, and this thread tells them that their turn has come.
 *
 * What other blocks have added happens before what the consumers read: those released the turn to
 * this thread, which arrives at the barrier that consumers wait for. The barrier is never two phases
 * ahead of them: this thread first waits for ds of the tile, and consumers finish ds of the tile
 * after the next only when they have been through their wait for this one.
 *
 * FETCH: the thread has the sum so far brought to where staged dq lay, so that consumers need not
 * wait for memory. */
template <int D>
__device__ __forceinline__ void add_tiles(const bwd_sm90_params &p, const dqkv_arena<D> &a,
                                          const key_item &w, int first)
{
    const int tiles = w.tiles.end - w.tiles.begin, staged = staged_tiles(p, w);
    for (int count = first; count < tiles; count += 2) {
        const dq_turn at(p, w, w.tiles.end - 1 - count);
        int32_t *added = p.turns + 1 + at.slot;
        if (at.turn > 0)
            while (kern_ptx::load_acquire(added) != at.turn) {
            }
        if (count >= staged) {
            kern_ptx::barrier_wait(a.own_barrier(DS_FULL + first), count / 2 & 1);
            if constexpr (FETCH<D>)
                fetch_sum<D>(p, a, at, count, staged);
            else
                kern_ptx::barrier_arrive(a.own_barrier(GRANTED + first));
            continue;
        }
        kern_ptx::barrier_wait(a.own_barrier(STAGED + first), count / 2 & 1);
        engine_fence();
        float *sum = p.dq_sums + at.slot * SLOT_FLOATS;
        if (at.turn > 0)
            add_floats(sum, staged_dq<D>(a), 4 * SLOT_FLOATS);
        else
            store_floats(sum, staged_dq<D>(a), 4 * SLOT_FLOATS);
        floats_read();
        kern_ptx::barrier_arrive(a.own_barrier(STAGE_EMPTY));
        floats_in_memory();
        engine_fence();
        kern_ptx::store_release(added, at.turn + 1);
    }
}

/* This warp's part of a tile is there, or no longer needed. */
__device__ __forceinline__ void arrive_as_warp(uint32_t barrier)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0) kern_ptx::barrier_arrive(barrier);
}

/* This thread's part of a tile's dq, on its way to the sum; `count` tiles before have been there. */
template <int D>
__device__ __forceinline__ void stage_dq(const dqkv_arena<D> &a, int count, int staged,
                                         int consumer_thread, const wgmma_accumulator<64> &part)
{
    float4 *to =
        reinterpret_cast<float4 *>(a.memory + (staged_dq<D>(a) - a.base)) + consumer_thread;
    kern_ptx::barrier_wait(a.own_barrier(STAGE_EMPTY), (count & 1) ^ 1);
#pragma unroll
    for (int i = 0; i < SLOT_VECTORS; i++)
        to[i * CONSUMER_THREADS] = make_float4(part[i][0], part[i][1], part[i][2], part[i][3]);
    kern_ptx::stores_for_engines();
    arrive_as_warp(a.own_barrier(STAGED + count % 2));
    if (FETCH<D> && count + 1 == staged) kern_ptx::barrier_arrive(a.own_barrier(SUM_EMPTY));
}

/* dq of the `count`-th tile that the block visits, to which it is the last to add, as from the
 * `staged`-th on: this thread's part of its 64 x 64 of it. */
template <int D>
__device__ __forceinline__ void store_dq(const bwd_sm90_params &p, const dqkv_arena<D> &a,
                                         const key_item &w, int count, int staged, int consumer,
                                         const wgmma_accumulator<64> &part)
{
    const int tile = w.tiles.end - 1 - count;
    const dq_turn at(p, w, tile);
    const int thread = threadIdx.x % GROUP_THREADS, lane = thread % 32;
    kern_ptx::barrier_wait(a.own_barrier(GRANTED + count % 2), (count - staged) / 2 & 1);
    wgmma_accumulator<64> dq;
    const int consumer_thread = consumer * GROUP_THREADS + thread;
    const float *sum = p.dq_sums + at.slot * SLOT_FLOATS + consumer_thread * 4;
    const float4 *fetched =
        reinterpret_cast<const float4 *>(a.memory + (staged_dq<D>(a) - a.base)) + consumer_thread;
#pragma unroll
    for (int i = 0; i < SLOT_VECTORS; i++) {
        /* A sum of zeros is +0 at the end, wherever it began. */
        float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (at.turn > 0)
            x = FETCH<D> ? fetched[i * CONSUMER_THREADS]
                         : __ldcg(reinterpret_cast<const float4 *>(sum + i * 4 * CONSUMER_THREADS));
        dq[i][0] = __fadd_rn(__fadd_rn(x.x, part[i][0]), 0.0f);
        dq[i][1] = __fadd_rn(__fadd_rn(x.y, part[i][1]), 0.0f);
        dq[i][2] = __fadd_rn(__fadd_rn(x.z, part[i][2]), 0.0f);
        dq[i][3] = __fadd_rn(__fadd_rn(x.w, part[i][3]), 0.0f);
    }
    if constexpr (FETCH<D>) kern_ptx::barrier_arrive(a.own_barrier(SUM_EMPTY));
    const bwd_sm90_task &t = p.tasks[w.task];
    const int R = p.dims.group.divisor, column = D == 128 ? consumer * 64 : 0;
    const int row = (D == 128 ? 0 : consumer * 64) + thread / 32 * 16 + lane / 4;
    __nv_bfloat16 *to = p.dq + t.dq + w.head * t.dq_head + column;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int in_tile = row + 8 * r, packed = tile * p.box_tokens * R + in_tile;
        store_row<64>(to + static_cast<int64_t>(packed) * D, dq, r, p.dims.scale,
                      in_tile < p.box_tokens * R && packed < t.q_rows * R);
    }
}

} // namespace bwd_keys
} // namespace kern_attention

#endif
