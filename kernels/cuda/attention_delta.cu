/* delta = rowsum(d_o o). Limited by memory: 16 lanes a (row, head), 16 bytes a lane and step.
 * The order of a row's sum is fixed: a lane's elements ascending, then a tree over lanes. */
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"

#include <cuda_bf16.h>

namespace
{

constexpr int THREADS = 256, LANES = 16, CHUNK = 8;

struct delta_params {
    const __nv_bfloat16 *d_o, *o;
    float *delta;
    int64_t rows, d_o_pitch, o_pitch, head_rows;
    int32_t q_heads, group, head_dim;
};

__device__ float dot8(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float sum)
{
    const uint4 a8 = *reinterpret_cast<const uint4 *>(a), b8 = *reinterpret_cast<const uint4 *>(b);
    const uint32_t a2[4] = {a8.x, a8.y, a8.z, a8.w}, b2[4] = {b8.x, b8.y, b8.z, b8.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        /* bf16 is the upper half of fp32 */
        sum = __fmaf_rn(__uint_as_float(a2[i] << 16), __uint_as_float(b2[i] << 16), sum);
        sum = __fmaf_rn(__uint_as_float(a2[i] & 0xffff0000u), __uint_as_float(b2[i] & 0xffff0000u),
                        sum);
    }
    return sum;
}

__global__ void delta_kernel(delta_params p)
{
    const int64_t item = (int64_t{blockIdx.x} * THREADS + threadIdx.x) / LANES;
    const int64_t row = item / p.q_heads;
    const int head = static_cast<int>(item - row * p.q_heads), lane = threadIdx.x % LANES;
    const bool live = row < p.rows; /* all lanes take part in the tree */
    float sum = 0.0f;
    if (live) {
        const __nv_bfloat16 *d_o = p.d_o + row * p.d_o_pitch + int64_t{head} * p.head_dim;
        const __nv_bfloat16 *o = p.o + row * p.o_pitch + int64_t{head} * p.head_dim;
        for (int i = lane * CHUNK; i < p.head_dim; i += LANES * CHUNK)
            sum = dot8(d_o + i, o + i, sum);
    }
#pragma unroll
    for (int step = 1; step < LANES; step *= 2)
        sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, step));
    if (live && lane == 0)
        p.delta[(head / p.group * p.head_rows + row) * p.group + head % p.group] = sum;
}

} // namespace

extern "C" base_status_t kern_cuda_attention_delta(base_stream_t *s,
                                                   const kern_attention_delta_t *args)
{
    if (args->o.dtype != KERN_BF16 || args->head_dim % CHUNK != 0) return BASE_ERR_UNSUPPORTED;
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
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
    const int64_t blocks = (p.rows * p.q_heads * LANES + THREADS - 1) / THREADS;
    delta_kernel<<<static_cast<unsigned>(blocks), THREADS, 0, stream>>>(p);
    return kern_cuda_check(s, "attention_delta", cudaGetLastError());
}
