#include "base/device/cuda_version.h"

#include <stdio.h>

void base_cuda_version(char *text, size_t bytes)
{
    (void)snprintf(text, bytes, "not in this build");
}

void base_cuda_devices(char *text, size_t bytes)
{
    (void)snprintf(text, bytes, "none (not in this build)");
}
