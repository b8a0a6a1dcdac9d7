/* What a channel's stream does for one exchange of the threads transport: post it, then fetch
 * what it receives. */
#include "comm/threads_world.h"

#include "base/clock.h"
#include "base/device/device_host.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* How often a wait on a counter looks whether its peer has ended. */
#define WAIT_SLICE_MS 20

/* ==== posting ==== */

/* Both sides of a disagreement fail with the same text, each under its own rank. */
static void fail_mismatch(comm_threads_member_t *m, comm_threads_member_t *peer,
                          const comm_threads_work_t *w, const char *what)
{
    comm_threads_member_t *const sides[2] = {peer, m}; /* m last: its error becomes the world's */
    base_error_t error;

    for (int i = 0; i < 2; i++)
        (void)BASE_FAIL(sides[i]->group.ctx, BASE_ERR_MISMATCH, BASE_MSG_COMM_03,
                        "rank %d: channel %s, exchange %" PRIu64 ": %s", sides[i]->group.rank,
                        comm_channel_name(w->channel), w->sequence, what);
    if (base_ctx_error(m->group.ctx, &error)) comm_threads_fail_locked(m, &error);
}

static int pair_disagrees(const comm_threads_member_t *from, const comm_threads_slot_t *from_slot,
                          const comm_threads_member_t *to, const comm_threads_slot_t *to_slot,
                          char *text, size_t text_bytes)
{
    const comm_peer_t *send = &from_slot->by_rank[to->group.rank];
    const comm_peer_t *recv = &to_slot->by_rank[from->group.rank];
    const comm_pair_t pair = {.sender = from->group.rank,
                              .receiver = to->group.rank,
                              .sender_tag = &from_slot->tag,
                              .receiver_tag = &to_slot->tag,
                              .num_send = send->num_send,
                              .num_recv = recv->num_recv,
                              .send = send->send,
                              .recv = recv->recv};

    return comm_pair_disagrees(&pair, text, text_bytes);
}

/* Compares with everyone who posted this exchange before. A rank that shares no data with m may
 * have completed it and used the slot again; if m's lists name that rank all the same, they
 * disagree. */
static base_status_t compare_posted(comm_threads_member_t *m, const comm_threads_slot_t *slot,
                                    const comm_threads_work_t *w)
{
    char text[768];

    for (int r = 0; r < m->world->size; r++) {
        comm_threads_member_t *peer = &m->world->members[r];
        const comm_threads_slot_t *other = comm_threads_slot(peer, w->channel, w->sequence);
        int bad = 0;

        if (r == m->group.rank) continue;
        if (other->sequence > w->sequence) {
            const comm_peer_t *mine = &slot->by_rank[r];

            bad = mine->num_send > 0 || mine->num_recv > 0;
            (void)snprintf(
                text, sizeof text,
                "rank %d sends rank %d %d ranges and expects %d; for rank %d there were none",
                m->group.rank, r, mine->num_send, mine->num_recv, r);
        } else if (other->sequence == w->sequence && other->phase >= COMM_THREADS_POSTED) {
            bad = pair_disagrees(m, slot, peer, other, text, sizeof text) ||
                  pair_disagrees(peer, other, m, slot, text, sizeof text);
        }
        if (bad) {
            fail_mismatch(m, peer, w, text);
            return BASE_ERR_MISMATCH;
        }
    }
    return BASE_OK;
}

base_status_t comm_threads_post_work(void *args)
{
    const comm_threads_work_t *w = args;
    comm_threads_member_t *m = w->member;
    comm_threads_slot_t *slot = comm_threads_slot(m, w->channel, w->sequence);
    base_status_t st = BASE_OK;

    (void)pthread_mutex_lock(&m->world->mutex);
    if (comm_threads_is_stopped(m->world))
        st = comm_threads_stopped(m);
    else
        st = compare_posted(m, slot, w);
    if (st == BASE_OK) {
        slot->phase = COMM_THREADS_POSTED;
        for (int r = 0; r < m->world->size; r++)
            if (slot->by_rank[r].num_send > 0)
                (void)pthread_cond_signal(&m->world->members[r].wake[w->channel]);
    }
    (void)pthread_mutex_unlock(&m->world->mutex);
    return st;
}

base_status_t comm_threads_fail_wait_locked(comm_threads_member_t *m, const comm_threads_work_t *w,
                                            int peer, const char *what, int64_t waited_ms)
{
    const char *state = comm_threads_peer_state(&m->world->members[peer], w->channel, w->sequence);
    char place[COMM_PLACE_BYTES];
    base_status_t st;
    base_error_t error;

    comm_threads_place(w->channel, w->sequence, &w->tag, place);
    if (waited_ms >= 0)
        st = BASE_FAIL(m->group.ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                       "rank %d: %s: %s rank %d in %" PRId64 " ms: %s", m->group.rank, place, what,
                       peer, waited_ms, state);
    else
        st = BASE_FAIL(m->group.ctx, BASE_ERR_PEER, BASE_MSG_COMM_01, "rank %d: %s: %s rank %d: %s",
                       m->group.rank, place, what, peer, state);
    if (base_ctx_error(m->group.ctx, &error)) comm_threads_fail_locked(m, &error);
    return st;
}

/* ==== waiting for the counters, on the caller's streams ==== */

/* A wait that has ended, in the account of the stream. It was for the other rank until `receiver`
 * found what `sender` posted, which it no longer knows when it has used the slot again. */
static void account(const comm_threads_work_t *w, comm_threads_member_t *receiver, int sender,
                    int64_t start_ns)
{
    const comm_threads_slot_t *slot = comm_threads_slot(receiver, w->channel, w->sequence);
    const base_trace_note_t note = comm_note(&w->tag, w->peer, 0);
    int64_t ready_ns = 0;

    if (!base_stream_measured(w->stream)) return;
    (void)pthread_mutex_lock(&w->member->world->mutex);
    if (slot->sequence == w->sequence) ready_ns = slot->ready_ns[sender];
    (void)pthread_mutex_unlock(&w->member->world->mutex);
    base_stream_waited(w->stream, &note, start_ns, ready_ns);
}

/* The device could wait for a counter by itself, but could not name the peer when nothing comes. */
static base_status_t wait_counter(const comm_threads_work_t *w, base_counter_t *counter,
                                  const char *what)
{
    comm_threads_member_t *m = w->member;
    const comm_threads_member_t *peer = &m->world->members[w->peer];
    const int64_t limit_ns = comm_threads_deadline_ns(m) + m->world->delay_ns;
    const int64_t start_ns = base_clock_ns();
    base_status_t st;

    while ((st = base_counter_wait_host(m->group.ctx, counter, w->sequence, WAIT_SLICE_MS)) ==
           BASE_PENDING) {
        const int64_t waited_ns = base_clock_ns() - start_ns;

        (void)pthread_mutex_lock(&m->world->mutex);
        if (comm_threads_is_stopped(m->world))
            st = comm_threads_stopped(m);
        else if (base_counter_value(counter) >= w->sequence)
            st = BASE_OK;
        else if (peer->ended && peer->begun[w->channel] < w->sequence)
            st = comm_threads_fail_wait_locked(m, w, w->peer, what, -1);
        else if (waited_ns > limit_ns)
            st = comm_threads_fail_wait_locked(m, w, w->peer, what, waited_ns / 1000000);
        (void)pthread_mutex_unlock(&m->world->mutex);
        if (st != BASE_PENDING) return st;
    }
    return st < 0 ? comm_threads_stopped(m) : st;
}

base_status_t comm_threads_arrived_work(void *args)
{
    const comm_threads_work_t *w = args;
    comm_threads_member_t *m = w->member;
    base_counter_t *counter = m->arrived[w->channel][w->peer];
    const int waits = base_counter_value(counter) < w->sequence;
    const int64_t start_ns = base_clock_ns();

    BASE_TRY(wait_counter(w, counter, COMM_THREADS_NOTHING_CAME));
    if (waits) account(w, m, w->peer, start_ns);
    return BASE_OK;
}

base_status_t comm_threads_sent_work(void *args)
{
    const comm_threads_work_t *w = args;
    comm_threads_member_t *m = w->member;
    base_counter_t *counter = m->consumed[w->channel][w->peer];
    const int waits = base_counter_value(counter) < w->sequence;
    const int64_t start_ns = base_clock_ns();

    BASE_TRY(wait_counter(w, counter, COMM_THREADS_NOT_FETCHED));
    if (waits) account(w, &m->world->members[w->peer], m->group.rank, start_ns);
    return BASE_OK;
}

/* ==== serving ==== */

/* Copies everything that `from` sends m. Lists were compared; empty ranges have no place to
 * open. */
static void copy_from(const comm_peer_t *send, const comm_peer_t *recv)
{
    for (int i = 0; i < recv->num_recv; i++) {
        const base_range_t *dst = &recv->recv[i], *src = &send->send[i];
        const base_operand_t operands[2] = {{*dst, BASE_WRITE}, {*src, BASE_READ}};
        unsigned char *to;
        const unsigned char *from;

        if (dst->rows == 0 || dst->row_bytes == 0) continue;
        to = base_mem_address(dst->mem);
        from = base_mem_address(src->mem);
        base_host_open(operands, 2);
        for (int64_t row = 0; row < dst->rows; row++)
            memcpy(to + row * dst->pitch, from + row * src->pitch, (size_t)dst->row_bytes);
        base_host_close(operands, 2);
    }
}

/* Fetches from one peer. The mutex is held on entry and on return, but not while bytes move:
 * num_active tells comm_group_stop of either rank that its memory is still in use. */
static void fetch(comm_threads_member_t *m, comm_threads_member_t *peer,
                  const comm_threads_slot_t *slot, const comm_threads_work_t *w)
{
    comm_threads_slot_t *other = comm_threads_slot(peer, w->channel, w->sequence);
    const comm_peer_t *recv = &slot->by_rank[peer->group.rank];
    pthread_mutex_t *mutex = &m->world->mutex;

    m->num_active++;
    peer->num_active++;
    (void)pthread_mutex_unlock(mutex);
    copy_from(&other->by_rank[m->group.rank], recv);
    const base_trace_note_t note =
        comm_note(&w->tag, peer->group.rank, comm_exchange_bytes(recv->recv, recv->num_recv));
    comm_trace_transfer(m->group.ctx, w->channel, slot->name, &note,
                        slot->ready_ns[peer->group.rank]);
    base_counter_raise(m->arrived[w->channel][peer->group.rank], w->sequence);
    (void)pthread_mutex_lock(mutex);
    m->num_active--;
    peer->num_active--;
    /* Before the counter: whoever saw it may end, and is then asked for exchanges that are still
     * open. */
    other->consumed[m->group.rank] = 1;
    other->num_unconsumed--;
    base_counter_raise(peer->consumed[w->channel][m->group.rank], w->sequence);
    (void)pthread_cond_signal(&peer->wake[COMM_THREADS_HOST]);
    if (comm_threads_is_stopped(m->world)) (void)pthread_cond_signal(&m->wake[COMM_THREADS_HOST]);
}

typedef struct serve_look {
    int ready;        /* a peer that can be fetched now, -1: none */
    int gone;         /* a peer that will never post, -1: none */
    int pending;      /* a peer that is still missing, -1: all are done */
    int64_t sleep_ns; /* until the next one is due */
} serve_look_t;

/* Looks at all peers that are not done. Whoever is found posted is due after the delay, all of
 * them at the same time, so that delays of different peers overlap as transfers over different
 * links do. */
static serve_look_t look(comm_threads_member_t *m, const comm_threads_slot_t *slot,
                         const comm_threads_work_t *w)
{
    serve_look_t l = {.ready = -1, .gone = -1, .pending = -1, .sleep_ns = COMM_THREADS_POLL_NS};
    int64_t *due_ns = m->due_ns[w->channel];
    const int64_t now = base_clock_ns();

    for (int r = 0; r < m->world->size; r++) {
        comm_threads_member_t *peer = &m->world->members[r];
        const comm_threads_slot_t *other = comm_threads_slot(peer, w->channel, w->sequence);

        if (due_ns[r] < 0) continue;
        if (due_ns[r] == 0 && other->sequence == w->sequence &&
            other->phase >= COMM_THREADS_POSTED) {
            due_ns[r] = now + m->world->delay_ns;
            slot->ready_ns[r] = now;
        }
        if (due_ns[r] == 0) {
            l.pending = l.pending < 0 ? r : l.pending;
            if (peer->ended && peer->begun[w->channel] < w->sequence) l.gone = r;
        } else if (due_ns[r] > now) {
            l.pending = l.pending < 0 ? r : l.pending;
            l.sleep_ns = due_ns[r] - now < l.sleep_ns ? due_ns[r] - now : l.sleep_ns;
        } else if (l.ready < 0 || due_ns[r] < due_ns[l.ready]) {
            l.ready = r;
        }
    }
    return l;
}

base_status_t comm_threads_serve_work(void *args)
{
    const comm_threads_work_t *w = args;
    comm_threads_member_t *m = w->member;
    comm_threads_slot_t *slot = comm_threads_slot(m, w->channel, w->sequence);
    int64_t *due_ns = m->due_ns[w->channel];
    const int64_t limit_ns = comm_threads_deadline_ns(m);
    int64_t since_ns = base_clock_ns();
    base_status_t st = BASE_OK;

    for (int r = 0; r < m->world->size; r++)
        due_ns[r] = slot->by_rank[r].num_recv > 0 ? 0 : -1; /* -1: nothing, or done */

    (void)pthread_mutex_lock(&m->world->mutex);
    while (st == BASE_OK) {
        const serve_look_t l = look(m, slot, w);
        const int64_t waited_ns = base_clock_ns() - since_ns;

        if (comm_threads_is_stopped(m->world)) {
            st = comm_threads_stopped(m);
        } else if (l.ready >= 0) {
            comm_threads_member_t *peer = &m->world->members[l.ready];

            fetch(m, peer, slot, w);
            due_ns[l.ready] = -1;
            since_ns = base_clock_ns();
        } else if (l.gone >= 0) {
            st = comm_threads_fail_wait_locked(m, w, l.gone, COMM_THREADS_NOTHING_CAME, -1);
        } else if (l.pending < 0) {
            break;
        } else if (waited_ns > limit_ns + m->world->delay_ns) {
            st = comm_threads_fail_wait_locked(m, w, l.pending, COMM_THREADS_NOTHING_CAME,
                                               waited_ns / 1000000);
        } else {
            comm_threads_sleep(m, w->channel, l.sleep_ns);
        }
    }
    if (st == BASE_OK) {
        slot->phase = COMM_THREADS_SERVED;
        (void)pthread_cond_signal(&m->wake[COMM_THREADS_HOST]);
    }
    (void)pthread_mutex_unlock(&m->world->mutex);
    return st;
}
