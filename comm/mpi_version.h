/* The MPI library as `cadre --version` shows it. */
#ifndef CADRE_COMM_MPI_VERSION_H
#define CADRE_COMM_MPI_VERSION_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One line: the library's own words up to its first comma, "Open MPI v4.1.4", and the MPI standard
 * it follows. Legal before MPI_Init and after MPI_Finalize. Cut to `bytes`. */
void comm_mpi_version(char *text, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
