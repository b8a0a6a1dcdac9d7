/* In place of kernels/cuda/gemm.cu, by the linker's --wrap: no kernel of cuBLASLt runs, so that
 * racecheck, which they do not survive, sees the kernels of loss_linear_ce. A thread has an element
 * of C and adds up in fp32, ascending. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/real_vector.cuh"

using namespace kern_real;

namespace
{

template <class Real> struct gemm_work {
    matrix<const bf16> a, b;
    matrix<Real> c;
    int64_t k;
    bool transpose_a, transpose_b, accumulate;

    __device__ void operator()(int64_t i, int64_t j) const
    {
        Real *const to = c.row(i) + j;
        float sum = 0.0f;
        for (int64_t l = 0; l < k; l++)
            sum += load<1>(transpose_a ? a.row(l) + i : a.row(i) + l).v[0] *
                   load<1>(transpose_b ? b.row(j) + l : b.row(l) + j).v[0];
        if (accumulate) sum += load<1>(to).v[0];
        store<1>(to, {{sum}});
    }
};

template <class Real> base_status_t launch(base_stream_t *s, const kern_gemm_t *args)
{
    const gemm_work<Real> work = {
        matrix_of<const bf16>(args->a), matrix_of<const bf16>(args->b),
        matrix_of<Real>(args->c),       args->transpose_a ? args->a.rows : args->a.cols,
        args->transpose_a != 0,         args->transpose_b != 0,
        args->accumulate != 0};
    return each<1>(s, "gemm", args->c.rows, args->c.cols, work);
}

} // namespace

extern "C" base_status_t __wrap_kern_cuda_gemm(base_stream_t *s, const kern_gemm_t *args);

extern "C" base_status_t __wrap_kern_cuda_gemm(base_stream_t *s, const kern_gemm_t *args)
{
    if (args->a.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    return args->c.dtype == KERN_F32 ? launch<float>(s, args) : launch<bf16>(s, args);
}
