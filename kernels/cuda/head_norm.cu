/* RMSNorm of each head: 16 lanes a head. The order of a head's sum depends on its width alone: a
 * lane's elements ascending, then a tree over lanes. Heads that are one chunk a lane go several at a
 * time, all loads before the first sum. */
#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/cuda_ops.h"

using namespace kern_real;

namespace
{

constexpr int THREADS = 256, LANES = 16, GROUPS = THREADS / LANES;
constexpr int FORWARD_ITEMS = 4, BACKWARD_ITEMS = 2;

struct head_params {
    matrix<const bf16> dy, x;
    const bf16 *w;
    matrix<bf16> out;
    matrix<float> rstd;
    int64_t rows;
    int32_t heads, dim;
    float eps;
};

/* Which head a thread works on; row >= rows: none, but the thread takes part in the sums. */
struct head_place {
    int64_t row;
    int head, lane;
};

__device__ __forceinline__ head_place place_of(const head_params &p, int64_t item)
{
    const int64_t row = row_of(item, p.heads);
    return {row, static_cast<int>(item - row * p.heads), static_cast<int>(threadIdx.x) % LANES};
}

__device__ __forceinline__ float rstd_of(const head_params &p, float sum)
{
    return 1.0f / sqrtf(lane_sum<LANES>(sum) / static_cast<float>(p.dim) + p.eps);
}

__global__ void __launch_bounds__(THREADS) forward_short(head_params p)
{
    const int64_t item = int64_t{blockIdx.x} * GROUPS * FORWARD_ITEMS + threadIdx.x / LANES;
    const int j = static_cast<int>(threadIdx.x) % LANES * CHUNK;
    const bool wide = j < p.dim;
    const values<CHUNK> w = wide ? load<CHUNK>(p.w + j) : values<CHUNK>{};
    head_place at[FORWARD_ITEMS];
    uint4 raw[FORWARD_ITEMS];
#pragma unroll
    for (int k = 0; k < FORWARD_ITEMS; k++) {
        at[k] = place_of(p, item + k * GROUPS);
        raw[k] = wide && at[k].row < p.rows
                     ? load_raw(p.x.row(at[k].row) + int64_t{at[k].head} * p.dim + j)
                     : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int k = 0; k < FORWARD_ITEMS; k++) {
        const values<CHUNK> x = unpack(raw[k]);
        values<CHUNK> y;
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < CHUNK; i++)
            sum = __fmaf_rn(x.v[i], x.v[i], sum);
        const float rstd = rstd_of(p, sum);
#pragma unroll
        for (int i = 0; i < CHUNK; i++)
            y.v[i] = x.v[i] * rstd * w.v[i];
        if (at[k].row >= p.rows) continue;
        if (wide) store<CHUNK>(p.out.row(at[k].row) + int64_t{at[k].head} * p.dim + j, y);
        if (j == 0) p.rstd.row(at[k].row)[at[k].head] = rstd;
    }
}

/* dx may be dy: a thread has read its dy before it writes it. */
__global__ void __launch_bounds__(THREADS) backward_short(head_params p)
{
    const int64_t item = int64_t{blockIdx.x} * GROUPS * BACKWARD_ITEMS + threadIdx.x / LANES;
    const int j = static_cast<int>(threadIdx.x) % LANES * CHUNK;
    const bool wide = j < p.dim;
    const values<CHUNK> w = wide ? load<CHUNK>(p.w + j) : values<CHUNK>{};
    const uint4 none = make_uint4(0, 0, 0, 0);
    head_place at[BACKWARD_ITEMS];
    uint4 raw_x[BACKWARD_ITEMS], raw_dy[BACKWARD_ITEMS];
    float rstd[BACKWARD_ITEMS];
#pragma unroll
    for (int k = 0; k < BACKWARD_ITEMS; k++) {
        at[k] = place_of(p, item + k * GROUPS);
        const bool live = at[k].row < p.rows;
        const int64_t column = int64_t{at[k].head} * p.dim + j;
        raw_x[k] = wide && live ? load_raw(p.x.row(at[k].row) + column) : none;
        raw_dy[k] = wide && live ? load_raw(p.dy.row(at[k].row) + column) : none;
        rstd[k] = live ? p.rstd.row(at[k].row)[at[k].head] : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < BACKWARD_ITEMS; k++) {
        const values<CHUNK> x = unpack(raw_x[k]), dy = unpack(raw_dy[k]);
        values<CHUNK> dx;
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < CHUNK; i++)
            sum = __fmaf_rn(w.v[i] * dy.v[i], x.v[i], sum);
        const float mean = lane_sum<LANES>(sum) / static_cast<float>(p.dim);
        const float back = rstd[k] * rstd[k] * mean;
#pragma unroll
        for (int i = 0; i < CHUNK; i++)
            dx.v[i] = rstd[k] * (w.v[i] * dy.v[i] - x.v[i] * back);
        if (wide && at[k].row < p.rows)
            store<CHUNK>(p.out.row(at[k].row) + int64_t{at[k].head} * p.dim + j, dx);
    }
}

template <int N> __global__ void __launch_bounds__(THREADS) forward_kernel(head_params p)
{
    const head_place at = place_of(p, int64_t{blockIdx.x} * GROUPS + threadIdx.x / LANES);
    const bool live = at.row < p.rows;
    const int64_t first = int64_t{at.head} * p.dim;
    float sum = 0.0f;
    values<N> x; /* the last chunk is not read again */
    for (int j = at.lane * N; live && j < p.dim; j += LANES * N) {
        x = load<N>(p.x.row(at.row) + first + j);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum = __fmaf_rn(x.v[i], x.v[i], sum);
    }
    const float rstd = rstd_of(p, sum);
    for (int j = at.lane * N; live && j < p.dim; j += LANES * N) {
        if (p.dim > LANES * N) x = load<N>(p.x.row(at.row) + first + j);
        const values<N> w = load<N>(p.w + j);
        values<N> y;
#pragma unroll
        for (int i = 0; i < N; i++)
            y.v[i] = x.v[i] * rstd * w.v[i];
        store<N>(p.out.row(at.row) + first + j, y);
    }
    if (live && at.lane == 0) p.rstd.row(at.row)[at.head] = rstd;
}

/* dx may be dy: a thread reads its dy again before it writes it. */
template <int N> __global__ void __launch_bounds__(THREADS) backward_kernel(head_params p)
{
    const head_place at = place_of(p, int64_t{blockIdx.x} * GROUPS + threadIdx.x / LANES);
    const bool live = at.row < p.rows;
    const int64_t first = int64_t{at.head} * p.dim;
    float sum = 0.0f;
    for (int j = at.lane * N; live && j < p.dim; j += LANES * N) {
        const values<N> x = load<N>(p.x.row(at.row) + first + j), w = load<N>(p.w + j);
        const values<N> dy = load<N>(p.dy.row(at.row) + first + j);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum = __fmaf_rn(w.v[i] * dy.v[i], x.v[i], sum);
    }
    const float mean = lane_sum<LANES>(sum) / static_cast<float>(p.dim);
    const float rstd = live ? p.rstd.row(at.row)[at.head] : 0.0f, back = rstd * rstd * mean;
    for (int j = at.lane * N; live && j < p.dim; j += LANES * N) {
        const values<N> x = load<N>(p.x.row(at.row) + first + j), w = load<N>(p.w + j);
        const values<N> dy = load<N>(p.dy.row(at.row) + first + j);
        values<N> dx;
#pragma unroll
        for (int i = 0; i < N; i++)
            dx.v[i] = rstd * (w.v[i] * dy.v[i] - x.v[i] * back);
        store<N>(p.out.row(at.row) + first + j, dx);
    }
}

/* Heads of all rows, one after the other, as the rows of one matrix. */
template <int N> struct weight_gradient {
    matrix<const bf16> dy, x;
    matrix<const float> rstd;
    int32_t heads, dim;

    __device__ values<N> operator()(int64_t item, int64_t j) const
    {
        const int64_t t = item / heads, head = item - t * heads;
        const values<N> a = load<N>(dy.row(t) + head * dim + j);
        const values<N> b = load<N>(x.row(t) + head * dim + j);
        const float r = rstd.row(t)[head];
        values<N> out;
#pragma unroll
        for (int i = 0; i < N; i++)
            out.v[i] = a.v[i] * b.v[i] * r;
        return out;
    }
};

template <int N> base_status_t add_dw(base_stream_t *s, const kern_head_norm_bwd_t *args)
{
    const int32_t heads = static_cast<int32_t>(args->x.cols / args->head_dim);
    const weight_gradient<N> value = {matrix_of<const bf16>(args->dy),
                                      matrix_of<const bf16>(args->x),
                                      matrix_of<const float>(args->rstd), heads, args->head_dim};
    return add_rows<N>(s, "head_norm_bwd", args->x.rows * heads, args->head_dim, value,
                       kern_cuda_pointer<float>(args->dw.mem));
}

} // namespace

extern "C" base_status_t kern_cuda_head_norm_fwd(base_stream_t *s, const kern_head_norm_fwd_t *args)
{
    if (args->x.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    const int32_t heads = static_cast<int32_t>(args->x.cols / args->head_dim);
    const head_params p = {{nullptr, 0},
                           matrix_of<const bf16>(args->x),
                           kern_cuda_pointer<const bf16>(args->w.mem),
                           matrix_of<bf16>(args->y),
                           matrix_of<float>(args->rstd),
                           args->x.rows,
                           heads,
                           args->head_dim,
                           static_cast<float>(args->eps)};
    const int64_t items = args->x.rows * heads;
    const unsigned blocks = blocks_of(items, GROUPS);
    if (blocks == 0) return BASE_OK;
    const bool chunked = in_chunks(args->x, args->w, args->y);
    if (chunked && p.dim <= LANES * CHUNK)
        forward_short<<<blocks_of(items, GROUPS * FORWARD_ITEMS), THREADS, 0, native(s)>>>(p);
    else if (chunked)
        forward_kernel<CHUNK><<<blocks, THREADS, 0, native(s)>>>(p);
    else
        forward_kernel<1><<<blocks, THREADS, 0, native(s)>>>(p);
    return kern_cuda_check(s, "head_norm_fwd", cudaGetLastError());
}

extern "C" base_status_t kern_cuda_head_norm_bwd(base_stream_t *s, const kern_head_norm_bwd_t *args)
{
    if (args->x.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    const int32_t heads = static_cast<int32_t>(args->x.cols / args->head_dim);
    const bool chunked = in_chunks(args->dy, args->x, args->w, args->dx);
    const head_params p = {matrix_of<const bf16>(args->dy),
                           matrix_of<const bf16>(args->x),
                           kern_cuda_pointer<const bf16>(args->w.mem),
                           matrix_of<bf16>(args->dx),
                           matrix_of<float>(args->rstd),
                           args->x.rows,
                           heads,
                           args->head_dim,
                           0.0f};
    const int64_t items = args->x.rows * heads;
    const unsigned blocks = blocks_of(items, GROUPS);
    if (blocks == 0) return BASE_OK;
    if (args->dw.mem.buffer != nullptr)
        BASE_TRY(chunked ? add_dw<CHUNK>(s, args) : add_dw<1>(s, args)); /* dx may be dy */
    if (chunked && p.dim <= LANES * CHUNK)
        backward_short<<<blocks_of(items, GROUPS * BACKWARD_ITEMS), THREADS, 0, native(s)>>>(p);
    else if (chunked)
        backward_kernel<CHUNK><<<blocks, THREADS, 0, native(s)>>>(p);
    else
        backward_kernel<1><<<blocks, THREADS, 0, native(s)>>>(p);
    return kern_cuda_check(s, "head_norm_bwd", cudaGetLastError());
}
