/* The cpu device: host memory; COMPUTE streams run work inside the call, ASYNC streams have a
 * worker thread. */
#include "base/device/host_stream.h"

#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CPU_FILL_NEW true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CPU_FILL_NEW true
#endif
#endif
#if !defined(CPU_FILL_NEW)
#define CPU_FILL_NEW false
#endif

#define CPU_ALIGNMENT 4096

static void cpu_close(base_device_t *dev)
{
    base_host_free_kept(dev);
    base_free(dev->ctx, dev);
}

static base_status_t cpu_buffer_alloc(base_device_t *dev, base_memory_kind_t kind, int64_t bytes,
                                      const char *name, base_buffer_t **buf_p)
{
    void *address = NULL;
    base_buffer_t *buf = base_calloc(dev->ctx, 1, sizeof *buf, "buffer");
    if (buf == NULL) return BASE_ERR_NOMEM;
    base_buffer_init_common(buf, dev, kind, bytes, name);
    if (kind == BASE_MEMORY_DEVICE && atomic_load(&dev->shares)) {
        const base_status_t st = base_shared_create(dev->ctx, bytes, NULL, name, &buf->shared);
        if (st < 0) {
            base_free(dev->ctx, buf);
            return st;
        }
        address = base_shared_address(buf->shared);
        goto out;
    }
    /* The exact size, so that AddressSanitizer's red zone begins at the last byte. */
    if (posix_memalign(&address, CPU_ALIGNMENT, bytes > 0 ? (size_t)bytes : 1) != 0) {
        base_free(dev->ctx, buf);
        return BASE_FAIL(dev->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                         "buffer %s: %s has no %lld bytes", name, dev->name, (long long)bytes);
    }
out:
    buf->address = address;
    if (CPU_FILL_NEW)
        memset(address, 0xFF, (size_t)bytes); /* NaN in every floating-point type we use */
    *buf_p = buf;
    return BASE_OK;
}

static void cpu_buffer_free(base_buffer_t *buf)
{
    if (buf->shared != NULL)
        base_host_close_shared(buf);
    else
        free(buf->address);
    base_free(buf->dev->ctx, buf);
}

static base_status_t cpu_buffer_import(base_device_t *dev, const base_export_fields_t *fields,
                                       const char *name, base_buffer_t **buf_p)
{
    base_buffer_t *buf = base_calloc(dev->ctx, 1, sizeof *buf, "buffer");
    if (buf == NULL) return BASE_ERR_NOMEM;
    base_buffer_init_common(buf, dev, BASE_MEMORY_DEVICE, fields->bytes, name);
    const base_status_t st = base_shared_open(dev->ctx, &fields->memory, NULL, name, &buf->shared);
    if (st < 0) {
        base_free(dev->ctx, buf);
        return st;
    }
    buf->address = base_shared_address(buf->shared);
    *buf_p = buf;
    return BASE_OK;
}

static base_status_t cpu_stream_create(base_device_t *dev, base_stream_kind_t kind,
                                       const char *name, base_stream_t **s_p)
{
    return base_host_stream_create(dev, kind, name, kind == BASE_STREAM_COMPUTE, s_p);
}

static const base_device_ops_t cpu_ops = {
    .close = cpu_close,
    .buffer_alloc = cpu_buffer_alloc,
    .buffer_free = cpu_buffer_free,
    .stream_create = cpu_stream_create,
    .stream_destroy = base_host_stream_destroy,
    .stream_sync = base_host_stream_sync,
    .stream_submit = base_host_stream_submit,
    .stream_mark = base_host_stream_mark,
    .event_create = base_host_event_create,
    .event_destroy = base_host_event_destroy,
    .event_record = base_host_event_record,
    .stream_wait_event = base_host_stream_wait_event,
    .event_query = base_host_event_query,
    .counter_create = base_host_counter_create,
    .counter_destroy = base_host_counter_destroy,
    .stream_signal = base_host_stream_signal,
    .stream_wait_counter = base_host_stream_wait_counter,
    .buffer_export = base_host_buffer_export,
    .buffer_import = cpu_buffer_import,
    .counter_at = base_host_counter_at,
    .copy = base_host_copy,
    .fill = base_host_fill,
    .upload = base_host_upload,
    .download = base_host_download,
};

base_status_t base_device_open_cpu(base_ctx_t *ctx, int index, base_device_t **dev_p)
{
    if (index != 0)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01, "cpu:%d: there is only cpu:0",
                         index);
    base_device_t *dev = base_calloc(ctx, 1, sizeof *dev, "device");
    if (dev == NULL) return BASE_ERR_NOMEM;
    base_device_init_common(dev, &cpu_ops, ctx, BASE_DEVICE_CPU, index, "cpu");
    *dev_p = dev;
    return BASE_OK;
}
