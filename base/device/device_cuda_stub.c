/* In place of device_cuda.c in builds without CUDA. */
#include "base/device/device_ops.h"

base_status_t base_device_open_cuda(base_ctx_t *ctx, int index, base_device_t **dev_p)
{
    *dev_p = NULL;
    return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01,
                     "cuda:%d: this program was built without CUDA (preset cuda has it)", index);
}
