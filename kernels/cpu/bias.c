#include "kernels/cpu/real.h"

base_status_t KERN_NAME(bias_add)(void *args)
{
    const kern_bias_add_t *p = args;
    const real_t *bias = real_row(&p->bias, 0);

    for (int64_t t = 0; t < p->y.rows; t++) {
        real_t *y = real_row(&p->y, t);

        for (int64_t j = 0; j < p->y.cols; j++)
            y[j] += bias[j];
    }
    return BASE_OK;
}

base_status_t KERN_NAME(column_sum)(void *args)
{
    const kern_column_sum_t *p = args;
    real_t *sum = real_row(&p->sum, 0);

    for (int64_t t = 0; t < p->x.rows; t++) {
        const real_t *x = real_row(&p->x, t);

        for (int64_t j = 0; j < p->x.cols; j++)
            sum[j] += x[j];
    }
    return BASE_OK;
}
