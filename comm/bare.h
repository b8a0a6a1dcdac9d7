/* What a transport is measured against by `cadre bench links`: the same bytes through the same means,
 * without lists, tags, events or (unless `told`) completion of each transfer. */
#ifndef CADRE_COMM_BARE_H
#define CADRE_COMM_BARE_H

#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct comm_bare {
    int to, from;          /* -1: nobody */
    base_mem_t send, recv; /* `depth` pieces of `bytes` bytes each, taken in turn */
    int64_t bytes;
    int depth, repeat; /* the same on all ranks, as is bytes */
    /* 1: each transfer raises a counter, as one that somebody waits for has to; copies raise two, and are on two
     * streams in turn, as the pump of copy engines gives them. n: the last of every n does, for all of them, and
     * so many in a row share a stream. 0: none. */
    int told;
} comm_bare_t;

/* Moves `repeat` pieces to `to` and from `from` and waits for all of them; *ns_p from a barrier to the
 * end of this rank's. Collective, with no exchange open.
 *   threads      copies out of the other rank's buffer on an ASYNC stream
 *   mpi          MPI_Sendrecv one after the other, without a sleep (cpu); always told
 *   copy_engine  copies out of the other rank's buffer on an ASYNC stream
 *   nccl         ncclSend and ncclRecv, a group a piece, on one stream
 * BASE_ERR_UNSUPPORTED where the transport has none, such as to another host. */
base_status_t comm_bare_run(comm_group_t *group, const comm_bare_t *bare,
                            int64_t *ns_p) BASE_MUST_CHECK;

/* For transports whose bare transfer is a copy: `from` is where the first of the other rank's pieces
 * lies. */
base_status_t comm_bare_copies(comm_group_t *group, const comm_bare_t *bare, base_mem_t from,
                               int64_t *ns_p) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
