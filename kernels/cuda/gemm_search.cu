/* The fastest algorithm of a shape, by timing the heuristic's candidates: its own order is off by
 * up to a fifth for some shapes (docs/kernels/ops.md). Each candidate runs WARM + RUNS times on the
 * caller's operands; the lowest time of a run decides, since what disturbs a measurement only adds.
 * Two rounds, so that the clock's drift does not favour who came first; the second is for those
 * that were within NEAR of the best. */
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/stream_state.h"

namespace
{

constexpr int WARM = 1, RUNS = 3;
constexpr float NEAR = 1.1f;

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

/* candidates[0, count) timed; the fastest becomes the plan's. One that cannot be launched is
 * passed over. */
base_status_t choose(base_stream_t *s, const kern_gemm_plans_t *plans,
                     const kern_gemm_problem_t &problem, int count, const stopwatch &watch,
                     kern_gemm_plan_t *plan)
{
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    float best = INFINITY, times[KERN_GEMM_MAX_CANDIDATES];
    for (int i = 0; i < count; i++)
        times[i] = INFINITY;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < count; i++) {
            if (times[i] > NEAR * best) continue;
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
    int count = 0;

    if (args->a.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    if (args->c.rows == 0 || args->c.cols == 0 || k == 0) return BASE_OK;
    BASE_TRY(kern_cuda_gemm_plans(s, &plans));
    BASE_TRY(kern_gemm_problem_init(plans, args, &problem));
    BASE_TRY(kern_gemm_plan_of(plans, &problem, &plan));
    if (plan->searched) return BASE_OK;
    BASE_TRY(kern_gemm_candidates(plans, &problem, 0, &count));
    BASE_TRY(base_stream_settle(s)); /* candidates' kernels are loaded: see kern_cuda_gemm */
    cudaError_t e = cudaEventCreate(&watch.begin);
    if (e == cudaSuccess) e = cudaEventCreate(&watch.end);
    base_status_t st = kern_cuda_check(s, "gemm_search", e);
    if (st == BASE_OK) st = choose(s, plans, problem, count, watch, plan);
    if (watch.begin != nullptr) (void)cudaEventDestroy(watch.begin);
    if (watch.end != nullptr) (void)cudaEventDestroy(watch.end);
    return st;
}
