#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/real_vector.cuh"

using namespace kern_real;

namespace
{

template <int N> struct add_work {
    matrix<const bf16> a, b;
    matrix<bf16> out;

    __device__ void operator()(int64_t t, int64_t j) const
    {
        const values<N> x = load<N>(a.row(t) + j), y = load<N>(b.row(t) + j);
        values<N> sum;
#pragma unroll
        for (int i = 0; i < N; i++)
            sum.v[i] = x.v[i] + y.v[i];
        store<N>(out.row(t) + j, sum);
    }
};

template <int N> base_status_t run(base_stream_t *s, const kern_add_t *args)
{
    const add_work<N> work = {matrix_of<const bf16>(args->a), matrix_of<const bf16>(args->b),
                              matrix_of<bf16>(args->out)};
    return each<N>(s, "add", args->out.rows, args->out.cols, work);
}

} // namespace

extern "C" base_status_t kern_cuda_add(base_stream_t *s, const kern_add_t *args)
{
    if (args->out.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    return in_chunks(args->a, args->b, args->out) ? run<CHUNK>(s, args) : run<1>(s, args);
}
