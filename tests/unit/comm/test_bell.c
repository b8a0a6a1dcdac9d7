/* The bell of a desk: whoever listens is woken by the next ring, also by one that comes as it lies down. */
#include "tests/support/ctx_fixture.h"

#include "comm/copy_engine_state.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdlib.h>

#define TURNS    20000
#define LIMIT_NS INT64_C(20000000000) /* a lost ring takes this long */

/* Each waits for its own bell and rings the other's. */
typedef struct player {
    comm_copy_desk_t *mine, *other;
    int starts, late; /* late: rings that were lost */
} player_t;

static void *play(void *arg)
{
    player_t *p = arg;

    if (p->starts) comm_copy_ring(p->other);
    for (uint32_t turn = 0; turn < TURNS && p->late == 0; turn++) {
        const int64_t start_ns = base_clock_ns();

        while (__atomic_load_n(&p->mine->bell, __ATOMIC_ACQUIRE) == turn)
            comm_copy_listen(p->mine, turn, LIMIT_NS);
        p->late += base_clock_ns() - start_ns >= LIMIT_NS;
        comm_copy_ring(p->other);
    }
    return NULL;
}

static void test_no_ring_is_lost(void **state)
{
    comm_copy_desk_t *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
    player_t first = {.mine = a, .other = b, .starts = 1}, second = {.mine = b, .other = a};
    pthread_t thread;

    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(pthread_create(&thread, NULL, play, &second), 0);
    (void)play(&first);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(first.late + second.late, 0);
    assert_int_equal(a->listening + b->listening, 0);
    free(a);
    free(b);
}

/* Nothing is rung: it returns, and not at once. */
static void test_time_ends(void **state)
{
    comm_copy_desk_t *desk = calloc(1, sizeof *desk);
    const int64_t start_ns = base_clock_ns();

    (void)state;
    assert_non_null(desk);
    while (base_clock_ns() - start_ns < 20000000)
        comm_copy_listen(desk, 0, 20000000);
    comm_copy_ring(desk);
    comm_copy_listen(desk, 0, LIMIT_NS);
    assert_true(base_clock_ns() - start_ns < LIMIT_NS);
    free(desk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_ring_is_lost),
        cmocka_unit_test(test_time_ends),
    };

    return cmocka_run_group_tests_name("bell", tests, NULL, NULL);
}
