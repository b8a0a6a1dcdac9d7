/* dq on wgmma and the copy engine: a block owns 128 rows of tiles (one tile, or two) of one KV head
 * and walks the keys they see in tiles of 128, ascending. Three warpgroups as in the forward: one
 * thread of the first has the copy engine fetch q, d_o, keys and values; the other two own 64 rows
 * each. 132 blocks stay and walk the items. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_DQ_SM90_KERNEL_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_DQ_SM90_KERNEL_CUH

#include "kernels/cuda/attention/bwd_sm90_items.cuh"
#include "kernels/cuda/attention/fwd_sm90_items.cuh"
#include "kernels/cuda/attention/sm90_fragments.cuh"
#include "kernels/cuda/attention/sm90_pipeline.cuh"

#include <algorithm>

namespace kern_attention
{
namespace dq_sm90_kernel
{

constexpr int GROUP_THREADS = 128, CONSUMERS = 2, THREADS = (1 + CONSUMERS) * GROUP_THREADS;
constexpr int GROUP_ROWS = 64, KEYS = BWD_KEYS;
constexpr int CONSUMER_WARPS = CONSUMERS * GROUP_THREADS / 32;
constexpr int LOADER_REGISTERS = 24, CONSUMER_REGISTERS = 240;
static_assert(kern_ptx::registers_suffice(LOADER_REGISTERS, CONSUMERS, CONSUMER_REGISTERS));
constexpr int STAGES = 2, ALIGNMENT = 1024;
using ring = stage_ring<STAGES>;
using row_ring = stage_ring<1>;

/* Shared memory: q and d_o of an item; stages of keys and of values; barriers of the rows, of the
 * keys and of the values. */
template <int D> struct arena {
    static constexpr int ROW_TILES = 128 / BWD_ROWS<D>;
    static constexpr int ROW_BYTES = ROW_TILES * ROW_TILE_BYTES<D>; /* of q */
    static constexpr int BARRIERS = 2 * ROW_BYTES + 2 * STAGES * KEY_TILE_BYTES<D>;
    static constexpr int BYTES = BARRIERS + (1 + 2 * STAGES) * stage_barriers::BYTES;
    uint32_t base;

    __device__ __forceinline__ uint32_t q() const
    {
        return base;
    }
    __device__ __forceinline__ uint32_t d_o() const
    {
        return base + ROW_BYTES;
    }
    __device__ __forceinline__ uint32_t keys(int stage) const
    {
        return base + 2 * ROW_BYTES + stage * KEY_TILE_BYTES<D>;
    }
    __device__ __forceinline__ uint32_t values(int stage) const
    {
        return keys(STAGES + stage);
    }
    __device__ __forceinline__ stage_barriers of_rows() const
    {
        return {base + BARRIERS};
    }
    __device__ __forceinline__ stage_barriers of_keys() const
    {
        return {base + BARRIERS + stage_barriers::BYTES};
    }
    __device__ __forceinline__ stage_barriers of_values() const
    {
        return {base + BARRIERS + (1 + STAGES) * stage_barriers::BYTES};
    }
};

/* ==== the loader: one thread ==== */

template <int D>
__device__ __forceinline__ void load_rows(const bwd_sm90_params &p, const arena<D> &a,
                                          const row_item &w, const row_ring &at)
{
    constexpr int PANELS = D / PANEL_COLUMNS;
    const int box_bytes = p.box_tokens * p.dims.group.divisor * PANEL_COLUMNS * 2;
    const uint32_t full = a.of_rows().full(0);
    a.of_rows().wait_empty(at);
    kern_ptx::barrier_expect(full, 2 * arena<D>::ROW_TILES * PANELS * box_bytes);
#pragma unroll
    for (int i = 0; i < arena<D>::ROW_TILES * PANELS; i++) {
        const int token = w.first_token + i / PANELS * p.box_tokens;
        load_tokens(a.q() + i * ROW_PANEL_BYTES<D>, full, &p.q_maps[w.task], token, i % PANELS,
                    w.head);
        load_tokens(a.d_o() + i * ROW_PANEL_BYTES<D>, full, &p.d_o_maps[w.task], token, i % PANELS,
                    w.head);
    }
}

template <int D>
__device__ __forceinline__ void load_items(const bwd_sm90_params &p, const arena<D> &a)
{
    const stage_barriers of_keys = a.of_keys(), of_values = a.of_values();
    ring at;
    row_ring rows_at;
    for (item_walk walk; walk.item() < num_row_items(p); walk.round++, rows_at.next()) {
        const row_item w = row_item_of<D>(p, walk.item());
        const CUtensorMap *map = &p.kv_maps[w.task];
        int row = w.first_key - p.tasks[w.task].kv_row0;
        for (int step = 0; step < w.steps; step++, row += KEYS, at.next()) {
            of_keys.wait_empty(at);
            kern_ptx::barrier_expect(of_keys.full(at.stage), KEY_TILE_BYTES<D>);
            load_box(a.keys(at.stage), of_keys.full(at.stage), map, row, w.head, p.v_first);
            if (step == 0) load_rows<D>(p, a, w, rows_at);
            of_values.wait_empty(at);
            kern_ptx::barrier_expect(of_values.full(at.stage), KEY_TILE_BYTES<D>);
            load_box(a.values(at.stage), of_values.full(at.stage), map, row, w.head, p.v_first ^ 1);
        }
    }
}

/* ==== the consumers ==== */

/* What the elements of a thread's two rows need. */
struct row_state {
    int packed[2]; /* packed row of the task, -1: none */
    int position[2];
    float minus_lse[2], minus_delta[2];
};

template <int D>
__device__ __forceinline__ row_state rows_of(const bwd_sm90_params &p, const row_item &w,
                                             int local_row)
{
    const bwd_sm90_task &t = p.tasks[w.task];
    const int R = p.dims.group.divisor;
    const float *lse = p.lse + t.lse + w.head * t.lse_head;
    const float *delta = p.delta + t.delta + w.head * t.delta_head;
    row_state rows;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int local = local_row + 8 * r, in_tile = local % BWD_ROWS<D>;
        const int token = w.first_token + local / BWD_ROWS<D> * p.box_tokens;
        const int packed = token * R + in_tile;
        const bool live = in_tile < p.box_tokens * R && packed < t.q_rows * R;
        rows.packed[r] = live ? packed : -1;
        rows.position[r] = t.q_row0 + token + p.dims.group.quotient(in_tile);
        rows.minus_lse[r] = live ? minus_lse_log2(lse[packed]) : MINUS_INFINITY;
        rows.minus_delta[r] = live ? -delta[packed] : 0.0f;
    }
    return rows;
}

template <int D>
__device__ __forceinline__ void consume_items(const bwd_sm90_params &p, const arena<D> &a,
                                              int consumer)
{
    const int warp_row = consumer * GROUP_ROWS + threadIdx.x % GROUP_THREADS / 32 * 16;
    const int tile = consumer * GROUP_ROWS / BWD_ROWS<D>;
    const int own_rows =
        tile * ROW_TILE_BYTES<D> + consumer * GROUP_ROWS % BWD_ROWS<D> * PANEL_COLUMNS * 2;
    const stage_barriers of_rows = a.of_rows(), of_keys = a.of_keys(), of_values = a.of_values();
    const int window = p.dims.window;
    wgmma_accumulator<KEYS> s, dp;
    wgmma_accumulator<D> dq;
    wgmma_left<KEYS> ds_left;
    ring at;
    row_ring rows_at;
    for (item_walk walk; walk.item() < num_row_items(p); walk.round++, rows_at.next()) {
        const row_item w = row_item_of<D>(p, walk.item());
        const row_state rows = rows_of<D>(p, w, warp_row + threadIdx.x % 32 / 4);
        /* Positions of the warp's rows lie between those two. */
        const int first_token = p.tasks[w.task].q_row0 + w.first_token + tile * p.box_tokens;
        const int in_tile = warp_row % BWD_ROWS<D>;
        const int warp_first = first_token + p.dims.group.quotient(in_tile);
        const int warp_last = first_token + p.dims.group.quotient(in_tile + 15);
        int before = -1, key = w.first_key;
        clear<D>(dq);
        of_rows.wait_full(rows_at);
        for (int step = 0; step < w.steps; step++, key += KEYS, at.next()) {
            of_keys.wait_full(at);
            kern_ptx::wgmma_fence();
            multiply_rows<D, KEYS, ROW_PANEL_BYTES<D>, PANEL_BYTES>(s, a.q() + own_rows,
                                                                    a.keys(at.stage));
            kern_ptx::wgmma_commit();
            of_values.wait_full(at);
            kern_ptx::wgmma_wait<1>(); /* the operands of the tile before are free */
            if (before >= 0) of_keys.release(before);
            before = at.stage;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    dp[n][e] = rows.minus_delta[e / 2];
            kern_ptx::wgmma_fence();
            multiply_rows<D, KEYS, ROW_PANEL_BYTES<D>, PANEL_BYTES, true>(dp, a.d_o() + own_rows,
                                                                          a.values(at.stage));
            kern_ptx::wgmma_commit();
            kern_ptx::wgmma_wait<1>();
            kern_ptx::wgmma_settle(s);
            if (!all_seen(warp_first, warp_last, key, key + KEYS - 1, window))
                mask<KEYS>(s, rows.position, key, window);
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    s[n][e] = kern_ptx::exp2_approx(
                        __fmaf_rn(s[n][e], p.dims.scale_log2, rows.minus_lse[e / 2]));
            kern_ptx::wgmma_wait<0>();
            kern_ptx::wgmma_settle(dp);
            of_values.release(at.stage);
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    dp[n][e] = __fmul_rn(s[n][e], dp[n][e]);
            to_operand<KEYS>(ds_left, dp);
            kern_ptx::wgmma_fence();
            multiply_columns<KEYS, D, PANEL_BYTES>(dq, ds_left, a.keys(at.stage));
            kern_ptx::wgmma_commit();
        }
        of_rows.release(0);
        kern_ptx::wgmma_wait<0>();
        kern_ptx::wgmma_settle(dq);
        of_keys.release(before);
        const bwd_sm90_task &t = p.tasks[w.task];
        __nv_bfloat16 *to = p.dq + t.dq + w.head * t.dq_head;
#pragma unroll
        for (int r = 0; r < 2; r++)
            store_row<D>(to + static_cast<int64_t>(rows.packed[r]) * D, dq, r, p.dims.scale,
                         rows.packed[r] >= 0);
    }
}

template <int D>
__global__ void __launch_bounds__(THREADS, 1) dq_sm90(const __grid_constant__ bwd_sm90_params p)
{
    extern __shared__ uint8_t shared[];
    const uint32_t begin = kern_ptx::shared_address(shared);
    const arena<D> a = {(begin + ALIGNMENT - 1) & ~uint32_t{ALIGNMENT - 1}};
    if (threadIdx.x == 0) {
        a.of_rows().begin(1, 1, CONSUMER_WARPS);
        a.of_keys().begin(STAGES, 1, CONSUMER_WARPS);
        a.of_values().begin(STAGES, 1, CONSUMER_WARPS);
        kern_ptx::barriers_begun();
    }
    __syncthreads();
    /* The same for all threads of a warp, and the compiler should know it. */
    const int warpgroup = __shfl_sync(~0u, threadIdx.x / GROUP_THREADS, 0);
    if (warpgroup == 0) {
        kern_ptx::registers_shrink<LOADER_REGISTERS>();
        if (threadIdx.x == 0) load_items<D>(p, a);
    } else {
        kern_ptx::registers_grow<CONSUMER_REGISTERS>();
        consume_items<D>(p, a, warpgroup - 1);
    }
}

} // namespace dq_sm90_kernel

/* ==== host ==== */

template <int D> cudaError_t launch_dq_sm90(const bwd_sm90_params &params, cudaStream_t stream)
{
    using namespace dq_sm90_kernel;
    constexpr int BYTES = arena<D>::BYTES + ALIGNMENT;
    const cudaError_t e =
        cudaFuncSetAttribute(dq_sm90<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (e != cudaSuccess) return e;
    const int blocks = std::min(num_row_items(params), params.processors);
    dq_sm90<D><<<static_cast<unsigned>(blocks), THREADS, BYTES, stream>>>(params);
    return cudaGetLastError();
}

} // namespace kern_attention

#endif
