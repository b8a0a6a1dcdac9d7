/* Matrix products through cuBLASLt: which algorithm each shape has.
 *
 * cuBLASLt is loaded when the first product is made (libcublasLt.so.13, by the loader's path), so
 * that a program starts on hosts without it, as it does without libcuda.
 *
 * One shape, one algorithm. A shape is a key (kernels/gemm_key.h), with M and K in steps; candidates are
 * those of the largest M and K of it. Its algorithm is the fastest of the candidates when gemm_search timed
 * them, else the first candidate, and stays for the life of the table. What gemm_search compares gives the
 * same bits (gemm_search.cu). Candidates have no split-K and no stream-K (they are asked for without workspace
 * and without reduction): every element of C is one sum over k in one order.
 *
 * An algorithm that refuses another M or K of its plan leaves these a plan of their own (m_bound < 0).
 *
 * Not thread-safe; belongs to a stream (stream_state.h). */
#ifndef CADRE_KERNELS_CUDA_GEMM_PLANS_H
#define CADRE_KERNELS_CUDA_GEMM_PLANS_H

#include "kernels/gemm_key.h"

#include <cublasLt.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KERN_GEMM_MAX_PLANS      512 /* shapes of a run; more: the heuristic is asked every time */
#define KERN_GEMM_MAX_CANDIDATES 32

/* The functions of the library that are used. */
typedef struct kern_cublaslt {
    void *library;
#define KERN_CUBLASLT_MAP(X)                                                                       \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtMatmul)                                                                              \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtMatmulAlgoCheck)                                                                     \
    X(cublasLtMatmulAlgoConfigGetAttribute)                                                        \
    X(cublasLtMatmulDescInit_internal)                                                             \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatmulPreferenceInit_internal)                                                       \
    X(cublasLtMatmulPreferenceSetAttribute)                                                        \
    X(cublasLtMatrixLayoutInit_internal)                                                           \
    X(cublasLtMatrixLayoutSetAttribute)                                                            \
    X(cublasLtGetVersion)
#define X(name) __typeof__(&name) name;
    KERN_CUBLASLT_MAP(X)
#undef X
} kern_cublaslt_t;

typedef struct kern_gemm_plan {
    kern_gemm_key_t key;
    cublasLtMatmulAlgo_t algo;
    int searched;
    int launched; /* its kernel is loaded: the next launch waits for nothing */
} kern_gemm_plan_t;

typedef struct kern_gemm_plans {
    base_ctx_t *ctx;
    const char *device;
    kern_cublaslt_t lt;
    cublasLtHandle_t handle;
    int num_plans, search_new;                   /* kern_gemm_search_new */
    kern_gemm_plan_t plans[KERN_GEMM_MAX_PLANS]; /* open addressing by a hash of the key */
    cublasLtMatmulHeuristicResult_t candidates[KERN_GEMM_MAX_CANDIDATES];
} kern_gemm_plans_t;

/* A product in cuBLASLt's terms: column-major, so C^T = op(B)^T op(A)^T; "first" is our B. */
typedef struct kern_gemm_problem {
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t first, second, c;
    const void *first_data, *second_data;
    void *c_data;
    float alpha, beta;
    kern_gemm_key_t key;
} kern_gemm_problem_t;

base_status_t kern_gemm_plans_create(base_device_t *dev,
                                     kern_gemm_plans_t **plans_p) BASE_MUST_CHECK;
void kern_gemm_plans_destroy(kern_gemm_plans_t *plans); /* NULL is legal */

/* BASE_ERR_DEVICE with cuBLASLt's status. `what` is a literal. */
base_status_t kern_cublaslt_check(const kern_gemm_plans_t *plans, const char *what,
                                  cublasStatus_t status) BASE_MUST_CHECK;

/* a, b bf16; c bf16 or fp32; M, N, K > 0. */
base_status_t kern_gemm_problem_init(const kern_gemm_plans_t *plans, const kern_gemm_t *args,
                                     kern_gemm_problem_t *problem) BASE_MUST_CHECK;

/* plans->candidates[0, *count): algorithms for the problem, the heuristic's best first; none is
 * BASE_ERR_DEVICE. workspace_bytes > 0, for comparison only: also such with split-K. */
base_status_t kern_gemm_candidates(kern_gemm_plans_t *plans, const kern_gemm_problem_t *problem,
                                   int64_t workspace_bytes, int *count) BASE_MUST_CHECK;

/* The problem's plan; its algorithm is the first candidate when the shape is new. */
base_status_t kern_gemm_plan_of(kern_gemm_plans_t *plans, const kern_gemm_problem_t *problem,
                                kern_gemm_plan_t **plan_p) BASE_MUST_CHECK;

/* A plan that was searched before, instead of what there is for its shape. 0: no room. */
int kern_gemm_plan_put(kern_gemm_plans_t *plans, const kern_gemm_plan_t *plan);

cublasStatus_t kern_gemm_launch(const kern_gemm_plans_t *plans, const kern_gemm_problem_t *problem,
                                const cublasLtMatmulAlgo_t *algo, void *workspace,
                                int64_t workspace_bytes, void *native_stream);

#ifdef __cplusplus
}
#endif
#endif
