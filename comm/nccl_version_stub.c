#include "comm/nccl_version.h"

#include <stdio.h>

void comm_nccl_version(char *text, size_t bytes)
{
    (void)snprintf(text, bytes, "not in this build");
}
