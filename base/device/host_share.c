/* Exports and imports of the CPU family: the memory is shared (base/shared_memory.h). */
#include "base/device/host_stream.h"

/* A rank that fails frees its buffers before all others know, and what they then find must not be taken for a fault of
 * its own. */
typedef struct base_host_kept {
    struct base_host_kept *next;
    base_shared_t *memory;
} base_host_kept_t;

base_status_t base_host_buffer_export(base_buffer_t *buf, base_export_fields_t *fields)
{
    if (buf->note == NULL) buf->note = base_calloc(buf->dev->ctx, 1, sizeof *buf->note, "export");
    if (buf->note == NULL) return BASE_ERR_NOMEM;
    fields->memory = base_shared_name(buf->shared);
    return BASE_OK;
}

void base_host_close_shared(base_buffer_t *buf)
{
    base_device_t *dev = buf->dev;
    base_host_kept_t *k = buf->note;

    if (k == NULL) {
        base_shared_close(buf->shared);
        return;
    }
    k->memory = buf->shared;
    k->next = atomic_load(&dev->kept);
    while (!atomic_compare_exchange_weak(&dev->kept, &k->next, k))
        continue;
}

void base_host_free_kept(base_device_t *dev)
{
    base_host_kept_t *k = atomic_exchange(&dev->kept, NULL);

    while (k != NULL) {
        base_host_kept_t *next = k->next;

        base_shared_close(k->memory);
        base_free(dev->ctx, k);
        k = next;
    }
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
