/* Sums of vectors in fp32, in the order listed: one pass, four elements a thread and turn. */
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"

namespace
{

constexpr int THREADS = 256, VECTOR = 4, MAX_BLOCKS = 1024;

struct vector_params {
    float *dst;
    int64_t count;
    int32_t num_parts;
    const float *parts[KERN_VECTOR_SUM_MAX_PARTS];
};

/* dst may be one of the parts: a thread reads all of its elements before it writes them. */
__global__ void __launch_bounds__(THREADS)
    vector_sum_kernel(const __grid_constant__ vector_params p, int64_t num_vectors)
{
    const int64_t step = static_cast<int64_t>(gridDim.x) * THREADS;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;

    for (int64_t v = first; v < num_vectors; v += step) {
        float4 sum = reinterpret_cast<const float4 *>(p.parts[0])[v];
        for (int32_t i = 1; i < p.num_parts; i++) {
            const float4 x = reinterpret_cast<const float4 *>(p.parts[i])[v];
            sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
        }
        reinterpret_cast<float4 *>(p.dst)[v] = sum;
    }
    for (int64_t j = num_vectors * VECTOR + first; j < p.count; j += step) {
        float sum = p.parts[0][j];
        for (int32_t i = 1; i < p.num_parts; i++)
            sum += p.parts[i][j];
        p.dst[j] = sum;
    }
}

} // namespace

extern "C" base_status_t kern_cuda_vector_sum(base_stream_t *s, const kern_vector_sum_t *args)
{
    if (args->dst.dtype != KERN_F32) return BASE_ERR_UNSUPPORTED;
    if (args->dst.cols == 0) return BASE_OK;
    vector_params p;
    p.dst = kern_cuda_pointer<float>(args->dst.mem);
    p.count = args->dst.cols;
    p.num_parts = static_cast<int32_t>(args->num_parts);
    uintptr_t places = reinterpret_cast<uintptr_t>(p.dst);
    for (int32_t i = 0; i < p.num_parts; i++) {
        p.parts[i] = kern_cuda_pointer<const float>(args->parts[i]);
        places |= reinterpret_cast<uintptr_t>(p.parts[i]);
    }
    const int64_t num_vectors = places % 16 == 0 ? p.count / VECTOR : 0;
    const int64_t work = num_vectors > 0 ? num_vectors : p.count;
    const int64_t blocks = (work + THREADS - 1) / THREADS;
    vector_sum_kernel<<<static_cast<unsigned>(blocks < MAX_BLOCKS ? blocks : MAX_BLOCKS), THREADS,
                        0, static_cast<cudaStream_t>(base_stream_native(s))>>>(p, num_vectors);
    return kern_cuda_check(s, "vector_sum", cudaGetLastError());
}
