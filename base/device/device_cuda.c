/* The cuda device: one GPU through the CUDA runtime, linked statically. The driver's stream
 * memory operations, which the runtime does not wrap, come from its entry point table, so that a
 * program starts without libcuda.
 *
 * Streams do not block the legacy default stream. Streams that wait for counters occupy a
 * hardware queue each while they wait; with more streams than queues a waiting stream can hold up an
 * unrelated one, and for ever when that is the one that would raise its counter. A rank with a device
 * transport has about ten streams, more than there are queues by default (8), so that the first device
 * that is opened asks for more (CUDA_DEVICE_MAX_CONNECTIONS, unless it is set).
 *
 * Nothing here blocks without a deadline: waits poll. A wait that has been given to the GPU
 * cannot be taken back, only its counter released; a stream that did not become idle in time marks
 * its device stuck; frees, which would wait for the GPU, are then left to the end of the process. */
#include "base/device/device_cuda.h"

#include "base/device/cuda_pinned.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SPIN_NS 200000 /* poll without sleeping for this long */
#define NAP_NS  50000  /* between two polls afterwards */
/* A handle for another process stands for a block of the driver's: shared buffers have blocks of their
 * own. */
#define SHARED_UNIT     ((size_t)2 * 1024 * 1024)
#define DESTROY_WAIT_MS 1000 /* for a stream that has failed already */

/* ==== errors ==== */

base_status_t base_cuda_fail(base_ctx_t *ctx, cudaError_t e, const char *file, int line,
                             const char *where, const char *what)
{
    base_status_t st = BASE_ERR_DEVICE;
    base_message_t msg = BASE_MSG_INT_01;

    (void)cudaGetLastError(); /* the next launch must not find this one */
    switch (e) {
    case cudaErrorMemoryAllocation:
        st = BASE_ERR_NOMEM;
        msg = BASE_MSG_MEM_01;
        break;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorHardwareStackError:
        msg = BASE_MSG_DEV_01;
        break;
    default:
        break;
    }
    return base_ctx_fail(ctx, st, msg, file, line, "%s: %s: %s (%s)", where, what,
                         cudaGetErrorString(e), cudaGetErrorName(e));
}

/* Mostly the thread was here last, and to look costs less than to say it again. */
base_status_t base_cuda_enter(const base_device_t *dev)
{
    const base_cuda_device_t *cuda = (const base_cuda_device_t *)dev;
    CUcontext now = NULL;

    if (cuda->context != NULL && cuda->current(&now) == CUDA_SUCCESS && now == cuda->context)
        return BASE_OK;
    CUDA_TRY(dev->ctx, dev->name, "cudaSetDevice", cudaSetDevice(dev->index));
    return BASE_OK;
}

void base_cuda_drop(base_device_t *dev, cudaError_t e, const char *what)
{
    if (e != cudaSuccess) base_cuda_fail(dev->ctx, e, __FILE__, __LINE__, dev->name, what);
}

bool base_cuda_stuck(base_device_t *dev)
{
    return atomic_load(&((base_cuda_device_t *)dev)->stuck);
}

/* ==== device ==== */

static void cuda_close(base_device_t *dev)
{
    base_cuda_free_kept(dev);
    base_free(dev->ctx, dev);
}

static int cuda_memory(base_device_t *dev, int64_t *free_bytes, int64_t *all_bytes)
{
    size_t not_taken = 0, all = 0;

    if (base_cuda_enter(dev) < 0) return 0;
    const cudaError_t e = cudaMemGetInfo(&not_taken, &all);
    base_cuda_drop(dev, e, "cudaMemGetInfo");
    *free_bytes = (int64_t)not_taken;
    *all_bytes = (int64_t)all;
    return e == cudaSuccess;
}

/* ==== buffers ==== */

static base_status_t cuda_buffer_alloc(base_device_t *dev, base_memory_kind_t kind, int64_t bytes,
                                       const char *name, base_buffer_t **buf_p)
{
    void *address = NULL;
    const bool shared = kind == BASE_MEMORY_DEVICE && atomic_load(&dev->shares);
    const size_t unit = shared ? SHARED_UNIT : 1;
    const size_t size = ((bytes > 0 ? (size_t)bytes : 1) + unit - 1) / unit * unit;
    char what[BASE_DEVICE_NAME_BYTES + 64];

    BASE_TRY(base_cuda_enter(dev));
    base_buffer_t *buf = base_calloc(dev->ctx, 1, sizeof *buf, "buffer");
    if (buf == NULL) return BASE_ERR_NOMEM;
    base_buffer_init_common(buf, dev, kind, bytes, name);
    const cudaError_t e =
        kind == BASE_MEMORY_PINNED ? base_cuda_pin(buf, size) : cudaMalloc(&address, size);
    if (e != cudaSuccess) {
        snprintf(what, sizeof what, "buffer %s of %lld bytes", buf->name, (long long)bytes);
        base_free(dev->ctx, buf);
        return base_cuda_fail(dev->ctx, e, __FILE__, __LINE__, dev->name, what);
    }
    if (kind != BASE_MEMORY_PINNED) buf->address = address;
    *buf_p = buf;
    return BASE_OK;
}

/* ==== streams ==== */

static void free_native(base_cuda_stream_t *s)
{
    base_device_t *dev = s->base.dev;

    for (int i = 0; i < BASE_CUDA_PACE_EVENTS; i++)
        if (s->pace[i] != NULL)
            base_cuda_drop(dev, cudaEventDestroy(s->pace[i]), "cudaEventDestroy");
    base_cuda_drop(dev, cudaStreamDestroy(s->native), "cudaStreamDestroy");
}

static base_status_t cuda_stream_create(base_device_t *dev, base_stream_kind_t kind,
                                        const char *name, base_stream_t **s_p)
{
    int least = 0, greatest = 0;

    BASE_TRY(base_cuda_enter(dev));
    CUDA_TRY(dev->ctx, dev->name, "stream priorities",
             cudaDeviceGetStreamPriorityRange(&least, &greatest));
    base_cuda_stream_t *s = base_calloc(dev->ctx, 1, sizeof *s, "stream");
    if (s == NULL) return BASE_ERR_NOMEM;
    base_stream_init_common(&s->base, dev, kind, name);
    /* Small kernels of exchanges (scatter, reduce) should not queue behind a full grid of a
     * GEMM. */
    const cudaError_t e = cudaStreamCreateWithPriority(
        &s->native, cudaStreamNonBlocking, kind == BASE_STREAM_ASYNC ? greatest : least);
    if (e != cudaSuccess) {
        base_free(dev->ctx, s);
        return base_cuda_fail(dev->ctx, e, __FILE__, __LINE__, dev->name,
                              "cudaStreamCreateWithPriority");
    }
    for (int i = 0; i < BASE_CUDA_PACE_EVENTS && kind == BASE_STREAM_COMPUTE; i++) {
        const cudaError_t made = cudaEventCreateWithFlags(&s->pace[i], cudaEventDisableTiming);

        if (made == cudaSuccess) continue;
        free_native(s);
        base_free(dev->ctx, s);
        return base_cuda_fail(dev->ctx, made, __FILE__, __LINE__, dev->name,
                              "cudaEventCreateWithFlags");
    }
    *s_p = &s->base;
    return BASE_OK;
}

/* Polls until the event has happened; NULL: until the stream is idle. What ends the poll otherwise is not
 * recorded when `quiet`. */
static base_status_t stream_wait(base_cuda_stream_t *s, cudaEvent_t event, int64_t limit_ms,
                                 bool quiet)
{
    base_ctx_t *ctx = s->base.dev->ctx;
    const int64_t start = base_device_now_ns();

    for (;;) {
        const cudaError_t e = event != NULL ? cudaEventQuery(event) : cudaStreamQuery(s->native);
        if (e == cudaSuccess) return BASE_OK;
        if (e != cudaErrorNotReady)
            return quiet ? BASE_ERR_DEVICE
                         : base_cuda_fail(ctx, e, __FILE__, __LINE__, s->base.name,
                                          "work on the stream");
        const int64_t waited = base_device_now_ns() - start;
        if (!quiet && base_ctx_stop_requested(ctx))
            return BASE_FAIL(ctx, BASE_ERR_PEER, BASE_MSG_COMM_01,
                             "%s: asked to stop while work was pending", s->base.name);
        if (waited > limit_ms * 1000000)
            return quiet ? BASE_ERR_TIMEOUT
                         : BASE_FAIL(ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                                     "%s: work is pending after %lld ms", s->base.name,
                                     (long long)limit_ms);
        if (waited < SPIN_NS) {
            sched_yield();
        } else {
            const struct timespec nap = {.tv_sec = 0, .tv_nsec = NAP_NS};
            nanosleep(&nap, NULL);
        }
    }
}

base_status_t base_cuda_stream_sync(base_stream_t *base)
{
    const base_status_t st =
        (base_status_t)atomic_load_explicit(&base->status, memory_order_acquire);
    if (st < 0) return st;
    BASE_TRY(base_cuda_enter(base->dev));
    BASE_TRY(base_stream_fail(base, stream_wait((base_cuda_stream_t *)base, NULL,
                                                base_ctx_deadline_ms(base->dev->ctx), false)));
    return base_cuda_marks_settle((base_cuda_stream_t *)base);
}

base_status_t base_cuda_pace(base_stream_t *base)
{
    base_cuda_stream_t *s = (base_cuda_stream_t *)base;
    cudaEvent_t event = s->pace[s->given / BASE_CUDA_PACE_STRIDE % BASE_CUDA_PACE_EVENTS];

    if (event == NULL || s->given++ % BASE_CUDA_PACE_STRIDE != 0) return BASE_OK;
    /* One that was never recorded has happened. */
    BASE_TRY(
        base_stream_fail(base, stream_wait(s, event, base_ctx_deadline_ms(base->dev->ctx), false)));
    STREAM_TRY(base, "cudaEventRecord", cudaEventRecord(event, s->native));
    return BASE_OK;
}

static void cuda_stream_destroy(base_stream_t *base)
{
    base_cuda_stream_t *s = (base_cuda_stream_t *)base;
    base_device_t *dev = base->dev;
    const bool failed = atomic_load_explicit(&base->status, memory_order_acquire) < 0;

    if (base_cuda_enter(dev) == BASE_OK) {
        const base_status_t st =
            stream_wait(s, NULL, failed ? DESTROY_WAIT_MS : base_ctx_deadline_ms(dev->ctx), true);
        if (st == BASE_ERR_TIMEOUT) atomic_store(&((base_cuda_device_t *)dev)->stuck, true);
        base_cuda_marks_destroy(s);
        free_native(s); /* returns at once in any case */
    }
    base_free(dev->ctx, s);
}

static void *cuda_stream_native(base_stream_t *s)
{
    /* Kernels are launched by the thread that asks for this, and need the stream's device
     * current. */
    if (base_cuda_enter(s->dev) < 0) return NULL;
    const base_status_t paced = base_cuda_pace(s);
    (void)paced; /* the stream's error, which its next call returns */
    return ((base_cuda_stream_t *)s)->native;
}

/* ==== opening ==== */

static const base_device_ops_t cuda_ops = {
    .close = cuda_close,
    .memory = cuda_memory,
    .buffer_alloc = cuda_buffer_alloc,
    .buffer_free = base_cuda_buffer_free,
    .stream_create = cuda_stream_create,
    .stream_destroy = cuda_stream_destroy,
    .stream_sync = base_cuda_stream_sync,
    .stream_native = cuda_stream_native,
    .stream_mark = base_cuda_stream_mark,
    .event_create = base_cuda_event_create,
    .event_destroy = base_cuda_event_destroy,
    .event_record = base_cuda_event_record,
    .stream_wait_event = base_cuda_stream_wait_event,
    .event_query = base_cuda_event_query,
    .counter_create = base_cuda_counter_create,
    .counter_destroy = base_cuda_counter_destroy,
    .stream_signal = base_cuda_stream_signal,
    .stream_signal_all = base_cuda_stream_signal_all,
    .stream_wait_counter = base_cuda_stream_wait_counter,
    .stream_wait_all = base_cuda_stream_wait_all,
    .buffer_export = base_cuda_buffer_export,
    .buffer_import = base_cuda_buffer_import,
    .bank_map = base_cuda_bank_map,
    .bank_unmap = base_cuda_bank_unmap,
    .counter_at = base_cuda_counter_at,
    .copy = base_cuda_copy,
    .fill = base_cuda_fill,
    .upload = base_cuda_upload,
    .download = base_cuda_download,
};

/* A function of the driver, as it was in CUDA 11.7; NULL when the driver has none. */
static void *driver_function(const char *name)
{
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    void *function = NULL;
    const cudaError_t e =
        cudaGetDriverEntryPointByVersion(name, &function, 11070, cudaEnableDefault, &found);
    return e == cudaSuccess && found == cudaDriverEntryPointSuccess ? function : NULL;
}

base_status_t base_device_open_cuda(base_ctx_t *ctx, int index, base_device_t **dev_p)
{
    int num = 0, max_pitch = 0;
    struct cudaDeviceProp prop;
    char name[BASE_DEVICE_NAME_BYTES];
    base_status_t st;

    (void)setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0); /* read when CUDA starts */
    const cudaError_t e = cudaGetDeviceCount(&num);
    if (e != cudaSuccess || index < 0 || index >= num) {
        (void)cudaGetLastError();
        return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01,
                         "cuda:%d: %s; this host has %d usable GPUs", index,
                         e != cudaSuccess ? cudaGetErrorString(e) : "no such GPU",
                         e != cudaSuccess ? 0 : num);
    }
    snprintf(name, sizeof name, "cuda:%d", index);
    CUDA_TRY(ctx, name, "cudaSetDevice", cudaSetDevice(index));
    CUDA_TRY(ctx, name, "cudaGetDeviceProperties", cudaGetDeviceProperties(&prop, index));
    CUDA_TRY(ctx, name, "cudaDeviceGetAttribute",
             cudaDeviceGetAttribute(&max_pitch, cudaDevAttrMaxPitch, index));
    base_cuda_device_t *dev = base_calloc(ctx, 1, sizeof *dev, "device");
    if (dev == NULL) return BASE_ERR_NOMEM;
    snprintf(name, sizeof name, "cuda:%d %.64s", index, prop.name);
    base_device_init_common(&dev->base, &cuda_ops, ctx, BASE_DEVICE_CUDA, index, name);
    dev->max_pitch = max_pitch;
    atomic_init(&dev->stuck, false);
    atomic_init(&dev->kept, NULL);
    void *const wait_value = driver_function("cuStreamWaitValue64");
    void *const write_value = driver_function("cuStreamWriteValue64");
    void *const write_low = driver_function("cuStreamWriteValue32");
    void *const memory_ops = driver_function("cuStreamBatchMemOp");
    void *const current = driver_function("cuCtxGetCurrent");
    if (wait_value == NULL || write_value == NULL || write_low == NULL || memory_ops == NULL ||
        current == NULL) {
        st = BASE_FAIL(
            ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01,
            "%s: the driver has no 64-bit stream memory operations (CUDA 11.7 or newer is needed)",
            name);
        base_free(ctx, dev);
        return st;
    }
    /* ISO C has no cast from an object pointer to a function pointer. */
    memcpy(&dev->wait_value, &wait_value, sizeof wait_value);
    memcpy(&dev->write_value, &write_value, sizeof write_value);
    memcpy(&dev->write_low, &write_low, sizeof write_low);
    memcpy(&dev->memory_ops, &memory_ops, sizeof memory_ops);
    memcpy(&dev->current, &current, sizeof current);
    if (dev->current(&dev->context) != CUDA_SUCCESS) dev->context = NULL; /* cudaSetDevice's */
    *dev_p = &dev->base;
    return BASE_OK;
}
