/* What is asked of all gradients of an adapter before its step: their norm, the factor that clips
 * it, and whether they are finite. */
#include "kernels/cpu/real.h"

/* Rows are summed in real_t, rows and tensors in double: a sum of millions of small squares in fp32
 * would stop growing. */
base_status_t KERN_NAME(grad_norm)(void *args)
{
    const kern_grad_norm_t *p = args;
    double sum = 0;

    for (int64_t i = 0; i < p->num_gradients; i++) {
        const kern_mat_t *g = &p->gradients[i];

        for (int64_t t = 0; t < g->rows; t++)
            sum += (double)real_dot(g->cols, real_row(g, t), real_row(g, t));
    }
    *real_row(&p->sum, 0) = (real_t)sum;
    return BASE_OK;
}

base_status_t KERN_NAME(clip_factor)(void *args)
{
    const kern_clip_factor_t *p = args;
    const real_t norm = real_sqrt(*real_row(&p->sum, 0));
    const real_t factor = (real_t)p->clip / (norm + (real_t)1e-6);

    if (!kern_mat_absent(&p->norm)) *real_row(&p->norm, 0) = norm;
    /* NaN is not above 1 and stays */
    *real_row(&p->factor, 0) = isinf(p->clip) || factor > 1 ? 1 : factor;
    return BASE_OK;
}

base_status_t KERN_NAME(finite_check)(void *args)
{
    const kern_finite_check_t *p = args;
    int32_t *count = base_mem_address(p->count.mem);
    int64_t found = p->keep ? *count : 0;

    for (int64_t i = 0; i < p->num_tensors; i++) {
        const kern_mat_t *mat = &p->tensors[i];

        for (int64_t t = 0; t < mat->rows; t++) {
            const real_t *row = real_row(mat, t);

            for (int64_t j = 0; j < mat->cols; j++)
                found += !isfinite(row[j]);
        }
    }
    *count = found < INT32_MAX ? (int32_t)found : INT32_MAX;
    return BASE_OK;
}
