/* dk and dv on wgmma and the copy engine (see bwd_sm90_keys.cuh for the roles in a block).
 *
 * The consumers work on the transposed products k q^T and v d_o^T, of which p^T and ds^T come out
 * as left operands of the next products. Those of a tile are still under way while the next tile's
 * scores are; one warpgroup's exponentials fall into the other's products. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_DKV_SM90_KERNEL_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_DKV_SM90_KERNEL_CUH

#include "kernels/cuda/attention/bwd_sm90_keys.cuh"

namespace kern_attention
{
namespace dkv_sm90_kernel
{

using namespace bwd_keys;

template <int D> using dkv_arena = arena<D, 4, 0, 0>;

/* Whether dv's products begin before those of dp are over: registers for p twice. */
template <int D> constexpr bool EARLY = D == 128;

template <int D>
__device__ __forceinline__ void consume(const bwd_sm90_params &p, const dkv_arena<D> &a,
                                        const key_item &w, int consumer)
{
    constexpr int ROWS = BWD_ROWS<D>;
    const bwd_sm90_task &t = p.tasks[w.task];
    const int lane = threadIdx.x % 32, group_key = w.first_key + consumer * GROUP_KEYS;
    const int warp_key = group_key + threadIdx.x % GROUP_THREADS / 32 * 16;
    const int own_rows = consumer * GROUP_KEYS * PANEL_COLUMNS * 2; /* bytes of a panel */
    const stage_barriers barriers = a.barriers();
    wgmma_accumulator<ROWS> s, dp;
    wgmma_accumulator<D> dk, dv;
    wgmma_left<ROWS> p_left, ds_left;
    clear<D>(dk);
    clear<D>(dv);

    tile_span own = tiles_that_see(t, group_key, GROUP_KEYS, p.dims.window, p.box_tokens);
    if (own.begin == own.end) own = {w.tiles.begin, w.tiles.begin};
    typename dkv_arena<D>::ring at;
    int tile = w.tiles.end - 1;
    for (; tile >= own.end; tile--, at.next()) { /* only the other warpgroup's keys are seen */
        barriers.wait_full(at);
        barriers.release_as_thread(at.stage);
    }
    int before = -1; /* the stage whose products are under way */
    if (tile >= own.begin) kern_ptx::barrier_wait(a.kv_full(), 0);
    for (; tile >= own.begin; tile--, at.next()) {
        barriers.wait_full(at);
        kern_ptx::wgmma_fence();
        multiply_rows<D, ROWS, PANEL_BYTES, ROW_PANEL_BYTES<D>>(s, a.keys() + own_rows,
                                                                a.q(at.stage));
        kern_ptx::wgmma_commit();
        kern_ptx::wgmma_wait<1>(); /* the operands of the tile before are free */
        if (before >= 0) barriers.release_as_thread(before);
        before = at.stage;
        const float *statistics = a.statistics(at.stage) + lane % 4 * LANE_STATISTICS<D>;
        begin_dp<D>(dp, statistics);
        kern_ptx::wgmma_fence();
        multiply_rows<D, ROWS, PANEL_BYTES, ROW_PANEL_BYTES<D>, true>(dp, a.values() + own_rows,
                                                                      a.d_o(at.stage));
        kern_ptx::wgmma_commit();
        kern_ptx::wgmma_wait<1>();
        kern_ptx::wgmma_settle(s);

        const int first_row = t.q_row0 + tile * p.box_tokens;
        if (!all_seen(first_row, first_row + p.box_tokens - 1, warp_key, warp_key + 15,
                      p.dims.window))
            mask_keys<ROWS>(s, p.dims, first_row, warp_key);
        probabilities<D>(s, statistics, p.dims.scale_log2);
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
        kern_ptx::wgmma_fence();
        if constexpr (!EARLY<D>) {
            multiply_columns<ROWS, D, ROW_PANEL_BYTES<D>>(dv, p_left, a.d_o(at.stage));
            kern_ptx::wgmma_commit();
        }
        multiply_columns<ROWS, D, ROW_PANEL_BYTES<D>>(dk, ds_left, a.q(at.stage));
        kern_ptx::wgmma_commit();
    }
    kern_ptx::wgmma_wait<0>();
    kern_ptx::wgmma_settle(dk);
    kern_ptx::wgmma_settle(dv);
    if (before >= 0) barriers.release_as_thread(before);
    for (; tile >= w.tiles.begin; tile--, at.next()) {
        barriers.wait_full(at);
        barriers.release_as_thread(at.stage);
    }

    store_gradients<D>(p, w, warp_key, dk, dv);
}

template <int D>
__global__ void __launch_bounds__(THREADS, 1) dkv_sm90(const __grid_constant__ bwd_sm90_params p)
{
    extern __shared__ __align__(1024) uint8_t shared[];
    const dkv_arena<D> a = arena_in<dkv_arena<D>>(shared);
    begin_stages<D>(p, a);
    if (threadIdx.x == 0) kern_ptx::barriers_begun();
    __syncthreads();
    const key_item w = key_item_of(p, static_cast<int>(blockIdx.x));
    /* The same for all threads of a warp, and the compiler should know it. */
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), warpgroup = warp / 4;
    if (warpgroup == 0) {
        kern_ptx::registers_shrink<LOADER_REGISTERS>();
        if (warp == STATISTICS_WARP)
            load_statistics<D>(p, a, w);
        else if (threadIdx.x == 0)
            load_tiles<D>(p, a, w);
    } else {
        kern_ptx::registers_grow<CONSUMER_REGISTERS>();
        consume<D>(p, a, w, warpgroup - 1);
    }
}

} // namespace dkv_sm90_kernel

/* ==== host ==== */

template <int D> cudaError_t launch_dkv_sm90(const bwd_sm90_params &params, cudaStream_t stream)
{
    using namespace dkv_sm90_kernel;
    constexpr int BYTES = dkv_arena<D>::BYTES;
    const cudaError_t e =
        cudaFuncSetAttribute(dkv_sm90<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (e != cudaSuccess) return e;
    dkv_sm90<D><<<static_cast<unsigned>(num_key_items(params)), THREADS, BYTES, stream>>>(params);
    return cudaGetLastError();
}

} // namespace kern_attention

#endif
