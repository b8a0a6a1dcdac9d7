/* s = scale dropout(x) A^T and ds = scale dy B: many rows times a few columns, limited by reading x
 * or dy once. A block takes rows of one segment and up to NT tiles of 8 columns; its warps share
 * out the inner dimension in steps of 32.
 *
 * Each warp has a queue of its steps' operands in shared memory, filled ahead by asynchronous
 * copies of 16 bytes; what a lane multiplies it has brought itself, except B, which lies the other way
 * round and is transposed on the way out. The order of the inner dimension within a product is free
 * as long as both operands have the same: lane c of four holds columns 8 c ... 8 c + 7 of 32. With
 * dropout a step is 64 columns, of which one block of Philox serves each lane's 16; modules that share x
 * each mask their own copy of it, on the way from shared memory.
 *
 * The order of a sum: a warp's steps ascending, then the warps in order. It depends on the inner
 * dimension alone. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/lora_pieces.cuh"

#include <climits>

using namespace kern_lora;

namespace
{

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int MAX_TILES = 8, MAX_GROUPS = 24, MAX_WORK = 128;

/* Up to 8 columns of a block. */
struct column_tile {
    const bf16 *w; /* element (column j, inner k): A: w[j pitch + k], B: w[k pitch + j] */
    int64_t pitch;
    int32_t cols, out; /* valid columns; where they begin in s */
    int32_t fresh;     /* the first of a module: its mask begins */
    mask_key mask;
};

struct group {
    int64_t first, inner; /* columns [first, first + inner) of x */
    float alpha;
    int32_t num_tiles, aligned, dropout;
    column_tile tiles[MAX_TILES];
};

struct work {
    int32_t group, first_block;
    int64_t row0, row1;
};

struct product_params {
    matrix<const bf16> x;
    matrix<bf16> out;
    row_names names;
    int32_t num_work, blocks, num_groups;
    work works[MAX_WORK];
    group groups[MAX_GROUPS];
};
static_assert(sizeof(product_params) <= 32000, "parameters of a launch");

/* Adds the warps' sums of one tile and stores them. */
template <int MT>
__device__ __forceinline__ void store_tile(const product_params &p, const group &g,
                                           const column_tile &tile, int64_t row0, int64_t row1,
                                           const float (&acc)[MT][4], float (*part)[MT * 16][8])
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __syncthreads();
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            part[warp][m * 16 + i / 2 * 8 + lane / 4][lane % 4 * 2 + i % 2] = acc[m][i];
    __syncthreads();
    for (int i = threadIdx.x; i < MT * 16 * 8; i += THREADS) {
        const int r = i / 8, j = i % 8;
        float sum = part[0][r][j];
#pragma unroll
        for (int w = 1; w < WARPS; w++)
            sum += part[w][r][j];
        if (row0 + r < row1 && j < tile.cols)
            p.out.row(row0 + r)[tile.out + j] = __float2bfloat16_rn(g.alpha * sum);
    }
}

/* A step has PARTS times 32 columns. Stages of a queue: as many as shared memory has room for. */
template <bool DROPOUT> constexpr int PARTS = DROPOUT ? 2 : 1;
template <bool DROPOUT, int MT, int NT>
constexpr int STAGES_OF = DROPOUT            ? 2
                          : MT * 2 + NT > 12 ? 3
                                             : 4;
template <int MT, int NT> constexpr int SLOTS_OF = 2 * MT + NT; /* of a part */
template <bool DROPOUT, int MT, int NT>
constexpr int QUEUE_BYTES =
    WARPS *STAGES_OF<DROPOUT, MT, NT> *PARTS<DROPOUT> *SLOTS_OF<MT, NT> * 512;

/* The queue's slots are 512 bytes: 16 a lane. */
__device__ __forceinline__ uint4 *lane_slot(uint4 *stage, int slot)
{
    return stage + slot * 32 + threadIdx.x % 32;
}

__device__ __forceinline__ void bring(uint4 *to, const bf16 *row, int64_t k, int64_t inner,
                                      bool live, bool aligned)
{
    if (aligned)
        kern_ptx::copy16(kern_ptx::shared_address(to), row + k, live && k < inner);
    else
        *to = live ? load_chunk(row, k, inner, false) : make_uint4(0, 0, 0, 0);
}

/* Row k of B as 8 columns, where load_matrices_transposed gives lane c of four rows 8 c ... 8 c +
 * 7: matrix q of four holds rows 8 i + 2 q and 8 i + 2 q + 1. */
__device__ __forceinline__ void bring_across(uint4 *slot, const column_tile &tile, int64_t k0,
                                             int64_t inner, bool aligned)
{
    const int lane = threadIdx.x % 32;
    uint4 *const to = slot + lane % 8 / 2 * 8 + lane / 8 * 2 + lane % 2;
    const bf16 *row = tile.w + (k0 + lane) * tile.pitch;
    const bool live = k0 + lane < inner;
    if (aligned)
        kern_ptx::copy16(kern_ptx::shared_address(to), row, live);
    else
        *to = live ? load_chunk(row, 0, tile.cols, false) : make_uint4(0, 0, 0, 0);
}

template <bool ALONG, int MT, int NT>
__device__ __forceinline__ void bring_part(const product_params &p, const group &g, int64_t k0,
                                           int64_t row, int64_t row1, uint4 *stage)
{
    const int lane = threadIdx.x % 32;
    const int64_t k = k0 + lane % 4 * CHUNK;
    const bool aligned = g.aligned != 0;
    if (k0 < g.inner) {
#pragma unroll
        for (int r = 0; r < 2 * MT; r++)
            bring(lane_slot(stage, r), p.x.row(row + 8 * r) + g.first, k, g.inner,
                  row + 8 * r < row1, aligned);
#pragma unroll
        for (int n = 0; n < NT; n++) {
            if (n >= g.num_tiles) break;
            const column_tile &tile = g.tiles[n];
            if constexpr (ALONG)
                bring(lane_slot(stage, 2 * MT + n), tile.w + lane / 4 * tile.pitch, k, g.inner,
                      lane / 4 < tile.cols, aligned);
            else
                bring_across(stage + (2 * MT + n) * 32, tile, k0, g.inner, aligned);
        }
    }
}

template <bool ALONG, bool DROPOUT, int MT, int NT>
__device__ __forceinline__ void bring_step(const product_params &p, const group &g, int64_t k0,
                                           int64_t row, int64_t row1, uint4 *stage)
{
#pragma unroll
    for (int u = 0; u < PARTS<DROPOUT>; u++)
        bring_part<ALONG, MT, NT>(p, g, k0 + u * 32, row, row1, stage + u * SLOTS_OF<MT, NT> * 32);
    kern_ptx::copy_commit();
}

/* A lane's elements of a step: of each eighth row 8 columns of each part; with dropout those that
 * the module's mask keeps. Rows that there are not are 0 and masked like the last, so that no branch
 * stands between the chains of Philox. */
template <bool DROPOUT, int MT, int NT>
__device__ __forceinline__ void load_x(const uint4 *stage, const mask_key &mask,
                                       const row_name *names, int64_t column,
                                       uint4 (&x)[PARTS<DROPOUT>][2 * MT])
{
#pragma unroll
    for (int r = 0; r < 2 * MT; r++) {
#pragma unroll
        for (int u = 0; u < PARTS<DROPOUT>; u++)
            x[u][r] = stage[(u * SLOTS_OF<MT, NT> + r) * 32 + threadIdx.x % 32];
        if constexpr (DROPOUT) {
            const kept_columns kept = columns_kept(mask, names[r], column);
            x[0][r] = keep(x[0][r], kept, 0);
            x[1][r] = keep(x[1][r], kept, 1);
        }
    }
}

/* acc[m] += rows 16 m ... of x times a tile of W, over the 32 columns of a part. */
template <bool ALONG, int MT>
__device__ __forceinline__ void multiply_part(const uint4 (&x)[2 * MT], const uint4 *tile,
                                              float (&acc)[MT][4])
{
    const int lane = threadIdx.x % 32;
    uint32_t w[4];
    if constexpr (ALONG) {
        const uint4 w4 = tile[lane];
        w[0] = w4.x, w[1] = w4.y, w[2] = w4.z, w[3] = w4.w;
    } else {
        kern_ptx::load_matrices_transposed(w, kern_ptx::shared_address(tile + lane));
    }
#pragma unroll
    for (int m = 0; m < MT; m++) {
        const uint4 &lo = x[2 * m], &hi = x[2 * m + 1];
        const uint32_t a0[4] = {lo.x, hi.x, lo.y, hi.y}, a1[4] = {lo.z, hi.z, lo.w, hi.w};
        kern_ptx::multiply_add(acc[m], a0, w[0], w[1]);
        kern_ptx::multiply_add(acc[m], a1, w[2], w[3]);
    }
}

template <bool ALONG, bool DROPOUT, int MT, int NT>
__global__ void __launch_bounds__(THREADS, DROPOUT &&NT <= 2 ? 2 : 1) /* as queues have room */
    product_kernel(const __grid_constant__ product_params p)
{
    constexpr int STAGES = STAGES_OF<DROPOUT, MT, NT>, STEP = PARTS<DROPOUT> * 32;
    constexpr int SLOTS = PARTS<DROPOUT> * SLOTS_OF<MT, NT>; /* of a stage */
    extern __shared__ uint4 queues[];
    __shared__ float part[WARPS][MT * 16][8];
    const work &item = find_work(p);
    const group &g = p.groups[item.group];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint4 *const queue = queues + warp * STAGES * SLOTS * 32;
    const int64_t row0 =
        item.row0 + int64_t{static_cast<int>(blockIdx.x) - item.first_block} * (MT * 16);
    const int64_t mine = row0 + lane / 4; /* and every eighth row after it */
    float acc[NT][MT][4] = {};
    row_name names[DROPOUT ? 2 * MT : 1];
    if constexpr (DROPOUT) {
#pragma unroll
        for (int r = 0; r < 2 * MT; r++)
            names[r] = name_of(p.names, mine + 8 * r < item.row1 ? mine + 8 * r : item.row1 - 1);
    }
    for (int s = 0; s < STAGES - 1; s++)
        bring_step<ALONG, DROPOUT, MT, NT>(p, g, (s * WARPS + warp) * STEP, mine, item.row1,
                                           queue + s * SLOTS * 32);
    int at = 0;
    for (int64_t k0 = warp * STEP; k0 < g.inner; k0 += WARPS * STEP) {
        const uint4 *stage = queue + at * SLOTS * 32;
        kern_ptx::copy_wait<STAGES - 2>();
        __syncwarp(); /* also: every lane is done with the stage that is filled now */
        bring_step<ALONG, DROPOUT, MT, NT>(p, g, k0 + (STAGES - 1) * WARPS * STEP, mine, item.row1,
                                           queue + (at + STAGES - 1) % STAGES * SLOTS * 32);
        uint4 x[PARTS<DROPOUT>][2 * MT];
#pragma unroll
        for (int n = 0; n < NT; n++) {
            if (n >= g.num_tiles) break;
            const column_tile &tile = g.tiles[n];
            if (n == 0 || (DROPOUT && tile.fresh != 0))
                load_x<DROPOUT, MT, NT>(stage, tile.mask, names, k0 + lane % 4 * CHUNK, x);
#pragma unroll
            for (int u = 0; u < PARTS<DROPOUT>; u++)
                if (u == 0 || k0 + u * 32 < g.inner) /* nothing was brought beyond */
                    multiply_part<ALONG, MT>(x[u], stage + (u * SLOTS_OF<MT, NT> + 2 * MT + n) * 32,
                                             acc[n]);
        }
        at = at + 1 == STAGES ? 0 : at + 1;
    }
#pragma unroll
    for (int n = 0; n < NT; n++)
        if (n < g.num_tiles) store_tile<MT>(p, g, g.tiles[n], row0, item.row1, acc[n], part);
}

/* ==== the host's lists ==== */

/* Rows that a block takes: many while the sums fit in registers. */
template <bool DROPOUT, int NT> constexpr int row_tiles()
{
    return DROPOUT ? 2 : 4;
}

template <bool ALONG, bool DROPOUT, int NT>
base_status_t launch(base_stream_t *s, const char *op, product_params &p)
{
    constexpr int MT = row_tiles<DROPOUT, NT>();
    int64_t blocks = 0;
    for (int i = 0; i < p.num_work; i++) {
        p.works[i].first_block = static_cast<int32_t>(blocks);
        blocks += (p.works[i].row1 - p.works[i].row0 + MT * 16 - 1) / (MT * 16);
    }
    if (blocks == 0) return BASE_OK;
    constexpr int bytes = QUEUE_BYTES<DROPOUT, MT, NT>;
    BASE_TRY(
        kern_cuda_check(s, op,
                        cudaFuncSetAttribute(product_kernel<ALONG, DROPOUT, MT, NT>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)));
    product_kernel<ALONG, DROPOUT, MT, NT>
        <<<static_cast<unsigned>(blocks), THREADS, bytes, native(s)>>>(p);
    return kern_cuda_check(s, op, cudaGetLastError());
}

/* Launches what has been collected: its groups all have dropout, or none has. */
template <bool ALONG> base_status_t flush(base_stream_t *s, const char *op, product_params &p)
{
    int tiles = 0;
    base_status_t st = BASE_OK;
    for (int i = 0; i < p.num_groups; i++)
        tiles = p.groups[i].num_tiles > tiles ? p.groups[i].num_tiles : tiles;
    if (p.num_work > 0) {
        const bool dropout = ALONG && p.groups[0].dropout != 0;
        if (dropout && tiles <= 2)
            st = launch<ALONG, ALONG, 2>(s, op, p);
        else if (dropout && tiles <= 4)
            st = launch<ALONG, ALONG, 4>(s, op, p);
        else if (dropout && tiles <= 6)
            st = launch<ALONG, ALONG, 6>(s, op, p);
        else if (dropout)
            st = launch<ALONG, ALONG, 8>(s, op, p);
        else if (tiles <= 2)
            st = launch<ALONG, false, 2>(s, op, p);
        else if (tiles <= 4)
            st = launch<ALONG, false, 4>(s, op, p);
        else
            st = launch<ALONG, false, 8>(s, op, p);
    }
    p.num_work = p.num_groups = 0;
    return st;
}

/* The rows of the group that was added last. */
template <bool ALONG>
base_status_t add_rows_of(base_stream_t *s, const char *op, const kern_lora_route_t &route,
                          int32_t adapter, product_params &p)
{
    for (int64_t i = 0; i < route.num_segments; i++) {
        const kern_lora_segment_t &segment = route.segments[i];
        if (segment.adapter != adapter || segment.row0 == segment.row1) continue;
        if (p.num_work == MAX_WORK) {
            const group last = p.groups[p.num_groups - 1];
            BASE_TRY(flush<ALONG>(s, op, p));
            p.groups[p.num_groups++] = last;
        }
        p.works[p.num_work++] = {p.num_groups - 1, 0, segment.row0, segment.row1};
    }
    return BASE_OK;
}

void add_tiles(const kern_lora_block_t &block, const kern_mat_t &w, bool along,
               const mask_key &mask, int64_t *rank0, group *g)
{
    const bf16 *at = kern_cuda_pointer<const bf16>(w.mem);
    int32_t fresh = 1;
    for (; *rank0 < block.rank && g->num_tiles < MAX_TILES; *rank0 += 8) {
        const int64_t left = block.rank - *rank0;
        g->tiles[g->num_tiles++] = {at + (along ? *rank0 * w.pitch : *rank0),
                                    w.pitch,
                                    static_cast<int32_t>(left < 8 ? left : 8),
                                    static_cast<int32_t>(block.column + *rank0),
                                    fresh,
                                    mask};
        fresh = 0;
    }
    /* Whole chunks of x's columns and A's, or whole tiles of B's. */
    g->aligned =
        g->aligned && g->inner % CHUNK == 0 && rows_aligned(w) && (along || block.rank % 8 == 0);
}

template <bool ALONG>
base_status_t run(base_stream_t *s, const char *op, const kern_lora_route_t &route,
                  const kern_mat_t &x, const kern_mat_t &out)
{
    product_params p;
    p.x = matrix_of<const bf16>(x);
    p.out = matrix_of<bf16>(out);
    p.names = names_of(route);
    p.num_work = p.num_groups = 0;
    /* Blocks of one adapter that read the same columns share a group. */
    const auto alike = [&](int64_t b, int32_t adapter) {
        return ALONG && route.blocks[b].adapter == adapter;
    };
    for (int64_t b = 0; b < route.num_blocks; b++) {
        const kern_lora_block_t &block = route.blocks[b];
        bool earlier = false; /* its group was begun by an earlier block */
        for (int64_t before = 0; before < b; before++)
            earlier = earlier || alike(before, block.adapter);
        if (earlier) continue;
        int64_t member = b, rank0 = 0;
        while (member < route.num_blocks) {
            const kern_lora_block_t &first = route.blocks[member];
            group g = {};
            g.first = ALONG ? 0 : first.out_column;
            g.inner = ALONG ? x.cols : first.b.rows;
            g.dropout = ALONG && mask_of(route, first).threshold != 0;
            g.alpha = static_cast<float>(
                scale_of(route, first) *
                (ALONG ? kern_dropout_factor(route.adapters[first.adapter].dropout) : 1.0));
            g.aligned = rows_aligned(x, g.first);
            /* as many blocks as fit, then the next group begins where this one ended */
            for (;;) {
                const kern_lora_block_t &m = route.blocks[member];
                add_tiles(m, ALONG ? m.a : m.b, ALONG, mask_of(route, m), &rank0, &g);
                if (rank0 < m.rank) break;
                rank0 = 0;
                do
                    member++;
                while (member < route.num_blocks && !alike(member, block.adapter));
                if (member == route.num_blocks || g.num_tiles == MAX_TILES) break;
            }
            if (p.num_groups > 0 &&
                (p.num_groups == MAX_GROUPS || p.groups[0].dropout != g.dropout))
                BASE_TRY(flush<ALONG>(s, op, p));
            p.groups[p.num_groups++] = g;
            BASE_TRY(add_rows_of<ALONG>(s, op, route, block.adapter, p));
        }
    }
    return flush<ALONG>(s, op, p);
}

} // namespace

extern "C" base_status_t kern_cuda_lora_s(base_stream_t *s, const kern_lora_s_t *args)
{
    if (args->x.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    BASE_TRY(clear_columns(s, "lora_s", args->s));
    return run<true>(s, "lora_s", args->route, args->x, args->s);
}

base_status_t kern_lora::ds_sums(base_stream_t *s, const kern_lora_ds_t *args)
{
    return run<false>(s, "lora_ds", args->route, args->dy, args->ds);
}

extern "C" base_status_t kern_cuda_lora_ds(base_stream_t *s, const kern_lora_ds_t *args)
{
    if (args->dy.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    BASE_TRY(clear_columns(s, "lora_ds", args->ds));
    return ds_sums(s, args);
}
