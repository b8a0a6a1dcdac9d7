/* dx += mask o (ds A) / (1 - p): one pass over dx, which is read and written once for all blocks of
 * an adapter. A warp has 64 columns for ROWS rows; A's columns stay in its registers, up to STEPS
 * times 16 ranks of the adapter's blocks (more: another launch, with a rounding of dx in between).
 * Rows of dx are asked for before their product and masks are made, the next ones' into L2.
 *
 * Lane c of four holds columns 8 c ... 8 c + 7 of both halves of the 64, the 16 that one block of Philox
 * serves: tile i of a half's product has columns 8 c + 2 i and the next, so that a lane's results are 16
 * neighbouring bytes. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/lora_pieces.cuh"

using namespace kern_lora;

namespace
{

constexpr int THREADS = 128, WARPS = THREADS / 32, WIDTH = 64, COLS = WIDTH * WARPS, ROWS = 256;
constexpr int MAX_STEPS = 6, MAX_GROUPS = 24, MAX_WORK = 128;

/* Up to 16 ranks of a block. */
struct rank_step {
    const bf16 *a; /* (ranks, K) */
    int64_t a_pitch;
    int32_t column, ranks; /* in ds */
    int32_t last;          /* of its block: the mask is applied */
    int32_t paired;        /* 16, and two neighbouring ranks of ds can be read at once */
    mask_key mask;
};

struct group {
    int32_t num_steps;
    int32_t masked; /* its adapter has dropout */
    float factor;
    rank_step steps[MAX_STEPS];
};

struct work {
    int32_t group, first_block;
    int64_t row0, row1;
};

struct dx_params {
    matrix<const bf16> ds;
    matrix<bf16> dx;
    row_names names;
    int64_t cols;
    int32_t aligned, column_blocks, num_work, num_groups;
    work works[MAX_WORK];
    group groups[MAX_GROUPS];
};
static_assert(sizeof(dx_params) <= 32000, "parameters of a launch");

struct fragment {
    uint32_t low, high; /* ranks 2 c, 2 c + 1; 2 c + 8, 2 c + 9 */
};

__device__ __forceinline__ uint32_t pair_of(const bf16 *p, int64_t stride, int rank, int ranks,
                                            bool live)
{
    return (live && rank < ranks ? bits_of(p + rank * stride) : 0u) |
           (live && rank + 1 < ranks ? bits_of(p + (rank + 1) * stride) << 16 : 0u);
}

template <int STEPS>
__device__ __forceinline__ void load_a(const group &g, int64_t column, int64_t cols,
                                       fragment (&b)[STEPS][8])
{
    const int lane = threadIdx.x % 32, c = lane % 4, n = lane / 4;
#pragma unroll
    for (int s = 0; s < STEPS; s++)
#pragma unroll
        for (int i = 0; i < 8; i++) {
            b[s][i] = {0, 0};
            if (s >= g.num_steps) continue;
            const rank_step &step = g.steps[s];
            const int64_t j = column + i / 4 * 32 + n / 2 * 8 + 2 * (i % 4) + n % 2;
            b[s][i].low = pair_of(step.a + j, step.a_pitch, 2 * c, step.ranks, j < cols);
            b[s][i].high = pair_of(step.a + j, step.a_pitch, 2 * c + 8, step.ranks, j < cols);
        }
}

/* What a lane needs of two rows, 8 apart, for a tile: asked for all at once, before anything is used.
 * A row that there is not is the last one, and is not stored. */
template <int STEPS> struct tile_rows {
    uint4 dx[2][2]; /* row, half */
    uint32_t ds[STEPS][4];
    row_name names[2];
};

/* FAST: rows begin at multiples of 16 bytes, a warp's columns and a step's ranks are all there. */
template <bool FAST>
__device__ __forceinline__ uint32_t ds_pair(const rank_step &step, const bf16 *row, int rank)
{
    if constexpr (FAST)
        return *reinterpret_cast<const uint32_t *>(row + rank);
    else
        return pair_of(row, 1, rank, step.ranks, true);
}

template <int STEPS, bool FAST>
__device__ __forceinline__ tile_rows<STEPS> load_tile(const dx_params &p, const group &g,
                                                      int64_t row, int64_t last, int64_t column)
{
    const int c = threadIdx.x % 4;
    tile_rows<STEPS> t;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int64_t at = row + 8 * r < last ? row + 8 * r : last;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int64_t j = column + 32 * h;
            if constexpr (FAST)
                t.dx[r][h] = *reinterpret_cast<const uint4 *>(p.dx.row(at) + j);
            else
                t.dx[r][h] = j < p.cols ? load_chunk(p.dx.row(at), j, p.cols, false)
                                        : make_uint4(0, 0, 0, 0);
        }
        t.names[r] = {0, 0};
        if (g.masked != 0) t.names[r] = name_of(p.names, at);
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            if (s >= g.num_steps) break;
            const bf16 *ds = p.ds.row(at) + g.steps[s].column;
            t.ds[s][r] = ds_pair<FAST>(g.steps[s], ds, 2 * c);
            t.ds[s][r + 2] = ds_pair<FAST>(g.steps[s], ds, 2 * c + 8);
        }
    }
    return t;
}

/* sum[r][8 h + n]: row lane / 4 + 8 r, column 8 (lane % 4) + n of half h. acc's element i of tile
 * 4 h + t is column 2 t + i % 2 of row i / 2. */
__device__ __forceinline__ void add_masked(const mask_key &mask, const row_name (&names)[2],
                                           int64_t column, const float (&acc)[8][4],
                                           float (&sum)[2][16])
{
    kept_columns kept[2] = {{{~0u, ~0u, ~0u, ~0u}}, {{~0u, ~0u, ~0u, ~0u}}};
    if (mask.threshold != 0)
#pragma unroll
        for (int r = 0; r < 2; r++)
            kept[r] = columns_kept(mask, names[r], column);
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int n = 0; n < 16; n++)
            if ((kept[r].kept[n / 4] & 0x80u << n % 4 * 8) != 0)
                sum[r][n] += acc[n / 2][2 * r + n % 2];
}

template <bool FAST>
__device__ __forceinline__ void store_row(const dx_params &p, const group &g, int64_t row,
                                          int64_t column, const uint4 (&dx)[2],
                                          const float (&sum)[16])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t j = column + 32 * h;
        bf16 *at = p.dx.row(row) + j;
        values<8> y = unpack(dx[h]);
#pragma unroll
        for (int n = 0; n < 8; n++)
            y.v[n] = __fmaf_rn(g.factor, sum[8 * h + n], y.v[n]);
        if constexpr (FAST) {
            store<8>(at, y);
        } else {
#pragma unroll
            for (int n = 0; n < 8; n++)
                if (j + n < p.cols) at[n] = __float2bfloat16_rn(y.v[n]);
        }
    }
}

/* A row's 64 columns are one or two lines: one lane asks for the first byte, one for the last. */
__device__ __forceinline__ void prefetch_row(const dx_params &p, int64_t row, int64_t end,
                                             int64_t column)
{
    const int c = threadIdx.x % 4;
    const int64_t j = c == 0 ? column : column + WIDTH - 1;
    if (c < 2 && row < end && j < p.cols)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(p.dx.row(row) + j));
}

template <int STEPS, bool FAST>
__global__ void __launch_bounds__(THREADS, FAST &&STEPS == 1 ? 4
                                           : STEPS <= 3      ? 3
                                                             : 2)
    dx_kernel(const __grid_constant__ dx_params p)
{
    const work &item = find_work(p);
    const group &g = p.groups[item.group];
    const int place = static_cast<int>(blockIdx.x) - item.first_block;
    const int lane = threadIdx.x % 32, c = lane % 4;
    const int64_t column = int64_t{place % p.column_blocks} * COLS + threadIdx.x / 32 * WIDTH;
    const int64_t begin = item.row0 + int64_t{place / p.column_blocks} * ROWS;
    const int64_t end = begin + ROWS < item.row1 ? begin + ROWS : item.row1;
    const int64_t j = column + 8 * c;
    fragment b[STEPS][8];
    if (column >= p.cols) return;
    load_a<STEPS>(g, column, p.cols, b);
    for (int64_t tile = begin; tile < end; tile += 16) {
        const int64_t row = tile + lane / 4;
        const tile_rows<STEPS> now = load_tile<STEPS, FAST>(p, g, row, end - 1, j);
        prefetch_row(p, row + 16, end, column);
        prefetch_row(p, row + 24, end, column);
        float acc[8][4] = {}, sum[2][16] = {};
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            if (s >= g.num_steps) break;
#pragma unroll
            for (int t = 0; t < 8; t++)
                kern_ptx::multiply_add(acc[t], now.ds[s], b[s][t].low, b[s][t].high);
            if (g.steps[s].last == 0) continue;
            add_masked(g.steps[s].mask, now.names, j, acc, sum);
#pragma unroll
            for (int t = 0; t < 8; t++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    acc[t][i] = 0.0f;
        }
        if (row < end) store_row<FAST>(p, g, row, j, now.dx[0], sum[0]);
        if (row + 8 < end) store_row<FAST>(p, g, row + 8, j, now.dx[1], sum[1]);
    }
}

/* ==== the host's lists ==== */

template <int STEPS> void launch(const dx_params &p, int64_t blocks, cudaStream_t stream)
{
    bool fast = p.aligned != 0 && p.cols % WIDTH == 0;
    for (int i = 0; i < p.num_groups; i++)
        for (int s = 0; s < p.groups[i].num_steps; s++)
            fast = fast && p.groups[i].steps[s].paired != 0;
    if (fast)
        dx_kernel<STEPS, true><<<static_cast<unsigned>(blocks), THREADS, 0, stream>>>(p);
    else
        dx_kernel<STEPS, false><<<static_cast<unsigned>(blocks), THREADS, 0, stream>>>(p);
}

base_status_t flush(base_stream_t *s, dx_params &p)
{
    const cudaStream_t stream = native(s);
    int64_t blocks = 0;
    int steps = 0;
    for (int i = 0; i < p.num_work; i++) {
        p.works[i].first_block = static_cast<int32_t>(blocks);
        blocks += (p.works[i].row1 - p.works[i].row0 + ROWS - 1) / ROWS * p.column_blocks;
    }
    for (int i = 0; i < p.num_groups; i++)
        steps = p.groups[i].num_steps > steps ? p.groups[i].num_steps : steps;
    if (blocks > 0) {
        if (steps <= 1)
            launch<1>(p, blocks, stream);
        else if (steps <= 2)
            launch<2>(p, blocks, stream);
        else if (steps <= 3)
            launch<3>(p, blocks, stream);
        else if (steps <= 4)
            launch<4>(p, blocks, stream);
        else
            launch<MAX_STEPS>(p, blocks, stream);
    }
    p.num_work = p.num_groups = 0;
    return kern_cuda_check(s, "lora_dx_dropout", cudaGetLastError());
}

/* The adapter's steps [first, first + MAX_STEPS), blocks in order; how many there were. */
int32_t steps_of(const kern_lora_route_t &route, const kern_mat_t &ds, int32_t adapter,
                 int64_t first, group *g)
{
    const bool even = ds.pitch % 2 == 0 &&
                      reinterpret_cast<uintptr_t>(base_mem_address(ds.mem)) % sizeof(uint32_t) == 0;
    const double p = route.adapters[adapter].dropout;
    int64_t at = 0;
    g->num_steps = 0;
    g->masked = kern_dropout_threshold(p) != 0;
    g->factor = static_cast<float>(kern_dropout_factor(p));
    for (int64_t i = 0; i < route.num_blocks; i++) {
        const kern_lora_block_t &block = route.blocks[i];
        if (block.adapter != adapter) continue;
        for (int64_t rank0 = 0; rank0 < block.rank; rank0 += 16, at++) {
            const int64_t left = block.rank - rank0;
            if (at < first || g->num_steps == MAX_STEPS) continue;
            rank_step &step = g->steps[g->num_steps++];
            step = {kern_cuda_pointer<const bf16>(block.a.mem) + rank0 * block.a.pitch,
                    block.a.pitch,
                    static_cast<int32_t>(block.column + rank0),
                    static_cast<int32_t>(left < 16 ? left : 16),
                    left <= 16,
                    even && left >= 16 && (block.column + rank0) % 2 == 0,
                    mask_of(route, block)};
        }
    }
    /* A block that does not fit is masked here and goes on in the next launch. */
    if (g->num_steps > 0) g->steps[g->num_steps - 1].last = 1;
    return g->num_steps;
}

base_status_t add_group(base_stream_t *s, const kern_lora_route_t &route, int32_t adapter,
                        const group &g, dx_params &p)
{
    if (p.num_groups == MAX_GROUPS) BASE_TRY(flush(s, p));
    p.groups[p.num_groups++] = g;
    for (int64_t i = 0; i < route.num_segments; i++) {
        const kern_lora_segment_t &segment = route.segments[i];
        if (segment.adapter != adapter || segment.row0 == segment.row1) continue;
        if (p.num_work == MAX_WORK) {
            BASE_TRY(flush(s, p));
            p.groups[p.num_groups++] = g;
        }
        p.works[p.num_work++] = {p.num_groups - 1, 0, segment.row0, segment.row1};
    }
    return BASE_OK;
}

} // namespace

extern "C" base_status_t kern_cuda_lora_dx_dropout(base_stream_t *s,
                                                   const kern_lora_dx_dropout_t *args)
{
    if (args->dx.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    const kern_lora_route_t &route = args->route;
    dx_params p;
    p.ds = matrix_of<const bf16>(args->ds);
    p.dx = matrix_of<bf16>(args->dx);
    p.names = names_of(route);
    p.cols = args->dx.cols;
    p.aligned = rows_aligned(args->dx);
    p.column_blocks = static_cast<int32_t>((p.cols + COLS - 1) / COLS);
    p.num_work = p.num_groups = 0;
    /* Launch after launch takes the next steps of every adapter: rows meet one group in each. */
    for (int64_t first = 0, more = 1; more; first += MAX_STEPS) {
        more = 0;
        for (int64_t i = 0; i < route.num_blocks; i++) {
            const int32_t adapter = route.blocks[i].adapter;
            bool earlier = false;
            group g;
            for (int64_t before = 0; before < i; before++)
                earlier = earlier || route.blocks[before].adapter == adapter;
            if (earlier || steps_of(route, args->ds, adapter, first, &g) == 0) continue;
            more = 1;
            BASE_TRY(add_group(s, route, adapter, g, p));
        }
        BASE_TRY(flush(s, p));
    }
    return BASE_OK;
}
