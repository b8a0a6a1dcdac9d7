#include "kernels/cpu/real.h"

base_status_t KERN_NAME(rmsnorm_fwd)(void *args)
{
    const kern_rmsnorm_fwd_t *p = args;
    const int64_t hidden = p->x.cols;
    const real_t *w = real_row(&p->w, 0);
    real_t *rstds = real_row(&p->rstd, 0);

    for (int64_t t = 0; t < p->x.rows; t++) {
        const real_t *x = real_row(&p->x, t);
        real_t *y = real_row(&p->y, t);
        const real_t rstd = 1 / real_sqrt(real_dot(hidden, x, x) / (real_t)hidden + (real_t)p->eps);

        for (int64_t j = 0; j < hidden; j++)
            y[j] = x[j] * rstd * w[j];
        rstds[t] = rstd;
    }
    return BASE_OK;
}

/* With g = w dy and r = (mean(x^2) + eps)^-1/2, y = x r w has dL/dx_j = r g_j - x_j r^3 mean(g x),
 * since dr/dx_j = -r^3 x_j / H. */
base_status_t KERN_NAME(rmsnorm_bwd)(void *args)
{
    const kern_rmsnorm_bwd_t *p = args;
    const int64_t hidden = p->x.cols;
    const real_t *w = real_row(&p->w, 0), *rstds = real_row(&p->rstd, 0);
    real_t *dw = kern_mat_absent(&p->dw) ? NULL : real_row(&p->dw, 0);

    for (int64_t t = 0; t < p->x.rows; t++) {
        const real_t *x = real_row(&p->x, t), *dy = real_row(&p->dy, t), rstd = rstds[t];
        const real_t *dres = kern_mat_absent(&p->dres) ? NULL : real_row(&p->dres, t);
        real_t *dx = real_row(&p->dx, t), lane[REAL_LANES] = {0}, mean;

        for (int64_t j = 0; j < hidden; j++)
            lane[j % REAL_LANES] += w[j] * dy[j] * x[j];
        mean = real_add_lanes(lane) / (real_t)hidden;
        for (int64_t j = 0; dw != NULL && j < hidden; j++)
            dw[j] += dy[j] * x[j] * rstd;
        for (int64_t j = 0; j < hidden; j++) {
            const real_t d = rstd * (w[j] * dy[j] - x[j] * rstd * rstd * mean);

            dx[j] = dres == NULL ? d : d + dres[j];
        }
    }
    return BASE_OK;
}
