/* Exchanges that share one completion (comm/share.h), with the transports that do that: when they do, when they must not, and
 * that those of which no other one comes behind are done all the same.
 *
 * The stream that carries exchange 1 is held up, so that nothing behind it can be done; what is given meanwhile is counted. Linked
 * with --wrap=base_copy, base_stream_signal, base_stream_signal_all and comm_nccl_link_move. */
#include "tests/ranks/rank_case.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "comm/nccl_link.h"
#include "comm/share.h"

#define RECEIVER 1
#define BYTES    4096
#define LARGE    (COMM_SHARE_BYTES / 2)
#define TOO_LONG (COMM_SHARE_BYTES / 2 + BYTES)
#define MOST     11 /* exchanges: 4 to 7 may go by another stream, 8 to 11 go by that of 1 to 3 */
#define WAIT_NS  INT64_C(50000000000)

typedef struct scene {
    int num;                 /* exchanges */
    int64_t bytes[MOST + 1]; /* 0: BYTES */
    int empty;               /* the exchange that moves nothing; 0: none */
    int waits_for;           /* is told of while the stream is held up; 0: none is */
    int owed[2];             /* are not, by themselves; 0: none */
    int dependent;           /* 1: they may wait for each other */
    int flag;                /* between the ranks */
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

static int now(const int *number)
{
    return __atomic_load_n(number, __ATOMIC_ACQUIRE);
}

static int reaches(const int *number, int wanted)
{
    const int64_t end_ns = base_clock_ns() + WAIT_NS;

    while (now(number) < wanted && base_clock_ns() < end_ns)
        base_clock_sleep_ns(100000);
    return now(number) >= wanted;
}

/* ==== a scene ==== */

static int64_t bytes_of(const scene_t *scene, int number)
{
    return scene->bytes[number] > 0 ? scene->bytes[number] : BYTES;
}

static int64_t bytes_before(const scene_t *scene, int number)
{
    int64_t bytes = 0;

    for (int i = 1; i < number; i++)
        bytes += bytes_of(scene, i);
    return bytes;
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

static int is_copied(void)
{
    return strcmp(rank_case_transport(), "copy_engine") == 0;
}

/* What has been told of while the stream was held up. */
static void check_told(rank_case_t *run, const scene_t *scene)
{
    /* Of copies there is none then; NCCL has a group of nothing. */
    const int wanted = scene->num - (scene->empty > 0 && is_copied());

    RANK_CHECK(run, RECEIVER, reaches(&num_moves, wanted), "%d of %d are given", now(&num_moves),
               wanted);
    if (scene->waits_for > 0)
        RANK_CHECK(run, RECEIVER, reaches(&told[scene->waits_for], 1), "%d is not told of",
                   scene->waits_for);
    else
        base_clock_sleep_ns(20000000); /* time for what must not come */
    for (int k = 0; k < 2; k++)
        RANK_CHECK(run, RECEIVER, scene->owed[k] == 0 || now(&told[scene->owed[k]]) == 0,
                   "%d is told of by itself", scene->owed[k]);
    for (int i = 1; i <= MOST; i++)
        RANK_CHECK(run, RECEIVER, now(&told[i]) <= 1, "%d is told of %d times", i, now(&told[i]));
}

/* The first by itself: it is told of, since nothing was given before it. */
static base_status_t begin_all(rank_case_t *run, comm_group_t *group, const comm_peer_t *peers,
                               comm_ticket_t *tickets)
{
    const scene_t *scene = run->user;
    const int me = comm_group_rank(group);

    for (int i = 1; i <= scene->num; i++) {
        const comm_exchange_t ex = {.tag = {.microbatch = i},
                                    .num_peers = i != scene->empty,
                                    .peers = &peers[i],
                                    .independent = !scene->dependent};

        BASE_TRY(comm_exchange_begin(group, COMM_CHANNEL_PING, &ex, &tickets[i]));
        if (i == 1 && me == RECEIVER)
            RANK_CHECK(run, me, reaches(&told[1], 1), "the first is not told of");
    }
    return BASE_OK;
}

static base_status_t run_scene(rank_case_t *run, comm_group_t *group, rank_gear_t *gear)
{
    const scene_t *scene = run->user;
    const int me = comm_group_rank(group);
    base_range_t pieces[MOST + 1];
    comm_peer_t peers[MOST + 1];
    comm_ticket_t tickets[MOST + 1];

    for (int i = 1; i <= scene->num; i++) {
        pieces[i] = rank_range(gear->buffer, bytes_before(scene, i), bytes_of(scene, i));
        peers[i] = (comm_peer_t){1 - me, me != RECEIVER, me == RECEIVER, &pieces[i], &pieces[i]};
        BASE_TRY(base_fill(gear->stream, &pieces[i], (uint8_t)(me != RECEIVER ? 60 + i : 0)));
    }
    BASE_TRY(base_stream_sync(gear->stream));
    BASE_TRY(comm_barrier(group));
    if (me == RECEIVER) hold();
    BASE_TRY(begin_all(run, group, peers, tickets));
    if (me == RECEIVER) check_told(run, scene);
    release();
    for (int i = scene->num; i >= 1; i--) {
        BASE_TRY(comm_exchange_complete(group, tickets[i], gear->stream));
        BASE_TRY(base_stream_sync(gear->stream));
        if (me == RECEIVER && i != scene->empty) BASE_TRY(check_arrived(run, gear, &pieces[i], i));
    }
    return comm_barrier(group);
}

/* The sender is ready for exchange 3 when the receiver, which has been for long, has exchange 2. */
static base_status_t until_flagged(void *args)
{
    (void)rank_flag_wait(*(int **)args, WAIT_NS / 1000000);
    return BASE_OK;
}

static base_status_t run_waiting(rank_case_t *run, comm_group_t *group, rank_gear_t *gear)
{
    scene_t *scene = run->user;
    int *flag = &scene->flag;
    const int me = comm_group_rank(group);
    const base_range_t piece = rank_range(gear->buffer, 0, BYTES);
    const comm_peer_t peer = {1 - me, me != RECEIVER, me == RECEIVER, &piece, &piece};
    comm_exchange_t ex = {.num_peers = 1, .peers = &peer};
    comm_ticket_t tickets[4];

    BASE_TRY(comm_barrier(group));
    if (me == RECEIVER) hold();
    for (int i = 1; i <= 3; i++) {
        if (i == 3 && me != RECEIVER) {
            BASE_TRY(base_stream_submit(gear->stream, until_flagged, &flag, sizeof flag, NULL, 0));
            ex.after = gear->stream;
        }
        BASE_TRY(comm_exchange_begin(group, COMM_CHANNEL_PING, &ex, &tickets[i]));
        if (i == 1 && me == RECEIVER)
            RANK_CHECK(run, me, reaches(&told[1], 1), "the first is not told of");
    }
    if (me == RECEIVER) {
        RANK_CHECK(run, me, reaches(&num_moves, 2), "%d of 2 are given", now(&num_moves));
        base_clock_sleep_ns(20000000); /* time for the third's */
        release();
        BASE_TRY(comm_exchange_complete(group, tickets[2], gear->stream));
        BASE_TRY(base_stream_sync(gear->stream));
        rank_flag_set(flag);
    }
    BASE_TRY(comm_exchange_complete(group, tickets[3], gear->stream));
    BASE_TRY(base_stream_sync(gear->stream));
    return comm_barrier(group);
}

static base_status_t play(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    rank_case_t *run = user;
    rank_gear_t gear;
    base_status_t st =
        rank_gear_open(&gear, dev, BASE_STREAM_ASYNC, bytes_before(run->user, MOST + 1));

    (void)ctx;
    const scene_t *scene = run->user;
    if (st >= 0 && scene->num > 0) st = run_scene(run, group, &gear);
    if (st >= 0 && scene->num == 0) st = run_waiting(run, group, &gear);
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

static void test_the_last_tells_of_all(void **state)
{
    (void)state;
    play_on_both((scene_t){.num = 3, .waits_for = 3, .owed = {2}});
    play_on_both((scene_t){.num = 11, .waits_for = 11, .owed = {8, 10}});
}

/* Told of when nothing that was given before still runs: else this ends with the deadline. */
static void test_nothing_behind_it(void **state)
{
    (void)state;
    play_on_both((scene_t){.num = 2, .owed = {2}});
    play_on_both((scene_t){.num = 10, .owed = {8, 10}});
}

static void test_as_many_as_fit(void **state)
{
    (void)state;
    play_on_both(
        (scene_t){.num = 9, .bytes[8] = LARGE, .bytes[9] = LARGE, .waits_for = 9, .owed = {8}});
    play_on_both((scene_t){
        .num = 10, .bytes[8] = LARGE, .bytes[10] = LARGE, .waits_for = 9, .owed = {8, 10}});
}

/* Of four the last has nothing from this peer: the next four do not wait for it. */
static void test_an_empty_last(void **state)
{
    (void)state;
    play_on_both((scene_t){.num = 9, .empty = 3, .waits_for = is_copied() ? 2 : 3, .owed = {8, 9}});
}

static void test_too_long(void **state)
{
    (void)state;
    play_on_both((scene_t){.num = 2, .bytes[2] = TOO_LONG, .waits_for = 2});
    play_on_both((scene_t){.num = 9, .bytes[8] = TOO_LONG, .waits_for = 8, .owed = {9}});
}

/* What may wait for another is told of by itself where a stream waits for peers, and else when there is nothing before it. */
static void test_ranks_that_wait(void **state)
{
    (void)state;
    if (!is_copied()) play_on_both((scene_t){.num = 3, .waits_for = 2, .dependent = 1});
    play_on_both((scene_t){.num = 0});
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_last_tells_of_all),
                                       cmocka_unit_test(test_nothing_behind_it),
                                       cmocka_unit_test(test_as_many_as_fit),
                                       cmocka_unit_test(test_an_empty_last),
                                       cmocka_unit_test(test_too_long),
                                       cmocka_unit_test(test_ranks_that_wait)};

    return RANK_CASE_MAIN("completions", tests);
}
