#include "kernels/gemm_key.h"

#include "base/device/device_host.h"

#define DEPTH_PARTS 8  /* of a power of two */
#define LEAST_STEP  64 /* no kernel takes less of K at once */

int64_t kern_gemm_rows_bound(int64_t rows)
{
    int64_t bound = KERN_GEMM_LEAST_ROWS;

    while (bound < rows)
        bound *= 2;
    return bound;
}

/* Of the powers of two beside k. */
static int64_t depth_step(int64_t k)
{
    int64_t power = 1;

    while (power * 2 <= k)
        power *= 2;
    return power / DEPTH_PARTS > LEAST_STEP ? power / DEPTH_PARTS : LEAST_STEP;
}

int64_t kern_gemm_depth_bound(int64_t k)
{
    const int64_t step = depth_step(k);

    return (k + step - 1) / step * step;
}

int64_t kern_gemm_depth_below(int64_t k)
{
    const int64_t step = depth_step(k - 1);

    return (k - 1) / step * step;
}

static int32_t alignment_of(base_mem_t mem)
{
    const uintptr_t a = (uintptr_t)base_mem_address(mem);

    return a % 256 == 0 ? 256 : (int32_t)(a & (~a + 1));
}

kern_gemm_key_t kern_gemm_key_of(const kern_gemm_t *args)
{
    /* The rows that grow with the microbatch: of C, and of a weight gradient's sum. */
    const int64_t m = args->transpose_a ? args->c.rows : kern_gemm_rows_bound(args->c.rows);
    const int64_t k = args->transpose_a ? kern_gemm_rows_bound(args->a.rows)
                                        : kern_gemm_depth_bound(args->a.cols);

    return (kern_gemm_key_t){.m_bound = m,
                             .n = args->c.cols,
                             .k_bound = k,
                             .a_pitch = args->a.pitch,
                             .b_pitch = args->b.pitch,
                             .c_pitch = args->c.pitch,
                             .transpose_a = args->transpose_a != 0,
                             .transpose_b = args->transpose_b != 0,
                             .accumulate = args->accumulate != 0,
                             .c_dtype = (int32_t)args->c.dtype,
                             .a_align = alignment_of(args->a.mem),
                             .b_align = alignment_of(args->b.mem),
                             .c_align = alignment_of(args->c.mem),
                             .used = 1};
}

int64_t kern_gemm_key_depth(const kern_gemm_key_t *key)
{
    int64_t depth = key->k_bound;

    if (key->a_pitch < depth) depth = key->a_pitch;
    if (key->transpose_b && key->b_pitch < depth) depth = key->b_pitch;
    return depth;
}
