/* dk and dv: a block owns keys and walks the packed rows that see them, so that it sums over the
 * whole group of heads in registers (see bwd_operands.cuh). It works on the transposed products
 * k q^T and v d_o^T, of which p^T and ds^T come out as fragments of the next product: nothing
 * passes through memory. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_DKV_MMA_KERNEL_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_DKV_MMA_KERNEL_CUH

#include "kernels/cuda/attention/bwd_operands.cuh"
#include "kernels/cuda/attention/mask.cuh"
#include "kernels/cuda/attention/softmax.cuh"

namespace kern_attention
{
namespace dkv_mma_kernel
{

using namespace bwd;

/* A warp owns 16 M keys, as many as its registers hold the gradients of. A stage is q, d_o, lse
 * and delta of some rows. */
template <int D> constexpr int BLOCKS_OF_16 = 128 / D;
template <int D> constexpr int KEYS_OF = THREADS / 32 * 16 * BLOCKS_OF_16<D>;
template <int D> constexpr int ROWS_OF = 64 / BLOCKS_OF_16<D>;
template <int D> constexpr int STAGE_BYTES = 2 * tile_of<D>::bytes(ROWS_OF<D>) + 2 * 4 * ROWS_OF<D>;
template <int D>
constexpr int TILE_BYTES = 2 * tile_of<D>::bytes(KEYS_OF<D>) + STAGES *STAGE_BYTES<D>;
template <int D> constexpr int SHARED_BYTES = TILE_BYTES<D> + static_cast<int>(sizeof(place));
static_assert(KERN_ATTENTION_TILE % KEYS_OF<64> == 0 && KERN_ATTENTION_TILE % KEYS_OF<128> == 0,
              "kv_row0 is on our grid");
static_assert(STAGE_BYTES<64> % 256 == 0 && STAGE_BYTES<128> % 256 == 0,
              "tiles begin at 256 bytes");

/* lse and delta of ROWS rows, a thread each: `from` is the one that this thread loads. */
template <int ROWS>
__device__ __forceinline__ void load_statistics(uint32_t to, const float *from, int packed, int end)
{
    static_assert(2 * ROWS <= THREADS, "one value a thread");
    const int row = packed + threadIdx.x % ROWS;
    if (threadIdx.x < 2 * ROWS) kern_ptx::copy4(to + 4 * threadIdx.x, from + row, row < end);
}

__device__ __forceinline__ void store_pair(float *to, float low, float high)
{
    *reinterpret_cast<float2 *>(to) = make_float2(low, high);
}

__device__ __forceinline__ void store_pair(__nv_bfloat16 *to, float low, float high)
{
    *reinterpret_cast<uint32_t *>(to) = kern_ptx::pack_bf16(low, high);
}

/* To: float, or bf16, to which sums are rounded. */
template <int D, int M, class To>
__device__ __forceinline__ void store_keys(To *to, const accumulator<M, D> &acc, float factor,
                                           int row0, int end)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int row = row0 + 16 * m + 8 * r + lane / 4;
            if (row >= end) continue;
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                store_pair(to + static_cast<int64_t>(row) * D + 8 * n + 2 * (lane % 4),
                           __fmul_rn(acc[m][n][2 * r], factor),
                           __fmul_rn(acc[m][n][2 * r + 1], factor));
        }
}

/* s and dp of a tile, transposed (a row is a key, a column a packed row), become p and ds.
 * `statistics`: lse, then delta, of the tile's rows, the first of which is `packed`; first_key:
 * of the warp. */
template <int M, int ROWS>
__device__ __forceinline__ void
transposed_gradients(accumulator<M, ROWS> &s, accumulator<M, ROWS> &dp, const float *statistics,
                     const shape &dims, int q_row0, int packed, int first_key, bool all)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < ROWS / 8; n++) {
        const int column = 8 * n + 2 * (lane % 4);
        const float2 lse2 = *reinterpret_cast<const float2 *>(statistics + column);
        const float2 delta2 = *reinterpret_cast<const float2 *>(statistics + ROWS + column);
        const float minus_lse[2] = {minus_lse_log2(lse2.x), minus_lse_log2(lse2.y)};
        const float delta[2] = {delta2.x, delta2.y};
        if (!all) {
            const int row[2] = {q_row0 + dims.group.quotient(packed + column),
                                q_row0 + dims.group.quotient(packed + column + 1)};
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (!sees(row[e % 2], first_key + 16 * m + lane / 4 + e / 2 * 8, dims.window))
                        s[m][n][e] = MINUS_INFINITY;
        }
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                gradient_of_score(s[m][n][e], dp[m][n][e], dims.scale_log2, minus_lse[e % 2],
                                  delta[e % 2]);
    }
}

template <int D>
__device__ __forceinline__ void work_on(const bwd_params &p, uint8_t *shared, int item)
{
    using tile_t = tile_of<D>;
    constexpr int M = BLOCKS_OF_16<D>, KEYS = KEYS_OF<D>, ROWS = ROWS_OF<D>;
    const uint32_t k_tile = kern_ptx::shared_address(shared), v_tile = k_tile + tile_t::bytes(KEYS);
    const uint32_t stages = v_tile + tile_t::bytes(KEYS);
    const divider &group = p.dims.group;
    place &at = *reinterpret_cast<place *>(shared + TILE_BYTES<D>);
    find_place(&at, p.list, p.first_key_item, item, [&group](const kern_attention_task_t &t) {
        return t.q_rows * group.divisor * D * 4; /* q and d_o */
    });
    const head_work w = work_of<D>(p, at);
    const int window = p.dims.window, warp_key = threadIdx.x / 32 * 16 * M;
    const int key = w.kv_row0 + at.tile * KEYS; /* the first keys are seen by most rows */
    const int first_key = key + warp_key, last_key = first_key + 16 * M - 1;
    /* The tokens of the task that see any of these keys. */
    const int first_token = max(key - w.q_row0, 0);
    const int reach = min(window, w.kv_end - key); /* window may be the largest int */
    const int token_end = min(key + KEYS - 1 + reach, w.kv_end) - w.q_row0;
    const int packed_end = token_end * group.divisor;

    const float *statistics = threadIdx.x < ROWS ? w.lse : w.delta;

    accumulator<M, D> dk, dv;
    clear<M, D>(dk);
    clear<M, D>(dv);
    int packed = first_token * group.divisor, stage = 0;
    if (packed < packed_end) {
        load_keys<D, KEYS>(k_tile, w, key);
        load_rows<D, ROWS>(stages, w, group, packed);
        load_statistics<ROWS>(stages + 2 * tile_t::bytes(ROWS), statistics, packed, w.packed_rows);
        kern_ptx::copy_commit();
    }
    const shared_fragments<tile_t, M> k(k_tile, warp_key), v(v_tile, warp_key);
    for (; packed < packed_end; packed += ROWS, stage ^= 1) {
        const uint32_t q_tile = stages + stage * STAGE_BYTES<D>;
        const uint32_t d_o_tile = q_tile + tile_t::bytes(ROWS);
        kern_ptx::copy_wait<0>();
        __syncthreads(); /* this stage is filled, and all are done with the other */
        if (packed + ROWS < packed_end) {
            const uint32_t next = stages + (stage ^ 1) * STAGE_BYTES<D>;
            load_rows<D, ROWS>(next, w, group, packed + ROWS);
            load_statistics<ROWS>(next + 2 * tile_t::bytes(ROWS), statistics, packed + ROWS,
                                  w.packed_rows);
            kern_ptx::copy_commit();
        }
        const int first_row = w.q_row0 + group.quotient(packed);
        const int last_row = w.q_row0 + group.quotient(packed + ROWS - 1);
        if (none_seen(first_row, last_row, first_key, last_key, window)) continue;

        accumulator<M, ROWS> s, dp;
        clear<M, ROWS>(s);
        clear<M, ROWS>(dp);
        multiply_rows<tile_t, M, ROWS, D>(s, k, q_tile);
        multiply_rows<tile_t, M, ROWS, D>(dp, v, d_o_tile);
        const uint8_t *staged = shared + (d_o_tile + tile_t::bytes(ROWS) - k_tile);
        transposed_gradients<M, ROWS>(s, dp, reinterpret_cast<const float *>(staged), p.dims,
                                      w.q_row0, packed, first_key,
                                      all_seen(first_row, last_row, first_key, last_key, window));
        multiply_accumulator<tile_t, M, ROWS, D>(dv, s, d_o_tile);
        multiply_accumulator<tile_t, M, ROWS, D>(dk, dp, q_tile);
    }

    const kern_attention_task_t &t = p.list.tasks[at.task];
    const int64_t to = t.dkv + at.head * t.dkv_head;
    const int row0 = first_key - w.kv_row0, end = w.kv_end - w.kv_row0;
    if (t.real) {
        store_keys<D, M>(p.dk_real + to, dk, p.dims.scale, row0, end);
        store_keys<D, M>(p.dv_real + to, dv, 1.0f, row0, end);
    } else {
        store_keys<D, M>(p.dk + to, dk, p.dims.scale, row0, end);
        store_keys<D, M>(p.dv + to, dv, 1.0f, row0, end);
    }
}

/* Tiles of one head. */
template <int D> int64_t tiles_of(const kern_attention_task_t &t)
{
    return (t.q_row0 + t.q_rows - t.kv_row0 + KEYS_OF<D> - 1) / KEYS_OF<D>;
}

} // namespace dkv_mma_kernel
} // namespace kern_attention

#endif
