/* The processes of a property test that mpirun started. The same program without mpirun runs its
 * ranks as threads. Every process runs the same tests and must come to the same verdicts: what a
 * case gave on some of them is merged into all before anything is asserted. */
#ifndef CADRE_TESTS_SUPPORT_MPI_WORLD_H
#define CADRE_TESTS_SUPPORT_MPI_WORLD_H

#include "comm/mpi.h"

/* Starts MPI under mpirun, else nothing. Processes other than the first are silent on stdout. */
void mpi_world_open(void);
void mpi_world_close(void);
comm_mpi_t *mpi_world(void); /* NULL: threads */

typedef struct mpi_piece {
    void *data;
    int64_t bytes;
} mpi_piece_t;

/* Collective: each byte becomes the bitwise or of all processes'. A failure ends the process. */
void mpi_world_merge(const mpi_piece_t *pieces, int num_pieces);

#endif
