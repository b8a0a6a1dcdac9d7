/* Chunk after chunk: gather the rows, logits by gemm, one kernel for losses and the logits'
 * gradient, dW and dx by gemm, scatter. A block of 1024 threads takes a row of logits and an SM one
 * block. A row is needed twice: what shared memory holds of it (224 KB) is kept there, and the rest
 * of the rows in work (at a vocabulary of 128 k 132 of 33 KB, in fp32 of 289) stays in L2. A thread
 * asks for TURNS chunks before it looks at the first. The order of a row's sum depends on its width
 * alone: a thread's chunks ascending, then a tree over lanes, then the warps in order.
 *
 * Logits are bf16 or fp32, as the scratch operand says; their gradient is bf16 in the same place,
 * from the row's first byte. In fp32 rows a tile is read by all threads before any of its gradient is
 * written; the gradient of an element lies before the element, so it meets no later tile. A listed row or target that does
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

constexpr int TURNS = 4;
constexpr int KEPT_BYTES = 224 * 1024;

/* A row in tiles of TURNS chunks of N elements a thread; the first chunks of each thread are kept in
 * shared memory, 16 bytes of all threads side by side. Nobody reads what another thread has kept. */
template <int N, class Logit> struct tile_reader {
    static constexpr int PARTS = N * static_cast<int>(sizeof(Logit)) / 16; /* 0: nothing is kept */
    static constexpr int KEPT = PARTS > 0 ? KEPT_BYTES / (THREADS * 16 * (PARTS + !PARTS)) : 0;
    static constexpr int64_t TILE = int64_t{THREADS} * N * TURNS;

    const Logit *row;
    int64_t cols;

    __device__ static int64_t column(int64_t tile, int k)
    {
        return tile + (int64_t{k} * THREADS + threadIdx.x) * N;
    }
    __device__ static uint4 *place(int64_t chunk, int part)
    {
        extern __shared__ uint4 kept[];
        return &kept[(chunk * PARTS + part) * THREADS + threadIdx.x];
    }

    /* Chunk k of a tile, the first time; beyond the row: -inf. */
    __device__ __forceinline__ void first(int64_t tile, values<N> (&z)[TURNS]) const
    {
#pragma unroll
        for (int k = 0; k < TURNS; k++) {
            const int64_t j = column(tile, k);
            if (j < cols) {
                z[k] = load<N>(row + j);
            } else {
#pragma unroll
                for (int n = 0; n < N; n++)
                    z[k].v[n] = -INFINITY;
            }
        }
        if constexpr (PARTS > 0) {
#pragma unroll
            for (int k = 0; k < TURNS; k++)
                keep(tile / TILE * TURNS + k, z[k]);
        }
    }

    /* Again: from where it is. */
    __device__ __forceinline__ void again(int64_t tile, values<N> (&z)[TURNS]) const
    {
#pragma unroll
        for (int k = 0; k < TURNS; k++) {
            const int64_t j = column(tile, k), chunk = tile / TILE * TURNS + k;
            z[k] = {};
            if (PARTS > 0 && chunk < KEPT)
                z[k] = kept_chunk(chunk);
            else if (j < cols)
                z[k] = load<N>(row + j);
        }
    }

    __device__ __forceinline__ static void keep(int64_t chunk, const values<N> &z)
    {
        if (chunk >= KEPT) return;
        if constexpr (PARTS == 1) { /* bf16: nothing is lost on the way back */
            *place(chunk, 0) = make_uint4(pack(z.v[0], z.v[1]), pack(z.v[2], z.v[3]),
                                          pack(z.v[4], z.v[5]), pack(z.v[6], z.v[7]));
        } else if constexpr (PARTS == 2) {
            *reinterpret_cast<float4 *>(place(chunk, 0)) =
                make_float4(z.v[0], z.v[1], z.v[2], z.v[3]);
            *reinterpret_cast<float4 *>(place(chunk, 1)) =
                make_float4(z.v[4], z.v[5], z.v[6], z.v[7]);
        }
    }
    __device__ __forceinline__ static values<N> kept_chunk(int64_t chunk)
    {
        if constexpr (PARTS == 1)
            return unpack(*place(chunk, 0));
        else if constexpr (PARTS == 2)
            return unpack(*reinterpret_cast<const float4 *>(place(chunk, 0)),
                          *reinterpret_cast<const float4 *>(place(chunk, 1)));
        else
            return {};
    }
};

template <int N, class Logit>
__global__ void __launch_bounds__(THREADS, 1) loss_kernel(loss_params p)
{
    using reader = tile_reader<N, Logit>;
    const int64_t i = blockIdx.x;
    char *const begin = static_cast<char *>(p.logits) + i * p.row_bytes;
    const Logit *z = reinterpret_cast<const Logit *>(begin);
    bf16 *gradient = reinterpret_cast<bf16 *>(begin);
    const reader tiles = {z, p.vocabulary};
    const int32_t target = p.targets[i], row = p.rows[i];
    const bool exists = target >= 0 && target < p.vocabulary && row >= 0 && row < p.x_rows;
    const float z_target = exists ? load<1>(z + target).v[0] : NAN;
    values<N> x[TURNS];

    peak all = {-INFINITY, 0.0f};
    for (int64_t tile = 0; tile < p.vocabulary; tile += reader::TILE) {
        tiles.first(tile, x);
#pragma unroll
        for (int k = 0; k < TURNS; k++)
            if (reader::column(tile, k) < p.vocabulary) all = add_chunk(all, x[k]);
    }
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
    for (int64_t tile = 0; tile < p.vocabulary; tile += reader::TILE) {
        tiles.again(tile, x);
        if constexpr (sizeof(Logit) > sizeof(bf16)) __syncthreads();
#pragma unroll
        for (int k = 0; k < TURNS; k++) {
            const int64_t j = reader::column(tile, k);
#pragma unroll
            for (int n = 0; n < N; n++)
                x[k].v[n] =
                    __expf(x[k].v[n] - all.max) * factor - (j + n == target ? weight : 0.0f);
            if (j < p.vocabulary) store<N>(gradient + j, x[k]);
        }
    }
}

/* Shared memory beyond 48 KB has to be asked for. */
template <int N, class Logit>
base_status_t launch_loss(base_stream_t *s, const loss_params &p, unsigned blocks)
{
    constexpr int bytes = tile_reader<N, Logit>::PARTS > 0 ? KEPT_BYTES : 0;
    BASE_TRY(
        kern_cuda_check(s, "loss_linear_ce",
                        cudaFuncSetAttribute(loss_kernel<N, Logit>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)));
    loss_kernel<N, Logit><<<blocks, THREADS, bytes, native(s)>>>(p);
    return kern_cuda_check(s, "loss_linear_ce", cudaGetLastError());
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
    if (wide)
        return chunked ? launch_loss<CHUNK, float>(s, p, blocks)
                       : launch_loss<1, float>(s, p, blocks);
    return chunked ? launch_loss<CHUNK, bf16>(s, p, blocks) : launch_loss<1, bf16>(s, p, blocks);
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
