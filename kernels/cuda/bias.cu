#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/cuda_ops.h"

using namespace kern_real;

namespace
{

template <int N> struct bias_work {
    const bf16 *bias;
    matrix<bf16> y;

    __device__ void operator()(int64_t t, int64_t j) const
    {
        const values<N> b = load<N>(bias + j);
        values<N> x = load<N>(y.row(t) + j);
#pragma unroll
        for (int i = 0; i < N; i++)
            x.v[i] += b.v[i];
        store<N>(y.row(t) + j, x);
    }
};

template <int N> struct row_value {
    matrix<const bf16> x;

    __device__ values<N> operator()(int64_t t, int64_t j) const
    {
        return load<N>(x.row(t) + j);
    }
};

template <int N> base_status_t run_add(base_stream_t *s, const kern_bias_add_t *args)
{
    const bias_work<N> work = {kern_cuda_pointer<const bf16>(args->bias.mem),
                               matrix_of<bf16>(args->y)};
    return each<N>(s, "bias_add", args->y.rows, args->y.cols, work);
}

template <int N> base_status_t run_sum(base_stream_t *s, const kern_column_sum_t *args)
{
    return add_rows<N>(s, "column_sum", args->x.rows, args->x.cols,
                       row_value<N>{matrix_of<const bf16>(args->x)},
                       kern_cuda_pointer<float>(args->sum.mem));
}

} // namespace

extern "C" base_status_t kern_cuda_bias_add(base_stream_t *s, const kern_bias_add_t *args)
{
    if (args->y.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    return in_chunks(args->bias, args->y) ? run_add<CHUNK>(s, args) : run_add<1>(s, args);
}

extern "C" base_status_t kern_cuda_column_sum(base_stream_t *s, const kern_column_sum_t *args)
{
    if (args->x.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    return in_chunks(args->x) ? run_sum<CHUNK>(s, args) : run_sum<1>(s, args);
}
