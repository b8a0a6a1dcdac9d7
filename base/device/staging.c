#include "base/device/staging.h"

#include "base/device/device_host.h"
#include "base/memory.h"

#include <string.h>

base_status_t base_staging_create(base_device_t *dev, int64_t bytes, const char *what,
                                  base_staging_t *staging)
{
    *staging = (base_staging_t){.ctx = base_device_ctx(dev)};
    if (base_device_kind(dev) == BASE_DEVICE_CUDA) {
        BASE_TRY(base_buffer_alloc(dev, BASE_MEMORY_PINNED, bytes, what, &staging->pinned));
        staging->memory = base_mem_address(base_mem(staging->pinned, 0));
        memset(staging->memory, 0, (size_t)bytes);
        return BASE_OK;
    }
    staging->memory = base_calloc(staging->ctx, bytes, 1, what);
    return staging->memory == NULL ? BASE_ERR_NOMEM : BASE_OK;
}

void base_staging_destroy(base_staging_t *staging)
{
    if (staging == NULL || staging->memory == NULL) return;
    if (staging->pinned != NULL)
        base_buffer_free(staging->pinned);
    else
        base_free(staging->ctx, staging->memory);
    *staging = (base_staging_t){0};
}
