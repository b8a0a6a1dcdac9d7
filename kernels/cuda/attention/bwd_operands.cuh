/* What the two halves of the backward on mma.sync share (dq_mma_kernel.cuh, dkv_mma_kernel.cuh).
 *
 * Backward on mma.sync (Dao 2023, alg. 2). With s = scale q k^T, p = exp(s - lse), dp = d_o v^T,
 * ds = p (dp - delta):
 *   dv = p^T d_o,   dk = scale ds^T q,   dq = scale ds k.
 * One half owns packed rows and walks the keys they see, the other owns keys and walks the
 * packed rows that see them. p and dp are computed twice (7 products in place of 5); in return
 * no sum leaves the registers, nothing is added in memory, no workspace is needed and the order
 * of all sums is fixed.
 *
 * Rows beyond a task's end are zeros in shared memory, lse and delta too: p = 1 there, but it
 * only meets zeros. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_BWD_OPERANDS_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_BWD_OPERANDS_CUH

#include "kernels/cuda/attention/mma_launch.cuh"
#include "kernels/cuda/attention/tile.cuh"

namespace kern_attention
{

/* Both halves. */
namespace bwd
{
constexpr int THREADS = 128, BLOCKS_PER_SM = 2, STAGES = 2;
template <int D> using tile_of = tile<D, THREADS>;
} // namespace bwd

/* One head of a task. Packed rows are counted from its first. */
struct head_work {
    int q_row0, kv_row0, kv_end, packed_rows, d_o_row;
    const __nv_bfloat16 *q, *k, *v, *d_o;
    const float *lse, *delta;
};

template <int D> __device__ __forceinline__ head_work work_of(const bwd_params &p, const place &at)
{
    const kern_attention_task_t &t = p.list.tasks[at.task];
    head_work w;
    w.q_row0 = static_cast<int>(t.q_row0);
    w.kv_row0 = static_cast<int>(t.kv_row0);
    w.kv_end = w.q_row0 + static_cast<int>(t.q_rows);
    w.packed_rows = static_cast<int>(t.q_rows) * p.dims.group.divisor;
    w.q = p.q + t.q + at.head * t.q_head;
    w.k = p.k + t.kv + at.head * t.kv_head;
    w.v = p.v + t.kv + at.head * t.kv_head;
    w.d_o = p.d_o + t.d_o + at.head * t.d_o_head;
    w.d_o_row = static_cast<int>(t.d_o_row);
    w.lse = p.lse + t.lse + at.head * t.lse_head;
    w.delta = p.delta + t.delta + at.head * t.delta_head;
    return w;
}

/* Keys and values from `key` on, the values behind the keys. */
template <int D, int KEYS>
__device__ __forceinline__ void load_keys(uint32_t to, const head_work &w, int key)
{
    const int64_t at = static_cast<int64_t>(key - w.kv_row0) * D;
    bwd::tile_of<D>::template load<KEYS>(to, w.k + at, w.kv_end - key);
    bwd::tile_of<D>::template load<KEYS>(to + bwd::tile_of<D>::bytes(KEYS), w.v + at,
                                         w.kv_end - key);
}

/* Rows of q from packed row `packed` on, d_o behind them. */
template <int D, int ROWS>
__device__ __forceinline__ void load_rows(uint32_t to, const head_work &w, const divider &group,
                                          int packed)
{
    bwd::tile_of<D>::template load<ROWS>(to, w.q + static_cast<int64_t>(packed) * D,
                                         w.packed_rows - packed);
    bwd::tile_of<D>::template load_tokens<ROWS>(to + bwd::tile_of<D>::bytes(ROWS), w.d_o, w.d_o_row,
                                                group, packed, w.packed_rows);
}

} // namespace kern_attention

#endif
