#include "kernels/cpu/real.h"

base_status_t KERN_NAME(gemm)(void *args)
{
    const kern_gemm_t *p = args;
    const int64_t k = p->transpose_a ? p->a.rows : p->a.cols;

    real_gemm(p->transpose_a, p->transpose_b, p->c.rows, p->c.cols, k, 1, real_row(&p->a, 0),
              p->a.pitch, real_row(&p->b, 0), p->b.pitch, p->accumulate ? 1 : 0, real_row(&p->c, 0),
              p->c.pitch);
    return BASE_OK;
}
