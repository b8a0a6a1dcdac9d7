/* A token outside the vocabulary reads nothing: its row becomes NaN, and in the backward it adds
 * nothing. The gradient is made without atomics: the block of a token's first row adds the rows of
 * all its occurrences, ascending; blocks of later occurrences end after a look at the tokens before
 * theirs (T^2 / 2 comparisons in all, which stay in L2). */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/real_vector.cuh"

#include <cmath>

using namespace kern_real;

namespace
{

constexpr int THREADS = 256;

template <int N> struct gather_work {
    const int32_t *tokens;
    matrix<const bf16> table;
    matrix<bf16> out;
    int64_t vocabulary;

    __device__ void operator()(int64_t t, int64_t j) const
    {
        const int32_t token = tokens[t];
        values<N> x;
        if (token >= 0 && token < vocabulary) {
            x = load<N>(table.row(token) + j);
        } else {
#pragma unroll
            for (int i = 0; i < N; i++)
                x.v[i] = NAN;
        }
        store<N>(out.row(t) + j, x);
    }
};

template <int N> base_status_t run_fwd(base_stream_t *s, const kern_embedding_fwd_t *args)
{
    const gather_work<N> work = {kern_cuda_pointer<const int32_t>(args->tokens.mem),
                                 matrix_of<const bf16>(args->table), matrix_of<bf16>(args->out),
                                 args->table.rows};
    return each<N>(s, "embedding_fwd", args->out.rows, args->out.cols, work);
}

struct backward_params {
    const int32_t *tokens;
    matrix<const bf16> dout;
    matrix<float> dtable;
    int64_t rows, cols, vocabulary;
};

__device__ bool seen_before(const int32_t *tokens, int64_t t, int32_t token)
{
    for (int64_t base = 0; base < t; base += THREADS) {
        const int64_t i = base + threadIdx.x;
        if (__syncthreads_or(i < t && tokens[i] == token)) return true;
    }
    return false;
}

__global__ void __launch_bounds__(THREADS) backward_kernel(backward_params p)
{
    __shared__ uint32_t match[THREADS / 32];
    const int64_t first = blockIdx.x;
    const int32_t token = p.tokens[first];
    if (token < 0 || token >= p.vocabulary || seen_before(p.tokens, first, token)) return;
    float *const sum = p.dtable.row(token);
    for (int64_t base = first; base < p.rows; base += THREADS) {
        const int64_t mine = base + threadIdx.x;
        const uint32_t hits = __ballot_sync(~0u, mine < p.rows && p.tokens[mine] == token);
        __syncthreads();
        if (threadIdx.x % 32 == 0) match[threadIdx.x / 32] = hits;
        __syncthreads();
        for (int warp = 0; warp < THREADS / 32; warp++)
            for (uint32_t left = match[warp]; left != 0; left &= left - 1) {
                const bf16 *row = p.dout.row(base + warp * 32 + __ffs(static_cast<int>(left)) - 1);
                for (int64_t j = threadIdx.x; j < p.cols; j += THREADS)
                    sum[j] += __bfloat162float(row[j]);
            }
    }
}

} // namespace

extern "C" base_status_t kern_cuda_embedding_fwd(base_stream_t *s, const kern_embedding_fwd_t *args)
{
    if (args->out.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    return in_chunks(args->table, args->out) ? run_fwd<CHUNK>(s, args) : run_fwd<1>(s, args);
}

extern "C" base_status_t kern_cuda_embedding_bwd(base_stream_t *s, const kern_embedding_bwd_t *args)
{
    if (args->dout.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    const backward_params p = {kern_cuda_pointer<const int32_t>(args->tokens.mem),
                               matrix_of<const bf16>(args->dout),
                               matrix_of<float>(args->dtable),
                               args->dout.rows,
                               args->dout.cols,
                               args->dtable.rows};
    if (p.rows == 0 || p.cols == 0) return BASE_OK;
    backward_kernel<<<static_cast<unsigned>(p.rows), THREADS, 0, native(s)>>>(p);
    return kern_cuda_check(s, "embedding_bwd", cudaGetLastError());
}
