/* The state of the MPI transport; private to comm/mpi*.c.
 *
 * Everything is guarded by process->mutex, which is never held while the progress thread packs or
 * unpacks, sleeps, or makes the blocking calls that open and close groups. The rank's thread and
 * its streams wait on `changed`, the progress thread on `work`.
 *
 * Life of an exchange of one rank on one channel (comm_mpi_slot_t):
 *   FREE      nobody uses the slot
 *   BEGUN     filled by the rank's thread; waits for `ready` on the channel's stream
 *   READY     `ready` has happened: the progress thread may post it
 *   POSTED    receives are posted, headers are sent; the progress thread's own
 *   COMPLETE  everything has arrived and is sent; as FREE, but tickets of it are legal
 *
 * Failure. Whoever detects one calls comm_mpi_fail: it keeps the error, raises the stop flag and
 * has the progress thread tell every peer (comm_mpi_note_t), which records it in its own context.
 * */
#ifndef CADRE_COMM_MPI_STATE_H
#define CADRE_COMM_MPI_STATE_H

#include "comm/exchange.h"
#include "comm/mpi.h"
#include "comm/transport.h"

#include <mpi.h>
#include <pthread.h>

#define COMM_MPI_MAGIC UINT64_C(0x6361647265313031)

/* Tags of a channel's communicator: headers, then the data of each slot. Of the control one: notes,
 * collectives, their payload. */
enum { COMM_MPI_TAG_HEADER = 1, COMM_MPI_TAG_DATA = 16 };
enum { COMM_MPI_TAG_NOTE = 1, COMM_MPI_TAG_COLLECTIVE = 2, COMM_MPI_TAG_PAYLOAD = 3 };

typedef struct comm_mpi_header {
    uint64_t magic, sequence;
    comm_tag_t tag;
    comm_list_t send, recv; /* as the header's sender lists them */
} comm_mpi_header_t;

/* What a rank tells all others outside of exchanges. */
typedef enum comm_mpi_news { COMM_MPI_STOP, COMM_MPI_ENDED } comm_mpi_news_t;
enum { COMM_MPI_CONCERNS_NONE = -1, COMM_MPI_CONCERNS_ALL = -2 };
typedef struct comm_mpi_note {
    uint64_t magic;
    int32_t news;
    int32_t concerns; /* rank on the other side of the failure, or one of the above */
    int32_t status, message, rank;
    uint64_t begun[COMM_NUM_CHANNELS], collective_begun; /* ENDED: it begins no more */
    char text[BASE_ERROR_TEXT_BYTES];
} comm_mpi_note_t;

typedef enum comm_mpi_phase {
    COMM_MPI_FREE,
    COMM_MPI_BEGUN,
    COMM_MPI_READY,
    COMM_MPI_POSTED,
    COMM_MPI_COMPLETE
} comm_mpi_phase_t;

/* One peer of one exchange. */
typedef struct comm_mpi_link {
    comm_peer_t lists;
    int header_in;               /* the peer's has come and agrees */
    int sending;                 /* the data has been handed to MPI */
    int arrived, sent;           /* to the end */
    int64_t ready_ns;            /* when the header came: both sides have posted */
    int64_t due_ns;              /* no earlier than this does it arrive (delay_ns) */
    int64_t in_at, out_at;       /* its part of the slot's staging */
    int num_receives, num_sends; /* requests that are open */
} comm_mpi_link_t;

typedef struct comm_mpi_slot {
    uint64_t sequence; /* 0: never used */
    comm_mpi_phase_t phase;
    uint64_t
        complete; /* atomic builtins: the last sequence that was COMPLETE, for who does not take the mutex */
    comm_tag_t tag;
    const char *name; /* for the trace */
    int num_links;
    comm_mpi_link_t *links;     /* [size - 1], ascending rank; only peers with something to move */
    comm_mpi_header_t *headers; /* [size - 1] sent */
    char *in, *out;             /* staging */
    int64_t in_bytes, out_bytes;
    int num_requests, requests_room;
    MPI_Request *requests;
    int32_t *owner; /* 2 x link, + 1 for sends; -1: a header's */
} comm_mpi_slot_t;

typedef enum comm_mpi_collective { COMM_MPI_BARRIER, COMM_MPI_ALLGATHER } comm_mpi_collective_t;

#define COMM_MPI_INLINE_BYTES 232
typedef struct comm_mpi_call {
    uint64_t magic, number;
    int32_t collective, pad;
    int64_t bytes;
    char payload[COMM_MPI_INLINE_BYTES]; /* when it fits */
} comm_mpi_call_t;

/* The collective at work. The staging is the transport's own, since a call may return on a stop. */
typedef struct comm_mpi_gather {
    int posted, active;
    uint64_t begun, done;
    comm_mpi_call_t mine;
    comm_mpi_call_t *calls; /* [size] */
    uint8_t *here;          /* [size] its call has come */
    char *payload;          /* [size x bytes] when not in the calls */
    int64_t payload_room;
    int num_requests;
    MPI_Request *requests; /* [4 x size] */
    int32_t *owner;        /* [4 x size] rank whose call it receives, or -1 */
} comm_mpi_gather_t;

/* Another way for the data of exchanges, while MPI carries the control. Opened on the rank's thread
 * before its function and ended there after it; begins of exchanges keep `begun` of the group. */
typedef struct comm_carrier comm_carrier_t;
struct comm_carrier {
    const comm_ops_t *ops; /* the group's from now on; destroy is MPI's */
    /* BASE_ERR_STATE when an exchange is open. The mutex is held. */
    base_status_t (*check_complete)(comm_carrier_t *carrier);
    /* No transfer of this rank's runs or begins any more, and it uses no other rank's memory. The
     * others still know it to be there. */
    void (*end)(comm_carrier_t *carrier);
    void (*destroy)(comm_carrier_t *carrier);
};

typedef struct comm_mpi_group {
    comm_group_t group; /* first: the public handle */
    comm_mpi_t *process;
    comm_carrier_t *carrier; /* NULL: MPI carries the data too */
    int headers_only; /* MPI compares lists and moves no data; an exchange is posted at once and complete
                         when all its peers agree */
    comm_transport_t transport;
    MPI_Comm comms[COMM_NUM_CHANNELS], control;
    int64_t delay_ns, chunk_bytes, direct_bytes;
    int64_t most_in, most_out;                /* staging of a slot */
    base_stream_t *stream[COMM_NUM_CHANNELS]; /* NULL on cuda */
    comm_mpi_slot_t slots[COMM_NUM_CHANNELS][COMM_MAX_OPEN_EXCHANGES];
    uint64_t begun[COMM_NUM_CHANNELS];

    comm_mpi_header_t *header_in[COMM_NUM_CHANNELS]; /* [size] */
    MPI_Request *header_request[COMM_NUM_CHANNELS];  /* [size] */
    uint8_t *header_held[COMM_NUM_CHANNELS];         /* [size] come, and not yet compared */

    comm_mpi_note_t *note_in;    /* [size] */
    MPI_Request *note_request;   /* [size] */
    comm_mpi_note_t note_out[2]; /* by news */
    MPI_Request *note_sends;     /* [2 x size] */
    int note_due[2];             /* to be sent */
    int notes_open;              /* being sent */
    comm_mpi_note_t *ended;      /* [size] what a rank said at its end; magic 0: nothing yet */
    uint8_t *stopped_by;         /* [size] it has said that it stops */

    comm_mpi_gather_t gather;
    const comm_bare_t *bare; /* NULL: none is to be run */
    int64_t bare_ns;
    int *indices; /* room for MPI_Testsome */
    MPI_Status *statuses;
    int room;

    int32_t stop; /* atomic builtins; the context's stop flag */
    int has_failed, failed_rank;
    base_error_t error; /* of the rank that failed first, as far as this one knows */
    void (*report)(void *user, const base_error_t *error); /* comm_mpi_options_t */
    void *report_user;
    int has_ended; /* fn has returned */
    int moving;    /* data, or headers that data waits for, was on its way at the last look */
    int quiet;     /* after a stop: nothing of the rank's memory is used any more */
} comm_mpi_group_t;

typedef enum comm_mpi_work {
    COMM_MPI_IDLE,
    COMM_MPI_OPEN,
    COMM_MPI_RUN,
    COMM_MPI_CLOSE,
    COMM_MPI_EXIT
} comm_mpi_work_t;

struct comm_mpi {
    base_ctx_t *ctx;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t work, changed;
    int rank, size;
    int32_t *hosts; /* [size] */
    /* What the progress thread is asked to do: opens, runs, closes `group`. */
    int asked, state; /* comm_mpi_work_t */
    int open_ranks;   /* COMM_MPI_OPEN: ranks of the group */
    int failed;       /* some group was stopped: MPI may not finalize */
    int speaker;      /* comm_mpi_speaker */
    int gone;         /* the last group that was stopped: a rank of it has not said that it ended */
    int stuck; /* the progress thread does not come back: nothing of the group may be freed */
    base_status_t status;
    comm_mpi_group_t *group;
    int wanted; /* atomic builtins: threads in comm_mpi_enter */
};

/* ==== mpi.c ==== */

/* Takes the mutex. Between two looks the progress thread, when it is busy, lets go of it only for those that are in here. */
void comm_mpi_enter(comm_mpi_t *mpi);
/* Sleeps until woken, at most `ns`. The mutex is held. */
void comm_mpi_sleep(comm_mpi_t *mpi, pthread_cond_t *cond, int64_t ns);
/* Has the progress thread do something and waits until it has, at most `limit_ns`. */
base_status_t comm_mpi_ask(comm_mpi_t *mpi, int what, int64_t limit_ns,
                           const char *name) BASE_MUST_CHECK;
/* rc of an MPI call: BASE_ERR_COMM with MPI's text. */
base_status_t comm_mpi_check(base_ctx_t *ctx, int rc, const char *call) BASE_MUST_CHECK;

/* ==== mpi_group.c: memory and communicators ==== */

base_status_t comm_mpi_group_init(comm_mpi_group_t *g, comm_mpi_t *mpi,
                                  const comm_mpi_options_t *options, base_ctx_t *ctx,
                                  base_device_t *dev, int size) BASE_MUST_CHECK;
void comm_mpi_group_deinit(comm_mpi_group_t *g);
/* The progress thread's: communicators and the receives that are always posted; collective. */
base_status_t comm_mpi_group_connect(comm_mpi_group_t *g, MPI_Comm comm) BASE_MUST_CHECK;
void comm_mpi_group_disconnect(comm_mpi_group_t *g);

/* ==== mpi_control.c: stops and ends. The mutex is held. ==== */

int comm_mpi_is_stopped(const comm_mpi_group_t *g);
/* Keeps the first error, stops this rank and has the others told. */
void comm_mpi_fail(comm_mpi_group_t *g, const base_error_t *error, int concerns);
/* The same with the context's error; returns st. */
base_status_t comm_mpi_forward(comm_mpi_group_t *g, base_status_t st, int concerns);
void comm_mpi_end(comm_mpi_group_t *g); /* tells the others that fn has returned */
base_status_t comm_mpi_post_notes(comm_mpi_group_t *g) BASE_MUST_CHECK; /* their receives */
base_status_t comm_mpi_progress_notes(comm_mpi_group_t *g, int *busy) BASE_MUST_CHECK;
/* After a stop, from the progress thread: ends what can be ended of the open requests. */
void comm_mpi_quiesce(comm_mpi_group_t *g);
void comm_mpi_forget_notes(comm_mpi_group_t *g); /* the receives of notes, at the end */

/* ==== mpi_progress.c: exchanges. The mutex is held. ==== */

base_status_t comm_mpi_post_header(comm_mpi_group_t *g, int channel, int peer) BASE_MUST_CHECK;
base_status_t comm_mpi_progress(comm_mpi_group_t *g, int *busy) BASE_MUST_CHECK;

/* ==== mpi_transfer.c: the messages of a list ==== */

/* Room that a list needs in the staging buffer. */
int64_t comm_mpi_staging_bytes(const comm_mpi_group_t *g, const base_range_t *list, int num);
base_status_t comm_mpi_receive_list(comm_mpi_group_t *g, int channel, comm_mpi_slot_t *slot,
                                    int link) BASE_MUST_CHECK;
base_status_t comm_mpi_send_list(comm_mpi_group_t *g, int channel, comm_mpi_slot_t *slot,
                                 int link) BASE_MUST_CHECK;
/* Between staging and place; the mutex need not be held. */
void comm_mpi_pack(const comm_mpi_group_t *g, const comm_mpi_slot_t *slot,
                   const comm_mpi_link_t *link);
void comm_mpi_unpack(const comm_mpi_group_t *g, const comm_mpi_slot_t *slot,
                     const comm_mpi_link_t *link);
/* Room for one more request; its place, or NULL (recorded). */
MPI_Request *comm_mpi_add_request(comm_mpi_group_t *g, comm_mpi_slot_t *slot, int32_t owner);

/* ==== mpi_collective.c ==== */

base_status_t comm_mpi_barrier(comm_group_t *group) BASE_MUST_CHECK;
base_status_t comm_mpi_allgather(comm_group_t *group, const void *mine, int64_t bytes,
                                 void *all) BASE_MUST_CHECK;
base_status_t comm_mpi_progress_gather(comm_mpi_group_t *g, int *busy) BASE_MUST_CHECK;

/* ==== mpi_carrier.c ==== */

typedef struct comm_mpi_wait {
    base_counter_t *counter; /* until it is >= value */
    uint64_t value;
    int peer; /* which that takes; -1: several */
    comm_tag_t tag;
    const int64_t *
        ready_ns; /* atomic builtins: when both sides had what is waited for, once that is so; it lives
                                as long as the group. NULL: not known, then all of the wait counts as exchange */
} comm_mpi_wait_t;

/* `stream` goes on when all these counters are there. On cpu and strict the waits return what stopped the group, and
 * are in the stream's account; on cuda they are one call, and the carrier has to release the counters then. */
#define COMM_MPI_MAX_WAITS BASE_MAX_SIGNALS
base_status_t comm_mpi_wait_counters(comm_mpi_group_t *g, base_stream_t *stream,
                                     const comm_mpi_wait_t *waits, int num) BASE_MUST_CHECK;
/* What a call returns that was refused because the group has stopped: what stopped it. */
base_status_t comm_mpi_outcome(comm_mpi_group_t *g, base_status_t st) BASE_MUST_CHECK;

/* comm_mpi_forward for who does not hold the mutex. */
base_status_t comm_mpi_give_up(comm_mpi_group_t *g, base_status_t st, int concerns);
/* Collective: on all ranks the first failed one's status and error, which is the context's then, also where it was
 * another rank's. None has failed: BASE_PENDING if any rank brings that, else BASE_OK. Who has no memory to ask the
 * others gives the group up: what it would do now they would not. */
base_status_t comm_mpi_agree(comm_mpi_group_t *g, base_status_t st) BASE_MUST_CHECK;

/* ==== mpi_bare.c ==== */

base_status_t comm_mpi_bare(comm_group_t *group, const comm_bare_t *bare,
                            int64_t *ns_p) BASE_MUST_CHECK;
base_status_t comm_mpi_progress_bare(comm_mpi_group_t *g, int *busy) BASE_MUST_CHECK;

/* ==== mpi_exchange.c ==== */

extern const comm_ops_t comm_mpi_ops;
/* An open exchange that waits for a peer's header: BASE_PENDING, or, when that has left or `waited_ns` is
 * beyond the limit, the status of an error that names it; the group is stopped then. The mutex is
 * held. */
base_status_t comm_mpi_check_late(comm_mpi_group_t *g, int channel, uint64_t sequence,
                                  int64_t waited_ns) BASE_MUST_CHECK;
/* BASE_ERR_STATE when an exchange is open. The mutex is held. */
base_status_t comm_mpi_check_complete(comm_mpi_group_t *g) BASE_MUST_CHECK;

#endif
