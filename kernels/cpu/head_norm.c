#include "kernels/cpu/real.h"

base_status_t KERN_NAME(head_norm_fwd)(void *args)
{
    const kern_head_norm_fwd_t *p = args;
    const int64_t dim = p->head_dim, heads = p->x.cols / dim;
    const real_t *w = real_row(&p->w, 0);

    for (int64_t t = 0; t < p->x.rows; t++) {
        const real_t *x = real_row(&p->x, t);
        real_t *y = real_row(&p->y, t), *rstds = real_row(&p->rstd, t);

        for (int64_t h = 0; h < heads; h++, x += dim, y += dim) {
            const real_t rstd = 1 / real_sqrt(real_dot(dim, x, x) / (real_t)dim + (real_t)p->eps);

            for (int64_t j = 0; j < dim; j++)
                y[j] = x[j] * rstd * w[j];
            rstds[h] = rstd;
        }
    }
    return BASE_OK;
}

/* One head: rmsnorm_bwd without a residual (its derivation is in rmsnorm.c). dx may be dy: dw and
 * the mean have read dy before dx is written. */
static void head_backward(int64_t dim, const real_t *dy, const real_t *x, const real_t *w,
                          real_t rstd, real_t *dw, real_t *dx)
{
    real_t lane[REAL_LANES] = {0}, mean;

    for (int64_t j = 0; j < dim; j++)
        lane[j % REAL_LANES] += w[j] * dy[j] * x[j];
    mean = real_add_lanes(lane) / (real_t)dim;
    for (int64_t j = 0; dw != NULL && j < dim; j++)
        dw[j] += dy[j] * x[j] * rstd;
    for (int64_t j = 0; j < dim; j++)
        dx[j] = rstd * (w[j] * dy[j] - x[j] * rstd * rstd * mean);
}

base_status_t KERN_NAME(head_norm_bwd)(void *args)
{
    const kern_head_norm_bwd_t *p = args;
    const int64_t dim = p->head_dim, heads = p->x.cols / dim;
    const real_t *w = real_row(&p->w, 0);
    real_t *dw = kern_mat_absent(&p->dw) ? NULL : real_row(&p->dw, 0);

    for (int64_t t = 0; t < p->x.rows; t++) {
        const real_t *x = real_row(&p->x, t), *dy = real_row(&p->dy, t);
        const real_t *rstds = real_row(&p->rstd, t);
        real_t *dx = real_row(&p->dx, t);

        for (int64_t h = 0; h < heads; h++)
            head_backward(dim, dy + h * dim, x + h * dim, w, rstds[h], dw, dx + h * dim);
    }
    return BASE_OK;
}
