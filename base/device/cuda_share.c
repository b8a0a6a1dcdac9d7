/* Memory of the cuda device that other processes use: buffers by CUDA IPC, banks of counters as host
 * memory that each process registers with its GPU.
 *
 * A handle stands for a whole allocation, which every buffer is, and is opened once in a process. The
 * importing process must see the exporter's GPU (CUDA_VISIBLE_DEVICES); copies then run over NVLink
 * or PCIe, on the copy engines of the GPU whose stream they are given to. */
#include "base/device/cuda_pinned.h"

#include <stdio.h>
#include <string.h>

/* To free memory that another process has open is undefined, and who has is not known here: it waits
 * until the device is closed, when the group that exchanged the handles has ended. */
typedef struct base_cuda_kept {
    struct base_cuda_kept *next;
    void *address;
} base_cuda_kept_t;

_Static_assert(sizeof(cudaIpcMemHandle_t) <= sizeof(((base_export_fields_t *)0)->native),
               "a handle's bytes");

base_status_t base_cuda_buffer_export(base_buffer_t *buf, base_export_fields_t *fields)
{
    cudaIpcMemHandle_t handle;

    BASE_TRY(base_cuda_enter(buf->dev));
    CUDA_TRY(buf->dev->ctx, buf->name, "cudaIpcGetMemHandle",
             cudaIpcGetMemHandle(&handle, buf->address));
    memcpy(fields->native, &handle, sizeof handle);
    return BASE_OK;
}

base_status_t base_cuda_buffer_import(base_device_t *dev, const base_export_fields_t *fields,
                                      const char *name, base_buffer_t **buf_p)
{
    cudaIpcMemHandle_t handle;
    void *address = NULL;

    BASE_TRY(base_cuda_enter(dev));
    base_buffer_t *buf = base_calloc(dev->ctx, 1, sizeof *buf, "buffer");
    if (buf == NULL) return BASE_ERR_NOMEM;
    base_buffer_init_common(buf, dev, BASE_MEMORY_DEVICE, fields->bytes, name);
    memcpy(&handle, fields->native, sizeof handle);
    const cudaError_t e = cudaIpcOpenMemHandle(&address, handle, cudaIpcMemLazyEnablePeerAccess);
    if (e != cudaSuccess) {
        (void)cudaGetLastError();
        base_free(dev->ctx, buf);
        return BASE_FAIL(dev->ctx, BASE_ERR_COMM, BASE_MSG_COMM_05,
                         "%s: cudaIpcOpenMemHandle on %s: %s (%s)", name, dev->name,
                         cudaGetErrorString(e), cudaGetErrorName(e));
    }
    buf->address = address;
    *buf_p = buf;
    return BASE_OK;
}

/* Without memory for the note the allocation is left to the end of the process. */
static void keep(base_device_t *dev, void *address)
{
    base_cuda_device_t *cuda = (base_cuda_device_t *)dev;
    base_cuda_kept_t *k = base_calloc(dev->ctx, 1, sizeof *k, "kept buffer");

    if (k == NULL) return;
    k->address = address;
    k->next = atomic_load(&cuda->kept);
    while (!atomic_compare_exchange_weak(&cuda->kept, &k->next, k))
        continue;
}

void base_cuda_free_kept(base_device_t *dev)
{
    base_cuda_kept_t *k = atomic_exchange(&((base_cuda_device_t *)dev)->kept, NULL);
    const bool can = k != NULL && !base_cuda_stuck(dev) && base_cuda_enter(dev) == BASE_OK;

    while (k != NULL) {
        base_cuda_kept_t *next = k->next;

        if (can) base_cuda_drop(dev, cudaFree(k->address), "free of an exported buffer");
        base_free(dev->ctx, k);
        k = next;
    }
}

void base_cuda_buffer_free(base_buffer_t *buf)
{
    base_device_t *dev = buf->dev;

    if (buf->exported)
        keep(dev, buf->address);
    else if (!base_cuda_stuck(dev) && base_cuda_enter(dev) == BASE_OK)
        base_cuda_drop(dev,
                       buf->imported                     ? cudaIpcCloseMemHandle(buf->address)
                       : buf->kind == BASE_MEMORY_PINNED ? base_cuda_unpin(buf)
                                                         : cudaFree(buf->address),
                       "free of a buffer");
    base_free(dev->ctx, buf);
}

base_status_t base_cuda_bank_map(base_device_t *dev, void *address, int64_t bytes)
{
    BASE_TRY(base_cuda_enter(dev));
    const cudaError_t e =
        cudaHostRegister(address, (size_t)bytes, cudaHostRegisterMapped | cudaHostRegisterPortable);
    if (e == cudaSuccess) return BASE_OK;
    (void)cudaGetLastError();
    return BASE_FAIL(dev->ctx, BASE_ERR_COMM, BASE_MSG_COMM_05,
                     "%s: cudaHostRegister of %lld bytes of counters: %s (%s)", dev->name,
                     (long long)bytes, cudaGetErrorString(e), cudaGetErrorName(e));
}

void base_cuda_bank_unmap(base_device_t *dev, void *address)
{
    if (!base_cuda_stuck(dev) && base_cuda_enter(dev) == BASE_OK)
        base_cuda_drop(dev, cudaHostUnregister(address), "cudaHostUnregister");
}
