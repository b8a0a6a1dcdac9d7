/* The NCCL transport: data between GPUs, of one host or several; MPI for everything else.
 *
 * The ranks are those of the MPI transport (comm/mpi.h), which also compares the lists of an exchange before
 * it is given to NCCL, by the same headers as its own exchanges: NCCL itself has no tags, and lists
 * that differ would hang it. One communicator and one stream a channel; an exchange is one group of
 * ncclSend and ncclRecv, so it completes as a whole: `arrived` of a peer waits for all of them.
 *
 * Ranges of direct_bytes and more that lie in one piece go from and to their place; others by way of
 * staging memory of the device, packed by copies that are part of the exchange (comm/segment.h).
 *
 * begin gives the headers to MPI and has the device raise a counter when `ready` has happened. A thread,
 * the *pump*, gives the stream of the channel, in the order of the exchanges and as soon as all headers have
 * come and the counter is there: packing, the group, unpacking, and a counter for which the caller's
 * streams wait. So nothing of the transport occupies the GPU before this rank has its data. Ranks
 * meet and connect while the group is opened; from then on no call of NCCL waits for another rank, and after a
 * stop all ranks abort their communicators.
 *
 * While data moves NCCL's kernels hold multiprocessors: between two of four GPUs 8 (up to 24 MiB), 16, or 32 (beyond
 * 48 MiB), for each peer at once and at most 32 in all (comm/nccl_link.c). Copy engines hold none. */
#ifndef CADRE_COMM_NCCL_H
#define CADRE_COMM_NCCL_H

#include "comm/mpi_state.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Has `g` carry data by NCCL from now on. Collective, before the first exchange. */
base_status_t comm_nccl_open(comm_mpi_group_t *g) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
