/* The pump of the NCCL transport: gives exchanges to the streams, and finds what is late or wrong. */
#include "comm/nccl_state.h"

#include "base/clock.h"
#include "base/memory.h"
#include "comm/segment.h"
#include "comm/watch.h"

#include <assert.h>
#include <inttypes.h>
#include <sched.h>
#include <sys/prctl.h>

/* Between two looks. Headers wake the pump, counters do not: while something is begun and not given, or not told of, it looks
 * often, with a GPU at first without a pause. */
#define SLEEP_NS      1000000
#define OPEN_SLEEP_NS 20000
#define GPU_SPIN_NS   100000
#define DRAIN_NS      INT64_C(1000000000) /* for what is queued when the group stops */
/* Nothing is late before. To look takes a mutex that the rank's and the progress thread need, and calls of NCCL. */
#define PATIENCE_NS 1000000

typedef struct position {
    comm_nccl_t *n;
    int channel;
    comm_nccl_channel_t *c;
    comm_nccl_slot_t *slot;
} position_t;

/* ==== giving an exchange to the stream ==== */

static base_status_t make_room(comm_nccl_t *n, comm_nccl_staging_t *staging, int64_t bytes)
{
    base_buffer_t *larger = NULL;
    int64_t room = base_buffer_bytes(staging->buffer);

    if (room >= bytes) return BASE_OK;
    while (room < bytes)
        room *= 2;
    BASE_TRY(base_buffer_alloc(n->g->group.dev, BASE_MEMORY_DEVICE, room, "NCCL staging", &larger));
    assert(staging->num_outgrown < COMM_NCCL_MAX_OUTGROWN);
    staging->outgrown[staging->num_outgrown++] = staging->buffer;
    staging->buffer = larger;
    return BASE_OK;
}

/* Bytes that the lists of one direction need in staging, and segments of both. */
static int64_t measure(const position_t *at, int is_send, int *num)
{
    const int64_t direct = at->n->g->direct_bytes;
    int64_t bytes = 0;

    for (int i = 0; i < at->slot->num_peers; i++) {
        const comm_peer_t *p = &at->slot->peers[i];
        const base_range_t *list = is_send ? p->send : p->recv;
        const int length = is_send ? p->num_send : p->num_recv;
        comm_segment_t s = {0};

        while (comm_segment_next(direct, list, length, &s)) {
            bytes += comm_segment_is_whole(direct, list, &s) ? 0 : s.bytes;
            (*num)++;
        }
    }
    return bytes;
}

/* Between the ranges of a segment and staging. */
static base_status_t pack(const position_t *at, const base_range_t *list, const comm_segment_t *s,
                          base_mem_t staging, int is_send)
{
    for (int i = s->first; i < s->end; i++) {
        const base_range_t packed = {.mem = staging,
                                     .row_bytes = list[i].row_bytes,
                                     .rows = list[i].rows,
                                     .pitch = list[i].row_bytes};

        if (comm_range_bytes(&list[i]) == 0) continue;
        BASE_TRY(
            base_copy(at->c->move, is_send ? &packed : &list[i], is_send ? &list[i] : &packed));
        staging = base_mem_at(staging, comm_range_bytes(&list[i]));
    }
    return BASE_OK;
}

typedef enum pass { PASS_SEND, PASS_RECEIVE, PASS_UNPACK } pass_t;

/* Walks the segments of one direction: packs what is sent and adds pieces; adds pieces of what is received;
 * or unpacks it. */
static base_status_t walk(const position_t *at, pass_t pass, int *num)
{
    const int64_t direct = at->n->g->direct_bytes;
    const int is_send = pass == PASS_SEND;
    int64_t used = 0;

    for (int i = 0; i < at->slot->num_peers; i++) {
        const comm_peer_t *p = &at->slot->peers[i];
        const base_range_t *list = is_send ? p->send : p->recv;
        const int length = is_send ? p->num_send : p->num_recv;
        comm_segment_t s = {0};

        while (comm_segment_next(direct, list, length, &s)) {
            const int whole = comm_segment_is_whole(direct, list, &s);
            const base_mem_t place =
                whole ? list[s.first].mem
                      : base_mem(is_send ? at->c->out.buffer : at->c->in.buffer, used);

            if (s.bytes == 0) continue; /* empty on both sides */
            if (!whole && pass != PASS_RECEIVE) BASE_TRY(pack(at, list, &s, place, is_send));
            if (pass != PASS_UNPACK)
                at->n->pieces[(*num)++] = (comm_nccl_piece_t){p->rank, is_send, place, s.bytes};
            used += whole ? 0 : s.bytes;
        }
    }
    return BASE_OK;
}

static void note_moved(const position_t *at)
{
    const comm_nccl_slot_t *slot = at->slot;

    at->c->moves[slot->sequence % COMM_MAX_OPEN_EXCHANGES] = (comm_nccl_moved_t){
        .tag = slot->tag, .peer = slot->num_peers > 0 ? slot->peers[0].rank : -1};
}

static base_status_t move(const position_t *at)
{
    comm_nccl_t *n = at->n;
    comm_nccl_channel_t *c = at->c;
    int num = 0;

    const int64_t out = measure(at, 1, &num), in = measure(at, 0, &num);
    BASE_TRY(make_room(n, &c->out, out));
    BASE_TRY(make_room(n, &c->in, in));
    if (num > n->pieces_room) {
        comm_nccl_piece_t *pieces =
            base_realloc(n->g->group.ctx, n->pieces, 2 * num, sizeof *pieces, "NCCL transport");

        if (pieces == NULL) return BASE_ERR_NOMEM;
        n->pieces = pieces;
        n->pieces_room = 2 * num;
    }
    num = 0;
    BASE_TRY(walk(at, PASS_SEND, &num));
    BASE_TRY(walk(at, PASS_RECEIVE, &num));
    BASE_TRY(comm_nccl_link_move(c->link, c->move, n->pieces, num));
    return walk(at, PASS_UNPACK, &num);
}

/* Gives `done` for all that is owed. */
static base_status_t settle(comm_nccl_channel_t *c)
{
    if (c->owed.last == 0) return BASE_OK;
    c->settled = c->owed.last;
    c->owed = (comm_share_t){0};
    return base_stream_signal(c->move, c->done, c->settled);
}

/* The larger of what the exchange sends and receives. */
static int64_t bytes_of(const comm_nccl_slot_t *slot)
{
    int64_t sent = 0, received = 0;

    for (int i = 0; i < slot->num_peers; i++) {
        const comm_peer_t *p = &slot->peers[i];

        sent += comm_exchange_bytes(p->send, p->num_send);
        received += comm_exchange_bytes(p->recv, p->num_recv);
    }
    return sent > received ? sent : received;
}

/* Gives the exchange, and `done` behind it, now or later (comm/share.h). */
static base_status_t give(const position_t *at)
{
    comm_nccl_channel_t *c = at->c;
    const uint64_t sequence = at->slot->sequence;
    /* Its kernel may wait for what is owed: as one that is too long it shares nothing then. */
    const int64_t bytes = at->slot->independent ? bytes_of(at->slot) : COMM_SHARE_BYTES + 1;

    if (!comm_share_takes(&c->owed, sequence, bytes)) BASE_TRY(settle(c));
    note_moved(at);
    BASE_TRY(move(at));
    c->moved = sequence;
    c->moved_ns = base_clock_ns();
    return comm_share_add(&c->owed, sequence, bytes) ? settle(c) : BASE_OK;
}

/* ==== looking ==== */

/* Whether all headers of the exchange have come and agree, and this rank has it ready. Work that waits for
 * `ready` is not given: behind it would wait the packing of other exchanges, in a queue that can be full, and
 * kernels of NCCL would hold multiprocessors while they wait. */
static base_status_t can_move(const position_t *at, int *yes)
{
    comm_mpi_group_t *g = at->n->g;
    const uint64_t sequence = at->slot->sequence;
    const comm_mpi_slot_t *headers = &g->slots[at->channel][sequence % COMM_MAX_OPEN_EXCHANGES];
    const int agreed = __atomic_load_n(&headers->complete, __ATOMIC_ACQUIRE) == sequence;
    const int64_t since_ns =
        at->slot->begun_ns > at->c->moved_ns ? at->slot->begun_ns : at->c->moved_ns;
    base_status_t st = BASE_PENDING;

    *yes = agreed && base_counter_value(comm_nccl_ready(at->c, sequence)) >= sequence;
    if (agreed || base_clock_ns() - since_ns < PATIENCE_NS) return BASE_OK;
    (void)pthread_mutex_lock(&g->process->mutex);
    if (__atomic_load_n(&headers->complete, __ATOMIC_ACQUIRE) != sequence &&
        !comm_mpi_is_stopped(g))
        st = comm_mpi_check_late(g, at->channel, sequence, base_clock_ns() - since_ns);
    (void)pthread_mutex_unlock(&g->process->mutex);
    return st == BASE_PENDING ? BASE_OK : st;
}

/* What the device does: is it late with an exchange that is ready? */
static base_status_t check_moved(const position_t *at, int64_t now)
{
    comm_nccl_t *n = at->n;
    comm_nccl_channel_t *c = at->c;
    base_ctx_t *ctx = n->g->group.ctx;
    const uint64_t done = base_counter_value(c->done);
    const comm_nccl_moved_t *late = &c->moves[(done + 1) % COMM_MAX_OPEN_EXCHANGES];
    char tag[COMM_TEXT_BYTES];

    if (done != c->seen_done) c->moved_ns = now;
    c->seen_done = done;
    if (done >= c->moved || now - c->moved_ns < PATIENCE_NS) return BASE_OK;
    BASE_TRY(comm_nccl_link_check(c->link));
    if (now - c->moved_ns <= comm_watch_limit_ns(ctx) + n->g->delay_ns) return BASE_OK;
    comm_tag_text(&late->tag, tag);
    return BASE_FAIL(ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                     "rank %d: channel %s, exchange %" PRIu64 " (%s): NCCL is not done in %" PRId64
                     " ms: rank %d or another one has begun it, but its data is not ready",
                     n->g->group.rank, comm_channel_name(at->channel), done + 1, tag,
                     (now - c->moved_ns) / 1000000, late->peer);
}

static base_status_t look(comm_nccl_t *n, int *busy)
{
    for (int i = 0; i < COMM_NUM_CHANNELS; i++) {
        comm_nccl_channel_t *c = &n->channels[i];
        const uint64_t begun = __atomic_load_n(&c->begun, __ATOMIC_ACQUIRE);
        position_t at = {.n = n, .channel = i, .c = c};
        int yes = 1;

        while (c->moved < begun && yes) {
            at.slot = comm_nccl_slot(c, c->moved + 1);
            BASE_TRY(can_move(&at, &yes));
            if (!yes) break;
            BASE_TRY(give(&at));
            *busy = 1;
        }
        if (base_counter_value(c->done) >= c->settled) BASE_TRY(settle(c));
        BASE_TRY(check_moved(&at, base_clock_ns()));
    }
    return BASE_OK;
}

/* ==== the thread ==== */

/* Ends what is queued: kernels of NCCL that wait for other ranks, and waits for counters. */
static void park(comm_nccl_t *n)
{
    const int stopped = comm_mpi_is_stopped(n->g);
    const int64_t start_ns = base_clock_ns();

    for (int i = 0; i < COMM_NUM_CHANNELS && stopped; i++) {
        comm_nccl_link_abort(n->channels[i].link);
        if (base_device_kind(n->g->group.dev) != BASE_DEVICE_CUDA)
            continue; /* waits end by themselves */
        base_counter_release(n->channels[i].done);
    }
    for (int i = 0; i < COMM_NUM_CHANNELS && stopped; i++) {
        comm_nccl_channel_t *c = &n->channels[i];

        if (base_event_record(c->given, c->move) < 0) continue; /* failed: nothing runs */
        while (base_event_query(c->given) == BASE_PENDING && base_clock_ns() - start_ns < DRAIN_NS)
            base_clock_sleep_ns(20000);
    }
    (void)pthread_mutex_lock(&n->g->process->mutex);
    n->parked = 1;
    (void)pthread_cond_broadcast(&n->g->process->changed);
    (void)pthread_mutex_unlock(&n->g->process->mutex);
}

/* Something is begun and not given yet, or given and not told of. */
static int has_open(comm_nccl_t *n)
{
    for (int i = 0; i < COMM_NUM_CHANNELS; i++) {
        const comm_nccl_channel_t *c = &n->channels[i];

        if (c->settled < __atomic_load_n(&c->begun, __ATOMIC_ACQUIRE)) return 1;
    }
    return 0;
}

static uint64_t num_begun(comm_nccl_t *n)
{
    uint64_t num = 0;

    for (int i = 0; i < COMM_NUM_CHANNELS; i++)
        num += __atomic_load_n(&n->channels[i].begun, __ATOMIC_SEQ_CST);
    return num;
}

/* Whoever sees a pump that does not sleep has said before what there is, and that is found here: hence the one order of
 * all of it. */
static void rest(comm_nccl_t *n, uint64_t seen)
{
    comm_mpi_t *mpi = n->g->process;

    (void)pthread_mutex_lock(&mpi->mutex);
    (void)__atomic_exchange_n(&n->asleep, 1, __ATOMIC_SEQ_CST);
    if (num_begun(n) == seen && !__atomic_load_n(&n->ending, __ATOMIC_SEQ_CST))
        comm_mpi_sleep(mpi, &mpi->changed, has_open(n) ? OPEN_SLEEP_NS : SLEEP_NS);
    __atomic_store_n(&n->asleep, 0, __ATOMIC_RELEASE);
    (void)pthread_mutex_unlock(&mpi->mutex);
}

void comm_nccl_pump_wake(comm_nccl_t *n)
{
    comm_mpi_t *mpi = n->g->process;

    if (!__atomic_load_n(&n->asleep, __ATOMIC_SEQ_CST)) return;
    (void)pthread_mutex_lock(&mpi->mutex);
    (void)pthread_cond_broadcast(&mpi->changed);
    (void)pthread_mutex_unlock(&mpi->mutex);
}

static void *pump_main(void *arg)
{
    comm_nccl_t *n = arg;
    const int on_host = base_device_kind(n->g->group.dev) != BASE_DEVICE_CUDA;
    int64_t busy_ns = base_clock_ns();

    (void)prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL); /* sleeps of 20 us, not of 70 */
    while (!__atomic_load_n(&n->ending, __ATOMIC_ACQUIRE) && !comm_mpi_is_stopped(n->g)) {
        const uint64_t seen = num_begun(n);
        int busy = 0;
        const base_status_t st = look(n, &busy);

        if (st < 0)
            (void)comm_mpi_give_up(n->g, st, COMM_MPI_CONCERNS_NONE);
        else if (busy)
            busy_ns = base_clock_ns();
        else if (!on_host && base_clock_ns() - busy_ns < GPU_SPIN_NS)
            (void)sched_yield();
        else
            rest(n, seen);
    }
    park(n);
    return NULL;
}

base_status_t comm_nccl_pump_start(comm_nccl_t *n)
{
    if (pthread_create(&n->thread, NULL, pump_main, n) != 0)
        return BASE_FAIL(n->g->group.ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                         "rank %d: NCCL transport: no thread", n->g->group.rank);
    n->started = 1;
    base_memory_count_open(base_ctx_memory(n->g->group.ctx), BASE_RESOURCE_THREAD);
    return BASE_OK;
}

void comm_nccl_pump_end(comm_nccl_t *n)
{
    if (!n->started) return;
    __atomic_store_n(&n->ending, 1, __ATOMIC_SEQ_CST);
    comm_nccl_pump_wake(n);
    (void)pthread_join(n->thread, NULL);
    n->started = 0;
    base_memory_count_close(base_ctx_memory(n->g->group.ctx), BASE_RESOURCE_THREAD);
}
