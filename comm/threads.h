/* The threads transport: the ranks of a group are threads of this process.
 *
 * It moves data by pulling: the receiver, on an ASYNC stream of its own per channel, waits until
 * the sender has posted the exchange of that position and its data is ready, compares tags and
 * lists, copies straight from the sender's buffer to the final place, and raises the sender's
 * counter. The same protocol, with exported counters, is that of copy engines between processes. */
#ifndef CADRE_COMM_THREADS_H
#define CADRE_COMM_THREADS_H

#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define COMM_THREADS_MAX_RANKS 64

/* What one rank runs. `group` and `ctx` are this rank's and live until it returns; it frees all
 * that it made with them, streams that waited for exchanges included. A negative status stops the
 * others; a rank that fails calls comm_group_stop before it frees what open exchanges name. A
 * rank that succeeds has no open exchange: it waited for arrived and sent (BASE_ERR_STATE
 * otherwise). */
typedef base_status_t (*comm_rank_fn)(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                      void *user);

typedef struct comm_threads_options {
    int num_ranks;
    base_device_kind_t device; /* BASE_DEVICE_CUDA: one rank only */
    int device_index;          /* cuda: which GPU */
    uint64_t seed;             /* strict: interleavings */
    int64_t deadline_ms;       /* 0: the context's default */
    int64_t delay_ns; /* between a peer's post and the copy of its data, peers and channels at once:
                         a slow link for overlap tests */
    base_log_t *log;  /* may be NULL; shared by the ranks */
    const int32_t
        *hosts; /* [num_ranks] as if rank r were on host hosts[r] (comm_group_hosts); NULL:
                             all on one. Borrowed for the run */
} comm_threads_options_t;

/* Runs `fn` on num_ranks threads, each with its own context, device and group member, and joins
 * them. Returns BASE_OK or the status of the first rank that failed, whose error is copied to
 * *error (if not NULL). `user` is passed to all. */
base_status_t comm_threads_run(const comm_threads_options_t *options, comm_rank_fn fn, void *user,
                               base_error_t *error) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
