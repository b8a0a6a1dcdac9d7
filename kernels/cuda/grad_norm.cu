/* What is asked of all gradients of an adapter before its step: their norm, the factor that clips
 * it, and whether they are finite. One kernel, in which memory is all that is waited for: a thread
 * asks for a batch of 32 elements before it looks at the first. Order of a sum, which depends on the
 * shapes of the list alone: a thread adds the elements of a batch, ascending, in fp32, and batches,
 * ascending, in double; a block's threads are added by a tree over lanes and the warps
 * in order; the block that ends last adds the blocks: a thread every 256th, then as before. (Which
 * block that is does not show; a counter tells it, no atomic adds anything up.) In fp32 alone a sum of
 * millions of small squares would stop growing. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/stream_state.h"
#include "kernels/cuda/tensor_list.cuh"

#include <climits>
#include <cmath>

using namespace kern_real;

namespace
{

/* 16 bytes at a time. */
template <class T> constexpr int BATCH = 32 * sizeof(T) / 16;

struct tensor_entry {
    const void *at;
    int64_t elements, cols, pitch;
};
constexpr int MAX_TENSORS = 768;
using list_t = tensor_list<tensor_entry, MAX_TENSORS>;

struct sum_params {
    double *partial;  /* a sum of each block */
    uint32_t *ticket; /* of blocks that have ended; 0 between launches */
    float *sum;
    int32_t *count;
    int32_t keep, last; /* is this the last launch of the op? */
};
static_assert(sizeof(list_t) + sizeof(sum_params) <= 32764, "parameters of a launch");

template <class T> __device__ __forceinline__ values<16 / sizeof(T)> elements_of(uint4 raw)
{
    if constexpr (sizeof(T) == 2)
        return unpack(raw);
    else
        return {{__uint_as_float(raw.x), __uint_as_float(raw.y), __uint_as_float(raw.z),
                 __uint_as_float(raw.w)}};
}

/* A term's `add` adds an element, its `batch` gives the sum of BATCH chunks. */
template <class T, class Add>
__device__ __forceinline__ float over_batch(const uint4 (&raw)[BATCH<T>], Add add)
{
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < BATCH<T>; k++) {
        const auto x = elements_of<T>(raw[k]);
#pragma unroll
        for (size_t n = 0; n < 16 / sizeof(T); n++)
            sum = add(sum, x.v[n]);
    }
    return sum;
}

struct square {
    __device__ static float add(float sum, float x)
    {
        return __fmaf_rn(x, x, sum);
    }
    template <class T> __device__ static float batch(const uint4 (&raw)[BATCH<T>])
    {
        return over_batch<T>(raw, add);
    }
};

struct not_finite {
    __device__ static float add(float sum, float x)
    {
        return sum + (isfinite(x) ? 0.0f : 1.0f);
    }
    /* 0 x is 0, or NaN where x is not finite: one instruction an element, and then mostly nothing. */
    template <class T> __device__ static float batch(const uint4 (&raw)[BATCH<T>])
    {
        const float seen =
            over_batch<T>(raw, [](float sum, float x) { return __fmaf_rn(x, 0.0f, sum); });
        return seen == 0.0f ? 0.0f : over_batch<T>(raw, add);
    }
};

/* A thread's part of the elements [begin, end) of a tensor without gaps, in chunks of 16 bytes. */
template <class T, class Term>
__device__ __forceinline__ double flat_sum(const T *data, int64_t begin, int64_t end)
{
    constexpr int PER = 16 / sizeof(T), STEP = LIST_THREADS * PER;
    const int64_t whole = end - end % PER;
    double sum = 0.0;
    for (int64_t i = begin + threadIdx.x * PER; i < whole; i += BATCH<T> * STEP) {
        uint4 raw[BATCH<T>];
#pragma unroll
        for (int k = 0; k < BATCH<T>; k++)
            raw[k] = i + k * STEP < whole
                         ? __ldg(reinterpret_cast<const uint4 *>(data + i + k * STEP))
                         : make_uint4(0, 0, 0, 0);
        sum += static_cast<double>(Term::template batch<T>(raw));
    }
    if (whole + threadIdx.x < end)
        sum += static_cast<double>(Term::add(0.0f, load<1>(data + whole + threadIdx.x).v[0]));
    return sum;
}

template <class T, class Term>
__device__ __forceinline__ double thread_sum(const tensor_entry &e, int64_t begin, int64_t end)
{
    const T *data = static_cast<const T *>(e.at);
    if (e.pitch == e.cols && reinterpret_cast<uintptr_t>(data) % 16 == 0)
        return flat_sum<T, Term>(data, begin, end);
    double sum = 0.0;
    for (int64_t i = begin + threadIdx.x; i < end; i += LIST_THREADS) {
        const int64_t row = row_of(i, e.cols);
        const float x = load<1>(data + row * e.pitch + i - row * e.cols).v[0];
        sum += static_cast<double>(Term::add(0.0f, x));
    }
    return sum;
}

/* In thread 0. */
__device__ __forceinline__ double block_sum_double(double x)
{
    __shared__ double part[LIST_THREADS / 32];
#pragma unroll
    for (int step = 1; step < 32; step *= 2)
        x += __shfl_xor_sync(~0u, x, step);
    __syncthreads(); /* part may still be read for the sum before */
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    x = part[0];
#pragma unroll
    for (int i = 1; i < LIST_THREADS / 32; i++)
        x += part[i];
    return x;
}

/* Are all other blocks' sums in memory? True in one block. */
__device__ __forceinline__ bool ends_last(uint32_t *ticket)
{
    __shared__ bool last;
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1; /* and becomes 0 */
        __threadfence();
    }
    __syncthreads();
    return last;
}

template <class T, class Term>
__global__ void __launch_bounds__(LIST_THREADS, LIST_BLOCKS_A_PROCESSOR)
    sum_kernel(const __grid_constant__ list_t list, const __grid_constant__ sum_params p)
{
    double sum = 0.0;
    for_share(list, [&](const tensor_entry &e, int64_t begin, int64_t end) {
        sum += thread_sum<T, Term>(e, begin, end);
    });
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) p.partial[list.before + blockIdx.x] = sum;
    if (!p.last || !ends_last(p.ticket)) return;
    sum = 0.0;
    for (unsigned i = threadIdx.x; i < list.before + gridDim.x; i += LIST_THREADS)
        sum += __ldcg(&p.partial[i]); /* past L1, which may be older */
    sum = block_sum_double(sum);
    if (threadIdx.x != 0) return;
    if (p.sum != nullptr) *p.sum = static_cast<float>(sum);
    if (p.count == nullptr) return;
    if (p.keep) sum += *p.count;
    *p.count = sum < INT32_MAX ? static_cast<int32_t>(sum) : INT32_MAX;
}

template <class T, class Term>
base_status_t run(base_stream_t *s, const char *op, int64_t num, const kern_mat_t *tensors,
                  sum_params p)
{
    const int64_t most = KERN_CUDA_SCRATCH_BYTES / static_cast<int64_t>(sizeof(double));
    list_t list;
    void *scratch = nullptr;
    if (num / MAX_TENSORS > most / LIST_BLOCKS - 2)
        return BASE_FAIL(base_device_ctx(base_stream_device(s)), BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: %lld tensors, want at most %lld", op, static_cast<long long>(num),
                         static_cast<long long>(MAX_TENSORS * (most / LIST_BLOCKS - 2)));
    BASE_TRY(kern_cuda_scratch(s, &scratch));
    BASE_TRY(kern_cuda_ticket(s, &p.ticket));
    p.partial = static_cast<double *>(scratch);
    return for_lists(
        num, list,
        [&](int64_t i, tensor_entry *entry) {
            const kern_mat_t &m = tensors[i];
            *entry = {base_mem_address(m.mem), m.rows * m.cols, m.cols,
                      m.rows > 1 ? m.pitch : m.cols};
            return true;
        },
        [&](const list_t &full, bool last) {
            const unsigned blocks = full.blocks > 0 ? static_cast<unsigned>(full.blocks) : 1;
            p.last = last;
            sum_kernel<T, Term><<<blocks, LIST_THREADS, 0, native(s)>>>(full, p);
            return kern_cuda_check(s, op, cudaGetLastError());
        });
}

__global__ void clip_kernel(const float *sum, float *norm, float *factor, double clip)
{
    const float root = sqrtf(*sum);
    const float f = static_cast<float>(clip) / (root + 1e-6f);
    if (norm != nullptr) *norm = root;
    *factor = isinf(clip) || f > 1.0f ? 1.0f : f; /* NaN is not above 1 and stays */
}

} // namespace

extern "C" base_status_t kern_cuda_grad_norm(base_stream_t *s, const kern_grad_norm_t *args)
{
    if (args->sum.dtype != KERN_F32) return BASE_ERR_UNSUPPORTED;
    sum_params p = {};
    p.sum = kern_cuda_pointer<float>(args->sum.mem);
    return run<float, square>(s, "grad_norm", args->num_gradients, args->gradients, p);
}

extern "C" base_status_t kern_cuda_clip_factor(base_stream_t *s, const kern_clip_factor_t *args)
{
    if (args->factor.dtype != KERN_F32) return BASE_ERR_UNSUPPORTED;
    float *norm = kern_mat_absent(&args->norm) ? nullptr : kern_cuda_pointer<float>(args->norm.mem);
    clip_kernel<<<1, 1, 0, native(s)>>>(kern_cuda_pointer<const float>(args->sum.mem), norm,
                                        kern_cuda_pointer<float>(args->factor.mem), args->clip);
    return kern_cuda_check(s, "clip_factor", cudaGetLastError());
}

extern "C" base_status_t kern_cuda_finite_check(base_stream_t *s, const kern_finite_check_t *args)
{
    sum_params p = {};
    p.count = kern_cuda_pointer<int32_t>(args->count.mem);
    p.keep = args->keep != 0;
    if (args->dtype == KERN_F32)
        return run<float, not_finite>(s, "finite_check", args->num_tensors, args->tensors, p);
    if (args->dtype == KERN_BF16)
        return run<bf16, not_finite>(s, "finite_check", args->num_tensors, args->tensors, p);
    return BASE_ERR_UNSUPPORTED;
}
