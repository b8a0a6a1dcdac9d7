/* What is asked of all gradients of an adapter before its step: their norm, the factor that clips
 * it, and whether they are finite. A block a piece of a tensor, its result into scratch memory;
 * then one block adds the pieces in order. Squares are added in fp32 within a thread (64 of them)
 * and in double beyond: a sum of millions of small squares in fp32 would stop growing. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/stream_state.h"
#include "kernels/cuda/tensor_list.cuh"

#include <climits>
#include <cmath>

using namespace kern_real;

namespace
{

struct tensor_entry {
    const void *at;
    int64_t rows, cols, pitch;
};
constexpr int MAX_TENSORS = 768;
using list_t = tensor_list<tensor_entry, MAX_TENSORS>;
static_assert(sizeof(list_t) <= 32000, "parameters of a launch");

template <class T> struct square {
    __device__ static float add(float sum, float x)
    {
        return __fmaf_rn(x, x, sum);
    }
};
template <class T> struct not_finite {
    __device__ static float add(float sum, float x)
    {
        return sum + (isfinite(x) ? 0.0f : 1.0f);
    }
};

/* Adds over a piece; counts and sums of 64 elements are exact enough in fp32. */
template <class T, class Term> __device__ float thread_sum(const tensor_entry &e, piece_place at)
{
    const T *data = static_cast<const T *>(e.at);
    float sum = 0.0f;
    const bool flat = e.rows == 1 || e.pitch == e.cols;
    if (flat && reinterpret_cast<uintptr_t>(data) % 16 == 0 && at.end - at.begin == PIECE) {
#pragma unroll 4
        for (int i = 0; i < PIECE; i += LIST_THREADS * CHUNK) {
            const values<CHUNK> x = load<CHUNK>(data + at.begin + i + threadIdx.x * CHUNK);
#pragma unroll
            for (int n = 0; n < CHUNK; n++)
                sum = Term::add(sum, x.v[n]);
        }
        return sum;
    }
    if (flat && reinterpret_cast<uintptr_t>(data) % 16 == 0) {
        for (int64_t i = at.begin + threadIdx.x * CHUNK; i < at.end; i += LIST_THREADS * CHUNK) {
            if (i + CHUNK <= at.end) {
                const values<CHUNK> x = load<CHUNK>(data + i);
#pragma unroll
                for (int n = 0; n < CHUNK; n++)
                    sum = Term::add(sum, x.v[n]);
            } else {
                for (int64_t n = i; n < at.end; n++)
                    sum = Term::add(sum, load<1>(data + n).v[0]);
            }
        }
        return sum;
    }
    for (int64_t i = at.begin + threadIdx.x; i < at.end; i += LIST_THREADS) {
        const int64_t row = row_of(i, e.cols);
        sum = Term::add(sum, load<1>(data + row * e.pitch + i - row * e.cols).v[0]);
    }
    return sum;
}

__device__ double block_sum_double(double x)
{
    __shared__ double part[LIST_THREADS];
    part[threadIdx.x] = x;
    for (int half = LIST_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (static_cast<int>(threadIdx.x) < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    __syncthreads();
    return part[0];
}

template <class T, template <class> class Term>
__global__ void __launch_bounds__(LIST_THREADS)
    piece_kernel(const __grid_constant__ list_t list, double *partial)
{
    const piece_place at = find_piece(list);
    const double sum =
        block_sum_double(static_cast<double>(thread_sum<T, Term<T>>(list.entries[at.entry], at)));
    if (threadIdx.x == 0) partial[list.before + blockIdx.x] = sum;
}

__global__ void __launch_bounds__(LIST_THREADS)
    total_kernel(const double *partial, int64_t pieces, float *sum, int32_t *count, bool keep)
{
    double mine = 0.0;
    for (int64_t i = threadIdx.x; i < pieces; i += LIST_THREADS)
        mine += partial[i];
    mine = block_sum_double(mine);
    if (threadIdx.x != 0) return;
    if (sum != nullptr) *sum = static_cast<float>(mine);
    if (count == nullptr) return;
    if (keep) mine += *count;
    *count = mine < INT32_MAX ? static_cast<int32_t>(mine) : INT32_MAX;
}

template <class T, template <class> class Term>
base_status_t run(base_stream_t *s, const char *op, int64_t num, const kern_mat_t *tensors,
                  float *sum, int32_t *count, bool keep)
{
    const cudaStream_t stream = native(s);
    list_t list;
    void *scratch = nullptr;
    int64_t pieces = 0, all = 0;
    for (int64_t i = 0; i < num; i++)
        all += tensors[i].rows * tensors[i].cols / PIECE + 1;
    if (all > KERN_CUDA_SCRATCH_BYTES / 8)
        return BASE_FAIL(base_device_ctx(base_stream_device(s)), BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: %lld pieces of tensors, want at most %lld", op,
                         static_cast<long long>(all),
                         static_cast<long long>(KERN_CUDA_SCRATCH_BYTES / 8));
    BASE_TRY(kern_cuda_scratch(s, &scratch));
    double *partial = static_cast<double *>(scratch);
    BASE_TRY(for_lists(
        num, list, &pieces,
        [&](int64_t i) {
            const kern_mat_t &m = tensors[i];
            return tensor_entry{base_mem_address(m.mem), m.rows, m.cols, m.pitch};
        },
        [&](const list_t &full) {
            piece_kernel<T, Term>
                <<<static_cast<unsigned>(full.pieces), LIST_THREADS, 0, stream>>>(full, partial);
            return kern_cuda_check(s, op, cudaGetLastError());
        }));
    total_kernel<<<1, LIST_THREADS, 0, stream>>>(partial, pieces, sum, count, keep);
    return kern_cuda_check(s, op, cudaGetLastError());
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
    return run<float, square>(s, "grad_norm", args->num_gradients, args->gradients,
                              kern_cuda_pointer<float>(args->sum.mem), nullptr, false);
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
    int32_t *count = kern_cuda_pointer<int32_t>(args->count.mem);
    if (args->dtype == KERN_F32)
        return run<float, not_finite>(s, "finite_check", args->num_tensors, args->tensors, nullptr,
                                      count, args->keep != 0);
    if (args->dtype == KERN_BF16)
        return run<bf16, not_finite>(s, "finite_check", args->num_tensors, args->tensors, nullptr,
                                     count, args->keep != 0);
    return BASE_ERR_UNSUPPORTED;
}
