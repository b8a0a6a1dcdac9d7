/* One communicator of the NCCL transport: what is asked of NCCL, and nothing else.
 *
 * nccl_link.c and nccl_meet.c are NCCL; nccl_link_stub.c stands in for both in builds without; tests/support/nccl_fake.c
 * is a fake of NCCL that moves memory of the CPU, so that all but nccl_link.c runs in tests without a GPU.
 *
 * To open a link does not block for longer than the deadline, or the stop flag, says. Nor does a move, since
 * all that it does is give work to the GPU, but for the first one between two ranks: NCCL connects them then,
 * which waits for both. A link is used by one thread at a time. */
#ifndef CADRE_COMM_NCCL_LINK_H
#define CADRE_COMM_NCCL_LINK_H

#include "base/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct comm_nccl_link comm_nccl_link_t;

/* What the ranks of a communicator find each other by: rank 0 makes it, all others are sent it. */
typedef struct comm_nccl_id {
    unsigned char bytes[128];
} comm_nccl_id_t;

/* One message of a group. */
typedef struct comm_nccl_piece {
    int peer, is_send;
    base_mem_t mem;
    int64_t bytes;
} comm_nccl_piece_t;

/* Which communicator carries. Ranks meet in a non-blocking one, since nobody knows whether all will come. But every group
 * that is given to such a one is launched by a thread of its own, which takes 70 us. */
typedef enum comm_nccl_way {
    COMM_NCCL_DIRECT, /* a blocking one that is split off, whose groups are launched within the call */
    COMM_NCCL_AS_MET /* the one in which ranks met */
} comm_nccl_way_t;

/* Whether this build has links between devices of that kind. */
int comm_nccl_link_carries(base_device_kind_t kind);
base_status_t comm_nccl_link_id(base_ctx_t *ctx, comm_nccl_id_t *id) BASE_MUST_CHECK;
/* Collective: returns when all ranks have come. BASE_PENDING (DIRECT only): they have, but NCCL made no such
 * communicator for this rank, which has no link then (and the log has a warning). Then no rank can use its own, and with
 * another id all can open one AS_MET. */
base_status_t comm_nccl_link_open(base_device_t *dev, int rank, int size, const comm_nccl_id_t *id,
                                  comm_nccl_way_t way, comm_nccl_link_t **link_p) BASE_MUST_CHECK;
/* Queues on `stream` one group of sends and receives; between two ranks they match in order. When it
 * returns all of it is queued, what comes later on the stream comes after it. */
base_status_t comm_nccl_link_move(comm_nccl_link_t *link, base_stream_t *stream,
                                  const comm_nccl_piece_t *pieces, int num) BASE_MUST_CHECK;
/* BASE_ERR_COMM (COMM-04) when something that was queued has failed. */
base_status_t comm_nccl_link_check(comm_nccl_link_t *link) BASE_MUST_CHECK;
/* Ends what is queued, whether it was done or not: when ranks have stopped. Then close is all that is
 * legal. */
void comm_nccl_link_abort(comm_nccl_link_t *link); /* NULL is legal */
void comm_nccl_link_close(comm_nccl_link_t *link); /* NULL is legal */

#ifdef __cplusplus
}
#endif
#endif
