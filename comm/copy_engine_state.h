/* The state of the copy engine transport; private to comm/copy_engine*.c.
 *
 * A slot is handed from the rank's thread to the pump when `begun` of its channel reaches its sequence,
 * and back when the pump sets `done`; in between the rank's thread only reads what it wrote itself.
 *
 * Life of a link (one peer of one exchange), all in the pump:
 *   compared  the peer has begun the exchange too, and its lists agree
 *   pulled    the peer has it ready, this rank too: the copies are given to the stream
 *   arrived   the copies are done             (at once when there is nothing to receive)
 *   sent      the peer's copies are done      (at once when there is nothing to send)
 * Copies of one peer are given in the order of the exchanges, those of different peers in any. They are done in
 * that order within a lane: so each lane has counters of its own. Both sides know the lane of a link by its position and bytes. */
#ifndef CADRE_COMM_COPY_ENGINE_STATE_H
#define CADRE_COMM_COPY_ENGINE_STATE_H

#include "comm/copy_engine.h"

#include "base/shared_memory.h"
#include "comm/share.h"

#define COMM_COPY_MAGIC       UINT64_C(0x6361647264657333)
#define COMM_COPY_MAX_BUFFERS 1024 /* of a rank, in the life of a group */
#define COMM_COPY_MAX_RANGES                                                                       \
    262144 /* that a rank sends in one exchange; room that is not used costs nothing */

/* ==== the desk: shared memory, no pointers ==== */

typedef struct comm_copy_range {
    int32_t buffer, pad; /* its number in the desk */
    int64_t offset, row_bytes, rows, pitch;
} comm_copy_range_t;

/* What a rank lists for one peer. Of the sizes in a list only those that there are get written and read: each line of the
 * cache that goes from one processor to another takes as long as a hundred instructions. */
typedef struct comm_copy_entry {
    comm_list_t send, recv;
    int64_t first; /* of the ranges to send, in the posting's */
} comm_copy_entry_t;

/* One open exchange; behind it entries[size] and ranges[COMM_COPY_MAX_RANGES]. */
typedef struct comm_copy_posting {
    uint64_t sequence;
    comm_tag_t tag;
} comm_copy_posting_t;

/* Behind it the postings, channel by channel. Written by its rank; `bell` by everyone. */
typedef struct comm_copy_desk {
    uint64_t magic;
    uint64_t begun[COMM_NUM_CHANNELS]; /* last exchange that is posted */
    uint32_t bell;      /* rung when there may be something to do for the rank's pump */
    uint32_t listening; /* the pump is asleep, or about to be; its own */
    int32_t num_buffers;
    base_export_t buffers[COMM_COPY_MAX_BUFFERS];
} comm_copy_desk_t;

int64_t comm_copy_desk_bytes(int size);
comm_copy_posting_t *comm_copy_posting(comm_copy_desk_t *desk, int size, int channel,
                                       uint64_t sequence);
comm_copy_entry_t *comm_copy_entries(comm_copy_posting_t *posting);
comm_copy_range_t *comm_copy_ranges(comm_copy_posting_t *posting, int size);

void comm_copy_ring(comm_copy_desk_t *desk);
/* Returns when the bell is not `seen` any more, or after `ns`. The desk's pump. */
void comm_copy_listen(comm_copy_desk_t *desk, uint32_t seen, int64_t ns);

/* ==== a rank ==== */

typedef struct comm_copy_link {
    comm_peer_t lists;
    int in_lane, out_lane;               /* of what is received; of what is sent */
    int compared, pulled, arrived, sent; /* the pump's */
    int64_t due_ns;                      /* no earlier than this is it pulled (delay_ns) */
} comm_copy_link_t;

typedef struct comm_copy_slot {
    uint64_t sequence; /* 0: never used */
    comm_tag_t tag;
    const char *name; /* for the trace */
    int num_links;
    comm_copy_link_t
        *links; /* [size - 1], ascending rank; only peers of this host with something to move */
    int64_t ready_ns; /* the pump's: when this rank's own `ready` was seen, 0: not yet */
    int done;         /* atomic builtins: complete */
} comm_copy_slot_t;

/* What this rank has of another one of its host. */
typedef struct comm_copy_peer {
    int is_here; /* on this host, and not this rank */
    base_shared_t *memory;
    comm_copy_desk_t *desk;
    base_counter_bank_t *bank;
    base_buffer_t **buffers; /* [COMM_COPY_MAX_BUFFERS] imported so far; the pump's */
} comm_copy_peer_t;

typedef struct comm_copy_known {
    const base_buffer_t *buffer;
    uint64_t serial;
} comm_copy_known_t;

/* The counters behind copies of one peer that a lane was given, and of which nobody is told yet. */
typedef struct comm_copy_debt {
    comm_share_t owed;
    int peer;
    uint64_t told;        /* the last signal that the lane was given: its value; 0: none yet */
    base_counter_t *here; /* and where it is seen */
} comm_copy_debt_t;

typedef struct comm_copy_engine {
    comm_carrier_t carrier; /* first */
    comm_mpi_group_t *g;
    int has_remote; /* some rank is on another host */
    int on_host;    /* the device runs host functions */

    base_shared_t *memory;
    comm_copy_desk_t *desk;
    base_counter_bank_t *bank;
    comm_copy_known_t *known; /* [COMM_COPY_MAX_BUFFERS] the desk's buffers; the rank's thread's */
    comm_copy_peer_t *peers;  /* [size] */

    base_stream_t *post[COMM_NUM_CHANNELS]; /* waits for events; the rank's thread feeds it */
    base_stream_t *pull[COMM_NUM_CHANNELS][COMM_COPY_LANES];  /* copies; the pump feeds it */
    base_event_t *pulled[COMM_NUM_CHANNELS][COMM_COPY_LANES]; /* behind all, when the group stops */
    int64_t *
        both_ready_ns[COMM_NUM_CHANNELS]; /* [slot][size] atomic builtins: when both had it ready */
    base_counter_t **arrived[COMM_NUM_CHANNELS][COMM_COPY_LANES]; /* [size] */
    comm_copy_debt_t debts[COMM_NUM_CHANNELS][COMM_COPY_LANES];   /* the pump's */
    comm_copy_slot_t slots[COMM_NUM_CHANNELS][COMM_MAX_OPEN_EXCHANGES];
    comm_peer_t *remote; /* [size - 1] of the exchange that is begun */

    pthread_t thread;
    int started;
    pthread_mutex_t mutex; /* for `changed` and `parked` alone */
    pthread_cond_t changed;
    int has_sync;
    uint64_t begun[COMM_NUM_CHANNELS];      /* atomic builtins; slots given to the pump */
    uint64_t first_open[COMM_NUM_CHANNELS]; /* the pump's */
    uint64_t finished[COMM_NUM_CHANNELS][COMM_MAX_OPEN_EXCHANGES]; /* the pump's */
    int64_t moved_ns[COMM_NUM_CHANNELS]; /* the pump's: when something last moved */
    uint8_t *held;                       /* [size] the pump's scratch */
    int ending;                          /* atomic builtins */
    int parked;                          /* the pump does nothing any more */
} comm_copy_engine_t;

static inline comm_copy_slot_t *comm_copy_slot(comm_copy_engine_t *e, int channel,
                                               uint64_t sequence)
{
    return &e->slots[channel][sequence % COMM_MAX_OPEN_EXCHANGES];
}

static inline int64_t *comm_copy_ready_ns(comm_copy_engine_t *e, int channel, uint64_t sequence,
                                          int peer)
{
    const int64_t slot = (int64_t)(sequence % COMM_MAX_OPEN_EXCHANGES);

    return &e->both_ready_ns[channel][slot * e->g->group.size + peer];
}

/* Short ones that share a completion take the same, others take lanes in turn. */
static inline int comm_copy_lane(uint64_t sequence, int64_t bytes)
{
    return (int)((comm_share_is_short(bytes) ? sequence / COMM_SHARE : sequence) % COMM_COPY_LANES);
}

/* Counters of a bank. READY has one a slot, since what raises it are streams of the caller, which may be another one
 * each time. */
static inline int comm_copy_ready(int channel, uint64_t sequence)
{
    return channel * COMM_MAX_OPEN_EXCHANGES + (int)(sequence % COMM_MAX_OPEN_EXCHANGES);
}

static inline int comm_copy_consumed(int size, int channel, int lane, int by)
{
    return COMM_NUM_CHANNELS * COMM_MAX_OPEN_EXCHANGES + (channel * COMM_COPY_LANES + lane) * size +
           by;
}

static inline int comm_copy_checked(int size,
                                    int by) /* 1: the check at the start has come from `by` */
{
    return comm_copy_consumed(size, COMM_NUM_CHANNELS, 0, by);
}

static inline int comm_copy_num_counters(int size)
{
    return comm_copy_checked(size, size);
}

/* Reaches an exchange's position when its data of `peer` is here; when `peer` has read this rank's. */
base_counter_t *comm_copy_arrival(comm_copy_engine_t *e, int channel, int lane, int peer);
base_counter_t *comm_copy_consumed_by(comm_copy_engine_t *e, int channel, int lane, int peer);

/* This rank's of that exchange. */
static inline base_counter_t *comm_copy_own_ready(comm_copy_engine_t *e, int channel,
                                                  uint64_t sequence)
{
    return base_counter_bank_at(e->bank, comm_copy_ready(channel, sequence));
}

/* `from` may be changing. */
static inline void comm_copy_list(comm_list_t *to, const comm_list_t *from)
{
    const int64_t num = __atomic_load_n(&from->num, __ATOMIC_RELAXED);

    to->num = num;
    to->bytes = from->bytes;
    to->hash = from->hash;
    for (int64_t i = 0; i < num && i < COMM_LIST_SIZES; i++)
        to->first[i] = from->first[i];
}

extern const char comm_copy_nothing_came[]; /* "nothing came from" */
extern const char comm_copy_not_fetched[];  /* "its data was not fetched by" */

/* ==== copy_engine_desk.c ==== */

/* Memory, streams and counters; then, collectively, those of the others: it fails on all ranks or none. deinit is
 * legal after a failure of either. */
base_status_t comm_copy_init(comm_copy_engine_t *e, comm_mpi_group_t *g) BASE_MUST_CHECK;
base_status_t comm_copy_connect(comm_copy_engine_t *e) BASE_MUST_CHECK;
void comm_copy_disconnect(comm_copy_engine_t *e); /* ends the use of other ranks' memory */
void comm_copy_deinit(comm_copy_engine_t *e);
/* Writes the exchange to the desk, all of it before its sequence. The rank's thread. */
base_status_t comm_copy_post(comm_copy_engine_t *e, int channel, const comm_exchange_t *ex,
                             uint64_t sequence) BASE_MUST_CHECK;
/* Another rank's buffer, by its number there. The pump. */
base_status_t comm_copy_import(comm_copy_engine_t *e, int peer, int32_t number,
                               base_buffer_t **buf_p) BASE_MUST_CHECK;

/* ==== copy_engine_check.c ==== */

/* Collective, between connect and the pump's start: whether all of it works. COMM-05. */
base_status_t comm_copy_check(comm_copy_engine_t *e) BASE_MUST_CHECK;

/* ==== copy_engine_pump.c ==== */

base_status_t comm_copy_pump_start(comm_copy_engine_t *e) BASE_MUST_CHECK;
void comm_copy_pump_end(comm_copy_engine_t *e); /* and its copies */
/* Wakes whoever waits for the ranks whose desks these are (NULL: none), once `stream` has come here;
 * on cuda nothing can, and pumps look often instead. */
base_status_t comm_copy_ring_behind(comm_copy_engine_t *e, base_stream_t *stream,
                                    int peer) BASE_MUST_CHECK;

#endif
