/* What the sm_90a kernels share whose blocks own 128 keys of one KV head and walk the packed rows
 * that see them, a tile of whole tokens at a time, the last first (dkv_sm90_kernel.cuh, dqkv_sm90_kernel.cuh).
 *
 * Three warpgroups: of the first, one thread has the copy engine fetch keys, values and the rows of
 * q and d_o, and a warp fetches the rows' lse and delta; the other two own 64 keys each. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_BWD_SM90_KEYS_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_BWD_SM90_KEYS_CUH

#include "kernels/cuda/attention/bwd_sm90_items.cuh"
#include "kernels/cuda/attention/sm90_fragments.cuh"
#include "kernels/cuda/attention/sm90_pipeline.cuh"

namespace kern_attention
{
namespace bwd_keys
{

constexpr int GROUP_THREADS = 128, CONSUMERS = 2, THREADS = (1 + CONSUMERS) * GROUP_THREADS;
constexpr int GROUP_KEYS = BWD_KEYS / CONSUMERS;
constexpr int CONSUMER_WARPS = CONSUMERS * GROUP_THREADS / 32;
constexpr int LOADER_REGISTERS = 24, CONSUMER_REGISTERS = 240;
static_assert(kern_ptx::registers_suffice(LOADER_REGISTERS, CONSUMERS, CONSUMER_REGISTERS));
constexpr int STATISTICS_WARP = 1;

/* A thread's columns of an accumulator are those of packed rows 8 n + 2 j + e, j = lane % 4. Their
 * lse, and behind them their delta, lie together, LANE_STATISTICS after those of j - 1: a multiple
 * of 16 bytes that keeps the four j in different banks. */
template <int D> constexpr int LANE_STATISTICS = BWD_ROWS<D> / 4 + 4;

/* Shared memory: keys, values; stages of q and d_o; EXTRA bytes of the kernel's own; of each stage
 * -lse log2(e) and -delta; then the barriers, of the keys and values ("full" only) and of the
 * stages, and EXTRA_BARRIERS more. */
template <int D, int STAGE_COUNT, int EXTRA, int EXTRA_BARRIERS> struct arena {
    static constexpr int STAGES = STAGE_COUNT, ROWS = BWD_ROWS<D>;
    static constexpr int STAGE_BYTES = 2 * ROW_TILE_BYTES<D>;
    static constexpr int OWN = 2 * KEY_TILE_BYTES<D> + STAGES * STAGE_BYTES;
    static constexpr int STATISTICS = OWN + EXTRA;
    static constexpr int STATISTICS_BYTES = 2 * 4 * LANE_STATISTICS<D> * 4;
    static constexpr int BARRIERS = STATISTICS + STAGES * STATISTICS_BYTES;
    static constexpr int BYTES =
        BARRIERS + (1 + STAGES) * stage_barriers::BYTES + 8 * EXTRA_BARRIERS;
    static_assert(BYTES <= 227 * 1024, "shared memory of a block");
    using ring = stage_ring<STAGES>;
    uint8_t *memory;
    uint32_t base;

    __device__ __forceinline__ uint32_t keys() const
    {
        return base;
    }
    __device__ __forceinline__ uint32_t values() const
    {
        return base + KEY_TILE_BYTES<D>;
    }
    __device__ __forceinline__ uint32_t q(int stage) const
    {
        return base + 2 * KEY_TILE_BYTES<D> + stage * STAGE_BYTES;
    }
    __device__ __forceinline__ uint32_t d_o(int stage) const
    {
        return q(stage) + ROW_TILE_BYTES<D>;
    }
    __device__ __forceinline__ uint32_t own() const
    {
        return base + OWN;
    }
    __device__ __forceinline__ float *statistics(int stage) const
    {
        return reinterpret_cast<float *>(memory + STATISTICS + stage * STATISTICS_BYTES);
    }
    __device__ __forceinline__ uint32_t kv_full() const
    {
        return base + BARRIERS;
    }
    __device__ __forceinline__ stage_barriers barriers() const
    {
        return {base + BARRIERS + stage_barriers::BYTES};
    }
    __device__ __forceinline__ uint32_t own_barrier(int index) const
    {
        return base + BARRIERS + (1 + STAGES) * stage_barriers::BYTES + 8 * index;
    }
};

template <class ARENA> __device__ __forceinline__ ARENA arena_in(uint8_t *shared)
{
    const uint32_t base = kern_ptx::shared_address(shared);
    if (base % 1024 != 0) __trap(); /* tiles begin there; `shared` asks for it */
    return {shared, base};
}

/* Before the block meets: barriers, by one thread, and rows of the stages that no box fills. */
template <int D, class ARENA>
__device__ __forceinline__ void begin_stages(const bwd_sm90_params &p, const ARENA &a)
{
    constexpr int WORDS = PANEL_COLUMNS * 2 / 16; /* a row of a panel */
    if (threadIdx.x == 0) {
        kern_ptx::barrier_begin(a.kv_full(), 1);
        a.barriers().begin(ARENA::STAGES, 1 + 32, CONSUMERS * GROUP_THREADS);
    }
    const int first = p.box_tokens * p.dims.group.divisor, words = (BWD_ROWS<D> - first) * WORDS;
    uint8_t *panel = a.memory + 2 * KEY_TILE_BYTES<D> + first * PANEL_COLUMNS * 2;
    for (int i = 0; i < ARENA::STAGES * ARENA::STAGE_BYTES / ROW_PANEL_BYTES<D>; i++)
        for (int word = threadIdx.x; word < words; word += THREADS)
            reinterpret_cast<uint4 *>(panel + i * ROW_PANEL_BYTES<D>)[word] =
                make_uint4(0, 0, 0, 0);
    kern_ptx::stores_for_engines();
}

/* ==== the loaders ==== */

/* One thread. */
template <int D, class ARENA>
__device__ __forceinline__ void load_tiles(const bwd_sm90_params &p, const ARENA &a,
                                           const key_item &w)
{
    constexpr int PANELS = D / PANEL_COLUMNS;
    if (w.tiles.begin == w.tiles.end) return; /* nobody would wait for the keys */
    const CUtensorMap *kv = &p.kv_maps[w.task];
    const int row = w.first_key - p.tasks[w.task].kv_row0;
    kern_ptx::barrier_expect(a.kv_full(), 2 * KEY_TILE_BYTES<D>);
    load_box(a.keys(), a.kv_full(), kv, row, w.head, p.v_first);
    load_box(a.values(), a.kv_full(), kv, row, w.head, p.v_first ^ 1);
    const stage_barriers barriers = a.barriers();
    const int box_bytes = p.box_tokens * p.dims.group.divisor * PANEL_COLUMNS * 2;
    typename ARENA::ring at;
    for (int tile = w.tiles.end - 1; tile >= w.tiles.begin; tile--, at.next()) {
        barriers.wait_empty(at);
        const uint32_t full = barriers.full(at.stage);
        kern_ptx::barrier_expect(full, 2 * PANELS * box_bytes);
#pragma unroll
        for (int panel = 0; panel < PANELS; panel++)
            load_tokens(a.q(at.stage) + panel * ROW_PANEL_BYTES<D>, full, &p.q_maps[w.task],
                        tile * p.box_tokens, panel, w.head);
#pragma unroll
        for (int panel = 0; panel < PANELS; panel++)
            load_tokens(a.d_o(at.stage) + panel * ROW_PANEL_BYTES<D>, full, &p.d_o_maps[w.task],
                        tile * p.box_tokens, panel, w.head);
    }
}

/* One warp. A row that does not exist has p = exp2(-inf) = 0. */
template <int D, class ARENA>
__device__ __forceinline__ void load_statistics(const bwd_sm90_params &p, const ARENA &a,
                                                const key_item &w)
{
    constexpr int ROWS = BWD_ROWS<D>, EACH = ROWS / 32;
    const bwd_sm90_task &t = p.tasks[w.task];
    const float *lse = p.lse + t.lse + w.head * t.lse_head;
    const float *delta = p.delta + t.delta + w.head * t.delta_head;
    const int R = p.dims.group.divisor, tile_rows = p.box_tokens * R, end = t.q_rows * R;
    const int lane = threadIdx.x % 32;
    const stage_barriers barriers = a.barriers();
    typename ARENA::ring at;
    for (int tile = w.tiles.end - 1; tile >= w.tiles.begin; tile--, at.next()) {
        float minus_lse[EACH], minus_delta[EACH]; /* under way before the stage is free */
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int row = 32 * i + lane, packed = tile * tile_rows + row;
            const bool live = row < tile_rows && packed < end;
            minus_lse[i] = live ? minus_lse_log2(lse[packed]) : MINUS_INFINITY;
            minus_delta[i] = live ? -delta[packed] : 0.0f;
        }
        barriers.wait_empty(at);
        float *to =
            a.statistics(at.stage) + lane / 2 % 4 * LANE_STATISTICS<D> + lane / 8 * 2 + lane % 2;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            to[8 * i] = minus_lse[i];
            to[4 * LANE_STATISTICS<D> + 8 * i] = minus_delta[i];
        }
        kern_ptx::barrier_arrive(barriers.full(at.stage));
    }
}

/* ==== the consumers ==== */

/* dp begins as -delta, so that its products end as dp - delta. statistics: of the thread's columns.
 */
template <int D>
__device__ __forceinline__ void begin_dp(wgmma_accumulator<BWD_ROWS<D>> &dp,
                                         const float *statistics)
{
#pragma unroll
    for (int n = 0; n < BWD_ROWS<D> / 8; n += 2) {
        const float4 x =
            *reinterpret_cast<const float4 *>(statistics + 4 * LANE_STATISTICS<D> + 2 * n);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            dp[n][e] = e % 2 ? x.y : x.x;
            dp[n + 1][e] = e % 2 ? x.w : x.z;
        }
    }
}

/* Scores of keys (rows of s) that a packed row (a column) does not see become -inf. */
template <int ROWS>
__device__ __forceinline__ void mask_keys(wgmma_accumulator<ROWS> &s, const shape &dims,
                                          int first_row, int warp_key)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < ROWS / 8; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int row = first_row + dims.group.quotient(8 * n + 2 * (lane % 4) + e);
#pragma unroll
            for (int r = 0; r < 2; r++)
                if (!sees(row, warp_key + lane / 4 + 8 * r, dims.window))
                    s[n][2 * r + e] = MINUS_INFINITY;
        }
}

/* -lse log2(e) of the thread's columns. */
template <int D> using lane_lse = float4[BWD_ROWS<D> / 16];

template <int D>
__device__ __forceinline__ void load_lse(lane_lse<D> &minus_lse, const float *statistics)
{
#pragma unroll
    for (int i = 0; i < BWD_ROWS<D> / 16; i++)
        minus_lse[i] = *reinterpret_cast<const float4 *>(statistics + 4 * i);
}

/* Scores -> p. */
template <int D>
__device__ __forceinline__ void probabilities(wgmma_accumulator<BWD_ROWS<D>> &s,
                                              const lane_lse<D> &minus_lse, float scale_log2)
{
#pragma unroll
    for (int n = 0; n < BWD_ROWS<D> / 8; n += 2) {
        const float4 &x = minus_lse[n / 2];
#pragma unroll
        for (int e = 0; e < 4; e++) {
            s[n][e] = kern_ptx::exp2_approx(__fmaf_rn(s[n][e], scale_log2, e % 2 ? x.y : x.x));
            s[n + 1][e] =
                kern_ptx::exp2_approx(__fmaf_rn(s[n + 1][e], scale_log2, e % 2 ? x.w : x.z));
        }
    }
}

/* The same, with statistics not loaded before. */
template <int D>
__device__ __forceinline__ void probabilities(wgmma_accumulator<BWD_ROWS<D>> &s,
                                              const float *statistics, float scale_log2)
{
#pragma unroll
    for (int n = 0; n < BWD_ROWS<D> / 8; n += 2) {
        const float4 x = *reinterpret_cast<const float4 *>(statistics + 2 * n);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            s[n][e] = kern_ptx::exp2_approx(__fmaf_rn(s[n][e], scale_log2, e % 2 ? x.y : x.x));
            s[n + 1][e] =
                kern_ptx::exp2_approx(__fmaf_rn(s[n + 1][e], scale_log2, e % 2 ? x.w : x.z));
        }
    }
}

/* dp - delta -> ds / scale. */
template <int ROWS>
__device__ __forceinline__ void score_gradients(wgmma_accumulator<ROWS> &dp,
                                                const wgmma_accumulator<ROWS> &p)
{
#pragma unroll
    for (int n = 0; n < ROWS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            dp[n][e] = __fmul_rn(p[n][e], dp[n][e]);
}

/* The sums of a warp's keys, the first of which is `row` of a head's. */
template <int D>
__device__ __forceinline__ void store_keys(float *to, const wgmma_accumulator<D> &acc, float factor,
                                           int row, int end)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        if (row + 8 * r >= end) continue;
        float *at = to + static_cast<int64_t>(row + 8 * r) * D + 2 * (threadIdx.x % 4);
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            *reinterpret_cast<float2 *>(at + 8 * n) =
                make_float2(__fmul_rn(acc[n][2 * r], factor), __fmul_rn(acc[n][2 * r + 1], factor));
    }
}

/* The same, rounded. */
template <int D>
__device__ __forceinline__ void store_keys(__nv_bfloat16 *to, const wgmma_accumulator<D> &acc,
                                           float factor, int row, int end)
{
#pragma unroll
    for (int r = 0; r < 2; r++)
        store_row<D>(to + static_cast<int64_t>(row + 8 * r) * D, acc, r, factor, row + 8 * r < end);
}

/* dk and dv of a warp's keys, from warp_key on, to where the task has them. */
template <int D>
__device__ __forceinline__ void store_gradients(const bwd_sm90_params &p, const key_item &w,
                                                int warp_key, const wgmma_accumulator<D> &dk,
                                                const wgmma_accumulator<D> &dv)
{
    const bwd_sm90_task &t = p.tasks[w.task];
    const int64_t to = t.dkv + w.head * t.dkv_head;
    const int row = warp_key + threadIdx.x % 32 / 4 - t.kv_row0;
    const int end = t.q_row0 + t.q_rows - t.kv_row0;
    if ((p.real >> w.task & 1) != 0) {
        store_keys<D>(p.dk_real + to, dk, p.dims.scale, row, end);
        store_keys<D>(p.dv_real + to, dv, 1.0f, row, end);
    } else {
        store_keys<D>(p.dk + to, dk, p.dims.scale, row, end);
        store_keys<D>(p.dv + to, dv, 1.0f, row, end);
    }
}

} // namespace bwd_keys
} // namespace kern_attention

#endif
