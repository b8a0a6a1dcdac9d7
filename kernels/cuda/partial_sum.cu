/* Sums of partial dk, dv: one pass, fp32, parts in the order listed, fp32 or bf16. A block takes
 * BLOCK_ELEMENTS of one head of one sum; a thread asks for its four places of a part at once. The lists travel as kernel parameters (see
 * attention/task_list.cuh); more sums or parts than fit become several launches. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/real_vector.cuh"

using namespace kern_real;

namespace
{

constexpr int THREADS = 256, VECTOR = 4, TURNS = 4, TURN = THREADS * VECTOR;
constexpr int BLOCK_ELEMENTS = TURNS * TURN;
constexpr int MAX_SUMS = 256, MAX_PARTS = 1024;

/* kern_sum_part_t in 16 bytes: head_real is 2 src_head + real. */
struct sum_part {
    int64_t src, head_real;
};

struct sum_params {
    __nv_bfloat16 *dst;
    const float *src;
    const __nv_bfloat16 *src_real;
    int32_t num_sums;
    int32_t first_block[MAX_SUMS + 1];
    kern_sum_t sums[MAX_SUMS]; /* first_part counts in `parts` */
    sum_part parts[MAX_PARTS];
};
static_assert(sizeof(sum_params) <= 32764, "parameters of a launch");

/* VECTOR elements of a part from element i of its head on. */
__device__ __forceinline__ float4 load_part(const sum_params &p, const sum_part &part, int64_t head,
                                            int64_t i)
{
    const int64_t at = part.src + head * (part.head_real >> 1) + i;
    if ((part.head_real & 1) == 0) return *reinterpret_cast<const float4 *>(p.src + at);
    const uint2 bits = *reinterpret_cast<const uint2 *>(p.src_real + at);
    const float2 a = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(&bits.x));
    const float2 b = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(&bits.y));
    return make_float4(a.x, a.y, b.x, b.y);
}

__device__ __forceinline__ float load_one(const sum_params &p, const sum_part &part, int64_t head,
                                          int64_t i)
{
    const int64_t at = part.src + head * (part.head_real >> 1) + i;
    return (part.head_real & 1) != 0 ? __bfloat162float(p.src_real[at]) : p.src[at];
}

/* Elements [begin, end) of a head, in VECTORs. FULL: there are BLOCK_ELEMENTS. */
template <bool FULL>
__device__ __forceinline__ void sum_turns(const sum_params &p, const kern_sum_t &sum, int64_t head,
                                          int64_t begin, int64_t end)
{
    const sum_part *parts = p.parts + sum.first_part;
    const int64_t first = begin + threadIdx.x * VECTOR;
    float4 acc[TURNS] = {};
    for (int32_t part = 0; part < sum.num_parts; part++) {
        float4 x[TURNS] = {};
#pragma unroll
        for (int k = 0; k < TURNS; k++)
            if (FULL || first + k * TURN < end)
                x[k] = load_part(p, parts[part], head, first + k * TURN);
#pragma unroll
        for (int k = 0; k < TURNS; k++)
            acc[k] = part == 0 ? x[k]
                               : make_float4(acc[k].x + x[k].x, acc[k].y + x[k].y,
                                             acc[k].z + x[k].z, acc[k].w + x[k].w);
    }
    __nv_bfloat16 *dst = p.dst + sum.dst + head * sum.dst_head;
#pragma unroll
    for (int k = 0; k < TURNS; k++)
        if (FULL || first + k * TURN < end)
            store_raw(dst + first + k * TURN,
                      make_uint2(pack(acc[k].x, acc[k].y), pack(acc[k].z, acc[k].w)));
}

__global__ void __launch_bounds__(THREADS) sum_kernel(const __grid_constant__ sum_params p)
{
    int low = 0, high = p.num_sums; /* first_block[low] <= block < first_block[high] */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (p.first_block[middle] <= static_cast<int>(blockIdx.x))
            low = middle;
        else
            high = middle;
    }
    const kern_sum_t &sum = p.sums[low];
    const int64_t block = static_cast<int>(blockIdx.x) - p.first_block[low];
    const int64_t blocks = (sum.count + BLOCK_ELEMENTS - 1) / BLOCK_ELEMENTS, head = block / blocks;
    const int64_t begin = (block - head * blocks) * BLOCK_ELEMENTS;
    const int64_t end = begin + BLOCK_ELEMENTS < sum.count ? begin + BLOCK_ELEMENTS : sum.count;
    const sum_part *parts = p.parts + sum.first_part;
    __nv_bfloat16 *dst = p.dst + sum.dst + head * sum.dst_head;

    if (begin + BLOCK_ELEMENTS <= end) {
        sum_turns<true>(p, sum, head, begin, end);
        return;
    }
    const int64_t whole = end - end % VECTOR;
    sum_turns<false>(p, sum, head, begin, whole);
    const int64_t j = whole + threadIdx.x;
    if (j < end) {
        float acc = sum.num_parts > 0 ? load_one(p, parts[0], head, j) : 0.0f;
        for (int32_t part = 1; part < sum.num_parts; part++)
            acc += load_one(p, parts[part], head, j);
        dst[j] = __float2bfloat16_rn(acc);
    }
}

base_status_t launch(base_stream_t *s, sum_params &p, int32_t blocks)
{
    if (blocks > 0)
        sum_kernel<<<static_cast<unsigned>(blocks), THREADS, 0,
                     static_cast<cudaStream_t>(base_stream_native(s))>>>(p);
    p.num_sums = 0;
    return kern_cuda_check(s, "partial_sum", cudaGetLastError());
}

base_status_t check_sum(base_stream_t *s, const kern_partial_sum_t *args, int64_t index)
{
    base_ctx_t *ctx = base_device_ctx(base_stream_device(s));
    const kern_sum_t &sum = args->sums[index];
    int64_t places = sum.dst | sum.dst_head; /* bf16, 8 bytes at a time */
    if (sum.num_parts > MAX_PARTS)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "partial_sum: sum %lld has %d parts, want at most %d",
                         static_cast<long long>(index), sum.num_parts, MAX_PARTS);
    for (int32_t i = 0; i < sum.num_parts; i++)
        places |= args->parts[sum.first_part + i].src | args->parts[sum.first_part + i].src_head;
    if (places % VECTOR != 0)
        return BASE_FAIL(
            ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
            "partial_sum: sum %lld: a place or stride is not a multiple of %d elements",
            static_cast<long long>(index), VECTOR);
    return BASE_OK;
}

} // namespace

extern "C" base_status_t kern_cuda_partial_sum(base_stream_t *s, const kern_partial_sum_t *args)
{
    if (args->dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    sum_params p;
    int32_t blocks = 0, parts = 0;
    p.dst = kern_cuda_pointer<__nv_bfloat16>(args->dst);
    p.src = kern_cuda_pointer<const float>(args->src);
    p.src_real = args->src_real.buffer != nullptr
                     ? kern_cuda_pointer<const __nv_bfloat16>(args->src_real)
                     : nullptr;
    p.num_sums = 0;
    if ((reinterpret_cast<uintptr_t>(p.dst) | reinterpret_cast<uintptr_t>(p.src) |
         reinterpret_cast<uintptr_t>(p.src_real)) %
            16 !=
        0)
        return BASE_FAIL(base_device_ctx(base_stream_device(s)), BASE_ERR_ARG, BASE_MSG_INT_01,
                         "partial_sum: dst, src or src_real is not a multiple of 16 bytes");
    for (int64_t i = 0; i < args->num_sums; i++) {
        const kern_sum_t &sum = args->sums[i];
        if (sum.heads == 0 || sum.count == 0) continue;
        BASE_TRY(check_sum(s, args, i));
        if (p.num_sums == MAX_SUMS || parts + sum.num_parts > MAX_PARTS) {
            BASE_TRY(launch(s, p, blocks));
            blocks = parts = 0;
        }
        p.sums[p.num_sums] = sum;
        p.sums[p.num_sums].first_part = parts;
        p.first_block[p.num_sums++] = blocks;
        for (int32_t j = 0; j < sum.num_parts; j++) {
            const kern_sum_part_t &part = args->parts[sum.first_part + j];
            p.parts[parts++] = {part.src, 2 * part.src_head + (part.real != 0)};
        }
        blocks +=
            static_cast<int32_t>((sum.count + BLOCK_ELEMENTS - 1) / BLOCK_ELEMENTS) * sum.heads;
        p.first_block[p.num_sums] = blocks;
    }
    return launch(s, p, blocks);
}
