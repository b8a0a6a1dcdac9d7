/* For test programs that run on a GPU host as one file: a cuda device with a stream, random and
 * poisoned memory, and comparisons made on the GPU. A fault prints what failed and ends the
 * program with status 1. */
#ifndef CADRE_TESTS_GPU_GPU_FIXTURE_CUH
#define CADRE_TESTS_GPU_GPU_FIXTURE_CUH

#include "base/device/device_host.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

struct gpu_fixture {
    base_ctx_t *ctx;
    base_device_t *dev;
    base_stream_t *s;
    cudaStream_t native;
    double *scratch; /* results of comparisons */
    char name[128];
};

/* Exit status 77 (skipped) when there is no GPU. */
void gpu_open(gpu_fixture *fx);
void gpu_close(gpu_fixture *fx);

[[noreturn]] void gpu_fail(const char *file, int line, const char *what, const char *text);
void gpu_check_status(const gpu_fixture *fx, base_status_t st, const char *file, int line,
                      const char *what);
void gpu_check_cuda(cudaError_t e, const char *file, int line, const char *what);
#define GPU_OK(fx, expr) gpu_check_status(fx, (expr), __FILE__, __LINE__, #expr)
#define GPU_CUDA(expr)   gpu_check_cuda((expr), __FILE__, __LINE__, #expr)

/* Device memory with a cursor: pieces follow each other with random gaps, so that a test's
 * tensors lie in foreign memory. */
struct gpu_pool {
    base_buffer_t *buffer;
    int64_t elements, element_bytes, used;
};
gpu_pool gpu_pool_make(gpu_fixture *fx, int64_t elements, int64_t element_bytes, const char *name);
void gpu_pool_free(gpu_pool *pool);
/* The first element of a piece; a multiple of `align` elements. */
int64_t gpu_pool_take(gpu_pool *pool, int64_t count, int64_t align, uint64_t *seed);
/* All bytes up to the cursor and a margin become 0xFF: NaN as bf16 and as fp32. */
void gpu_pool_poison(const gpu_fixture *fx, const gpu_pool *pool);
/* Bytes there that are not 0xFF. */
int64_t gpu_pool_foreign(const gpu_fixture *fx, const gpu_pool *pool);
/* Of two pools with the same cursor: elements of 2 bytes there that differ. */
int64_t gpu_pool_different(const gpu_fixture *fx, const gpu_pool *a, const gpu_pool *b);
void *gpu_pool_address(const gpu_pool *pool, int64_t element);

/* Repeatable values on the host: [0, n), and n log-uniform in [low, high]. */
uint64_t gpu_random(uint64_t *seed);
int64_t gpu_random_below(uint64_t *seed, int64_t n);
int64_t gpu_random_log(uint64_t *seed, int64_t low, int64_t high);

/* Normal values of that deviation, rounded to bf16. */
void gpu_fill_normal(const gpu_fixture *fx, __nv_bfloat16 *dst, int64_t count, uint64_t seed,
                     float deviation);

struct gpu_difference {
    double error, norm; /* Frobenius norms of got - want, and of want */
    double max_abs;     /* NaN when there is one */
};
gpu_difference gpu_compare(const gpu_fixture *fx, const __nv_bfloat16 *got, const double *want,
                           int64_t count);
gpu_difference gpu_compare(const gpu_fixture *fx, const __nv_bfloat16 *got,
                           const __nv_bfloat16 *want, int64_t count);
gpu_difference gpu_compare(const gpu_fixture *fx, const float *got, const double *want,
                           int64_t count);
int64_t gpu_count_different(const gpu_fixture *fx, const void *a, const void *b, int64_t bytes);
void gpu_sync(const gpu_fixture *fx);

#endif
