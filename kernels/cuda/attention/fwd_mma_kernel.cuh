/* Forward on mma.sync: a block owns 128 packed rows of one KV head and walks the keys they see
 * in tiles of 64, ascending, with an online softmax (Milakov, Gimelshein 2018; Dao 2023, alg.
 * 1). Each of its 4 warps owns 32 rows: a fragment of keys read from shared memory then serves
 * two products, which matters since reading fragments takes nearly as long as multiplying them.
 * Keys and values of the next tile are copied while one is worked on. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_FWD_MMA_KERNEL_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_FWD_MMA_KERNEL_CUH

#include "kernels/cuda/attention/mask.cuh"
#include "kernels/cuda/attention/mma_launch.cuh"
#include "kernels/cuda/attention/softmax.cuh"
#include "kernels/cuda/attention/tile.cuh"

namespace kern_attention
{
namespace fwd_mma_kernel
{

constexpr int ROWS = 128, KEYS = 64, THREADS = 128, STAGES = 2;
constexpr int M = 2; /* blocks of 16 rows a warp */
constexpr int WARP_ROWS = 16 * M;
static_assert(ROWS == THREADS / 32 * WARP_ROWS, "each warp has its rows");
static_assert(KERN_ATTENTION_TILE % KEYS == 0, "kv_row0 is on our grid");

template <int D> using tile_of = tile<D, THREADS>;
template <int D>
constexpr int TILE_BYTES = tile_of<D>::bytes(ROWS) + STAGES * 2 * tile_of<D>::bytes(KEYS);
template <int D> constexpr int SHARED_BYTES = TILE_BYTES<D> + static_cast<int>(sizeof(place));

/* A block's share of a task: its packed rows and the keys that they see. */
struct block_work {
    int first_packed, live; /* packed rows, counted from the task's first */
    int q_row0;             /* position of the task's first token */
    int kv_row0, kv_end;    /* keys that exist */
    int first_key, key_end; /* keys to visit, from a tile's first on */
    const __nv_bfloat16 *q;
    int64_t kv; /* element of k and v where key kv_row0 is */
};

template <int D> __device__ __forceinline__ block_work work_of(const fwd_params &p, const place &at)
{
    const kern_attention_task_t &t = p.list.tasks[at.task];
    const divider &group = p.dims.group;
    block_work w;
    const int packed_rows = static_cast<int>(t.q_rows) * group.divisor;
    /* The last tile of a task sees most: first. */
    w.first_packed = (at.num_tiles - 1 - at.tile) * ROWS;
    w.live = min(ROWS, packed_rows - w.first_packed);
    w.q_row0 = static_cast<int>(t.q_row0);
    const int first_row = w.q_row0 + group.quotient(w.first_packed);
    w.kv_row0 = static_cast<int>(t.kv_row0);
    w.kv_end = w.q_row0 + static_cast<int>(t.q_rows);
    w.first_key = first_tile(first_row, p.dims.window, KEYS);
    w.key_end = w.q_row0 + group.quotient(w.first_packed + w.live - 1) + 1;
    w.q = p.q + t.q + at.head * t.q_head + static_cast<int64_t>(w.first_packed) * D;
    w.kv = t.kv + at.head * t.kv_head;
    return w;
}

/* Keys and values from `key` on into a stage. */
template <int D>
__device__ __forceinline__ void load_keys(uint32_t stage, const fwd_params &p, const block_work &w,
                                          int key)
{
    using tile_t = tile_of<D>;
    const int64_t at = w.kv + static_cast<int64_t>(key - w.kv_row0) * D;
    tile_t::template load<KEYS>(stage, p.k + at, w.kv_end - key);
    tile_t::template load<KEYS>(stage + tile_t::bytes(KEYS), p.v + at, w.kv_end - key);
    kern_ptx::copy_commit();
}

/* Scores of keys that a row does not see become -inf. Positions are worked out anew: registers are
 * scarcer than instructions in the few tiles that need this. */
__device__ __forceinline__ void mask(accumulator<M, KEYS> &s, const shape &dims,
                                     const block_work &w, int warp_row, int first_key)
{
    const int lane = threadIdx.x % 32, key = first_key + 2 * (lane % 4);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int packed = w.first_packed + warp_row + 16 * m + 8 * r + lane / 4;
            const int row = w.q_row0 + dims.group.quotient(packed);
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++)
                    if (!sees(row, key + 8 * n + e, dims.window))
                        s[m][n][2 * r + e] = MINUS_INFINITY;
        }
}

template <int D>
__device__ __forceinline__ void store(const fwd_params &p, const place &at, const block_work &w,
                                      int warp_row, accumulator<M, D> &o, online_softmax<M> &soft)
{
    const kern_attention_task_t &t = p.list.tasks[at.task];
    const int lane = threadIdx.x % 32;
    __nv_bfloat16 *o_head = p.o + t.o + at.head * t.o_head + 2 * (lane % 4);
    float *lse = p.lse + t.lse + at.head * t.lse_head;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float sum = sum_of_row(soft.sum[m][r]), factor = __frcp_rn(sum);
            const int local = warp_row + 16 * m + 8 * r + lane / 4;
            if (local >= w.live) continue;
            const int packed = w.first_packed + local, token = p.dims.group.quotient(packed);
            __nv_bfloat16 *to =
                o_head + token * t.o_row + (packed - token * p.dims.group.divisor) * D;
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                *reinterpret_cast<uint32_t *>(to + 8 * n) = kern_ptx::pack_bf16(
                    __fmul_rn(o[m][n][2 * r], factor), __fmul_rn(o[m][n][2 * r + 1], factor));
            if (lane % 4 == 0) lse[packed] = log_sum_exp(soft.max[m][r], sum, p.dims.scale);
        }
}

template <int D>
__global__ void __launch_bounds__(THREADS, 2) fwd_mma(const __grid_constant__ fwd_params p)
{
    using tile_t = tile_of<D>;
    extern __shared__ __align__(1024) uint8_t shared[];
    const uint32_t q_tile = kern_ptx::shared_address(shared);
    const uint32_t stages = q_tile + tile_t::bytes(ROWS);
    place &at = *reinterpret_cast<place *>(shared + TILE_BYTES<D>);
    find_place(&at, p.list, p.list.first_item, static_cast<int>(blockIdx.x),
               [](const kern_attention_task_t &t) { return keys_bytes<D>(t); });
    const block_work w = work_of<D>(p, at);
    const int warp_row = threadIdx.x / 32 * WARP_ROWS, window = p.dims.window;

    tile_t::template load<ROWS>(q_tile, w.q, w.live);
    load_keys<D>(stages, p, w, w.first_key);

    const int warp_first = w.q_row0 + p.dims.group.quotient(w.first_packed + warp_row);
    const int warp_last =
        w.q_row0 + p.dims.group.quotient(w.first_packed + warp_row + WARP_ROWS - 1);

    accumulator<M, D> o;
    clear<M, D>(o);
    online_softmax<M> soft;
    soft.begin();
    const shared_fragments<tile_t, M> q(q_tile, warp_row);

    int stage = 0;
    for (int key = w.first_key; key < w.key_end; key += KEYS, stage ^= 1) {
        const uint32_t k_tile = stages + stage * 2 * tile_t::bytes(KEYS);
        const uint32_t v_tile = k_tile + tile_t::bytes(KEYS);
        kern_ptx::copy_wait<0>();
        __syncthreads(); /* this stage is filled, and all are done with the other */
        if (key + KEYS < w.key_end)
            load_keys<D>(stages + (stage ^ 1) * 2 * tile_t::bytes(KEYS), p, w, key + KEYS);
        if (none_seen(warp_first, warp_last, key, key + KEYS - 1, window)) continue;

        accumulator<M, KEYS> s;
        clear<M, KEYS>(s);
        multiply_rows<tile_t, M, KEYS, D>(s, q, k_tile);
        if (!all_seen(warp_first, warp_last, key, key + KEYS - 1, window))
            mask(s, p.dims, w, warp_row, key);
        float shrink[M][2];
        soft.take<KEYS>(s, p.dims.scale_log2, shrink);
        if (online_softmax<M>::shrinks(shrink)) {
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int n = 0; n < D / 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        o[m][n][e] = __fmul_rn(o[m][n][e], shrink[m][e / 2]);
        }
        multiply_accumulator<tile_t, M, KEYS, D>(o, s, v_tile);
    }
    store<D>(p, at, w, warp_row, o, soft);
}

} // namespace fwd_mma_kernel

template <int D> cudaError_t launch_fwd_mma(fwd_params &p, cudaStream_t stream)
{
    using namespace fwd_mma_kernel;
    const int32_t group = p.dims.group.divisor;
    const int32_t items =
        count_items(p.list, p.list.first_item, [group](const kern_attention_task_t &t) {
            return (t.q_rows * group + ROWS - 1) / ROWS;
        });
    const cudaError_t e = cudaFuncSetAttribute(
        fwd_mma<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_BYTES<D>);
    if (e != cudaSuccess) return e;
    fwd_mma<D><<<static_cast<unsigned>(items), THREADS, SHARED_BYTES<D>, stream>>>(p);
    return cudaGetLastError();
}

} // namespace kern_attention

#endif
