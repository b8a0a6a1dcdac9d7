/* dq: a block owns 128 packed rows and walks the keys they see, 32 at a time, ascending (see
 * bwd_operands.cuh). A warp owns 32 rows: reading fragments takes longer than multiplying them,
 * and a fragment of keys then serves two products. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_DQ_MMA_KERNEL_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_DQ_MMA_KERNEL_CUH

#include "kernels/cuda/attention/bwd_operands.cuh"
#include "kernels/cuda/attention/mask.cuh"
#include "kernels/cuda/attention/softmax.cuh"

namespace kern_attention
{
namespace dq_mma_kernel
{

using namespace bwd;

constexpr int M = 2; /* blocks of 16 rows a warp */
constexpr int ROWS = THREADS / 32 * 16 * M, KEYS = 32;
template <int D> constexpr int STAGE_BYTES = 2 * tile_of<D>::bytes(KEYS);
template <int D> constexpr int TILE_BYTES = 2 * tile_of<D>::bytes(ROWS) + STAGES *STAGE_BYTES<D>;
template <int D> constexpr int SHARED_BYTES = TILE_BYTES<D> + static_cast<int>(sizeof(place));
static_assert(KERN_ATTENTION_TILE % KEYS == 0, "kv_row0 is on our grid");

/* What the elements of one row need. */
struct row_statistics {
    float minus_lse, delta;
};

template <int D>
__device__ __forceinline__ void work_on(const bwd_params &p, uint8_t *shared, int item)
{
    using tile_t = tile_of<D>;
    const uint32_t q_tile = kern_ptx::shared_address(shared);
    const uint32_t d_o_tile = q_tile + tile_t::bytes(ROWS);
    const uint32_t stages = d_o_tile + tile_t::bytes(ROWS);
    place &at = *reinterpret_cast<place *>(shared + TILE_BYTES<D>);
    find_place(&at, p.list, p.list.first_item, item,
               [](const kern_attention_task_t &t) { return keys_bytes<D>(t); });
    const head_work w = work_of<D>(p, at);
    const divider &group = p.dims.group;
    const int window = p.dims.window, lane = threadIdx.x % 32;
    const int warp_row = threadIdx.x / 32 * 16 * M;
    const int packed = (at.num_tiles - 1 - at.tile) * ROWS; /* those that see most come first */
    const int last_packed = min(packed + ROWS, w.packed_rows) - 1;
    const int first_key = first_tile(w.q_row0 + group.quotient(packed), window, KEYS);
    const int key_end = w.q_row0 + group.quotient(last_packed) + 1;

    load_rows<D, ROWS>(q_tile, w, group, packed);
    load_keys<D, KEYS>(stages, w, first_key);
    kern_ptx::copy_commit();

    row_statistics stat[M][2];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int row = packed + warp_row + 16 * m + 8 * r + lane / 4;
            const bool live = row < w.packed_rows;
            stat[m][r].minus_lse = live ? minus_lse_log2(w.lse[row]) : 0.0f;
            stat[m][r].delta = live ? w.delta[row] : 0.0f;
        }
    const int warp_first = w.q_row0 + group.quotient(packed + warp_row);
    const int warp_last = w.q_row0 + group.quotient(packed + warp_row + 16 * M - 1);

    accumulator<M, D> dq;
    clear<M, D>(dq);
    const shared_fragments<tile_t, M> q(q_tile, warp_row), d_o(d_o_tile, warp_row);
    int stage = 0;
    for (int key = first_key; key < key_end; key += KEYS, stage ^= 1) {
        const uint32_t k_tile = stages + stage * STAGE_BYTES<D>;
        const uint32_t v_tile = k_tile + tile_t::bytes(KEYS);
        kern_ptx::copy_wait<0>();
        __syncthreads(); /* this stage is filled, and all are done with the other */
        if (key + KEYS < key_end) {
            load_keys<D, KEYS>(stages + (stage ^ 1) * STAGE_BYTES<D>, w, key + KEYS);
            kern_ptx::copy_commit();
        }
        if (none_seen(warp_first, warp_last, key, key + KEYS - 1, window)) continue;

        accumulator<M, KEYS> s, dp;
        clear<M, KEYS>(s);
        clear<M, KEYS>(dp);
        multiply_rows<tile_t, M, KEYS, D>(s, q, k_tile);
        multiply_rows<tile_t, M, KEYS, D>(dp, d_o, v_tile);
        const bool all = all_seen(warp_first, warp_last, key, key + KEYS - 1, window);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                /* Worked out anew where it is needed: registers are scarcer than instructions. */
                const int row =
                    w.q_row0 + group.quotient(packed + warp_row + 16 * m + 8 * r + lane / 4);
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        float &score = s[m][n][2 * r + e];
                        if (!all && !sees(row, key + 8 * n + 2 * (lane % 4) + e, window))
                            score = MINUS_INFINITY;
                        gradient_of_score(score, dp[m][n][2 * r + e], p.dims.scale_log2,
                                          stat[m][r].minus_lse, stat[m][r].delta);
                    }
            }
        multiply_accumulator<tile_t, M, KEYS, D>(dq, dp, k_tile);
    }

    const kern_attention_task_t &t = p.list.tasks[at.task];
    __nv_bfloat16 *to = p.dq + t.dq + at.head * t.dq_head + 2 * (lane % 4);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int row = packed + warp_row + 16 * m + 8 * r + lane / 4;
            if (row >= w.packed_rows) continue;
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                *reinterpret_cast<uint32_t *>(to + static_cast<int64_t>(row) * D + 8 * n) =
                    kern_ptx::pack_bf16(__fmul_rn(dq[m][n][2 * r], p.dims.scale),
                                        __fmul_rn(dq[m][n][2 * r + 1], p.dims.scale));
        }
}

/* Tiles of one head. */
inline int64_t tiles_of(const kern_attention_task_t &t, int32_t group)
{
    return (t.q_rows * group + ROWS - 1) / ROWS;
}

} // namespace dq_mma_kernel
} // namespace kern_attention

#endif
