#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/real_vector.cuh"

using namespace kern_real;

namespace
{

/* The fast exponential and quotient are off by 2^-17 at most, bf16 rounds to 2^-9. exp(-g) may
 * overflow to infinity; then the quotient is 0, as it should. */
__device__ __forceinline__ float sigmoid(float g)
{
    return __fdividef(1.0f, 1.0f + __expf(-g));
}

template <int N> struct forward_work {
    matrix<const bf16> gate_up;
    matrix<bf16> act;
    int64_t cols;

    __device__ void operator()(int64_t t, int64_t j) const
    {
        const bf16 *row = gate_up.row(t) + j;
        const values<N> gate = load<N>(row), up = load<N>(row + cols);
        values<N> out;
#pragma unroll
        for (int i = 0; i < N; i++)
            out.v[i] = gate.v[i] * sigmoid(gate.v[i]) * up.v[i];
        store<N>(act.row(t) + j, out);
    }
};

/* silu(g) = g s with s = sigmoid(g), s' = s (1 - s), so silu'(g) = s (1 + g (1 - s)). */
template <int N> struct backward_work {
    matrix<const bf16> dact, gate_up;
    matrix<bf16> dgate_up;
    int64_t cols;

    __device__ void operator()(int64_t t, int64_t j) const
    {
        const bf16 *row = gate_up.row(t) + j;
        const values<N> gate = load<N>(row), up = load<N>(row + cols);
        const values<N> d = load<N>(dact.row(t) + j);
        values<N> dgate, dup;
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float g = gate.v[i], s = sigmoid(g);
            dgate.v[i] = d.v[i] * up.v[i] * s * (1.0f + g * (1.0f - s));
            dup.v[i] = d.v[i] * g * s;
        }
        store<N>(dgate_up.row(t) + j, dgate);
        store<N>(dgate_up.row(t) + cols + j, dup);
    }
};

template <int N> base_status_t run_fwd(base_stream_t *s, const kern_swiglu_fwd_t *args)
{
    const forward_work<N> work = {matrix_of<const bf16>(args->gate_up), matrix_of<bf16>(args->act),
                                  args->act.cols};
    return each<N>(s, "swiglu_fwd", args->act.rows, args->act.cols, work);
}

template <int N> base_status_t run_bwd(base_stream_t *s, const kern_swiglu_bwd_t *args)
{
    const backward_work<N> work = {matrix_of<const bf16>(args->dact),
                                   matrix_of<const bf16>(args->gate_up),
                                   matrix_of<bf16>(args->dgate_up), args->dact.cols};
    return each<N>(s, "swiglu_bwd", args->dact.rows, args->dact.cols, work);
}

} // namespace

extern "C" base_status_t kern_cuda_swiglu_fwd(base_stream_t *s, const kern_swiglu_fwd_t *args)
{
    if (args->act.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    return in_chunks(args->act, args->gate_up) ? run_fwd<CHUNK>(s, args) : run_fwd<1>(s, args);
}

extern "C" base_status_t kern_cuda_swiglu_bwd(base_stream_t *s, const kern_swiglu_bwd_t *args)
{
    if (args->dact.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    return in_chunks(args->dact, args->gate_up, args->dgate_up) ? run_bwd<CHUNK>(s, args)
                                                                : run_bwd<1>(s, args);
}
