#include "tests/support/cuda_fake.h"

#include "tests/support/cuda_fake_api.h"

#include <stdlib.h>
#include <string.h>

cuda_fake_t cuda_fake;

struct CUstream_st {
    int unused;
};
struct CUevent_st {
    int unused;
};

static int fails(const char *function)
{
    cuda_fake.calls++;
    if (cuda_fake.calls != cuda_fake.fails &&
        (cuda_fake.always == NULL || strcmp(cuda_fake.always, function) != 0))
        return 0;
    cuda_fake.failed = function;
    return 1;
}

/* The call waits for all that the device was given. */
static void waits(void)
{
    if (cuda_fake.hangs) abort();
}

/* Ends the function with the error that it would have. What cannot be given back counts as alive, though it is not kept. */
#define MAY_FAIL(e)                                                                                \
    do {                                                                                           \
        if (fails(__func__)) return (e);                                                           \
    } while (0)

/* ==== errors and the device ==== */

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaErrorMemoryAllocation ? "out of memory" : "a fault of the fake";
}

const char *cudaGetErrorName(cudaError_t e)
{
    return e == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorUnknown";
}

cudaError_t cudaGetDeviceCount(int *num)
{
    MAY_FAIL(cudaErrorNoDevice);
    *num = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int index)
{
    MAY_FAIL(cudaErrorDevicesUnavailable);
    return index == 0 ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int index)
{
    (void)index;
    MAY_FAIL(cudaErrorUnknown);
    *prop = (struct cudaDeviceProp){.name = "fake"};
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int index)
{
    (void)attribute;
    (void)index;
    MAY_FAIL(cudaErrorUnknown);
    *value = INT32_MAX;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    MAY_FAIL(cudaErrorUnknown);
    *least = *greatest = 0;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *not_taken, size_t *all)
{
    MAY_FAIL(cudaErrorUnknown);
    *not_taken = *all = 1 << 30;
    return cudaSuccess;
}

/* ==== memory ==== */

#define MAX_TAKEN 64
static void *taken[MAX_TAKEN];

static cudaError_t take(void **address, size_t bytes, int64_t *alive)
{
    int i = 0;

    while (i < MAX_TAKEN && taken[i] != NULL)
        i++;
    *address = i < MAX_TAKEN ? malloc(bytes) : NULL;
    if (*address == NULL) return cudaErrorMemoryAllocation;
    taken[i] = *address;
    (*alive)++;
    return cudaSuccess;
}

static void give_back(void *address)
{
    for (int i = 0; i < MAX_TAKEN; i++)
        if (taken[i] == address) taken[i] = NULL;
    free(address);
}

void cuda_fake_end(void)
{
    for (int i = 0; i < MAX_TAKEN; i++)
        give_back(taken[i]);
    cuda_fake = (cuda_fake_t){0};
}

cudaError_t cudaMalloc(void **address, size_t bytes)
{
    MAY_FAIL(cudaErrorMemoryAllocation);
    return take(address, bytes, &cuda_fake.device);
}

cudaError_t cudaFree(void *address)
{
    waits();
    give_back(address);
    MAY_FAIL(cudaErrorUnknown);
    cuda_fake.device--;
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **address, size_t bytes, unsigned flags)
{
    (void)flags;
    MAY_FAIL(cudaErrorMemoryAllocation);
    return take(address, bytes, &cuda_fake.pinned);
}

cudaError_t cudaFreeHost(void *address)
{
    waits();
    give_back(address);
    MAY_FAIL(cudaErrorUnknown);
    cuda_fake.pinned--;
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *address, size_t bytes, unsigned flags)
{
    (void)address;
    (void)bytes;
    (void)flags;
    MAY_FAIL(cudaErrorMemoryAllocation);
    cuda_fake.registered++;
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *address)
{
    waits();
    (void)address;
    MAY_FAIL(cudaErrorUnknown);
    cuda_fake.registered--;
    return cudaSuccess;
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags)
{
    (void)flags;
    MAY_FAIL(cudaErrorUnknown);
    *device = host;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *address)
{
    (void)address;
    MAY_FAIL(cudaErrorUnknown);
    attributes->type = cudaMemoryTypeUnregistered;
    return cudaSuccess;
}

/* A handle is the address: all is one process. */
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *handle, void *address)
{
    MAY_FAIL(cudaErrorUnknown);
    memcpy(handle->reserved, &address, sizeof address);
    return cudaSuccess;
}

cudaError_t cudaIpcOpenMemHandle(void **address, cudaIpcMemHandle_t handle, unsigned flags)
{
    (void)flags;
    MAY_FAIL(cudaErrorUnknown);
    memcpy(address, handle.reserved, sizeof *address);
    cuda_fake.opened++;
    return cudaSuccess;
}

cudaError_t cudaIpcCloseMemHandle(void *address)
{
    waits();
    (void)address;
    MAY_FAIL(cudaErrorUnknown);
    cuda_fake.opened--;
    return cudaSuccess;
}

/* ==== streams and events ==== */

static cudaError_t new_stream(cudaStream_t *stream)
{
    *stream = calloc(1, sizeof **stream);
    if (*stream == NULL) return cudaErrorMemoryAllocation;
    cuda_fake.streams++;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    (void)flags;
    (void)priority;
    MAY_FAIL(cudaErrorMemoryAllocation);
    return new_stream(stream);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    (void)flags;
    MAY_FAIL(cudaErrorMemoryAllocation);
    return new_stream(stream);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    free(stream);
    MAY_FAIL(cudaErrorUnknown);
    cuda_fake.streams--;
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    (void)stream;
    MAY_FAIL(cudaErrorECCUncorrectable);
    return cuda_fake.hangs ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    (void)stream;
    (void)event;
    (void)flags;
    MAY_FAIL(cudaErrorUnknown);
    return cudaSuccess;
}

static cudaError_t new_event(cudaEvent_t *event)
{
    *event = calloc(1, sizeof **event);
    if (*event == NULL) return cudaErrorMemoryAllocation;
    cuda_fake.events++;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    MAY_FAIL(cudaErrorMemoryAllocation);
    return new_event(event);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    (void)flags;
    MAY_FAIL(cudaErrorMemoryAllocation);
    return new_event(event);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    free(event);
    MAY_FAIL(cudaErrorUnknown);
    cuda_fake.events--;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    (void)event;
    (void)stream;
    MAY_FAIL(cudaErrorUnknown);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    (void)event;
    MAY_FAIL(cudaErrorUnknown);
    return cuda_fake.hangs ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
    (void)begin;
    (void)end;
    MAY_FAIL(cudaErrorUnknown);
    *ms = 0.0f;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void)kind;
    (void)stream;
    MAY_FAIL(cudaErrorUnknown);
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t row_bytes, size_t rows, enum cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    (void)kind;
    (void)stream;
    MAY_FAIL(cudaErrorUnknown);
    for (size_t r = 0; r < rows; r++)
        memcpy((char *)to + r * to_pitch, (const char *)from + r * from_pitch, row_bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int byte, size_t bytes, cudaStream_t stream)
{
    (void)stream;
    MAY_FAIL(cudaErrorUnknown);
    memset(to, byte, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int byte, size_t row_bytes, size_t rows,
                              cudaStream_t stream)
{
    (void)stream;
    MAY_FAIL(cudaErrorUnknown);
    for (size_t r = 0; r < rows; r++)
        memset((char *)to + r * pitch, byte, row_bytes);
    return cudaSuccess;
}

/* ==== the driver's ==== */

static CUresult cuCtxGetCurrent(CUcontext *context)
{
    MAY_FAIL(CUDA_ERROR_UNKNOWN);
    *context = (CUcontext)&cuda_fake;
    return CUDA_SUCCESS;
}

static CUresult wait_or_write(const CUstreamValueParams *p)
{
    _Atomic uint64_t *word = (_Atomic uint64_t *)(uintptr_t)p->address;

    if (p->operation != CU_STREAM_MEM_OP_WAIT_VALUE_64)
        *word = p->value64;
    else if (*word < p->value64)
        return CUDA_ERROR_UNKNOWN;
    return CUDA_SUCCESS;
}

static CUresult cuStreamWaitValue64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                    unsigned flags)
{
    const CUstreamValueParams p = {CU_STREAM_MEM_OP_WAIT_VALUE_64, address, value, flags};

    (void)stream;
    MAY_FAIL(CUDA_ERROR_UNKNOWN);
    return wait_or_write(&p);
}

static CUresult cuStreamWriteValue64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                     unsigned flags)
{
    const CUstreamValueParams p = {CU_STREAM_MEM_OP_WRITE_VALUE_64, address, value, flags};

    (void)stream;
    MAY_FAIL(CUDA_ERROR_UNKNOWN);
    return wait_or_write(&p);
}

static CUresult cuStreamWriteValue32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                     unsigned flags)
{
    return cuStreamWriteValue64(stream, address, value, flags);
}

static CUresult cuStreamBatchMemOp(CUstream stream, unsigned num, CUstreamBatchMemOpParams *all,
                                   unsigned flags)
{
    (void)stream;
    (void)flags;
    MAY_FAIL(CUDA_ERROR_UNKNOWN);
    for (unsigned i = 0; i < num; i++)
        if (wait_or_write(&all[i].waitValue) != CUDA_SUCCESS) return CUDA_ERROR_UNKNOWN;
    return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                             unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *found)
{
    /* ISO C has no cast from a function pointer to an object pointer. */
    const PFN_cuCtxGetCurrent_v4000 current = cuCtxGetCurrent;
    const PFN_cuStreamWaitValue64_v11070 wait = cuStreamWaitValue64;
    const PFN_cuStreamWriteValue64_v11070 write = cuStreamWriteValue64;
    const PFN_cuStreamWriteValue32_v11070 low = cuStreamWriteValue32;
    const PFN_cuStreamBatchMemOp_v11070 all = cuStreamBatchMemOp;
    const struct {
        const char *name;
        const void *pointer;
    } points[] = {{"cuCtxGetCurrent", &current},
                  {"cuStreamWaitValue64", &wait},
                  {"cuStreamWriteValue64", &write},
                  {"cuStreamWriteValue32", &low},
                  {"cuStreamBatchMemOp", &all}};

    (void)version;
    (void)flags;
    MAY_FAIL(cudaErrorUnknown);
    *found = cudaDriverEntryPointSymbolNotFound;
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++)
        if (strcmp(points[i].name, name) == 0) {
            memcpy(function, points[i].pointer, sizeof *function);
            *found = cudaDriverEntryPointSuccess;
        }
    return cudaSuccess;
}
