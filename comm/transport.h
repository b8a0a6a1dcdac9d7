/* What a transport is, seen from inside comm/: a table of operations behind comm_group_t.
 *
 * comm/group.c checks arguments and dispatches; a transport may rely on that: channels, peers and
 * ranges are in bounds, tickets name exchanges that were begun, streams are not NULL. Statuses
 * and texts are recorded by the transport.
 *
 * A transport embeds comm_group_t as the first member of its own object, calls comm_group_init
 * once that object can take exchanges, and comm_group_deinit before it can no longer. */
#ifndef CADRE_COMM_TRANSPORT_H
#define CADRE_COMM_TRANSPORT_H

#include "base/device/stream_mark.h"
#include "comm/bare.h"
#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct comm_ops {
    const char *name;
    /* Gives the exchange the next sequence number of its channel. Takes the recording of ex->ready
     * before it returns: a transport whose progress is on the host makes a stream of its own wait
     * for the event and signal a counter, and polls that; it never queries the event later, which
     * may have been recorded again by then. */
    base_status_t (*begin)(comm_group_t *group, int channel, const comm_exchange_t *ex,
                           uint64_t *sequence_p);
    /* begin takes ex->after; else group.c hands it an event in that place. */
    int takes_after;
    base_status_t (*arrived)(comm_group_t *group, comm_ticket_t ticket, int peer,
                             base_stream_t *stream);
    /* Both are conjunctions over all peers; the transport knows which of them matter. */
    base_status_t (*arrived_all)(comm_group_t *group, comm_ticket_t ticket, base_stream_t *stream);
    base_status_t (*sent)(comm_group_t *group, comm_ticket_t ticket, base_stream_t *stream);
    /* May be NULL: arrived_all, then sent. */
    base_status_t (*complete)(comm_group_t *group, comm_ticket_t ticket, base_stream_t *stream);
    base_status_t (*barrier)(comm_group_t *group);
    base_status_t (*allgather)(comm_group_t *group, const void *mine, int64_t bytes, void *all);
    base_status_t (*bare)(comm_group_t *group, const comm_bare_t *bare,
                          int64_t *ns_p); /* comm/bare.h; NULL: none */
    /* A device transport's stop also releases the counters that its streams wait for
     * (base_counter_release): a wait queued on a GPU sees neither stop flag nor deadline. Waits of
     * the CPU family end by themselves, so the threads transport releases none. */
    void (*stop)(comm_group_t *group, const base_error_t *error);
    /* Waits for the group's own threads and frees everything, the group itself included. */
    void (*destroy)(comm_group_t *group);
} comm_ops_t;

typedef struct comm_reducer comm_reducer_t; /* comm/reduce.c */

struct comm_group {
    const comm_ops_t *ops;
    base_ctx_t *ctx;
    base_device_t *dev;
    int rank, size;
    const int32_t *hosts; /* [size] as comm_group_hosts, the transport's; NULL: one host */
    uint64_t
        begun[COMM_NUM_CHANNELS]; /* last sequence number given by group.c; the rank's thread */
    comm_reducer_t *reducer;
    base_event_t *passed[COMM_NUM_CHANNELS]; /* comm_group_give_event */
};

base_status_t comm_group_init(comm_group_t *group, const comm_ops_t *ops, base_ctx_t *ctx,
                              base_device_t *dev, int rank, int size) BASE_MUST_CHECK;
void comm_group_deinit(comm_group_t *group); /* legal after a failed init and on a zeroed group */

const char *comm_channel_name(int channel); /* "ping", "pong" */

/* Where `ex` has a stream that it begins after: an event recorded there in its place. The group's, until the next one
 * of the channel. */
base_status_t comm_group_give_event(comm_group_t *group, int channel,
                                    comm_exchange_t *ex) BASE_MUST_CHECK;

/* ==== what is measured (group.c) ==== */

/* Notes of waits and transfers: {layer, microbatch, peer, bytes}. */
base_trace_note_t comm_note(const comm_tag_t *tag, int peer, int64_t bytes);
/* In the trace of ctx's rank: what `peer` sent travelled from when both were ready until now. */
void comm_trace_transfer(base_ctx_t *ctx, int channel, const char *name,
                         const base_trace_note_t *note, int64_t ready_ns);

/* The lists and events that reductions lend to their exchanges; preallocated, since an exchange
 * borrows its lists. */
base_status_t comm_reducer_create(comm_group_t *group, comm_reducer_t **reducer_p) BASE_MUST_CHECK;
void comm_reducer_destroy(comm_group_t *group, comm_reducer_t *reducer); /* NULL is legal */

#ifdef __cplusplus
}
#endif
#endif
