/* The pump of the copy engine transport: compares lists, gives copies to the pull streams, and finds
 * what is late or wrong. */
#include "comm/copy_engine_state.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "base/memory.h"
#include "comm/watch.h"

#include <inttypes.h>
#include <sched.h>
#include <sys/prctl.h>

/* Sleeps between two looks while something is open: short after something moved. Whatever a process
 * does by itself rings the bell; a GPU rings none, so with one the pump looks without a pause for a
 * while, and then often. */
#define SLEEP_MIN_NS     20000
#define SLEEP_MAX_NS     1000000
#define GPU_SPIN_NS      100000
#define GPU_SLEEP_MAX_NS 20000
#define IDLE_NS          20000000            /* nothing is open */
#define DRAIN_NS         INT64_C(1000000000) /* for copies that run when the group stops */
/* Nothing is late before. To look takes the mutex that the rank's thread needs to begin the next exchange. */
#define PATIENCE_NS 1000000

typedef struct position {
    comm_copy_engine_t *e;
    int channel;
    comm_copy_slot_t *slot;
    comm_copy_link_t *link;
    int peer;
} position_t;

/* ==== failure ==== */

static base_status_t fail_mismatch(const position_t *at, const char *what)
{
    comm_copy_engine_t *e = at->e;
    const base_status_t st =
        BASE_FAIL(e->g->group.ctx, BASE_ERR_MISMATCH, BASE_MSG_COMM_03,
                  "rank %d: channel %s, exchange %" PRIu64 ": %s", e->g->group.rank,
                  comm_channel_name(at->channel), at->slot->sequence, what);

    return comm_mpi_give_up(e->g, st, at->peer);
}

static int peer_has_begun(const position_t *at)
{
    const comm_copy_desk_t *desk = at->e->peers[at->peer].desk;

    return __atomic_load_n(&desk->begun[at->channel], __ATOMIC_ACQUIRE) >= at->slot->sequence;
}

static int peer_is_ready(const position_t *at)
{
    base_counter_t *ready = base_counter_bank_at(at->e->peers[at->peer].bank,
                                                 comm_copy_ready(at->channel, at->slot->sequence));

    return base_counter_value(ready) >= at->slot->sequence;
}

static int peer_has_left(const position_t *at)
{
    comm_mpi_group_t *g = at->e->g;

    (void)pthread_mutex_lock(&g->process->mutex);
    const comm_mpi_note_t *ended = &g->ended[at->peer];
    const int left = ended->magic != 0 && ended->begun[at->channel] < at->slot->sequence;
    (void)pthread_mutex_unlock(&g->process->mutex);
    return left;
}

/* A link that waits for its peer: for how long yet? */
static base_status_t check_late(const position_t *at, int64_t now)
{
    comm_copy_engine_t *e = at->e;
    base_ctx_t *ctx = e->g->group.ctx;
    const int64_t moved_ns = e->moved_ns[at->channel];
    const int64_t since_ns = at->slot->ready_ns > moved_ns ? at->slot->ready_ns : moved_ns;
    const int waits_for_data = at->link->lists.num_recv > 0 && !at->link->arrived;
    const char *what = waits_for_data ? comm_copy_nothing_came : comm_copy_not_fetched;
    char tag[COMM_TEXT_BYTES];

    if (now - since_ns < PATIENCE_NS) return BASE_OK;
    const int has_left = peer_has_left(at);
    if (!has_left && now - since_ns <= comm_watch_limit_ns(ctx) + e->g->delay_ns) return BASE_OK;
    comm_tag_text(&at->slot->tag, tag);
    if (has_left)
        return comm_mpi_give_up(e->g,
                                BASE_FAIL(ctx, BASE_ERR_PEER, BASE_MSG_COMM_01,
                                          "rank %d: channel %s, exchange %" PRIu64
                                          " (%s): %s rank %d: it has ended without beginning it",
                                          e->g->group.rank, comm_channel_name(at->channel),
                                          at->slot->sequence, tag, what, at->peer),
                                COMM_MPI_CONCERNS_NONE);
    return comm_mpi_give_up(
        e->g,
        BASE_FAIL(ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                  "rank %d: channel %s, exchange %" PRIu64 " (%s): %s rank %d in %" PRId64
                  " ms: %s",
                  e->g->group.rank, comm_channel_name(at->channel), at->slot->sequence, tag, what,
                  at->peer, (now - since_ns) / 1000000,
                  !peer_has_begun(at)  ? "it has not begun it"
                  : !peer_is_ready(at) ? "it has begun it, but its data is not ready"
                                       : "it has begun it, and the data is on its way"),
        COMM_MPI_CONCERNS_NONE);
}

/* ==== comparing ==== */

/* This rank's own lists as posted: the caller may have its lists back, when the peer was faster. */
static const comm_copy_entry_t *posted_to(const position_t *at)
{
    comm_copy_engine_t *e = at->e;

    return &comm_copy_entries(
        comm_copy_posting(e->desk, e->g->group.size, at->channel, at->slot->sequence))[at->peer];
}

/* What the peer lists for this rank, if its posting is there yet: else 0, and nothing is listed. */
static int read_entry(const position_t *at, comm_copy_entry_t *entry, comm_tag_t *tag)
{
    const int size = at->e->g->group.size;
    comm_copy_posting_t *posting =
        comm_copy_posting(at->e->peers[at->peer].desk, size, at->channel, at->slot->sequence);

    if (__atomic_load_n(&posting->sequence, __ATOMIC_ACQUIRE) == at->slot->sequence) {
        const comm_copy_entry_t *theirs = &comm_copy_entries(posting)[at->e->g->group.rank];

        comm_copy_list(&entry->send, &theirs->send);
        comm_copy_list(&entry->recv, &theirs->recv);
        *tag = posting->tag;
        /* Still the same, after all of it was read: an addition, since a load lets earlier ones
         * pass. */
        if (__atomic_fetch_add(&posting->sequence, 0, __ATOMIC_ACQ_REL) == at->slot->sequence)
            return 1;
    }
    entry->send = entry->recv = (comm_list_t){0};
    *tag = at->slot->tag;
    return 0;
}

static base_status_t compare(const position_t *at)
{
    const comm_copy_entry_t *mine = posted_to(at);
    const int me = at->e->g->group.rank;
    comm_tag_t tag;
    comm_copy_entry_t entry;
    const int is_there = read_entry(at, &entry, &tag);
    const comm_way_t out = {.sender = me,
                            .receiver = at->peer,
                            .sender_tag = &at->slot->tag,
                            .receiver_tag = &tag,
                            .send = &mine->send,
                            .recv = &entry.recv};
    const comm_way_t in = {.sender = at->peer,
                           .receiver = me,
                           .sender_tag = &tag,
                           .receiver_tag = &at->slot->tag,
                           .send = &entry.send,
                           .recv = &mine->recv};
    char text[768];

    /* It has used the posting again, for an exchange that lies further on. What it had to send to this
     * rank it would have kept until it was read. But a peer that only receives may be done before this
     * rank looks: it has compared, or it would not have read. (Its stream raises CONSUMED before it
     * can know that the exchange is complete.) */
    if (!is_there && at->link->lists.num_recv == 0 &&
        base_counter_value(comm_copy_consumed_by(at->e, at->channel, at->link->out_lane,
                                                 at->peer)) >= at->slot->sequence) {
        at->link->compared = 1;
        return BASE_OK;
    }
    if (comm_way_disagrees(&out, text, sizeof text) || comm_way_disagrees(&in, text, sizeof text))
        return fail_mismatch(at, text);
    at->link->compared = 1;
    return BASE_OK;
}

/* ==== copying ==== */

typedef struct ring_args {
    comm_copy_desk_t *desks[2];
} ring_args_t;

static base_status_t ring_work(void *args)
{
    const ring_args_t *a = args;

    for (int i = 0; i < 2; i++)
        comm_copy_ring(a->desks[i]);
    return BASE_OK;
}

base_status_t comm_copy_ring_behind(comm_copy_engine_t *e, base_stream_t *stream, int peer)
{
    const ring_args_t args = {.desks = {e->desk, e->peers[peer].desk}};

    return e->on_host ? base_stream_submit(stream, ring_work, &args, sizeof args, NULL, 0)
                      : BASE_OK;
}

static base_status_t give_copies(const position_t *at, base_stream_t *stream)
{
    comm_copy_engine_t *e = at->e;
    const int size = e->g->group.size;
    comm_copy_posting_t *posting =
        comm_copy_posting(e->peers[at->peer].desk, size, at->channel, at->slot->sequence);
    const comm_copy_range_t *from =
        comm_copy_ranges(posting, size) + comm_copy_entries(posting)[e->g->group.rank].first;
    const comm_peer_t *mine = &at->link->lists;

    for (int i = 0; i < mine->num_recv; i++) {
        base_range_t src = {
            .row_bytes = from[i].row_bytes, .rows = from[i].rows, .pitch = from[i].pitch};

        if (from[i].buffer < 0) continue; /* empty on both sides: they were compared */
        BASE_TRY(comm_copy_import(e, at->peer, from[i].buffer, &src.mem.buffer));
        src.mem.offset = from[i].offset;
        BASE_TRY(base_copy(stream, &mine->recv[i], &src));
    }
    return BASE_OK;
}

/* Gives the counters that a lane owes. */
static base_status_t settle(comm_copy_engine_t *e, int c, int lane)
{
    comm_copy_debt_t *debt = &e->debts[c][lane];
    base_stream_t *stream = e->pull[c][lane];
    const int peer = debt->peer;
    const int consumed = comm_copy_consumed(e->g->group.size, c, lane, e->g->group.rank);

    if (debt->owed.last == 0) return BASE_OK;
    debt->told = debt->owed.last;
    debt->here = comm_copy_arrival(e, c, lane, peer);
    debt->owed = (comm_share_t){0};
    const base_signal_t signals[] = {
        /* First: compare(). */
        {base_counter_bank_at(e->peers[peer].bank, consumed), debt->told},
        {debt->here, debt->told},
    };
    BASE_TRY(base_stream_signal_all(stream, signals, 2));
    return comm_copy_ring_behind(e, stream, peer);
}

/* Of lanes that have said all that they were told to (comm/share.h). */
static base_status_t settle_idle(comm_copy_engine_t *e, int c)
{
    for (int l = 0; l < COMM_COPY_LANES; l++) {
        const comm_copy_debt_t *debt = &e->debts[c][l];

        if (debt->told == 0 || base_counter_value(debt->here) >= debt->told)
            BASE_TRY(settle(e, c, l));
    }
    return BASE_OK;
}

/* Copies, and the counters behind them, now or later. */
static base_status_t pull(const position_t *at)
{
    comm_copy_engine_t *e = at->e;
    const int c = at->channel, lane = at->link->in_lane;
    const uint64_t sequence = at->slot->sequence;
    const int64_t bytes = posted_to(at)->recv.bytes;
    comm_copy_debt_t *debt = &e->debts[c][lane];

    if (debt->peer != at->peer || !comm_share_takes(&debt->owed, sequence, bytes))
        BASE_TRY(settle(e, c, lane));
    BASE_TRY(give_copies(at, e->pull[c][lane]));
    debt->peer = at->peer;
    return comm_share_add(&debt->owed, sequence, bytes) ? settle(e, c, lane) : BASE_OK;
}

static void trace(const position_t *at)
{
    comm_copy_engine_t *e = at->e;
    const comm_copy_entry_t *mine = posted_to(at);
    const base_trace_note_t note = comm_note(&at->slot->tag, at->peer, mine->recv.bytes);

    if (mine->recv.num > 0)
        comm_trace_transfer(e->g->group.ctx, at->channel, at->slot->name, &note,
                            *comm_copy_ready_ns(e, at->channel, at->slot->sequence, at->peer));
}

/* ==== looking ==== */

/* One step of a link, if it can be made. */
static base_status_t progress_link(const position_t *at, int64_t now, int *busy)
{
    comm_copy_engine_t *e = at->e;
    comm_copy_link_t *link = at->link;
    const int c = at->channel;
    const uint64_t sequence = at->slot->sequence;
    const int before = link->compared + link->pulled + link->arrived + link->sent;

    if (!link->compared && peer_has_begun(at)) BASE_TRY(compare(at));
    if (link->compared && !link->pulled && link->lists.num_recv == 0) link->pulled = 1;
    if (link->compared && !link->pulled && at->slot->ready_ns > 0 && !e->held[at->peer] &&
        peer_is_ready(at)) {
        if (link->due_ns == 0) {
            link->due_ns = now + e->g->delay_ns;
            __atomic_store_n(comm_copy_ready_ns(e, c, sequence, at->peer), now, __ATOMIC_RELEASE);
        }
        if (now >= link->due_ns) {
            BASE_TRY(pull(at));
            link->pulled = 1;
        }
    }
    if (link->pulled && !link->arrived &&
        (link->lists.num_recv == 0 ||
         base_counter_value(comm_copy_arrival(e, c, link->in_lane, at->peer)) >= sequence)) {
        link->arrived = 1;
        trace(at);
    }
    if (link->compared && !link->sent &&
        (link->lists.num_send == 0 ||
         base_counter_value(comm_copy_consumed_by(e, c, link->out_lane, at->peer)) >= sequence))
        link->sent = 1;
    if (before == link->compared + link->pulled + link->arrived + link->sent) return BASE_OK;
    *busy = 1;
    e->moved_ns[c] = now;
    return BASE_OK;
}

static base_status_t progress_slot(comm_copy_engine_t *e, int channel, comm_copy_slot_t *slot,
                                   int *busy)
{
    base_counter_t *ready = comm_copy_own_ready(e, channel, slot->sequence);
    const int64_t now = base_clock_ns();
    int done;

    if (slot->ready_ns == 0 && base_counter_value(ready) >= slot->sequence) {
        slot->ready_ns = now;
        *busy = 1;
    }
    done = slot->ready_ns > 0;
    for (int i = 0; i < slot->num_links; i++) {
        comm_copy_link_t *link = &slot->links[i];
        const position_t at = {
            .e = e, .channel = channel, .slot = slot, .link = link, .peer = link->lists.rank};

        if (link->arrived && link->sent) continue;
        BASE_TRY(progress_link(&at, now, busy));
        if (!link->pulled) e->held[at.peer] = 1; /* what comes later from it waits */
        if (link->arrived && link->sent) continue;
        done = 0;
        if (slot->ready_ns > 0) BASE_TRY(check_late(&at, now));
    }
    if (!done) return BASE_OK;
    e->finished[channel][slot->sequence % COMM_MAX_OPEN_EXCHANGES] = slot->sequence;
    (void)pthread_mutex_lock(&e->mutex);
    __atomic_store_n(&slot->done, 1, __ATOMIC_RELEASE);
    (void)pthread_cond_broadcast(&e->changed);
    (void)pthread_mutex_unlock(&e->mutex);
    *busy = 1;
    return BASE_OK;
}

/* Looks at all that is open; *open says whether anything is. */
static base_status_t look(comm_copy_engine_t *e, int *busy, int *open)
{
    for (int c = 0; c < COMM_NUM_CHANNELS; c++) {
        const uint64_t last = __atomic_load_n(&e->begun[c], __ATOMIC_ACQUIRE);
        uint64_t *first = &e->first_open[c];

        for (int r = 0; r < e->g->group.size; r++)
            e->held[r] = 0;
        for (uint64_t s = *first; s <= last; s++) {
            uint64_t *finished = &e->finished[c][s % COMM_MAX_OPEN_EXCHANGES];

            /* Not the slot's own flag: once that is set the slot may be in use again. */
            if (*finished != s) BASE_TRY(progress_slot(e, c, comm_copy_slot(e, c, s), busy));
            if (*finished == s && s == *first) (*first)++;
        }
        BASE_TRY(settle_idle(e, c));
        *open |= *first <= last;
    }
    return BASE_OK;
}

/* ==== the thread ==== */

/* Waits that a GPU holds are let go. */
static void release_waits(comm_copy_engine_t *e)
{
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        for (int l = 0; l < COMM_COPY_LANES; l++)
            for (int r = 0; r < e->g->group.size; r++) {
                if (!e->peers[r].is_here) continue;
                base_counter_release(e->arrived[c][l][r]);
                base_counter_release(comm_copy_consumed_by(e, c, l, r));
            }
}

/* No copy is given any more; those that run end by themselves. */
static void park(comm_copy_engine_t *e)
{
    const int64_t start_ns = base_clock_ns();

    if (!e->on_host) release_waits(e);
    for (int i = 0; i < COMM_NUM_CHANNELS * COMM_COPY_LANES; i++) {
        const int c = i / COMM_COPY_LANES, l = i % COMM_COPY_LANES;

        if (base_event_record(e->pulled[c][l], e->pull[c][l]) < 0) continue; /* failed: none run */
        while (base_event_query(e->pulled[c][l]) == BASE_PENDING &&
               base_clock_ns() - start_ns < DRAIN_NS)
            base_clock_sleep_ns(SLEEP_MIN_NS);
    }
    (void)pthread_mutex_lock(&e->mutex);
    e->parked = 1;
    (void)pthread_cond_broadcast(&e->changed);
    (void)pthread_mutex_unlock(&e->mutex);
}

static int64_t next_sleep(const comm_copy_engine_t *e, int64_t sleep_ns)
{
    const int64_t most = e->on_host ? SLEEP_MAX_NS : GPU_SLEEP_MAX_NS;

    return sleep_ns * 2 < most ? sleep_ns * 2 : most;
}

static void *pump_main(void *arg)
{
    comm_copy_engine_t *e = arg;
    int64_t sleep_ns = SLEEP_MIN_NS, busy_ns = base_clock_ns();

    (void)prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL); /* sleeps of 20 us, not of 70 */
    while (!__atomic_load_n(&e->ending, __ATOMIC_ACQUIRE) && !comm_mpi_is_stopped(e->g)) {
        const uint32_t seen = __atomic_load_n(&e->desk->bell, __ATOMIC_ACQUIRE);
        int busy = 0, open = 0;
        const base_status_t st = look(e, &busy, &open);

        if (st < 0) {
            (void)comm_mpi_give_up(e->g, st, COMM_MPI_CONCERNS_NONE);
        } else if (busy) {
            sleep_ns = SLEEP_MIN_NS;
            busy_ns = base_clock_ns();
        } else if (!e->on_host && base_clock_ns() - busy_ns < GPU_SPIN_NS) {
            (void)sched_yield();
        } else if (!open) {
            comm_copy_listen(e->desk, seen, IDLE_NS);
        } else {
            comm_copy_listen(e->desk, seen, sleep_ns);
            sleep_ns = next_sleep(e, sleep_ns);
        }
    }
    park(e);
    return NULL;
}

base_status_t comm_copy_pump_start(comm_copy_engine_t *e)
{
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        e->first_open[c] = 1;
    if (pthread_create(&e->thread, NULL, pump_main, e) != 0)
        return BASE_FAIL(e->g->group.ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                         "rank %d: copy engines: no thread", e->g->group.rank);
    e->started = 1;
    base_memory_count_open(base_ctx_memory(e->g->group.ctx), BASE_RESOURCE_THREAD);
    return BASE_OK;
}

void comm_copy_pump_end(comm_copy_engine_t *e)
{
    if (!e->started) return;
    __atomic_store_n(&e->ending, 1, __ATOMIC_RELEASE);
    comm_copy_ring(e->desk);
    (void)pthread_join(e->thread, NULL);
    e->started = 0;
    base_memory_count_close(base_ctx_memory(e->g->group.ctx), BASE_RESOURCE_THREAD);
}
