/* Forward on wgmma and the copy engine: a block owns 64 packed rows a consumer, of one KV head, and
 * walks the keys they see in tiles of 128, ascending, with an online softmax. One thread of the first
 * warpgroup has the copy engine fetch q, keys and values; the others are the consumers, of 64 rows
 * each.
 *
 * A consumer takes the exponentials of a tile while the products with the values of the tile before
 * are under way, and they take turns in issuing products, so that one's exponentials fall into the
 * others' products (Shah et al. 2024, "FlashAttention-3").
 *
 * PAIR: blocks in clusters of two. An item is then the rows of both, which see nearly the same keys: each block
 * fetches one of the two panels of keys and values for both, so that L2 is read half as often. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_KERNEL_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_KERNEL_CUH

#include "kernels/cuda/attention/fwd_sm90_items.cuh"
#include "kernels/cuda/attention/fwd_sm90_rows.cuh"
#include "kernels/cuda/attention/mbarrier.cuh"

namespace kern_attention
{
namespace fwd_sm90_kernel
{

constexpr int KEYS = SM90_KEYS, STAGES = 2;
constexpr int GROUP_THREADS = 128, GROUP_ROWS = 64;
template <int CONSUMERS> constexpr int ROWS = CONSUMERS *GROUP_ROWS;
template <int CONSUMERS> constexpr int THREADS = (1 + CONSUMERS) * GROUP_THREADS;
template <bool PAIR> constexpr int LOADER_REGISTERS = PAIR ? 56 : 24;
template <int CONSUMERS, bool PAIR>
constexpr int CONSUMER_REGISTERS = CONSUMERS == 3 ? 160
                                   : PAIR         ? 224
                                                  : 240;
static_assert(kern_ptx::registers_suffice(LOADER_REGISTERS<false>, 2,
                                          CONSUMER_REGISTERS<2, false>) &&
              kern_ptx::registers_suffice(LOADER_REGISTERS<false>, 3,
                                          CONSUMER_REGISTERS<3, false>) &&
              kern_ptx::registers_suffice(LOADER_REGISTERS<true>, 2, CONSUMER_REGISTERS<2, true>));
template <int CONSUMERS> constexpr int CONSUMER_WARPS = CONSUMERS *GROUP_THREADS / 32;

/* Shared memory: q, keys and values, each in stages; then barriers, "full" and "empty" of each of
 * these tiles. The next item's q and first keys arrive while this item's last are worked on. */
constexpr int TILES = 3 * STAGES, BARRIERS = 2 * TILES;
constexpr int ALIGNMENT = 1024;
template <int D> constexpr int BOX_BYTES = D / PANEL_COLUMNS *PANEL_BYTES;
template <int CONSUMERS> constexpr int Q_PANEL_BYTES = ROWS<CONSUMERS> *PANEL_COLUMNS * 2;
template <int D, int CONSUMERS> constexpr int Q_BYTES = D / PANEL_COLUMNS *Q_PANEL_BYTES<CONSUMERS>;
template <int D, int CONSUMERS>
constexpr int TILES_BYTES = STAGES *Q_BYTES<D, CONSUMERS> + 2 * STAGES *BOX_BYTES<D>;
template <int D, int CONSUMERS>
constexpr int SHARED_BYTES = TILES_BYTES<D, CONSUMERS> + 8 * BARRIERS + ALIGNMENT;
constexpr int Q_TILES = 0, K_TILES = STAGES, V_TILES = 2 * STAGES;

template <int D, int CONSUMERS, bool PAIR> struct arena {
    static_assert(!PAIR || D == 2 * PANEL_COLUMNS, "a panel for each block to fetch");
    static constexpr int BLOCKS = PAIR ? 2 : 1;
    uint32_t base;

    __device__ __forceinline__ uint32_t q_tile(int stage) const
    {
        return base + stage * Q_BYTES<D, CONSUMERS>;
    }
    /* Of keys or values. */
    __device__ __forceinline__ uint32_t tile(int index) const
    {
        return base + STAGES * Q_BYTES<D, CONSUMERS> + (index - STAGES) * BOX_BYTES<D>;
    }
    __device__ __forceinline__ uint32_t full(int index) const
    {
        return base + TILES_BYTES<D, CONSUMERS> + 8 * index;
    }
    __device__ __forceinline__ uint32_t empty(int index) const
    {
        return full(index) + 8 * TILES;
    }
};

/* A position in the stages: the n-th tile of q, or of keys, of all that a block works on. */
struct ring {
    int stage = 0;
    uint32_t parity = 0;

    __device__ __forceinline__ void next()
    {
        stage ^= 1;
        parity ^= stage == 0;
    }
};
static_assert(STAGES == 2, "ring");

/* What this block does of an item. */
template <int CONSUMERS, int BLOCKS>
__device__ __forceinline__ item_work block_work(const sm90_params &p, int item)
{
    item_work w = work_of<BLOCKS * ROWS<CONSUMERS>>(p, item);
    if constexpr (BLOCKS > 1) {
        const int before = kern_ptx::block_in_cluster() * ROWS<CONSUMERS>;
        w.first_packed += before;
        w.live =
            min(w.live - before, ROWS<CONSUMERS>); /* none, and less, where the item ends before */
    }
    return w;
}

/* ==== the loader: one thread ==== */

template <int D, int CONSUMERS, bool PAIR>
__device__ __forceinline__ void fetch(const arena<D, CONSUMERS, PAIR> &a, int tile, uint32_t parity,
                                      const CUtensorMap *map, int row, int head, int which)
{
    kern_ptx::barrier_wait(a.empty(tile), parity ^ 1);
    kern_ptx::barrier_expect(a.full(tile), BOX_BYTES<D>); /* of both blocks */
    if constexpr (PAIR) {
        const int panel = kern_ptx::block_in_cluster();
        load_for_all(a.tile(tile) + panel * PANEL_BYTES, a.full(tile), map, row, panel, head, which,
                     3);
    } else {
        load_box(a.tile(tile), a.full(tile), map, row, head, which);
    }
}

template <int D, int CONSUMERS, bool PAIR>
__device__ __forceinline__ void fetch_q(const arena<D, CONSUMERS, PAIR> &a, const ring &at,
                                        const CUtensorMap *map, int row, int head)
{
    const uint32_t full = a.full(Q_TILES + at.stage);
    kern_ptx::barrier_wait(a.empty(Q_TILES + at.stage), at.parity ^ 1);
    kern_ptx::barrier_expect(full, Q_BYTES<D, CONSUMERS>);
    load_box(a.q_tile(at.stage), full, map, row, head, 0);
}

template <int D, int CONSUMERS, bool PAIR>
__device__ __forceinline__ void load_items(const sm90_params &p, const arena<D, CONSUMERS, PAIR> &a)
{
    constexpr int BLOCKS = arena<D, CONSUMERS, PAIR>::BLOCKS;
    ring at, q_at;
    for (item_walk<BLOCKS> walk; walk.item() < p.num_items; walk.round++, q_at.next()) {
        const item_work w = block_work<CONSUMERS, BLOCKS>(p, walk.item());
        const CUtensorMap *map = &p.kv_maps[w.task];
        int row = w.first_key - p.tasks[w.task].kv_row0;
        for (int step = 0; step < w.steps; step++, row += KEYS, at.next()) {
            fetch(a, K_TILES + at.stage, at.parity, map, row, w.head, p.v_first);
            if (step == 0) fetch_q(a, q_at, &p.q_maps[w.task], w.first_packed, w.head);
            fetch(a, V_TILES + at.stage, at.parity, map, row, w.head, p.v_first ^ 1);
        }
    }
}

/* ==== the consumers ==== */

/* This warp is done with a tile of q. */
template <int D, int CONSUMERS, bool PAIR>
__device__ __forceinline__ void release_q(const arena<D, CONSUMERS, PAIR> &a, int tile)
{
    if (threadIdx.x % 32 == 0) kern_ptx::barrier_arrive(a.empty(tile));
}

/* The same of keys or values; all who fetch parts of it hear so. */
template <int D, int CONSUMERS, bool PAIR>
__device__ __forceinline__ void release(const arena<D, CONSUMERS, PAIR> &a, int tile)
{
    if constexpr (PAIR) {
        const int lane = threadIdx.x % 32;
        if (lane < 2) kern_ptx::barrier_arrive_at(a.empty(tile), lane);
    } else {
        release_q(a, tile);
    }
}

/* Turns in issuing products: named barriers 1 and up are those of the consumers. Each has two
 * warpgroups: the one whose turn it becomes and the one before it. */
__device__ __forceinline__ void take_turn(int consumer)
{
    kern_ptx::named_meet<2 * GROUP_THREADS>(1 + consumer);
}

template <int CONSUMERS> __device__ __forceinline__ void pass_turn(int consumer)
{
    kern_ptx::named_arrive<2 * GROUP_THREADS>(1 + (CONSUMERS == 2              ? consumer ^ 1
                                                   : consumer == CONSUMERS - 1 ? 0
                                                                               : consumer + 1));
}

template <int D, int CONSUMERS, bool PAIR>
__device__ __forceinline__ void consume_items(const sm90_params &p,
                                              const arena<D, CONSUMERS, PAIR> &a, int consumer)
{
    constexpr int BLOCKS = arena<D, CONSUMERS, PAIR>::BLOCKS;
    const int warp_row = consumer * GROUP_ROWS + threadIdx.x % GROUP_THREADS / 32 * 16;
    const int local_row = warp_row + threadIdx.x % 32 / 4;
    const int window = p.dims.window;
    wgmma_accumulator<KEYS> s;
    wgmma_accumulator<D> o;
    accumulator<1, KEYS> &scores = reinterpret_cast<accumulator<1, KEYS> &>(s);
    wgmma_left<KEYS> probabilities;
    ring at, q_at;
    if (consumer == CONSUMERS - 1) pass_turn<CONSUMERS>(consumer); /* the first begins */

    item_walk<BLOCKS> walk;
    item_work w = block_work<CONSUMERS, BLOCKS>(p, walk.item()); /* no block without one */
    for (bool more = true; more; q_at.next()) {
        const uint32_t q = a.q_tile(q_at.stage) + consumer * GROUP_ROWS * PANEL_COLUMNS * 2;
        const divider &group = p.dims.group;
        const int q_row0 = p.tasks[w.task].q_row0, packed = w.first_packed + local_row;
        const int rows[2] = {q_row0 + group.quotient(packed), q_row0 + group.quotient(packed + 8)};
        const int warp_first = q_row0 + group.quotient(w.first_packed + warp_row);
        const int warp_last = q_row0 + group.quotient(w.first_packed + warp_row + 15);
        steady_softmax soft;
        float shrink[1][2];
        int key = w.first_key;
        soft.begin();
        clear<D>(o);

        kern_ptx::barrier_wait(a.full(Q_TILES + q_at.stage), q_at.parity);
        kern_ptx::barrier_wait(a.full(K_TILES + at.stage), at.parity);
        kern_ptx::wgmma_fence();
        multiply_rows<D, KEYS, Q_PANEL_BYTES<CONSUMERS>, PANEL_BYTES>(s, q,
                                                                      a.tile(K_TILES + at.stage));
        kern_ptx::wgmma_commit();
        kern_ptx::wgmma_wait<0>();
        kern_ptx::wgmma_settle(s);
        release(a, K_TILES + at.stage);
        if (!all_seen(warp_first, warp_last, key, key + KEYS - 1, window))
            mask<KEYS>(s, rows, key, window);
        soft.take<KEYS>(scores, p.dims.scale_log2, shrink);
        to_operand<KEYS>(probabilities, s);

        for (int step = 1; step < w.steps; step++) {
            const ring before = at;
            at.next();
            key += KEYS;
            kern_ptx::barrier_wait(a.full(K_TILES + at.stage), at.parity);
            take_turn(consumer);
            kern_ptx::wgmma_fence();
            multiply_rows<D, KEYS, Q_PANEL_BYTES<CONSUMERS>, PANEL_BYTES>(
                s, q, a.tile(K_TILES + at.stage));
            kern_ptx::wgmma_commit();
            kern_ptx::barrier_wait(a.full(V_TILES + before.stage), before.parity);
            multiply_columns<KEYS, D, PANEL_BYTES>(o, probabilities,
                                                   a.tile(V_TILES + before.stage));
            kern_ptx::wgmma_commit();
            pass_turn<CONSUMERS>(consumer);
            kern_ptx::wgmma_wait<1>();
            kern_ptx::wgmma_settle(s);
            release(a, K_TILES + at.stage);
            if (!all_seen(warp_first, warp_last, key, key + KEYS - 1, window))
                mask<KEYS>(s, rows, key, window);
            soft.take<KEYS>(scores, p.dims.scale_log2, shrink);
            kern_ptx::wgmma_hold(__fadd_rn(soft.sum[0][0], soft.sum[0][1]), q);
            kern_ptx::wgmma_wait<0>();
            kern_ptx::wgmma_settle(o);
            kern_ptx::wgmma_settle(probabilities);
            release(a, V_TILES + before.stage);
            if (soft.moved) {
#pragma unroll
                for (int n = 0; n < D / 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        o[n][e] = __fmul_rn(o[n][e], shrink[0][e / 2]);
            }
            to_operand<KEYS>(probabilities, s);
        }
        release_q(a, Q_TILES + q_at.stage);
        kern_ptx::barrier_wait(a.full(V_TILES + at.stage), at.parity);
        kern_ptx::wgmma_fence();
        multiply_columns<KEYS, D, PANEL_BYTES>(o, probabilities, a.tile(V_TILES + at.stage));
        kern_ptx::wgmma_commit();
        const item_work done = w;
        walk.round++;
        more = walk.item() < p.num_items;
        if (more) w = block_work<CONSUMERS, BLOCKS>(p, walk.item());
        kern_ptx::wgmma_wait<0>();
        kern_ptx::wgmma_settle(o);
        kern_ptx::wgmma_settle(probabilities);
        release(a, V_TILES + at.stage);
        at.next();
        store<D>(p, done, local_row, o, soft);
    }
}

template <int D, int CONSUMERS, bool PAIR = false>
__device__ __forceinline__ void fwd_block(const sm90_params &p)
{
    extern __shared__ uint8_t shared[];
    const uint32_t begin = kern_ptx::shared_address(shared);
    const arena<D, CONSUMERS, PAIR> a = {(begin + ALIGNMENT - 1) & ~uint32_t{ALIGNMENT - 1}};
    if (threadIdx.x == 0) {
        for (int i = 0; i < TILES; i++) {
            kern_ptx::barrier_begin(a.full(i), 1);
            kern_ptx::barrier_begin(a.empty(i),
                                    (PAIR && i >= K_TILES ? 2 : 1) * CONSUMER_WARPS<CONSUMERS>);
        }
        kern_ptx::barriers_begun();
    }
    __syncthreads();
    if constexpr (PAIR) kern_ptx::cluster_meet();
    /* The same for all threads of a warp, and the compiler should know it. */
    const int warpgroup = __shfl_sync(~0u, threadIdx.x / GROUP_THREADS, 0);
    if (warpgroup == 0) {
        kern_ptx::registers_shrink<LOADER_REGISTERS<PAIR>>();
        if (threadIdx.x == 0) load_items(p, a);
    } else {
        kern_ptx::registers_grow<CONSUMER_REGISTERS<CONSUMERS, PAIR>>();
        consume_items<D, CONSUMERS>(p, a, warpgroup - 1);
    }
    if constexpr (PAIR)
        kern_ptx::cluster_meet(); /* nobody arrives at barriers of a block that has left */
}

} // namespace fwd_sm90_kernel
} // namespace kern_attention

#endif
