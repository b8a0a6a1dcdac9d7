/* Any pair of fp32, fp64, bf16, with one rounding: to nearest even. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/real_vector.cuh"

using namespace kern_real;

namespace
{

template <class T> __device__ double widen(T x)
{
    return static_cast<double>(x);
}
template <> __device__ double widen(bf16 x)
{
    return static_cast<double>(__bfloat162float(x));
}

template <class T> __device__ T narrow(double x)
{
    return static_cast<T>(x);
}
/* Rounded to odd in fp32 first, which leaves enough for the second rounding to be that of the exact
 * value (as kernels/cpu/convert.c). */
template <> __device__ bf16 narrow(double x)
{
    float f = __double2float_rz(x);
    if (!isnan(x) && static_cast<double>(f) != x) f = __uint_as_float(__float_as_uint(f) | 1u);
    return __float2bfloat16_rn(f);
}

template <class From, class To> struct convert_each {
    matrix<const From> a;
    matrix<To> out;

    __device__ void operator()(int64_t t, int64_t j) const
    {
        out.row(t)[j] = narrow<To>(widen(a.row(t)[j]));
    }
};

/* Between bf16 and fp32, the pair that is made often. */
template <class From, class To> struct convert_chunk {
    matrix<const From> a;
    matrix<To> out;

    __device__ void operator()(int64_t t, int64_t j) const
    {
        store<CHUNK>(out.row(t) + j, load<CHUNK>(a.row(t) + j));
    }
};

template <class From, class To> base_status_t run(base_stream_t *s, const kern_convert_t *args)
{
    const matrix<const From> a = matrix_of<const From>(args->a);
    const matrix<To> out = matrix_of<To>(args->out);
    if constexpr (!std::is_same<From, double>::value && !std::is_same<To, double>::value)
        if (in_chunks(args->a, args->out))
            return each<CHUNK>(s, "convert", args->out.rows, args->out.cols,
                               convert_chunk<From, To>{a, out});
    return each<1>(s, "convert", args->out.rows, args->out.cols, convert_each<From, To>{a, out});
}

template <class To> base_status_t run_to(base_stream_t *s, const kern_convert_t *args)
{
    switch (args->a.dtype) {
    case KERN_F32:
        return run<float, To>(s, args);
    case KERN_F64:
        return run<double, To>(s, args);
    case KERN_BF16:
        return run<bf16, To>(s, args);
    default:
        return BASE_ERR_UNSUPPORTED;
    }
}

} // namespace

extern "C" base_status_t kern_cuda_convert(base_stream_t *s, const kern_convert_t *args)
{
    switch (args->out.dtype) {
    case KERN_F32:
        return run_to<float>(s, args);
    case KERN_F64:
        return run_to<double>(s, args);
    case KERN_BF16:
        return run_to<bf16>(s, args);
    default:
        return BASE_ERR_UNSUPPORTED;
    }
}
