/* Groups of ranks, exchanges between them, and small collectives: the contract that every transport
 * keeps.
 *
 * comm/ moves bytes and does not know what they mean. A transport is a table (comm/transport.h)
 * behind comm_group_t:
 *   threads  ranks are threads of this process (`--threads N`, tests); cpu and strict devices, and
 *            one rank alone on cuda
 *   mpi      ranks are processes; cpu and strict devices (comm/mpi.h)
 *   copy_engine  between processes of a host, on every device; mpi beside it (comm/copy_engine.h)
 *   nccl     between GPUs; mpi beside it (comm/nccl.h)
 *
 * Exchange. All ranks of the group begin the same sequence of exchanges on a channel; an exchange
 * in which a rank has nothing to send or to receive is begun too, with no peers. On a channel,
 * exchanges are matched by their position in that sequence and, within an exchange, peer by peer:
 * the k-th range that rank a lists for sending to b is the k-th range that b lists for receiving
 * from a, with the same row_bytes and the same rows (the pitches may differ; two empty ranges
 * always match). There is no wildcard and no size message: both sides derive their lists from the
 * plan. A channel is one half (ping, pong).
 *
 * Order. comm_exchange_begin does not wait for data. Its transfers start when `ready` has
 * happened, which must cover two things: the ranges to send are written, and nobody reads or
 * writes the ranges to receive any more. Completion is per peer: comm_exchange_arrived makes a
 * stream wait for what one peer sends; comm_exchange_sent makes it wait until all of this rank's
 * outgoing ranges may be overwritten. An exchange is complete on a rank when all has arrived and
 * all is sent.
 *
 *   comm_exchange_t ex = {.tag = tag, .num_peers = n, .peers = lists, .ready = event};
 *   BASE_TRY(comm_exchange_begin(group, COMM_CHANNEL_PING, &ex, &ticket));
 *   BASE_TRY(comm_exchange_arrived(group, ticket, peer, stream));    then give the work that needs
 *                                                                    it to `stream`
 *   BASE_TRY(comm_exchange_sent(group, ticket, stream));
 *
 * Errors. A wait that passes the context's deadline fails with BASE_ERR_TIMEOUT (COMM-02) and
 * names the peer, channel and tag; waits of the transport give up a little earlier than those of
 * the device (an eighth of the deadline, at most a second), because they can say more. A rank
 * that fails calls comm_group_stop before it frees what open exchanges name; every wait of every
 * rank then ends with BASE_ERR_PEER (COMM-01) within 100 ms, and the recorded error of each rank
 * holds the failed rank's text. A transport that detects a failure by itself stops the group in
 * the same way. When the lists of two ranks differ, or their tags where they exchange anything,
 * both fail with BASE_ERR_MISMATCH (COMM-03), naming ranks, channel, both tags and byte counts.
 * threads finds it before a byte is moved between them; a transport that posts receives first finds
 * it before `arrived` passes, from a header {tag, hash of the sizes} of each direction in use.
 *
 * Threads: one thread per rank calls a group's functions, except comm_group_stop. */
#ifndef CADRE_COMM_COMM_H
#define CADRE_COMM_COMM_H

#include "base/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct comm_group comm_group_t;

enum { COMM_CHANNEL_PING, COMM_CHANNEL_PONG, COMM_NUM_CHANNELS };

/* What an exchange is, carried beside its lists and compared. */
typedef struct comm_tag {
    uint64_t plan_hash;
    int64_t microbatch;
    int32_t layer;
    int32_t kind; /* caller's number, >= 0: direction and purpose; negative ones are comm's own */
} comm_tag_t;

/* One peer's part of an exchange. Never the rank itself: local pieces are not comm's business.
 * Lists may be empty. */
typedef struct comm_peer {
    int32_t rank;
    int32_t num_send, num_recv;
    const base_range_t *send;
    const base_range_t *recv;
} comm_peer_t;

/* Borrowed until the exchange is complete: the arrays (this struct only during the call). When
 * comm_exchange_begin of position n returns, position n - COMM_MAX_OPEN_EXCHANGES is complete, so
 * that COMM_MAX_OPEN_EXCHANGES + 1 sets of lists, used in turn, need no other care. Peers in
 * ascending rank. Everything is ready now (`ready` and `after` are NULL), or when the recording of `ready`,
 * which is taken during the call, has happened, or when the stream `after` has done all that it was given before the
 * call. The last is for what the caller's stream has just been given: device transports make one call of the driver
 * of it, where recording an event and waiting for it are three. That such a stream has failed is seen only when peers have been told
 * of the exchange: the call fails, and the group has to be stopped (comm_group_stop). */
typedef struct comm_exchange {
    comm_tag_t tag;
    const char *name; /* of its transfers in the trace, static; NULL: "exchange" */
    int32_t num_peers;
    const comm_peer_t *peers;
    base_event_t *ready;
    base_stream_t *after; /* of the group's device; not with `ready` */
    /* 1: on no rank does being ready for it wait, in whatever way, for one of the COMM_SHARE - 1 exchanges before it in
     * the channel to be complete on another rank. Only then may NCCL say of them together that they are done
     * (comm/share.h): its kernels wait for ranks that are not ready. All ranks say the same. */
    int independent;
} comm_exchange_t;

/* Names an exchange of a group: its channel and its position in the channel's sequence, from 1. */
typedef struct comm_ticket {
    int32_t channel;
    uint64_t sequence; /* 0: none */
} comm_ticket_t;

int comm_group_rank(const comm_group_t *group);
int comm_group_size(const comm_group_t *group);
const char *comm_group_transport(const comm_group_t *group); /* "threads", "mpi", ... */
/* [size] the host of each rank, numbered from 0 in the order of their first ranks; NULL: all on
 * one. Valid while the group lives. */
const int32_t *comm_group_hosts(const comm_group_t *group);
/* Names the lanes of a trace on which the transfers of this group's rank appear: one a peer and
 * channel, with when both were ready and when the data was here, and how many bytes. */
void comm_trace_name_lanes(base_trace_t *trace, const comm_group_t *group);
/* After a barrier, on all ranks; after a stop on each rank for itself. NULL is legal. */
void comm_group_destroy(comm_group_t *group);

/* Collective in order, not in time: every rank begins the same sequence per channel. Transfers
 * progress without further calls. At most COMM_MAX_OPEN_EXCHANGES are open per channel: begin
 * waits on the host until there is room, which needs nothing of the caller but that all ranks begin
 * in the same order; so the host runs at most COMM_MAX_OPEN_EXCHANGES / 2 layers ahead. A ticket
 * stays legal for ever; that of a complete exchange does not wait. BASE_ERR_ARG and
 * BASE_ERR_STATE (an event that was never recorded) leave the group as it was. */
#define COMM_MAX_OPEN_EXCHANGES 16
base_status_t comm_exchange_begin(comm_group_t *group, int channel, const comm_exchange_t *ex,
                                  comm_ticket_t *ticket_p) BASE_MUST_CHECK;

/* `stream` goes on when all that `peer` sends in this exchange is here. Legal for a peer that
 * sends nothing (no wait) and for ticket {.sequence = 0} (no wait). */
base_status_t comm_exchange_arrived(comm_group_t *group, comm_ticket_t ticket, int peer,
                                    base_stream_t *stream) BASE_MUST_CHECK;
/* The same for all peers of the exchange. */
base_status_t comm_exchange_arrived_all(comm_group_t *group, comm_ticket_t ticket,
                                        base_stream_t *stream) BASE_MUST_CHECK;
/* `stream` goes on when no peer reads this rank's outgoing ranges of this exchange any more. */
base_status_t comm_exchange_sent(comm_group_t *group, comm_ticket_t ticket,
                                 base_stream_t *stream) BASE_MUST_CHECK;
/* Both: all that is received has arrived, and all that is sent was read. */
base_status_t comm_exchange_complete(comm_group_t *group, comm_ticket_t ticket,
                                     base_stream_t *stream) BASE_MUST_CHECK;

/* ==== small collectives on host memory; all ranks, same order ====
 * They block the host, not the device: for start and end, not inside a microbatch. */

base_status_t comm_barrier(comm_group_t *group) BASE_MUST_CHECK;
/* all[r * bytes ...] = what rank r gave. */
base_status_t comm_allgather(comm_group_t *group, const void *mine, int64_t bytes,
                             void *all) BASE_MUST_CHECK;
/* Tells every rank to stop: waits end with BASE_ERR_PEER. Records rank and text of `error` (NULL:
 * the context's) for the others; of several stops the first counts. Any thread, not collective.
 * threads: when it returns, nobody reads or writes this rank's memory through the group any more.
 * Transports between processes cannot promise that: buffers that open exchanges name stay allocated
 * until the process ends. */
void comm_group_stop(comm_group_t *group, const base_error_t *error);

/* Sum over the members in ascending rank order, whatever arrives first, so that the bits depend
 * on the contributions only. `members` (ascending, NULL: all) take part and get the sum; the
 * other ranks of the group (servers of a pool) call it too, with the same members, count and
 * element, and only keep the sequence: their data, scratch and stream are not looked at. In
 * place, `count` elements of `element` float or double. It uses the sequence of COMM_CHANNEL_PING
 * and blocks no longer than its exchanges. Built on exchanges: comm/reduce.c. Offsets are multiples
 * of the element's size. `scratch` holds comm_reduce_scratch_bytes (enough for any members) and
 * belongs to the call until `stream` has passed it. */
typedef enum comm_element { COMM_F32, COMM_F64 } comm_element_t;

/* Queues on `stream` dst[i] = parts[0][i] + parts[1][i] + ..., added in the order listed, each sum
 * rounded to the element type, for 0 <= i < count; num_parts >= 2, count >= 1. dst is the same
 * place as one of the parts; otherwise nothing overlaps. `parts` is valid during the call only,
 * the memory until the stream has passed. All of it lies on the stream's device. Returns BASE_OK
 * or an error, which it has recorded and which the all-reduce returns; the caller then stops the
 * group. Called by the thread that called the all-reduce. */
typedef base_status_t (*comm_sum_fn)(void *user, base_stream_t *stream, base_mem_t dst,
                                     const base_mem_t *parts, int num_parts, int64_t count,
                                     comm_element_t element);

typedef struct comm_reduce {
    int32_t num_members;    /* 0 with members NULL: all ranks */
    const int32_t *members; /* borrowed for the call */
    base_mem_t data;
    int64_t count;
    comm_element_t element;
    base_mem_t scratch;
    base_stream_t *stream; /* data is written before, and read after, in this stream's order */
    comm_sum_fn sum;       /* NULL: comm's own, on the host; BASE_ERR_UNSUPPORTED on cuda */
    void *sum_user;
} comm_reduce_t;
int64_t comm_reduce_scratch_bytes(const comm_group_t *group, int64_t count, comm_element_t element);
base_status_t comm_all_reduce(comm_group_t *group, const comm_reduce_t *reduce) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
