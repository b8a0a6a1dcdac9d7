#include "base/device/device.h"

#include "base/device/device_host.h"
#include "base/device/device_ops.h"
#include "base/memory.h"

#include <stdio.h>

/* ==== device ==== */

base_status_t base_device_open(base_ctx_t *ctx, base_device_kind_t kind, int index,
                               base_device_t **dev_p)
{
    switch (kind) {
    case BASE_DEVICE_CPU:
        return base_device_open_cpu(ctx, index, dev_p);
    case BASE_DEVICE_STRICT:
        return base_device_open_strict(ctx, index, dev_p);
    case BASE_DEVICE_CUDA:
        return base_device_open_cuda(ctx, index, dev_p);
    }
    return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "device kind %d does not exist",
                     (int)kind);
}

void base_device_close(base_device_t *dev)
{
    if (dev != NULL) dev->ops->close(dev);
}

base_device_kind_t base_device_kind(const base_device_t *dev)
{
    return dev->kind;
}

const char *base_device_name(const base_device_t *dev)
{
    return dev->name;
}

base_ctx_t *base_device_ctx(const base_device_t *dev)
{
    return dev->ctx;
}

void base_device_set_seed(base_device_t *dev, uint64_t seed)
{
    atomic_store_explicit(&dev->seed, seed, memory_order_relaxed);
}

void base_device_init_common(base_device_t *dev, const base_device_ops_t *ops, base_ctx_t *ctx,
                             base_device_kind_t kind, int index, const char *name)
{
    dev->ops = ops;
    dev->ctx = ctx;
    dev->kind = kind;
    dev->index = index;
    atomic_init(&dev->seed, 1);
    atomic_init(&dev->shares, false);
    atomic_init(&dev->num_buffers, 0);
    atomic_init(&dev->waits, 0);
    atomic_init(&dev->event_waits, 0);
    atomic_init(&dev->kept, NULL);
    snprintf(dev->name, sizeof dev->name, "%s", name);
}

int64_t base_device_waits(const base_device_t *dev)
{
    return atomic_load_explicit(&dev->waits, memory_order_relaxed);
}

int64_t base_device_event_waits(const base_device_t *dev)
{
    return atomic_load_explicit(&dev->event_waits, memory_order_relaxed);
}

int64_t base_device_free_bytes(base_device_t *dev)
{
    int64_t free_bytes, all_bytes;

    if (dev->ops->memory == NULL || !dev->ops->memory(dev, &free_bytes, &all_bytes)) return 0;
    return free_bytes;
}

int64_t base_device_used_bytes(base_device_t *dev)
{
    int64_t free_bytes, all_bytes;

    if (dev->ops->memory == NULL || !dev->ops->memory(dev, &free_bytes, &all_bytes)) return 0;
    return all_bytes - free_bytes;
}

/* ==== buffers ==== */

base_status_t base_buffer_alloc(base_device_t *dev, base_memory_kind_t kind, int64_t bytes,
                                const char *name, base_buffer_t **buf_p)
{
    const base_resource_t resource =
        kind == BASE_MEMORY_PINNED ? BASE_RESOURCE_PINNED : BASE_RESOURCE_DEVICE;
    base_memory_t *memory = base_ctx_memory(dev->ctx);

    if (bytes < 0 || kind < 0 || kind >= BASE_MEMORY_KIND_COUNT)
        return BASE_FAIL(dev->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "buffer %s: %lld bytes of memory kind %d", name, (long long)bytes,
                         (int)kind);
    base_status_t st = base_memory_count_alloc(memory, resource, bytes);
    if (st < 0)
        return BASE_FAIL(dev->ctx, st, BASE_MSG_MEM_01, "buffer %s: %s has no %lld bytes", name,
                         dev->name, (long long)bytes);
    st = dev->ops->buffer_alloc(dev, kind, bytes, name, buf_p);
    if (st < 0) base_memory_count_free(memory, resource, bytes);
    return st;
}

void base_buffer_free(base_buffer_t *buf)
{
    if (buf == NULL) return;
    if (!buf->imported)
        base_memory_count_free(base_ctx_memory(buf->dev->ctx),
                               buf->kind == BASE_MEMORY_PINNED ? BASE_RESOURCE_PINNED
                                                               : BASE_RESOURCE_DEVICE,
                               buf->bytes);
    buf->dev->ops->buffer_free(buf);
}

int64_t base_buffer_bytes(const base_buffer_t *buf)
{
    return buf->bytes;
}

const char *base_buffer_name(const base_buffer_t *buf)
{
    return buf->name;
}

base_device_t *base_buffer_device(const base_buffer_t *buf)
{
    return buf->dev;
}

void base_buffer_init_common(base_buffer_t *buf, base_device_t *dev, base_memory_kind_t kind,
                             int64_t bytes, const char *name)
{
    buf->dev = dev;
    buf->kind = kind;
    buf->bytes = bytes;
    buf->serial = atomic_fetch_add(&dev->num_buffers, 1) + 1;
    buf->imported = buf->exported = false;
    buf->own_bytes = 0;
    buf->shared = NULL;
    buf->note = NULL;
    snprintf(buf->name, sizeof buf->name, "%s", name);
}

/* ==== inside view ==== */

uint64_t base_buffer_serial(const base_buffer_t *buf)
{
    return buf->serial;
}

void *base_mem_address(base_mem_t mem)
{
    return mem.buffer == NULL ? NULL : mem.buffer->address + mem.offset;
}

base_status_t base_host_view_create(base_device_t *dev, void *memory, int64_t bytes,
                                    base_buffer_t **buf_p)
{
    base_buffer_t *buf = base_calloc(dev->ctx, 1, sizeof *buf, "view of host memory");

    if (buf == NULL) return BASE_ERR_NOMEM;
    base_buffer_init_common(buf, dev, BASE_MEMORY_DEVICE, bytes, "view of host memory");
    buf->address = memory;
    *buf_p = buf;
    return BASE_OK;
}

void base_host_view_destroy(base_buffer_t *buf)
{
    if (buf != NULL) base_free(buf->dev->ctx, buf);
}

void base_host_open(const base_operand_t *operands, int num_operands)
{
    for (int i = 0; i < num_operands; i++) {
        const base_range_t *r = &operands[i].range;
        const int64_t span = base_range_span(r);
        if (span > 0 && r->mem.buffer->dev->ops->buffer_open != NULL)
            /* A failure is recorded in the buffer's context; the access that follows faults. */
            (void)r->mem.buffer->dev->ops->buffer_open(r->mem.buffer, r->mem.offset, span,
                                                       operands[i].access);
    }
}

void base_host_close(const base_operand_t *operands, int num_operands)
{
    for (int i = 0; i < num_operands; i++) {
        const base_range_t *r = &operands[i].range;
        const int64_t span = base_range_span(r);
        if (span > 0 && r->mem.buffer->dev->ops->buffer_close != NULL)
            r->mem.buffer->dev->ops->buffer_close(r->mem.buffer, r->mem.offset, span,
                                                  operands[i].access);
    }
}
