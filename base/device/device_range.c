#include "base/device/device_ops.h"

base_mem_t base_mem(base_buffer_t *buffer, int64_t offset)
{
    const base_mem_t mem = {buffer, offset};
    return mem;
}

base_mem_t base_mem_at(base_mem_t mem, int64_t more_bytes)
{
    return base_mem(mem.buffer, mem.offset + more_bytes);
}

int64_t base_range_span(const base_range_t *r)
{
    if (r->rows == 0 || r->row_bytes == 0) return 0;
    return (r->rows - 1) * (r->rows > 1 ? r->pitch : 0) + r->row_bytes;
}

base_status_t base_range_check(base_ctx_t *ctx, const base_range_t *r, const char *what)
{
    const base_buffer_t *buf = r->mem.buffer;
    const bool empty = r->rows == 0 || r->row_bytes == 0;
    const int64_t pitch = r->rows > 1 ? r->pitch : 0;
    int64_t end = 0;

    if (empty && buf == NULL && r->mem.offset == 0 && r->rows >= 0 && r->row_bytes >= 0)
        return BASE_OK;
    if (buf == NULL) return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s: no buffer", what);
    bool bad = r->rows < 0 || r->row_bytes < 0 || r->mem.offset < 0 ||
               (r->rows > 1 && pitch < r->row_bytes);
    if (!bad && empty)
        bad = r->mem.offset > buf->bytes;
    else if (!bad)
        /* Overflow is how a wrong product of sizes shows, so it must not wrap into something
         * legal. */
        bad = __builtin_mul_overflow(r->rows - 1, pitch, &end) ||
              __builtin_add_overflow(end, r->row_bytes, &end) ||
              __builtin_add_overflow(end, r->mem.offset, &end) || end > buf->bytes;
    if (bad)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: offset %lld, %lld rows of %lld bytes, pitch %lld, do not lie in "
                         "buffer %s of %lld bytes",
                         what, (long long)r->mem.offset, (long long)r->rows,
                         (long long)r->row_bytes, (long long)r->pitch, buf->name,
                         (long long)buf->bytes);
    return BASE_OK;
}
