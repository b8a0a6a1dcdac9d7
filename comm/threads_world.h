/* The state that the ranks of the threads transport share; private to comm/threads*.c.
 *
 * A world holds one member a rank. Everything marked (w) is guarded by world->mutex, which is
 * never held while bytes move, while a delay is slept or while anything is waited for. Waits
 * sleep on the condition variable of the one who waits (a channel's worker or the rank's own
 * thread), so that a post wakes only those whom it concerns.
 *
 * Life of an exchange of one rank on one channel:
 *   begun     by the rank's thread: the slot sequence % COMM_MAX_OPEN_EXCHANGES is filled
 *   posted    by the channel's stream, after `ready`: peers may read the outgoing ranges now
 *   served    by the channel's stream: everything this rank receives is here
 *   complete  served, and all peers have consumed what this rank sends: the slot may be used again
 *
 * Lists and tags are compared when a rank posts, with every rank that posted the same exchange
 * before: of each pair exactly the later one compares, both directions, under the mutex. So
 * nothing is copied before it was found equal, and a side that expects nothing still learns that
 * the other sends something.
 *
 * Failure. Whoever detects one calls comm_threads_fail: it records the error in the contexts of
 * the ranks it concerns (the others get COMM-01 with the failed rank's text) and only then raises
 * the stop flag, so that the first error of each rank says what happened, whichever of its waits
 * ends first. */
#ifndef CADRE_COMM_THREADS_WORLD_H
#define CADRE_COMM_THREADS_WORLD_H

#include "comm/exchange.h"
#include "comm/threads.h"
#include "comm/transport.h"

#include <pthread.h>

/* Longest time between two looks at stop flag and deadline; wake-ups make it irrelevant except
 * for faults. */
#define COMM_THREADS_POLL_NS 20000000

#define COMM_THREADS_HOST COMM_NUM_CHANNELS /* index of the rank's own thread in wake[] */

typedef enum comm_threads_phase {
    COMM_THREADS_FREE,
    COMM_THREADS_BEGUN,
    COMM_THREADS_POSTED,
    COMM_THREADS_SERVED
} comm_threads_phase_t;

typedef struct comm_threads_slot {
    uint64_t sequence; /* (w) 0: never used */
    comm_threads_phase_t phase;
    int num_unconsumed; /* (w) peers that have not yet consumed what this rank sends them */
    comm_tag_t tag;
    comm_peer_t *by_rank; /* [size] the caller's entry for each rank; zeros for ranks not listed */
    uint8_t *consumed;    /* [size] (w) */
    const char *name;
    int64_t *ready_ns; /* [size] (w) when a peer was found to have posted what it sends; 0: not yet
                        */
} comm_threads_slot_t;

typedef enum comm_threads_collective {
    COMM_THREADS_BARRIER,
    COMM_THREADS_ALLGATHER
} comm_threads_collective_t;

typedef struct comm_threads_world comm_threads_world_t;

typedef struct comm_threads_member {
    comm_group_t group; /* first: the public handle */
    comm_threads_world_t *world;
    base_stream_t *stream[COMM_NUM_CHANNELS];
    base_counter_t *
        *arrived[COMM_NUM_CHANNELS]; /* [size] last exchange of which that peer's data is here */
    base_counter_t *
        *consumed[COMM_NUM_CHANNELS]; /* [size] last exchange of which that peer read our data */
    int64_t *due_ns
        [COMM_NUM_CHANNELS]; /* [size] the worker's: when a peer is served, 0: not posted yet */

    pthread_cond_t wake[COMM_NUM_CHANNELS + 1];
    int num_conds; /* of them initialized */
    comm_threads_slot_t slots[COMM_NUM_CHANNELS][COMM_MAX_OPEN_EXCHANGES];
    uint64_t begun[COMM_NUM_CHANNELS]; /* (w) */
    int num_active;                    /* (w) copies in flight that touch this rank's memory */
    int ended; /* (w) its function has returned: it begins nothing any more */

    comm_threads_collective_t collective; /* (w) the one begun last, with its operands */
    uint64_t collective_begun, collective_done;
    int64_t collective_bytes;
    const void *collective_mine;

    /* threads_run.c */
    pthread_t thread;
    int started;
    comm_rank_fn fn;
    void *user;
    base_status_t status;
} comm_threads_member_t;

struct comm_threads_world {
    pthread_mutex_t mutex;
    int32_t stop; /* atomic builtins; the contexts' stop flag */
    int has_failed;
    int failed_rank;    /* (w) */
    base_error_t error; /* (w) of the rank that failed first */
    int64_t delay_ns;
    int size;
    comm_threads_member_t *members; /* [size] */
};

/* Fills members[rank], whose memory the world owns: streams, counters, slots. Frees what it made
 * when it fails. */
base_status_t comm_threads_member_init(comm_threads_world_t *world, int rank, base_ctx_t *ctx,
                                       base_device_t *dev) BASE_MUST_CHECK;
/* Waits for the member's own streams and destroys them. Legal on a zeroed member. */
void comm_threads_member_quiesce(comm_threads_member_t *m);
/* Frees the rest. Legal on a zeroed member. All members must be quiet: they raise each other's
 * counters. */
void comm_threads_member_deinit(comm_threads_member_t *m);

/* ==== failure ==== */

/* Records `error` for the world (first one wins), COMM-01 for the other members, and stops all. */
void comm_threads_fail(comm_threads_member_t *m, const base_error_t *error);
void comm_threads_fail_locked(comm_threads_member_t *m, const base_error_t *error);
/* The same with the error that m's context holds; returns st. */
base_status_t comm_threads_forward(comm_threads_member_t *m, base_status_t st);
/* What a call of m returns when it was stopped: the status of m's recorded error when that lost a
 * peer or the group (both sides of a mismatch get BASE_ERR_MISMATCH), else BASE_ERR_PEER. */
base_status_t comm_threads_stopped(const comm_threads_member_t *m);
int comm_threads_is_stopped(const comm_threads_world_t *world);

/* ==== waiting ==== */

int64_t comm_threads_deadline_ns(const comm_threads_member_t *m);
/* Sleeps on m's condition until woken, at most `ns`; the mutex is held. */
void comm_threads_sleep(comm_threads_member_t *m, int who, int64_t ns);

static inline comm_threads_slot_t *comm_threads_slot(comm_threads_member_t *m, int channel,
                                                     uint64_t sequence)
{
    return &m->slots[channel][sequence % COMM_MAX_OPEN_EXCHANGES];
}

/* ==== threads_serve.c: what a channel's stream does for one exchange ==== */

typedef struct comm_threads_work {
    comm_threads_member_t *member;
    uint64_t sequence;
    int channel;
    int peer; /* waits */
    comm_tag_t tag;
    base_stream_t *stream; /* waits: where they run */
} comm_threads_work_t;

base_status_t comm_threads_post_work(void *args);  /* comm_threads_work_t */
base_status_t comm_threads_serve_work(void *args); /* comm_threads_work_t */
/* On the caller's stream: until `peer` has delivered, until it has fetched. */
base_status_t comm_threads_arrived_work(void *args);
base_status_t comm_threads_sent_work(void *args);

/* A wait for `peer` that ends badly: BASE_ERR_TIMEOUT after waited_ms, or BASE_ERR_PEER when
 * waited_ms < 0 (the peer has ended). Names both ranks, channel, exchange and tag, and stops the
 * world. The mutex is held. */
#define COMM_THREADS_NOTHING_CAME "nothing came from"
#define COMM_THREADS_NOT_FETCHED  "its data was not fetched by"
base_status_t comm_threads_fail_wait_locked(comm_threads_member_t *m, const comm_threads_work_t *w,
                                            int peer, const char *what, int64_t waited_ms);

/* "channel ping, exchange 3 (kind ...)" */
#define COMM_PLACE_BYTES (COMM_TEXT_BYTES + 64)
void comm_threads_place(int channel, uint64_t sequence, const comm_tag_t *tag,
                        char text[COMM_PLACE_BYTES]);
/* What keeps `peer` in this exchange, as a clause: "it has not begun it". The mutex is held. */
const char *comm_threads_peer_state(comm_threads_member_t *peer, int channel, uint64_t sequence);

/* ==== threads_collective.c ==== */

base_status_t comm_threads_barrier(comm_group_t *group) BASE_MUST_CHECK;
base_status_t comm_threads_allgather(comm_group_t *group, const void *mine, int64_t bytes,
                                     void *all) BASE_MUST_CHECK;

extern const comm_ops_t comm_threads_ops; /* threads.c */

#endif
