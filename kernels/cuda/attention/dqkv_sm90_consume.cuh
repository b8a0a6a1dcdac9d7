/* What the two warpgroups that multiply do in the kernel that makes all three gradients
 * (dqkv_sm90_kernel.cuh). p^T and ds^T come out of the scores as left operands of dv's and dk's products; ds
 * also goes to shared memory, where both warpgroups take it for their halves of the tile's dq.
 *
 * Two orders, of tile j (dQ: products; dq: what leaves):
 *
 *   head dim 128:  S(j)  dq(j-2) leaves  dP(j)  exp  dV(j)  dK(j)  ds(j) to smem  dQ(j-1) | ...
 *   head dim 64:   S(j)  dP(j)  exp  ds(j) to smem  dV(j)  dQ(j-1)  dK(j)  dq(j-1) leaves | ...
 *
 * In the first dq leaves under the next scores and ds under dk's products, so that stores have products to hide
 * behind; dq waits in registers, of which head dim 64 has none to spare. A tile's ds is complete only when its
 * consumers have sent dq of the tile before the last on its way; tests/checks/barrier_model.py walks through both. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_DQKV_SM90_CONSUME_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_DQKV_SM90_CONSUME_CUH

#include "kernels/cuda/attention/dqkv_sm90_sums.cuh"

namespace kern_attention
{
namespace bwd_keys
{

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

/* dq of the `count`-th tile that the block visits leaves for the sum, or for its place. */
template <int D>
__device__ __forceinline__ void leave(const bwd_sm90_params &p, const dqkv_arena<D> &a,
                                      const key_item &w, int count, int staged, int consumer,
                                      int consumer_thread, const wgmma_accumulator<64> &dq)
{
    if (count < staged)
        stage_dq<D>(a, count, staged, consumer_thread, dq);
    else
        store_dq<D>(p, a, w, count, staged, consumer, dq);
}

template <int D>
__device__ __forceinline__ void consume_dk_first(const bwd_sm90_params &p, const dqkv_arena<D> &a,
                                                 const key_item &w, int consumer)
{
    constexpr int ROWS = BWD_ROWS<D>;
    static_assert(D == 128, "a half of dq is columns");
    const int group_warp_key = consumer * GROUP_KEYS + threadIdx.x % GROUP_THREADS / 32 * 16;
    const int own_rows = consumer * GROUP_KEYS * PANEL_COLUMNS * 2; /* bytes of a panel */
    const uint32_t dq_keys = a.keys() + consumer * PANEL_BYTES;
    int own_statistics = threadIdx.x % 4 * LANE_STATISTICS<D>;
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
        store_gradients<D>(p, w, w.first_key + group_warp_key, dk, dv);
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
        kern_ptx::wgmma_settle(dq);
        if (count > 1) leave<D>(p, a, w, count - 2, staged, consumer, consumer_thread, dq);
        const float *statistics = a.statistics(at.stage) + own_statistics;
        lane_lse<D> minus_lse;
        begin_dp<D>(dp, statistics);
        kern_ptx::wgmma_fence();
        multiply_rows<D, ROWS, PANEL_BYTES, ROW_PANEL_BYTES<D>, true>(dp, a.values() + own_rows,
                                                                      a.d_o(at.stage));
        kern_ptx::wgmma_commit();
        load_lse<D>(minus_lse, statistics);
        kern_ptx::wgmma_wait<1>();
        kern_ptx::wgmma_settle(s);
        if (!all_seen(first_row, first_row + p.box_tokens - 1, warp_key, warp_key + 15,
                      p.dims.window))
            mask_keys<ROWS>(s, p.dims, first_row, warp_key);
        probabilities<D>(s, minus_lse, p.dims.scale_log2);
        to_operand<ROWS>(p_left, s);
        kern_ptx::wgmma_fence();
        multiply_columns<ROWS, D, ROW_PANEL_BYTES<D>>(dv, p_left, a.d_o(at.stage));
        kern_ptx::wgmma_commit();
        kern_ptx::wgmma_wait<1>();
        kern_ptx::wgmma_settle(dp);
        score_gradients<ROWS>(dp, s);
        to_operand<ROWS>(ds_left, dp);
        kern_ptx::wgmma_fence();
        multiply_columns<ROWS, D, ROW_PANEL_BYTES<D>>(dk, ds_left, a.q(at.stage));
        kern_ptx::wgmma_commit();
        kern_ptx::barrier_wait(a.own_barrier(DS_EMPTY + count % 2), (count / 2 & 1) ^ 1);
        store_ds<ROWS>(a.own() + count % 2 * DS_BYTES<D>, ds_left, group_warp_key);
        kern_ptx::stores_for_engines();
        arrive_as_warp(a.own_barrier(DS_FULL + count % 2));

        /* dq of the tile before; of the first tile it is nothing, and nobody looks. */
        const int other = count % 2 ^ 1;
        if (count > 0) kern_ptx::barrier_wait(a.own_barrier(DS_FULL + other), (count - 1) / 2 & 1);
        kern_ptx::wgmma_fence();
        multiply_transposed<BWD_KEYS>(dq, a.own() + other * DS_BYTES<D>, dq_keys);
        kern_ptx::wgmma_commit();
        kern_ptx::wgmma_wait<0>();
        if (count > 0) arrive_as_warp(a.own_barrier(DS_EMPTY + other));
        barriers.release_as_thread(at.stage);
    }
    kern_ptx::wgmma_wait<0>();
    kern_ptx::wgmma_settle(dk);
    kern_ptx::wgmma_settle(dv);
    kern_ptx::wgmma_settle(dq);
    if (count > 1) leave<D>(p, a, w, count - 2, staged, consumer, consumer_thread, dq);
    const int buffer = (count - 1) % 2;
    kern_ptx::barrier_wait(a.own_barrier(DS_FULL + buffer), (count - 1) / 2 & 1);
    kern_ptx::wgmma_fence();
    multiply_transposed<BWD_KEYS>(dq, a.own() + buffer * DS_BYTES<D>, dq_keys);
    kern_ptx::wgmma_commit();
    kern_ptx::wgmma_wait<0>();
    kern_ptx::wgmma_settle(dq);
    leave<D>(p, a, w, count - 1, staged, consumer, consumer_thread, dq);
    store_gradients<D>(p, w, w.first_key + group_warp_key, dk, dv); /* while the last dq is added */
}

template <int D>
__device__ __forceinline__ void consume_dq_first(const bwd_sm90_params &p, const dqkv_arena<D> &a,
                                                 const key_item &w, int consumer)
{
    constexpr int ROWS = BWD_ROWS<D>;
    static_assert(D == 64, "a half of dq is rows");
    const int lane = threadIdx.x % 32;
    const int group_warp_key = consumer * GROUP_KEYS + threadIdx.x % GROUP_THREADS / 32 * 16;
    const int own_rows = consumer * GROUP_KEYS * PANEL_COLUMNS * 2; /* bytes of a panel */
    const uint32_t dq_ds = a.own() + consumer * PANEL_BYTES;
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
        store_gradients<D>(p, w, w.first_key + group_warp_key, dk, dv);
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
        kern_ptx::wgmma_wait<1>();
        kern_ptx::wgmma_settle(s);

        if (!all_seen(first_row, first_row + p.box_tokens - 1, warp_key, warp_key + 15,
                      p.dims.window))
            mask_keys<ROWS>(s, p.dims, first_row, warp_key);
        load_lse<D>(minus_lse, statistics);
        probabilities<D>(s, minus_lse, p.dims.scale_log2);
        kern_ptx::wgmma_wait<0>();
        kern_ptx::wgmma_settle(dp);
        score_gradients<ROWS>(dp, s);
        to_operand<ROWS>(ds_left, dp);
        to_operand<ROWS>(p_left, s);
        kern_ptx::barrier_wait(a.own_barrier(DS_EMPTY + count % 2), (count / 2 & 1) ^ 1);
        store_ds<ROWS>(a.own() + count % 2 * DS_BYTES<D>, ds_left, group_warp_key);
        kern_ptx::stores_for_engines();
        arrive_as_warp(a.own_barrier(DS_FULL + count % 2));

        /* dq of the tile before; of the first tile it is nothing, and nobody looks. */
        const int other = count % 2 ^ 1;
        if (count > 0) kern_ptx::barrier_wait(a.own_barrier(DS_FULL + other), (count - 1) / 2 & 1);
        kern_ptx::wgmma_fence();
        multiply_columns<ROWS, D, ROW_PANEL_BYTES<D>>(dv, p_left, a.d_o(at.stage));
        multiply_transposed<BWD_KEYS>(dq, dq_ds + other * DS_BYTES<D>, a.keys());
        kern_ptx::wgmma_commit();
        multiply_columns<ROWS, D, ROW_PANEL_BYTES<D>>(dk, ds_left, a.q(at.stage));
        kern_ptx::wgmma_commit();
        kern_ptx::wgmma_wait<1>();
        kern_ptx::wgmma_settle(dq);
        if (count > 0) {
            arrive_as_warp(a.own_barrier(DS_EMPTY + other));
            if (count <= staged) stage_dq<D>(a, count - 1, staged, consumer_thread, dq);
        }
        kern_ptx::wgmma_wait<0>();
        barriers.release_as_thread(at.stage);
        if (count > staged) store_dq<D>(p, a, w, count - 1, staged, consumer, dq);
    }
    kern_ptx::wgmma_wait<0>();
    kern_ptx::wgmma_settle(dk);
    kern_ptx::wgmma_settle(dv);
    const int buffer = (count - 1) % 2;
    kern_ptx::barrier_wait(a.own_barrier(DS_FULL + buffer), (count - 1) / 2 & 1);
    kern_ptx::wgmma_fence();
    multiply_transposed<BWD_KEYS>(dq, dq_ds + buffer * DS_BYTES<D>, a.keys());
    kern_ptx::wgmma_commit();
    kern_ptx::wgmma_wait<0>();
    kern_ptx::wgmma_settle(dq);
    leave<D>(p, a, w, count - 1, staged, consumer, consumer_thread, dq);
    store_gradients<D>(p, w, w.first_key + group_warp_key, dk, dv); /* while the last dq is added */
}

/* What each of the two does. */
template <int D>
__device__ __forceinline__ void consume(const bwd_sm90_params &p, const dqkv_arena<D> &a,
                                        const key_item &w, int consumer)
{
    if constexpr (D == 128)
        consume_dk_first<D>(p, a, w, consumer);
    else
        consume_dq_first<D>(p, a, w, consumer);
}

} // namespace bwd_keys
} // namespace kern_attention

#endif
