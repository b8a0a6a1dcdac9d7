#include "base/device/staging.h"

#include "base/device/device_host.h"
#include "base/memory.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

static base_status_t make(base_device_t *dev, int64_t bytes, const char *what, bool zeroed,
                          base_staging_t *staging)
{
    *staging = (base_staging_t){.bytes = bytes, .ctx = base_device_ctx(dev)};
    if (base_device_kind(dev) == BASE_DEVICE_CUDA) {
        BASE_TRY(base_buffer_alloc(dev, BASE_MEMORY_PINNED, bytes, what, &staging->pinned));
        staging->memory = base_mem_address(base_mem(staging->pinned, 0));
        if (zeroed) memset(staging->memory, 0, (size_t)bytes);
        return BASE_OK;
    }
    staging->memory = zeroed ? base_calloc(staging->ctx, bytes, 1, what)
                             : base_alloc(staging->ctx, (size_t)bytes, what);
    return staging->memory == NULL ? BASE_ERR_NOMEM : BASE_OK;
}

base_status_t base_staging_create(base_device_t *dev, int64_t bytes, const char *what,
                                  base_staging_t *staging)
{
    return make(dev, bytes, what, true, staging);
}

base_status_t base_staging_create_raw(base_device_t *dev, int64_t bytes, const char *what,
                                      base_staging_t *staging)
{
    return make(dev, bytes, what, false, staging);
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

/* ==== uploads ==== */

typedef struct rows_args {
    unsigned char *to;
    const unsigned char *from;
    int64_t row_bytes, rows, pitch;
} rows_args_t;

static base_status_t rows_work(void *args)
{
    const rows_args_t *a = args;

    for (int64_t r = 0; r < a->rows; r++)
        memcpy(a->to + r * a->pitch, a->from + r * a->row_bytes, (size_t)a->row_bytes);
    return BASE_OK;
}

base_status_t base_staging_upload(base_stream_t *s, const base_range_t *dst,
                                  const base_staging_t *staging, int64_t at)
{
    assert(at >= 0 && dst->rows * dst->row_bytes <= staging->bytes - at);
    if (staging->pinned != NULL) {
        const base_range_t src = {.mem = base_mem(staging->pinned, at),
                                  .row_bytes = dst->row_bytes,
                                  .rows = dst->rows,
                                  .pitch = dst->row_bytes};

        return base_copy(s, dst, &src);
    }
    BASE_TRY(base_range_check(staging->ctx, dst, "copy destination"));
    if (dst->rows == 0 || dst->row_bytes == 0) return BASE_OK;
    const rows_args_t args = {.to = base_mem_address(dst->mem),
                              .from = (const unsigned char *)staging->memory + at,
                              .row_bytes = dst->row_bytes,
                              .rows = dst->rows,
                              .pitch = dst->pitch};
    const base_operand_t operand = {*dst, BASE_WRITE};
    return base_stream_submit(s, rows_work, &args, sizeof args, &operand, 1);
}
