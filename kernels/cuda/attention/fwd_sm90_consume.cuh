/* What a consumer of the sm_90a forward does with an item: an online softmax over tiles of keys.
 *
 * It takes the exponentials of a tile while the products with the values of the tile before are under way, and
 * consumers take turns in issuing products, so that one's exponentials fall into the others' products (Shah et al.
 * 2024, "FlashAttention-3"). */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_CONSUME_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_CONSUME_CUH

#include "kernels/cuda/attention/fwd_sm90_arena.cuh"
#include "kernels/cuda/attention/fwd_sm90_rows.cuh"

namespace kern_attention
{
namespace fwd_sm90_kernel
{

/* At head dim 128 a consumer keeps its 64 rows of q in registers: the products with keys would otherwise read them
 * from shared memory at every tile, a fifth of all that products read there, and what that costs is power. */
template <int D> constexpr bool Q_IN_REGISTERS = D == 128;
/* At head dim 128, too, half a tile is left out at the ends of an item where the consumer's rows see none of it;
 * the registers of head dim 64 do not hold the two ways beside each other. */
template <int D> constexpr bool HALF_TILES = D == 128;

/* Turns in issuing products: named barriers 1 and up are those of the consumers. Each has two
 * warpgroups: the one whose turn it becomes and the one before it. */
__device__ __forceinline__ void take_turn(int consumer)
{
    kern_ptx::named_meet<2 * GROUP_THREADS>(1 + consumer);
}

template <int CONSUMERS> __device__ __forceinline__ void pass_turn(int consumer)
{
    kern_ptx::named_arrive<2 * GROUP_THREADS>(1 + (CONSUMERS == 2              ? consumer ^ 1
                                                   : consumer == CONSUMERS - 1 ? 0
                                                                               : consumer + 1));
}

/* Rows of the document that a thread, its warp and its consumer have of an item. */
struct item_rows {
    int own[2], warp_first, warp_last, first, last, window;

    __device__ __forceinline__ item_rows(const sm90_params &p, const item_work &w, int consumer,
                                         int warp_row, int local_row)
    {
        const divider &group = p.dims.group;
        const int q_row0 = p.tasks[w.task].q_row0, packed = w.first_packed + local_row;
        const int group_row = w.first_packed + consumer * GROUP_ROWS;
        own[0] = q_row0 + group.quotient(packed);
        own[1] = q_row0 + group.quotient(packed + 8);
        warp_first = q_row0 + group.quotient(w.first_packed + warp_row);
        warp_last = q_row0 + group.quotient(w.first_packed + warp_row + 15);
        first = q_row0 + group.quotient(group_row);
        last = q_row0 + group.quotient(group_row + GROUP_ROWS - 1);
        window = p.dims.window;
    }
    /* Of COUNT keys from `key` on. */
    template <int COUNT> __device__ __forceinline__ bool see_all(int key) const
    {
        return all_seen(warp_first, warp_last, key, key + COUNT - 1, window);
    }
    __device__ __forceinline__ bool see_none(int key, int count) const
    {
        return none_seen(first, last, key, key + count - 1, window);
    }
};

/* The consumer's rows of q as the left operand of scores. */
template <int D, int Q_PANEL> struct q_operand {
    uint32_t address;
    uint32_t left[Q_IN_REGISTERS<D> ? D / 16 : 1][4];

    __device__ __forceinline__ void take(uint32_t q)
    {
        address = q;
        if constexpr (Q_IN_REGISTERS<D>) {
            const int lane = threadIdx.x % 32;
            const int row = threadIdx.x % GROUP_THREADS / 32 * 16 + lane % 16;
#pragma unroll
            for (int k = 0; k < D / 16; k++) /* 16 bytes go where the swizzle has them */
                kern_ptx::load_matrices(left[k], q + k / 4 * Q_PANEL + row * (2 * PANEL_COLUMNS) +
                                                     (((k % 4 * 2 + lane / 16) ^ row % 8) << 4));
        }
    }
    /* s = q k^T for N keys; issues the products. */
    template <int N>
    __device__ __forceinline__ void multiply(wgmma_accumulator<N> &s, uint32_t keys) const
    {
        if constexpr (Q_IN_REGISTERS<D>)
            multiply_left<D, N, PANEL_BYTES>(s, left, keys);
        else
            multiply_rows<D, N, Q_PANEL, PANEL_BYTES>(s, address, keys);
    }
};

/* What a consumer has of an item between steps. */
template <int D, int CONSUMERS> struct consumer_state {
    q_operand<D, Q_PANEL_BYTES<CONSUMERS>> q;
    wgmma_accumulator<KEYS> s;
    wgmma_accumulator<D> o;
    wgmma_left<KEYS> probabilities;
    steady_softmax soft;
    ring at; /* the tile of `probabilities` */
};

/* Keys of the tile from `first` on that are worked on become probabilities; FIRST and COUNT: of which. */
template <int FIRST, int COUNT, int D, int CONSUMERS>
__device__ __forceinline__ void begin_item(const arena<D, CONSUMERS> &a,
                                           consumer_state<D, CONSUMERS> &c, const item_rows &rows,
                                           int key, float scale_log2)
{
    auto &s = reinterpret_cast<wgmma_accumulator<COUNT> &>(c.s);
    float shrink[1][2];
    kern_ptx::wgmma_fence();
    c.q.template multiply<COUNT>(s, a.tile(K_TILES + c.at.stage) + FIRST * 2 * PANEL_COLUMNS);
    kern_ptx::wgmma_commit();
    kern_ptx::wgmma_wait<0>();
    kern_ptx::wgmma_settle(s);
    a.release(K_TILES + c.at.stage);
    if (!rows.see_all<COUNT>(key + FIRST)) mask<COUNT>(s, rows.own, key + FIRST, rows.window);
    c.soft.template take<COUNT>(reinterpret_cast<accumulator<1, COUNT> &>(s), scale_log2, shrink);
#pragma unroll
    for (int k = 0; k < FIRST / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            c.probabilities[k][i] = 0;
    to_operand<COUNT>(reinterpret_cast<wgmma_left<COUNT> &>(c.probabilities[FIRST / 16]), s);
}

/* The next tile: scores of its first COUNT keys, beside the products with the values of the tile before. */
template <int COUNT, int D, int CONSUMERS>
__device__ __forceinline__ void take_step(const arena<D, CONSUMERS> &a, int consumer,
                                          consumer_state<D, CONSUMERS> &c, const item_rows &rows,
                                          int key, float scale_log2)
{
    auto &s = reinterpret_cast<wgmma_accumulator<COUNT> &>(c.s);
    float shrink[1][2];
    const ring before = c.at;
    c.at.next();
    kern_ptx::barrier_wait(a.full(K_TILES + c.at.stage), c.at.parity);
    take_turn(consumer);
    kern_ptx::wgmma_fence();
    c.q.template multiply<COUNT>(s, a.tile(K_TILES + c.at.stage));
    kern_ptx::wgmma_commit();
    kern_ptx::barrier_wait(a.full(V_TILES + before.stage), before.parity);
    multiply_columns<KEYS, D, PANEL_BYTES>(c.o, c.probabilities, a.tile(V_TILES + before.stage));
    kern_ptx::wgmma_commit();
    pass_turn<CONSUMERS>(consumer);
    kern_ptx::wgmma_wait<1>();
    kern_ptx::wgmma_settle(s);
    a.release(K_TILES + c.at.stage);
    if (!rows.see_all<COUNT>(key)) mask<COUNT>(s, rows.own, key, rows.window);
    c.soft.template take<COUNT>(reinterpret_cast<accumulator<1, COUNT> &>(s), scale_log2, shrink);
    kern_ptx::wgmma_hold(__fadd_rn(c.soft.sum[0][0], c.soft.sum[0][1]), c.q.address);
    kern_ptx::wgmma_wait<0>();
    kern_ptx::wgmma_settle(c.o);
    kern_ptx::wgmma_settle(c.probabilities);
    a.release(V_TILES + before.stage);
    if (c.soft.moved) {
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                c.o[n][e] = __fmul_rn(c.o[n][e], shrink[0][e / 2]);
    }
    to_operand<COUNT>(reinterpret_cast<wgmma_left<COUNT> &>(c.probabilities), s);
}

/* The products with the first COUNT values of the last tile; the caller waits. */
template <int COUNT, int D, int CONSUMERS>
__device__ __forceinline__ void end_item(const arena<D, CONSUMERS> &a,
                                         consumer_state<D, CONSUMERS> &c)
{
    kern_ptx::wgmma_fence();
    multiply_columns<COUNT, D, PANEL_BYTES>(
        c.o, reinterpret_cast<const wgmma_left<COUNT> &>(c.probabilities),
        a.tile(V_TILES + c.at.stage));
    kern_ptx::wgmma_commit();
}

template <int D, int CONSUMERS>
__device__ __forceinline__ void consume_items(const sm90_params &p, const arena<D, CONSUMERS> &a,
                                              int consumer)
{
    const int warp_row = consumer * GROUP_ROWS + threadIdx.x % GROUP_THREADS / 32 * 16;
    const int local_row = warp_row + threadIdx.x % 32 / 4;
    const float scale_log2 = p.dims.scale_log2;
    consumer_state<D, CONSUMERS> c;
    ring q_at;
    if (consumer == CONSUMERS - 1) pass_turn<CONSUMERS>(consumer); /* the first begins */

    item_walk walk;
    item_work w = work_of<ROWS<CONSUMERS>>(p, walk.item()); /* no block without one */
    for (bool more = true; more; q_at.next()) {
        const item_rows rows(p, w, consumer, warp_row, local_row);
        int key = w.first_key;
        c.soft.begin();
        clear<D>(c.o);
        kern_ptx::barrier_wait(a.full(Q_TILES + q_at.stage), q_at.parity);
        c.q.take(a.q_tile(q_at.stage) + consumer * GROUP_ROWS * PANEL_COLUMNS * 2);
        if (Q_IN_REGISTERS<D>) {
            __syncwarp(); /* what its lanes have read, which products wait for otherwise */
            a.release(Q_TILES + q_at.stage);
        }
        kern_ptx::barrier_wait(a.full(K_TILES + c.at.stage), c.at.parity);
        if (HALF_TILES<D> && rows.see_none(key, KEYS / 2))
            begin_item<KEYS / 2, KEYS / 2>(a, c, rows, key, scale_log2);
        else
            begin_item<0, KEYS>(a, c, rows, key, scale_log2);

        const int last_key = key + (w.steps - 1) * KEYS;
        const bool half =
            HALF_TILES<D> && w.steps > 1 && rows.see_none(last_key + KEYS / 2, KEYS / 2);
        for (key += KEYS; key < (half ? last_key : last_key + KEYS); key += KEYS)
            take_step<KEYS>(a, consumer, c, rows, key, scale_log2);
        if (half) take_step<KEYS / 2>(a, consumer, c, rows, key, scale_log2);

        if (!Q_IN_REGISTERS<D>) a.release(Q_TILES + q_at.stage);
        kern_ptx::barrier_wait(a.full(V_TILES + c.at.stage), c.at.parity);
        if (half)
            end_item<KEYS / 2>(a, c);
        else
            end_item<KEYS>(a, c);
        const item_work done = w;
        walk.round++;
        more = walk.item() < p.num_items;
        if (more) w = work_of<ROWS<CONSUMERS>>(p, walk.item());
        kern_ptx::wgmma_wait<0>();
        kern_ptx::wgmma_settle(c.o);
        kern_ptx::wgmma_settle(c.probabilities);
        a.release(V_TILES + c.at.stage);
        c.at.next();
        store<D>(p, done, local_row, c.o, c.soft);
    }
}

} // namespace fwd_sm90_kernel
} // namespace kern_attention

#endif
