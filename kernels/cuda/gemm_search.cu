/* The fastest algorithm of a shape, by timing the heuristic's candidates: its own order is off by
 * up to a fifth for some shapes (docs/kernels/ops.md). What is fastest differs from run to run and
 * must not show in a result: only candidates that give C the same bits are compared, those of the
 * largest such group, of equal ones the one whose first candidate comes first in the list. Each
 * candidate runs WARM + RUNS times on the caller's operands; the lowest time of a run decides, since
 * what disturbs a measurement only adds. Several rounds, so that the clock's drift does not favour
 * who came first; all but the first are for those that were within NEAR of the best. */
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/stream_state.h"

namespace
{

constexpr int ROUNDS = 4, WARM = 1, RUNS = 3;
constexpr float NEAR = 1.1f;

/* ==== bits of C ==== */

constexpr int HASH_BLOCKS = 264, HASH_THREADS = 256;

/* Adds a number made of each element's place and bits: integers, so the order is nothing. */
template <typename T>
__global__ void hash_kernel(const T *c, int64_t rows, int64_t cols, int64_t pitch,
                            unsigned long long *sum)
{
    unsigned long long mine = 0;
    for (int64_t i = blockIdx.x * int64_t{HASH_THREADS} + threadIdx.x; i < rows * cols;
         i += int64_t{HASH_BLOCKS} * HASH_THREADS) {
        const unsigned long long place = 2 * static_cast<unsigned long long>(i) + 1;
        mine += (c[i / cols * pitch + i % cols] + 1ull) * (place * 0x9e3779b97f4a7c15ull);
    }
    atomicAdd(sum, mine);
}

/* *hash is there when the stream is idle. */
cudaError_t hash_of(const kern_mat_t &c, unsigned long long *sum, cudaStream_t stream,
                    unsigned long long *hash)
{
    const cudaError_t e = cudaMemsetAsync(sum, 0, sizeof *sum, stream);
    if (e != cudaSuccess) return e;
    if (c.dtype == KERN_BF16)
        hash_kernel<<<HASH_BLOCKS, HASH_THREADS, 0, stream>>>(
            kern_cuda_pointer<const unsigned short>(c.mem), c.rows, c.cols, c.pitch, sum);
    else
        hash_kernel<<<HASH_BLOCKS, HASH_THREADS, 0, stream>>>(
            kern_cuda_pointer<const unsigned int>(c.mem), c.rows, c.cols, c.pitch, sum);
    const cudaError_t launched = cudaGetLastError();
    return launched != cudaSuccess
               ? launched
               : cudaMemcpyAsync(hash, sum, sizeof *sum, cudaMemcpyDeviceToHost, stream);
}

/* same[i]: candidate i belongs to the group. */
base_status_t largest_group(base_stream_t *s, const kern_gemm_plans_t *plans,
                            const kern_gemm_problem_t &problem, const kern_mat_t &c, int count,
                            bool *same)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    unsigned long long hashes[KERN_GEMM_MAX_CANDIDATES];
    bool runs[KERN_GEMM_MAX_CANDIDATES];
    void *scratch = nullptr;
    int most = 0, first = 0;

    BASE_TRY(kern_cuda_scratch(s, &scratch));
    for (int i = 0; i < count; i++) {
        runs[i] = kern_gemm_launch(plans, &problem, &plans->candidates[i].algo, nullptr, 0,
                                   stream) == CUBLAS_STATUS_SUCCESS;
        if (runs[i])
            BASE_TRY(kern_cuda_check(
                s, "gemm_search",
                hash_of(c, static_cast<unsigned long long *>(scratch), stream, &hashes[i])));
    }
    BASE_TRY(base_stream_sync(s));
    for (int i = 0; i < count; i++) {
        int members = 0;
        for (int k = 0; k < count; k++)
            members += runs[i] && runs[k] && hashes[k] == hashes[i];
        if (members > most) {
            most = members;
            first = i;
        }
    }
    for (int i = 0; i < count; i++)
        same[i] = most > 0 && runs[i] && hashes[i] == hashes[first];
    return BASE_OK;
}

/* ==== time ==== */

struct stopwatch {
    cudaEvent_t begin = nullptr, end = nullptr;
};

cudaError_t time_one(const kern_gemm_plans_t *plans, const kern_gemm_problem_t &problem,
                     const cublasLtMatmulAlgo_t &algo, const stopwatch &watch, cudaStream_t stream,
                     float *milliseconds)
{
    for (int i = 0; i < WARM + RUNS; i++) {
        float elapsed = 0.0f;
        cudaError_t e = cudaEventRecord(watch.begin, stream);
        if (e == cudaSuccess &&
            kern_gemm_launch(plans, &problem, &algo, nullptr, 0, stream) != CUBLAS_STATUS_SUCCESS)
            e = cudaErrorNotSupported;
        if (e == cudaSuccess) e = cudaEventRecord(watch.end, stream);
        if (e == cudaSuccess) e = cudaEventSynchronize(watch.end);
        if (e == cudaSuccess) e = cudaEventElapsedTime(&elapsed, watch.begin, watch.end);
        if (e != cudaSuccess) return e;
        if (i >= WARM && elapsed < *milliseconds) *milliseconds = elapsed;
    }
    return cudaSuccess;
}

/* Those of candidates[0, count) that are `same` timed; the fastest becomes the plan's. */
base_status_t choose(base_stream_t *s, const kern_gemm_plans_t *plans,
                     const kern_gemm_problem_t &problem, int count, const bool *same,
                     const stopwatch &watch, kern_gemm_plan_t *plan)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    float best = INFINITY, times[KERN_GEMM_MAX_CANDIDATES];
    for (int i = 0; i < count; i++)
        times[i] = INFINITY;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < count; i++) {
            if (!same[i] || times[i] > NEAR * best) continue;
            const cudaError_t e =
                time_one(plans, problem, plans->candidates[i].algo, watch, stream, &times[i]);
            if (e == cudaErrorNotSupported) continue;
            BASE_TRY(kern_cuda_check(s, "gemm_search", e));
        }
        for (int i = 0; i < count; i++)
            if (times[i] < best) {
                best = times[i];
                plan->algo = plans->candidates[i].algo;
                plan->searched = plan->launched = 1;
            }
    }
    return BASE_OK;
}

} // namespace

extern "C" base_status_t kern_cuda_gemm_search(base_stream_t *s, const kern_gemm_t *args)
{
    const int64_t k = args->transpose_a ? args->a.rows : args->a.cols;
    kern_gemm_plans_t *plans = nullptr;
    kern_gemm_plan_t *plan = nullptr;
    kern_gemm_problem_t problem;
    stopwatch watch;
    bool same[KERN_GEMM_MAX_CANDIDATES];
    int count = 0;

    if (args->a.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    if (args->c.rows == 0 || args->c.cols == 0 || k == 0) return BASE_OK;
    BASE_TRY(kern_cuda_gemm_plans(s, &plans));
    BASE_TRY(kern_gemm_problem_init(plans, args, &problem));
    BASE_TRY(kern_gemm_plan_of(plans, &problem, &plan));
    if (plan->searched) return BASE_OK;
    BASE_TRY(kern_gemm_candidates(plans, &problem, 0, &count));
    BASE_TRY(base_stream_settle(s)); /* candidates' kernels are loaded: see kern_cuda_gemm */
    BASE_TRY(largest_group(s, plans, problem, args->c, count, same));
    cudaError_t e = cudaEventCreate(&watch.begin);
    if (e == cudaSuccess) e = cudaEventCreate(&watch.end);
    base_status_t st = kern_cuda_check(s, "gemm_search", e);
    if (st == BASE_OK) st = choose(s, plans, problem, count, same, watch, plan);
    if (watch.begin != nullptr) (void)cudaEventDestroy(watch.begin);
    if (watch.end != nullptr) (void)cudaEventDestroy(watch.end);
    return st;
}
