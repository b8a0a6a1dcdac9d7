/* The processes of a test program that mpirun started: one MPI for all cases, and memory that all
 * share. */
#ifndef CADRE_TESTS_RANKS_RANK_WORLD_H
#define CADRE_TESTS_RANKS_RANK_WORLD_H

#include "tests/ranks/rank_case.h"

/* Under mpirun (on RANKS_MAX processes, on GPUs also on fewer): starts MPI and shares memory; else does nothing. Other
 * ranks than 0 are silent on stdout from here on. */
void rank_world_open(void);
void rank_world_close(void);
int rank_world_is_mpi(void);
int rank_world_size(void);
/* Which transport between the processes (tests/support/transport_env.h). */
const char *rank_world_transport(void);

/* Runs the case on the first num_ranks processes; status, error, verdicts and the shared user are
 * then the same on all. */
void rank_world_run(rank_case_t *run, comm_rank_fn fn);

/* Waits for all processes; aborts after a minute. */
void rank_world_meet(void);

#endif
