/* One kernel for all tensors of an adapter. Every operation is rounded by itself (no fused multiply
 * and add), in the order of kernels/cpu/adamw.c: the same bits as there in fp32. The two quotients
 * and the root are those of kernels/exact_quotient.h, without branches, so that the eight elements of
 * a thread overlap; a thread of which one is out of their range takes IEEE's own.
 *
 * Memory is what limits it (30 bytes an element), so a warp's accesses are whole lines: four
 * neighbouring elements a thread, twice, all loads before the first use. Tensors that do not allow it
 * (gaps between the rows of masters, moments or gradients, odd places) go one by one, in launches of
 * their own. */
#include "kernels/adamw_terms.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/tensor_list.cuh"
#include "kernels/exact_quotient.h"

#include <climits>

using namespace kern_real;

namespace
{

constexpr int FOUR = 4, TURN = LIST_THREADS * FOUR;
static_assert(UNIT == 2 * TURN, "a thread has a unit's elements in two fours");

/* Without gaps, but for the copy's. */
struct flat_entry {
    float *w, *m, *v;
    const float *gradient;
    void *copy;
    int64_t elements;
    int32_t cols, copy_pitch;
};
struct pitched_entry {
    float *w, *m, *v;
    const float *gradient;
    void *copy;
    int64_t elements, cols, w_pitch, m_pitch, v_pitch, gradient_pitch, copy_pitch;
};

struct adamw_params {
    float keep, blend_m, beta2, blend_v, step_size, root_bias_v, inverse_bias_v, eps;
    int32_t tame; /* are root_bias_v and eps within what the fast quotients want? */
    const float *clip;
    const int32_t *skip;
};
using flat_list = tensor_list<flat_entry, 512>; /* an 8B model has 448 */
using pitched_list = tensor_list<pitched_entry, 256>;
static_assert(sizeof(flat_list) + sizeof(adamw_params) <= 32764, "parameters of a launch");
static_assert(sizeof(pitched_list) + sizeof(adamw_params) <= 32764, "parameters of a launch");

/* With root_bias_v in [2^-10, 1], eps in [2^-60, 1] and v = 0 or in [V_LOW, V_HIGH], the divisor
 * below is in [2^-60, 2^31]. */
constexpr float BIAS_LOW = 0x1p-10f, EPS_LOW = 0x1p-60f;
constexpr float V_LOW = 0x1p-100f, V_HIGH = 0x1p40f, TOP_LOW = 0x1p-95f, TOP_HIGH = 0x1p60f;

__device__ __forceinline__ float near_root_inverse(float x)
{
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float near_inverse(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* What is taken off w: top / (sqrt(v) / root_bias_v + eps). */
__device__ __forceinline__ float change_ieee(const adamw_params &p, float top, float v)
{
    return __fdiv_rn(top, __fadd_rn(__fdiv_rn(__fsqrt_rn(v), p.root_bias_v), p.eps));
}
/* The same bits where *fits stays 1. */
__device__ __forceinline__ float change_fast(const adamw_params &p, float top, float v, int *fits)
{
    const float root = kern_exact_root(v, near_root_inverse(v));
    const float below =
        __fadd_rn(kern_exact_quotient_by(root, p.root_bias_v, p.inverse_bias_v), p.eps);
    *fits &= kern_exact_between(v, V_LOW, V_HIGH) & kern_exact_between(top, TOP_LOW, TOP_HIGH) &
             kern_exact_divisor(below);
    return kern_exact_quotient(top, below, near_inverse(below));
}

template <int N>
__device__ __forceinline__ void update(const adamw_params &p, float clip, const values<N> &gradient,
                                       values<N> &w, values<N> &m, values<N> &v)
{
    values<N> top, change;
    int fits = p.tame;
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float g = __fmul_rn(clip, gradient.v[i]);
        m.v[i] = __fadd_rn(m.v[i], __fmul_rn(p.blend_m, __fsub_rn(g, m.v[i])));
        v.v[i] = __fadd_rn(__fmul_rn(p.beta2, v.v[i]), __fmul_rn(__fmul_rn(p.blend_v, g), g));
        top.v[i] = __fmul_rn(p.step_size, m.v[i]);
        change.v[i] = change_fast(p, top.v[i], v.v[i], &fits);
    }
    if (fits == 0) {
#pragma unroll
        for (int i = 0; i < N; i++)
            change.v[i] = change_ieee(p, top.v[i], v.v[i]);
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        w.v[i] = __fsub_rn(__fmul_rn(w.v[i], p.keep), change.v[i]);
}

__device__ __forceinline__ values<FOUR> load_four(const float *p)
{
    const float4 x = *reinterpret_cast<const float4 *>(p);
    return {{x.x, x.y, x.z, x.w}};
}
__device__ __forceinline__ void store_four(float *p, const values<FOUR> &x)
{
    store_raw(p, make_float4(x.v[0], x.v[1], x.v[2], x.v[3]));
}
__device__ __forceinline__ void store_four(bf16 *p, const values<FOUR> &x)
{
    store_raw(p, make_uint2(pack(x.v[0], x.v[1]), pack(x.v[2], x.v[3])));
}

/* Row and column of an element of the copy, moved on by TURN elements at a time. */
struct copy_place {
    int64_t row;
    int32_t col, rows_more, cols_more;

    __device__ copy_place(int64_t element, int32_t cols)
        : row(row_of(element, cols)), col(static_cast<int32_t>(element - row * cols)),
          rows_more(TURN / cols), cols_more(TURN - rows_more * cols)
    {
    }
    __device__ void move(int32_t cols)
    {
        row += rows_more;
        col += cols_more;
        if (col >= cols) {
            col -= cols;
            row++;
        }
    }
};

template <class Copy> struct flat_four {
    values<FOUR> w, m, v, gradient;

    __device__ void read(const flat_entry &e, int64_t i)
    {
        w = load_four(e.w + i);
        m = load_four(e.m + i);
        v = load_four(e.v + i);
        gradient = load_four(e.gradient + i);
    }
    __device__ void write(const flat_entry &e, int64_t i, const copy_place &at) const
    {
        store_four(e.w + i, w);
        store_four(e.m + i, m);
        store_four(e.v + i, v);
        if (e.copy != nullptr)
            store_four(static_cast<Copy *>(e.copy) + at.row * e.copy_pitch + at.col, w);
    }
};

template <class Copy>
__global__ void __launch_bounds__(LIST_THREADS, LIST_BLOCKS_A_PROCESSOR)
    flat_kernel(const __grid_constant__ adamw_params p, const __grid_constant__ flat_list list)
{
    if (p.skip != nullptr && *p.skip != 0) return;
    const float clip = p.clip == nullptr ? 1.0f : *p.clip;
    for_share(list, [&](const flat_entry &e, int64_t begin, int64_t end) {
        int64_t i = begin + threadIdx.x * FOUR;
        copy_place at(i, e.cols);
        for (; i < end; i += UNIT) {
            const bool both = i + TURN < end;
            flat_four<Copy> one, two = {};
            one.read(e, i);
            if (both) two.read(e, i + TURN);
            update(p, clip, one.gradient, one.w, one.m, one.v);
            one.write(e, i, at);
            at.move(e.cols);
            if (both) {
                update(p, clip, two.gradient, two.w, two.m, two.v);
                two.write(e, i + TURN, at);
            }
            at.move(e.cols);
        }
    });
}

template <class Copy>
__global__ void __launch_bounds__(LIST_THREADS)
    pitched_kernel(const __grid_constant__ adamw_params p,
                   const __grid_constant__ pitched_list list)
{
    if (p.skip != nullptr && *p.skip != 0) return;
    const float clip = p.clip == nullptr ? 1.0f : *p.clip;
    for_share(list, [&](const pitched_entry &e, int64_t begin, int64_t end) {
        for (int64_t i = begin + threadIdx.x; i < end; i += LIST_THREADS) {
            const int64_t row = row_of(i, e.cols), j = i - row * e.cols;
            float *const w_at = e.w + row * e.w_pitch + j, *const m_at = e.m + row * e.m_pitch + j,
                         *const v_at = e.v + row * e.v_pitch + j;
            values<1> w = load<1>(w_at), m = load<1>(m_at), v = load<1>(v_at);
            update(p, clip, load<1>(e.gradient + row * e.gradient_pitch + j), w, m, v);
            store<1>(w_at, w);
            store<1>(m_at, m);
            store<1>(v_at, v);
            if (e.copy != nullptr)
                store<1>(static_cast<Copy *>(e.copy) + row * e.copy_pitch + j, w);
        }
    });
}

/* Do rows follow each other without gaps, in fours at multiples of 16 bytes? */
bool in_fours(const kern_mat_t &mat)
{
    return (mat.rows <= 1 || mat.pitch == mat.cols) && mat.cols % FOUR == 0 &&
           reinterpret_cast<uintptr_t>(base_mem_address(mat.mem)) % 16 == 0;
}

bool is_flat(const kern_adamw_tensor_t &t)
{
    if (!in_fours(t.w) || !in_fours(t.m) || !in_fours(t.v) || !in_fours(t.gradient)) return false;
    if (t.w.cols > INT32_MAX - TURN) return false;
    if (kern_mat_absent(&t.copy)) return true;
    return t.copy.pitch % FOUR == 0 && t.copy.pitch <= INT32_MAX &&
           reinterpret_cast<uintptr_t>(base_mem_address(t.copy.mem)) %
                   static_cast<uintptr_t>(FOUR * kern_dtype_bytes(t.copy.dtype)) ==
               0;
}

bool fill(const kern_adamw_tensor_t &t, flat_entry *entry)
{
    const bool copied = !kern_mat_absent(&t.copy);
    *entry = {kern_cuda_pointer<float>(t.w.mem),
              kern_cuda_pointer<float>(t.m.mem),
              kern_cuda_pointer<float>(t.v.mem),
              kern_cuda_pointer<const float>(t.gradient.mem),
              copied ? base_mem_address(t.copy.mem) : nullptr,
              t.w.rows * t.w.cols,
              static_cast<int32_t>(t.w.cols),
              copied ? static_cast<int32_t>(t.copy.pitch) : 0};
    return is_flat(t);
}

bool fill(const kern_adamw_tensor_t &t, pitched_entry *entry)
{
    const bool copied = !kern_mat_absent(&t.copy);
    *entry = {kern_cuda_pointer<float>(t.w.mem),
              kern_cuda_pointer<float>(t.m.mem),
              kern_cuda_pointer<float>(t.v.mem),
              kern_cuda_pointer<const float>(t.gradient.mem),
              copied ? base_mem_address(t.copy.mem) : nullptr,
              t.w.rows * t.w.cols,
              t.w.cols,
              t.w.pitch,
              t.m.pitch,
              t.v.pitch,
              t.gradient.pitch,
              copied ? t.copy.pitch : 0};
    return !is_flat(t);
}

/* Runs `kernel` over the tensors that a List is for. */
template <class List>
base_status_t run(base_stream_t *s, const kern_adamw_t *args, const adamw_params &p,
                  void (*kernel)(adamw_params, List))
{
    List list;
    return for_lists(
        args->num_tensors, list,
        [&](int64_t i, auto *entry) { return fill(args->tensors[i], entry); },
        [&](const List &full, bool) {
            if (full.blocks == 0) return BASE_OK;
            kernel<<<static_cast<unsigned>(full.blocks), LIST_THREADS, 0, native(s)>>>(p, full);
            return kern_cuda_check(s, "adamw", cudaGetLastError());
        });
}

adamw_params params_of(const kern_adamw_t *args)
{
    const kern_adamw_terms_t terms = kern_adamw_terms(args);
    adamw_params p;
    p.keep = static_cast<float>(terms.keep);
    p.blend_m = static_cast<float>(terms.blend_m);
    p.beta2 = static_cast<float>(terms.beta2);
    p.blend_v = static_cast<float>(terms.blend_v);
    p.step_size = static_cast<float>(terms.step_size);
    p.root_bias_v = static_cast<float>(terms.root_bias_v);
    p.inverse_bias_v = 1.0f / p.root_bias_v;
    p.eps = static_cast<float>(terms.eps);
    p.tame = p.root_bias_v >= BIAS_LOW && p.root_bias_v <= 1.0f && p.eps >= EPS_LOW &&
             p.eps <= 1.0f && kern_exact_divisor(p.root_bias_v);
    p.clip = kern_mat_absent(&args->clip) ? nullptr : kern_cuda_pointer<float>(args->clip.mem);
    p.skip = kern_mat_absent(&args->skip) ? nullptr : kern_cuda_pointer<int32_t>(args->skip.mem);
    return p;
}

} // namespace

extern "C" base_status_t kern_cuda_adamw(base_stream_t *s, const kern_adamw_t *args)
{
    if (args->dtype != KERN_BF16 && args->dtype != KERN_F32) return BASE_ERR_UNSUPPORTED;
    const adamw_params p = params_of(args);
    if (args->dtype == KERN_BF16) {
        BASE_TRY(run<flat_list>(s, args, p, flat_kernel<bf16>));
        return run<pitched_list>(s, args, p, pitched_kernel<bf16>);
    }
    BASE_TRY(run<flat_list>(s, args, p, flat_kernel<float>));
    return run<pitched_list>(s, args, p, pitched_kernel<float>);
}
