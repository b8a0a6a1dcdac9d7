/* See fill_pattern.h. One byte per thread and step: guard zones start anywhere, and speed is no
 * concern. */
#include "tests/support/fill_pattern.h"

#include "base/device/device_host.h"

#include <cuda_runtime.h>

namespace
{

constexpr int THREADS = 256;
constexpr int64_t MAX_BLOCKS = 4096;

__host__ __device__ uint8_t pattern(uint64_t seed, int64_t i)
{
    uint64_t z = seed + (static_cast<uint64_t>(i) / 8 + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    return static_cast<uint8_t>(z >> (8 * (i % 8)));
}

__global__ void fill(uint8_t *dst, int64_t bytes, uint64_t seed)
{
    const int64_t step = static_cast<int64_t>(gridDim.x) * THREADS;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; i < bytes; i += step)
        dst[i] = pattern(seed, i);
}

__global__ void clear(unsigned long long *result)
{
    result[0] = 0;
    result[1] = ~0ull;
}

__global__ void check(const uint8_t *src, int64_t bytes, uint64_t seed, unsigned long long *result)
{
    const int64_t step = static_cast<int64_t>(gridDim.x) * THREADS;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; i < bytes; i += step)
        if (src[i] != pattern(seed, i)) {
            atomicAdd(&result[0], 1ull);
            atomicMin(&result[1], static_cast<unsigned long long>(i));
        }
}

unsigned blocks_for(int64_t bytes)
{
    const int64_t blocks = (bytes + THREADS - 1) / THREADS;
    return static_cast<unsigned>(blocks < MAX_BLOCKS ? blocks : MAX_BLOCKS);
}

/* The range is inside its buffer and the stream a GPU's. */
base_status_t ready(base_stream_t *s, base_mem_t mem, int64_t bytes, const char *what,
                    cudaStream_t *native)
{
    base_ctx_t *ctx = base_device_ctx(base_stream_device(s));
    const base_range_t range = {mem, bytes, 1, 0};
    BASE_TRY(base_range_check(ctx, &range, what));
    *native = static_cast<cudaStream_t>(base_stream_native(s));
    if (*native == nullptr)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                         "%s: pattern kernels need a cuda stream", what);
    return BASE_OK;
}

base_status_t launched(base_stream_t *s, const char *what)
{
    const cudaError_t e = cudaGetLastError();
    if (e == cudaSuccess) return BASE_OK;
    return BASE_FAIL(base_device_ctx(base_stream_device(s)), BASE_ERR_DEVICE, BASE_MSG_INT_01,
                     "%s: %s", what, cudaGetErrorString(e));
}

} // namespace

extern "C" uint8_t kern_pattern_byte(uint64_t seed, int64_t i)
{
    return pattern(seed, i);
}

extern "C" base_status_t kern_fill_pattern(base_stream_t *s, base_mem_t dst, int64_t bytes,
                                           uint64_t seed)
{
    cudaStream_t native;
    BASE_TRY(ready(s, dst, bytes, "pattern to fill", &native));
    if (bytes == 0) return BASE_OK;
    fill<<<blocks_for(bytes), THREADS, 0, native>>>(static_cast<uint8_t *>(base_mem_address(dst)),
                                                    bytes, seed);
    return launched(s, "pattern to fill");
}

extern "C" base_status_t kern_check_pattern(base_stream_t *s, base_mem_t src, int64_t bytes,
                                            uint64_t seed, base_mem_t result)
{
    cudaStream_t native;
    BASE_TRY(ready(s, src, bytes, "pattern to check", &native));
    BASE_TRY(ready(s, result, static_cast<int64_t>(sizeof(kern_pattern_result_t)), "pattern result",
                   &native));
    unsigned long long *const out = static_cast<unsigned long long *>(base_mem_address(result));
    clear<<<1, 1, 0, native>>>(out);
    if (bytes > 0)
        check<<<blocks_for(bytes), THREADS, 0, native>>>(
            static_cast<const uint8_t *>(base_mem_address(src)), bytes, seed, out);
    return launched(s, "pattern to check");
}
