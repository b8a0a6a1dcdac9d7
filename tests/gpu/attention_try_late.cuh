/* A variant of the five-product backward's consumers (dqkv_sm90_kernel.cuh): dq leaves a turn later, under the
 * next tile's scores, so that the warpgroup that brings it to shared memory has products under way; and what waits
 * for dq can no longer hold up its own dk.
 *
 *   op:        S(j)  dP(j)  exp  dV(j)  ds(j) to smem  dQ(j-1)  dK(j)  dq(j-1) to smem | ...
 *   this:      S(j)  dq(j-2) to smem  dP(j)  exp  dV(j)  ds(j) to smem  dQ(j-1)  dK(j) | ...
 *   DK_FIRST:  S(j)  dq(j-2) to smem  dP(j)  exp  dV(j)  dK(j)  ds(j) to smem  dQ(j-1) | ...
 *
 * DK_FIRST has dk's products, whose left operand is in registers, cover ds on its way to shared memory as well. The
 * same additions in the same order, so the same bits. Barriers: a tile's ds is complete only when its consumers have
 * sent dq of the tile before the last on its way, as in the op; tests/checks/barrier_model.py walks through it. */
#ifndef CADRE_TESTS_GPU_ATTENTION_TRY_LATE_CUH
#define CADRE_TESTS_GPU_ATTENTION_TRY_LATE_CUH

#include "kernels/cuda/attention/dqkv_sm90_kernel.cuh"

namespace kern_attention
{
namespace bwd_keys
{

template <int D, bool FETCH, bool DK_FIRST> struct consumer_late {
    static constexpr int ROWS = BWD_ROWS<D>;
    static_assert(D == 128, "registers");

    __device__ __forceinline__ static void leave(const bwd_sm90_params &p, const dqkv_arena<D> &a,
                                                 const key_item &w, int count, int staged,
                                                 int consumer, int consumer_thread,
                                                 const wgmma_accumulator<64> &dq)
    {
        if (count < staged)
            stage_dq<D>(a, count, consumer_thread, dq);
        else
            store_dq<D, FETCH>(p, a, w, count, staged, consumer, dq);
    }

    __device__ __forceinline__ static void run(const bwd_sm90_params &p, const dqkv_arena<D> &a,
                                               const key_item &w, int consumer)
    {
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
            kern_ptx::wgmma_wait<
                1>(); /* nothing to wait for; ptxas 13.0 waits for all without it */
            kern_ptx::wgmma_settle(dq);
            if (count > 1) leave(p, a, w, count - 2, staged, consumer, consumer_thread, dq);
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
            if constexpr (DK_FIRST) {
                kern_ptx::wgmma_fence();
                multiply_columns<ROWS, D, ROW_PANEL_BYTES<D>>(dk, ds_left, a.q(at.stage));
                kern_ptx::wgmma_commit();
            }
            kern_ptx::barrier_wait(a.own_barrier(DS_EMPTY + count % 2), (count / 2 & 1) ^ 1);
            store_ds<ROWS>(a.own() + count % 2 * DS_BYTES<D>, ds_left, group_warp_key);
            kern_ptx::stores_for_engines();
            arrive_as_warp(a.own_barrier(DS_FULL + count % 2));

            /* dq of the tile before; of the first tile it is nothing, and nobody looks. */
            const int other = count % 2 ^ 1;
            if (count > 0)
                kern_ptx::barrier_wait(a.own_barrier(DS_FULL + other), (count - 1) / 2 & 1);
            kern_ptx::wgmma_fence();
            multiply_transposed<BWD_KEYS>(dq, a.own() + other * DS_BYTES<D>, dq_keys);
            kern_ptx::wgmma_commit();
            if constexpr (!DK_FIRST) {
                multiply_columns<ROWS, D, ROW_PANEL_BYTES<D>>(dk, ds_left, a.q(at.stage));
                kern_ptx::wgmma_commit();
            }
            kern_ptx::wgmma_wait<0>();
            if (count > 0) arrive_as_warp(a.own_barrier(DS_EMPTY + other));
            barriers.release_as_thread(at.stage);
        }
        kern_ptx::wgmma_wait<0>();
        kern_ptx::wgmma_settle(dk);
        kern_ptx::wgmma_settle(dv);
        kern_ptx::wgmma_settle(dq);
        store_gradients<D>(p, w, group_warp_key, dk, dv);
        if (count > 1) leave(p, a, w, count - 2, staged, consumer, consumer_thread, dq);
        const int buffer = (count - 1) % 2;
        kern_ptx::barrier_wait(a.own_barrier(DS_FULL + buffer), (count - 1) / 2 & 1);
        kern_ptx::wgmma_fence();
        multiply_transposed<BWD_KEYS>(dq, a.own() + buffer * DS_BYTES<D>, dq_keys);
        kern_ptx::wgmma_commit();
        kern_ptx::wgmma_wait<0>();
        kern_ptx::wgmma_settle(dq);
        leave(p, a, w, count - 1, staged, consumer, consumer_thread, dq);
    }
};

} // namespace bwd_keys
} // namespace kern_attention

#endif
