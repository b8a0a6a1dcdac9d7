/* Two exchanges that share one completion (comm/exchange.h, COMM_TWO_BYTES), with the transports that do that: when they do, when
 * they must not, and that the first of a two is done also when no second ever comes.
 *
 * The stream that carries exchange 1 is held up, so that nothing behind it can be done; what is given meanwhile is counted. Linked
 * with --wrap=base_copy, base_stream_signal, base_stream_signal_all and comm_nccl_link_move. */
#include "tests/ranks/rank_case.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "comm/exchange.h"
#include "comm/nccl_link.h"

#define RECEIVER 1
#define BYTES    4096
#define LARGE    (COMM_TWO_BYTES + BYTES)
#define MOST     5 /* exchanges: the first is held up, 2 and 3 are a two, 4 and 5 the next */
#define WAIT_NS  INT64_C(50000000000)

typedef struct scene {
    int num;       /* exchanges */
    int large;     /* which of them is; 0: none */
    int owes_4;    /* 4 is not told of by itself while the stream is held up */
    int waits_for; /* told of meanwhile, by this number; 0: none is */
} scene_t;

/* ==== what is given to the receiver's streams: of this process, atomic builtins ==== */

static int is_counted; /* from when the exchanges begin */
static int is_held;    /* nothing behind the first copy runs */
static int num_moves;  /* exchanges whose data is given */
static int told[MOST + 1];

static base_status_t until_released(void *args)
{
    const int64_t end_ns = base_clock_ns() + WAIT_NS;

    (void)args;
    while (__atomic_load_n(&is_held, __ATOMIC_ACQUIRE) && base_clock_ns() < end_ns)
        base_clock_sleep_ns(1000000);
    return BASE_OK;
}

static base_status_t before_move(base_stream_t *s)
{
    if (!__atomic_load_n(&is_counted, __ATOMIC_ACQUIRE)) return BASE_OK;
    if (__atomic_fetch_add(&num_moves, 1, __ATOMIC_ACQ_REL) > 0) return BASE_OK;
    return base_stream_submit(s, until_released, NULL, 0, NULL, 0);
}

static void count(uint64_t value)
{
    if (__atomic_load_n(&is_counted, __ATOMIC_ACQUIRE) && value <= MOST)
        (void)__atomic_add_fetch(&told[value], 1, __ATOMIC_ACQ_REL);
}

base_status_t __real_base_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src);
base_status_t __wrap_base_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src);
base_status_t __real_base_stream_signal(base_stream_t *s, base_counter_t *c, uint64_t value);
base_status_t __wrap_base_stream_signal(base_stream_t *s, base_counter_t *c, uint64_t value);
base_status_t __real_base_stream_signal_all(base_stream_t *s, const base_signal_t *signals,
                                            int num);
base_status_t __wrap_base_stream_signal_all(base_stream_t *s, const base_signal_t *signals,
                                            int num);
base_status_t __real_comm_nccl_link_move(comm_nccl_link_t *link, base_stream_t *stream,
                                         const comm_nccl_piece_t *pieces, int num);
base_status_t __wrap_comm_nccl_link_move(comm_nccl_link_t *link, base_stream_t *stream,
                                         const comm_nccl_piece_t *pieces, int num);

base_status_t __wrap_base_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src)
{
    BASE_TRY(before_move(s));
    return __real_base_copy(s, dst, src);
}

base_status_t __wrap_comm_nccl_link_move(comm_nccl_link_t *link, base_stream_t *stream,
                                         const comm_nccl_piece_t *pieces, int num)
{
    BASE_TRY(before_move(stream));
    return __real_comm_nccl_link_move(link, stream, pieces, num);
}

base_status_t __wrap_base_stream_signal(base_stream_t *s, base_counter_t *c, uint64_t value)
{
    BASE_TRY(__real_base_stream_signal(s, c, value));
    count(value);
    return BASE_OK;
}

base_status_t __wrap_base_stream_signal_all(base_stream_t *s, const base_signal_t *signals, int num)
{
    BASE_TRY(__real_base_stream_signal_all(s, signals, num));
    count(signals[0].value);
    return BASE_OK;
}

static void hold(void)
{
    __atomic_store_n(&num_moves, 0, __ATOMIC_RELEASE);
    for (int i = 0; i <= MOST; i++)
        __atomic_store_n(&told[i], 0, __ATOMIC_RELEASE);
    __atomic_store_n(&is_held, 1, __ATOMIC_RELEASE);
    __atomic_store_n(&is_counted, 1, __ATOMIC_RELEASE);
}

static void release(void)
{
    __atomic_store_n(&is_held, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&is_counted, 0, __ATOMIC_RELEASE);
}

static int reaches(const int *number, int wanted)
{
    const int64_t end_ns = base_clock_ns() + WAIT_NS;

    while (__atomic_load_n(number, __ATOMIC_ACQUIRE) < wanted && base_clock_ns() < end_ns)
        base_clock_sleep_ns(100000);
    return __atomic_load_n(number, __ATOMIC_ACQUIRE) >= wanted;
}

/* ==== a scene ==== */

static base_range_t piece(const scene_t *scene, rank_gear_t *gear, int number)
{
    return number == scene->large ? rank_range(gear->buffer, MOST * BYTES, LARGE)
                                  : rank_range(gear->buffer, (number - 1) * BYTES, BYTES);
}

static base_status_t check_arrived(rank_case_t *run, rank_gear_t *gear, const base_range_t *r,
                                   int number)
{
    const int64_t last = r->mem.offset + r->row_bytes - BYTES;
    unsigned char got[BYTES];

    BASE_TRY(base_download(gear->stream, got, base_mem(gear->buffer, last), BYTES));
    BASE_TRY(base_stream_sync(gear->stream));
    for (int i = 0; i < BYTES; i++)
        RANK_CHECK(run, RECEIVER, got[i] == 60 + number, "exchange %d: byte %d of its end is %d",
                   number, i, got[i]);
    return BASE_OK;
}

/* What has been told of while the stream was held up. */
static void check_told(rank_case_t *run, const scene_t *scene)
{
    RANK_CHECK(run, RECEIVER, reaches(&num_moves, scene->num), "%d of %d are given", num_moves,
               scene->num);
    RANK_CHECK(run, RECEIVER, reaches(&told[1], 1), "1 is not told of");
    if (scene->waits_for > 0)
        RANK_CHECK(run, RECEIVER, reaches(&told[scene->waits_for], 1), "%d is not told of",
                   scene->waits_for);
    else
        base_clock_sleep_ns(20000000); /* time for what must not come */
    RANK_CHECK(run, RECEIVER, reaches(&told[4], !scene->owes_4), "4 is not told of by itself");
    RANK_CHECK(run, RECEIVER, !scene->owes_4 || told[4] == 0, "4 is told of by itself");
    RANK_CHECK(run, RECEIVER, told[1] == 1 && told[4] <= 1 && told[5] <= 1,
               "told of more than once");
}

static base_status_t run_scene(rank_case_t *run, comm_group_t *group, rank_gear_t *gear)
{
    const scene_t *scene = run->user;
    const int me = comm_group_rank(group);
    base_range_t pieces[MOST + 1];
    comm_peer_t peers[MOST + 1];
    comm_ticket_t tickets[MOST + 1];

    for (int i = 1; i <= scene->num; i++) {
        pieces[i] = piece(scene, gear, i);
        peers[i] = (comm_peer_t){1 - me, me != RECEIVER, me == RECEIVER, &pieces[i], &pieces[i]};
        BASE_TRY(base_fill(gear->stream, &pieces[i], (uint8_t)(me != RECEIVER ? 60 + i : 0)));
    }
    BASE_TRY(base_stream_sync(gear->stream));
    BASE_TRY(comm_barrier(group));
    if (me == RECEIVER) hold();
    for (int i = 1; i <= scene->num; i++) {
        const comm_exchange_t ex = {.tag = {.microbatch = i}, .num_peers = 1, .peers = &peers[i]};

        BASE_TRY(comm_exchange_begin(group, COMM_CHANNEL_PING, &ex, &tickets[i]));
    }
    if (me == RECEIVER) check_told(run, scene);
    release();
    for (int i = scene->num; i >= 1; i--) {
        BASE_TRY(comm_exchange_complete(group, tickets[i], gear->stream));
        BASE_TRY(base_stream_sync(gear->stream));
        if (me == RECEIVER) BASE_TRY(check_arrived(run, gear, &pieces[i], i));
    }
    return comm_barrier(group);
}

static base_status_t play(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    rank_gear_t gear;
    base_status_t st = rank_gear_open(&gear, dev, BASE_STREAM_ASYNC, MOST * BYTES + LARGE);

    (void)ctx;
    if (st >= 0) st = run_scene(user, group, &gear);
    release();
    if (st < 0) comm_group_stop(group, NULL);
    rank_gear_close(&gear);
    return st;
}

static void play_on_both(scene_t scene)
{
    const base_device_kind_t devices[] = {BASE_DEVICE_CPU, BASE_DEVICE_STRICT};

    for (int d = 0; d < 2; d++) {
        rank_case_t run = {.options = {.num_ranks = 2, .device = devices[d], .deadline_ms = 60000},
                           .user = &scene,
                           .user_bytes = sizeof scene};

        rank_case_run(&run, play);
        rank_case_assert_ok(&run);
    }
}

/* ==== cases ==== */

static void test_two_share_one(void **state)
{
    (void)state;
    play_on_both((scene_t){.num = 5, .owes_4 = 1, .waits_for = 5});
}

/* Told of when nothing that was given before still runs: else this ends with the deadline. */
static void test_one_without_a_second(void **state)
{
    (void)state;
    play_on_both((scene_t){.num = 4, .owes_4 = 1});
}

static void test_a_large_first(void **state)
{
    (void)state;
    play_on_both((scene_t){.num = 4, .large = 4, .waits_for = 4});
}

static void test_a_large_second(void **state)
{
    (void)state;
    play_on_both((scene_t){.num = 5, .large = 5, .waits_for = 5});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_share_one), cmocka_unit_test(test_one_without_a_second),
        cmocka_unit_test(test_a_large_first), cmocka_unit_test(test_a_large_second)};

    return RANK_CASE_MAIN("completions", tests);
}
