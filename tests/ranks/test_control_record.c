/* The control record: all ranks learn the same at the same call, whatever pace they have; an event
 * is acted upon everywhere at the same microbatch; ranks out of step are named. */
#include "tests/ranks/rank_case.h"

#include "base/clock.h"
#include "base/memory.h"
#include "comm/control_record.h"

#include <stdlib.h>

#define MICROBATCHES 40
#define WARM_UP      12

static const base_device_kind_t devices[] = {BASE_DEVICE_CPU, BASE_DEVICE_STRICT};

typedef struct control_case {
    int look_ahead;
    int differs;              /* at microbatch 5 rank 1: 1 another plan, 2 another microbatch */
    int64_t ended[RANKS_MAX]; /* microbatches that a rank has done when it acts on the event */
    base_status_t st[RANKS_MAX];
} control_case_t;

static int told(const comm_control_record_t *record, int rank, int64_t microbatch)
{
    for (int e = 0; e < COMM_CONTROL_MAX_EVENTS; e++)
        if (record->events[e].subject != rank * 1000 + microbatch || record->events[e].kind != e)
            return 0;
    return record->num_events == COMM_CONTROL_MAX_EVENTS;
}

/* Rank 1 (0 alone) wants to end at a microbatch of its own choice; all end look_ahead + 1 later. */
static base_status_t loop(rank_case_t *run, comm_group_t *group, base_ctx_t *ctx,
                          base_device_t *dev, comm_control_t *control)
{
    control_case_t *c = run->user;
    const int me = comm_group_rank(group), size = comm_group_size(group);
    const int64_t wanted_end = 17, waits = base_device_waits(dev);
    int64_t calls = 0;

    for (int64_t n = 0; n < MICROBATCHES; n++) {
        comm_control_record_t mine = {.microbatch = n,
                                      .plan_hash = 0xabc + (uint64_t)n,
                                      .wants = me == size - 1 && n == wanted_end,
                                      .num_events = COMM_CONTROL_MAX_EVENTS};
        const comm_control_record_t *all = NULL;
        const int64_t then = n - c->look_ahead;

        for (int e = 0; e < COMM_CONTROL_MAX_EVENTS; e++)
            mine.events[e] = (comm_control_event_t){me * 1000 + (int32_t)n, e};
        if (n == 5 && me == 1) mine.plan_hash += c->differs == 1;
        if (n == 5 && me == 1) mine.microbatch += c->differs == 2;
        if (n == WARM_UP) calls = base_memory_calls(base_ctx_memory(ctx));
        if (me == 0 && n % 7 == 0) base_clock_sleep_ns(2000000); /* not all at one pace */
        BASE_TRY(comm_control_exchange(control, &mine, &all));
        RANK_CHECK(run, me, (all == NULL) == (then < 0), "microbatch %d: records or none", (int)n);
        for (int r = 0; r < size && all != NULL; r++)
            RANK_CHECK(run, me,
                       all[r].microbatch == then && all[r].plan_hash == 0xabc + (uint64_t)then &&
                           told(&all[r], r, then),
                       "microbatch %d: record of rank %d is of %d", (int)n, r,
                       (int)all[r].microbatch);
        for (int r = 0; r < size && all != NULL; r++)
            if (all[r].wants != 0) c->ended[me] = n + 1;
        if (c->ended[me] > 0) break;
    }
    RANK_CHECK(run, me, c->ended[me] == wanted_end + c->look_ahead + 1, "ended after %d",
               (int)c->ended[me]);
    RANK_CHECK(run, me, base_memory_calls(base_ctx_memory(ctx)) == calls,
               "%d allocations after the warm-up",
               (int)(base_memory_calls(base_ctx_memory(ctx)) - calls));
    BASE_TRY(comm_control_finish(control));
    RANK_CHECK(run, me, size > 1 || base_device_waits(dev) == waits, "%d waits of a rank alone",
               (int)(base_device_waits(dev) - waits));
    return BASE_OK;
}

static base_status_t control_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                  void *user)
{
    rank_case_t *run = user;
    control_case_t *c = run->user;
    comm_control_t *control = NULL;
    base_status_t st = comm_control_create(group, dev, c->look_ahead, &control);

    if (st >= 0) st = loop(run, group, ctx, dev, control);
    if (st < 0) comm_group_stop(group, NULL);
    c->st[comm_group_rank(group)] = st;
    comm_control_destroy(control);
    return st;
}

static void test_event_at_the_same_microbatch(void **state)
{
    (void)state;
    for (int size = 1; size <= RANKS_MAX; size++)
        for (int look_ahead = 0; look_ahead <= COMM_CONTROL_MAX_LOOK_AHEAD; look_ahead++) {
            control_case_t c = {.look_ahead = look_ahead};
            rank_case_t run = {.options = {.num_ranks = size,
                                           .device = devices[(size + look_ahead) % 2],
                                           .seed = (uint64_t)size,
                                           .deadline_ms = 60000},
                               .user = &c,
                               .user_bytes = sizeof c};

            rank_case_run(&run, control_rank);
            rank_case_assert_ok(&run);
        }
}

static void test_out_of_step(void **state)
{
    (void)state;
    for (int differs = 1; differs <= 2; differs++) {
        control_case_t c = {.look_ahead = 2, .differs = differs};
        rank_case_t run = {
            .options = {.num_ranks = 3, .device = BASE_DEVICE_CPU, .deadline_ms = 60000},
            .user = &c,
            .user_bytes = sizeof c};

        rank_case_run(&run, control_rank);
        assert_int_equal(run.status, BASE_ERR_MISMATCH);
        rank_case_assert_error(&run.error, BASE_ERR_MISMATCH, "COMM-03",
                               "rank 0 is at microbatch 5", "rank 1 at microbatch",
                               differs == 1 ? "plan 0000000000000ac2" : "at microbatch 6", NULL);
        for (int r = 0; r < 3; r++)
            assert_true(c.st[r] < 0);
    }
}

static base_status_t refused_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                  void *user)
{
    rank_case_t *run = user;
    comm_control_t *control = NULL;

    RANK_CHECK(run, 0,
               comm_control_create(group, dev, COMM_CONTROL_MAX_LOOK_AHEAD + 1, &control) ==
                   BASE_ERR_ARG,
               "a look-ahead of 4");
    base_ctx_clear_error(ctx);
    comm_control_destroy(NULL);
    return BASE_OK;
}

static void test_refused(void **state)
{
    rank_case_t run = {.options = {.num_ranks = 1, .device = BASE_DEVICE_CPU}};

    (void)state;
    rank_case_run(&run, refused_rank);
    rank_case_assert_ok(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event_at_the_same_microbatch),
        cmocka_unit_test(test_out_of_step),
        cmocka_unit_test(test_refused),
    };

    return RANK_CASE_MAIN("control_record", tests);
}
