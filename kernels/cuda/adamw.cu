/* One kernel for all tensors of an adapter. Every operation is rounded by itself (no fused multiply
 * and add), in the order of kernels/cpu/adamw.c: the same bits as there in fp32. */
#include "kernels/adamw_terms.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/tensor_list.cuh"

using namespace kern_real;

namespace
{

struct adamw_entry {
    float *w, *m, *v;
    const float *gradient;
    void *copy;
    int64_t rows, cols, w_pitch, m_pitch, v_pitch, gradient_pitch, copy_pitch;
};
constexpr int MAX_TENSORS = 256;
using list_t = tensor_list<adamw_entry, MAX_TENSORS>;

struct adamw_params {
    float keep, blend_m, beta2, blend_v, step_size, root_bias_v, eps;
    const float *clip;
    const int32_t *skip;
    list_t list;
};
static_assert(sizeof(adamw_params) <= 32000, "parameters of a launch");

__device__ __forceinline__ void update(const adamw_params &p, float clip, float gradient, float *w,
                                       float *m, float *v)
{
    const float g = __fmul_rn(clip, gradient);
    *w = __fmul_rn(*w, p.keep);
    *m = __fadd_rn(*m, __fmul_rn(p.blend_m, __fsub_rn(g, *m)));
    *v = __fadd_rn(__fmul_rn(p.beta2, *v), __fmul_rn(__fmul_rn(p.blend_v, g), g));
    const float below = __fadd_rn(__fdiv_rn(__fsqrt_rn(*v), p.root_bias_v), p.eps);
    *w = __fsub_rn(*w, __fdiv_rn(__fmul_rn(p.step_size, *m), below));
}

/* N elements of one row, from column j on. */
template <class Copy, int N>
__device__ __forceinline__ void update_chunk(const adamw_params &p, const adamw_entry &e,
                                             float clip, int64_t row, int64_t j)
{
    float *const w_at = e.w + row * e.w_pitch + j, *const m_at = e.m + row * e.m_pitch + j,
                 *const v_at = e.v + row * e.v_pitch + j;
    values<N> w = load<N>(w_at), m = load<N>(m_at), v = load<N>(v_at);
    const values<N> g = load<N>(e.gradient + row * e.gradient_pitch + j);
#pragma unroll
    for (int i = 0; i < N; i++)
        update(p, clip, g.v[i], &w.v[i], &m.v[i], &v.v[i]);
    store<N>(w_at, w);
    store<N>(m_at, m);
    store<N>(v_at, v);
    if (e.copy != nullptr) store<N>(static_cast<Copy *>(e.copy) + row * e.copy_pitch + j, w);
}

__device__ __forceinline__ bool all_chunks(const adamw_entry &e, int copy_bytes)
{
    const uintptr_t places = reinterpret_cast<uintptr_t>(e.w) | reinterpret_cast<uintptr_t>(e.m) |
                             reinterpret_cast<uintptr_t>(e.v) |
                             reinterpret_cast<uintptr_t>(e.gradient) |
                             reinterpret_cast<uintptr_t>(e.copy);
    const int64_t pitches = e.w_pitch | e.m_pitch | e.v_pitch | e.gradient_pitch;
    return places % 16 == 0 && (e.cols | pitches | e.copy_pitch) % CHUNK == 0 && copy_bytes > 0;
}

template <class Copy>
__global__ void __launch_bounds__(LIST_THREADS, 4)
    adamw_kernel(const __grid_constant__ adamw_params p)
{
    if (p.skip != nullptr && *p.skip != 0) return;
    const piece_place at = find_piece(p.list);
    const adamw_entry &e = p.list.entries[at.entry];
    const float clip = p.clip == nullptr ? 1.0f : *p.clip;
    if (all_chunks(e, sizeof(Copy))) {
        for (int64_t i = at.begin + threadIdx.x * CHUNK; i < at.end; i += LIST_THREADS * CHUNK) {
            const int64_t row = row_of(i, e.cols);
            update_chunk<Copy, CHUNK>(p, e, clip, row, i - row * e.cols);
        }
        return;
    }
    for (int64_t i = at.begin + threadIdx.x; i < at.end; i += LIST_THREADS) {
        const int64_t row = row_of(i, e.cols);
        update_chunk<Copy, 1>(p, e, clip, row, i - row * e.cols);
    }
}

adamw_entry entry_of(const kern_adamw_tensor_t &t)
{
    return {kern_cuda_pointer<float>(t.w.mem),
            kern_cuda_pointer<float>(t.m.mem),
            kern_cuda_pointer<float>(t.v.mem),
            kern_cuda_pointer<const float>(t.gradient.mem),
            kern_mat_absent(&t.copy) ? nullptr : base_mem_address(t.copy.mem),
            t.w.rows,
            t.w.cols,
            t.w.pitch,
            t.m.pitch,
            t.v.pitch,
            t.gradient.pitch,
            kern_mat_absent(&t.copy) ? 0 : t.copy.pitch};
}

} // namespace

extern "C" base_status_t kern_cuda_adamw(base_stream_t *s, const kern_adamw_t *args)
{
    if (args->dtype != KERN_BF16 && args->dtype != KERN_F32) return BASE_ERR_UNSUPPORTED;
    const kern_adamw_terms_t terms = kern_adamw_terms(args);
    const cudaStream_t stream = native(s);
    const bool narrow = args->dtype == KERN_BF16;
    adamw_params p;
    int64_t pieces = 0;
    p.keep = static_cast<float>(terms.keep);
    p.blend_m = static_cast<float>(terms.blend_m);
    p.beta2 = static_cast<float>(terms.beta2);
    p.blend_v = static_cast<float>(terms.blend_v);
    p.step_size = static_cast<float>(terms.step_size);
    p.root_bias_v = static_cast<float>(terms.root_bias_v);
    p.eps = static_cast<float>(terms.eps);
    p.clip = kern_mat_absent(&args->clip) ? nullptr : kern_cuda_pointer<float>(args->clip.mem);
    p.skip = kern_mat_absent(&args->skip) ? nullptr : kern_cuda_pointer<int32_t>(args->skip.mem);
    return for_lists(
        args->num_tensors, p.list, &pieces, [&](int64_t i) { return entry_of(args->tensors[i]); },
        [&](const list_t &list) {
            const unsigned blocks = static_cast<unsigned>(list.pieces);
            if (narrow)
                adamw_kernel<bf16><<<blocks, LIST_THREADS, 0, stream>>>(p);
            else
                adamw_kernel<float><<<blocks, LIST_THREADS, 0, stream>>>(p);
            return kern_cuda_check(s, "adamw", cudaGetLastError());
        });
}
