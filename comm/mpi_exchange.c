/* The MPI transport's operations on exchanges, as the rank's own thread and streams call them. */
#include "comm/mpi_state.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "comm/watch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define STOP_WAIT_NS INT64_C(1000000000)
#define POLL_NS      20000000

static const char NOTHING_CAME[] = "nothing came from";
static const char NOT_FETCHED[] = "its data was not fetched by";

static comm_mpi_slot_t *slot_of(comm_mpi_group_t *g, int channel, uint64_t sequence)
{
    return &g->slots[channel][sequence % COMM_MAX_OPEN_EXCHANGES];
}

static comm_mpi_link_t *link_of(comm_mpi_slot_t *slot, int peer)
{
    for (int i = 0; i < slot->num_links; i++)
        if (slot->links[i].lists.rank == peer) return &slot->links[i];
    return NULL;
}

/* ==== waits ==== */

typedef struct wait_point {
    int channel, peer;
    uint64_t sequence;
    comm_tag_t tag;
    const char *what;
} wait_point_t;

static int has_left(const comm_mpi_group_t *g, const wait_point_t *w)
{
    const comm_mpi_note_t *ended = &g->ended[w->peer];

    return ended->magic != 0 && ended->begun[w->channel] < w->sequence;
}

static const char *peer_state(comm_mpi_group_t *g, const wait_point_t *w)
{
    comm_mpi_slot_t *slot = slot_of(g, w->channel, w->sequence);
    const comm_mpi_link_t *link = link_of(slot, w->peer);

    if (has_left(g, w)) return "it has ended without beginning it";
    if (slot->phase < COMM_MPI_POSTED)
        return "this rank's own data is not ready or an earlier exchange is not done";
    if (link != NULL && !link->header_in)
        return "it has not begun it, or its data is not ready or an earlier exchange is not done";
    return "it has begun it, and the data is on its way";
}

/* BASE_PENDING, or why the wait ends badly. The mutex is held. */
static base_status_t look(comm_mpi_group_t *g, const wait_point_t *w, int64_t waited_ns)
{
    char tag[COMM_TEXT_BYTES];
    base_status_t st;

    if (comm_mpi_is_stopped(g)) return comm_watch_stopped(g->group.ctx);
    if (!has_left(g, w) && waited_ns <= comm_watch_limit_ns(g->group.ctx) + g->delay_ns)
        return BASE_PENDING;
    comm_tag_text(&w->tag, tag);
    if (has_left(g, w))
        st = BASE_FAIL(g->group.ctx, BASE_ERR_PEER, BASE_MSG_COMM_01,
                       "rank %d: channel %s, exchange %" PRIu64 " (%s): %s rank %d: %s",
                       g->group.rank, comm_channel_name(w->channel), w->sequence, tag, w->what,
                       w->peer, peer_state(g, w));
    else
        st = BASE_FAIL(g->group.ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                       "rank %d: channel %s, exchange %" PRIu64 " (%s): %s rank %d in %" PRId64
                       " ms: %s",
                       g->group.rank, comm_channel_name(w->channel), w->sequence, tag, w->what,
                       w->peer, waited_ns / 1000000, peer_state(g, w));
    return comm_mpi_forward(g, st, COMM_MPI_CONCERNS_NONE);
}

/* ==== begin ==== */

typedef struct ready_args {
    comm_mpi_group_t *g;
    comm_mpi_slot_t *slot;
} ready_args_t;

static base_status_t ready_work(void *args)
{
    const ready_args_t *a = args;
    comm_mpi_t *mpi = a->g->process;

    (void)pthread_mutex_lock(&mpi->mutex);
    a->slot->phase = COMM_MPI_READY;
    (void)pthread_cond_signal(&mpi->work);
    (void)pthread_mutex_unlock(&mpi->mutex);
    return BASE_OK;
}

/* What keeps the slot's exchange open, in w; -1 as peer when it is not yet posted. */
static void find_holder(comm_mpi_slot_t *slot, wait_point_t *w)
{
    w->sequence = slot->sequence;
    w->tag = slot->tag;
    w->peer = slot->num_links > 0 ? slot->links[0].lists.rank : -1;
    w->what = NOTHING_CAME;
    for (int i = 0; i < slot->num_links; i++) {
        const comm_mpi_link_t *l = &slot->links[i];

        if (l->arrived && l->sent) continue;
        w->peer = l->lists.rank;
        w->what = l->arrived || l->lists.num_recv == 0 ? NOT_FETCHED : NOTHING_CAME;
        return;
    }
}

base_status_t comm_mpi_check_late(comm_mpi_group_t *g, int channel, uint64_t sequence,
                                  int64_t waited_ns)
{
    comm_mpi_slot_t *slot = slot_of(g, channel, sequence);
    wait_point_t w = {.channel = channel};

    find_holder(slot, &w);
    return w.peer >= 0 ? look(g, &w, waited_ns) : BASE_PENDING;
}

/* Waits until the exchange that used the slot before is complete. The mutex is held. */
static base_status_t wait_for_slot(comm_mpi_group_t *g, int channel, comm_mpi_slot_t *slot)
{
    const int64_t start_ns = base_clock_ns();

    while (slot->phase != COMM_MPI_FREE && slot->phase != COMM_MPI_COMPLETE) {
        wait_point_t w = {.channel = channel};
        const int64_t waited_ns = base_clock_ns() - start_ns;

        find_holder(slot, &w);
        if (w.peer >= 0) {
            const base_status_t st = look(g, &w, waited_ns);

            if (st != BASE_PENDING) return st;
        } else if (comm_mpi_is_stopped(g)) {
            return comm_watch_stopped(g->group.ctx);
        } else if (waited_ns > comm_watch_limit_ns(g->group.ctx)) {
            return BASE_FAIL(g->group.ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                             "rank %d: channel %s, exchange %" PRIu64 ": not ready after %" PRId64
                             " ms, and %d are open",
                             g->group.rank, comm_channel_name(channel), slot->sequence,
                             waited_ns / 1000000, COMM_MAX_OPEN_EXCHANGES);
        }
        comm_mpi_sleep(g->process, &g->process->changed, POLL_NS);
    }
    return BASE_OK;
}

static void fill_slot(comm_mpi_slot_t *slot, const comm_exchange_t *ex, uint64_t sequence)
{
    slot->sequence = sequence;
    slot->phase = COMM_MPI_BEGUN;
    slot->tag = ex->tag;
    slot->name = ex->name;
    slot->num_links = 0;
    for (int i = 0; i < ex->num_peers; i++) {
        const comm_peer_t *p = &ex->peers[i];

        if (p->num_send == 0 && p->num_recv == 0) continue;
        slot->links[slot->num_links++] = (comm_mpi_link_t){.lists = *p};
    }
}

static base_status_t mpi_begin(comm_group_t *group, int channel, const comm_exchange_t *ex,
                               uint64_t *sequence_p)
{
    comm_mpi_group_t *g = (comm_mpi_group_t *)group;
    base_stream_t *stream = g->stream[channel];
    ready_args_t args = {.g = g};
    uint64_t sequence;
    base_status_t st;

    /* First, since it can refuse (an event that was never recorded), and the group is then as
     * before. */
    if (ex->ready != NULL) {
        /* Without a stream the rank is alone, and nothing waits. */
        st = stream != NULL ? base_stream_wait_event(stream, ex->ready)
                            : base_event_query(ex->ready);
        if (st < 0) return comm_mpi_outcome(g, st);
    }
    comm_mpi_enter(g->process);
    sequence = g->begun[channel] + 1;
    if (group->size == 1 && !comm_mpi_is_stopped(g)) { /* no peer: nothing to do, on any device */
        *sequence_p = g->begun[channel] = sequence;
        (void)pthread_mutex_unlock(&g->process->mutex);
        return BASE_OK;
    }
    args.slot = slot_of(g, channel, sequence);
    st = comm_mpi_is_stopped(g) ? comm_watch_stopped(group->ctx)
                                : wait_for_slot(g, channel, args.slot);
    if (st >= 0) {
        fill_slot(args.slot, ex, sequence);
        g->begun[channel] = sequence;
        if (g->headers_only) {
            args.slot->phase = COMM_MPI_READY;
            (void)pthread_cond_signal(&g->process->work);
        }
    }
    (void)pthread_mutex_unlock(&g->process->mutex);
    if (st < 0) return st;
    if (g->headers_only) {
        *sequence_p = sequence;
        return BASE_OK;
    }
    st = base_stream_submit(stream, ready_work, &args, sizeof args, NULL, 0);
    if (st < 0) return comm_mpi_outcome(g, st);
    *sequence_p = sequence;
    return BASE_OK;
}

/* ==== arrived, sent ==== */

typedef struct wait_args {
    comm_mpi_group_t *g;
    base_stream_t *stream;
    wait_point_t at;
} wait_args_t;

/* A wait that has ended, in the account of the stream: for the peer until its header came, then for
 * the data. */
static void account(const wait_args_t *a, int64_t start_ns, int64_t ready_ns)
{
    const base_trace_note_t note = comm_note(&a->at.tag, a->at.peer, 0);

    base_stream_waited(a->stream, &note, start_ns, ready_ns);
}

static base_status_t wait_work(void *args)
{
    const wait_args_t *a = args;
    const wait_point_t *w = &a->at;
    comm_mpi_group_t *g = a->g;
    comm_mpi_slot_t *slot = slot_of(g, w->channel, w->sequence);
    const int64_t start_ns = base_clock_ns();
    int64_t ready_ns = 0;
    int waited = 0;
    base_status_t st = BASE_PENDING;

    (void)pthread_mutex_lock(&g->process->mutex);
    while (st == BASE_PENDING) {
        const comm_mpi_link_t *link = slot->sequence == w->sequence ? link_of(slot, w->peer) : NULL;

        ready_ns = link != NULL ? link->ready_ns : 0;
        if (link == NULL || (w->what == NOTHING_CAME ? link->arrived : link->sent))
            st = BASE_OK;
        else
            st = look(g, w, base_clock_ns() - start_ns);
        if (st != BASE_PENDING) break;
        waited = 1;
        base_ctx_waits_for(g->group.ctx, w->peer);
        comm_mpi_sleep(g->process, &g->process->changed, POLL_NS);
    }
    (void)pthread_mutex_unlock(&g->process->mutex);
    base_ctx_waits_for(g->group.ctx, -1);
    if (waited && st >= 0) account(a, start_ns, ready_ns);
    return st;
}

/* Only the rank's own thread writes links and sequence, so it reads them without the mutex. */
static base_status_t wait_on(comm_mpi_group_t *g, comm_ticket_t ticket, int peer,
                             base_stream_t *stream, const char *what)
{
    comm_mpi_slot_t *slot = slot_of(g, ticket.channel, ticket.sequence);
    const wait_args_t args = {.g = g,
                              .stream = stream,
                              .at = {.channel = ticket.channel,
                                     .peer = peer,
                                     .sequence = ticket.sequence,
                                     .tag = slot->tag,
                                     .what = what}};
    const comm_mpi_link_t *link;

    if (slot->sequence != ticket.sequence) return BASE_OK; /* used again: it was complete */
    link = link_of(slot, peer);
    if (link == NULL || (what == NOTHING_CAME ? link->lists.num_recv : link->lists.num_send) == 0)
        return BASE_OK;
    return comm_mpi_outcome(g, base_stream_submit(stream, wait_work, &args, sizeof args, NULL, 0));
}

static base_status_t mpi_arrived(comm_group_t *group, comm_ticket_t ticket, int peer,
                                 base_stream_t *stream)
{
    return wait_on((comm_mpi_group_t *)group, ticket, peer, stream, NOTHING_CAME);
}

static base_status_t mpi_arrived_all(comm_group_t *group, comm_ticket_t ticket,
                                     base_stream_t *stream)
{
    for (int r = 0; r < group->size; r++)
        BASE_TRY(wait_on((comm_mpi_group_t *)group, ticket, r, stream, NOTHING_CAME));
    return BASE_OK;
}

static base_status_t mpi_sent(comm_group_t *group, comm_ticket_t ticket, base_stream_t *stream)
{
    for (int r = 0; r < group->size; r++)
        BASE_TRY(wait_on((comm_mpi_group_t *)group, ticket, r, stream, NOT_FETCHED));
    return BASE_OK;
}

/* ==== stop, end ==== */

static void mpi_stop(comm_group_t *group, const base_error_t *error)
{
    comm_mpi_group_t *g = (comm_mpi_group_t *)group;
    const int64_t start_ns = base_clock_ns();

    (void)pthread_mutex_lock(&g->process->mutex);
    if (error != NULL)
        comm_mpi_fail(g, error, COMM_MPI_CONCERNS_NONE);
    else
        (void)comm_mpi_forward(g, BASE_ERR_PEER, COMM_MPI_CONCERNS_NONE);
    while (!g->quiet && base_clock_ns() - start_ns < STOP_WAIT_NS)
        comm_mpi_sleep(g->process, &g->process->changed, POLL_NS);
    (void)pthread_mutex_unlock(&g->process->mutex);
}

base_status_t comm_mpi_check_complete(comm_mpi_group_t *g)
{
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        for (int i = 0; i < COMM_MAX_OPEN_EXCHANGES; i++) {
            comm_mpi_slot_t *slot = &g->slots[c][i];
            char tag[COMM_TEXT_BYTES];

            for (int k = 0; k < slot->num_links && slot->phase != COMM_MPI_COMPLETE; k++) {
                const comm_mpi_link_t *l = &slot->links[k];
                const int not_here = l->lists.num_recv > 0 && !l->arrived;

                if (!not_here && (l->lists.num_send == 0 || l->sent)) continue;
                comm_tag_text(&slot->tag, tag);
                return BASE_FAIL(g->group.ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                                 "rank %d: channel %s, exchange %" PRIu64
                                 " (%s): ended before it was complete: %s rank %d",
                                 g->group.rank, comm_channel_name(c), slot->sequence, tag,
                                 not_here ? NOTHING_CAME : NOT_FETCHED, l->lists.rank);
            }
        }
    return BASE_OK;
}

static void mpi_destroy(comm_group_t *group)
{
    comm_mpi_group_deinit((comm_mpi_group_t *)group);
}

const comm_ops_t comm_mpi_ops = {.name = "mpi",
                                 .begin = mpi_begin,
                                 .arrived = mpi_arrived,
                                 .arrived_all = mpi_arrived_all,
                                 .sent = mpi_sent,
                                 .barrier = comm_mpi_barrier,
                                 .allgather = comm_mpi_allgather,
                                 .bare = comm_mpi_bare,
                                 .stop = mpi_stop,
                                 .destroy = mpi_destroy};
