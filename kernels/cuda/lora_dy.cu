/* ds = scale dy B and dB += dy^T s in one pass: dy is read once from memory, and each of its tiles
 * is multiplied twice while it lies in shared memory.
 *
 * A segment's rows are cut into pieces of PIECE_ROWS from its first row on, a module's columns into
 * at most eight chunks of whole tiles. A block has a piece and a chunk: tile of columns by tile, and
 * within it 64 rows at a time. Both sums are made transposed, ranks by rows and ranks by columns: a
 * warp has 8 rows of ds, whose sums wait in shared memory for the next tile of columns, and 16
 * columns of dB. A second kernel adds the chunks of ds and the pieces of dB.
 *
 * The order of a sum of ds: columns ascending within a chunk, then the chunks in order; it depends
 * on the module's outputs alone. Of dB: rows ascending within a piece, then the pieces one after
 * another on top of what dB holds; it depends on the lengths of the adapter's segments alone, also
 * where scratch memory that is full ends a launch between two pieces. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/lora_pieces.cuh"

using namespace kern_lora;

namespace
{

constexpr int THREADS = 256, COLS = 128, ROWS = 64, STAGES = 3;
constexpr int PIECE_ROWS = 512, ROW_STEPS = PIECE_ROWS / ROWS;
constexpr int RANKS = 16; /* of a group: a block of more is several */
constexpr int MOST_CHUNKS = 8, FEWEST_TILES = 4;
constexpr int MAX_RANK = 32; /* blocks of more read dy less often apart */
constexpr int MAX_GROUPS = 24, MAX_WORK = 256;
constexpr int64_t STEP_SUMS = int64_t{ROWS} * RANKS; /* of ds */

/* Up to 16 ranks of a block. */
struct group {
    int64_t first, cols; /* columns [first, first + cols) of dy */
    const bf16 *b;       /* rank j of column i: b[i b_pitch + j] */
    float *db;           /* likewise */
    int64_t b_pitch, db_pitch;
    float scale;
    int32_t column, ranks; /* in s and ds */
    int32_t dy_aligned, b_aligned, s_aligned;
    int32_t chunk_cols, chunks;
    int32_t first_work, num_works; /* its pieces, in the order of rows */
    int32_t first_add;             /* its first block in the second kernel */
};

struct dy_params {
    matrix<const bf16> dy, s;
    matrix<bf16> ds;
    float *partial;
    int32_t num_work, num_groups;
    summed_work
        works[MAX_WORK]; /* sums of ds: chunks ROW_STEPS STEP_SUMS; then of dB: cols RANKS */
    group groups[MAX_GROUPS];
};
static_assert(sizeof(dy_params) <= 32000, "parameters of a launch");

/* Rows 16 bytes longer than they are wide begin in different banks. */
struct stage {
    bf16 dy[ROWS][COLS + 8];
    bf16 s[ROWS][RANKS + 8];
    bf16 b[COLS][RANKS + 8]; /* filled for the first rows of a tile of columns */
};

struct memory {
    stage stages[STAGES];
    float4 ds[ROW_STEPS][THREADS]; /* each thread's own */
};
static_assert(sizeof(stage) % 16 == 0, "rows are copied in 16 bytes");

/* Elements [j, j + 8) of a row of `cols`; not live: zeros, and nothing is read. */
__device__ __forceinline__ void bring(bf16 *to, const bf16 *row, int64_t j, int64_t cols, bool live,
                                      bool aligned)
{
    live = live && j < cols;
    if (aligned)
        kern_ptx::copy16(kern_ptx::shared_address(to), row + j, live);
    else
        *reinterpret_cast<uint4 *>(to) =
            live ? load_chunk(row, j, cols, false) : make_uint4(0, 0, 0, 0);
}

/* dy and s of ROWS rows from row0 on, for the tile of columns at `column`; B of the tile. */
__device__ __forceinline__ void bring_step(const dy_params &p, const group &g, int64_t row0,
                                           int64_t row1, int64_t column, bool with_b, stage &to)
{
    const int t = threadIdx.x;
#pragma unroll
    for (int i = 0; i < ROWS * COLS / CHUNK / THREADS; i++) {
        const int at = i * THREADS + t, r = at / (COLS / CHUNK), c = at % (COLS / CHUNK) * CHUNK;
        bring(&to.dy[r][c], p.dy.row(row0 + r) + g.first, column + c, g.cols, row0 + r < row1,
              g.dy_aligned != 0);
    }
    const int r = t / 2, c = t % 2 * CHUNK;
    if (r < ROWS)
        bring(&to.s[r][c], p.s.row(row0 + r) + g.column, c, g.ranks, row0 + r < row1,
              g.s_aligned != 0);
    if (with_b)
        bring(&to.b[r][c], g.b + (column + r) * g.b_pitch, c, g.ranks, column + r < g.cols,
              g.b_aligned != 0);
}

/* b[k]: B transposed, ranks by columns 16 k ... 16 k + 15 of the tile. */
__device__ __forceinline__ void load_b(const stage &from, uint32_t (&b)[COLS / 16][4])
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < COLS / 16; k++)
        kern_ptx::load_matrices_transposed(
            b[k],
            kern_ptx::shared_address(&from.b[k * 16 + lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8]));
}

/* sum: ranks lane / 4 and 8 on, rows 2 (lane % 4) and the next of the warp's 8. */
__device__ __forceinline__ void multiply_ds(const stage &from, const uint32_t (&b)[COLS / 16][4],
                                            float (&sum)[4])
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int k = 0; k < COLS / 16; k += 2) {
        uint32_t dy[4]; /* 32 columns of 8 rows */
        kern_ptx::load_matrices(
            dy, kern_ptx::shared_address(&from.dy[warp * 8 + lane % 8][k * 16 + lane / 8 * 8]));
        kern_ptx::multiply_add(sum, b[k], dy[0], dy[1]);
        kern_ptx::multiply_add(sum, b[k + 1], dy[2], dy[3]);
    }
}

/* sum[n]: ranks lane / 4 and 8 on, columns 16 warp + 8 n + 2 (lane % 4) and the next. */
__device__ __forceinline__ void multiply_db(const stage &from, float (&sum)[2][4])
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int k = 0; k < ROWS; k += 16) {
        uint32_t dy[4], s[4];
        kern_ptx::load_matrices_transposed(
            dy, kern_ptx::shared_address(&from.dy[k + lane % 16][warp * 16 + lane / 16 * 8]));
        kern_ptx::load_matrices_transposed(
            s, kern_ptx::shared_address(&from.s[k + lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8]));
        kern_ptx::multiply_add(sum[0], s, dy[0], dy[1]);
        kern_ptx::multiply_add(sum[1], s, dy[2], dy[3]);
    }
}

/* A piece's sums of dB: RANKS of one column, then of the next. */
__device__ __forceinline__ void store_db(float *out, int64_t column, int64_t cols,
                                         const float (&sum)[2][4])
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int64_t j = column + warp * 16 + n * 8 + lane % 4 * 2 + i % 2;
            if (j < cols) out[j * RANKS + i / 2 * 8 + lane / 4] = sum[n][i];
        }
}

/* Where a block is: tile of columns after tile, each in steps of rows. */
struct place {
    int row_step;
    int64_t column;

    __device__ __forceinline__ void next(int row_steps)
    {
        if (++row_step < row_steps) return;
        row_step = 0;
        column += COLS;
    }
};

__global__ void __launch_bounds__(THREADS, 2) dy_kernel(const __grid_constant__ dy_params p)
{
    extern __shared__ __align__(16) unsigned char shared[];
    memory &m = *reinterpret_cast<memory *>(shared);
    const summed_work &item = find_work(p);
    const group &g = p.groups[item.group];
    const int chunk = static_cast<int>(blockIdx.x) - item.first_block;
    const int row_steps = static_cast<int>((item.row1 - item.row0 + ROWS - 1) / ROWS);
    const int64_t begin = int64_t{chunk} * g.chunk_cols;
    const int64_t end = begin + g.chunk_cols < g.cols ? begin + g.chunk_cols : g.cols;
    float *const ds_out = p.partial + item.partial + chunk * (ROW_STEPS * STEP_SUMS);
    float *const db_out = p.partial + item.partial + g.chunks * (ROW_STEPS * STEP_SUMS);
    const auto bring_at = [&](const place &at, int slot) {
        if (at.column < end)
            bring_step(p, g, item.row0 + at.row_step * ROWS, item.row1, at.column, at.row_step == 0,
                       m.stages[slot]);
        kern_ptx::copy_commit();
    };
    place ahead = {0, begin};
    for (int i = 0; i < STAGES - 1; i++) {
        bring_at(ahead, i);
        ahead.next(row_steps);
    }
    uint32_t b[COLS / 16][4];
    float db[2][4];
    int slot = 0;
    for (place at = {0, begin}; at.column < end; at.next(row_steps)) {
        kern_ptx::copy_wait<STAGES - 2>();
        __syncthreads(); /* also: all are done with the stage that is filled now */
        bring_at(ahead, slot == 0 ? STAGES - 1 : slot - 1);
        ahead.next(row_steps);
        const stage &now = m.stages[slot];
        if (at.row_step == 0) {
            load_b(now, b);
#pragma unroll
            for (int i = 0; i < 8; i++)
                db[i / 4][i % 4] = 0.0f;
        }
        float4 &kept = m.ds[at.row_step][threadIdx.x];
        float ds[4] = {};
        if (at.column != begin) ds[0] = kept.x, ds[1] = kept.y, ds[2] = kept.z, ds[3] = kept.w;
        multiply_ds(now, b, ds);
        multiply_db(now, db);
        const float4 sums = make_float4(ds[0], ds[1], ds[2], ds[3]);
        if (at.column + COLS < end)
            kept = sums;
        else
            reinterpret_cast<float4 *>(ds_out + at.row_step * STEP_SUMS)[threadIdx.x] = sums;
        if (at.row_step + 1 == row_steps) store_db(db_out, at.column, g.cols, db);
        slot = slot + 1 == STAGES ? 0 : slot + 1;
    }
}

/* Adds the chunks of 64 rows of ds; a thread has what the same thread of dy_kernel had. */
__device__ __forceinline__ void add_ds(const dy_params &p, const summed_work &item, int row_step)
{
    const group &g = p.groups[item.group];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float4 *const parts =
        reinterpret_cast<const float4 *>(p.partial + item.partial + row_step * STEP_SUMS);
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int c = 0; c < MOST_CHUNKS; c++) {
        if (c == g.chunks) break;
        const float4 x = parts[c * (ROW_STEPS * STEP_SUMS / 4) + threadIdx.x];
        sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
    }
    const float all[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t row = item.row0 + row_step * ROWS + warp * 8 + lane % 4 * 2 + i % 2;
        const int rank = i / 2 * 8 + lane / 4;
        if (row < item.row1 && rank < g.ranks)
            p.ds.row(row)[g.column + rank] = __float2bfloat16_rn(g.scale * all[i]);
    }
}

/* Adds the pieces of dB; a thread an element. */
__device__ __forceinline__ void add_db(const dy_params &p, const group &g, int64_t at)
{
    const int64_t column = at / RANKS;
    const int rank = static_cast<int>(at % RANKS);
    if (column >= g.cols || rank >= g.ranks) return;
    float *const to = g.db + column * g.db_pitch + rank;
    const int64_t after_ds = g.chunks * (ROW_STEPS * STEP_SUMS) + at;
    float sum = *to;
#pragma unroll 8
    for (int w = 0; w < g.num_works; w++)
        sum += p.partial[p.works[g.first_work + w].partial + after_ds];
    *to = sum;
}

/* First ROW_STEPS blocks for each piece, then the groups' blocks in order. */
__global__ void __launch_bounds__(THREADS) add_kernel(const __grid_constant__ dy_params p)
{
    const int block = static_cast<int>(blockIdx.x), item = block / ROW_STEPS;
    if (item < p.num_work) {
        add_ds(p, p.works[item], block % ROW_STEPS);
        return;
    }
    int i = p.num_groups - 1;
    while (i > 0 && p.groups[i].first_add > block)
        i--;
    add_db(p, p.groups[i],
           int64_t{block - p.groups[i].first_add} * THREADS + static_cast<int>(threadIdx.x));
}

/* ==== the host's lists ==== */

struct builder {
    base_stream_t *s;
    dy_params p;
    int64_t used; /* floats of scratch */
};

base_status_t flush(builder &b)
{
    dy_params &p = b.p;
    int64_t blocks = 0, adds = int64_t{p.num_work} * ROW_STEPS;
    for (int i = 0; i < p.num_work; i++) {
        p.works[i].first_block = static_cast<int32_t>(blocks);
        blocks += p.groups[p.works[i].group].chunks;
    }
    for (int i = 0; i < p.num_groups; i++) {
        p.groups[i].first_add = static_cast<int32_t>(adds);
        adds += (p.groups[i].cols * RANKS + THREADS - 1) / THREADS;
    }
    if (blocks > 0) {
        constexpr int bytes = sizeof(memory);
        BASE_TRY(kern_cuda_check(
            b.s, "lora_dy",
            cudaFuncSetAttribute(dy_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)));
        dy_kernel<<<static_cast<unsigned>(blocks), THREADS, bytes, native(b.s)>>>(p);
        add_kernel<<<static_cast<unsigned>(adds), THREADS, 0, native(b.s)>>>(p);
    }
    p.num_work = p.num_groups = 0;
    b.used = 0;
    return kern_cuda_check(b.s, "lora_dy", cudaGetLastError());
}

/* The pieces of the group's rows; scratch that is full is emptied in between. */
base_status_t add_group(builder &b, const kern_lora_route_t &route, int32_t adapter, const group &g)
{
    const int64_t floats = g.chunks * (ROW_STEPS * STEP_SUMS) + g.cols * RANKS;
    if (b.p.num_groups == MAX_GROUPS) BASE_TRY(flush(b));
    return add_pieces<PIECE_ROWS>(b, "lora_dy", route, adapter, g, floats);
}

/* Ranks [rank0, rank0 + RANKS) of a block. */
group group_of(const kern_lora_dy_t &args, const kern_lora_block_t &block, int64_t rank0)
{
    const int64_t left = block.rank - rank0, column = block.column + rank0;
    const int64_t tiles = (block.b.rows + COLS - 1) / COLS;
    const int64_t shared_out = (tiles + MOST_CHUNKS - 1) / MOST_CHUNKS;
    const int64_t chunk_tiles = shared_out < FEWEST_TILES ? FEWEST_TILES : shared_out;
    group g = {};
    g.first = block.out_column;
    g.cols = block.b.rows;
    g.b = kern_cuda_pointer<const bf16>(block.b.mem) + rank0;
    g.db = kern_cuda_pointer<float>(block.db.mem) + rank0;
    g.b_pitch = block.b.pitch;
    g.db_pitch = block.db.pitch;
    g.scale = static_cast<float>(scale_of(args.route, block));
    g.column = static_cast<int32_t>(column);
    g.ranks = static_cast<int32_t>(left < RANKS ? left : RANKS);
    g.dy_aligned = g.cols % CHUNK == 0 && rows_aligned(args.dy, g.first);
    g.b_aligned = g.ranks % CHUNK == 0 && rows_aligned(block.b, rank0);
    g.s_aligned = g.ranks % CHUNK == 0 && rows_aligned(args.s, column);
    g.chunk_cols = static_cast<int32_t>(chunk_tiles * COLS);
    g.chunks = static_cast<int32_t>((tiles + chunk_tiles - 1) / chunk_tiles);
    return g;
}

/* The blocks of many ranks, run by run, apart. */
base_status_t run_wide(base_stream_t *s, const kern_lora_dy_t &args, int64_t first, int64_t count)
{
    kern_lora_ds_t to_ds = {args.route, args.dy, args.ds};
    to_ds.route.blocks += first;
    to_ds.route.num_blocks = count;
    const kern_lora_db_t db = {to_ds.route, args.dy, args.s};
    BASE_TRY(ds_sums(s, &to_ds));
    return kern_cuda_lora_db(s, &db);
}

} // namespace

extern "C" base_status_t kern_cuda_lora_dy(base_stream_t *s, const kern_lora_dy_t *args)
{
    if (args->dy.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    const kern_lora_route_t &route = args->route;
    builder b;
    void *scratch = nullptr;
    BASE_TRY(kern_cuda_scratch(s, &scratch));
    b.s = s;
    b.used = 0;
    b.p.dy = matrix_of<const bf16>(args->dy);
    b.p.s = matrix_of<const bf16>(args->s);
    b.p.ds = matrix_of<bf16>(args->ds);
    b.p.partial = static_cast<float *>(scratch);
    b.p.num_work = b.p.num_groups = 0;
    BASE_TRY(clear_columns(s, "lora_dy", args->ds));
    for (int64_t i = 0; i < route.num_blocks; i++) {
        const kern_lora_block_t &block = route.blocks[i];
        if (block.rank > MAX_RANK || block.b.rows == 0) continue;
        for (int64_t rank0 = 0; rank0 < block.rank; rank0 += RANKS)
            BASE_TRY(add_group(b, route, block.adapter, group_of(*args, block, rank0)));
    }
    BASE_TRY(flush(b));
    for (int64_t i = 0, count; i < route.num_blocks; i += count) {
        const bool wide = route.blocks[i].rank > MAX_RANK;
        for (count = 1; i + count < route.num_blocks; count++)
            if ((route.blocks[i + count].rank > MAX_RANK) != wide) break;
        if (wide) BASE_TRY(run_wide(s, *args, i, count));
    }
    return BASE_OK;
}
