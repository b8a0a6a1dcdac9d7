#include "comm/nccl_version.h"

#include <nccl.h>
#include <stdio.h>

void comm_nccl_version(char *text, size_t bytes)
{
    int version = 0;

    if (ncclGetVersion(&version) != ncclSuccess) {
        (void)snprintf(text, bytes, "unknown");
        return;
    }
    /* NCCL_VERSION(): 10000 * major + 100 * minor + patch, since 2.9. */
    (void)snprintf(text, bytes, "%d.%d.%d", version / 10000, version % 10000 / 100, version % 100);
}
