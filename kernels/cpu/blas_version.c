#include "kernels/cpu/blas_version.h"

#include <cblas.h>
#include <stdio.h>
#include <string.h>

void kern_blas_version(char *text, size_t bytes)
{
    const char *config =
        openblas_get_config(); /* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ... MAX_THREADS=64" */
    const char *const name = "OpenBLAS ";

    if (strncmp(config, name, strlen(name)) == 0) config += strlen(name);
    (void)snprintf(text, bytes, "%s, core %s", config, openblas_get_corename());
}
