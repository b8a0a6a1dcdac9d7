/* C = op(A) op(B) + (accumulate ? C : 0) through cuBLASLt: bf16 in, fp32 inside, bf16 or fp32 out.
 * Which algorithm: gemm_plans.h. */
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/stream_state.h"

namespace
{

/* The first launch of an algorithm loads its kernel, and may wait for all of the device then: with
 * nothing under way that another rank has to move (base_stream_settle). */
base_status_t launch(base_stream_t *s, const kern_gemm_plans_t *plans,
                     const kern_gemm_problem_t &problem, kern_gemm_plan_t *plan,
                     cublasStatus_t *status)
{
    if (!plan->launched) BASE_TRY(base_stream_settle(s));
    *status = kern_gemm_launch(plans, &problem, &plan->algo, nullptr, 0, base_stream_native(s));
    if (*status == CUBLAS_STATUS_SUCCESS) plan->launched = 1;
    return BASE_OK;
}

} // namespace

extern "C" base_status_t kern_cuda_gemm(base_stream_t *s, const kern_gemm_t *args)
{
    const kern_mat_t &c = args->c;
    const int64_t k = args->transpose_a ? args->a.rows : args->a.cols;
    kern_gemm_plans_t *plans = nullptr;
    kern_gemm_plan_t *plan = nullptr;
    kern_gemm_problem_t problem;

    if (args->a.dtype != KERN_BF16) return BASE_ERR_UNSUPPORTED;
    if (c.rows == 0 || c.cols == 0) return BASE_OK;
    if (k == 0) { /* an empty sum */
        if (args->accumulate) return BASE_OK;
        const size_t bytes = static_cast<size_t>(kern_dtype_bytes(c.dtype));
        return kern_cuda_check(
            s, "gemm",
            cudaMemset2DAsync(kern_cuda_pointer<void>(c.mem), static_cast<size_t>(c.pitch) * bytes,
                              0, static_cast<size_t>(c.cols) * bytes, static_cast<size_t>(c.rows),
                              static_cast<cudaStream_t>(base_stream_native(s))));
    }
    BASE_TRY(kern_cuda_gemm_plans(s, &plans));
    BASE_TRY(kern_gemm_problem_init(plans, args, &problem));
    BASE_TRY(kern_gemm_plan_of(plans, &problem, &plan));
    if (plans->search_new && !plan->searched && !args->accumulate)
        BASE_TRY(kern_cuda_gemm_search(s, args));
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    BASE_TRY(launch(s, plans, problem, plan, &status));
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
        /* An algorithm found for another M or K of the same plan may not do for these: they have a
         * plan of their own then, the first candidate for exactly these arguments. */
        problem.key.m_bound = -c.rows;
        problem.key.k_bound = k;
        BASE_TRY(kern_gemm_plan_of(plans, &problem, &plan));
        BASE_TRY(launch(s, plans, problem, plan, &status));
    }
    const base_status_t st = kern_cublaslt_check(plans, "cublasLtMatmul", status);
    return st < 0 ? base_stream_fail(s, st) : st;
}
