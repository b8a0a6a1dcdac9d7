/* dq, dk and dv on wgmma and the copy engine, 5 products (see bwd_sm90_keys.cuh for the roles in a
 * block). p^T and ds^T come out of the scores as left operands of dv's and dk's products; ds also
 * goes to shared memory, where both warpgroups take it for their halves of the tile's dq, which is
 * summed over blocks in the caller's workspace (dqkv_sm90_sums.cuh).
 *
 * All blocks walk their rows from the last one on; so the blocks of a head that begin together
 * follow each other with a tile between them and do not wait for long. Items go to blocks in the
 * order in which they begin, those with lower keys first: a block waits only for blocks that have
 * begun. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_DQKV_SM90_KERNEL_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_DQKV_SM90_KERNEL_CUH

#include "kernels/cuda/attention/dqkv_sm90_sums.cuh"

namespace kern_attention
{
namespace bwd_keys
{

/* Whether dv's products begin before those of dp are over: registers for p twice. */
template <int D> constexpr bool EARLY = D == 128;

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

template <int D, bool FETCH>
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
        barriers.release_as_thread(at.stage);
        if (count > staged) store_dq<D, FETCH>(p, a, w, count - 1, staged, consumer, dq);
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
        store_dq<D, FETCH>(p, a, w, count - 1, staged, consumer, dq);
}

/* What each of the two warpgroups that multiply does. */
template <int D, bool FETCH> struct consumer {
    __device__ __forceinline__ static void run(const bwd_sm90_params &p, const dqkv_arena<D> &a,
                                               const key_item &w, int index)
    {
        consume<D, FETCH>(p, a, w, index);
    }
};

/* CONSUMER: consumer<D, FETCH>, or what a variant has in its place. */
template <int D, bool FETCH, class CONSUMER>
__device__ __forceinline__ void dqkv_block(const bwd_sm90_params &p)
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
            kern_ptx::barrier_begin(a.own_barrier(GRANTED + i), 1);
        }
        kern_ptx::barrier_begin(a.own_barrier(STAGE_EMPTY), 1);
        if constexpr (FETCH) kern_ptx::barrier_begin(a.own_barrier(SUM_EMPTY), CONSUMER_WARPS);
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
            add_tiles<D, FETCH>(p, a, w, warp - ADDING_WARPS);
    } else {
        kern_ptx::registers_grow<CONSUMER_REGISTERS>();
        CONSUMER::run(p, a, w, warpgroup - 1);
    }
}

} // namespace bwd_keys

/* ==== host ==== */

/* kernel: a __global__ function of threads bwd_keys::THREADS that is a dqkv_block<D>. */
template <int D, class Kernel>
cudaError_t launch_dqkv(Kernel kernel, const bwd_sm90_params &params, cudaStream_t stream)
{
    constexpr int BYTES = bwd_keys::dqkv_arena<D>::BYTES;
    cudaError_t e =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (e == cudaSuccess)
        e = cudaMemsetAsync(params.turns, 0, (1 + static_cast<size_t>(params.num_slots)) * 4,
                            stream);
    if (e != cudaSuccess) return e;
    kernel<<<static_cast<unsigned>(params.num_key_items), bwd_keys::THREADS, BYTES, stream>>>(
        params);
    return cudaGetLastError();
}

} // namespace kern_attention

#endif
