/* The MPI transport: the ranks of a group are processes. Other ways for the data of exchanges between
 * processes (comm/copy_engine.h, comm/nccl.h) rest on it: they are options of comm_mpi_run.
 *
 * One thread of each process, the progress thread, makes all of its MPI calls, MPI_Init_thread and
 * MPI_Finalize included, and sleeps between looks at what is open instead of spinning: Open MPI
 * moves large messages only while it is called.
 *
 * How an exchange goes: when `ready` has happened the rank posts its receives and sends each peer a
 * header {sequence, tag, sizes of both lists}; what it sends leaves when that peer's header has
 * come and agrees. So receives are posted before sends, nothing is moved before both sides were
 * compared, and every message has a known sender, tag and size. One communicator a channel and one
 * for collectives and stops. Ranges of many bytes that lie in one piece go from and to their place;
 * the others, and all of the strict device (whose memory is open only while it is copied), by way
 * of staging buffers, packed together. A message holds at most chunk_bytes.
 *
 *   comm_mpi_t *mpi;
 *   BASE_TRY(comm_mpi_create(ctx, &mpi));                             once in a process
 *   st = comm_mpi_run(mpi, &options, fn, user, &error);               any number of times
 *   comm_mpi_destroy(mpi); */
#ifndef CADRE_COMM_MPI_H
#define CADRE_COMM_MPI_H

#include "comm/threads.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct comm_mpi comm_mpi_t;

/* Whether a launcher of MPI ranks started this process (mpirun, srun with PMIx): then *rank and
 * *size say which one of how many. Reads the environment only. */
int comm_mpi_launched(int *rank, int *size);

/* Starts the progress thread, which initializes MPI. Once in the life of a process, on all ranks.
 * BASE_ERR_COMM (COMM-04) when MPI refuses, BASE_ERR_TIMEOUT (COMM-02) when it does not come back
 * in the context's deadline. Borrows ctx. */
base_status_t comm_mpi_create(base_ctx_t *ctx, comm_mpi_t **mpi_p) BASE_MUST_CHECK;
/* Finalizes MPI. After a failure it waits for that no longer than half a minute, a few seconds when a
 * rank did not end, since a dead one would keep it for ever; the process then ends without. NULL is legal. */
void comm_mpi_destroy(comm_mpi_t *mpi);

int comm_mpi_rank(const comm_mpi_t *mpi);
int comm_mpi_size(const comm_mpi_t *mpi);

/* What carries the data of exchanges. */
typedef enum comm_transport {
    COMM_TRANSPORT_MPI,         /* cpu and strict */
    COMM_TRANSPORT_COPY_ENGINE, /* inside a host; MPI between hosts */
    COMM_TRANSPORT_NCCL,        /* cuda */
    COMM_TRANSPORT_AUTO, /* copy_engine when all ranks are on one host, else mpi, on cuda nccl; those too, with
                            a warning in the log, when copy engines are tried at the start and do not
                            work */
    COMM_TRANSPORT_COUNT
} comm_transport_t;
const char *
comm_transport_name(comm_transport_t transport); /* "mpi", "copy_engine", "nccl", "auto" */

typedef struct comm_mpi_options {
    int num_ranks; /* 0: all; else the first ones, and the others return at once */
    base_device_kind_t
        device; /* BASE_DEVICE_CUDA: each rank opens the GPU of its number on its host;
                                  all must be visible to each */
    comm_transport_t transport;
    uint64_t seed;        /* strict: interleavings */
    int64_t deadline_ms;  /* 0: the context's default */
    int64_t delay_ns;     /* between a peer's header and the arrival of its data: a slow link */
    int64_t chunk_bytes;  /* largest message; 0: 1 GiB (MPI counts are int) */
    int64_t direct_bytes; /* ranges of as many bytes are not packed; 0: 64 KiB. The same on all */
    base_log_t *log;      /* may be NULL */
    const int32_t *hosts; /* [num_ranks] as if rank r were on host hosts[r] (comm_group_hosts), the
                             same on all ranks; NULL: where they are. Borrowed for the run */
    /* Says why the group has failed, where a launcher kills all that is left when one process has
     * ended badly: on rank 0 before it tells the others that it has ended, or on another one in its
     * place (comm_mpi_speaker). NULL: nobody does. */
    void (*report)(void *user, const base_error_t *error);
    void *report_user;
} comm_mpi_options_t;

/* Runs `fn` on this process's rank, with a context, device and group of its own, and returns when
 * all ranks have ended: BASE_OK or the status of the rank that failed first, as far as this rank
 * knows, whose error is copied to *error (if not NULL). What comm_threads_run asks of fn holds.
 * Collective over all processes, ranks that do not take part included. */
base_status_t comm_mpi_run(comm_mpi_t *mpi, const comm_mpi_options_t *options, comm_rank_fn fn,
                           void *user, base_error_t *error) BASE_MUST_CHECK;

/* After comm_mpi_run: who is to tell the user. Rank 0; when that has not ended for seconds after a
 * stop (it hangs, its host is gone) the lowest rank that has. */
int comm_mpi_speaker(const comm_mpi_t *mpi);

#ifdef __cplusplus
}
#endif
#endif
