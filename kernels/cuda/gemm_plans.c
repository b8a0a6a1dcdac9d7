#include "kernels/cuda/gemm_plans.h"

#include "base/device/device_host.h"
#include "base/memory.h"

#include <dlfcn.h>
#include <string.h>

#define LIBRARY "libcublasLt.so.13"

/* ==== the library ==== */

static base_status_t fail_library(base_ctx_t *ctx, const char *device)
{
    const char *text = dlerror();

    return BASE_FAIL(ctx, BASE_ERR_DEVICE, BASE_MSG_DEV_01, "%s: matrix products need cuBLASLt: %s",
                     device, text != NULL ? text : LIBRARY);
}

static base_status_t library_open(base_ctx_t *ctx, const char *device, kern_cublaslt_t *lt)
{
    lt->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (lt->library == NULL) return fail_library(ctx, device);
        /* ISO C has no cast from an object pointer to a function pointer. */
#define X(name)                                                                                    \
    {                                                                                              \
        void *const function = dlsym(lt->library, #name);                                          \
        if (function == NULL) return fail_library(ctx, device);                                    \
        memcpy(&lt->name, &function, sizeof function);                                             \
    }
    KERN_CUBLASLT_MAP(X)
#undef X
    return BASE_OK;
}

base_status_t kern_cublaslt_check(const kern_gemm_plans_t *plans, const char *what,
                                  cublasStatus_t status)
{
    if (status == CUBLAS_STATUS_SUCCESS) return BASE_OK;
    return BASE_FAIL(plans->ctx, BASE_ERR_DEVICE, BASE_MSG_INT_01,
                     "gemm on %s: %s: cuBLAS status %d", plans->device, what, (int)status);
}

/* ==== the table ==== */

base_status_t kern_gemm_plans_create(base_device_t *dev, kern_gemm_plans_t **plans_p)
{
    base_ctx_t *ctx = base_device_ctx(dev);
    kern_gemm_plans_t *plans = base_calloc(ctx, 1, sizeof *plans, "plans of products");
    base_status_t st;

    if (plans == NULL) return BASE_ERR_NOMEM;
    plans->ctx = ctx;
    plans->device = base_device_name(dev);
    st = library_open(ctx, plans->device, &plans->lt);
    if (st == BASE_OK)
        st = kern_cublaslt_check(plans, "cublasLtCreate", plans->lt.cublasLtCreate(&plans->handle));
    if (st < 0) {
        kern_gemm_plans_destroy(plans);
        return st;
    }
    *plans_p = plans;
    return BASE_OK;
}

void kern_gemm_plans_destroy(kern_gemm_plans_t *plans)
{
    if (plans == NULL) return;
    if (plans->handle != NULL) (void)plans->lt.cublasLtDestroy(plans->handle);
    /* The library stays loaded: its code may still be known to the driver. */
    base_free(plans->ctx, plans);
}

static uint64_t hash_of(const kern_gemm_key_t *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < sizeof *key; i++)
        h = (h ^ bytes[i]) * 0x100000001b3u;
    return h;
}

/* The key's place, or the free one where it belongs; NULL: the table is full. */
static kern_gemm_plan_t *find(kern_gemm_plans_t *plans, const kern_gemm_key_t *key)
{
    const uint64_t hash = hash_of(key);

    for (uint64_t i = 0; i < KERN_GEMM_MAX_PLANS; i++) {
        kern_gemm_plan_t *plan = &plans->plans[(hash + i) % KERN_GEMM_MAX_PLANS];

        if (plan->key.used == 0) return plans->num_plans < KERN_GEMM_MAX_PLANS - 1 ? plan : NULL;
        if (memcmp(&plan->key, key, sizeof *key) == 0) return plan;
    }
    return NULL;
}

base_status_t kern_gemm_plan_of(kern_gemm_plans_t *plans, const kern_gemm_problem_t *problem,
                                kern_gemm_plan_t **plan_p)
{
    kern_gemm_plan_t *plan = find(plans, &problem->key);
    int count = 0;

    if (plan == NULL) plan = &plans->plans[0]; /* full: that shape loses its place */
    if (memcmp(&plan->key, &problem->key, sizeof plan->key) != 0) {
        BASE_TRY(kern_gemm_candidates(plans, problem, 0, &count));
        if (plan->key.used == 0) plans->num_plans++;
        plan->key = problem->key;
        plan->algo = plans->candidates[0].algo;
        plan->searched = plan->launched = 0;
    }
    *plan_p = plan;
    return BASE_OK;
}

int kern_gemm_plan_put(kern_gemm_plans_t *plans, const kern_gemm_plan_t *plan)
{
    kern_gemm_plan_t *place = find(plans, &plan->key);

    if (place == NULL || plan->key.used == 0) return 0;
    if (place->key.used == 0) plans->num_plans++;
    *place = *plan;
    place->searched = 1;
    place->launched = 0;
    return 1;
}

/* ==== problems ==== */

static cudaDataType type_of(kern_dtype_t dtype)
{
    return dtype == KERN_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* A row-major matrix is its transpose in column-major order; a pitch below the columns cannot be,
 * but a matrix of one row may have any. */
static cublasStatus_t layout_init(const kern_cublaslt_t *lt, cublasLtMatrixLayout_t layout,
                                  const kern_mat_t *mat)
{
    return lt->cublasLtMatrixLayoutInit_internal(layout, sizeof *layout, type_of(mat->dtype),
                                                 (uint64_t)mat->cols, (uint64_t)mat->rows,
                                                 mat->pitch);
}

base_status_t kern_gemm_problem_init(const kern_gemm_plans_t *plans, const kern_gemm_t *args,
                                     kern_gemm_problem_t *problem)
{
    const kern_cublaslt_t *lt = &plans->lt;
    const int32_t first = args->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int32_t second = args->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;

    memset(problem, 0, sizeof *problem);
    problem->alpha = 1.0f;
    problem->beta = args->accumulate ? 1.0f : 0.0f;
    problem->first_data = base_mem_address(args->b.mem);
    problem->second_data = base_mem_address(args->a.mem);
    problem->c_data = base_mem_address(args->c.mem);
    BASE_TRY(kern_cublaslt_check(
        plans, "cublasLtMatmulDescInit",
        lt->cublasLtMatmulDescInit_internal(&problem->desc, sizeof problem->desc,
                                            CUBLAS_COMPUTE_32F, CUDA_R_32F)));
    BASE_TRY(kern_cublaslt_check(plans, "transpose of b",
                                 lt->cublasLtMatmulDescSetAttribute(&problem->desc,
                                                                    CUBLASLT_MATMUL_DESC_TRANSA,
                                                                    &first, sizeof first)));
    BASE_TRY(kern_cublaslt_check(plans, "transpose of a",
                                 lt->cublasLtMatmulDescSetAttribute(&problem->desc,
                                                                    CUBLASLT_MATMUL_DESC_TRANSB,
                                                                    &second, sizeof second)));
    BASE_TRY(kern_cublaslt_check(plans, "layout of b", layout_init(lt, &problem->first, &args->b)));
    BASE_TRY(
        kern_cublaslt_check(plans, "layout of a", layout_init(lt, &problem->second, &args->a)));
    BASE_TRY(kern_cublaslt_check(plans, "layout of c", layout_init(lt, &problem->c, &args->c)));

    problem->key = kern_gemm_key_of(args);
    return BASE_OK;
}

/* ==== candidates ==== */

static cublasStatus_t preference_init(const kern_cublaslt_t *lt, const kern_gemm_key_t *key,
                                      int64_t workspace_bytes, cublasLtMatmulPreference_t pref)
{
    const uint64_t workspace = (uint64_t)workspace_bytes;
    const uint32_t a = (uint32_t)key->b_align, b = (uint32_t)key->a_align,
                   c = (uint32_t)key->c_align;
    const uint32_t reduction =
        workspace_bytes > 0 ? CUBLASLT_REDUCTION_SCHEME_MASK : CUBLASLT_REDUCTION_SCHEME_NONE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        const void *value;
        size_t bytes;
    } settings[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a, sizeof a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &b, sizeof b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c, sizeof c},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &c, sizeof c},
    };
    cublasStatus_t status = lt->cublasLtMatmulPreferenceInit_internal(pref, sizeof *pref);

    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        if (status == CUBLAS_STATUS_SUCCESS)
            status = lt->cublasLtMatmulPreferenceSetAttribute(pref, settings[i].attribute,
                                                              settings[i].value, settings[i].bytes);
    return status;
}

/* Rows of a row-major matrix are columns of a layout. */
static cublasStatus_t layout_set_rows(const kern_cublaslt_t *lt, cublasLtMatrixLayout_t layout,
                                      uint64_t rows)
{
    return lt->cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_COLS, &rows,
                                                sizeof rows);
}

static cublasStatus_t layout_set_cols(const kern_cublaslt_t *lt, cublasLtMatrixLayout_t layout,
                                      uint64_t cols)
{
    return lt->cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_ROWS, &cols,
                                                sizeof cols);
}

/* The largest M and K of the key, so that which are met first does not matter. (A sum over rows keeps its K.) */
static cublasStatus_t widen(const kern_cublaslt_t *lt, kern_gemm_problem_t *problem)
{
    const kern_gemm_key_t *key = &problem->key;
    const uint64_t m = (uint64_t)(key->m_bound < 0 ? -key->m_bound : key->m_bound);
    const uint64_t k = (uint64_t)kern_gemm_key_depth(key);
    cublasStatus_t status = layout_set_rows(lt, &problem->c, m);

    if (key->transpose_a || status != CUBLAS_STATUS_SUCCESS) return status;
    status = layout_set_rows(lt, &problem->second, m);
    if (status == CUBLAS_STATUS_SUCCESS) status = layout_set_cols(lt, &problem->second, k);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    return key->transpose_b ? layout_set_cols(lt, &problem->first, k)
                            : layout_set_rows(lt, &problem->first, k);
}

/* Nothing that adds parts of a sum in an order of its own. */
static int is_plain(const kern_gemm_plans_t *plans, const cublasLtMatmulHeuristicResult_t *found)
{
    int32_t split = 0;
    size_t written = 0;
    const cublasStatus_t status = plans->lt.cublasLtMatmulAlgoConfigGetAttribute(
        &found->algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split, sizeof split, &written);

    return found->workspaceSize == 0 && status == CUBLAS_STATUS_SUCCESS &&
           (split == 0 || split == 1);
}

base_status_t kern_gemm_candidates(kern_gemm_plans_t *plans, const kern_gemm_problem_t *problem,
                                   int64_t workspace_bytes, int *count)
{
    const kern_cublaslt_t *lt = &plans->lt;
    cublasLtMatmulPreferenceOpaque_t pref;
    /* The functions take descriptors without const and do not change them. */
    kern_gemm_problem_t copy = *problem;
    int found = 0, kept = 0;

    BASE_TRY(kern_cublaslt_check(plans, "bounds of the shape", widen(lt, &copy)));
    BASE_TRY(kern_cublaslt_check(plans, "cublasLtMatmulPreferenceInit",
                                 preference_init(lt, &problem->key, workspace_bytes, &pref)));
    BASE_TRY(kern_cublaslt_check(
        plans, "no algorithm for the shape",
        lt->cublasLtMatmulAlgoGetHeuristic(plans->handle, &copy.desc, &copy.first, &copy.second,
                                           &copy.c, &copy.c, &pref, KERN_GEMM_MAX_CANDIDATES,
                                           plans->candidates, &found)));
    for (int i = 0; i < found; i++) {
        const cublasLtMatmulHeuristicResult_t *candidate = &plans->candidates[i];

        if (candidate->state != CUBLAS_STATUS_SUCCESS) continue;
        if (workspace_bytes > 0 || is_plain(plans, candidate))
            plans->candidates[kept++] = *candidate;
    }
    if (kept == 0)
        return kern_cublaslt_check(plans, "no algorithm for the shape",
                                   CUBLAS_STATUS_NOT_SUPPORTED);
    *count = kept;
    return BASE_OK;
}

cublasStatus_t kern_gemm_launch(const kern_gemm_plans_t *plans, const kern_gemm_problem_t *problem,
                                const cublasLtMatmulAlgo_t *algo, void *workspace,
                                int64_t workspace_bytes, void *native_stream)
{
    kern_gemm_problem_t copy = *problem;

    return plans->lt.cublasLtMatmul(plans->handle, &copy.desc, &copy.alpha, copy.first_data,
                                    &copy.first, copy.second_data, &copy.second, &copy.beta,
                                    copy.c_data, &copy.c, copy.c_data, &copy.c, algo, workspace,
                                    (size_t)workspace_bytes, (cudaStream_t)native_stream);
}
