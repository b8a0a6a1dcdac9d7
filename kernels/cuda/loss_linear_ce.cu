/* Chunk after chunk: gather the rows, logits by gemm, one kernel for losses and the logits'
 * gradient, dW and dx by gemm, scatter. A block of 1024 threads takes a row of logits and an SM one
 * block, so that the rows in work (132 of 257 KB at a vocabulary of 128 k) stay in L2 between the
 * two times that they are read.
 *
 * Logits are bf16 or fp32, as the scratch operand says; their gradient is bf16 in the same place,
 * from the row's first byte. In fp32 rows a tile is read by all threads before any of it is
 * written: the gradient of an element lies before the element. A listed row or target that does
 * not exist has loss NaN and no gradient. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/real_vector.cuh"

#include <cmath>

using namespace kern_real;

namespace
{

constexpr int THREADS = 1024;

struct gather_params {
    matrix<const bf16> x;
    matrix<bf16> gathered;
    const int32_t *rows;
    int64_t x_rows;
};

template <int N> struct gather_work {
    gather_params p;

    __device__ void operator()(int64_t i, int64_t j) const
    {
        const int32_t row = p.rows[i];
        values<N> x = {};
        if (row >= 0 && row < p.x_rows) x = load<N>(p.x.row(row) + j);
        store<N>(p.gathered.row(i) + j, x);
    }
};

template <int N> struct scatter_work {
    matrix<const bf16> gathered;
    matrix<bf16> dx;
    const int32_t *rows;
    int64_t x_rows;

    __device__ void operator()(int64_t i, int64_t j) const
    {
        const int32_t row = rows[i];
        if (row >= 0 && row < x_rows) store<N>(dx.row(row) + j, load<N>(gathered.row(i) + j));
    }
};

struct loss_params {
    void *logits;
    int64_t row_bytes;
    matrix<bf16> gathered;
    const int32_t *rows, *targets;
    const float *weights;
    float *loss;
    int64_t vocabulary, hidden, x_rows;
    int gradient;
};

/* The greatest element and the sum of exp(z - greatest), combined from parts in a fixed order. */
struct peak {
    float max, sum;
};

__device__ __forceinline__ peak join(peak a, peak b)
{
    const float max = fmaxf(a.max, b.max);
    /* two empty parts: -inf - -inf would be NaN */
    if (max == -INFINITY) return {max, a.sum + b.sum};
    return {max, a.sum * __expf(a.max - max) + b.sum * __expf(b.max - max)};
}

template <int N> __device__ __forceinline__ peak add_chunk(peak p, const values<N> &z)
{
    float max = p.max;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++)
        max = fmaxf(max, z.v[i]);
    if (max == -INFINITY) {
#pragma unroll
        for (int i = 0; i < N; i++)
            sum += z.v[i]; /* NaN, if there is one, is not lost */
        return {max, sum == sum ? p.sum : sum};
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        sum += __expf(z.v[i] - max);
    return {max, p.sum * __expf(p.max - max) + sum};
}

__device__ peak block_peak(peak mine)
{
    __shared__ peak part[THREADS / 32];
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const peak other = {__shfl_xor_sync(~0u, mine.max, step),
                            __shfl_xor_sync(~0u, mine.sum, step)};
        /* the lower lane first, so that both lanes have the same bits */
        mine = (threadIdx.x & step) ? join(other, mine) : join(mine, other);
    }
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = mine;
    __syncthreads();
    mine = part[0];
    for (int i = 1; i < THREADS / 32; i++)
        mine = join(mine, part[i]);
    return mine;
}

/* A weight of 0 clears gradient and gathered row, so that a row that is switched off adds nothing
 * to dW even when it is not finite. */
__device__ void clear_row(const loss_params &p, bf16 *gradient, int64_t i)
{
    bf16 *x = p.gathered.row(i);
    for (int64_t j = threadIdx.x; j < p.vocabulary; j += THREADS)
        gradient[j] = __float2bfloat16_rn(0.0f);
    for (int64_t j = threadIdx.x; j < p.hidden; j += THREADS)
        x[j] = __float2bfloat16_rn(0.0f);
}

template <int N, class Logit>
__global__ void __launch_bounds__(THREADS, 1) loss_kernel(loss_params p)
{
    const int64_t i = blockIdx.x;
    char *const begin = static_cast<char *>(p.logits) + i * p.row_bytes;
    const Logit *z = reinterpret_cast<const Logit *>(begin);
    bf16 *gradient = reinterpret_cast<bf16 *>(begin);
    const int32_t target = p.targets[i], row = p.rows[i];
    const bool exists = target >= 0 && target < p.vocabulary && row >= 0 && row < p.x_rows;
    const float z_target = exists ? load<1>(z + target).v[0] : NAN;

    peak all = {-INFINITY, 0.0f};
    for (int64_t j = threadIdx.x * N; j < p.vocabulary; j += THREADS * N)
        all = add_chunk(all, load<N>(z + j));
    all = block_peak(all); /* its barrier also ends all reads of z_target */
    if (threadIdx.x == 0) p.loss[i] = all.max + logf(all.sum) - z_target;
    if (!p.gradient) return;
    const float weight = exists ? p.weights[i] : 0.0f;
    if (weight == 0.0f) {
        __syncthreads();
        clear_row(p, gradient, i);
        return;
    }
    const float factor = weight / all.sum;
    for (int64_t tile = 0; tile < p.vocabulary; tile += THREADS * N) {
        const int64_t j = tile + threadIdx.x * N;
        values<N> x = {};
        if (j < p.vocabulary) x = load<N>(z + j);
        if constexpr (sizeof(Logit) > sizeof(bf16)) __syncthreads();
#pragma unroll
        for (int n = 0; n < N; n++)
            x.v[n] = __expf(x.v[n] - all.max) * factor - (j + n == target ? weight : 0.0f);
        if (j < p.vocabulary) store<N>(gradient + j, x);
        if constexpr (sizeof(Logit) > sizeof(bf16)) __syncthreads();
    }
}

kern_mat_t first_rows(kern_mat_t mat, int64_t rows)
{
    mat.rows = rows;
    return mat;
}

base_status_t chunk_loss(base_stream_t *s, const kern_loss_linear_ce_t *args, int64_t first,
                         int64_t count)
{
    const bool wide = args->logits.dtype == KERN_F32;
    const loss_params p = {base_mem_address(args->logits.mem),
                           args->logits.pitch * kern_dtype_bytes(args->logits.dtype),
                           matrix_of<bf16>(args->gathered),
                           kern_cuda_pointer<const int32_t>(args->rows.mem) + first,
                           kern_cuda_pointer<const int32_t>(args->targets.mem) + first,
                           kern_cuda_pointer<const float>(args->weights.mem) + first,
                           kern_cuda_pointer<float>(args->loss.mem) + first,
                           args->w.rows,
                           args->x.cols,
                           args->x.rows,
                           !kern_mat_absent(&args->dx) || !kern_mat_absent(&args->dw)};
    const unsigned blocks = static_cast<unsigned>(count);
    const bool chunked = in_chunks(args->logits);
    const cudaStream_t stream = native(s);
    if (wide && chunked)
        loss_kernel<CHUNK, float><<<blocks, THREADS, 0, stream>>>(p);
    else if (wide)
        loss_kernel<1, float><<<blocks, THREADS, 0, stream>>>(p);
    else if (chunked)
        loss_kernel<CHUNK, bf16><<<blocks, THREADS, 0, stream>>>(p);
    else
        loss_kernel<1, bf16><<<blocks, THREADS, 0, stream>>>(p);
    return kern_cuda_check(s, "loss_linear_ce", cudaGetLastError());
}

base_status_t chunk_gradient(base_stream_t *s, const kern_loss_linear_ce_t *args, int64_t first,
                             int64_t count)
{
    const int32_t *rows = kern_cuda_pointer<const int32_t>(args->rows.mem) + first;
    kern_mat_t dz = first_rows(args->logits, count);
    dz.pitch = dz.pitch * kern_dtype_bytes(dz.dtype) / 2;
    dz.dtype = KERN_BF16;
    const kern_mat_t gathered = first_rows(args->gathered, count);
    if (!kern_mat_absent(&args->dw)) {
        const kern_gemm_t dw = {dz, gathered, args->dw, 1, 0, 1};
        BASE_TRY(kern_cuda_gemm(s, &dw));
    }
    if (kern_mat_absent(&args->dx)) return BASE_OK;
    /* x is not needed any more; its gradient takes its place, then the rows go home. */
    const kern_gemm_t dx = {dz, args->w, gathered, 0, 0, 0};
    BASE_TRY(kern_cuda_gemm(s, &dx));
    const matrix<const bf16> from = matrix_of<const bf16>(args->gathered);
    const matrix<bf16> to = matrix_of<bf16>(args->dx);
    const int64_t cols = args->x.cols;
    return in_chunks(args->gathered, args->dx)
               ? each<CHUNK>(s, "loss_linear_ce", count, cols,
                             scatter_work<CHUNK>{from, to, rows, args->x.rows})
               : each<1>(s, "loss_linear_ce", count, cols,
                         scatter_work<1>{from, to, rows, args->x.rows});
}

base_status_t chunk(base_stream_t *s, const kern_loss_linear_ce_t *args, int64_t first,
                    int64_t count)
{
    const gather_params gather = {matrix_of<const bf16>(args->x), matrix_of<bf16>(args->gathered),
                                  kern_cuda_pointer<const int32_t>(args->rows.mem) + first,
                                  args->x.rows};
    const kern_gemm_t logits = {
        first_rows(args->gathered, count), args->w, first_rows(args->logits, count), 0, 1, 0};
    const int64_t cols = args->x.cols;
    BASE_TRY(in_chunks(args->x, args->gathered)
                 ? each<CHUNK>(s, "loss_linear_ce", count, cols, gather_work<CHUNK>{gather})
                 : each<1>(s, "loss_linear_ce", count, cols, gather_work<1>{gather}));
    BASE_TRY(kern_cuda_gemm(s, &logits));
    BASE_TRY(chunk_loss(s, args, first, count));
    return chunk_gradient(s, args, first, count);
}

} // namespace

extern "C" base_status_t kern_cuda_loss_linear_ce(base_stream_t *s,
                                                  const kern_loss_linear_ce_t *args)
{
    if (args->x.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    if (!kern_mat_absent(&args->dx) && args->dx.rows > 0 && args->dx.cols > 0)
        BASE_TRY(kern_cuda_check(s, "loss_linear_ce",
                                 cudaMemset2DAsync(base_mem_address(args->dx.mem),
                                                   static_cast<size_t>(args->dx.pitch) * 2, 0,
                                                   static_cast<size_t>(args->dx.cols) * 2,
                                                   static_cast<size_t>(args->dx.rows), native(s))));
    for (int64_t first = 0; first < args->rows.cols; first += args->logits.rows) {
        const int64_t left = args->rows.cols - first;
        BASE_TRY(chunk(s, args, first, left < args->logits.rows ? left : args->logits.rows));
    }
    return BASE_OK;
}
