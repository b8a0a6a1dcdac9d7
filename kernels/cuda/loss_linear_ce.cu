/* Chunk after chunk: gather the rows, logits by gemm, one kernel for losses and the logits'
 * gradient, dW and dx by gemm, scatter.
 *
 * A row of logits is needed three times, for its greatest element, its sum and its gradient, and is
 * read once: a cluster of 8 blocks shares it and keeps it in shared memory. At a vocabulary of 128 k
 * in fp32 that is 64 KB a block, so that an SM has three, of as many rows: while one waits for the
 * others of its cluster, another's copies are under way. A thread asks for all of its chunks at once
 * and nobody else reads them. What goes beyond KEPT_BYTES a block (in fp32 beyond 229,376 columns)
 * is read again, from L2. The order of a row's sum depends on its width alone: a thread's chunks
 * ascending, then a tree over lanes; of the warps of all blocks each lane adds four, then the tree.
 *
 * Logits are bf16 or fp32, as the scratch operand says; their gradient is bf16 in the same place,
 * from the row's first byte. It is not written before all blocks have read the row; where they read
 * again, not before all have read that stretch, and the gradient of an element lies before the
 * element, so that it meets no later stretch. A listed row or target that does not exist has loss NaN
 * and no gradient. */
#include "kernels/cuda/attention/ptx.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/real_vector.cuh"

#include <cooperative_groups.h>

#include <cmath>

using namespace kern_real;
namespace cg = cooperative_groups;

namespace
{

constexpr int THREADS = 512, BLOCKS = 8; /* of a cluster, which has a row */
constexpr int KEPT_BYTES = 112 * 1024;   /* two blocks an SM at least */

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
struct alignas(8) peak {
    float max, sum;
};

/* Below 2^-126 it is 0. */
__device__ __forceinline__ float exponential(float x)
{
    constexpr float LOG2_E = 1.4426950408889634f;
    return kern_ptx::exp2_approx(x * LOG2_E);
}

/* The sum of a part, beside the greatest element of more. */
__device__ __forceinline__ float sum_at(peak part, float max)
{
    /* nothing above -inf: -inf - -inf would be NaN */
    return max == -INFINITY ? part.sum : part.sum * exponential(part.max - max);
}

/* Of all lanes' parts, in every lane. */
__device__ __forceinline__ peak warp_peak(peak mine)
{
    float max = mine.max;
#pragma unroll
    for (int step = 1; step < 32; step *= 2)
        max = fmaxf(max, __shfl_xor_sync(~0u, max, step));
    return {max, lane_sum<32>(sum_at(mine, max))};
}

/* A block's shared memory is there for the others once they know that it has begun. This orders
 * nothing, and so waits for nothing. */
__device__ __forceinline__ void arrive_first()
{
    asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}

/* Of all threads of the cluster, in every thread: each warp gives its own to all blocks, and then
 * joins those of all warps. After arrive_first. */
__device__ __forceinline__ peak cluster_peak(peak mine)
{
    constexpr int WARPS = THREADS / 32, LANE_PARTS = BLOCKS * WARPS / 32;
    __shared__ peak parts[BLOCKS * WARPS];
    const cg::cluster_group cluster = cg::this_cluster();
    const unsigned lane = threadIdx.x % 32;

    mine = warp_peak(mine);
    cluster.barrier_wait();
    if (lane < BLOCKS)
        *cluster.map_shared_rank(&parts[cluster.block_rank() * WARPS + threadIdx.x / 32],
                                 static_cast<int>(lane)) = mine;
    cluster.sync();
    mine = {-INFINITY, 0.0f};
#pragma unroll
    for (int i = 0; i < LANE_PARTS; i++)
        mine.max = fmaxf(mine.max, parts[i * 32 + lane].max);
#pragma unroll
    for (int i = 0; i < LANE_PARTS; i++)
        mine.sum += sum_at(parts[i * 32 + lane], mine.max);
    return warp_peak(mine);
}

/* A row lies in stretches of a chunk of N elements for each thread of the cluster; this is what one
 * thread has of it. */
template <int N, class Logit> struct row_part {
    static constexpr int64_t STRETCH = int64_t{BLOCKS} * THREADS * N;
    static constexpr int BLOCK_BYTES = THREADS * N * int{sizeof(Logit)}; /* of a stretch */
    static constexpr int KEPT = KEPT_BYTES / BLOCK_BYTES;

    const Logit *begin; /* of the first chunk */
    int64_t column;     /* likewise */
    int chunks, kept;   /* of this thread */
    int stretches;

    static __host__ __device__ int num_stretches(int64_t cols)
    {
        return static_cast<int>((cols + STRETCH - 1) / STRETCH);
    }

    __device__ row_part(const Logit *row, int64_t cols, unsigned rank)
    {
        column = (int64_t{rank} * THREADS + threadIdx.x) * N;
        begin = row + column;
        chunks = column < cols ? num_stretches(cols - column) : 0;
        kept = min(chunks, KEPT);
        stretches = num_stretches(cols);
    }

    __device__ bool has(int64_t j) const
    {
        return j / N % (BLOCKS * THREADS) == column / N;
    }

    __device__ __forceinline__ static Logit *place(int k)
    {
        extern __shared__ uint4 memory[];
        return reinterpret_cast<Logit *>(memory) + (k * THREADS + threadIdx.x) * N;
    }
    __device__ __forceinline__ values<N> read(int k) const
    {
        return load<N>(begin + k * STRETCH);
    }

    /* Has what is kept brought; it is there after kern_ptx::copy_wait<0>(). */
    __device__ __forceinline__ void fetch() const
    {
        for (int k = 0; k < kept; k++) {
            const Logit *from = begin + k * STRETCH;
            if constexpr (N * sizeof(Logit) == 16)
                kern_ptx::copy16(kern_ptx::shared_address(place(k)), from, true);
            else
                *place(k) = *from;
        }
        kern_ptx::copy_commit();
    }

    template <class Use> __device__ __forceinline__ void each_chunk(Use use) const
    {
#pragma unroll 4
        for (int k = 0; k < kept; k++)
            use(load<N>(place(k)));
#pragma unroll 1
        for (int k = KEPT; k < chunks; k++)
            use(read(k));
    }
};

template <int N, class Logit> __device__ __forceinline__ peak thread_peak(row_part<N, Logit> part)
{
    float max = -INFINITY, sum = 0.0f;
    part.each_chunk([&](const values<N> &z) {
#pragma unroll
        for (int n = 0; n < N; n++)
            max = fmaxf(max, z.v[n]);
    });
    /* without an element above -inf: only NaN, if there is one, shall make NaN */
    const float base = max == -INFINITY ? 0.0f : max;
    part.each_chunk([&](const values<N> &z) {
        float chunk = 0.0f;
#pragma unroll
        for (int n = 0; n < N; n++)
            chunk += exponential(z.v[n] - base);
        sum += chunk;
    });
    return {max, sum};
}

/* weight softmax(z) of this thread's chunks; the target's element is not right yet. */
template <int N, class Logit>
__device__ __forceinline__ void write_gradient(row_part<N, Logit> part, bf16 *gradient, peak all,
                                               float factor)
{
    bf16 *const to = gradient + part.column;
    const auto write = [&](int k, values<N> z) {
#pragma unroll
        for (int n = 0; n < N; n++)
            z.v[n] = exponential(z.v[n] - all.max) * factor;
        store<N>(to + k * part.STRETCH, z);
    };
#pragma unroll 4
    for (int k = 0; k < part.kept; k++)
        write(k, load<N>(part.place(k)));
#pragma unroll 1
    for (int k = part.KEPT; k < part.stretches; k++) {
        values<N> z = {};
        if (k < part.chunks) z = part.read(k);
        cg::this_cluster().sync();
        if (k < part.chunks) write(k, z);
    }
}

/* A weight of 0 clears gradient and gathered row, so that a row that is switched off adds nothing
 * to dW even when it is not finite. */
template <int N, class Logit>
__device__ void clear_row(row_part<N, Logit> part, bf16 *gradient, bf16 *x, int64_t hidden)
{
    for (int k = 0; k < part.chunks; k++)
        store<N>(gradient + part.column + k * part.STRETCH, values<N>{});
    for (int64_t j = part.column / N; j < hidden; j += BLOCKS * THREADS)
        x[j] = __float2bfloat16_rn(0.0f);
}

template <int N, class Logit>
__global__ void __cluster_dims__(BLOCKS, 1, 1) __launch_bounds__(THREADS, 3)
    loss_kernel(loss_params p)
{
    arrive_first();
    const int64_t i = blockIdx.x / BLOCKS;
    const int32_t target = p.targets[i], row = p.rows[i];
    const float given = p.weights[i];
    char *const begin = static_cast<char *>(p.logits) + i * p.row_bytes;
    bf16 *gradient = reinterpret_cast<bf16 *>(begin);
    const Logit *z = reinterpret_cast<const Logit *>(begin);
    const row_part<N, Logit> part(z, p.vocabulary, cg::this_cluster().block_rank());
    part.fetch();

    const bool exists = target >= 0 && target < p.vocabulary && row >= 0 && row < p.x_rows;
    const bool has_target = part.has(exists ? target : 0);
    const float z_target = exists && has_target ? load<1>(z + target).v[0] : NAN;
    const float weight = exists ? given : 0.0f;
    kern_ptx::copy_wait<0>();
    const peak all = cluster_peak(thread_peak(part)); /* all of the row has been read now */
    if (has_target) p.loss[i] = all.max + logf(all.sum) - z_target;
    if (!p.gradient) return;
    if (weight == 0.0f) {
        clear_row(part, gradient, p.gathered.row(i), p.hidden);
        return;
    }
    const float factor = weight / all.sum;
    write_gradient(part, gradient, all, factor);
    if (has_target) /* over what this thread has just written there */
        store<1>(gradient + target, {{exponential(z_target - all.max) * factor - weight}});
}

/* Shared memory beyond 48 KB has to be asked for, and that an SM gives it to several blocks. */
template <int N, class Logit>
base_status_t launch_loss(base_stream_t *s, const loss_params &p, int64_t rows)
{
    using part = row_part<N, Logit>;
    const int stretches = part::num_stretches(p.vocabulary);
    const int bytes = (stretches < part::KEPT ? stretches : part::KEPT) * part::BLOCK_BYTES;
    const auto kernel = loss_kernel<N, Logit>;
    BASE_TRY(kern_cuda_check(
        s, "loss_linear_ce",
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, KEPT_BYTES)));
    BASE_TRY(
        kern_cuda_check(s, "loss_linear_ce",
                        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                             cudaSharedmemCarveoutMaxShared)));
    kernel<<<static_cast<unsigned>(rows * BLOCKS), THREADS, static_cast<size_t>(bytes),
             native(s)>>>(p);
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
    const bool chunked = in_chunks(args->logits);
    if (wide)
        return chunked ? launch_loss<CHUNK / 2, float>(s, p, count)
                       : launch_loss<1, float>(s, p, count);
    return chunked ? launch_loss<CHUNK, bf16>(s, p, count) : launch_loss<1, bf16>(s, p, count);
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
