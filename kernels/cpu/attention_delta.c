#include "kernels/cpu/real.h"

base_status_t KERN_NAME(attention_delta)(void *args)
{
    const kern_attention_delta_t *p = args;
    const int64_t dim = p->head_dim, heads = p->num_kv_heads, group = p->num_q_heads / heads;
    real_t *delta = real_at(p->delta);

    for (int64_t t = 0; t < p->o.rows; t++) {
        const real_t *o = real_row(&p->o, t), *d_o = real_row(&p->d_o, t);

        for (int64_t h = 0; h < heads; h++)
            for (int64_t r = 0; r < group; r++, o += dim, d_o += dim)
                delta[(h * p->head_rows + t) * group + r] = real_dot(dim, d_o, o);
    }
    return BASE_OK;
}
