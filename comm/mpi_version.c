#include "comm/mpi_version.h"

#include <mpi.h>
#include <stdio.h>
#include <string.h>

void comm_mpi_version(char *text, size_t bytes)
{
    char library[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    int major = 0;
    int minor = 0;

    if (MPI_Get_library_version(library, &length) != MPI_SUCCESS ||
        MPI_Get_version(&major, &minor) != MPI_SUCCESS) {
        (void)snprintf(text, bytes, "unknown");
        return;
    }
    library[strcspn(library, ",\n")] = '\0'; /* the rest is who built it and when */
    (void)snprintf(text, bytes, "%s (MPI %d.%d)", library, major, minor);
}
