/* A block a segment. A thread adds every 256th value, ascending, then the threads are added in
 * order; in double, so that a sum of many losses is rounded once. Values of a segment that does not
 * exist are left out. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/real_vector.cuh"

using namespace kern_real;

namespace
{

constexpr int THREADS = 256;

__global__ void __launch_bounds__(THREADS)
    sum_kernel(const float *v, const float *weights, const int32_t *segments, int64_t count,
               float *sums)
{
    __shared__ double part[THREADS];
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < count; i += THREADS)
        if (segments[i] == static_cast<int32_t>(blockIdx.x) && weights[i] != 0.0f)
            sum += static_cast<double>(weights[i]) * static_cast<double>(v[i]);
    part[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < THREADS; i++)
        sum += part[i];
    if (sum != 0.0)
        sums[blockIdx.x] = static_cast<float>(static_cast<double>(sums[blockIdx.x]) + sum);
}

} // namespace

extern "C" base_status_t kern_cuda_loss_sum(base_stream_t *s, const kern_loss_sum_t *args)
{
    if (args->sums.dtype != KERN_F32) return BASE_ERR_UNSUPPORTED;
    if (args->sums.cols == 0 || args->values.cols == 0) return BASE_OK;
    sum_kernel<<<static_cast<unsigned>(args->sums.cols), THREADS, 0, native(s)>>>(
        kern_cuda_pointer<const float>(args->values.mem),
        kern_cuda_pointer<const float>(args->weights.mem),
        kern_cuda_pointer<const int32_t>(args->segments.mem), args->values.cols,
        kern_cuda_pointer<float>(args->sums.mem));
    return kern_cuda_check(s, "loss_sum", cudaGetLastError());
}
