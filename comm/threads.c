/* The threads transport's operations, as the rank's own thread calls them. */
#include "comm/threads_world.h"

#include "base/clock.h"
#include "base/device/device_host.h"

#include <inttypes.h>
#include <string.h>

/* ==== exchanges ==== */

/* A call that was refused because the world has stopped returns what stopped it, not what the
 * stream made of it. */
static base_status_t outcome(const comm_threads_member_t *m, base_status_t st)
{
    return st < 0 && comm_threads_is_stopped(m->world) ? comm_threads_stopped(m) : st;
}

/* A peer that keeps the exchange of this slot from being complete, or -1. */
static int slot_holder(const comm_threads_member_t *m, int channel, const comm_threads_slot_t *slot,
                       const char **what)
{
    if (slot->sequence == 0) return -1;
    for (int r = 0; r < m->world->size; r++) {
        const comm_peer_t *p = &slot->by_rank[r];

        if (p->num_recv > 0 && base_counter_value(m->arrived[channel][r]) < slot->sequence) {
            *what = COMM_THREADS_NOTHING_CAME;
            return r;
        }
        if (p->num_send > 0 && !slot->consumed[r]) {
            *what = COMM_THREADS_NOT_FETCHED;
            return r;
        }
    }
    return -1;
}

/* Waits until the exchange that used the slot before is complete. The mutex is held. */
static base_status_t wait_for_slot(comm_threads_member_t *m, int channel,
                                   const comm_threads_slot_t *slot)
{
    const int64_t limit_ns = comm_threads_deadline_ns(m) + m->world->delay_ns;
    const int64_t start_ns = base_clock_ns();

    while (slot->phase != COMM_THREADS_FREE &&
           (slot->phase != COMM_THREADS_SERVED || slot->num_unconsumed > 0)) {
        const comm_threads_work_t w = {
            .member = m, .sequence = slot->sequence, .channel = channel, .tag = slot->tag};
        const int64_t waited_ns = base_clock_ns() - start_ns;
        const char *what = "";
        const int holder = slot_holder(m, channel, slot, &what);
        const comm_threads_member_t *peer = holder >= 0 ? &m->world->members[holder] : NULL;

        if (comm_threads_is_stopped(m->world)) return comm_threads_stopped(m);
        if (peer != NULL && peer->ended && peer->begun[channel] < slot->sequence)
            return comm_threads_fail_wait_locked(m, &w, holder, what, -1);
        if (waited_ns > limit_ns && peer != NULL)
            return comm_threads_fail_wait_locked(m, &w, holder, what, waited_ns / 1000000);
        if (waited_ns > limit_ns)
            return BASE_FAIL(m->group.ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                             "rank %d: channel %s, exchange %" PRIu64 ": not ready after %" PRId64
                             " ms, and %d are open",
                             m->group.rank, comm_channel_name(channel), slot->sequence,
                             waited_ns / 1000000, COMM_MAX_OPEN_EXCHANGES);
        comm_threads_sleep(m, COMM_THREADS_HOST, COMM_THREADS_POLL_NS);
    }
    return BASE_OK;
}

static void fill_slot(comm_threads_member_t *m, comm_threads_slot_t *slot,
                      const comm_exchange_t *ex, uint64_t sequence)
{
    const size_t size = (size_t)m->world->size;

    memset(slot->by_rank, 0, size * sizeof *slot->by_rank);
    memset(slot->consumed, 0, size);
    memset(slot->ready_ns, 0, size * sizeof *slot->ready_ns);
    slot->sequence = sequence;
    slot->phase = COMM_THREADS_BEGUN;
    slot->tag = ex->tag;
    slot->name = ex->name;
    slot->num_unconsumed = 0;
    for (int i = 0; i < ex->num_peers; i++) {
        slot->by_rank[ex->peers[i].rank] = ex->peers[i];
        slot->num_unconsumed += ex->peers[i].num_send > 0;
    }
}

/* Nobody to exchange with: a position and no work, so that a GPU, whose streams run no functions of
 * the host, can be a rank alone. The slot stays free, and a ticket waits for nothing. */
static base_status_t begin_alone(comm_threads_member_t *m, int channel, uint64_t *sequence_p)
{
    if (comm_threads_is_stopped(m->world)) return comm_threads_stopped(m);
    *sequence_p = ++m->begun[channel];
    return BASE_OK;
}

static base_status_t threads_begin(comm_group_t *group, int channel, const comm_exchange_t *ex,
                                   uint64_t *sequence_p)
{
    comm_threads_member_t *m = (comm_threads_member_t *)group;
    base_stream_t *stream = m->stream[channel];
    comm_threads_work_t w = {.member = m, .channel = channel, .tag = ex->tag};
    comm_threads_slot_t *slot;
    base_status_t st;

    /* First, since it can refuse (an event that was never recorded), and the group is then as
     * before. */
    if (ex->ready != NULL) {
        st = base_stream_wait_event(stream, ex->ready);
        if (st < 0) return outcome(m, st);
    }
    if (group->size == 1) return begin_alone(m, channel, sequence_p);
    (void)pthread_mutex_lock(&m->world->mutex);
    w.sequence = m->begun[channel] + 1;
    slot = comm_threads_slot(m, channel, w.sequence);
    st = comm_threads_is_stopped(m->world) ? comm_threads_stopped(m)
                                           : wait_for_slot(m, channel, slot);
    if (st == BASE_OK) {
        fill_slot(m, slot, ex, w.sequence);
        m->begun[channel] = w.sequence;
    }
    (void)pthread_mutex_unlock(&m->world->mutex);
    if (st < 0) return st;
    st = base_stream_submit(stream, comm_threads_post_work, &w, sizeof w, NULL, 0);
    if (st >= 0) st = base_stream_submit(stream, comm_threads_serve_work, &w, sizeof w, NULL, 0);
    if (st < 0) return outcome(m, st);
    *sequence_p = w.sequence;
    return BASE_OK;
}

/* Only the rank's own thread writes by_rank and sequence, so it reads them without the mutex. A
 * slot that was used again belongs to a later exchange: the ticket's is complete. */
static base_status_t wait_on(comm_group_t *group, comm_ticket_t ticket, int peer,
                             base_stream_t *stream, base_work_fn work)
{
    comm_threads_member_t *m = (comm_threads_member_t *)group;
    const comm_threads_slot_t *slot = comm_threads_slot(m, ticket.channel, ticket.sequence);
    const comm_threads_work_t w = {.member = m,
                                   .sequence = ticket.sequence,
                                   .channel = ticket.channel,
                                   .peer = peer,
                                   .tag = slot->tag,
                                   .stream = stream};

    if (slot->sequence != ticket.sequence) return BASE_OK;
    if (work == comm_threads_arrived_work ? slot->by_rank[peer].num_recv == 0
                                          : slot->by_rank[peer].num_send == 0)
        return BASE_OK;
    return outcome(m, base_stream_submit(stream, work, &w, sizeof w, NULL, 0));
}

static base_status_t threads_arrived(comm_group_t *group, comm_ticket_t ticket, int peer,
                                     base_stream_t *stream)
{
    return wait_on(group, ticket, peer, stream, comm_threads_arrived_work);
}

static base_status_t threads_arrived_all(comm_group_t *group, comm_ticket_t ticket,
                                         base_stream_t *stream)
{
    for (int r = 0; r < group->size; r++)
        BASE_TRY(wait_on(group, ticket, r, stream, comm_threads_arrived_work));
    return BASE_OK;
}

static base_status_t threads_sent(comm_group_t *group, comm_ticket_t ticket, base_stream_t *stream)
{
    for (int r = 0; r < group->size; r++)
        BASE_TRY(wait_on(group, ticket, r, stream, comm_threads_sent_work));
    return BASE_OK;
}

/* ==== bare ==== */

/* comm_group_stop of the rank that is read waits until nobody reads it. */
static void count_active(comm_threads_member_t *from, int change)
{
    (void)pthread_mutex_lock(&from->world->mutex);
    from->num_active += change;
    (void)pthread_cond_signal(&from->wake[COMM_THREADS_HOST]);
    (void)pthread_mutex_unlock(&from->world->mutex);
}

static base_status_t threads_bare(comm_group_t *group, const comm_bare_t *bare, int64_t *ns_p)
{
    comm_threads_member_t *m = (comm_threads_member_t *)group;
    comm_threads_member_t *from = bare->from >= 0 ? &m->world->members[bare->from] : NULL;
    base_mem_t all[COMM_THREADS_MAX_RANKS]; /* places of one process */

    if (from != NULL) count_active(from, 1); /* before it can know that this rank has come */
    base_status_t st = comm_threads_allgather(group, &bare->send, sizeof bare->send, all);
    if (st >= 0)
        st = comm_bare_copies(group, bare, from != NULL ? all[bare->from] : bare->recv, ns_p);
    if (from != NULL) count_active(from, -1);
    return st;
}

/* ==== stop, destroy ==== */

static void threads_stop(comm_group_t *group, const base_error_t *error)
{
    comm_threads_member_t *m = (comm_threads_member_t *)group;

    if (error != NULL)
        comm_threads_fail(m, error);
    else
        (void)comm_threads_forward(m, BASE_ERR_PEER);
    /* A copy that was in flight ends by itself; no new one begins. */
    (void)pthread_mutex_lock(&m->world->mutex);
    while (m->num_active > 0)
        comm_threads_sleep(m, COMM_THREADS_HOST, COMM_THREADS_POLL_NS);
    (void)pthread_mutex_unlock(&m->world->mutex);
}

static void threads_destroy(comm_group_t *group)
{
    comm_threads_member_deinit((comm_threads_member_t *)group);
}

const comm_ops_t comm_threads_ops = {.name = "threads",
                                     .begin = threads_begin,
                                     .arrived = threads_arrived,
                                     .arrived_all = threads_arrived_all,
                                     .sent = threads_sent,
                                     .barrier = comm_threads_barrier,
                                     .allgather = comm_threads_allgather,
                                     .bare = threads_bare,
                                     .stop = threads_stop,
                                     .destroy = threads_destroy};
