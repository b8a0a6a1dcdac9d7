/* Events and counters of the cuda device. */
#include "base/device/device_cuda.h"

#include <string.h>

typedef struct cuda_event {
    base_event_t base;
    cudaEvent_t native;
} cuda_event_t;

/* Eight bytes of mapped pinned host memory: the host reads and raises them directly, streams by
 * stream memory operations. A bank's are shared memory that every process registers with its GPU. */
typedef struct cuda_counter {
    base_counter_t base;
    void *host; /* allocated here; NULL: a bank's */
    CUdeviceptr device;
} cuda_counter_t;

/* ==== events ==== */

base_status_t base_cuda_event_create(base_device_t *dev, base_event_t **e_p)
{
    BASE_TRY(base_cuda_enter(dev));
    cuda_event_t *e = base_calloc(dev->ctx, 1, sizeof *e, "event");
    if (e == NULL) return BASE_ERR_NOMEM;
    const cudaError_t err = cudaEventCreateWithFlags(&e->native, cudaEventDisableTiming);
    if (err != cudaSuccess) {
        base_free(dev->ctx, e);
        return base_cuda_fail(dev->ctx, err, __FILE__, __LINE__, dev->name,
                              "cudaEventCreateWithFlags");
    }
    *e_p = &e->base;
    return BASE_OK;
}

void base_cuda_event_destroy(base_event_t *e)
{
    base_device_t *dev = e->dev;
    if (base_cuda_enter(dev) == BASE_OK)
        base_cuda_drop(dev, cudaEventDestroy(((cuda_event_t *)e)->native), "cudaEventDestroy");
    base_free(dev->ctx, e);
}

base_status_t base_cuda_event_record(base_event_t *e, base_stream_t *s)
{
    BASE_TRY(base_cuda_enter(s->dev));
    STREAM_TRY(s, "cudaEventRecord",
               cudaEventRecord(((cuda_event_t *)e)->native, ((base_cuda_stream_t *)s)->native));
    return BASE_OK;
}

base_status_t base_cuda_stream_wait_event(base_stream_t *s, base_event_t *e)
{
    BASE_TRY(base_cuda_enter(s->dev));
    STREAM_TRY(
        s, "cudaStreamWaitEvent",
        cudaStreamWaitEvent(((base_cuda_stream_t *)s)->native, ((cuda_event_t *)e)->native, 0));
    return BASE_OK;
}

base_status_t base_cuda_event_query(base_event_t *e)
{
    BASE_TRY(base_cuda_enter(e->dev));
    const cudaError_t err = cudaEventQuery(((cuda_event_t *)e)->native);
    if (err == cudaErrorNotReady) return BASE_PENDING;
    CUDA_TRY(e->dev->ctx, e->dev->name, "cudaEventQuery", err);
    return BASE_OK;
}

/* ==== counters ==== */

base_status_t base_cuda_counter_create(base_device_t *dev, base_counter_t **c_p)
{
    void *device = NULL;
    base_status_t st;

    BASE_TRY(base_cuda_enter(dev));
    cuda_counter_t *c = base_calloc(dev->ctx, 1, sizeof *c, "counter");
    if (c == NULL) return BASE_ERR_NOMEM;
    cudaError_t e =
        cudaHostAlloc(&c->host, sizeof(uint64_t), cudaHostAllocPortable | cudaHostAllocMapped);
    if (e == cudaSuccess) e = cudaHostGetDevicePointer(&device, c->host, 0);
    if (e != cudaSuccess) {
        st = base_cuda_fail(dev->ctx, e, __FILE__, __LINE__, dev->name, "counter");
        goto err_free;
    }
    memset(c->host, 0, sizeof(uint64_t));
    c->device = (CUdeviceptr)(uintptr_t)device;
    BASE_TRY_GOTO(base_counter_init_common(&c->base, dev, c->host), st, err_free);
    *c_p = &c->base;
    return BASE_OK;
err_free:
    if (c->host != NULL) base_cuda_drop(dev, cudaFreeHost(c->host), "cudaFreeHost");
    base_free(dev->ctx, c);
    return st;
}

base_status_t base_cuda_counter_at(base_device_t *dev, _Atomic uint64_t *word, base_counter_t **c_p)
{
    void *device = NULL;

    BASE_TRY(base_cuda_enter(dev));
    CUDA_TRY(dev->ctx, dev->name, "counter of a bank",
             cudaHostGetDevicePointer(&device, (void *)(uintptr_t)word, 0));
    cuda_counter_t *c = base_calloc(dev->ctx, 1, sizeof *c, "counter");
    if (c == NULL) return BASE_ERR_NOMEM;
    c->device = (CUdeviceptr)(uintptr_t)device;
    const base_status_t st = base_counter_init_common(&c->base, dev, word);
    if (st < 0) {
        base_free(dev->ctx, c);
        return st;
    }
    *c_p = &c->base;
    return BASE_OK;
}

void base_cuda_counter_destroy(base_counter_t *base)
{
    cuda_counter_t *c = (cuda_counter_t *)base;
    base_device_t *dev = base->dev;
    base_counter_deinit_common(base);
    if (c->host != NULL && !base_cuda_stuck(dev) && base_cuda_enter(dev) == BASE_OK)
        base_cuda_drop(dev, cudaFreeHost(c->host), "cudaFreeHost");
    base_free(dev->ctx, c);
}

/* Both operations come from the driver and answer with its codes. */
static base_status_t value_result(base_stream_t *s, CUresult r, const char *what)
{
    if (r == CUDA_SUCCESS) return BASE_OK;
    return base_stream_fail(s, BASE_FAIL(s->dev->ctx, BASE_ERR_DEVICE, BASE_MSG_INT_01,
                                         "%s: %s: driver error %d", s->name, what, (int)r));
}

static base_status_t counter_on_gpu(base_stream_t *s, base_counter_t *c)
{
    if (c->dev->kind == BASE_DEVICE_CUDA) return BASE_OK;
    return BASE_FAIL(
        s->dev->ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
        "stream %s of %s: counter of %s; streams of a GPU need a counter made by a GPU", s->name,
        s->dev->name, c->dev->name);
}

base_status_t base_cuda_stream_signal(base_stream_t *s, base_counter_t *c, uint64_t value)
{
    BASE_TRY(counter_on_gpu(s, c));
    BASE_TRY(base_cuda_enter(s->dev));
    BASE_TRY(base_cuda_pace(s));
    const base_cuda_device_t *dev = (const base_cuda_device_t *)s->dev;
    const cudaStream_t native = ((base_cuda_stream_t *)s)->native;
    const CUdeviceptr word = ((cuda_counter_t *)c)->device;
    /* By default the write comes after a fence of system scope: what the stream wrote before is
     * seen first. The upper half is 0 for values below 2^32; leaving it alone keeps the word of a
     * counter that is released before the write runs high. (Little endian, as GPUs are.) */
    if (value <= UINT32_MAX)
        return value_result(
            s, dev->write_low(native, word, (cuuint32_t)value, CU_STREAM_WRITE_VALUE_DEFAULT),
            "cuStreamWriteValue32");
    return value_result(s, dev->write_value(native, word, value, CU_STREAM_WRITE_VALUE_DEFAULT),
                        "cuStreamWriteValue64");
}

static base_status_t give_all(base_stream_t *s, CUstreamBatchMemOpParams *all, int num)
{
    BASE_TRY(base_cuda_enter(s->dev));
    BASE_TRY(base_cuda_pace(s));
    return value_result(s,
                        ((base_cuda_device_t *)s->dev)
                            ->memory_ops(((base_cuda_stream_t *)s)->native, (unsigned)num, all, 0),
                        "cuStreamBatchMemOp");
}

base_status_t base_cuda_stream_signal_all(base_stream_t *s, const base_signal_t *signals, int num)
{
    CUstreamBatchMemOpParams all[BASE_MAX_SIGNALS];

    memset(all, 0, sizeof all);
    for (int i = 0; i < num; i++) {
        const uint64_t value = signals[i].value;

        BASE_TRY(counter_on_gpu(s, signals[i].counter));
        all[i].writeValue.operation =
            value <= UINT32_MAX ? CU_STREAM_MEM_OP_WRITE_VALUE_32 : CU_STREAM_MEM_OP_WRITE_VALUE_64;
        all[i].writeValue.address = ((cuda_counter_t *)signals[i].counter)->device;
        all[i].writeValue.value64 = value; /* little endian: the lower half comes first */
        all[i].writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;
    }
    return give_all(s, all, num);
}

base_status_t base_cuda_stream_wait_all(base_stream_t *s, const base_signal_t *waits, int num)
{
    CUstreamBatchMemOpParams all[BASE_MAX_SIGNALS];

    memset(all, 0, sizeof all);
    for (int i = 0; i < num; i++) {
        BASE_TRY(counter_on_gpu(s, waits[i].counter));
        all[i].waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_64;
        all[i].waitValue.address = ((cuda_counter_t *)waits[i].counter)->device;
        all[i].waitValue.value64 = waits[i].value;
        all[i].waitValue.flags = CU_STREAM_WAIT_VALUE_GEQ;
    }
    return give_all(s, all, num);
}

base_status_t base_cuda_stream_wait_counter(base_stream_t *s, base_counter_t *c, uint64_t value)
{
    BASE_TRY(counter_on_gpu(s, c));
    BASE_TRY(base_cuda_enter(s->dev));
    BASE_TRY(base_cuda_pace(s));
    return value_result(s,
                        ((base_cuda_device_t *)s->dev)
                            ->wait_value(((base_cuda_stream_t *)s)->native,
                                         ((cuda_counter_t *)c)->device, value,
                                         CU_STREAM_WAIT_VALUE_GEQ),
                        "cuStreamWaitValue64");
}
