/* The coefficients of an AdamW step (kernels/op.h), computed on the host in double for every
 * device, so that devices differ in the rounding of the update only. */
#ifndef CADRE_KERNELS_ADAMW_TERMS_H
#define CADRE_KERNELS_ADAMW_TERMS_H

#include "kernels/op.h"

#include <math.h>

typedef struct kern_adamw_coefficients {
    double keep;    /* 1 - learning_rate weight_decay */
    double blend_m; /* 1 - beta1 */
    double beta2;
    double blend_v;     /* 1 - beta2 */
    double step_size;   /* learning_rate / (1 - beta1^t) */
    double root_bias_v; /* sqrt(1 - beta2^t) */
    double eps;
} kern_adamw_terms_t;

static inline kern_adamw_terms_t kern_adamw_terms(const kern_adamw_t *args)
{
    const double t = (double)args->step;
    kern_adamw_terms_t terms;

    terms.keep = 1.0 - args->learning_rate * args->weight_decay;
    terms.blend_m = 1.0 - args->beta1;
    terms.beta2 = args->beta2;
    terms.blend_v = 1.0 - args->beta2;
    terms.step_size = args->learning_rate / (1.0 - pow(args->beta1, t));
    terms.root_bias_v = sqrt(1.0 - pow(args->beta2, t));
    terms.eps = args->eps;
    return terms;
}

#endif
