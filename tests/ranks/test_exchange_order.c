/* What an exchange waits for and what it does not: begin does not wait, peers complete one by one,
 * `ready` and `sent` are honoured, delays overlap, begin holds back when too many are open. */
#include "tests/ranks/rank_case.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "base/memory.h"

#include <stdlib.h>

#define BYTES   4096
#define WAIT_MS 50000
#define MANY    (2 * COMM_MAX_OPEN_EXCHANGES)

typedef struct order_flags {
    int begun, used, overwritten, not_yet;
} order_flags_t;

static rank_case_t order_case(int num_ranks, base_device_kind_t device, order_flags_t *flags)
{
    return (rank_case_t){
        .options = {.num_ranks = num_ranks, .device = device, .seed = 5, .deadline_ms = 60000},
        .user = flags,
        .user_bytes = flags != NULL ? sizeof *flags : 0};
}

/* One contiguous piece from or to one peer. */
static comm_peer_t one(int rank, const base_range_t *send, const base_range_t *recv)
{
    return (comm_peer_t){.rank = rank,
                         .num_send = send != NULL,
                         .num_recv = recv != NULL,
                         .send = send,
                         .recv = recv};
}

static base_status_t fill(rank_gear_t *gear, int64_t offset, uint8_t byte)
{
    const base_range_t r = rank_range(gear->buffer, offset, BYTES);

    return base_fill(gear->stream, &r, byte);
}

/* Downloads one piece and checks that all of it is `byte`. */
static base_status_t expect(rank_case_t *run, int rank, rank_gear_t *gear, int64_t offset,
                            uint8_t byte, const char *what)
{
    unsigned char got[BYTES];

    BASE_TRY(base_download(gear->stream, got, base_mem(gear->buffer, offset), BYTES));
    BASE_TRY(base_stream_sync(gear->stream));
    for (int i = 0; i < BYTES; i++)
        RANK_CHECK(run, rank, got[i] == byte, "%s: byte %d is %d, wanted %d", what, i, got[i],
                   byte);
    return BASE_OK;
}

typedef base_status_t (*geared_fn)(rank_case_t *run, comm_group_t *group, base_device_t *dev,
                                   rank_gear_t *gear);

/* Opens MANY pieces, and an ASYNC stream, which runs beside the rank's thread on every device. */
static base_status_t geared(comm_group_t *group, base_device_t *dev, void *user, geared_fn fn)
{
    rank_gear_t gear;
    base_status_t st = rank_gear_open(&gear, dev, BASE_STREAM_ASYNC, MANY * BYTES);

    if (st >= 0) st = fn(user, group, dev, &gear);
    if (st < 0) comm_group_stop(group, NULL);
    rank_gear_close(&gear);
    return st;
}

#define GEARED(name)                                                                               \
    static base_status_t name(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,            \
                              void *user)                                                          \
    {                                                                                              \
        (void)ctx;                                                                                 \
        return geared(group, dev, user, name##_geared);                                            \
    }

/* On cpu and strict, or on GPUs. */
static void run_on_all(comm_rank_fn fn, int num_ranks)
{
    const base_device_kind_t devices[] = {BASE_DEVICE_CPU, BASE_DEVICE_STRICT, BASE_DEVICE_CUDA};
    const int first = rank_case_on_gpus() ? 2 : 0, end = rank_case_on_gpus() ? 3 : 2;

    for (int d = first; d < end && num_ranks <= rank_case_max(); d++) {
        order_flags_t flags = {0};
        rank_case_t run = order_case(num_ranks, devices[d], &flags);

        rank_case_run(&run, fn);
        rank_case_assert_ok(&run);
    }
}

/* ==== begin returns before the peer has begun ==== */

static base_status_t begin_returns_geared(rank_case_t *run, comm_group_t *group, base_device_t *dev,
                                          rank_gear_t *gear)
{
    const int me = comm_group_rank(group);
    order_flags_t *flags = run->user;
    const base_range_t out = rank_range(gear->buffer, 0, BYTES);
    const base_range_t in = rank_range(gear->buffer, BYTES, BYTES);
    const comm_peer_t peer = one(1 - me, &out, &in);
    const comm_exchange_t ex = {.num_peers = 1, .peers = &peer};
    comm_ticket_t ticket;

    (void)dev;
    BASE_TRY(fill(gear, 0, (uint8_t)(10 + me)));
    BASE_TRY(base_stream_sync(gear->stream));
    if (me == 1)
        RANK_CHECK(run, me, rank_flag_wait(&flags->begun, WAIT_MS), "begin of rank 0 waits for us");
    BASE_TRY(comm_exchange_begin(group, COMM_CHANNEL_PONG, &ex, &ticket));
    if (me == 0) rank_flag_set(&flags->begun);
    BASE_TRY(comm_exchange_arrived_all(group, ticket, gear->stream));
    BASE_TRY(comm_exchange_sent(group, ticket, gear->stream));
    return expect(run, me, gear, BYTES, (uint8_t)(10 + 1 - me), "received");
}
GEARED(begin_returns)

static void test_begin_returns(void **state)
{
    (void)state;
    run_on_all(begin_returns, 2);
}

/* ==== a fast peer's data is usable while a slow peer has not begun ==== */

static base_status_t per_peer_geared(rank_case_t *run, comm_group_t *group, base_device_t *dev,
                                     rank_gear_t *gear)
{
    const int me = comm_group_rank(group);
    order_flags_t *flags = run->user;
    const base_range_t here[2] = {rank_range(gear->buffer, 0, BYTES),
                                  rank_range(gear->buffer, BYTES, BYTES)};
    const comm_peer_t from[2] = {one(1, NULL, &here[0]), one(2, NULL, &here[1])};
    const comm_peer_t to = one(0, &here[0], NULL);
    const comm_exchange_t ex = {.num_peers = me == 0 ? 2 : 1, .peers = me == 0 ? from : &to};
    comm_ticket_t ticket;

    (void)dev;
    BASE_TRY(fill(gear, 0, (uint8_t)(20 + me)));
    BASE_TRY(base_stream_sync(gear->stream));
    /* Both ways round: the slow one is the lower rank the first time. */
    for (int slow = 1; slow <= 2; slow++) {
        int *used = slow == 1 ? &flags->used : &flags->not_yet;

        if (me == slow)
            RANK_CHECK(run, me, rank_flag_wait(used, WAIT_MS), "rank 0 waits for slow rank %d", me);
        BASE_TRY(comm_exchange_begin(group, COMM_CHANNEL_PING, &ex, &ticket));
        if (me == 0) {
            const int fast = 3 - slow;

            BASE_TRY(comm_exchange_arrived(group, ticket, fast, gear->stream));
            BASE_TRY(expect(run, me, gear, (fast - 1) * BYTES, (uint8_t)(20 + fast), "fast peer"));
            rank_flag_set(used);
            BASE_TRY(comm_exchange_arrived_all(group, ticket, gear->stream));
            BASE_TRY(expect(run, me, gear, (slow - 1) * BYTES, (uint8_t)(20 + slow), "slow peer"));
        } else {
            BASE_TRY(comm_exchange_sent(group, ticket, gear->stream));
            BASE_TRY(base_stream_sync(gear->stream));
        }
    }
    return BASE_OK;
}
GEARED(per_peer)

static void test_per_peer(void **state)
{
    (void)state;
    /* An exchange of NCCL completes as a whole. */
    if (strcmp(rank_case_transport(), "nccl") == 0) return;
    run_on_all(per_peer, 3);
}

/* ==== ready: a late writer on the sender, a late reader on the receiver ==== */

typedef struct late_args {
    unsigned char *to;
    const unsigned char *from; /* NULL: writes `byte` */
    int byte;
} late_args_t;

static base_status_t late_work(void *args)
{
    const late_args_t *a = args;

    base_clock_sleep_ns(40000000);
    if (a->from != NULL)
        memcpy(a->to, a->from, BYTES);
    else
        memset(a->to, a->byte, BYTES);
    return BASE_OK;
}

static base_status_t late(rank_gear_t *gear, int64_t to, int64_t from, int byte)
{
    const base_operand_t operands[2] = {{rank_range(gear->buffer, to, BYTES), BASE_WRITE},
                                        {rank_range(gear->buffer, from, BYTES), BASE_READ}};
    const late_args_t args = {.to = base_mem_address(base_mem(gear->buffer, to)),
                              .from =
                                  byte < 0 ? base_mem_address(base_mem(gear->buffer, from)) : NULL,
                              .byte = byte};

    return base_stream_submit(gear->stream, late_work, &args, sizeof args, operands,
                              byte < 0 ? 2 : 1);
}

static base_status_t ready_geared(rank_case_t *run, comm_group_t *group, base_device_t *dev,
                                  rank_gear_t *gear)
{
    const int me = comm_group_rank(group);
    const base_range_t out = rank_range(gear->buffer, 0, BYTES);
    const base_range_t in = rank_range(gear->buffer, BYTES, BYTES);
    const comm_peer_t peer = one(1 - me, &out, &in);
    comm_exchange_t ex = {.num_peers = 1, .peers = &peer};
    base_event_t *ready = NULL;
    comm_ticket_t ticket;
    base_status_t st;

    BASE_TRY(base_event_create(dev, &ready));
    ex.ready = ready;
    BASE_TRY_GOTO(fill(gear, 0, 1), st, out);
    BASE_TRY_GOTO(fill(gear, BYTES, 2), st, out);
    BASE_TRY_GOTO(late(gear, 0, 0, 30 + me), st, out);        /* writes what is sent */
    BASE_TRY_GOTO(late(gear, 2 * BYTES, BYTES, -1), st, out); /* reads where it arrives */
    BASE_TRY_GOTO(base_event_record(ready, gear->stream), st, out);
    BASE_TRY_GOTO(comm_exchange_begin(group, COMM_CHANNEL_PING, &ex, &ticket), st, out);
    BASE_TRY_GOTO(comm_exchange_arrived_all(group, ticket, gear->stream), st, out);
    BASE_TRY_GOTO(comm_exchange_sent(group, ticket, gear->stream), st, out);
    BASE_TRY_GOTO(expect(run, me, gear, BYTES, (uint8_t)(30 + 1 - me), "late writer"), st, out);
    st = expect(run, me, gear, 2 * BYTES, 2, "late reader");
out:
    base_event_destroy(ready);
    return st;
}
GEARED(ready)

static void test_ready(void **state)
{
    (void)state;
    run_on_all(ready, 2);
}

/* ==== sent: without it, overwriting is seen by the peer; with it, it is not ==== */

static base_status_t overwrite(rank_case_t *run, comm_group_t *group, rank_gear_t *gear, int wait,
                               int *overwritten, int *begun)
{
    const int me = comm_group_rank(group);
    const base_range_t piece = rank_range(gear->buffer, 0, BYTES);
    const comm_peer_t peer = me == 0 ? one(1, &piece, NULL) : one(0, NULL, &piece);
    const comm_exchange_t ex = {.num_peers = 1, .peers = &peer};
    comm_ticket_t ticket;

    BASE_TRY(fill(gear, 0, 40));
    BASE_TRY(base_stream_sync(gear->stream));
    if (me == 0) {
        BASE_TRY(comm_exchange_begin(group, COMM_CHANNEL_PING, &ex, &ticket));
        if (wait) BASE_TRY(comm_exchange_sent(group, ticket, gear->stream));
        BASE_TRY(fill(gear, 0, 41));
        if (!wait) BASE_TRY(base_stream_sync(gear->stream));
        rank_flag_set(overwritten); /* with the wait: given to the stream only */
        BASE_TRY(comm_exchange_sent(group, ticket, gear->stream));
        return base_stream_sync(gear->stream);
    }
    (void)begun;
    RANK_CHECK(run, me, rank_flag_wait(overwritten, WAIT_MS), "rank 0 did not get so far");
    base_clock_sleep_ns(20000000); /* time for a write that does not wait */
    BASE_TRY(comm_exchange_begin(group, COMM_CHANNEL_PING, &ex, &ticket));
    BASE_TRY(comm_exchange_arrived_all(group, ticket, gear->stream));
    return expect(run, me, gear, 0, wait ? 40 : 41, wait ? "with sent" : "without sent");
}

static base_status_t sent_geared(rank_case_t *run, comm_group_t *group, base_device_t *dev,
                                 rank_gear_t *gear)
{
    order_flags_t *flags = run->user;

    (void)dev;
    BASE_TRY(overwrite(run, group, gear, 1, &flags->overwritten, &flags->begun));
    /* Only a transport that pulls sees what was written too early; another one may have copied it.
     * */
    if (strcmp(comm_group_transport(group), "mpi") == 0) return BASE_OK;
    return overwrite(run, group, gear, 0, &flags->used, &flags->not_yet);
}
GEARED(sent)

static void test_sent(void **state)
{
    (void)state;
    run_on_all(sent, 2);
}

/* ==== many open exchanges: when no more fit, begin holds back until the first is complete ==== */

static base_status_t hold_back_geared(rank_case_t *run, comm_group_t *group, base_device_t *dev,
                                      rank_gear_t *gear)
{
    const int me = comm_group_rank(group);
    order_flags_t *flags = run->user;
    base_range_t pieces[MANY];
    comm_peer_t peers[MANY];
    comm_ticket_t tickets[MANY];

    (void)dev;
    for (int i = 0; i < MANY; i++) {
        pieces[i] = rank_range(gear->buffer, i * BYTES, BYTES);
        peers[i] = me == 0 ? one(1, &pieces[i], NULL) : one(0, NULL, &pieces[i]);
        BASE_TRY(fill(gear, i * BYTES, (uint8_t)(me == 0 ? 50 + i : 0)));
    }
    BASE_TRY(base_stream_sync(gear->stream));
    if (me == 1) {
        RANK_CHECK(run, me, rank_flag_wait(&flags->begun, WAIT_MS), "%d do not fit",
                   COMM_MAX_OPEN_EXCHANGES);
        base_clock_sleep_ns(30000000);
        RANK_CHECK(run, me, !rank_flag_wait(&flags->not_yet, 0), "one more was begun");
    }
    for (int i = 0; i < MANY; i++) {
        const comm_exchange_t ex = {.tag = {.microbatch = i}, .num_peers = 1, .peers = &peers[i]};

        BASE_TRY(comm_exchange_begin(group, COMM_CHANNEL_PONG, &ex, &tickets[i]));
        RANK_CHECK(run, me, tickets[i].sequence == (uint64_t)i + 1, "position %llu",
                   (unsigned long long)tickets[i].sequence);
        if (me == 0 && i == COMM_MAX_OPEN_EXCHANGES - 1) rank_flag_set(&flags->begun);
        if (me == 0 && i == COMM_MAX_OPEN_EXCHANGES) rank_flag_set(&flags->not_yet);
    }
    for (int i = MANY - 1; i >= 0; i--) { /* old tickets stay legal */
        BASE_TRY(comm_exchange_arrived_all(group, tickets[i], gear->stream));
        BASE_TRY(comm_exchange_sent(group, tickets[i], gear->stream));
    }
    for (int i = 0; i < MANY && me == 1; i++)
        BASE_TRY(expect(run, me, gear, i * BYTES, (uint8_t)(50 + i), "one of many"));
    return base_stream_sync(gear->stream);
}
GEARED(hold_back)

static void test_hold_back(void **state)
{
    (void)state;
    run_on_all(hold_back, 2);
}

/* ==== delays of peers and channels pass at the same time ==== */

#define DELAY_NS INT64_C(400000000) /* and as much again for all else */
#define ATTEMPTS 20 /* on a machine that also does other things; one does on others */

static base_status_t delay_geared(rank_case_t *run, comm_group_t *group, base_device_t *dev,
                                  rank_gear_t *gear)
{
    const int me = comm_group_rank(group);
    base_range_t pieces[2][3];
    comm_peer_t peers[2][2];
    comm_ticket_t tickets[2];
    int64_t start, *took_ns = run->user;

    (void)dev;
    BASE_TRY(comm_barrier(group));
    start = base_clock_ns();
    for (int c = 0; c < 2; c++) {
        const comm_exchange_t ex = {.num_peers = 2, .peers = peers[c]};
        int n = 0;

        for (int p = 0; p < 3; p++)
            pieces[c][p] = rank_range(gear->buffer, (c * 3 + p) * BYTES, BYTES);
        for (int p = 0; p < 3; p++)
            if (p != me) peers[c][n++] = one(p, &pieces[c][me], &pieces[c][p]);
        BASE_TRY(comm_exchange_begin(group, c, &ex, &tickets[c]));
    }
    for (int c = 0; c < 2; c++)
        BASE_TRY(comm_exchange_arrived_all(group, tickets[c], gear->stream));
    for (int c = 0; c < 2; c++)
        BASE_TRY(comm_exchange_sent(group, tickets[c], gear->stream));
    BASE_TRY(base_stream_sync(gear->stream));
    const int64_t ns = base_clock_ns() - start;
    RANK_CHECK(run, me, ns >= DELAY_NS, "%lld ns, less than the delay", (long long)ns);
    took_ns[me] = ns;
    return BASE_OK;
}
GEARED(delay)

/* The slowest rank's time. */
static int64_t delayed_ns(base_device_kind_t device)
{
    int64_t took_ns[3] = {0};
    rank_case_t run = order_case(3, device, NULL);

    run.options.delay_ns = DELAY_NS;
    run.user = took_ns;
    run.user_bytes = sizeof took_ns;
    rank_case_run(&run, delay);
    rank_case_assert_ok(&run);
    for (int r = 1; r < 3; r++)
        took_ns[0] = took_ns[r] > took_ns[0] ? took_ns[r] : took_ns[0];
    return took_ns[0];
}

static void test_delay(void **state)
{
    (void)state;
    for (int strict = 0; strict < 2; strict++) {
        int64_t best_ns = INT64_MAX;

        for (int i = 0; i < ATTEMPTS && best_ns >= 2 * DELAY_NS; i++) {
            const int64_t ns = delayed_ns(strict ? BASE_DEVICE_STRICT : BASE_DEVICE_CPU);

            best_ns = ns < best_ns ? ns : best_ns;
        }
        /* Four transfers one after the other would take four delays. */
        assert_in_range(best_ns, DELAY_NS, 2 * DELAY_NS - 1);
    }
}

/* ==== more in one exchange than a transport has room for at first: messages, and bytes to pack ==== */

#define LONG_LIST 600
#define WIDE_ROWS 700
#define WIDE_BYTES                                                                                 \
    (WIDE_ROWS * (int64_t)BYTES) /* of which half are sent, so that they are packed */
#define DIRECT_BYTES 256

typedef struct long_lists {
    base_range_t out[LONG_LIST + 1], in[LONG_LIST + 1];
} long_lists_t;

static void make_long(long_lists_t *l, base_buffer_t *buffer)
{
    const base_range_t wide = {base_mem(buffer, 0), BYTES / 2, WIDE_ROWS, BYTES};
    const int64_t half =
        WIDE_BYTES + LONG_LIST * DIRECT_BYTES; /* what is received lies behind it */

    for (int i = 0; i < LONG_LIST; i++) {
        l->out[i] = rank_range(buffer, WIDE_BYTES + i * DIRECT_BYTES, DIRECT_BYTES);
        l->in[i] = rank_range(buffer, half + WIDE_BYTES + i * DIRECT_BYTES, DIRECT_BYTES);
    }
    l->out[LONG_LIST] = l->in[LONG_LIST] = wide;
    l->in[LONG_LIST].mem.offset = half;
}

static base_status_t long_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    rank_case_t *run = user;
    const int me = comm_group_rank(group);
    const int64_t half = WIDE_BYTES + LONG_LIST * DIRECT_BYTES;
    long_lists_t *l = base_calloc(ctx, 1, sizeof *l, "lists");
    unsigned char *got = base_calloc(ctx, half, 1, "what came");
    rank_gear_t gear = {0};
    comm_ticket_t ticket;
    base_status_t st = BASE_ERR_NOMEM;

    if (l == NULL || got == NULL) goto out;
    BASE_TRY_GOTO(rank_gear_open(&gear, dev, BASE_STREAM_ASYNC, 2 * half), st, out);
    make_long(l, gear.buffer);
    for (int64_t i = 0; i < half; i++)
        got[i] = (unsigned char)(i / 64 * 7 + i + me);
    BASE_TRY_GOTO(base_upload(gear.stream, base_mem(gear.buffer, 0), got, half), st, out);
    const comm_peer_t peer = {1 - me, LONG_LIST + 1, LONG_LIST + 1, l->out, l->in};
    const comm_exchange_t ex = {.num_peers = 1, .peers = &peer, .after = gear.stream};
    BASE_TRY_GOTO(comm_exchange_begin(group, COMM_CHANNEL_PING, &ex, &ticket), st, out);
    BASE_TRY_GOTO(comm_exchange_complete(group, ticket, gear.stream), st, out);
    BASE_TRY_GOTO(base_download(gear.stream, got, base_mem(gear.buffer, half), half), st, out);
    BASE_TRY_GOTO(base_stream_sync(gear.stream), st, out);
    for (int64_t i = 0; i < half; i++)
        if (i >= WIDE_BYTES || i % BYTES < BYTES / 2)
            RANK_CHECK(run, me, got[i] == (unsigned char)(i / 64 * 7 + i + 1 - me), "byte %lld",
                       (long long)i);
    st = comm_barrier(group);
out:
    if (st < 0) comm_group_stop(group, NULL);
    rank_gear_close(&gear);
    base_free(ctx, got);
    base_free(ctx, l);
    return st;
}

static void test_long_lists(void **state)
{
    const base_device_kind_t devices[] = {BASE_DEVICE_CPU, BASE_DEVICE_STRICT};

    (void)state;
    for (int d = 0; d < 2; d++) {
        rank_case_t run = order_case(2, devices[d], NULL);

        run.direct_bytes = DIRECT_BYTES;
        run.keeps = strcmp(rank_case_transport(), "nccl") == 0 ? 2 : 0; /* larger staging */
        rank_case_run(&run, long_rank);
        rank_case_assert_ok(&run);
    }
}

/* ==== a rank alone, on every device: positions, events and tickets, and nothing to wait for ==== */

static base_status_t alone_geared(rank_case_t *run, comm_group_t *group, base_device_t *dev,
                                  rank_gear_t *gear)
{
    const comm_exchange_t nobody = {.num_peers = 0};
    base_event_t *ready = NULL;
    comm_ticket_t ticket = {0};
    int32_t mine = 7, all = 0;
    base_status_t st;

    BASE_TRY(base_event_create(dev, &ready));
    const comm_exchange_t ex = {.num_peers = 0, .ready = ready};
    RANK_CHECK(run, 0,
               comm_exchange_begin(group, COMM_CHANNEL_PING, &ex, &ticket) == BASE_ERR_STATE,
               "no recording");
    base_ctx_clear_error(base_device_ctx(dev));
    BASE_TRY_GOTO(fill(gear, 0, 70), st, out);
    BASE_TRY_GOTO(base_event_record(ready, gear->stream), st, out);
    for (int i = 0; i < MANY; i++) {
        BASE_TRY_GOTO(comm_exchange_begin(group, COMM_CHANNEL_PING, i % 2 ? &ex : &nobody, &ticket),
                      st, out);
        RANK_CHECK(run, 0, ticket.sequence == (uint64_t)i + 1, "position %llu",
                   (unsigned long long)ticket.sequence);
        BASE_TRY_GOTO(comm_exchange_arrived_all(group, ticket, gear->stream), st, out);
        BASE_TRY_GOTO(comm_exchange_sent(group, ticket, gear->stream), st, out);
    }
    BASE_TRY_GOTO(comm_barrier(group), st, out);
    BASE_TRY_GOTO(comm_allgather(group, &mine, sizeof mine, &all), st, out);
    RANK_CHECK(run, 0, all == mine, "gathered %d", (int)all);
    st = expect(run, 0, gear, 0, 70, "alone");
out:
    base_event_destroy(ready);
    return st;
}
GEARED(alone)

static void test_alone(void **state)
{
    rank_case_t on_gpu = order_case(1, BASE_DEVICE_CUDA, NULL);

    (void)state;
    run_on_all(alone, 1);
    if (strcmp(rank_case_transport(), "threads") != 0) return;
    rank_case_run(&on_gpu, alone);
    if (on_gpu.status == BASE_ERR_UNSUPPORTED) /* no GPU here */
        rank_case_assert_error(&on_gpu.error, BASE_ERR_UNSUPPORTED, "DEV-01", "cuda", NULL);
    else
        rank_case_assert_ok(&on_gpu);
}

int main(void)
{
    /* Without those that give work of the host to streams, or look for its delays. */
    const struct CMUnitTest on_gpus[] = {
        cmocka_unit_test(test_begin_returns), cmocka_unit_test(test_per_peer),
        cmocka_unit_test(test_sent), cmocka_unit_test(test_hold_back),
        cmocka_unit_test(test_alone)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_begin_returns), cmocka_unit_test(test_per_peer),
        cmocka_unit_test(test_ready),         cmocka_unit_test(test_sent),
        cmocka_unit_test(test_hold_back),     cmocka_unit_test(test_delay),
        cmocka_unit_test(test_long_lists),    cmocka_unit_test(test_alone),
    };

    if (rank_case_on_gpus()) return RANK_CASE_MAIN("exchange_order", on_gpus);
    return RANK_CASE_MAIN("exchange_order", tests);
}
