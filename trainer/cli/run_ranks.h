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
    base_error_t fault;   /* of this process's command line; BASE_OK: none */
    bool said;            /* why the run has failed */
    const bool *reported; /* of the verb: set when that has been printed already; NULL: never */
    base_device_kind_t device;  /* of every rank: cpu unless the verb says otherwise, before it runs
                                  them */
    comm_transport_t transport; /* between processes; auto unless the verb says otherwise */
} tr_run_ranks_t;

/* Whether other processes wait for this one: one of several ranks under mpirun. Reads the environment
 * only. */
bool tr_run_ranks_are_processes(void);
/* Whether this process speaks on the terminal: the only one, or rank 0 under mpirun. Reads the
 * environment only. */
bool tr_run_ranks_speaks(void);

/* `threads` is the value of --threads, NULL when it was not given: then the ranks are those of
 * mpirun if that started this process, else one. CLI-02 for a bad number, and for --threads under
 * mpirun on several ranks. Starts MPI. The caller closes it.
 *
 * `line` is what the verb has found its command line to be. A bad one, and a fault found here, is
 * returned, the error in the context; but one of several processes takes the error from the context and
 * is opened all the same, and then tr_run_ranks fails with it on all ranks, whose command lines may be
 * right: else they would wait, and each that is wrong would speak. */
base_status_t tr_run_ranks_open(base_ctx_t *ctx, base_status_t line, const char *threads,
                                tr_run_ranks_t *ranks) BASE_MUST_CHECK;
/* What a process does whose command line `line` (negative; the error is in the context) leaves no verb to run: of the
 * processes of mpirun one speaks, as in tr_run_ranks, also when only some command lines are wrong; otherwise the error stays
 * in the context. Returns the exit code. */
int tr_run_ranks_refuse(base_ctx_t *ctx, base_status_t line);
/* `hosts` is the value of --hosts, "3,2": the first three ranks are taken for those of one host and
 * the next two for those of another, so that what a cluster would do can be tried on one machine.
 * CLI-02 when it does not add up to the ranks; as a fault of tr_run_ranks_open. */
base_status_t tr_run_ranks_set_hosts(tr_run_ranks_t *ranks, const char *hosts) BASE_MUST_CHECK;
/* Ends MPI; what is to be printed has been printed: mpirun may end a rank that comes last. */
void tr_run_ranks_close(tr_run_ranks_t *ranks);

/* Runs fn on all ranks; as comm_threads_run and comm_mpi_run. Why it fails is printed once: by rank 0, in
 * its own words when its command line has a fault too, else beginning with the rank that failed, before any
 * other process ends and mpirun kills it; by another one when rank 0 does not come any more
 * (comm_mpi_speaker). The others write it into their logs. */
base_status_t tr_run_ranks(tr_run_ranks_t *ranks, comm_rank_fn fn, void *user) BASE_MUST_CHECK;

#endif
