#include "kernels/adamw_terms.h"
#include "kernels/cpu/real.h"

static void update_row(const kern_adamw_terms_t *terms, real_t clip,
                       const kern_adamw_tensor_t *tensor, int64_t t)
{
    const real_t keep = (real_t)terms->keep, blend_m = (real_t)terms->blend_m,
                 beta2 = (real_t)terms->beta2, blend_v = (real_t)terms->blend_v,
                 step_size = (real_t)terms->step_size, root_bias_v = (real_t)terms->root_bias_v,
                 eps = (real_t)terms->eps;
    const real_t *gradient = real_row(&tensor->gradient, t);
    real_t *w = real_row(&tensor->w, t), *m = real_row(&tensor->m, t), *v = real_row(&tensor->v, t);

    for (int64_t j = 0; j < tensor->w.cols; j++) {
        const real_t g = clip * gradient[j];

        w[j] *= keep;
        m[j] += blend_m * (g - m[j]);
        v[j] = beta2 * v[j] + blend_v * g * g;
        w[j] -= step_size * m[j] / (real_sqrt(v[j]) / root_bias_v + eps);
    }
    if (!kern_mat_absent(&tensor->copy))
        memcpy(real_row(&tensor->copy, t), w, (size_t)tensor->w.cols * sizeof *w);
}

base_status_t KERN_NAME(adamw)(void *args)
{
    const kern_adamw_t *p = args;
    const kern_adamw_terms_t terms = kern_adamw_terms(p);
    const real_t clip = kern_mat_absent(&p->clip) ? 1 : *real_row(&p->clip, 0);

    if (!kern_mat_absent(&p->skip) && *int_row(&p->skip) != 0) return BASE_OK;
    for (int64_t i = 0; i < p->num_tensors; i++)
        for (int64_t t = 0; t < p->tensors[i].w.rows; t++)
            update_row(&terms, clip, &p->tensors[i], t);
    return BASE_OK;
}
