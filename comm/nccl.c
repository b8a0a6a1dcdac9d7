/* The NCCL transport's operations, as the rank's own thread calls them. */
#include "comm/nccl_state.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "base/memory.h"
#include "comm/watch.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>

#define WAIT_SLICE_MS 20
#define POLL_NS       20000000
#define STOP_WAIT_NS  INT64_C(1000000000)
#define GPU_SPIN_NS                                                                                \
    100000 /* for room, before a sleep: that takes as long as several short exchanges */

static const char WHAT[] = "NCCL transport";

static comm_nccl_t *nccl_of(comm_group_t *group)
{
    return (comm_nccl_t *)((comm_mpi_group_t *)group)->carrier;
}

/* ==== begin ==== */

/* Waits until the exchange that used the slot before is complete. The pump finds what keeps it open,
 * unless that is this rank itself. */
static base_status_t wait_for_slot(comm_nccl_t *n, int channel, const comm_nccl_slot_t *slot)
{
    comm_nccl_channel_t *c = &n->channels[channel];
    base_ctx_t *ctx = n->g->group.ctx;
    const int64_t start_ns = base_clock_ns();
    base_status_t st = BASE_PENDING;

    if (slot->sequence == 0) return BASE_OK;
    while (base_device_kind(n->g->group.dev) == BASE_DEVICE_CUDA &&
           base_counter_value(c->done) < slot->sequence && base_clock_ns() - start_ns < GPU_SPIN_NS)
        (void)sched_yield();
    while (st == BASE_PENDING) {
        const int64_t waited_ns = base_clock_ns() - start_ns;

        st = base_counter_wait_host(ctx, c->done, slot->sequence, WAIT_SLICE_MS);
        if (comm_mpi_is_stopped(n->g)) return comm_watch_stopped(ctx);
        if (st == BASE_PENDING && waited_ns > comm_watch_limit_ns(ctx) &&
            base_counter_value(comm_nccl_ready(c, slot->sequence)) < slot->sequence)
            st = BASE_FAIL(ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                           "rank %d: channel %s, exchange %" PRIu64 ": not ready after %" PRId64
                           " ms, and %d are open",
                           n->g->group.rank, comm_channel_name(channel), slot->sequence,
                           waited_ns / 1000000, COMM_MAX_OPEN_EXCHANGES);
    }
    return st;
}

static void fill_slot(comm_nccl_slot_t *slot, const comm_exchange_t *ex, uint64_t sequence)
{
    slot->sequence = sequence;
    slot->tag = ex->tag;
    slot->independent = ex->independent;
    slot->begun_ns = base_clock_ns();
    slot->num_peers = 0;
    for (int i = 0; i < ex->num_peers; i++)
        if (ex->peers[i].num_send > 0 || ex->peers[i].num_recv > 0)
            slot->peers[slot->num_peers++] = ex->peers[i];
}

/* As copy engines do. */
static base_status_t say_ready(comm_nccl_channel_t *c, const comm_exchange_t *ex, uint64_t sequence)
{
    base_counter_t *ready = comm_nccl_ready(c, sequence);

    if (ex->after != NULL) return base_stream_signal(ex->after, ready, sequence);
    if (ex->ready != NULL) return base_stream_signal(c->post, ready, sequence);
    base_counter_raise(ready, sequence);
    return BASE_OK;
}

static base_status_t nccl_begin(comm_group_t *group, int channel, const comm_exchange_t *ex,
                                uint64_t *sequence_p)
{
    comm_nccl_t *n = nccl_of(group);
    comm_nccl_channel_t *c = &n->channels[channel];
    comm_nccl_slot_t *slot = comm_nccl_slot(c, c->begun + 1);
    comm_exchange_t headers = *ex;
    uint64_t sequence = 0;
    base_status_t st;

    /* First, since it can refuse (an event that was never recorded), and the group is then as
     * before. */
    if (ex->ready != NULL) {
        st = base_stream_wait_event(c->post, ex->ready);
        if (st < 0) return comm_mpi_outcome(n->g, st);
    }
    if (comm_mpi_is_stopped(n->g)) return comm_watch_stopped(group->ctx);
    BASE_TRY(wait_for_slot(n, channel, slot));
    headers.ready = NULL;
    headers.after = NULL;
    BASE_TRY(comm_mpi_ops.begin(group, channel, &headers, &sequence));
    fill_slot(slot, ex, sequence);
    st = say_ready(c, ex, sequence);
    if (st < 0) return comm_mpi_outcome(n->g, st);
    __atomic_store_n(&c->begun, sequence, __ATOMIC_SEQ_CST);
    comm_nccl_pump_wake(n);
    *sequence_p = sequence;
    return BASE_OK;
}

/* ==== arrived, sent: of all peers at once ==== */

enum { FOR_ARRIVED = 1, FOR_SENT = 2 };

/* Whether any peer, or the one, sends or receives in this exchange. A slot that was used again belongs
 * to a later exchange: the ticket's is complete. */
static int moves_anything(const comm_nccl_slot_t *slot, uint64_t sequence, int peer, int what)
{
    for (int i = 0; slot->sequence == sequence && i < slot->num_peers; i++) {
        const comm_peer_t *p = &slot->peers[i];

        if (peer >= 0 && p->rank != peer) continue;
        if ((what & FOR_ARRIVED) != 0 && p->num_recv > 0) return 1;
        if ((what & FOR_SENT) != 0 && p->num_send > 0) return 1;
    }
    return 0;
}

static base_status_t wait_on(comm_group_t *group, comm_ticket_t ticket, int peer,
                             base_stream_t *stream, int what)
{
    comm_nccl_t *n = nccl_of(group);
    comm_nccl_channel_t *c = &n->channels[ticket.channel];
    const comm_nccl_slot_t *slot = comm_nccl_slot(c, ticket.sequence);
    const comm_mpi_wait_t wait = {
        .counter = c->done, .value = ticket.sequence, .peer = peer, .tag = slot->tag};

    if (!moves_anything(slot, ticket.sequence, peer, what)) return BASE_OK;
    return comm_mpi_wait_counters(n->g, stream, &wait, 1);
}

static base_status_t nccl_arrived(comm_group_t *group, comm_ticket_t ticket, int peer,
                                  base_stream_t *stream)
{
    return wait_on(group, ticket, peer, stream, FOR_ARRIVED);
}

static base_status_t nccl_arrived_all(comm_group_t *group, comm_ticket_t ticket,
                                      base_stream_t *stream)
{
    return wait_on(group, ticket, -1, stream, FOR_ARRIVED);
}

static base_status_t nccl_sent(comm_group_t *group, comm_ticket_t ticket, base_stream_t *stream)
{
    return wait_on(group, ticket, -1, stream, FOR_SENT);
}

static base_status_t nccl_complete(comm_group_t *group, comm_ticket_t ticket, base_stream_t *stream)
{
    return wait_on(group, ticket, -1, stream, FOR_ARRIVED | FOR_SENT);
}

/* ==== bare ==== */

/* No exchange is open, so the pump leaves link and stream alone. */
static base_status_t nccl_bare(comm_group_t *group, const comm_bare_t *bare, int64_t *ns_p)
{
    comm_nccl_channel_t *c = &nccl_of(group)->channels[COMM_CHANNEL_PING];
    base_status_t st = BASE_OK;

    BASE_TRY(comm_mpi_barrier(group));
    const int64_t start_ns = base_clock_ns();
    for (int i = 0; i < bare->repeat && st >= 0; i++) {
        const int64_t at = i % bare->depth * bare->bytes;
        comm_nccl_piece_t pieces[2];
        int num = 0;

        if (bare->to >= 0)
            pieces[num++] =
                (comm_nccl_piece_t){bare->to, 1, base_mem_at(bare->send, at), bare->bytes};
        if (bare->from >= 0)
            pieces[num++] =
                (comm_nccl_piece_t){bare->from, 0, base_mem_at(bare->recv, at), bare->bytes};
        st = comm_nccl_link_move(c->link, c->move, pieces, num);
        if (st >= 0 && bare->told > 0 && (i + 1) % bare->told == 0)
            st = base_stream_signal(c->move, c->told, ++c->num_told);
    }
    if (st >= 0) st = base_stream_sync(c->move);
    *ns_p = base_clock_ns() - start_ns;
    return st < 0 ? st : comm_mpi_barrier(group);
}

/* ==== stop, end ==== */

static void nccl_stop(comm_group_t *group, const base_error_t *error)
{
    comm_nccl_t *n = nccl_of(group);
    const int64_t start_ns = base_clock_ns();

    comm_mpi_ops.stop(group, error);
    (void)pthread_mutex_lock(&n->g->process->mutex);
    while (n->started && !n->parked && base_clock_ns() - start_ns < STOP_WAIT_NS)
        comm_mpi_sleep(n->g->process, &n->g->process->changed, POLL_NS);
    (void)pthread_mutex_unlock(&n->g->process->mutex);
}

static void nccl_destroy(comm_group_t *group)
{
    comm_mpi_ops.destroy(group);
}

static const comm_ops_t nccl_ops = {.name = "nccl",
                                    .begin = nccl_begin,
                                    .takes_after = 1,
                                    .arrived = nccl_arrived,
                                    .arrived_all = nccl_arrived_all,
                                    .sent = nccl_sent,
                                    .complete = nccl_complete,
                                    .barrier = comm_mpi_barrier,
                                    .allgather = comm_mpi_allgather,
                                    .bare = nccl_bare,
                                    .stop = nccl_stop,
                                    .destroy = nccl_destroy};

static base_status_t check_complete(comm_carrier_t *carrier)
{
    comm_nccl_t *n = (comm_nccl_t *)carrier;

    for (int i = 0; i < COMM_NUM_CHANNELS; i++)
        for (int k = 0; k < COMM_MAX_OPEN_EXCHANGES; k++) {
            const comm_nccl_slot_t *slot = &n->channels[i].slots[k];
            char tag[COMM_TEXT_BYTES];

            if (slot->num_peers == 0 || base_counter_value(n->channels[i].done) >= slot->sequence)
                continue;
            comm_tag_text(&slot->tag, tag);
            return BASE_FAIL(
                n->g->group.ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                "rank %d: channel %s, exchange %" PRIu64
                " (%s): ended before it was complete: rank %d or another one is not done "
                "with it",
                n->g->group.rank, comm_channel_name(i), slot->sequence, tag, slot->peers[0].rank);
        }
    return BASE_OK;
}

static void end(comm_carrier_t *carrier)
{
    comm_nccl_t *n = (comm_nccl_t *)carrier;

    comm_nccl_pump_end(n);
    for (int i = 0; i < COMM_NUM_CHANNELS; i++) {
        comm_nccl_channel_t *c = &n->channels[i];

        if (comm_mpi_is_stopped(n->g)) comm_nccl_link_abort(c->link);
        base_stream_destroy(c->post);
        base_stream_destroy(c->move);
        c->post = c->move = NULL;
        comm_nccl_link_close(c->link);
        c->link = NULL;
    }
}

static void free_staging(comm_nccl_staging_t *staging)
{
    for (int i = 0; i < staging->num_outgrown; i++)
        base_buffer_free(staging->outgrown[i]);
    base_buffer_free(staging->buffer);
}

static void free_greeting(base_ctx_t *ctx, comm_nccl_greeting_t *greeting)
{
    base_buffer_free(greeting->buffer);
    base_free(ctx, greeting->heard);
    *greeting = (comm_nccl_greeting_t){0};
}

static void destroy(comm_carrier_t *carrier)
{
    comm_nccl_t *n = (comm_nccl_t *)carrier;
    base_ctx_t *ctx = n->g->group.ctx;

    end(carrier);
    for (int i = 0; i < COMM_NUM_CHANNELS; i++) {
        comm_nccl_channel_t *c = &n->channels[i];

        for (int k = 0; k < COMM_MAX_OPEN_EXCHANGES; k++)
            base_free(ctx, c->slots[k].peers);
        free_staging(&c->in);
        free_staging(&c->out);
        free_greeting(ctx, &c->greeting);
        base_event_destroy(c->given);
        base_counter_destroy(c->done);
        base_counter_destroy(c->told);
        for (int k = 0; k < COMM_MAX_OPEN_EXCHANGES; k++)
            base_counter_destroy(c->ready[k]);
    }
    base_free(ctx, n->pieces);
    base_free(ctx, n);
}

/* ==== open ==== */

static base_status_t prepare_greeting(comm_nccl_t *n, comm_nccl_channel_t *c)
{
    comm_group_t *group = &n->g->group;
    comm_nccl_greeting_t *greeting = &c->greeting;
    const int size = group->size;

    greeting->heard = base_calloc(group->ctx, size, 1, WHAT);
    if (greeting->heard == NULL) return BASE_ERR_NOMEM;
    BASE_TRY(base_buffer_alloc(group->dev, BASE_MEMORY_DEVICE, size + 1, "NCCL greeting",
                               &greeting->buffer));
    const base_range_t all = {
        .mem = base_mem(greeting->buffer, 0), .row_bytes = size + 1, .rows = 1, .pitch = size + 1};
    return base_fill(c->move, &all, (uint8_t)(group->rank + 1));
}

/* One byte from everyone to everyone. NCCL connects two ranks when they first exchange something, which takes
 * the hosts of both at the same time: later the pump of one could be at the first exchange of ping and that
 * of the other at pong's, for ever. And it shows that data arrives. */
static base_status_t greet(comm_nccl_t *n, comm_nccl_channel_t *c)
{
    comm_group_t *group = &n->g->group;
    const comm_nccl_greeting_t *greeting = &c->greeting;
    const int size = group->size, me = group->rank;
    int num = 0;

    for (int r = 0; r < size; r++) {
        if (r == me) continue;
        n->pieces[num++] = (comm_nccl_piece_t){r, 1, base_mem(greeting->buffer, size), 1};
        n->pieces[num++] = (comm_nccl_piece_t){r, 0, base_mem(greeting->buffer, r), 1};
    }
    BASE_TRY(comm_nccl_link_move(c->link, c->move, n->pieces, num));
    BASE_TRY(base_download(c->move, greeting->heard, base_mem(greeting->buffer, 0), size));
    BASE_TRY(base_stream_sync(c->move));
    for (int r = 0; r < size; r++)
        if (greeting->heard[r] != (uint8_t)(r + 1))
            return BASE_FAIL(group->ctx, BASE_ERR_COMM, BASE_MSG_COMM_04,
                             "rank %d: NCCL brought %d from rank %d, which sent %d", me,
                             greeting->heard[r], r, r + 1);
    return BASE_OK;
}

/* Behind a check that all ranks have come so far: connecting has no deadline. */
static base_status_t meet(comm_nccl_t *n, comm_nccl_channel_t *c, base_status_t opened)
{
    base_status_t st = opened;

    if (st >= 0) st = prepare_greeting(n, c);
    st = comm_mpi_agree(n->g, st);
    if (st >= 0) st = greet(n, c);
    if (st >= 0) free_greeting(n->g->group.ctx, &c->greeting);
    return st;
}

static base_status_t open_channel(comm_nccl_t *n, int number, const comm_nccl_id_t *id)
{
    comm_nccl_channel_t *c = &n->channels[number];
    comm_group_t *group = &n->g->group;
    char name[48];

    for (int k = 0; k < COMM_MAX_OPEN_EXCHANGES; k++) {
        c->slots[k].peers = base_calloc(group->ctx, group->size - 1, sizeof(comm_peer_t), WHAT);
        if (c->slots[k].peers == NULL) return BASE_ERR_NOMEM;
        BASE_TRY(base_counter_create(group->dev, &c->ready[k]));
    }
    BASE_TRY(base_buffer_alloc(group->dev, BASE_MEMORY_DEVICE, COMM_NCCL_STAGING_BYTES,
                               "NCCL staging", &c->in.buffer));
    BASE_TRY(base_buffer_alloc(group->dev, BASE_MEMORY_DEVICE, COMM_NCCL_STAGING_BYTES,
                               "NCCL staging", &c->out.buffer));
    BASE_TRY(base_counter_create(group->dev, &c->done));
    BASE_TRY(base_counter_create(group->dev, &c->told));
    BASE_TRY(base_event_create(group->dev, &c->given));
    (void)snprintf(name, sizeof name, "post %s", comm_channel_name(number));
    BASE_TRY(base_stream_create(group->dev, BASE_STREAM_ASYNC, name, &c->post));
    (void)snprintf(name, sizeof name, "nccl %s", comm_channel_name(number));
    BASE_TRY(base_stream_create(group->dev, BASE_STREAM_ASYNC, name, &c->move));
    return comm_nccl_link_open(group->dev, group->rank, group->size, id, COMM_NCCL_DIRECT,
                               &c->link);
}

/* The others are in NCCL by now, where they wait for this rank and agree on nothing: only a stop reaches them. */
static base_status_t give_up(comm_nccl_t *n, base_status_t st)
{
    return comm_mpi_give_up(n->g, st, COMM_MPI_CONCERNS_NONE);
}

static base_status_t open_as_met(comm_nccl_t *n, comm_nccl_channel_t *c)
{
    comm_group_t *group = &n->g->group;
    comm_nccl_id_t mine = {0};
    comm_nccl_id_t *all = base_calloc(group->ctx, group->size, sizeof mine, WHAT);
    base_status_t st = BASE_OK;

    if (all == NULL) return give_up(n, BASE_ERR_NOMEM);
    comm_nccl_link_abort(c->link);
    comm_nccl_link_close(c->link);
    c->link = NULL;
    if (group->rank == 0) st = comm_nccl_link_id(group->ctx, &mine);
    st = comm_mpi_agree(n->g, st);
    if (st >= 0) st = comm_mpi_allgather(group, &mine, sizeof mine, all);
    if (st >= 0)
        st = comm_nccl_link_open(group->dev, group->rank, group->size, &all[0], COMM_NCCL_AS_MET,
                                 &c->link);
    base_free(group->ctx, all);
    return st < 0 ? give_up(n, st) : st;
}

/* All ranks exchange by the same way: when any has no direct link, none uses its own. */
static base_status_t open_for_all(comm_nccl_t *n, int number, const comm_nccl_id_t *id)
{
    base_status_t st = open_channel(n, number, id);

    if (st < 0) return give_up(n, st);
    st = comm_mpi_agree(n->g, st);
    return st == BASE_PENDING ? open_as_met(n, &n->channels[number]) : st;
}

static base_status_t open_links(comm_nccl_t *n)
{
    comm_group_t *group = &n->g->group;
    comm_nccl_id_t mine[COMM_NUM_CHANNELS] = {0};
    comm_nccl_id_t *all = base_calloc(group->ctx, group->size, sizeof mine, WHAT);
    base_status_t st = BASE_OK;

    if (all == NULL) return BASE_ERR_NOMEM;
    for (int i = 0; i < COMM_NUM_CHANNELS && group->rank == 0 && st >= 0; i++)
        st = comm_nccl_link_id(group->ctx, &mine[i]);
    if (st >= 0) st = comm_mpi_allgather(group, mine, sizeof mine, all);
    for (int i = 0; i < COMM_NUM_CHANNELS && st >= 0; i++)
        st = meet(n, &n->channels[i], open_for_all(n, i, &all[i]));
    base_free(group->ctx, all);
    return st < 0 ? st : comm_mpi_barrier(group);
}

base_status_t comm_nccl_open(comm_mpi_group_t *g)
{
    base_ctx_t *ctx = g->group.ctx;
    comm_nccl_t *n = base_calloc(ctx, 1, sizeof *n, WHAT);
    base_status_t st;

    if (n == NULL) return BASE_ERR_NOMEM;
    n->carrier = (comm_carrier_t){
        .ops = &nccl_ops, .check_complete = check_complete, .end = end, .destroy = destroy};
    n->g = g;
    n->pieces_room = 64 * g->group.size; /* of an exchange; grows */
    n->pieces = base_calloc(ctx, n->pieces_room, sizeof *n->pieces, WHAT);
    st = n->pieces == NULL ? BASE_ERR_NOMEM : open_links(n);
    if (st >= 0) st = comm_nccl_pump_start(n);
    if (st < 0) {
        for (int i = 0; i < COMM_NUM_CHANNELS;
             i++) /* not all have come: nothing to be waited for */
            comm_nccl_link_abort(n->channels[i].link);
        destroy(&n->carrier);
        return st;
    }
    (void)pthread_mutex_lock(&g->process->mutex); /* the progress thread looks at it */
    g->headers_only = 1;
    (void)pthread_mutex_unlock(&g->process->mutex);
    g->carrier = &n->carrier;
    g->group.ops = &nccl_ops;
    return BASE_OK;
}
