#include "tests/gpu/gpu_fixture.cuh"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace
{

constexpr int THREADS = 256, BLOCKS = 1024;
constexpr int64_t MARGIN = 4096; /* elements after the last piece that are watched as well */

__host__ __device__ uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

__global__ void fill_normal(__nv_bfloat16 *dst, int64_t count, uint64_t seed, float deviation)
{
    for (int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x; i < count;
         i += BLOCKS * THREADS) {
        const uint64_t z = mix(seed + static_cast<uint64_t>(i) * 0x9E3779B97F4A7C15ull);
        const float u = (static_cast<float>(z >> 40) + 1.0f) * 0x1p-24f;
        const float angle = static_cast<float>(z & 0xffffff) * 0x1p-24f * 6.2831853f;
        dst[i] = __float2bfloat16_rn(deviation * sqrtf(-2.0f * logf(u)) * cosf(angle));
    }
}

__device__ double value(__nv_bfloat16 x)
{
    return static_cast<double>(__bfloat162float(x));
}
__device__ double value(float x)
{
    return static_cast<double>(x);
}

__device__ double value(double x)
{
    return x;
}

/* A NaN reaches all three sums. */
template <class T, class W>
__global__ void compare(const T *got, const W *want, int64_t count, double *out)
{
    double error = 0, norm = 0, max_abs = 0;
    for (int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x; i < count;
         i += BLOCKS * THREADS) {
        const double w = value(want[i]), d = value(got[i]) - w;
        error += d * d;
        norm += w * w;
        max_abs = fabs(d) > max_abs ? fabs(d) : max_abs;
    }
    atomicAdd(&out[0], error);
    atomicAdd(&out[1], norm);
    /* bit patterns of non-negative doubles are in order */
    atomicMax(reinterpret_cast<unsigned long long *>(&out[2]),
              static_cast<unsigned long long>(__double_as_longlong(max_abs)));
}

__global__ void count_different(const uint16_t *a, const uint16_t *b, int64_t count,
                                unsigned long long *out)
{
    unsigned long long n = 0;
    for (int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x; i < count; i += BLOCKS * THREADS)
        n += a[i] != b[i];
    if (n > 0) atomicAdd(out, n);
}

__global__ void count_foreign(const uint4 *a, int64_t count, unsigned long long *out)
{
    unsigned long long n = 0;
    for (int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x; i < count; i += BLOCKS * THREADS)
        n += (a[i].x & a[i].y & a[i].z & a[i].w) != 0xffffffffu;
    if (n > 0) atomicAdd(out, n);
}

template <class T, class W>
gpu_difference compare_any(const gpu_fixture *fx, const T *got, const W *want, int64_t count)
{
    double out[3];
    GPU_CUDA(cudaMemsetAsync(fx->scratch, 0, sizeof out, fx->native));
    compare<<<BLOCKS, THREADS, 0, fx->native>>>(got, want, count, fx->scratch);
    GPU_CUDA(cudaMemcpyAsync(out, fx->scratch, sizeof out, cudaMemcpyDefault, fx->native));
    gpu_sync(fx);
    return {std::sqrt(out[0]), std::sqrt(out[1]), std::isnan(out[0]) ? out[0] : out[2]};
}

int64_t fetch_count(const gpu_fixture *fx)
{
    unsigned long long n = 0;
    GPU_CUDA(cudaMemcpyAsync(&n, fx->scratch, sizeof n, cudaMemcpyDefault, fx->native));
    gpu_sync(fx);
    return static_cast<int64_t>(n);
}

int64_t watched_bytes(const gpu_pool *pool)
{
    const int64_t end = pool->used + MARGIN < pool->elements ? pool->used + MARGIN : pool->elements;
    return end * pool->element_bytes / 16 * 16;
}

} // namespace

void gpu_fail(const char *file, int line, const char *what, const char *text)
{
    fflush(stdout);
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, text);
    exit(1);
}

void gpu_check_status(const gpu_fixture *fx, base_status_t st, const char *file, int line,
                      const char *what)
{
    base_error_t error;
    if (st == BASE_OK) return;
    gpu_fail(file, line, what, base_ctx_error(fx->ctx, &error) ? error.text : base_status_name(st));
}

void gpu_check_cuda(cudaError_t e, const char *file, int line, const char *what)
{
    if (e != cudaSuccess) gpu_fail(file, line, what, cudaGetErrorString(e));
}

void gpu_open(gpu_fixture *fx)
{
    int driver = 0;
    *fx = {};
    if (base_ctx_create(0, 1, nullptr, &fx->ctx) != BASE_OK)
        gpu_fail(__FILE__, __LINE__, "context", "out of memory");
    const base_status_t st = base_device_open(fx->ctx, BASE_DEVICE_CUDA, 0, &fx->dev);
    if (st == BASE_ERR_UNSUPPORTED) {
        fprintf(stderr, "skipped: no GPU here\n");
        exit(77);
    }
    GPU_OK(fx, st);
    GPU_OK(fx, base_stream_create(fx->dev, BASE_STREAM_COMPUTE, "compute", &fx->s));
    fx->native = static_cast<cudaStream_t>(base_stream_native(fx->s));
    GPU_CUDA(cudaMalloc(reinterpret_cast<void **>(&fx->scratch), 256));
    GPU_CUDA(cudaDriverGetVersion(&driver));
    snprintf(fx->name, sizeof fx->name, "%s, CUDA driver %d", base_device_name(fx->dev), driver);
}

void gpu_close(gpu_fixture *fx)
{
    gpu_sync(fx);
    GPU_CUDA(cudaFree(fx->scratch));
    base_stream_destroy(fx->s);
    base_device_close(fx->dev);
    base_ctx_destroy(fx->ctx);
}

void gpu_sync(const gpu_fixture *fx)
{
    GPU_OK(fx, base_stream_sync(fx->s));
}

gpu_pool gpu_pool_make(gpu_fixture *fx, int64_t elements, int64_t element_bytes, const char *name)
{
    gpu_pool pool = {nullptr, elements, element_bytes, 0};
    GPU_OK(fx, base_buffer_alloc(fx->dev, BASE_MEMORY_DEVICE, elements * element_bytes, name,
                                 &pool.buffer));
    return pool;
}

void gpu_pool_free(gpu_pool *pool)
{
    base_buffer_free(pool->buffer);
}

int64_t gpu_pool_take(gpu_pool *pool, int64_t count, int64_t align, uint64_t *seed)
{
    const int64_t gap = align * gpu_random_below(seed, gpu_random_below(seed, 2) == 0 ? 4 : 300);
    const int64_t at = (pool->used + gap + align - 1) / align * align;
    pool->used = at + count;
    if (pool->used + MARGIN > pool->elements)
        gpu_fail(__FILE__, __LINE__, base_buffer_name(pool->buffer), "the pool is too small");
    return at;
}

void gpu_pool_poison(const gpu_fixture *fx, const gpu_pool *pool)
{
    GPU_CUDA(cudaMemsetAsync(gpu_pool_address(pool, 0), 0xff,
                             static_cast<size_t>(watched_bytes(pool)), fx->native));
}

int64_t gpu_pool_foreign(const gpu_fixture *fx, const gpu_pool *pool)
{
    GPU_CUDA(cudaMemsetAsync(fx->scratch, 0, 8, fx->native));
    count_foreign<<<BLOCKS, THREADS, 0, fx->native>>>(
        static_cast<const uint4 *>(gpu_pool_address(pool, 0)), watched_bytes(pool) / 16,
        reinterpret_cast<unsigned long long *>(fx->scratch));
    return fetch_count(fx);
}

int64_t gpu_pool_different(const gpu_fixture *fx, const gpu_pool *a, const gpu_pool *b)
{
    return gpu_count_different(fx, gpu_pool_address(a, 0), gpu_pool_address(b, 0),
                               watched_bytes(a));
}

void *gpu_pool_address(const gpu_pool *pool, int64_t element)
{
    return base_mem_address(base_mem(pool->buffer, element * pool->element_bytes));
}

uint64_t gpu_random(uint64_t *seed)
{
    *seed += 0x9E3779B97F4A7C15ull;
    return mix(*seed);
}

int64_t gpu_random_below(uint64_t *seed, int64_t n)
{
    return static_cast<int64_t>(gpu_random(seed) % static_cast<uint64_t>(n));
}

int64_t gpu_random_log(uint64_t *seed, int64_t low, int64_t high)
{
    const double u = static_cast<double>(gpu_random(seed) >> 11) * 0x1p-53;
    const double x = static_cast<double>(low) *
                     std::pow(static_cast<double>(high + 1) / static_cast<double>(low), u);
    const int64_t n = static_cast<int64_t>(x);
    return n < high ? n : high;
}

void gpu_fill_normal(const gpu_fixture *fx, __nv_bfloat16 *dst, int64_t count, uint64_t seed,
                     float deviation)
{
    fill_normal<<<BLOCKS, THREADS, 0, fx->native>>>(dst, count, seed, deviation);
    GPU_CUDA(cudaGetLastError());
}

gpu_difference gpu_compare(const gpu_fixture *fx, const __nv_bfloat16 *got, const double *want,
                           int64_t count)
{
    return compare_any(fx, got, want, count);
}

gpu_difference gpu_compare(const gpu_fixture *fx, const __nv_bfloat16 *got,
                           const __nv_bfloat16 *want, int64_t count)
{
    return compare_any(fx, got, want, count);
}

gpu_difference gpu_compare(const gpu_fixture *fx, const float *got, const double *want,
                           int64_t count)
{
    return compare_any(fx, got, want, count);
}

int64_t gpu_count_different(const gpu_fixture *fx, const void *a, const void *b, int64_t bytes)
{
    GPU_CUDA(cudaMemsetAsync(fx->scratch, 0, 8, fx->native));
    count_different<<<BLOCKS, THREADS, 0, fx->native>>>(
        static_cast<const uint16_t *>(a), static_cast<const uint16_t *>(b), bytes / 2,
        reinterpret_cast<unsigned long long *>(fx->scratch));
    return fetch_count(fx);
}
