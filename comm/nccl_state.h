/* The state of the NCCL transport; private to comm/nccl*.c.
 *
 * A slot is handed from the rank's thread to the pump when `begun` of its channel reaches its sequence, and
 * is used again when `done` has. The pump looks at no slot behind that signal, which the device may give at once. */
#ifndef CADRE_COMM_NCCL_STATE_H
#define CADRE_COMM_NCCL_STATE_H

#include "comm/nccl.h"
#include "comm/nccl_link.h"
#include "comm/share.h"

#define COMM_NCCL_STAGING_BYTES (INT64_C(1) << 20) /* at first; it doubles */
#define COMM_NCCL_MAX_OUTGROWN  40

typedef struct comm_nccl_slot {
    uint64_t sequence; /* 0: never used */
    comm_tag_t tag;
    int independent;
    int num_peers;
    comm_peer_t *peers; /* [size - 1] */
    int64_t begun_ns;
} comm_nccl_slot_t;

/* Memory of the device that the packed part of an exchange goes through. All that touches it is work of the
 * channel's stream, so one exchange follows the other in it. What it has outgrown stays allocated: to free
 * memory of a GPU waits for all its streams, and those wait for the pump. */
typedef struct comm_nccl_staging {
    base_buffer_t *buffer;
    base_buffer_t *outgrown[COMM_NCCL_MAX_OUTGROWN];
    int num_outgrown;
} comm_nccl_staging_t;

/* By which ranks are connected at the start (nccl.c). The channel's until its streams have ended, since a GPU may still
 * work with it after a failure. */
typedef struct comm_nccl_greeting {
    base_buffer_t *buffer; /* a byte from every rank, and the one that this rank sends */
    unsigned char *heard;  /* [size] */
} comm_nccl_greeting_t;

/* What the pump says of an exchange that it has given. */
typedef struct comm_nccl_moved {
    comm_tag_t tag;
    int peer; /* one of its peers; -1: it moves nothing */
} comm_nccl_moved_t;

typedef struct comm_nccl_channel {
    comm_nccl_link_t *link;
    base_stream_t *post; /* waits for events; the rank's thread feeds it */
    base_stream_t *move; /* the pump feeds it; raises `done` behind exchanges */
    base_counter_t *
        ready[COMM_MAX_OPEN_EXCHANGES]; /* of a slot, as what raises it are streams of the caller */
    base_counter_t *done;
    base_counter_t *told; /* by bare transfers */
    uint64_t num_told;
    base_event_t *given;         /* behind all, when the group stops */
    comm_nccl_staging_t in, out; /* the pump's */
    comm_nccl_greeting_t greeting;
    comm_nccl_slot_t slots[COMM_MAX_OPEN_EXCHANGES];
    uint64_t begun;    /* atomic builtins */
    uint64_t moved;    /* the pump's: last exchange that is given to the stream */
    comm_share_t owed; /* the pump's: of `done` */
    uint64_t settled;  /* the pump's: last for which it was given */
    int64_t moved_ns;  /* the pump's: when one was, or was done */
    uint64_t seen_done;
    comm_nccl_moved_t moves[COMM_MAX_OPEN_EXCHANGES]; /* the pump's */
} comm_nccl_channel_t;

typedef struct comm_nccl {
    comm_carrier_t carrier; /* first */
    comm_mpi_group_t *g;
    comm_nccl_channel_t channels[COMM_NUM_CHANNELS];
    comm_nccl_piece_t *pieces; /* the pump's scratch */
    int pieces_room;
    pthread_t thread;
    int started;
    int ending; /* atomic builtins */
    int asleep; /* atomic builtins: the pump waits for process->changed, or is about to */
    int parked; /* process->mutex guards it: the pump does nothing any more */
} comm_nccl_t;

static inline comm_nccl_slot_t *comm_nccl_slot(comm_nccl_channel_t *c, uint64_t sequence)
{
    return &c->slots[sequence % COMM_MAX_OPEN_EXCHANGES];
}

static inline base_counter_t *comm_nccl_ready(comm_nccl_channel_t *c, uint64_t sequence)
{
    return c->ready[sequence % COMM_MAX_OPEN_EXCHANGES];
}

/* ==== nccl_pump.c ==== */

base_status_t comm_nccl_pump_start(comm_nccl_t *n) BASE_MUST_CHECK;
void comm_nccl_pump_end(comm_nccl_t *n);
/* There is something new for it; without a call of the kernel while it is awake. */
void comm_nccl_pump_wake(comm_nccl_t *n);

#endif
