#include "kernels/cpu/real.h"

base_status_t KERN_NAME(add)(void *args)
{
    const kern_add_t *p = args;

    for (int64_t t = 0; t < p->out.rows; t++) {
        const real_t *a = real_row(&p->a, t), *b = real_row(&p->b, t);
        real_t *out = real_row(&p->out, t);

        for (int64_t j = 0; j < p->out.cols; j++)
            out[j] = a[j] + b[j];
    }
    return BASE_OK;
}
