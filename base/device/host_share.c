/* Exports and imports of the CPU family: the memory is shared (base/shared_memory.h). */
#include "base/device/host_stream.h"

base_status_t base_host_buffer_export(base_buffer_t *buf, base_export_fields_t *fields)
{
    fields->memory = base_shared_name(buf->shared);
    return BASE_OK;
}

base_status_t base_host_counter_at(base_device_t *dev, _Atomic uint64_t *word, base_counter_t **c_p)
{
    base_counter_t *c = base_calloc(dev->ctx, 1, sizeof *c, "counter");

    if (c == NULL) return BASE_ERR_NOMEM;
    const base_status_t st = base_counter_init_common(c, dev, word);
    if (st < 0) {
        base_free(dev->ctx, c);
        return st;
    }
    c->device_writes = false; /* other processes' writes wake who waits */
    *c_p = c;
    return BASE_OK;
}
