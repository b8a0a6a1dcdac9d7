/* A block a row. The row's chunks stay in registers between the sum and the result, up to
 * 8 chunks of 8 elements a thread (16384 columns); wider rows, and rows that are not in chunks, are
 * read twice. The order of a row's sum depends on its width alone: a thread's elements ascending,
 * then a tree over lanes, then the warps in order. */
#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/cuda_ops.h"

using namespace kern_real;

namespace
{

constexpr int THREADS = 256;

/* With ADD x is a + b, rounded, and is stored in `sum`, which is the same place as x. */
struct forward_params {
    matrix<const bf16> a, b, x;
    matrix<bf16> sum;
    const bf16 *w;
    matrix<bf16> y;
    float *rstd;
    int64_t cols;
    float eps;
};

template <int N> __device__ __forceinline__ float square_sum(const values<N> &x, float sum)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        sum = __fmaf_rn(x.v[i], x.v[i], sum);
    return sum;
}

template <int N>
__device__ __forceinline__ void scale_chunk(const forward_params &p, const values<N> &x, float rstd,
                                            int64_t row, int64_t j)
{
    const values<N> w = load<N>(p.w + j);
    values<N> y;
#pragma unroll
    for (int i = 0; i < N; i++)
        y.v[i] = x.v[i] * rstd * w.v[i];
    store<N>(p.y.row(row) + j, y);
}

template <int N> __device__ __forceinline__ values<N> rounded_sum(values<N> a, const values<N> &b)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        a.v[i] = __bfloat162float(__float2bfloat16_rn(a.v[i] + b.v[i]));
    return a;
}

/* The row's chunks of a thread; beyond its end: 0. */
template <int CHUNKS, bool ADD>
__device__ __forceinline__ void take_row(const forward_params &p, uint4 (&kept)[CHUNKS])
{
    const bf16 *from = ADD ? p.a.row(blockIdx.x) : p.x.row(blockIdx.x);
    uint4 other[CHUNKS] = {};
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int64_t j = (int64_t{c} * THREADS + threadIdx.x) * CHUNK;
        kept[c] = j < p.cols ? load_raw(from + j) : make_uint4(0, 0, 0, 0);
        if (ADD && j < p.cols) other[c] = load_raw(p.b.row(blockIdx.x) + j);
    }
    if constexpr (ADD) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int64_t j = (int64_t{c} * THREADS + threadIdx.x) * CHUNK;
            const values<CHUNK> x = rounded_sum(unpack(kept[c]), unpack(other[c]));
            kept[c] = make_uint4(pack(x.v[0], x.v[1]), pack(x.v[2], x.v[3]), pack(x.v[4], x.v[5]),
                                 pack(x.v[6], x.v[7]));
            if (j < p.cols) store_raw(p.sum.row(blockIdx.x) + j, kept[c]);
        }
    }
}

template <int CHUNKS, bool ADD>
__global__ void __launch_bounds__(THREADS) forward_chunks(forward_params p)
{
    uint4 kept[CHUNKS];
    float sum = 0.0f;
    take_row<CHUNKS, ADD>(p, kept);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
        sum = square_sum(unpack(kept[c]), sum);
    const float mean = block_sum<THREADS>(sum) / static_cast<float>(p.cols);
    const float rstd = 1.0f / sqrtf(mean + p.eps);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int64_t j = (int64_t{c} * THREADS + threadIdx.x) * CHUNK;
        if (j < p.cols) scale_chunk(p, unpack(kept[c]), rstd, blockIdx.x, j);
    }
    if (threadIdx.x == 0) p.rstd[blockIdx.x] = rstd;
}

/* With ADD a thread's own part of the sum is what it reads the second time. */
template <int N, bool ADD>
__global__ void __launch_bounds__(THREADS) forward_twice(forward_params p)
{
    const bf16 *x = p.x.row(blockIdx.x);
    float sum = 0.0f;
    for (int64_t j = threadIdx.x * N; j < p.cols; j += THREADS * N) {
        values<N> part;
        if constexpr (ADD) {
            part = rounded_sum(load<N>(p.a.row(blockIdx.x) + j), load<N>(p.b.row(blockIdx.x) + j));
            store<N>(p.sum.row(blockIdx.x) + j, part);
        } else {
            part = load<N>(x + j);
        }
        sum = square_sum(part, sum);
    }
    const float mean = block_sum<THREADS>(sum) / static_cast<float>(p.cols);
    const float rstd = 1.0f / sqrtf(mean + p.eps);
    for (int64_t j = threadIdx.x * N; j < p.cols; j += THREADS * N)
        scale_chunk(p, load<N>(x + j), rstd, blockIdx.x, j);
    if (threadIdx.x == 0) p.rstd[blockIdx.x] = rstd;
}

struct backward_params {
    matrix<const bf16> dy, x, dres;
    const bf16 *w;
    const float *rstd;
    matrix<bf16> dx;
    int64_t cols;
};

template <int N>
__device__ __forceinline__ float mean_part(const values<N> &w, const values<N> &dy,
                                           const values<N> &x, float sum)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        sum = __fmaf_rn(w.v[i] * dy.v[i], x.v[i], sum);
    return sum;
}

/* back = rstd^2 mean(w dy x) */
template <int N>
__device__ __forceinline__ void gradient_chunk(const backward_params &p, const values<N> &dy,
                                               const values<N> &x, float rstd, float back,
                                               int64_t row, int64_t j)
{
    const values<N> w = load<N>(p.w + j);
    values<N> dx;
#pragma unroll
    for (int i = 0; i < N; i++)
        dx.v[i] = rstd * (w.v[i] * dy.v[i] - x.v[i] * back);
    if (p.dres.at != nullptr) {
        const values<N> dres = load<N>(p.dres.row(row) + j);
#pragma unroll
        for (int i = 0; i < N; i++)
            dx.v[i] += dres.v[i];
    }
    store<N>(p.dx.row(row) + j, dx);
}

template <int CHUNKS> __global__ void __launch_bounds__(THREADS) backward_chunks(backward_params p)
{
    const bf16 *x = p.x.row(blockIdx.x), *dy = p.dy.row(blockIdx.x);
    const uint4 zero = make_uint4(0, 0, 0, 0);
    uint4 kept_x[CHUNKS], kept_dy[CHUNKS];
    float sum = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int64_t j = (int64_t{c} * THREADS + threadIdx.x) * CHUNK;
        kept_x[c] = j < p.cols ? *reinterpret_cast<const uint4 *>(x + j) : zero;
        kept_dy[c] = j < p.cols ? *reinterpret_cast<const uint4 *>(dy + j) : zero;
    }
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int64_t j = (int64_t{c} * THREADS + threadIdx.x) * CHUNK;
        if (j < p.cols)
            sum = mean_part(load<CHUNK>(p.w + j), unpack(kept_dy[c]), unpack(kept_x[c]), sum);
    }
    const float rstd = p.rstd[blockIdx.x];
    const float back = rstd * rstd * (block_sum<THREADS>(sum) / static_cast<float>(p.cols));
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int64_t j = (int64_t{c} * THREADS + threadIdx.x) * CHUNK;
        if (j < p.cols)
            gradient_chunk(p, unpack(kept_dy[c]), unpack(kept_x[c]), rstd, back, blockIdx.x, j);
    }
}

template <int N> __global__ void __launch_bounds__(THREADS) backward_twice(backward_params p)
{
    const bf16 *x = p.x.row(blockIdx.x), *dy = p.dy.row(blockIdx.x);
    float sum = 0.0f;
    for (int64_t j = threadIdx.x * N; j < p.cols; j += THREADS * N)
        sum = mean_part(load<N>(p.w + j), load<N>(dy + j), load<N>(x + j), sum);
    const float rstd = p.rstd[blockIdx.x];
    const float back = rstd * rstd * (block_sum<THREADS>(sum) / static_cast<float>(p.cols));
    for (int64_t j = threadIdx.x * N; j < p.cols; j += THREADS * N)
        gradient_chunk(p, load<N>(dy + j), load<N>(x + j), rstd, back, blockIdx.x, j);
}

template <int N> struct weight_gradient {
    matrix<const bf16> dy, x;
    const float *rstd;

    __device__ values<N> operator()(int64_t t, int64_t j) const
    {
        const values<N> a = load<N>(dy.row(t) + j), b = load<N>(x.row(t) + j);
        const float r = rstd[t];
        values<N> out;
#pragma unroll
        for (int i = 0; i < N; i++)
            out.v[i] = a.v[i] * b.v[i] * r;
        return out;
    }
};

/* launch(number of chunks a thread keeps), 0 when a row has too many. */
template <class Launch> void by_chunks(int64_t cols, Launch launch)
{
    const int64_t chunks = (cols / CHUNK + THREADS - 1) / THREADS;
    if (chunks <= 1)
        launch(std::integral_constant<int, 1>());
    else if (chunks <= 2)
        launch(std::integral_constant<int, 2>());
    else if (chunks <= 4)
        launch(std::integral_constant<int, 4>());
    else if (chunks <= 8)
        launch(std::integral_constant<int, 8>());
    else
        launch(std::integral_constant<int, 0>());
}

template <bool ADD>
base_status_t run_forward(base_stream_t *s, const char *op, const forward_params &p, int64_t count,
                          bool chunked)
{
    const unsigned rows = static_cast<unsigned>(count);
    const cudaStream_t stream = native(s);
    if (rows == 0 || p.cols == 0) return BASE_OK;
    if (!chunked)
        forward_twice<1, ADD><<<rows, THREADS, 0, stream>>>(p);
    else
        by_chunks(p.cols, [&](auto chunks) {
            if constexpr (decltype(chunks)::value == 0)
                forward_twice<CHUNK, ADD><<<rows, THREADS, 0, stream>>>(p);
            else
                forward_chunks<decltype(chunks)::value, ADD><<<rows, THREADS, 0, stream>>>(p);
        });
    return kern_cuda_check(s, op, cudaGetLastError());
}

} // namespace

extern "C" base_status_t kern_cuda_rmsnorm_fwd(base_stream_t *s, const kern_rmsnorm_fwd_t *args)
{
    if (args->x.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    const forward_params p = {{nullptr, 0},
                              {nullptr, 0},
                              matrix_of<const bf16>(args->x),
                              {nullptr, 0},
                              kern_cuda_pointer<const bf16>(args->w.mem),
                              matrix_of<bf16>(args->y),
                              kern_cuda_pointer<float>(args->rstd.mem),
                              args->x.cols,
                              static_cast<float>(args->eps)};
    return run_forward<false>(s, "rmsnorm_fwd", p, args->x.rows,
                              in_chunks(args->x, args->w, args->y));
}

extern "C" base_status_t kern_cuda_add_rmsnorm_fwd(base_stream_t *s,
                                                   const kern_add_rmsnorm_fwd_t *args)
{
    if (args->x.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    const forward_params p = {matrix_of<const bf16>(args->a),
                              matrix_of<const bf16>(args->b),
                              matrix_of<const bf16>(args->x),
                              matrix_of<bf16>(args->x),
                              kern_cuda_pointer<const bf16>(args->w.mem),
                              matrix_of<bf16>(args->y),
                              kern_cuda_pointer<float>(args->rstd.mem),
                              args->x.cols,
                              static_cast<float>(args->eps)};
    return run_forward<true>(s, "add_rmsnorm_fwd", p, args->x.rows,
                             in_chunks(args->a, args->b, args->x, args->w, args->y));
}

extern "C" base_status_t kern_cuda_rmsnorm_bwd(base_stream_t *s, const kern_rmsnorm_bwd_t *args)
{
    if (args->x.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    const backward_params p = {matrix_of<const bf16>(args->dy),
                               matrix_of<const bf16>(args->x),
                               matrix_of<const bf16>(args->dres),
                               kern_cuda_pointer<const bf16>(args->w.mem),
                               kern_cuda_pointer<const float>(args->rstd.mem),
                               matrix_of<bf16>(args->dx),
                               args->x.cols};
    const unsigned rows = static_cast<unsigned>(args->x.rows);
    const bool chunked = in_chunks(args->dy, args->x, args->w, args->dx, args->dres);
    const cudaStream_t stream = native(s);
    if (rows == 0 || p.cols == 0) return BASE_OK;
    if (args->dw.mem.buffer != nullptr) {
        float *dw = kern_cuda_pointer<float>(args->dw.mem);
        BASE_TRY(chunked ? add_rows<CHUNK>(s, "rmsnorm_bwd", args->x.rows, p.cols,
                                           weight_gradient<CHUNK>{p.dy, p.x, p.rstd}, dw)
                         : add_rows<1>(s, "rmsnorm_bwd", args->x.rows, p.cols,
                                       weight_gradient<1>{p.dy, p.x, p.rstd}, dw));
    }
    if (!chunked)
        backward_twice<1><<<rows, THREADS, 0, stream>>>(p);
    else
        by_chunks(p.cols, [&](auto chunks) {
            if constexpr (decltype(chunks)::value == 0)
                backward_twice<CHUNK><<<rows, THREADS, 0, stream>>>(p);
            else
                backward_chunks<decltype(chunks)::value><<<rows, THREADS, 0, stream>>>(p);
        });
    return kern_cuda_check(s, "rmsnorm_bwd", cudaGetLastError());
}
