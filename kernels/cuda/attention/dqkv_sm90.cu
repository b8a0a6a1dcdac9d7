/* dq, dk and dv on wgmma and the copy engine, 5 products (see bwd_sm90_keys.cuh for the roles in a
 * block). p^T and ds^T come out of the scores as left operands of dv's and dk's products; ds also
 * goes to shared memory, where both warpgroups take it for their halves of the tile's dq.
 *
 * dq of a tile of rows is a sum over the blocks whose keys it sees: fp32 in the caller's workspace,
 * in ascending order of keys, so that its bits depend on nothing else. Blocks take turns tile by
 * tile: the first one stores, others add, the last one adds in registers and stores dq. All walk
 * their rows from the last one on; so the blocks of a head that begin together follow each other
 * with a tile between them and do not wait for long. Items go to blocks in the order in which they
 * begin, those with lower keys first: a block waits only for blocks that have begun. */
#include "kernels/cuda/attention/bwd_sm90_keys.cuh"

namespace kern_attention
{
namespace
{

using namespace bwd_keys;

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
    /* not barriers: */
    GRANTED, /* two counters of tiles up to which consumers may store dq */
    ITEM,    /* a key_item, read where it is needed: registers are scarce */
    OWN_BARRIERS = ITEM + (sizeof(key_item) + 7) / 8
};
template <int D> constexpr int STAGE_COUNT = D == 128 ? 3 : 2;
template <int D>
using dqkv_arena = arena<D, STAGE_COUNT<D>, 2 * DS_BYTES<D> + 4 * SLOT_FLOATS, OWN_BARRIERS>;

/* The tile's dq on its way to the sum, behind the buffers of ds. */
template <int D> __device__ __forceinline__ uint32_t staged_dq(const dqkv_arena<D> &a)
{
    return a.own() + 2 * DS_BYTES<D>;
}

/* Whether dv's products begin before those of dp are over: registers for p twice. */
template <int D> constexpr bool EARLY = D == 128;

/* A tile of rows among the blocks that add to its dq. */
struct dq_turn {
    int turn;  /* blocks before this one */
    bool last; /* this is the last one */
    int64_t slot;

    __device__ __forceinline__ dq_turn(const bwd_sm90_params &p, const key_item &w, int tile)
    {
        const bwd_sm90_task &t = p.tasks[w.task];
        const int token = tile * p.box_tokens, first_row = t.q_row0 + token;
        const int last_row = t.q_row0 + min(token + p.box_tokens, t.q_rows) - 1;
        turn = (w.first_key - first_tile(first_row, p.dims.window, BWD_KEYS)) / BWD_KEYS;
        last = w.first_key + BWD_KEYS > last_row;
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

/* One thread of two, for every other tile that the block visits, beginning with `first`: adds the
 * consumers' dq to the tile's sum when it is the block's turn, and passes the turn on. */
template <int D>
__device__ __forceinline__ void add_tiles(const bwd_sm90_params &p, const dqkv_arena<D> &a,
                                          const key_item &w, int first)
{
    const int tiles = w.tiles.end - w.tiles.begin;
    for (int count = first; count < tiles; count += 2) {
        const dq_turn at(p, w, w.tiles.end - 1 - count);
        int32_t *added = p.turns + 1 + at.slot;
        if (at.turn > 0)
            while (kern_ptx::load_acquire(added) != at.turn) {
            }
        if (at.last) { /* consumers add and store dq */
            kern_ptx::store_release_shared(a.own_barrier(GRANTED) + 4 * first, count + 1);
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

/* ==== the consumers ==== */

/* This warp's part of a tile is there, or no longer needed. */
__device__ __forceinline__ void arrive_as_warp(uint32_t barrier)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0) kern_ptx::barrier_arrive(barrier);
}

/* A warp's 16 keys of ds^T. */
template <int ROWS>
__device__ __forceinline__ void store_ds(uint32_t to, const wgmma_left<ROWS> &ds, int key)
{
    const int lane = threadIdx.x % 32;
    const uint32_t line = to + (key + lane % 16) * PANEL_COLUMNS * 2;
#pragma unroll
    for (int k = 0; k < ROWS / 16; k++) {
        const int chunk = k % 4 * 2 + lane / 16; /* of 8 packed rows, in a panel */
        kern_ptx::store_matrices(line + k / 4 * PANEL_BYTES + ((chunk ^ lane % 8) << 4), ds[k]);
    }
}

/* This thread's part of a tile's dq, on its way to the sum; `count` tiles before have been there. */
template <int D>
__device__ __forceinline__ void stage_dq(const dqkv_arena<D> &a, int count, int consumer_thread,
                                         const wgmma_accumulator<64> &part)
{
    float4 *to =
        reinterpret_cast<float4 *>(a.memory + (staged_dq<D>(a) - a.base)) + consumer_thread;
    kern_ptx::barrier_wait(a.own_barrier(STAGE_EMPTY), (count & 1) ^ 1);
#pragma unroll
    for (int i = 0; i < SLOT_VECTORS; i++)
        to[i * CONSUMER_THREADS] = make_float4(part[i][0], part[i][1], part[i][2], part[i][3]);
    kern_ptx::stores_for_engines();
    arrive_as_warp(a.own_barrier(STAGED + count % 2));
}

/* dq of the `count`-th tile that the block visits, to which it is the last to add: this thread's
 * part of its 64 x 64 of it. */
template <int D>
__device__ __forceinline__ void store_dq(const bwd_sm90_params &p, const dqkv_arena<D> &a,
                                         const key_item &w, int count, int consumer,
                                         const wgmma_accumulator<64> &part)
{
    const int tile = w.tiles.end - 1 - count;
    const dq_turn at(p, w, tile);
    const int thread = threadIdx.x % GROUP_THREADS, lane = thread % 32;
    while (kern_ptx::load_acquire_shared(a.own_barrier(GRANTED) + count % 2 * 4) <= count) {
    }
    wgmma_accumulator<64> dq;
    const float *sum = p.dq_sums + at.slot * SLOT_FLOATS + (consumer * GROUP_THREADS + thread) * 4;
#pragma unroll
    for (int i = 0; i < SLOT_VECTORS; i++) {
        /* A sum of zeros is +0 at the end, wherever it began. */
        float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (at.turn > 0)
            x = __ldcg(reinterpret_cast<const float4 *>(sum + i * 4 * CONSUMER_THREADS));
        dq[i][0] = __fadd_rn(__fadd_rn(x.x, part[i][0]), 0.0f);
        dq[i][1] = __fadd_rn(__fadd_rn(x.y, part[i][1]), 0.0f);
        dq[i][2] = __fadd_rn(__fadd_rn(x.z, part[i][2]), 0.0f);
        dq[i][3] = __fadd_rn(__fadd_rn(x.w, part[i][3]), 0.0f);
    }
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

template <int D>
__device__ __forceinline__ void store_gradients(const bwd_sm90_params &p, const key_item &w,
                                                int warp_key, const wgmma_accumulator<D> &dk,
                                                const wgmma_accumulator<D> &dv)
{
    const bwd_sm90_task &t = p.tasks[w.task];
    const int64_t to = t.dkv + w.head * t.dkv_head;
    const int row = w.first_key + warp_key + threadIdx.x % 32 / 4 - t.kv_row0;
    const int end = t.q_row0 + t.q_rows - t.kv_row0;
    store_keys<D>(p.dk + to, dk, p.dims.scale, row, end);
    store_keys<D>(p.dv + to, dv, 1.0f, row, end);
}

template <int D>
__device__ __forceinline__ void consume(const bwd_sm90_params &p, const dqkv_arena<D> &a,
                                        const key_item &w, int consumer)
{
    constexpr int ROWS = BWD_ROWS<D>;
    const int lane = threadIdx.x % 32;
    const int group_warp_key = consumer * GROUP_KEYS + threadIdx.x % GROUP_THREADS / 32 * 16;
    const int own_rows = consumer * GROUP_KEYS * PANEL_COLUMNS * 2; /* bytes of a panel */
    /* The half of dq: columns, or rows. */
    const uint32_t dq_keys = a.keys() + (D == 128 ? consumer * PANEL_BYTES : 0);
    const uint32_t dq_ds = a.own() + (D == 128 ? 0 : consumer * PANEL_BYTES);
    int own_statistics = lane % 4 * LANE_STATISTICS<D>;
    int consumer_thread = consumer * GROUP_THREADS + threadIdx.x % GROUP_THREADS;
    kern_ptx::keep(own_statistics);
    kern_ptx::keep(consumer_thread);
    const stage_barriers barriers = a.barriers();
    wgmma_accumulator<ROWS> s, dp;
    wgmma_accumulator<D> dk, dv;
    wgmma_accumulator<64> dq;
    wgmma_left<ROWS> p_left, ds_left;
    clear<D>(dk);
    clear<D>(dv);
    clear<64>(dq);

    if (w.tiles.begin == w.tiles.end) {
        store_gradients<D>(p, w, group_warp_key, dk, dv);
        return;
    }
    typename dqkv_arena<D>::ring at;
    int count = 0;
    kern_ptx::barrier_wait(a.kv_full(), 0);
    const int warp_key = w.first_key + group_warp_key, tiles = w.tiles.end - w.tiles.begin;
    const int staged = staged_tiles(p, w);
    int first_row = p.tasks[w.task].q_row0 + (w.tiles.end - 1) * p.box_tokens;
    for (; count < tiles; count++, first_row -= p.box_tokens, at.next()) {
        barriers.wait_full(at);
        kern_ptx::wgmma_fence();
        multiply_rows<D, ROWS, PANEL_BYTES, ROW_PANEL_BYTES<D>>(s, a.keys() + own_rows,
                                                                a.q(at.stage));
        kern_ptx::wgmma_commit();
        kern_ptx::wgmma_wait<1>(); /* nothing to wait for; ptxas 13.0 waits for all without it */
        const float *statistics = a.statistics(at.stage) + own_statistics;
        lane_lse<D> minus_lse;
        begin_dp<D>(dp, statistics);
        kern_ptx::wgmma_fence();
        multiply_rows<D, ROWS, PANEL_BYTES, ROW_PANEL_BYTES<D>, true>(dp, a.values() + own_rows,
                                                                      a.d_o(at.stage));
        kern_ptx::wgmma_commit();
        if constexpr (EARLY<D>) load_lse<D>(minus_lse, statistics);
        kern_ptx::wgmma_wait<1>();
        kern_ptx::wgmma_settle(s);

        if (!all_seen(first_row, first_row + p.box_tokens - 1, warp_key, warp_key + 15,
                      p.dims.window))
            mask_keys<ROWS>(s, p.dims, first_row, warp_key);
        if constexpr (!EARLY<D>) load_lse<D>(minus_lse, statistics);
        probabilities<D>(s, minus_lse, p.dims.scale_log2);
        if constexpr (EARLY<D>) {
            to_operand<ROWS>(p_left, s);
            kern_ptx::wgmma_fence();
            multiply_columns<ROWS, D, ROW_PANEL_BYTES<D>>(dv, p_left, a.d_o(at.stage));
            kern_ptx::wgmma_commit();
        }
        kern_ptx::wgmma_wait<EARLY<D> ? 1 : 0>();
        kern_ptx::wgmma_settle(dp);
        score_gradients<ROWS>(dp, s);
        to_operand<ROWS>(ds_left, dp);
        if constexpr (!EARLY<D>) to_operand<ROWS>(p_left, s);
        kern_ptx::barrier_wait(a.own_barrier(DS_EMPTY + count % 2), (count / 2 & 1) ^ 1);
        store_ds<ROWS>(a.own() + count % 2 * DS_BYTES<D>, ds_left, group_warp_key);
        kern_ptx::stores_for_engines();
        arrive_as_warp(a.own_barrier(DS_FULL + count % 2));

        /* dq of the tile before; of the first tile it is nothing, and nobody looks. */
        const int other = count % 2 ^ 1;
        if (count > 0) kern_ptx::barrier_wait(a.own_barrier(DS_FULL + other), (count - 1) / 2 & 1);
        kern_ptx::wgmma_fence();
        if constexpr (!EARLY<D>)
            multiply_columns<ROWS, D, ROW_PANEL_BYTES<D>>(dv, p_left, a.d_o(at.stage));
        multiply_transposed<BWD_KEYS>(dq, dq_ds + other * DS_BYTES<D>, dq_keys);
        kern_ptx::wgmma_commit();
        multiply_columns<ROWS, D, ROW_PANEL_BYTES<D>>(dk, ds_left, a.q(at.stage));
        kern_ptx::wgmma_commit();
        kern_ptx::wgmma_wait<1>();
        kern_ptx::wgmma_settle(dq);
        if (count > 0) {
            arrive_as_warp(a.own_barrier(DS_EMPTY + other));
            if (count <= staged) stage_dq<D>(a, count - 1, consumer_thread, dq);
        }
        kern_ptx::wgmma_wait<0>();
        barriers.release(at.stage);
        if (count > staged) store_dq<D>(p, a, w, count - 1, consumer, dq);
    }
    kern_ptx::wgmma_wait<0>();
    kern_ptx::wgmma_settle(dk);
    kern_ptx::wgmma_settle(dv);
    store_gradients<D>(p, w, group_warp_key, dk, dv);
    const int buffer = (count - 1) % 2;
    kern_ptx::barrier_wait(a.own_barrier(DS_FULL + buffer), (count - 1) / 2 & 1);
    kern_ptx::wgmma_fence();
    multiply_transposed<BWD_KEYS>(dq, dq_ds + buffer * DS_BYTES<D>, dq_keys);
    kern_ptx::wgmma_commit();
    kern_ptx::wgmma_wait<0>();
    kern_ptx::wgmma_settle(dq);
    if (count <= staged)
        stage_dq<D>(a, count - 1, consumer_thread, dq);
    else
        store_dq<D>(p, a, w, count - 1, consumer, dq);
}

template <int D>
__global__ void __launch_bounds__(THREADS, 1) dqkv_sm90(const __grid_constant__ bwd_sm90_params p)
{
    extern __shared__ __align__(1024) uint8_t shared[];
    const dqkv_arena<D> a = arena_in<dqkv_arena<D>>(shared);
    key_item &w = *reinterpret_cast<key_item *>(shared + (a.own_barrier(ITEM) - a.base));
    begin_stages<D>(p, a);
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            kern_ptx::barrier_begin(a.own_barrier(DS_FULL + i), CONSUMER_WARPS);
            kern_ptx::barrier_begin(a.own_barrier(DS_EMPTY + i), CONSUMER_WARPS);
            kern_ptx::barrier_begin(a.own_barrier(STAGED + i), CONSUMER_WARPS);
        }
        kern_ptx::barrier_begin(a.own_barrier(STAGE_EMPTY), 1);
        for (int i = 0; i < 2; i++)
            kern_ptx::store_release_shared(a.own_barrier(GRANTED) + 4 * i, 0);
        kern_ptx::barriers_begun();
        w = key_item_of(p, atomicAdd(p.turns, 1));
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

/* ==== host ==== */

template <int D> cudaError_t launch(const bwd_sm90_params &params, cudaStream_t stream)
{
    constexpr int BYTES = dqkv_arena<D>::BYTES;
    cudaError_t e =
        cudaFuncSetAttribute(dqkv_sm90<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (e == cudaSuccess)
        e = cudaMemsetAsync(params.turns, 0, (1 + static_cast<size_t>(params.num_slots)) * 4,
                            stream);
    if (e != cudaSuccess) return e;
    dqkv_sm90<D><<<static_cast<unsigned>(params.num_key_items), THREADS, BYTES, stream>>>(params);
    return cudaGetLastError();
}

} // namespace

cudaError_t launch_dqkv_sm90(const bwd_sm90_params &p, int32_t head_dim, cudaStream_t stream)
{
    return head_dim == 64 ? launch<64>(p, stream) : launch<128>(p, stream);
}

} // namespace kern_attention
