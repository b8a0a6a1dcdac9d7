/* Sums over rows into a vector, rows in a fixed order: rows are cut into blocks whose number
 * depends on the shape alone, a block's rows are added in 8 interleaved runs, ascending, then the
 * runs and the blocks in order. Two kernels; partial sums lie in the stream's scratch memory. */
#ifndef CADRE_KERNELS_CUDA_COLUMN_SUM_CUH
#define CADRE_KERNELS_CUDA_COLUMN_SUM_CUH

#include "kernels/cuda/real_vector.cuh"
#include "kernels/cuda/stream_state.h"

namespace kern_real
{

constexpr int SUM_CHUNKS = 32, SUM_RUNS = 8, SUM_ROWS = 64; /* at least so many rows a block */

struct sum_shape {
    int64_t rows, cols, rows_per_block, blocks;
};

inline sum_shape sum_shape_of(int64_t rows, int64_t cols)
{
    const int64_t room = KERN_CUDA_SCRATCH_BYTES / 4 / (cols > 0 ? cols : 1);
    const int64_t most = room < 64 ? (room > 1 ? room : 1) : 64;
    int64_t per_block = (rows + most - 1) / most;
    if (per_block < SUM_ROWS) per_block = SUM_ROWS;
    return {rows, cols, per_block, (rows + per_block - 1) / per_block};
}

/* value(row, col) gives values<N>. */
template <int N, class Value>
__global__ void __launch_bounds__(SUM_CHUNKS *SUM_RUNS)
    sum_rows_kernel(sum_shape shape, Value value, float *partial)
{
    __shared__ float runs[SUM_RUNS][SUM_CHUNKS * N];
    const int lane = threadIdx.x % SUM_CHUNKS, run = threadIdx.x / SUM_CHUNKS;
    const int64_t col = (int64_t{blockIdx.x} * SUM_CHUNKS + lane) * N;
    const int64_t begin = blockIdx.y * shape.rows_per_block;
    const int64_t end =
        begin + shape.rows_per_block < shape.rows ? begin + shape.rows_per_block : shape.rows;
    values<N> sum = {};
    if (col < shape.cols)
#pragma unroll 4
        for (int64_t t = begin + run; t < end; t += SUM_RUNS) {
            const values<N> x = value(t, col);
#pragma unroll
            for (int i = 0; i < N; i++)
                sum.v[i] += x.v[i];
        }
#pragma unroll
    for (int i = 0; i < N; i++)
        runs[run][lane * N + i] = sum.v[i];
    __syncthreads();
    for (int i = threadIdx.x; i < SUM_CHUNKS * N; i += SUM_CHUNKS * SUM_RUNS) {
        const int64_t j = int64_t{blockIdx.x} * SUM_CHUNKS * N + i;
        float x = runs[0][i];
        for (int r = 1; r < SUM_RUNS; r++)
            x += runs[r][i];
        if (j < shape.cols) partial[blockIdx.y * shape.cols + j] = x;
    }
}

static __global__ void __launch_bounds__(256)
    add_partial_kernel(sum_shape shape, const float *partial, float *sum)
{
    const int64_t j = int64_t{blockIdx.x} * 256 + threadIdx.x;
    if (j >= shape.cols) return;
    float x = sum[j];
#pragma unroll 8
    for (int64_t block = 0; block < shape.blocks; block++)
        x += partial[block * shape.cols + j];
    sum[j] = x;
}

/* sum[j] += value(0, j) + value(1, j) + ... */
template <int N, class Value>
inline base_status_t add_rows(base_stream_t *s, const char *op, int64_t rows, int64_t cols,
                              Value value, float *sum)
{
    const sum_shape shape = sum_shape_of(rows, cols);
    void *scratch = nullptr;
    if (rows == 0 || cols == 0) return BASE_OK;
    BASE_TRY(kern_cuda_scratch(s, &scratch));
    float *partial = static_cast<float *>(scratch);
    const dim3 grid(blocks_of(cols, SUM_CHUNKS * N), static_cast<unsigned>(shape.blocks));
    sum_rows_kernel<N><<<grid, SUM_CHUNKS * SUM_RUNS, 0, native(s)>>>(shape, value, partial);
    add_partial_kernel<<<blocks_of(cols, 256), 256, 0, native(s)>>>(shape, partial, sum);
    return kern_cuda_check(s, op, cudaGetLastError());
}

} // namespace kern_real

#endif
