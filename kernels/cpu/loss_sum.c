#include "kernels/cpu/real.h"

#include <inttypes.h>

base_status_t KERN_NAME(loss_sum)(void *args)
{
    const kern_loss_sum_t *p = args;
    const real_t *values = real_row(&p->values, 0), *weights = real_row(&p->weights, 0);
    const int32_t *segments = int_row(&p->segments);
    real_t *sums = real_row(&p->sums, 0);

    for (int64_t i = 0; i < p->values.cols; i++) {
        if (segments[i] < 0 || segments[i] >= p->sums.cols)
            return BASE_FAIL(base_device_ctx(base_buffer_device(p->sums.mem.buffer)), BASE_ERR_ARG,
                             BASE_MSG_INT_01,
                             "loss_sum: value %" PRId64 " has segment %" PRId32
                             ", sums has %" PRId64,
                             i, segments[i], p->sums.cols);
        if (weights[i] != 0) /* 0 switches a row off, also one that is not finite */
            sums[segments[i]] += weights[i] * values[i];
    }
    return BASE_OK;
}
