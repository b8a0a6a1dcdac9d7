/* Frame of the tests that run several ranks: as threads of the test program, or over MPI, when
 * mpirun started it on RANKS_MAX processes (then every case runs on the first num_ranks of them).
 *
 * Over MPI every process runs the same test functions. What ranks found is shared before any of
 * them asserts, so that all assert the same and none waits for one that has left; a process that
 * waits for the others for a minute aborts, and mpirun ends the rest.
 *
 * A failing cmocka assertion on a rank's thread would hang or kill the others, so ranks never
 * assert: they note the first thing that is wrong in their verdict (RANK_CHECK) and go on or
 * return; the main thread asserts after all have ended. Whatever a rank returns, its recorded error
 * is noted as well. */
#ifndef CADRE_TESTS_RANKS_RANK_CASE_H
#define CADRE_TESTS_RANKS_RANK_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "comm/threads.h"

#include <stdio.h>

#define RANKS_MAX 5

typedef struct rank_verdict {
    char wrong[2048]; /* empty: nothing */
    base_status_t status;
    int has_error;
    base_error_t error; /* what the rank's context held when its function ended */
    int64_t ended_ns;
} rank_verdict_t;

typedef struct rank_case {
    comm_threads_options_t options;
    void *user;        /* the test's own */
    size_t user_bytes; /* of it, when ranks share it: memory of all processes meanwhile; else 0 */
    int64_t chunk_bytes, direct_bytes; /* over MPI: comm/mpi.h */
    int64_t keeps; /* buffers that the transport makes meanwhile and keeps for what comes later */
    base_status_t status; /* of comm_threads_run, or rank 0's of comm_mpi_run */
    base_error_t error;   /* likewise */
    rank_verdict_t of[RANKS_MAX];
    comm_rank_fn fn;
} rank_case_t;

/* Inside a rank function whose `user` is the rank_case_t. */
#define RANK_CHECK(run, rank, cond, ...)                                                           \
    do {                                                                                           \
        if (!(cond) && (run)->of[rank].wrong[0] == '\0')                                           \
            (void)snprintf((run)->of[rank].wrong, sizeof(run)->of[rank].wrong, __VA_ARGS__);       \
    } while (0)

/* main() of such a program. */
#define RANK_CASE_MAIN(name, tests)                                                                \
    (rank_case_begin(), rank_case_end(cmocka_run_group_tests_name(name, tests, NULL, NULL)))
void rank_case_begin(void);
int rank_case_end(int status);
const char *rank_case_transport(void); /* "threads", "mpi", "copy_engine", "nccl" */

/* With CADRE_RANKS_DEVICE=cuda the programs that know it run their cases on GPUs, one a rank, and only
 * there; on as many processes as mpirun started, 2 to RANKS_MAX. */
int rank_case_on_gpus(void);
int rank_case_max(void); /* ranks of a case at most: RANKS_MAX, or the processes */

/* Runs fn(group, ctx, dev, run) on all ranks and notes the outcome. */
void rank_case_run(rank_case_t *run, comm_rank_fn fn);
/* No rank found anything wrong. Prints all of them before it fails. */
void rank_case_assert_right(const rank_case_t *run);
/* The same, and all returned BASE_OK. */
void rank_case_assert_ok(const rank_case_t *run);
/* The rank's error has this status, this id ("COMM-01") and these pieces of text (up to a NULL). */
void rank_case_assert_error(const base_error_t *error, base_status_t st, const char *id, ...)
    __attribute__((sentinel));

/* A flag between ranks, outside of what is tested. Waits at most `ms`; returns whether it is
 * set. */
void rank_flag_set(int *flag);
int rank_flag_wait(int *flag, int64_t ms);

/* Reproducible numbers: a pure function of the arguments. */
uint64_t rank_random(uint64_t seed, uint64_t a, uint64_t b, uint64_t c);

/* A buffer of `bytes` and a stream; ends in reverse order. */
typedef struct rank_gear {
    base_buffer_t *buffer;
    base_stream_t *stream;
} rank_gear_t;
base_status_t rank_gear_open(rank_gear_t *gear, base_device_t *dev, base_stream_kind_t kind,
                             int64_t bytes) BASE_MUST_CHECK;
void rank_gear_close(rank_gear_t *gear);

/* A contiguous range. */
base_range_t rank_range(base_buffer_t *buffer, int64_t offset, int64_t bytes);

#endif
