#include "base/device/cuda_version.h"

#include <cuda_runtime_api.h>
#include <stdio.h>

/* CUDA counts versions as 1000 * major + 10 * minor. */
static int major_of(int version)
{
    return version / 1000;
}

static int minor_of(int version)
{
    return version % 1000 / 10;
}

void base_cuda_version(char *text, size_t bytes)
{
    int runtime = 0;
    int driver = 0;

    (void)cudaRuntimeGetVersion(&runtime);
    (void)cudaDriverGetVersion(&driver); /* 0 when no driver is installed */
    if (driver == 0)
        (void)snprintf(text, bytes, "runtime %d.%d, no driver", major_of(runtime),
                       minor_of(runtime));
    else
        (void)snprintf(text, bytes, "runtime %d.%d, driver %d.%d", major_of(runtime),
                       minor_of(runtime), major_of(driver), minor_of(driver));
}

void base_cuda_devices(char *text, size_t bytes)
{
    int count = 0;
    size_t used = 0;
    const cudaError_t err = cudaGetDeviceCount(&count);

    if (err != cudaSuccess || count == 0) {
        (void)snprintf(text, bytes, "none (%s)",
                       cudaGetErrorString(err != cudaSuccess ? err : cudaErrorNoDevice));
        return;
    }
    for (int i = 0; i < count && used < bytes; i++) {
        struct cudaDeviceProp prop;
        const char *name =
            cudaGetDeviceProperties(&prop, i) == cudaSuccess ? prop.name : "unreadable";
        const int n = snprintf(text + used, bytes - used, "%s%d: %s", i > 0 ? ", " : "", i, name);
        if (n < 0) return;
        used += (size_t)n;
    }
}
