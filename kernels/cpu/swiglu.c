#include "kernels/cpu/real.h"

/* exp(-g) may overflow to infinity; then the quotient is 0, as it should. */
static real_t sigmoid(real_t g)
{
    return 1 / (1 + real_exp(-g));
}

base_status_t KERN_NAME(swiglu_fwd)(void *args)
{
    const kern_swiglu_fwd_t *p = args;
    const int64_t cols = p->act.cols;

    for (int64_t t = 0; t < p->act.rows; t++) {
        const real_t *gate = real_row(&p->gate_up, t), *up = gate + cols;
        real_t *act = real_row(&p->act, t);

        for (int64_t j = 0; j < cols; j++)
            act[j] = gate[j] * sigmoid(gate[j]) * up[j];
    }
    return BASE_OK;
}

/* silu(g) = g s with s = sigmoid(g), s' = s (1 - s), so silu'(g) = s (1 + g (1 - s)). */
base_status_t KERN_NAME(swiglu_bwd)(void *args)
{
    const kern_swiglu_bwd_t *p = args;
    const int64_t cols = p->dact.cols;

    for (int64_t t = 0; t < p->dact.rows; t++) {
        const real_t *gate = real_row(&p->gate_up, t), *up = gate + cols;
        const real_t *dact = real_row(&p->dact, t);
        real_t *dgate = real_row(&p->dgate_up, t), *dup = dgate + cols;

        for (int64_t j = 0; j < cols; j++) {
            const real_t g = gate[j], s = sigmoid(g);

            dgate[j] = dact[j] * up[j] * s * (1 + g * (1 - s));
            dup[j] = dact[j] * g * s;
        }
    }
    return BASE_OK;
}
