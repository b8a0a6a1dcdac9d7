/* What goes wrong, and what every rank is told: COMM-01 (a rank has stopped), COMM-02 (no answer in
 * time), COMM-03 (ranks disagree), and how soon. */
#include "tests/ranks/rank_case.h"

#include "base/clock.h"
#include "base/memory.h"

#define BYTES       256
#define DEADLINE_MS 400
#define LONG_MS     60000
#define STOP_MS     100 /* comm/comm.h: waits end this soon after a stop */
#define ATTEMPTS                                                                                   \
    40 /* of a test of time, on a machine that also does other things; one does on others */

typedef struct fault {
    int wrong_tag, wrong_bytes, wrong_count, not_listed; /* what rank 1 does otherwise */
    int late;                                            /* rank that begins last */
    int way;                                             /* of waiting or failing */
    int64_t since_ns;                                    /* when the fault happened */
    base_status_t waited[RANKS_MAX];                     /* status of the wait */
    unsigned char got[BYTES];
} fault_t;

static const base_device_kind_t devices[] = {BASE_DEVICE_CPU, BASE_DEVICE_STRICT};

static rank_case_t fault_case(int num_ranks, base_device_kind_t device, int64_t deadline_ms,
                              fault_t *fault)
{
    return (rank_case_t){.options = {.num_ranks = num_ranks,
                                     .device = device,
                                     .seed = 3,
                                     .deadline_ms = deadline_ms},
                         .user = fault,
                         .user_bytes = sizeof *fault};
}

/* Rank 0 sends two pieces to rank 1, which sends one back; other ranks list nothing. */
typedef struct two_way {
    base_range_t ranges[3];
    comm_peer_t peer;
    comm_exchange_t ex;
} two_way_t;

static void make_two_way(two_way_t *w, int me, const rank_gear_t *gear)
{
    for (int i = 0; i < 3; i++)
        w->ranges[i] = rank_range(gear->buffer, i * BYTES, BYTES);
    w->peer = (comm_peer_t){.rank = 1 - me,
                            .num_send = me == 0 ? 2 : 1,
                            .num_recv = me == 0 ? 1 : 2,
                            .send = &w->ranges[me == 0 ? 0 : 2],
                            .recv = &w->ranges[me == 0 ? 2 : 0]};
    w->ex = (comm_exchange_t){.tag = {.plan_hash = 0xabc, .microbatch = 7, .layer = 5, .kind = 2},
                              .num_peers = me < 2,
                              .peers = &w->peer};
}

/* Begins the exchange and waits for all of it on the gear's stream. */
static base_status_t exchange(comm_group_t *group, const rank_gear_t *gear, const two_way_t *w)
{
    comm_ticket_t ticket;

    BASE_TRY(comm_exchange_begin(group, COMM_CHANNEL_PING, &w->ex, &ticket));
    BASE_TRY(comm_exchange_arrived_all(group, ticket, gear->stream));
    BASE_TRY(comm_exchange_sent(group, ticket, gear->stream));
    return base_stream_sync(gear->stream);
}

/* ==== COMM-03 ==== */

static base_status_t mismatch_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                   void *user)
{
    rank_case_t *run = user;
    fault_t *fault = run->user;
    const int me = comm_group_rank(group);
    const base_range_t all = {0};
    rank_gear_t gear;
    two_way_t w;
    base_status_t st;

    (void)ctx;
    (void)all;
    BASE_TRY(rank_gear_open(&gear, dev, BASE_STREAM_ASYNC, 4 * BYTES));
    const base_range_t whole = rank_range(gear.buffer, 0, 4 * BYTES);
    BASE_TRY_GOTO(base_fill(gear.stream, &whole, (uint8_t)(me + 1)), st, out);
    BASE_TRY_GOTO(base_stream_sync(gear.stream), st, out);
    make_two_way(&w, me, &gear);
    if (me == 1) {
        w.ex.tag.layer += fault->wrong_tag;
        w.ranges[1].row_bytes -= fault->wrong_bytes;
        w.peer.num_recv -= fault->wrong_count;
        w.ex.num_peers -= fault->not_listed;
    }
    BASE_TRY_GOTO(comm_barrier(group), st, out);
    if (me == fault->late) base_clock_sleep_ns(20000000);
    st = exchange(group, &gear, &w);
    /* Rank 1's list may be wrong by holding nothing to wait for; it learns from its next call. */
    if (st >= 0) st = comm_barrier(group);
    fault->waited[me] = st;
    if (me == 1) {
        base_stream_t *look = NULL; /* the other one may have failed */

        if (base_stream_create(dev, BASE_STREAM_COMPUTE, "look", &look) >= 0 &&
            base_download(look, fault->got, base_mem(gear.buffer, 0), BYTES) >= 0)
            RANK_CHECK(run, me, base_stream_sync(look) >= 0, "cannot look at the buffer");
        base_stream_destroy(look);
    }
out:
    if (st < 0) comm_group_stop(group, NULL);
    rank_gear_close(&gear);
    return st;
}

static void expect_mismatch(fault_t fault, const char *piece)
{
    for (int d = 0; d < 2; d++)
        for (int late = 0; late < 2; late++) {
            fault_t f = fault;
            rank_case_t run = fault_case(3, devices[d], LONG_MS, &f);

            f.late = late;
            rank_case_run(&run, mismatch_rank);
            rank_case_assert_right(&run);
            assert_int_equal(run.status, BASE_ERR_MISMATCH);
            rank_case_assert_error(&run.error, BASE_ERR_MISMATCH, "COMM-03", piece, NULL);
            for (int r = 0; r < 2; r++) {
                assert_int_equal(f.waited[r], BASE_ERR_MISMATCH);
                rank_case_assert_error(&run.of[r].error, BASE_ERR_MISMATCH, "COMM-03",
                                       "channel ping", "rank 0", "rank 1", piece, NULL);
            }
            assert_int_equal(f.waited[2], BASE_ERR_PEER);
            rank_case_assert_error(&run.of[2].error, BASE_ERR_PEER, "COMM-01", "has stopped", piece,
                                   NULL);
            for (int i = 0; i < BYTES; i++) /* not a byte was moved */
                assert_int_equal(f.got[i], 2);
        }
}

static void test_mismatch(void **state)
{
    (void)state;
    expect_mismatch((fault_t){.wrong_tag = 1}, "layer 6");
    expect_mismatch((fault_t){.wrong_bytes = 8}, "1 rows of 256 bytes sent, 1 rows of 248");
    expect_mismatch((fault_t){.wrong_count = 1}, "expects 1 ranges, 256 bytes");
    expect_mismatch((fault_t){.not_listed = 1}, " 0 ranges, 0 bytes");
}

/* ==== COMM-01: a rank fails, the others wait in every way there is ==== */

enum { IN_EXCHANGE, IN_BARRIER, IN_GATHER, IN_BEGIN, NUM_WAYS };

static base_status_t wait_in(comm_group_t *group, const rank_gear_t *gear, const two_way_t *w,
                             int way)
{
    int32_t all[RANKS_MAX] = {0};
    comm_ticket_t ticket;

    if (way == IN_BARRIER) return comm_barrier(group);
    if (way == IN_GATHER) return comm_allgather(group, &all[1], sizeof all[0], all);
    for (int i = 0; way == IN_BEGIN && i < COMM_MAX_OPEN_EXCHANGES; i++)
        BASE_TRY(comm_exchange_begin(group, COMM_CHANNEL_PING, &w->ex, &ticket));
    return exchange(group, gear, w);
}

static base_status_t failing_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                  void *user)
{
    rank_case_t *run = user;
    fault_t *fault = run->user;
    const int me = comm_group_rank(group);
    rank_gear_t gear;
    two_way_t w;
    base_status_t st;

    BASE_TRY(rank_gear_open(&gear, dev, BASE_STREAM_ASYNC, 4 * BYTES));
    make_two_way(&w, me, &gear);
    if (me == 2) /* waits for rank 1 as well */
        w.ex.num_peers = 0;
    st = comm_barrier(group);
    if (st >= 0 && me == 1) {
        base_clock_sleep_ns(30000000);
        fault->since_ns = base_clock_ns();
        st = BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_INT_01, "rank 1: the disk is on fire");
    } else if (st >= 0) {
        st = wait_in(group, &gear, &w, me == 2 ? IN_BARRIER : fault->way);
    }
    fault->waited[me] = st;
    rank_gear_close(&gear);
    return st;
}

/* The slowest rank's time between the fault and its end. */
static int64_t slowest_ms(const rank_case_t *run, int64_t since_ns)
{
    int64_t ns = 0;

    for (int r = 0; r < run->options.num_ranks; r++)
        ns = run->of[r].ended_ns - since_ns > ns ? run->of[r].ended_ns - since_ns : ns;
    return ns / 1000000;
}

static void test_rank_fails(void **state)
{
    (void)state;
    for (int d = 0; d < 2; d++)
        for (int way = 0; way < NUM_WAYS; way++) {
            int64_t best_ms = INT64_MAX;

            for (int i = 0; i < ATTEMPTS && best_ms > STOP_MS; i++) {
                fault_t f = {.way = way};
                rank_case_t run = fault_case(3, devices[d], LONG_MS, &f);

                rank_case_run(&run, failing_rank);
                rank_case_assert_right(&run);
                assert_int_equal(run.status, BASE_ERR_IO);
                rank_case_assert_error(&run.error, BASE_ERR_IO, "INT-01", "disk is on fire", NULL);
                for (int r = 0; r < 3; r += 2) {
                    assert_int_equal(f.waited[r], BASE_ERR_PEER);
                    rank_case_assert_error(&run.of[r].error, BASE_ERR_PEER, "COMM-01",
                                           "rank 1 has stopped", "disk is on fire", NULL);
                }
                const int64_t ms = slowest_ms(&run, f.since_ns);
                best_ms = ms < best_ms ? ms : best_ms;
            }
            assert_in_range(best_ms, 0, STOP_MS);
        }
}

/* ==== COMM-01: a rank ends without doing its part ==== */

static base_status_t leaving_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                  void *user)
{
    rank_case_t *run = user;
    fault_t *fault = run->user;
    const int me = comm_group_rank(group);
    rank_gear_t gear;
    two_way_t w;
    base_status_t st;

    (void)ctx;
    if (me == 1) return BASE_OK;
    BASE_TRY(rank_gear_open(&gear, dev, BASE_STREAM_ASYNC, 4 * BYTES));
    make_two_way(&w, me, &gear);
    w.peer.num_recv -= fault->late; /* with it, only `sent` waits */
    st = wait_in(group, &gear, &w, fault->way);
    fault->waited[me] = st;
    rank_gear_close(&gear);
    return st;
}

static void test_rank_leaves(void **state)
{
    (void)state;
    for (int d = 0; d < 2; d++)
        for (int way = 0; way < NUM_WAYS; way++)
            for (int only_sends = 0; only_sends < 2; only_sends++) {
                fault_t f = {.way = way, .late = only_sends};
                rank_case_t run = fault_case(2, devices[d], LONG_MS, &f);

                rank_case_run(&run, leaving_rank);
                rank_case_assert_right(&run);
                assert_int_equal(run.of[1].status, BASE_OK);
                assert_int_equal(f.waited[0], BASE_ERR_PEER);
                rank_case_assert_error(&run.of[0].error, BASE_ERR_PEER, "COMM-01", "rank 0",
                                       "rank 1", "has ended without beginning it", NULL);
                rank_case_assert_error(&run.error, BASE_ERR_PEER, "COMM-01", NULL);
            }
}

/* Does something else until it is told to stop. */
static int wait_for_stop(const base_ctx_t *ctx)
{
    for (int i = 0; i < LONG_MS && !base_ctx_stop_requested(ctx); i++)
        base_clock_sleep_ns(1000000);
    return base_ctx_stop_requested(ctx);
}

/* A rank that ends while others may still read its buffers is told so. */
static base_status_t careless_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                   void *user)
{
    rank_case_t *run = user;
    const int me = comm_group_rank(group);
    rank_gear_t gear;
    two_way_t w;
    comm_ticket_t ticket;
    base_status_t st = BASE_OK;

    BASE_TRY(rank_gear_open(&gear, dev, BASE_STREAM_ASYNC, 4 * BYTES));
    make_two_way(&w, me, &gear);
    w.peer.num_recv = me == 1 ? 2 : 0;
    w.peer.num_send = me == 1 ? 0 : 2;
    if (me == 0) st = comm_exchange_begin(group, COMM_CHANNEL_PING, &w.ex, &ticket);
    if (me == 1) { /* too late, since rank 0 has ended */
        RANK_CHECK(run, me, wait_for_stop(ctx), "rank 0 ends and nobody is told");
        st = exchange(group, &gear, &w);
    }
    rank_gear_close(&gear);
    return st;
}

static void test_ends_with_open_exchange(void **state)
{
    fault_t f = {0};
    rank_case_t run = fault_case(2, BASE_DEVICE_CPU, LONG_MS, &f);

    (void)state;
    rank_case_run(&run, careless_rank);
    rank_case_assert_right(&run);
    rank_case_assert_error(&run.error, BASE_ERR_STATE, "INT-01", "rank 0",
                           "ended before it was complete", "rank 1", NULL);
    rank_case_assert_error(&run.of[1].error, BASE_ERR_PEER, "COMM-01", "rank 0 has stopped", NULL);
}

/* ==== COMM-02: a rank never begins ==== */

static base_status_t silent_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user)
{
    rank_case_t *run = user;
    fault_t *fault = run->user;
    const int me = comm_group_rank(group);
    rank_gear_t gear;
    two_way_t w;
    base_status_t st;

    BASE_TRY(comm_barrier(group));
    if (me == 1) return wait_for_stop(ctx) ? comm_barrier(group) : BASE_OK;
    BASE_TRY(rank_gear_open(&gear, dev, BASE_STREAM_ASYNC, 4 * BYTES));
    make_two_way(&w, me, &gear);
    w.peer.num_recv -= fault->late;
    if (me == 0) {
        base_ctx_set_deadline_ms(ctx, DEADLINE_MS); /* the only one: rank 0 runs out of it */
        fault->since_ns = base_clock_ns();
    }
    st = wait_in(group, &gear, &w, me == 2 ? IN_BARRIER : fault->way);
    fault->waited[me] = st;
    rank_gear_close(&gear);
    return st;
}

static void test_rank_is_silent(void **state)
{
    (void)state;
    for (int d = 0; d < 2; d++)
        for (int way = 0; way < NUM_WAYS; way++) {
            const int only_sends = way == IN_EXCHANGE ? d : 0;
            int64_t best_ms = INT64_MAX;

            for (int i = 0; i < ATTEMPTS && best_ms > DEADLINE_MS + STOP_MS; i++) {
                fault_t f = {.way = way, .late = only_sends};
                rank_case_t run = fault_case(3, devices[d], LONG_MS, &f);

                rank_case_run(&run, silent_rank);
                rank_case_assert_right(&run);
                assert_int_equal(f.waited[0], BASE_ERR_TIMEOUT);
                rank_case_assert_error(&run.of[0].error, BASE_ERR_TIMEOUT, "COMM-02", "rank 0",
                                       "rank 1", NULL);
                if (way == IN_EXCHANGE)
                    rank_case_assert_error(&run.of[0].error, BASE_ERR_TIMEOUT, "COMM-02",
                                           "channel ping, exchange 1", "kind 2", "layer 5",
                                           "microbatch 7", "has not begun it", NULL);
                assert_int_equal(f.waited[2], BASE_ERR_PEER);
                rank_case_assert_error(&run.of[2].error, BASE_ERR_PEER, "COMM-01",
                                       "rank 0 has stopped", NULL);
                rank_case_assert_error(&run.error, BASE_ERR_TIMEOUT, "COMM-02", NULL);
                const int64_t ms = slowest_ms(&run, f.since_ns);
                best_ms = ms < best_ms ? ms : best_ms;
            }
            assert_in_range(best_ms, DEADLINE_MS / 2, DEADLINE_MS + STOP_MS);
        }
}

/* ==== COMM-02: a rank begins, and what it sends is never ready ==== */

static base_status_t begin_unready(comm_group_t *group, const rank_gear_t *gear, two_way_t *w,
                                   base_counter_t *gate, base_event_t *ready)
{
    comm_ticket_t ticket;

    w->ex.ready = ready;
    BASE_TRY(base_stream_wait_counter(gear->stream, gate, 1));
    BASE_TRY(base_event_record(ready, gear->stream));
    return comm_exchange_begin(group, COMM_CHANNEL_PING, &w->ex, &ticket);
}

static base_status_t unready_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                  void *user)
{
    rank_case_t *run = user;
    fault_t *fault = run->user;
    const int me = comm_group_rank(group);
    base_counter_t *gate = NULL;
    base_event_t *ready = NULL;
    rank_gear_t gear;
    two_way_t w;

    BASE_TRY(rank_gear_open(&gear, dev, BASE_STREAM_ASYNC, 4 * BYTES));
    make_two_way(&w, me, &gear);
    base_status_t st = base_counter_create(dev, &gate);
    if (st >= 0) st = base_event_create(dev, &ready);
    if (st >= 0) st = comm_barrier(group);
    if (st >= 0 && me == 0) {
        base_ctx_set_deadline_ms(ctx, DEADLINE_MS); /* the only one */
        st = exchange(group, &gear, &w);
    } else if (st >= 0) {
        st = begin_unready(group, &gear, &w, gate, ready);
        RANK_CHECK(run, me, wait_for_stop(ctx), "rank 0 waits, and nobody is told");
        if (st >= 0) st = comm_barrier(group);
        base_counter_raise(gate, 1);
    }
    fault->waited[me] = st;
    base_event_destroy(ready);
    rank_gear_close(&gear);
    base_counter_destroy(gate);
    return st;
}

static void test_rank_is_unready(void **state)
{
    (void)state;
    for (int d = 0; d < 2; d++) {
        fault_t f = {0};
        rank_case_t run = fault_case(2, devices[d], LONG_MS, &f);

        rank_case_run(&run, unready_rank);
        rank_case_assert_right(&run);
        assert_int_equal(f.waited[0], BASE_ERR_TIMEOUT);
        rank_case_assert_error(&run.of[0].error, BASE_ERR_TIMEOUT, "COMM-02", "rank 0", "rank 1",
                               "channel ping, exchange 1", "kind 2", "layer 5", "microbatch 7",
                               NULL);
        assert_int_equal(f.waited[1], BASE_ERR_PEER);
        rank_case_assert_error(&run.of[1].error, BASE_ERR_PEER, "COMM-01", "rank 0 has stopped",
                               NULL);
    }
}

/* ==== collectives that differ, arguments, repeated stops ==== */

static base_status_t differing_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                    void *user)
{
    rank_case_t *run = user;
    fault_t *fault = run->user;
    const int me = comm_group_rank(group);
    char mine[8] = {0}, all[8 * RANKS_MAX];

    (void)ctx;
    (void)dev;
    if (me == 2 && fault->way == 0) return fault->waited[me] = comm_barrier(group);
    return fault->waited[me] = comm_allgather(group, mine, me == 2 ? 4 : 8, all);
}

static void test_collectives_differ(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        fault_t f = {.way = way};
        rank_case_t run = fault_case(3, BASE_DEVICE_CPU, LONG_MS, &f);

        rank_case_run(&run, differing_rank);
        for (int r = 0; r < 3; r++) {
            assert_int_equal(f.waited[r], BASE_ERR_MISMATCH);
            rank_case_assert_error(&run.of[r].error, BASE_ERR_MISMATCH, "COMM-03", "rank 2",
                                   way == 0 ? "barrier" : "4 bytes", "8 bytes", NULL);
        }
    }
}

#define EXPECT_ARG(call, piece)                                                                    \
    do {                                                                                           \
        const base_status_t st_ = (call);                                                          \
        base_error_t error_ = {.text = ""};                                                        \
        (void)base_ctx_error(ctx, &error_);                                                        \
        RANK_CHECK(run, me, st_ == BASE_ERR_ARG && strstr(error_.text, piece) != NULL,             \
                   "%s: status %d, text %s", #call, (int)st_, error_.text);                        \
        base_ctx_clear_error(ctx);                                                                 \
    } while (0)

static base_status_t argument_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                   void *user)
{
    rank_case_t *run = user;
    const int me = comm_group_rank(group);
    comm_ticket_t ticket = {0};
    comm_exchange_t ex;
    base_event_t *event = NULL;
    rank_gear_t gear;
    two_way_t w;

    BASE_TRY(rank_gear_open(&gear, dev, BASE_STREAM_ASYNC, 4 * BYTES));
    make_two_way(&w, me, &gear);
    RANK_CHECK(run, me,
               comm_group_size(group) == 2 &&
                   strcmp(comm_group_transport(group), rank_case_transport()) == 0,
               "group");
    EXPECT_ARG(comm_exchange_begin(group, 2, &w.ex, &ticket), "channel 2");
    EXPECT_ARG(comm_exchange_begin(group, -1, &w.ex, &ticket), "channel -1");
    EXPECT_ARG(comm_exchange_begin(group, 0, NULL, &ticket), "no lists");
    EXPECT_ARG(comm_exchange_begin(group, 0, &w.ex, NULL), "ticket");
    w.ranges[2].row_bytes = 3 * BYTES;
    EXPECT_ARG(comm_exchange_begin(group, 0, &w.ex, &ticket), "test");
    make_two_way(&w, me, &gear);
    EXPECT_ARG(comm_exchange_arrived(group, (comm_ticket_t){0, 1}, 0, gear.stream), "exchange 1");
    EXPECT_ARG(comm_exchange_sent(group, (comm_ticket_t){7, 1}, gear.stream), "channel 7");
    EXPECT_ARG(comm_allgather(group, NULL, 4, NULL), "4 bytes");
    EXPECT_ARG(comm_all_reduce(group, &(comm_reduce_t){.count = -1}), "-1 elements");
    /* No exchange: no wait. */
    RANK_CHECK(run, me, comm_exchange_arrived(group, ticket, 1 - me, gear.stream) == BASE_OK,
               "no ticket");
    RANK_CHECK(run, me, comm_exchange_sent(group, ticket, gear.stream) == BASE_OK, "no ticket");
    /* An event that was never recorded is refused, and the group is as before. */
    BASE_TRY(base_event_create(dev, &event));
    ex = w.ex;
    ex.ready = event;
    RANK_CHECK(run, me, comm_exchange_begin(group, 0, &ex, &ticket) == BASE_ERR_STATE,
               "no recording");
    base_ctx_clear_error(ctx);
    ex.after = gear.stream;
    EXPECT_ARG(comm_exchange_begin(group, 0, &ex, &ticket), "both an event and a stream");
    base_event_destroy(event);
    BASE_TRY(exchange(group, &gear, &w));
    /* Stopping twice is legal, and everything after it says so; the other one may be at it before this barrier ends. */
    const base_status_t met = comm_barrier(group);
    RANK_CHECK(run, me, met == BASE_OK || met == BASE_ERR_PEER, "barrier: %d", (int)met);
    comm_group_stop(group, NULL);
    comm_group_stop(group, NULL);
    RANK_CHECK(run, me, comm_barrier(group) < 0, "barrier after a stop");
    RANK_CHECK(run, me, comm_exchange_begin(group, 0, &w.ex, &ticket) < 0, "begin after a stop");
    rank_gear_close(&gear);
    return BASE_OK;
}

static void test_arguments(void **state)
{
    (void)state;
    for (int d = 0; d < 2; d++) {
        fault_t f = {0};
        rank_case_t run = fault_case(2, devices[d], LONG_MS, &f);

        rank_case_run(&run, argument_rank);
        rank_case_assert_right(&run);
        assert_true(run.status < 0);
    }
    for (int i = 0; i < 4 && strcmp(rank_case_transport(), "threads") == 0; i++) {
        const comm_threads_options_t bad[] = {{.num_ranks = 0},
                                              {.num_ranks = COMM_THREADS_MAX_RANKS + 1},
                                              {.num_ranks = 2, .device = BASE_DEVICE_CUDA},
                                              {.num_ranks = 1, .delay_ns = -1}};
        base_error_t error;

        assert_int_equal(comm_threads_run(&bad[i], argument_rank, NULL, &error), BASE_ERR_ARG);
        rank_case_assert_error(&error, BASE_ERR_ARG, "INT-01", "threads transport", NULL);
    }
    comm_group_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mismatch),           cmocka_unit_test(test_rank_fails),
        cmocka_unit_test(test_rank_leaves),        cmocka_unit_test(test_ends_with_open_exchange),
        cmocka_unit_test(test_rank_is_silent),     cmocka_unit_test(test_rank_is_unready),
        cmocka_unit_test(test_collectives_differ), cmocka_unit_test(test_arguments),
    };

    return RANK_CASE_MAIN("exchange_faults", tests);
}
