/* delta = rowsum(d_o o). Limited by memory: 16 lanes a (row, head), 16 bytes a lane and step, and of
 * heads that are one step ITEMS at a time, all loads before the first sum. The order of a row's sum
 * is fixed: a lane's elements ascending, then a tree over lanes. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/real_vector.cuh"

using namespace kern_real;

namespace
{

constexpr int THREADS = 256, LANES = 16, GROUPS = THREADS / LANES, ITEMS = 4;

struct delta_params {
    const __nv_bfloat16 *d_o, *o;
    float *delta;
    int64_t rows, d_o_pitch, o_pitch, head_rows;
    int32_t q_heads, group, head_dim;
};

__device__ __forceinline__ float dot8(uint4 a8, uint4 b8, float sum)
{
    const values<CHUNK> a = unpack(a8), b = unpack(b8);
#pragma unroll
    for (int i = 0; i < CHUNK; i++)
        sum = __fmaf_rn(a.v[i], b.v[i], sum);
    return sum;
}

__device__ __forceinline__ void finish(const delta_params &p, int64_t row, int head, float sum)
{
    sum = lane_sum<LANES>(sum); /* all lanes take part */
    if (row < p.rows && threadIdx.x % LANES == 0)
        p.delta[(head / p.group * p.head_rows + row) * p.group + head % p.group] = sum;
}

/* A head is at most one chunk a lane. */
__global__ void __launch_bounds__(THREADS) short_kernel(delta_params p)
{
    const int lane = threadIdx.x % LANES, element = lane * CHUNK;
    const int64_t first = int64_t{blockIdx.x} * GROUPS * ITEMS + threadIdx.x / LANES;
    int64_t rows[ITEMS];
    int heads[ITEMS];
    uint4 d_o[ITEMS], o[ITEMS];
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        rows[i] = row_of(first + i * GROUPS, p.q_heads);
        heads[i] = static_cast<int>(first + i * GROUPS - rows[i] * p.q_heads);
        const int64_t column = int64_t{heads[i]} * p.head_dim + element;
        const bool live = rows[i] < p.rows && element < p.head_dim;
        d_o[i] = live ? load_raw(p.d_o + rows[i] * p.d_o_pitch + column) : make_uint4(0, 0, 0, 0);
        o[i] = live ? load_raw(p.o + rows[i] * p.o_pitch + column) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < ITEMS; i++)
        finish(p, rows[i], heads[i], dot8(d_o[i], o[i], 0.0f));
}

__global__ void __launch_bounds__(THREADS) long_kernel(delta_params p)
{
    const int64_t item = int64_t{blockIdx.x} * GROUPS + threadIdx.x / LANES;
    const int64_t row = row_of(item, p.q_heads);
    const int head = static_cast<int>(item - row * p.q_heads), lane = threadIdx.x % LANES;
    const __nv_bfloat16 *d_o = p.d_o + row * p.d_o_pitch + int64_t{head} * p.head_dim;
    const __nv_bfloat16 *o = p.o + row * p.o_pitch + int64_t{head} * p.head_dim;
    float sum = 0.0f;
    for (int i = lane * CHUNK; row < p.rows && i < p.head_dim; i += LANES * CHUNK)
        sum = dot8(load_raw(d_o + i), load_raw(o + i), sum);
    finish(p, row, head, sum);
}

} // namespace

extern "C" base_status_t kern_cuda_attention_delta(base_stream_t *s,
                                                   const kern_attention_delta_t *args)
{
    if (args->o.dtype != KERN_BF16 || args->head_dim % CHUNK != 0) return BASE_ERR_UNSUPPORTED;
    delta_params p;
    p.d_o = kern_cuda_pointer<const __nv_bfloat16>(args->d_o.mem);
    p.o = kern_cuda_pointer<const __nv_bfloat16>(args->o.mem);
    p.delta = kern_cuda_pointer<float>(args->delta);
    p.rows = args->o.rows;
    p.d_o_pitch = args->d_o.pitch;
    p.o_pitch = args->o.pitch;
    p.head_rows = args->head_rows;
    p.q_heads = args->num_q_heads;
    p.group = args->num_q_heads / args->num_kv_heads;
    p.head_dim = args->head_dim;
    if (p.rows == 0) return BASE_OK;
    if (p.d_o_pitch % CHUNK != 0 || p.o_pitch % CHUNK != 0 ||
        (reinterpret_cast<uintptr_t>(p.d_o) | reinterpret_cast<uintptr_t>(p.o)) % 16 != 0)
        return BASE_FAIL(
            base_device_ctx(base_stream_device(s)), BASE_ERR_ARG, BASE_MSG_INT_01,
            "attention_delta: rows of o and d_o do not begin at multiples of 16 bytes");
    if (p.head_dim <= LANES * CHUNK)
        short_kernel<<<blocks_of(p.rows * p.q_heads, GROUPS * ITEMS), THREADS, 0, native(s)>>>(p);
    else
        long_kernel<<<blocks_of(p.rows * p.q_heads, GROUPS), THREADS, 0, native(s)>>>(p);
    return kern_cuda_check(s, "attention_delta", cudaGetLastError());
}
