/* Work of a device that fails or hangs, with every transport: the stream after which an exchange begins, the copies that
 * carry it, bare transfers. All ranks end, what is reported is what happened, and nothing is left behind.
 *
 * Linked with --wrap=base_copy; what stands for NCCL has hooks of its own (tests/support/nccl_fake.h). */
#include "tests/ranks/rank_case.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "comm/bare.h"
#include "comm/mpi.h"
#include "tests/support/nccl_fake.h"

#define RANKS       3
#define VICTIM      1
#define BYTES       4096
#define DEADLINE_MS 800
#define LONG_MS     60000
#define FIRE        "the engine is on fire"

typedef enum fault_kind {
    FAULT_NONE,
    FAULT_REFUSES, /* the call fails */
    FAULT_HANGS    /* nothing moves until the rank is asked to stop */
} fault_kind_t;

typedef struct fault {
    fault_kind_t kind; /* of what the victim moves */
    int packs;         /* nccl: of what it packs for that, instead */
    int late;          /* its stream fails when the exchange has begun, not before */
    int dies;          /* the victim fails while what it moves hangs */
    int told;          /* bare transfers raise counters */
    base_status_t returned[RANKS_MAX];
} fault_t;

static const base_device_kind_t devices[] = {BASE_DEVICE_CPU, BASE_DEVICE_STRICT};

static int has_transport(const char *name)
{
    return strcmp(rank_case_transport(), name) == 0;
}

/* ==== what moves data ==== */

static fault_kind_t copies_have; /* of the victim */

base_status_t __real_base_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src);
base_status_t __wrap_base_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src);

static base_status_t until_stopped(void *args)
{
    base_ctx_t *ctx = *(base_ctx_t **)args;
    const int64_t end_ns = base_clock_ns() + LONG_MS * INT64_C(1000000);

    while (!base_ctx_stop_requested(ctx) && base_clock_ns() < end_ns)
        base_clock_sleep_ns(1000000);
    return BASE_OK;
}

static base_status_t on_fire(void *args)
{
    return BASE_FAIL(*(base_ctx_t **)args, BASE_ERR_DEVICE, BASE_MSG_DEV_01, FIRE);
}

base_status_t __wrap_base_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src)
{
    base_ctx_t *ctx = base_device_ctx(base_stream_device(s));
    const fault_kind_t kind = __atomic_load_n(&copies_have, __ATOMIC_ACQUIRE);

    if (base_ctx_rank(ctx) != VICTIM || kind == FAULT_NONE) return __real_base_copy(s, dst, src);
    if (kind == FAULT_REFUSES) return on_fire(&ctx);
    return base_stream_submit(s, until_stopped, &ctx, sizeof ctx, NULL, 0);
}

/* From when a rank's function begins: what opens a group has moved by then. */
static void set_fault(base_ctx_t *ctx, const fault_t *fault, fault_kind_t kind)
{
    if (base_ctx_rank(ctx) != VICTIM) return;
    if (has_transport("nccl") && !fault->packs)
        nccl_fake_moves(kind == FAULT_NONE      ? NCCL_FAKE_WORKS
                        : kind == FAULT_REFUSES ? NCCL_FAKE_REFUSES
                                                : NCCL_FAKE_HANGS);
    else
        __atomic_store_n(&copies_have, kind, __ATOMIC_RELEASE);
}

/* ==== cases ==== */

static void run_case(comm_rank_fn fn, fault_t *fault, base_device_kind_t device, rank_case_t *run)
{
    *run = (rank_case_t){
        .options = {.num_ranks = RANKS, .device = device, .seed = 3, .deadline_ms = LONG_MS},
        .user = fault,
        .user_bytes = sizeof *fault};
    rank_case_run(run, fn);
    rank_case_assert_right(run);
}

typedef struct lists {
    base_range_t ranges[2 * RANKS];
    comm_peer_t peers[RANKS];
} lists_t;

/* What a rank has while its exchanges are open. */
typedef struct rig {
    rank_gear_t gear;
    lists_t lists[COMM_MAX_OPEN_EXCHANGES + 1];
} rig_t;

/* From everyone to everyone, when all that the stream was given is done. */
static base_status_t begin(comm_group_t *group, rig_t *rig, int number, comm_ticket_t *ticket)
{
    lists_t *l = &rig->lists[number];
    comm_exchange_t ex = {.tag = {.plan_hash = 0xabc, .microbatch = 7, .layer = 5, .kind = 2},
                          .peers = l->peers,
                          .after = rig->gear.stream};

    for (int r = 0; r < RANKS; r++) {
        l->ranges[r] = rank_range(rig->gear.buffer, r * BYTES, BYTES);
        l->ranges[RANKS + r] = rank_range(rig->gear.buffer, (RANKS + r) * BYTES, BYTES);
        if (r != comm_group_rank(group))
            l->peers[ex.num_peers++] = (comm_peer_t){r, 1, 1, &l->ranges[r], &l->ranges[RANKS + r]};
    }
    return comm_exchange_begin(group, COMM_CHANNEL_PING, &ex, ticket);
}

typedef base_status_t (*geared_fn)(rank_case_t *run, comm_group_t *group, base_ctx_t *ctx,
                                   rig_t *rig);

static base_status_t geared(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                            rank_case_t *run, geared_fn fn)
{
    fault_t *fault = run->user;
    rig_t rig;
    base_status_t st = rank_gear_open(&rig.gear, dev, BASE_STREAM_ASYNC, 2 * RANKS * BYTES);

    if (st >= 0) st = comm_barrier(group);
    set_fault(ctx, fault, fault->kind);
    if (st >= 0) st = fn(run, group, ctx, &rig);
    if (st < 0) comm_group_stop(group, NULL); /* before anything goes */
    set_fault(ctx, fault, FAULT_NONE);
    fault->returned[comm_group_rank(group)] = st;
    rank_gear_close(&rig.gear);
    return st;
}

#define GEARED(name)                                                                               \
    static base_status_t name(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,            \
                              void *user)                                                          \
    {                                                                                              \
        return geared(group, ctx, dev, user, name##_geared);                                       \
    }

/* What the victim found; that it was the victim; and that the others were told. */
static void assert_fire(const rank_case_t *run)
{
    rank_case_assert_error(&run->error, BASE_ERR_DEVICE, "DEV-01", FIRE, NULL);
    assert_int_equal(run->error.rank, VICTIM);
    for (int r = 0; r < RANKS; r++)
        if (r != VICTIM)
            rank_case_assert_error(&run->of[r].error, BASE_ERR_PEER, "COMM-01",
                                   "rank 1 has stopped", FIRE, NULL);
}

/* ==== the stream after which an exchange begins ==== */

static base_status_t after_geared(rank_case_t *run, comm_group_t *group, base_ctx_t *ctx,
                                  rig_t *rig)
{
    const fault_t *fault = run->user;
    const int me = comm_group_rank(group);
    base_stream_t *stream = rig->gear.stream;
    comm_ticket_t ticket;

    if (me == VICTIM && !fault->late) {
        BASE_TRY(base_stream_submit(stream, on_fire, &ctx, sizeof ctx, NULL, 0));
        RANK_CHECK(run, me, base_stream_sync(stream) == BASE_ERR_DEVICE, "it has not failed");
    }
    base_status_t st = begin(group, rig, 0, &ticket);
    if (me == VICTIM && !fault->late)
        RANK_CHECK(run, me, st == BASE_ERR_DEVICE, "begin returns %s", base_status_name(st));
    BASE_TRY(st);
    if (me == VICTIM) BASE_TRY(base_stream_submit(stream, on_fire, &ctx, sizeof ctx, NULL, 0));
    BASE_TRY(comm_exchange_complete(group, ticket, stream));
    BASE_TRY(base_stream_sync(stream));
    return comm_barrier(group);
}
GEARED(after)

static void test_after_a_failed_stream(void **state)
{
    (void)state;
    for (int d = 0; d < 2; d++)
        for (int late = 0; late < 2; late++) {
            fault_t fault = {.late = late};
            rank_case_t run;

            run_case(after, &fault, devices[d], &run);
            assert_int_equal(fault.returned[VICTIM], BASE_ERR_DEVICE);
            assert_fire(&run);
        }
}

/* ==== a stream that hangs: nothing is ready, and begin has no room ==== */

static base_status_t hanging_geared(rank_case_t *run, comm_group_t *group, base_ctx_t *ctx,
                                    rig_t *rig)
{
    const int me = comm_group_rank(group);
    base_status_t st = BASE_OK;
    comm_ticket_t ticket;

    if (me != VICTIM) { /* begins none: the victim waits for itself */
        RANK_CHECK(run, me, until_stopped(&ctx) == BASE_OK && base_ctx_stop_requested(ctx),
                   "rank 1 waits, and nobody is told");
        return comm_barrier(group);
    }
    base_ctx_set_deadline_ms(ctx, DEADLINE_MS); /* the only one */
    BASE_TRY(base_stream_submit(rig->gear.stream, until_stopped, &ctx, sizeof ctx, NULL, 0));
    for (int i = 0; i <= COMM_MAX_OPEN_EXCHANGES && st >= 0; i++) {
        st = begin(group, rig, i, &ticket);
        RANK_CHECK(run, me, (st < 0) == (i == COMM_MAX_OPEN_EXCHANGES), "begin %d returns %s", i,
                   base_status_name(st));
    }
    return st;
}
GEARED(hanging)

static void test_hanging_stream(void **state)
{
    (void)state;
    for (int d = 0; d < 2; d++) {
        fault_t fault = {0};
        rank_case_t run;

        run_case(hanging, &fault, devices[d], &run);
        rank_case_assert_error(&run.error, BASE_ERR_TIMEOUT, "COMM-02", "rank 1",
                               "channel ping, exchange 1", NULL);
        rank_case_assert_error(&run.of[2].error, BASE_ERR_PEER, "COMM-01", "rank 1 has stopped",
                               NULL);
    }
}

/* ==== what carries an exchange ==== */

static base_status_t carried_geared(rank_case_t *run, comm_group_t *group, base_ctx_t *ctx,
                                    rig_t *rig)
{
    const fault_t *fault = run->user;
    const int me = comm_group_rank(group);
    comm_ticket_t ticket;

    if (me == 0 && fault->kind == FAULT_HANGS && !fault->dies)
        base_ctx_set_deadline_ms(ctx, DEADLINE_MS); /* the only one */
    BASE_TRY(begin(group, rig, 0, &ticket));
    if (me == VICTIM && fault->dies) {
        base_clock_sleep_ns(20000000); /* by now the others owe it nothing, and it them all */
        return on_fire(&ctx);
    }
    BASE_TRY(comm_exchange_complete(group, ticket, rig->gear.stream));
    BASE_TRY(base_stream_sync(rig->gear.stream));
    return comm_barrier(group);
}
GEARED(carried)

static int has_carrier(void)
{
    return has_transport("copy_engine") || has_transport("nccl");
}

static void test_move_refused(void **state)
{
    (void)state;
    for (int i = 0; i < 4 && has_carrier(); i++) {
        fault_t fault = {.kind = FAULT_REFUSES, .packs = i / 2};
        rank_case_t run;

        run_case(carried, &fault, devices[i % 2], &run);
        if (has_transport("copy_engine") || fault.packs)
            assert_fire(&run);
        else
            rank_case_assert_error(&run.error, BASE_ERR_COMM, "COMM-04", "rank 1: ncclGroupEnd",
                                   NULL);
        for (int r = 0; r < RANKS; r++)
            assert_true(fault.returned[r] < 0);
        rank_case_assert_error(&run.of[2].error, BASE_ERR_PEER, "COMM-01", "rank 1 has stopped",
                               NULL);
    }
}

/* A peer that has begun and is ready, and does not fetch. NCCL finds out by itself. */
static void test_move_hangs(void **state)
{
    (void)state;
    for (int d = 0; d < 2 && has_carrier(); d++) {
        fault_t fault = {.kind = FAULT_HANGS};
        rank_case_t run;

        run_case(carried, &fault, devices[d], &run);
        if (has_transport("copy_engine"))
            rank_case_assert_error(&run.error, BASE_ERR_TIMEOUT, "COMM-02", "rank 0: channel ping",
                                   "kind 2, layer 5, microbatch 7", "was not fetched by rank 1",
                                   "it has begun it, and the data is on its way", NULL);
        else
            rank_case_assert_error(&run.error, BASE_ERR_COMM, "COMM-04", "rank 1: a transfer",
                                   NULL);
    }
}

/* It fails while copies of it are under way: the others are told what it found, and wait for nothing. */
static void test_dies_owing(void **state)
{
    (void)state;
    for (int d = 0; d < 2 && has_carrier(); d++) {
        fault_t fault = {.kind = FAULT_HANGS, .dies = 1};
        rank_case_t run;

        run_case(carried, &fault, devices[d], &run);
        if (has_transport("copy_engine")) assert_fire(&run);
        assert_true(run.status == BASE_ERR_DEVICE || run.status == BASE_ERR_COMM);
    }
}

/* ==== a rank for which NCCL makes no communicator ==== */

/* The others wait for it within NCCL, which tells them nothing. */
static void test_nccl_refuses(void **state)
{
    const nccl_fake_meets_t ways[] = {NCCL_FAKE_REFUSES_TO, NCCL_FAKE_BREAKS};
    int rank = 0, size = 0;

    (void)state;
    (void)comm_mpi_launched(&rank, &size);
    for (int i = 0; i < 2 && has_transport("nccl"); i++) {
        fault_t fault = {0};
        rank_case_t run;

        if (rank == VICTIM) nccl_fake_meets(ways[i]);
        const int64_t begin_ns = base_clock_ns();
        run_case(after, &fault, BASE_DEVICE_CPU, &run);
        const int64_t ms = (base_clock_ns() - begin_ns) / 1000000;
        nccl_fake_meets(NCCL_FAKE_MEETS);
        assert_in_range(ms, 0, LONG_MS / 2); /* their deadline is LONG_MS, less a second */
        rank_case_assert_error(&run.error, BASE_ERR_COMM, "COMM-04",
                               "rank 1: ncclCommInitRankConfig", NULL);
    }
}

/* ==== bare transfers, round the ranks ==== */

static base_status_t bare_geared(rank_case_t *run, comm_group_t *group, base_ctx_t *ctx, rig_t *rig)
{
    const fault_t *fault = run->user;
    const int me = comm_group_rank(group);
    const rank_gear_t *gear = &rig->gear;
    const comm_bare_t bare = {.to = (me + 1) % RANKS,
                              .from = (me + RANKS - 1) % RANKS,
                              .send = base_mem(gear->buffer, 0),
                              .recv = base_mem(gear->buffer, 2 * BYTES),
                              .bytes = BYTES,
                              .depth = 2,
                              .repeat = 5,
                              .told = fault->told};
    const base_range_t out = rank_range(gear->buffer, 0, 2 * BYTES);
    unsigned char got[2 * BYTES];
    int64_t ns = -1;

    (void)ctx;
    BASE_TRY(base_fill(gear->stream, &out, (uint8_t)(me + 1)));
    BASE_TRY(base_stream_sync(gear->stream));
    BASE_TRY(comm_bare_run(group, &bare, &ns));
    RANK_CHECK(run, me, ns >= 0, "no time");
    BASE_TRY(base_download(gear->stream, got, base_mem(gear->buffer, 2 * BYTES), 2 * BYTES));
    BASE_TRY(base_stream_sync(gear->stream));
    for (int i = 0; i < 2 * BYTES; i++)
        RANK_CHECK(run, me, got[i] == bare.from + 1, "byte %d is %d of rank %d", i, got[i],
                   bare.from);
    return comm_barrier(group);
}
GEARED(bare)

static void test_bare(void **state)
{
    (void)state;
    for (int d = 0; d < (has_transport("mpi") ? 1 : 2); d++) /* MPI's own: cpu only */
        for (int told = 0; told < 2; told++) {
            fault_t fault = {.told = told};
            rank_case_t run;

            run_case(bare, &fault, devices[d], &run);
            rank_case_assert_ok(&run);
            if (has_transport("mpi")) continue; /* which no hook reaches */
            fault.kind = FAULT_REFUSES;
            run_case(bare, &fault, devices[d], &run);
            if (has_transport("nccl"))
                rank_case_assert_error(&run.error, BASE_ERR_COMM, "COMM-04", "rank 1: ncclGroupEnd",
                                       NULL);
            else
                assert_fire(&run);
            for (int r = 0; r < RANKS; r++)
                assert_true(fault.returned[r] < 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_after_a_failed_stream),
                                       cmocka_unit_test(test_hanging_stream),
                                       cmocka_unit_test(test_move_refused),
                                       cmocka_unit_test(test_move_hangs),
                                       cmocka_unit_test(test_dies_owing),
                                       cmocka_unit_test(test_nccl_refuses),
                                       cmocka_unit_test(test_bare)};

    return RANK_CASE_MAIN("stream_faults", tests);
}
