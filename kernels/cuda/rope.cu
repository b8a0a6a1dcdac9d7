/* The table, and the rotation between a fused projection and the head-major layout of attention. A
 * thread takes N elements of the lower half of a head and the N that are rotated with them. A
 * position outside the table makes the row's q and k NaN. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/real_vector.cuh"

#include <cmath>

using namespace kern_real;

namespace
{

/* ==== the table ==== */

constexpr int TABLE_THREADS = 256, MAX_FREQUENCIES = 512;

struct table_params {
    float *at;
    int64_t pitch, positions;
    int32_t half, first, count; /* frequencies [first, first + count) of half */
    double scale;
    double inv_freq[MAX_FREQUENCIES];
};
static_assert(sizeof(table_params) <= 4096 + 512, "parameters of a launch");

__global__ void __launch_bounds__(TABLE_THREADS)
    table_kernel(const __grid_constant__ table_params p)
{
    const int64_t item = int64_t{blockIdx.x} * TABLE_THREADS + threadIdx.x;
    const int64_t position = item / p.count;
    const int32_t i = static_cast<int32_t>(item - position * p.count);
    double sine, cosine;
    if (position >= p.positions) return;
    sincos(static_cast<double>(position) * p.inv_freq[i], &sine, &cosine);
    float *row = p.at + position * p.pitch + p.first + i;
    row[0] = static_cast<float>(p.scale * cosine);
    row[p.half] = static_cast<float>(p.scale * sine);
}

/* ==== the rotation ==== */

struct rope_params {
    matrix<bf16> fused;
    const int32_t *positions;
    matrix<const float> cos_sin;
    bf16 *q, *k, *v;
    int64_t head_rows, table_rows;
    int32_t q_heads, kv_heads, group, dim;
};

/* Where head `head` of row t lies in q, k or v. */
__device__ __forceinline__ bf16 *head_place(const rope_params &p, int64_t t, int head)
{
    if (head < p.q_heads) {
        const int h = head / p.group, r = head - h * p.group;
        return p.q + ((h * p.head_rows + t) * p.group + r) * p.dim;
    }
    if (head < p.q_heads + p.kv_heads) return p.k + ((head - p.q_heads) * p.head_rows + t) * p.dim;
    return p.v + ((head - p.q_heads - p.kv_heads) * p.head_rows + t) * p.dim;
}

/* j counts through the lower halves of all heads of a row. */
template <int N, bool FORWARD> struct rope_work {
    rope_params p;

    __device__ void operator()(int64_t t, int64_t j) const
    {
        const int middle = p.dim / 2, head = static_cast<int>(j) / middle;
        const int i = static_cast<int>(j) - head * middle;
        bf16 *const row = p.fused.row(t) + int64_t{head} * p.dim + i;
        bf16 *const piece = head_place(p, t, head) + i;
        const bf16 *from = FORWARD ? row : piece;
        bf16 *to = FORWARD ? piece : row;
        const values<N> low = load<N>(from), high = load<N>(from + middle);
        if (head >= p.q_heads + p.kv_heads) { /* v */
            store<N>(to, low);
            store<N>(to + middle, high);
            return;
        }
        const int32_t position = p.positions[t];
        values<N> c, s, out_low, out_high;
        if (position >= 0 && position < p.table_rows) {
            c = load<N>(p.cos_sin.row(position) + i);
            s = load<N>(p.cos_sin.row(position) + middle + i);
        } else {
#pragma unroll
            for (int n = 0; n < N; n++)
                c.v[n] = s.v[n] = NAN;
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float sine = FORWARD ? s.v[n] : -s.v[n];
            out_low.v[n] = low.v[n] * c.v[n] - high.v[n] * sine;
            out_high.v[n] = high.v[n] * c.v[n] + low.v[n] * sine;
        }
        store<N>(to, out_low);
        store<N>(to + middle, out_high);
    }
};

template <bool FORWARD>
base_status_t run_rope(base_stream_t *s, const char *op, const rope_params &p, int64_t rows,
                       bool fused_chunks)
{
    const uintptr_t places = reinterpret_cast<uintptr_t>(p.q) | reinterpret_cast<uintptr_t>(p.k) |
                             reinterpret_cast<uintptr_t>(p.v) |
                             reinterpret_cast<uintptr_t>(p.cos_sin.at);
    const bool chunked =
        fused_chunks && places % 16 == 0 && p.dim % (2 * CHUNK) == 0 && p.cos_sin.pitch % 4 == 0;
    const int64_t cols = int64_t{p.q_heads + 2 * p.kv_heads} * (p.dim / 2);
    return chunked ? each<CHUNK>(s, op, rows, cols, rope_work<CHUNK, FORWARD>{p})
                   : each<1>(s, op, rows, cols, rope_work<1, FORWARD>{p});
}

} // namespace

extern "C" base_status_t kern_cuda_rope_table(base_stream_t *s, const kern_rope_table_t *args)
{
    if (args->cos_sin.dtype != KERN_F32) return BASE_ERR_UNSUPPORTED;
    const int64_t half_dim = args->cos_sin.cols / 2;
    table_params p;
    p.at = kern_cuda_pointer<float>(args->cos_sin.mem);
    p.pitch = args->cos_sin.pitch;
    p.positions = args->cos_sin.rows;
    p.half = static_cast<int32_t>(half_dim);
    p.scale = args->scale;
    for (int64_t first = 0; first < half_dim && p.positions > 0; first += MAX_FREQUENCIES) {
        p.first = static_cast<int32_t>(first);
        p.count = static_cast<int32_t>(half_dim - first < MAX_FREQUENCIES ? half_dim - first
                                                                          : MAX_FREQUENCIES);
        for (int32_t i = 0; i < p.count; i++)
            p.inv_freq[i] = args->inv_freq[first + i];
        table_kernel<<<blocks_of(p.positions * p.count, TABLE_THREADS), TABLE_THREADS, 0,
                       native(s)>>>(p);
        BASE_TRY(kern_cuda_check(s, "rope_table", cudaGetLastError()));
    }
    return BASE_OK;
}

extern "C" base_status_t kern_cuda_rope_fwd(base_stream_t *s, const kern_rope_fwd_t *args)
{
    if (args->qkv.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    const rope_params p = {matrix_of<bf16>(args->qkv),
                           kern_cuda_pointer<const int32_t>(args->positions.mem),
                           matrix_of<const float>(args->cos_sin),
                           kern_cuda_pointer<bf16>(args->q),
                           kern_cuda_pointer<bf16>(args->k),
                           kern_cuda_pointer<bf16>(args->v),
                           args->head_rows,
                           args->cos_sin.rows,
                           args->num_q_heads,
                           args->num_kv_heads,
                           args->num_q_heads / args->num_kv_heads,
                           args->head_dim};
    return run_rope<true>(s, "rope_fwd", p, args->qkv.rows, in_chunks(args->qkv));
}

extern "C" base_status_t kern_cuda_rope_bwd(base_stream_t *s, const kern_rope_bwd_t *args)
{
    if (args->dqkv.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    const rope_params p = {matrix_of<bf16>(args->dqkv),
                           kern_cuda_pointer<const int32_t>(args->positions.mem),
                           matrix_of<const float>(args->cos_sin),
                           kern_cuda_pointer<bf16>(args->dq),
                           kern_cuda_pointer<bf16>(args->dk),
                           kern_cuda_pointer<bf16>(args->dv),
                           args->head_rows,
                           args->cos_sin.rows,
                           args->num_q_heads,
                           args->num_kv_heads,
                           args->num_q_heads / args->num_kv_heads,
                           args->head_dim};
    return run_rope<false>(s, "rope_bwd", p, args->dqkv.rows, in_chunks(args->dqkv));
}
