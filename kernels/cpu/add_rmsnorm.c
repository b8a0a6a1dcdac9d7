/* Two ops in one, on the CPU one after the other: between them x has been rounded to its dtype, as the
 * contract says. */
#include "kernels/cpu/cpu_ops.h"

base_status_t kern_cpu_add_rmsnorm_fwd(void *args)
{
    const kern_add_rmsnorm_fwd_t *p = args;
    kern_add_t add = {.a = p->a, .b = p->b, .out = p->x};
    kern_rmsnorm_fwd_t norm = {.x = p->x, .w = p->w, .y = p->y, .rstd = p->rstd, .eps = p->eps};

    switch (p->x.dtype) {
    case KERN_BF16:
        BASE_TRY(kern_cpu_add_bf16(&add));
        return kern_cpu_rmsnorm_fwd_bf16(&norm);
    case KERN_F32:
        BASE_TRY(kern_cpu_add_f32(&add));
        return kern_cpu_rmsnorm_fwd_f32(&norm);
    default:
        BASE_TRY(kern_cpu_add_f64(&add));
        return kern_cpu_rmsnorm_fwd_f64(&norm);
    }
}
