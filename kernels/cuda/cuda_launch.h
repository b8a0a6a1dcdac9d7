/* What the CUDA implementations of ops share on the host: typed addresses and the fate of a
 * launch. */
#ifndef CADRE_KERNELS_CUDA_CUDA_LAUNCH_H
#define CADRE_KERNELS_CUDA_CUDA_LAUNCH_H

#include "base/device/device_host.h"

#include <cuda_runtime.h>

/* BASE_OK, or BASE_ERR_DEVICE with the op and CUDA's words; the stream's further work would rest on
 * this, so it sticks to the stream. */
inline base_status_t kern_cuda_check(base_stream_t *s, const char *op, cudaError_t e)
{
    if (e == cudaSuccess) return BASE_OK;
    (void)cudaGetLastError(); /* the next launch must not find this one */
    return base_stream_fail(s, BASE_FAIL(base_device_ctx(base_stream_device(s)), BASE_ERR_DEVICE,
                                         BASE_MSG_INT_01, "%s: %s (%s)", op, cudaGetErrorString(e),
                                         cudaGetErrorName(e)));
}

template <class T> inline T *kern_cuda_pointer(base_mem_t mem)
{
    return static_cast<T *>(base_mem_address(mem));
}

#endif
