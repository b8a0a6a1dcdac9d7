/* The copy engine transport's operations, as the rank's own thread and streams call them. */
#include "comm/copy_engine_state.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "base/memory.h"
#include "comm/watch.h"

#include <inttypes.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#define POLL_NS      20000000
#define STOP_WAIT_NS INT64_C(1000000000)
#define GPU_SPIN_NS                                                                                \
    100000 /* for room, before a sleep: to be woken takes as long as a short exchange */

const char comm_copy_nothing_came[] = "nothing came from";
const char comm_copy_not_fetched[] = "its data was not fetched by";

static comm_copy_engine_t *engine_of(comm_group_t *group)
{
    return (comm_copy_engine_t *)((comm_mpi_group_t *)group)->carrier;
}

base_counter_t *comm_copy_arrival(comm_copy_engine_t *e, int channel, int lane, int peer)
{
    return e->arrived[channel][lane][peer];
}

base_counter_t *comm_copy_consumed_by(comm_copy_engine_t *e, int channel, int lane, int peer)
{
    return base_counter_bank_at(e->bank, comm_copy_consumed(e->g->group.size, channel, lane, peer));
}

/* ==== begin ==== */

static void sleep_until_changed(comm_copy_engine_t *e)
{
    const int64_t until = base_clock_ns() + POLL_NS;
    const struct timespec ts = {.tv_sec = (time_t)(until / 1000000000),
                                .tv_nsec = (long)(until % 1000000000)};

    (void)pthread_cond_timedwait(&e->changed, &e->mutex, &ts); /* callers look again */
}

/* Waits until the exchange that used the slot before is complete. The pump finds what keeps it open,
 * unless that is this rank itself. */
static base_status_t wait_for_slot(comm_copy_engine_t *e, int channel, comm_copy_slot_t *slot)
{
    base_ctx_t *ctx = e->g->group.ctx;
    const int64_t start_ns = base_clock_ns();
    base_status_t st = BASE_OK;

    if (slot->sequence == 0) return BASE_OK;
    while (!e->on_host && !__atomic_load_n(&slot->done, __ATOMIC_ACQUIRE) &&
           base_clock_ns() - start_ns < GPU_SPIN_NS)
        (void)sched_yield();
    if (__atomic_load_n(&slot->done, __ATOMIC_ACQUIRE)) return BASE_OK;
    (void)pthread_mutex_lock(&e->mutex);
    while (st >= 0 && !__atomic_load_n(&slot->done, __ATOMIC_ACQUIRE)) {
        const int64_t waited_ns = base_clock_ns() - start_ns;
        base_counter_t *ready = comm_copy_own_ready(e, channel, slot->sequence);

        if (comm_mpi_is_stopped(e->g))
            st = comm_watch_stopped(ctx);
        else if (waited_ns > comm_watch_limit_ns(ctx) && base_counter_value(ready) < slot->sequence)
            st = BASE_FAIL(ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                           "rank %d: channel %s, exchange %" PRIu64 ": not ready after %" PRId64
                           " ms, and %d are open",
                           e->g->group.rank, comm_channel_name(channel), slot->sequence,
                           waited_ns / 1000000, COMM_MAX_OPEN_EXCHANGES);
        else
            sleep_until_changed(e);
    }
    (void)pthread_mutex_unlock(&e->mutex);
    return st;
}

static void fill_slot(comm_copy_engine_t *e, comm_copy_slot_t *slot, const comm_exchange_t *ex,
                      uint64_t sequence)
{
    slot->sequence = sequence;
    slot->tag = ex->tag;
    slot->name = ex->name;
    slot->ready_ns = 0;
    slot->done = 0;
    slot->num_links = 0;
    for (int i = 0; i < ex->num_peers; i++) {
        const comm_peer_t *p = &ex->peers[i];

        if (!e->peers[p->rank].is_here || (p->num_send == 0 && p->num_recv == 0)) continue;
        slot->links[slot->num_links++] = (comm_copy_link_t){.lists = *p};
    }
}

/* By the bytes that were posted. */
static void choose_lanes(comm_copy_engine_t *e, int channel, comm_copy_slot_t *slot)
{
    const comm_copy_entry_t *entries =
        comm_copy_entries(comm_copy_posting(e->desk, e->g->group.size, channel, slot->sequence));

    for (int i = 0; i < slot->num_links; i++) {
        comm_copy_link_t *link = &slot->links[i];
        const comm_copy_entry_t *entry = &entries[link->lists.rank];

        link->in_lane = comm_copy_lane(slot->sequence, entry->recv.bytes);
        link->out_lane = comm_copy_lane(slot->sequence, entry->send.bytes);
    }
}

/* The exchange's place in the sequence, and the part of it that MPI carries. */
static base_status_t begin_remote(comm_copy_engine_t *e, int channel, const comm_exchange_t *ex,
                                  uint64_t *sequence_p)
{
    comm_mpi_group_t *g = e->g;
    comm_exchange_t part = *ex;

    if (!e->has_remote) {
        comm_mpi_enter(g->process);
        *sequence_p = ++g->begun[channel];
        (void)pthread_mutex_unlock(&g->process->mutex);
        return BASE_OK;
    }
    part.peers = e->remote;
    part.num_peers = 0;
    for (int i = 0; i < ex->num_peers; i++)
        if (!e->peers[ex->peers[i].rank].is_here) e->remote[part.num_peers++] = ex->peers[i];
    BASE_TRY(comm_group_give_event(&g->group, channel, &part));
    return comm_mpi_ops.begin(&g->group, channel, &part, sequence_p);
}

/* The exchange is ready when the stream in `ex`, or the one that waits for its event, has come here; without either it is
 * now, and nothing has to be given to the device. */
static base_status_t say_ready(comm_copy_engine_t *e, int channel, const comm_exchange_t *ex,
                               const comm_copy_slot_t *slot)
{
    base_counter_t *ready = comm_copy_own_ready(e, channel, slot->sequence);
    base_stream_t *stream = ex->after != NULL ? ex->after : e->post[channel];
    const int is_now = ex->after == NULL && ex->ready == NULL;

    if (is_now)
        base_counter_raise(ready, slot->sequence);
    else
        BASE_TRY(base_stream_signal(stream, ready, slot->sequence));
    for (int i = 0; i < slot->num_links; i++) {
        const int peer = slot->links[i].lists.rank;

        if (is_now)
            comm_copy_ring(e->peers[peer].desk);
        else
            BASE_TRY(comm_copy_ring_behind(e, stream, peer));
    }
    return BASE_OK;
}

static base_status_t copy_begin(comm_group_t *group, int channel, const comm_exchange_t *ex,
                                uint64_t *sequence_p)
{
    comm_copy_engine_t *e = engine_of(group);
    const uint64_t next = e->begun[channel] + 1;
    comm_copy_slot_t *slot = comm_copy_slot(e, channel, next);
    uint64_t sequence = 0;
    base_status_t st;

    /* First, since it can refuse (an event that was never recorded), and the group is then as
     * before. */
    if (ex->ready != NULL) {
        st = base_stream_wait_event(e->post[channel], ex->ready);
        if (st < 0) return comm_mpi_outcome(e->g, st);
    }
    if (comm_mpi_is_stopped(e->g)) return comm_watch_stopped(group->ctx);
    BASE_TRY(wait_for_slot(e, channel, slot));
    BASE_TRY(begin_remote(e, channel, ex, &sequence));
    fill_slot(e, slot, ex, sequence);
    BASE_TRY(comm_copy_post(e, channel, ex, sequence));
    choose_lanes(e, channel, slot);
    __atomic_store_n(&e->begun[channel], sequence, __ATOMIC_RELEASE);
    st = say_ready(e, channel, ex, slot);
    if (st < 0) return comm_mpi_outcome(e->g, st);
    comm_copy_ring(e->desk);
    *sequence_p = sequence;
    return BASE_OK;
}

/* ==== arrived, sent ==== */

enum { FOR_ARRIVED = 1, FOR_SENT = 2 };

/* Of one peer, or of all (-1). Only the rank's own thread writes what is read here. */
static base_status_t wait_on(comm_copy_engine_t *e, comm_ticket_t ticket, int peer,
                             base_stream_t *stream, int what)
{
    comm_copy_slot_t *slot = comm_copy_slot(e, ticket.channel, ticket.sequence);
    comm_mpi_wait_t waits[COMM_MPI_MAX_WAITS];
    int num = 0;

    if (slot->sequence != ticket.sequence) return BASE_OK; /* used again: it was complete */
    for (int i = 0; i < slot->num_links; i++) {
        const comm_copy_link_t *link = &slot->links[i];
        const comm_peer_t *p = &link->lists;
        comm_mpi_wait_t wait = {.value = ticket.sequence, .peer = p->rank, .tag = slot->tag};

        if (peer >= 0 && p->rank != peer) continue;
        if (num > COMM_MPI_MAX_WAITS - 2) {
            BASE_TRY(comm_mpi_wait_counters(e->g, stream, waits, num));
            num = 0;
        }
        if ((what & FOR_ARRIVED) != 0 && p->num_recv > 0) {
            wait.counter = comm_copy_arrival(e, ticket.channel, link->in_lane, p->rank);
            wait.ready_ns = comm_copy_ready_ns(e, ticket.channel, ticket.sequence, p->rank);
            waits[num++] = wait;
        }
        if ((what & FOR_SENT) != 0 && p->num_send > 0) {
            wait.counter = comm_copy_consumed_by(e, ticket.channel, link->out_lane, p->rank);
            wait.ready_ns = NULL;
            waits[num++] = wait;
        }
    }
    return comm_mpi_wait_counters(e->g, stream, waits, num);
}

static base_status_t copy_arrived(comm_group_t *group, comm_ticket_t ticket, int peer,
                                  base_stream_t *stream)
{
    comm_copy_engine_t *e = engine_of(group);

    if (e->has_remote && !e->peers[peer].is_here)
        return comm_mpi_ops.arrived(group, ticket, peer, stream);
    return wait_on(e, ticket, peer, stream, FOR_ARRIVED);
}

static base_status_t copy_arrived_all(comm_group_t *group, comm_ticket_t ticket,
                                      base_stream_t *stream)
{
    comm_copy_engine_t *e = engine_of(group);

    if (e->has_remote) BASE_TRY(comm_mpi_ops.arrived_all(group, ticket, stream));
    return wait_on(e, ticket, -1, stream, FOR_ARRIVED);
}

static base_status_t copy_sent(comm_group_t *group, comm_ticket_t ticket, base_stream_t *stream)
{
    comm_copy_engine_t *e = engine_of(group);

    if (e->has_remote) BASE_TRY(comm_mpi_ops.sent(group, ticket, stream));
    return wait_on(e, ticket, -1, stream, FOR_SENT);
}

static base_status_t copy_complete(comm_group_t *group, comm_ticket_t ticket, base_stream_t *stream)
{
    comm_copy_engine_t *e = engine_of(group);

    if (e->has_remote) {
        BASE_TRY(comm_mpi_ops.arrived_all(group, ticket, stream));
        BASE_TRY(comm_mpi_ops.sent(group, ticket, stream));
    }
    return wait_on(e, ticket, -1, stream, FOR_ARRIVED | FOR_SENT);
}

/* ==== bare ==== */

typedef struct offer {
    base_export_t buffer;
    int64_t offset;
} offer_t;

static base_status_t copy_bare(comm_group_t *group, const comm_bare_t *bare, int64_t *ns_p)
{
    comm_copy_engine_t *e = engine_of(group);
    offer_t mine = {.offset = bare->send.offset}, *all;
    base_buffer_t *theirs = NULL;
    base_status_t st;

    if (e->has_remote)
        return BASE_FAIL(group->ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                         "rank %d: bare copies between hosts", group->rank);
    all = base_calloc(group->ctx, group->size, sizeof *all, "bare copies");
    if (all == NULL) return BASE_ERR_NOMEM;
    BASE_TRY_GOTO(base_buffer_export(bare->send.buffer, &mine.buffer), st, out);
    BASE_TRY_GOTO(comm_mpi_allgather(group, &mine, sizeof mine, all), st, out);
    if (bare->from >= 0)
        BASE_TRY_GOTO(base_buffer_import(group->dev, &all[bare->from].buffer, "bare", &theirs), st,
                      out);
    st = comm_bare_copies(
        group, bare, theirs != NULL ? base_mem(theirs, all[bare->from].offset) : bare->recv, ns_p);
out:
    base_buffer_free(theirs);
    base_free(group->ctx, all);
    return st;
}

/* ==== stop, end ==== */

static void copy_stop(comm_group_t *group, const base_error_t *error)
{
    comm_copy_engine_t *e = engine_of(group);
    const int64_t start_ns = base_clock_ns();

    comm_mpi_ops.stop(group, error);
    comm_copy_ring(e->desk);
    (void)pthread_mutex_lock(&e->mutex);
    while (e->started && !e->parked && base_clock_ns() - start_ns < STOP_WAIT_NS)
        sleep_until_changed(e);
    (void)pthread_mutex_unlock(&e->mutex);
}

static void copy_destroy(comm_group_t *group)
{
    comm_mpi_ops.destroy(group);
}

static const comm_ops_t copy_ops = {.name = "copy_engine",
                                    .begin = copy_begin,
                                    .takes_after = 1,
                                    .arrived = copy_arrived,
                                    .arrived_all = copy_arrived_all,
                                    .sent = copy_sent,
                                    .complete = copy_complete,
                                    .barrier = comm_mpi_barrier,
                                    .allgather = comm_mpi_allgather,
                                    .bare = copy_bare,
                                    .stop = copy_stop,
                                    .destroy = copy_destroy};

static base_status_t check_complete(comm_carrier_t *carrier)
{
    comm_copy_engine_t *e = (comm_copy_engine_t *)carrier;

    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        for (int i = 0; i < COMM_MAX_OPEN_EXCHANGES; i++) {
            const comm_copy_slot_t *slot = &e->slots[c][i];
            char tag[COMM_TEXT_BYTES];

            for (int k = 0; k < slot->num_links; k++) {
                const comm_copy_link_t *link = &slot->links[k];
                const comm_peer_t *p = &link->lists;
                const int not_here =
                    p->num_recv > 0 &&
                    base_counter_value(comm_copy_arrival(e, c, link->in_lane, p->rank)) <
                        slot->sequence;
                const int not_sent =
                    p->num_send > 0 &&
                    base_counter_value(comm_copy_consumed_by(e, c, link->out_lane, p->rank)) <
                        slot->sequence;

                if (!not_here && !not_sent) continue;
                comm_tag_text(&slot->tag, tag);
                return BASE_FAIL(e->g->group.ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                                 "rank %d: channel %s, exchange %" PRIu64
                                 " (%s): ended before it was complete: %s rank %d",
                                 e->g->group.rank, comm_channel_name(c), slot->sequence, tag,
                                 not_here ? comm_copy_nothing_came : comm_copy_not_fetched,
                                 p->rank);
            }
        }
    return BASE_OK;
}

static void end(comm_carrier_t *carrier)
{
    comm_copy_engine_t *e = (comm_copy_engine_t *)carrier;

    comm_copy_pump_end(e);
    for (int c = 0; c < COMM_NUM_CHANNELS; c++) {
        for (int l = 0; l < COMM_COPY_LANES; l++) {
            base_stream_destroy(e->pull[c][l]);
            e->pull[c][l] = NULL;
        }
        base_stream_destroy(e->post[c]);
        e->post[c] = NULL;
    }
    comm_copy_disconnect(e);
}

static void destroy(comm_carrier_t *carrier)
{
    comm_copy_engine_t *e = (comm_copy_engine_t *)carrier;
    base_ctx_t *ctx = e->g->group.ctx;

    comm_copy_deinit(e);
    if (e->has_sync) {
        (void)pthread_cond_destroy(&e->changed);
        (void)pthread_mutex_destroy(&e->mutex);
    }
    base_free(ctx, e);
}

static int init_sync(comm_copy_engine_t *e)
{
    pthread_condattr_t attr;

    if (pthread_condattr_init(&attr) != 0) return 0;
    e->has_sync = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 &&
                  pthread_mutex_init(&e->mutex, NULL) == 0 &&
                  pthread_cond_init(&e->changed, &attr) == 0;
    (void)pthread_condattr_destroy(&attr);
    return e->has_sync;
}

base_status_t comm_copy_engine_open(comm_mpi_group_t *g)
{
    base_ctx_t *ctx = g->group.ctx;
    comm_copy_engine_t *e = base_calloc(ctx, 1, sizeof *e, "copy engines");
    base_status_t st;

    if (e == NULL) return comm_mpi_agree(g, BASE_ERR_NOMEM);
    e->carrier = (comm_carrier_t){
        .ops = &copy_ops, .check_complete = check_complete, .end = end, .destroy = destroy};
    e->g = g;
    if (!init_sync(e)) {
        base_free(ctx, e);
        return comm_mpi_agree(g, BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                                           "rank %d: copy engines: no mutex", g->group.rank));
    }
    st = comm_mpi_agree(g, comm_copy_init(e, g));
    if (st >= 0) st = comm_copy_connect(e);
    if (st >= 0) st = comm_copy_check(e);
    if (st >= 0) st = comm_mpi_agree(g, comm_copy_pump_start(e));
    if (st < 0) {
        comm_copy_pump_end(e);
        destroy(&e->carrier);
        return st;
    }
    g->carrier = &e->carrier;
    g->group.ops = &copy_ops;
    return BASE_OK;
}
