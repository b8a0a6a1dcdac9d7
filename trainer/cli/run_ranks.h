/* The ranks of a verb that runs on several: threads of this process, or the processes that mpirun
 * started. */
#ifndef CADRE_TRAINER_CLI_RUN_RANKS_H
#define CADRE_TRAINER_CLI_RUN_RANKS_H

#include "base/log.h"
#include "comm/mpi.h"
#include "trainer/run/rank_state.h"

#include <stdbool.h>

typedef struct tr_run_ranks {
    base_ctx_t *ctx;
    int rank, size;  /* of this process, until threads begin */
    int64_t threads; /* 0: MPI */
    comm_mpi_t *mpi;
    tr_rank_state_t *state; /* of a process; NULL with threads */
    int32_t *hosts;         /* [ranks] of --hosts; NULL: where they are */
    base_log_t *log;
    base_device_kind_t device;  /* of every rank: cpu unless the verb says otherwise, before it runs
                                  them */
    comm_transport_t transport; /* between processes; auto unless the verb says otherwise */
} tr_run_ranks_t;

/* Whether this process speaks on the terminal: the only one, or rank 0 under mpirun. Reads the
 * environment only. */
bool tr_run_ranks_speaks(void);

/* `threads` is the value of --threads, NULL when it was not given: then the ranks are those of
 * mpirun if that started this process, else one. CLI-02 for a bad number, and for --threads under
 * mpirun on several ranks. Starts MPI. The caller closes it. */
base_status_t tr_run_ranks_open(base_ctx_t *ctx, const char *threads,
                                tr_run_ranks_t *ranks) BASE_MUST_CHECK;
/* `hosts` is the value of --hosts, "3,2": the first three ranks are taken for those of one host and
 * the next two for those of another, so that what a cluster would do can be tried on one machine.
 * CLI-02 when it does not add up to the ranks. */
base_status_t tr_run_ranks_set_hosts(tr_run_ranks_t *ranks, const char *hosts) BASE_MUST_CHECK;
/* Ends MPI; what is to be printed has been printed: mpirun may end a rank that comes last. */
void tr_run_ranks_close(tr_run_ranks_t *ranks);

/* Runs fn on all ranks; as comm_threads_run and comm_mpi_run. The error of another process begins
 * with its rank. */
base_status_t tr_run_ranks(tr_run_ranks_t *ranks, comm_rank_fn fn, void *user,
                           base_error_t *error) BASE_MUST_CHECK;

/* Prints the error of a run that failed, on the one rank that is to (comm_mpi_speaker); the others
 * write it into their logs. */
void tr_run_ranks_report(const tr_run_ranks_t *ranks, const base_error_t *error);

#endif
