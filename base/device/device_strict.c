/* The strict device: a GPU's rules on host memory, for tests.
 *
 * A buffer lies in pages of its own between two guard pages and is PROT_NONE. While a work item
 * runs, the pages of its operands are open: readable, and writable when some running item names
 * the page for writing. Per page two counts say how many running items read and write it. What
 * is opened are whole pages: bytes beside an operand in its first and last page are open too,
 * and so are, for all threads, pages that another stream's running item opened. A test that has
 * to be sure keeps its tensors on pages of their own (arena regions are) and its streams
 * ordered.
 *
 * New buffers hold 0xFF (NaN). The rest of the last page keeps that pattern; a change found at
 * free is INT-01.
 *
 * Every stream has a worker, which waits a random time before some items; streams thus
 * interleave differently for each seed, and an edge that is missing shows within a few of them. */
#include "base/device/host_stream.h"

#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef struct page_use {
    uint16_t readers, writers;
} page_use_t;

typedef struct strict_buffer {
    base_buffer_t base;
    pthread_mutex_t mutex; /* guards uses and the protection of the pages */
    page_use_t *uses;
    int64_t page_bytes, num_pages;
    unsigned char *map; /* with the guard pages */
    size_t map_bytes;
} strict_buffer_t;

static void strict_close(base_device_t *dev)
{
    base_host_free_kept(dev);
    base_free(dev->ctx, dev);
}

/* `imported` NULL: a buffer of this process, new. */
static base_status_t buffer_make(base_device_t *dev, base_memory_kind_t kind, int64_t bytes,
                                 const char *name, const base_shared_name_t *imported,
                                 base_buffer_t **buf_p)
{
    base_ctx_t *ctx = dev->ctx;
    base_status_t st = BASE_ERR_NOMEM;
    strict_buffer_t *b = base_calloc(ctx, 1, sizeof *b, "buffer");
    if (b == NULL) return st;
    base_buffer_init_common(&b->base, dev, kind, bytes, name);
    b->page_bytes = sysconf(_SC_PAGESIZE);
    b->num_pages =
        bytes / b->page_bytes + 1; /* at least one, so that every buffer has an address */
    b->map_bytes = (size_t)((b->num_pages + 2) * b->page_bytes);
    b->map = mmap(NULL, b->map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->map == MAP_FAILED) goto err_text;
    b->base.address = b->map + b->page_bytes;
    const size_t inner = (size_t)(b->num_pages * b->page_bytes);
    if (imported != NULL)
        BASE_TRY_GOTO(base_shared_open(ctx, imported, b->base.address, name, &b->base.shared), st,
                      err_unmap);
    else if (kind == BASE_MEMORY_DEVICE && atomic_load(&dev->shares))
        BASE_TRY_GOTO(
            base_shared_create(ctx, (int64_t)inner, b->base.address, name, &b->base.shared), st,
            err_unmap);
    else if (mprotect(b->base.address, inner, PROT_READ | PROT_WRITE) != 0)
        goto err_unmap_text;
    if (imported == NULL) memset(b->base.address, 0xFF, inner);
    b->uses = base_calloc(ctx, b->num_pages, sizeof *b->uses, "page counts");
    if (b->uses == NULL) goto err_close;
    if (mprotect(b->base.address, inner, PROT_NONE) != 0 ||
        pthread_mutex_init(&b->mutex, NULL) != 0) {
        base_shared_close(b->base.shared);
        goto err_unmap_text;
    }
    *buf_p = &b->base;
    return BASE_OK;
err_unmap_text:
    munmap(b->map, b->map_bytes);
err_text:
    BASE_FAIL(ctx, st, BASE_MSG_MEM_01, "buffer %s: %s has no %lld bytes", name, dev->name,
              (long long)bytes);
    goto err_free;
err_close:
    base_shared_close(b->base.shared);
err_unmap:
    munmap(b->map, b->map_bytes);
err_free:
    base_free(ctx, b->uses);
    base_free(ctx, b);
    return st;
}

static base_status_t strict_buffer_alloc(base_device_t *dev, base_memory_kind_t kind, int64_t bytes,
                                         const char *name, base_buffer_t **buf_p)
{
    return buffer_make(dev, kind, bytes, name, NULL, buf_p);
}

/* The other process's pages, closed here whatever is open there. */
static base_status_t strict_buffer_import(base_device_t *dev, const base_export_fields_t *fields,
                                          const char *name, base_buffer_t **buf_p)
{
    return buffer_make(dev, BASE_MEMORY_DEVICE, fields->bytes, name, &fields->memory, buf_p);
}

static void strict_buffer_free(base_buffer_t *buf)
{
    strict_buffer_t *b = (strict_buffer_t *)buf;
    base_ctx_t *ctx = buf->dev->ctx;

    if (!buf->imported &&
        mprotect(b->map + b->num_pages * b->page_bytes, (size_t)b->page_bytes, PROT_READ) == 0)
        for (int64_t i = buf->bytes; i < b->num_pages * b->page_bytes; i++)
            if (buf->address[i] != 0xFF) {
                BASE_FAIL(ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                          "buffer %s: byte %lld was written, size is %lld", buf->name, (long long)i,
                          (long long)buf->bytes);
                break;
            }
    base_host_close_shared(buf);
    munmap(b->map, b->map_bytes);
    pthread_mutex_destroy(&b->mutex);
    base_free(ctx, b->uses);
    base_free(ctx, b);
}

static int page_protection(page_use_t use)
{
    if (use.writers > 0)
        return PROT_READ | PROT_WRITE; /* the processor has no pages for writing only */
    return use.readers > 0 ? PROT_READ : PROT_NONE;
}

/* Adds `step` (1 or -1) to the counts of the pages that hold the bytes and sets their
 * protection, with one call for each run of pages that change alike. */
static int pages_count(strict_buffer_t *b, int64_t offset, int64_t bytes, base_access_t access,
                       int step)
{
    const int64_t first = offset / b->page_bytes;
    const int64_t end = (offset + bytes - 1) / b->page_bytes + 1;
    int64_t run = first; /* pages [run, p) wait for protection `want` */
    int want = -1;
    int rc = 0;

    pthread_mutex_lock(&b->mutex);
    for (int64_t p = first; p <= end; p++) {
        int protection = -1; /* -1: stays as it is */
        if (p < end) {
            const int before = page_protection(b->uses[p]);
            if ((access & BASE_READ) != 0)
                b->uses[p].readers = (uint16_t)(b->uses[p].readers + step);
            if ((access & BASE_WRITE) != 0)
                b->uses[p].writers = (uint16_t)(b->uses[p].writers + step);
            const int after = page_protection(b->uses[p]);
            protection = after == before ? -1 : after;
        }
        if (p == end || protection != want) {
            if (want >= 0 && mprotect(b->base.address + run * b->page_bytes,
                                      (size_t)((p - run) * b->page_bytes), want) != 0)
                rc = -1; /* more mappings than vm.max_map_count */
            run = p;
            want = protection;
        }
    }
    pthread_mutex_unlock(&b->mutex);
    return rc;
}

static void strict_buffer_close(base_buffer_t *buf, int64_t offset, int64_t bytes,
                                base_access_t access)
{
    /* A page that could not be closed stays open: a fault less is found, nothing wrong happens. */
    (void)pages_count((strict_buffer_t *)buf, offset, bytes, access, -1);
}

static base_status_t strict_buffer_open(base_buffer_t *buf, int64_t offset, int64_t bytes,
                                        base_access_t access)
{
    if (pages_count((strict_buffer_t *)buf, offset, bytes, access, 1) == 0) return BASE_OK;
    strict_buffer_close(buf, offset, bytes, access);
    return BASE_FAIL(
        buf->dev->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
        "buffer %s: mprotect of %lld bytes at %lld failed; vm.max_map_count is too small",
        buf->name, (long long)bytes, (long long)offset);
}

/* splitmix64 */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* One item in eight sleeps up to 200 us, one in four yields: late enough to uncover a missing
 * edge within a few seeds, short enough (about 20 us an item) for tests with ten thousands of
 * items. */
static void strict_dawdle(uint64_t *random)
{
    const uint64_t r = random_next(random);
    if ((r & 7) == 0) {
        const struct timespec ts = {.tv_sec = 0, .tv_nsec = (long)((r >> 8) % 200000)};
        nanosleep(&ts, NULL);
    } else if ((r & 7) <= 2) {
        for (uint64_t i = 0; i < 1 + ((r >> 8) & 3); i++)
            sched_yield();
    }
}

static base_status_t strict_stream_create(base_device_t *dev, base_stream_kind_t kind,
                                          const char *name, base_stream_t **s_p)
{
    return base_host_stream_create(dev, kind, name, false, s_p);
}

static const base_device_ops_t strict_ops = {
    .close = strict_close,
    .buffer_alloc = strict_buffer_alloc,
    .buffer_free = strict_buffer_free,
    .buffer_open = strict_buffer_open,
    .buffer_close = strict_buffer_close,
    .stream_create = strict_stream_create,
    .stream_destroy = base_host_stream_destroy,
    .stream_sync = base_host_stream_sync,
    .stream_dawdle = strict_dawdle,
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
    .buffer_import = strict_buffer_import,
    .counter_at = base_host_counter_at,
    .copy = base_host_copy,
    .fill = base_host_fill,
    .upload = base_host_upload,
    .download = base_host_download,
};

base_status_t base_device_open_strict(base_ctx_t *ctx, int index, base_device_t **dev_p)
{
    if (index < 0)
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01, "strict:%d does not exist",
                         index);
    base_device_t *dev = base_calloc(ctx, 1, sizeof *dev, "device");
    if (dev == NULL) return BASE_ERR_NOMEM;
    base_device_init_common(dev, &strict_ops, ctx, BASE_DEVICE_STRICT, index, "strict");
    *dev_p = dev;
    return BASE_OK;
}
