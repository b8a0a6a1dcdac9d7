/* Tiles of bf16 rows in shared memory, how they are filled and how a warp reads fragments from
 * them.
 *
 * A row holds D elements, D / 8 chunks of 16 bytes; chunk c of row r lies at place c ^ (r % 8)
 * of the row, so that the eight rows of a matrix that ldmatrix reads fall into different banks.
 * Rows that do not exist are zeros: what lies behind a piece's end in memory is somebody else's
 * and may be NaN, and 0 NaN is NaN. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_TILE_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_TILE_CUH

#include "kernels/cuda/attention/ptx.cuh"
#include "kernels/cuda/attention/task_list.cuh"

#include <cuda_bf16.h>

namespace kern_attention
{

/* D elements a row, filled by THREADS threads. Tiles begin at multiples of 256 bytes. */
template <int D, int THREADS> struct tile {
    static constexpr int ROW_BYTES = 2 * D;
    static constexpr int CHUNKS = D / 8;
    static constexpr int ROWS_PER_PASS = THREADS / CHUNKS;
    static_assert(D == 64 || D == 128, "two head dims");
    static_assert(ROWS_PER_PASS % 8 == 0, "a thread's rows keep their swizzle");

    static constexpr __host__ __device__ int bytes(int rows)
    {
        return rows * ROW_BYTES;
    }

    /* Rows [0, ROWS) of a matrix of pitch D; of them `live` exist. */
    template <int ROWS>
    static __device__ __forceinline__ void load(uint32_t dst, const __nv_bfloat16 *src, int live)
    {
        const int chunk = threadIdx.x % CHUNKS, row0 = threadIdx.x / CHUNKS;
        const uint32_t to = dst + row0 * ROW_BYTES + ((chunk ^ (row0 % 8)) << 4);
        const __nv_bfloat16 *from = src + row0 * D + chunk * 8;
#pragma unroll
        for (int row = 0; row < ROWS; row += ROWS_PER_PASS)
            kern_ptx::copy16(to + row * ROW_BYTES, from + row * D, row0 + row < live);
    }

    /* Packed rows [first, first + ROWS) of a matrix of tokens, `pitch` elements apart (o and
     * d_o); those below `end` exist. */
    template <int ROWS>
    static __device__ __forceinline__ void load_tokens(uint32_t dst, const __nv_bfloat16 *src,
                                                       int pitch, const divider &group, int first,
                                                       int end)
    {
        const int chunk = threadIdx.x % CHUNKS, row0 = threadIdx.x / CHUNKS;
        const uint32_t to = dst + row0 * ROW_BYTES + ((chunk ^ (row0 % 8)) << 4);
#pragma unroll
        for (int row = 0; row < ROWS; row += ROWS_PER_PASS) {
            const int packed = first + row0 + row, token = group.quotient(packed);
            const __nv_bfloat16 *from =
                src + int64_t{token} * pitch + (packed - token * group.divisor) * D + chunk * 8;
            kern_ptx::copy16(to + row * ROW_BYTES, from, packed < end);
        }
    }

    /* Fragments: the address that a lane hands to ldmatrix, of 16 columns `block` of the rows
     * from `row` (a multiple of 16) on. Swizzle and block only touch the bits within a row,
     * hence the exclusive or. */
    static __device__ __forceinline__ uint32_t address(uint32_t base, uint32_t lane_offset, int row,
                                                       int block)
    {
        return ((base + lane_offset) ^ (block << 5)) + row * ROW_BYTES;
    }

    /* Lane offset of `a` of multiply_add (16 rows x 16 columns), or, transposed, of b0, b1 of
     * two products (the 16 rows are the inner dimension, the columns two blocks of 8). */
    static __device__ __forceinline__ uint32_t lane_rows()
    {
        const int lane = threadIdx.x % 32, row = lane % 16, chunk = lane / 16;
        return row * ROW_BYTES + ((chunk ^ (row % 8)) << 4);
    }

    /* Lane offset of b0, b1 of two products whose inner dimension is along the columns: the 16
     * rows are two blocks of 8 of the outer one. */
    static __device__ __forceinline__ uint32_t lane_columns()
    {
        const int lane = threadIdx.x % 32, row = lane % 8 + lane / 16 * 8, chunk = lane / 8 % 2;
        return row * ROW_BYTES + ((chunk ^ (row % 8)) << 4);
    }
};

/* A warp's accumulator: M x 16 rows, N columns in blocks of 8. */
template <int M, int N> using accumulator = float[M][N / 8][4];

template <int M, int N> __device__ __forceinline__ void clear(accumulator<M, N> &acc)
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                acc[m][n][e] = 0.0f;
}

/* 16 M rows of a tile as the left operand. */
template <class TILE, int M> struct shared_fragments {
    uint32_t base, lane;

    __device__ __forceinline__ shared_fragments(uint32_t tile, int row)
        : base(tile + row * TILE::ROW_BYTES), lane(TILE::lane_rows())
    {
    }
    __device__ __forceinline__ void load(int k, uint32_t (&a)[M][4]) const
    {
#pragma unroll
        for (int m = 0; m < M; m++)
            kern_ptx::load_matrices(a[m], TILE::address(base, lane, m * 16, k));
    }
};

/* acc += a b^T over D columns; b: N rows of a tile. */
template <class TILE, int M, int N, int D>
__device__ __forceinline__ void
multiply_rows(accumulator<M, N> &acc, const shared_fragments<TILE, M> &rows_of_a, uint32_t b)
{
    const uint32_t lane = TILE::lane_columns();
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[M][4];
        rows_of_a.load(k, a);
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            uint32_t f[4];
            kern_ptx::load_matrices(f, TILE::address(b, lane, n * 16, k));
#pragma unroll
            for (int m = 0; m < M; m++) {
                kern_ptx::multiply_add(acc[m][2 * n], a[m], f[0], f[1]);
                kern_ptx::multiply_add(acc[m][2 * n + 1], a[m], f[2], f[3]);
            }
        }
    }
}

/* acc += p b; b: K rows of a tile of D columns; p, an accumulator of another product, is rounded
 * to bf16. Two neighbouring blocks of 8 columns of an accumulator are just a fragment of the
 * next product: nothing goes through memory. */
template <class TILE, int M, int K, int D>
__device__ __forceinline__ void multiply_accumulator(accumulator<M, D> &acc,
                                                     const accumulator<M, K> &p, uint32_t b)
{
    const uint32_t lane = TILE::lane_rows();
#pragma unroll
    for (int k = 0; k < K / 16; k++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float(&c)[4] = p[m][2 * k + half];
                a[m][2 * half] = kern_ptx::pack_bf16(c[0], c[1]);
                a[m][2 * half + 1] = kern_ptx::pack_bf16(c[2], c[3]);
            }
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t f[4];
            kern_ptx::load_matrices_transposed(f, TILE::address(b, lane, k * 16, n));
#pragma unroll
            for (int m = 0; m < M; m++) {
                kern_ptx::multiply_add(acc[m][2 * n], a[m], f[0], f[1]);
                kern_ptx::multiply_add(acc[m][2 * n + 1], a[m], f[2], f[3]);
            }
        }
    }
}

} // namespace kern_attention

#endif
