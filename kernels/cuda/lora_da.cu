/* dA += ds^T dropout(x) and dB += dy^T s: sums over rows, limited by reading x or dy once.
 *
 * A segment's rows are cut into pieces of PIECE_ROWS from its first row on; a block sums one piece
 * for COLS columns and up to MT tiles of 16 ranks, rows ascending, into scratch memory. A second
 * kernel adds the pieces in the order of the rows, one after another on top of what dA or dB holds.
 * So the order of a sum depends on the lengths of the adapter's segments alone, also where scratch
 * memory that is full ends a launch between two pieces.
 *
 * Both operands are transposed on the way from shared memory (ldmatrix), since the rows that are
 * summed over lie apart in both. Dropout masks x on the way into shared memory, when its loads have
 * come, a copy for each module: a thread then has 8 columns of a row and the 8 that one block of Philox
 * serves with them. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/lora_pieces.cuh"

using namespace kern_lora;

namespace
{

constexpr int THREADS = 256, COLS = 128, PIECE_ROWS = 1024;
constexpr int MAX_MT = 4, MAX_GROUPS = 24, MAX_WORK = 128;
constexpr int WIDE_PITCH = COLS + 8; /* 16 bytes more: rows begin in different banks */

/* Up to 16 ranks of a block. */
struct rank_tile {
    int32_t column, ranks; /* in s or ds */
    float *out;            /* rank j of column i: out[j rank_stride + i column_stride] */
    int64_t rank_stride, column_stride;
    int32_t copy,
        fresh; /* which of the masked copies of x it is multiplied with; the first that is */
    mask_key mask;
};

struct group {
    int64_t first, cols; /* columns [first, first + cols) of x or dy */
    float factor;
    int32_t num_tiles, aligned, dropout;
    int32_t first_work, num_works; /* its pieces, in the order of rows */
    rank_tile tiles[MAX_MT];
};

struct sum_params {
    matrix<const bf16> wide, narrow;
    row_names names;
    float *partial;
    int32_t num_work, num_groups, narrow_aligned;
    summed_work works[MAX_WORK]; /* sums: num_tiles 16 x cols */
    group groups[MAX_GROUPS];
};
static_assert(sizeof(sum_params) <= 32000, "parameters of a launch");

/* Rows of a stage: many while two stages leave room for several blocks. With dropout each module has
 * its own copy of x in it. */
template <bool DROPOUT, int MT> constexpr int ROWS_OF = MT == 1 || (MT == 2 && !DROPOUT) ? 64 : 32;

template <bool DROPOUT, int MT> struct stage {
    bf16 wide[DROPOUT ? MT : 1][ROWS_OF<DROPOUT, MT>][WIDE_PITCH];
    bf16 narrow[ROWS_OF<DROPOUT, MT>][MT * 16 + 8];
};

/* What a thread brings of the next stage: chunks of x or dy, and at most one of s or ds. */
template <bool DROPOUT, int MT> struct loaded {
    static constexpr int CHUNKS = ROWS_OF<DROPOUT, MT> * COLS / CHUNK / THREADS;
    uint4 wide[CHUNKS];
    uint4 narrow;
    row_name names[DROPOUT ? CHUNKS / 2 : 1];
};

struct chunk_place {
    int row, column;
};

/* Of a thread's chunk i. With dropout chunks 2 i and 2 i + 1 are of one row, 32 columns apart; 8
 * neighbouring threads write to different banks either way. */
template <bool DROPOUT> __device__ __forceinline__ chunk_place place_of(int i)
{
    const int t = threadIdx.x;
    if constexpr (DROPOUT)
        return {t / 16 % 4 + t / 4 % 2 * 4 + t / 64 * 8 + i / 2 * 32,
                t / 8 % 2 * 64 + t % 4 * CHUNK + i % 2 * 32};
    const int at = i * THREADS + t;
    return {at / (COLS / CHUNK), at % (COLS / CHUNK) * CHUNK};
}

template <bool DROPOUT, int MT>
__device__ __forceinline__ void fetch(const sum_params &p, const group &g, int64_t row0,
                                      int64_t row1, int64_t column, loaded<DROPOUT, MT> &next)
{
    constexpr int ROWS = ROWS_OF<DROPOUT, MT>;
    static_assert(ROWS * MT * 2 <= THREADS, "a chunk a thread");
#pragma unroll
    for (int i = 0; i < next.CHUNKS; i++) {
        const chunk_place at = place_of<DROPOUT>(i);
        const int64_t row = row0 + at.row, j = column + at.column;
        next.wide[i] = make_uint4(0, 0, 0, 0);
        if (row < row1 && j < g.cols)
            next.wide[i] = load_chunk(p.wide.row(row) + g.first, j, g.cols, g.aligned != 0);
        if constexpr (DROPOUT)
            if (i % 2 == 0) next.names[i / 2] = name_of(p.names, row < row1 ? row : row1 - 1);
    }
    const int at = threadIdx.x, tile = at % (MT * 2) / 2;
    const int64_t row = row0 + at / (MT * 2);
    next.narrow = make_uint4(0, 0, 0, 0);
    if (at < ROWS * MT * 2 && row < row1 && tile < g.num_tiles)
        next.narrow = load_chunk(p.narrow.row(row) + g.tiles[tile].column, at % 2 * CHUNK,
                                 g.tiles[tile].ranks,
                                 p.narrow_aligned != 0 && g.tiles[tile].column % CHUNK == 0);
}

template <bool DROPOUT, int MT>
__device__ __forceinline__ void put(stage<DROPOUT, MT> &to, const group &g, int64_t column,
                                    const loaded<DROPOUT, MT> &next)
{
#pragma unroll
    for (int i = 0; i < next.CHUNKS; i += 2) {
        const chunk_place at = place_of<DROPOUT>(i), beside = place_of<DROPOUT>(i + 1);
#pragma unroll
        for (int m = 0; m < (DROPOUT ? MT : 1); m++) {
            uint4 x = next.wide[i], y = next.wide[i + 1];
            if constexpr (DROPOUT) {
                if (m >= g.num_tiles || g.tiles[m].fresh == 0) continue;
                const kept_columns kept =
                    columns_kept(g.tiles[m].mask, next.names[i / 2], column + at.column);
                x = keep(x, kept, 0);
                y = keep(y, kept, 1);
            }
            auto &rows = to.wide[DROPOUT ? g.tiles[m].copy : 0];
            *reinterpret_cast<uint4 *>(&rows[at.row][at.column]) = x;
            *reinterpret_cast<uint4 *>(&rows[beside.row][beside.column]) = y;
        }
    }
    const int at = threadIdx.x;
    if (at < ROWS_OF<DROPOUT, MT> * MT * 2)
        *reinterpret_cast<uint4 *>(&to.narrow[at / (MT * 2)][at % (MT * 2) * CHUNK]) = next.narrow;
}

/* acc[m][n]: ranks 16 m ..., columns 16 warp + 8 n ... */
template <bool DROPOUT, int MT>
__device__ __forceinline__ void multiply_stage(const stage<DROPOUT, MT> &from, const group &g,
                                               float (&acc)[MT][2][4])
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int k = 0; k < ROWS_OF<DROPOUT, MT>; k += 16) {
        /* matrices: rows k and k + 8 of the left 8 columns, then of the right ones */
        uint32_t b[4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
            if (m == 0 || DROPOUT) {
                if (m >= g.num_tiles) break;
                const auto &rows = from.wide[DROPOUT ? g.tiles[m].copy : 0];
                kern_ptx::load_matrices_transposed(
                    b, kern_ptx::shared_address(&rows[k + lane % 16][warp * 16 + lane / 16 * 8]));
            }
            /* a[0] ranks 0-7 of rows 0-7, a[1] ranks 8-15, a[2], a[3] the same of rows 8-15 */
            uint32_t a[4];
            kern_ptx::load_matrices_transposed(
                a, kern_ptx::shared_address(
                       &from.narrow[k + lane % 8 + lane / 16 * 8][m * 16 + lane / 8 % 2 * 8]));
            kern_ptx::multiply_add(acc[m][0], a, b[0], b[1]);
            kern_ptx::multiply_add(acc[m][1], a, b[2], b[3]);
        }
    }
}

template <bool DROPOUT, int MT>
__global__ void __launch_bounds__(THREADS, MT == 1               ? (DROPOUT ? 3 : 4)
                                           : MT == 2 && !DROPOUT ? 2
                                           : MT == 4 && DROPOUT  ? 2
                                                                 : 3)
    sum_kernel(const __grid_constant__ sum_params p)
{
    constexpr int ROWS = ROWS_OF<DROPOUT, MT>;
    extern __shared__ uint4 memory[];
    auto *const stages = reinterpret_cast<stage<DROPOUT, MT> *>(memory);
    int low = 0, high = p.num_work;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (p.works[middle].first_block <= static_cast<int>(blockIdx.x))
            low = middle;
        else
            high = middle;
    }
    const summed_work &item = p.works[low];
    const group &g = p.groups[item.group];
    const int64_t column = int64_t{static_cast<int>(blockIdx.x) - item.first_block} * COLS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float acc[MT][2][4] = {};
    loaded<DROPOUT, MT> next;
    int turn = 0;
    fetch<DROPOUT, MT>(p, g, item.row0, item.row1, column, next);
    for (int64_t row = item.row0; row < item.row1; row += ROWS, turn ^= 1) {
        put<DROPOUT, MT>(stages[turn], g, column, next);
        __syncthreads(); /* a stage is written again only after the barrier of the next one */
        if (row + ROWS < item.row1) fetch<DROPOUT, MT>(p, g, row + ROWS, item.row1, column, next);
        multiply_stage<DROPOUT, MT>(stages[turn], g, acc);
    }
    float *const out = p.partial + item.partial;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int64_t j = column + warp * 16 + n * 8 + lane % 4 * 2 + i % 2;
                const int rank = m * 16 + i / 2 * 8 + lane / 4;
                if (m < g.num_tiles && j < g.cols) out[rank * g.cols + j] = acc[m][n][i];
            }
}

/* A thread an element of a group's sums; blockIdx.y the group. */
__global__ void __launch_bounds__(THREADS) add_kernel(const __grid_constant__ sum_params p)
{
    const group &g = p.groups[blockIdx.y];
    const int64_t at = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    const int64_t all = g.num_tiles * 16 * g.cols;
    if (at >= all || g.num_works == 0) return;
    const int rank = static_cast<int>(at / g.cols);
    const int64_t column = at - rank * g.cols;
    const rank_tile &tile = g.tiles[rank / 16];
    if (rank % 16 >= tile.ranks) return;
    float *const to = tile.out + rank % 16 * tile.rank_stride + column * tile.column_stride;
    float sum = *to;
#pragma unroll 8
    for (int w = 0; w < g.num_works; w++)
        sum = __fmaf_rn(g.factor, p.partial[p.works[g.first_work + w].partial + at], sum);
    *to = sum;
}

/* ==== the host's lists ==== */

struct builder {
    base_stream_t *s;
    const char *op;
    sum_params p;
    int64_t used; /* floats of scratch */
};

template <bool DROPOUT, int MT> base_status_t launch_sum(const builder &b, int64_t blocks)
{
    constexpr int bytes = 2 * sizeof(stage<DROPOUT, MT>);
    static_assert(bytes % 16 == 0, "stages begin at multiples of 16 bytes");
    if constexpr (bytes > 48 * 1024) /* what every kernel may have */
        BASE_TRY(kern_cuda_check(b.s, b.op,
                                 cudaFuncSetAttribute(sum_kernel<DROPOUT, MT>,
                                                      cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                      bytes)));
    sum_kernel<DROPOUT, MT><<<static_cast<unsigned>(blocks), THREADS, bytes, native(b.s)>>>(b.p);
    return BASE_OK;
}

base_status_t launch_sums(const builder &b, bool dropout, int tiles, int64_t blocks)
{
    if (!dropout)
        return tiles <= 1   ? launch_sum<false, 1>(b, blocks)
               : tiles <= 2 ? launch_sum<false, 2>(b, blocks)
                            : launch_sum<false, MAX_MT>(b, blocks);
    return tiles <= 1   ? launch_sum<true, 1>(b, blocks)
           : tiles <= 2 ? launch_sum<true, 2>(b, blocks)
           : tiles <= 3 ? launch_sum<true, 3>(b, blocks)
                        : launch_sum<true, MAX_MT>(b, blocks);
}

base_status_t flush(builder &b)
{
    sum_params &p = b.p;
    const cudaStream_t stream = native(b.s);
    const bool dropout = p.num_groups > 0 && p.groups[0].dropout != 0;
    int64_t blocks = 0, most = 0;
    int tiles = 0;
    for (int i = 0; i < p.num_work; i++) {
        const group &g = p.groups[p.works[i].group];
        p.works[i].first_block = static_cast<int32_t>(blocks);
        blocks += (g.cols + COLS - 1) / COLS;
        if (g.num_tiles > tiles) tiles = g.num_tiles;
        if (g.num_tiles * 16 * g.cols > most) most = g.num_tiles * 16 * g.cols;
    }
    if (blocks > 0) {
        const dim3 grid(blocks_of(most, THREADS), static_cast<unsigned>(p.num_groups));
        BASE_TRY(launch_sums(b, dropout, tiles, blocks));
        add_kernel<<<grid, THREADS, 0, stream>>>(p);
    }
    p.num_work = p.num_groups = 0;
    b.used = 0;
    return kern_cuda_check(b.s, b.op, cudaGetLastError());
}

/* The pieces of the group's rows; scratch that is full is emptied in between. */
base_status_t add_group(builder &b, const kern_lora_route_t &route, int32_t adapter, const group &g)
{
    const sum_params &p = b.p;
    const int64_t floats = g.num_tiles * 16 * g.cols;
    if (p.num_groups > 0 && (p.num_groups == MAX_GROUPS || p.groups[0].dropout != g.dropout))
        BASE_TRY(flush(b));
    return add_pieces<PIECE_ROWS>(b, b.op, route, adapter, g, floats);
}

/* dA: out (r, K); dB: out (outputs, r), whose columns are ranks. */
void add_tiles(const kern_lora_block_t &block, const kern_mat_t &out, bool is_a,
               const mask_key &mask, int64_t *rank0, group *g)
{
    const int32_t last = g->num_tiles - 1, copy = last < 0 ? 0 : g->tiles[last].copy + 1;
    int32_t fresh = 1;
    const int64_t rank_stride = is_a ? out.pitch : 1, column_stride = is_a ? 1 : out.pitch;
    float *at = kern_cuda_pointer<float>(out.mem);
    for (; *rank0 < block.rank && g->num_tiles < MAX_MT; *rank0 += 16) {
        const int64_t left = block.rank - *rank0;
        g->tiles[g->num_tiles++] = {static_cast<int32_t>(block.column + *rank0),
                                    static_cast<int32_t>(left < 16 ? left : 16),
                                    at + *rank0 * rank_stride,
                                    rank_stride,
                                    column_stride,
                                    copy,
                                    fresh,
                                    mask};
        fresh = 0;
    }
}

base_status_t run(base_stream_t *s, const char *op, const kern_lora_route_t &route,
                  const kern_mat_t &wide, const kern_mat_t &narrow, bool is_a)
{
    builder b;
    void *scratch = nullptr;
    BASE_TRY(kern_cuda_scratch(s, &scratch));
    b.s = s;
    b.op = op;
    b.used = 0;
    b.p.wide = matrix_of<const bf16>(wide);
    b.p.narrow = matrix_of<const bf16>(narrow);
    b.p.names = names_of(route);
    b.p.narrow_aligned = rows_aligned(narrow);
    b.p.partial = static_cast<float *>(scratch);
    b.p.num_work = b.p.num_groups = 0;
    /* Blocks of one adapter that read the same columns share a group. */
    const auto alike = [&](int64_t i, int32_t adapter) {
        return is_a && route.blocks[i].adapter == adapter;
    };
    for (int64_t i = 0; i < route.num_blocks; i++) {
        const kern_lora_block_t &block = route.blocks[i];
        bool earlier = false; /* its group was begun by an earlier block */
        for (int64_t before = 0; before < i; before++)
            earlier = earlier || alike(before, block.adapter);
        if (earlier) continue;
        int64_t member = i, rank0 = 0;
        while (member < route.num_blocks) {
            const kern_lora_block_t &first = route.blocks[member];
            group g = {};
            g.first = is_a ? 0 : first.out_column;
            g.cols = is_a ? wide.cols : first.db.rows;
            g.dropout = is_a && mask_of(route, first).threshold != 0;
            g.factor = is_a ? mask_of(route, first).factor : 1.0f;
            g.aligned = rows_aligned(wide, g.first);
            /* as many blocks as fit, then the next group begins where this one ended */
            for (;;) {
                const kern_lora_block_t &m = route.blocks[member];
                add_tiles(m, is_a ? m.da : m.db, is_a, mask_of(route, m), &rank0, &g);
                if (rank0 < m.rank) break;
                rank0 = 0;
                do
                    member++;
                while (member < route.num_blocks && !alike(member, block.adapter));
                if (member == route.num_blocks || g.num_tiles == MAX_MT) break;
            }
            BASE_TRY(add_group(b, route, block.adapter, g));
        }
    }
    return flush(b);
}

} // namespace

extern "C" base_status_t kern_cuda_lora_da(base_stream_t *s, const kern_lora_da_t *args)
{
    if (args->x.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    return run(s, "lora_da", args->route, args->x, args->ds, true);
}

extern "C" base_status_t kern_cuda_lora_db(base_stream_t *s, const kern_lora_db_t *args)
{
    if (args->dy.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    return run(s, "lora_db", args->route, args->dy, args->s, false);
}
