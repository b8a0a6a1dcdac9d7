/* Barrier and all-gather of the threads transport. */
#include "comm/threads_world.h"

#include "base/clock.h"

#include <inttypes.h>
#include <string.h>

static const char *collective_name(comm_threads_collective_t collective)
{
    return collective == COMM_THREADS_BARRIER ? "barrier" : "all-gather";
}

/* Waits until all members have begun (or left) collective number `number`. The mutex is held. */
static base_status_t wait_collective(comm_threads_member_t *m, uint64_t number, int left)
{
    const int64_t limit_ns = comm_threads_deadline_ns(m);
    const int64_t start_ns = base_clock_ns();

    for (int r = 0; r < m->world->size;) {
        const comm_threads_member_t *peer = &m->world->members[r];
        const int64_t waited_ns = base_clock_ns() - start_ns;
        base_status_t st = BASE_OK;

        if ((left ? peer->collective_done : peer->collective_begun) >= number) {
            r++;
            continue;
        }
        if (comm_threads_is_stopped(m->world)) return comm_threads_stopped(m);
        if (peer->ended)
            st = BASE_FAIL(m->group.ctx, BASE_ERR_PEER, BASE_MSG_COMM_01,
                           "rank %d: %s, collective %" PRIu64
                           ": rank %d has ended without beginning it",
                           m->group.rank, collective_name(m->collective), number, r);
        else if (waited_ns > limit_ns)
            st = BASE_FAIL(
                m->group.ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                "rank %d: %s, collective %" PRIu64 ": rank %d has not come in %" PRId64 " ms",
                m->group.rank, collective_name(m->collective), number, r, waited_ns / 1000000);
        if (st < 0) {
            base_error_t error;

            if (base_ctx_error(m->group.ctx, &error)) comm_threads_fail_locked(m, &error);
            return st;
        }
        comm_threads_sleep(m, COMM_THREADS_HOST, COMM_THREADS_POLL_NS);
    }
    return BASE_OK;
}

/* All have begun, none has left: the operands stand still. Whoever looks first records the error
 * of every rank that disagrees with another, so that none of them learns of it as somebody else's
 * stop only. */
static base_status_t compare_collective(comm_threads_member_t *m, uint64_t number)
{
    comm_threads_world_t *world = m->world;
    base_error_t error;
    int bad = 0;

    for (int a = 0; a < world->size; a++) {
        const comm_threads_member_t *x = &world->members[a];

        for (int b = 0; b < world->size; b++) {
            const comm_threads_member_t *y = &world->members[b];

            if (x->collective == y->collective && x->collective_bytes == y->collective_bytes)
                continue;
            (void)BASE_FAIL(x->group.ctx, BASE_ERR_MISMATCH, BASE_MSG_COMM_03,
                            "rank %d: collective %" PRIu64 ": rank %d calls %s of %" PRId64
                            " bytes, rank %d %s of %" PRId64 " bytes",
                            a, number, a, collective_name(x->collective), x->collective_bytes, b,
                            collective_name(y->collective), y->collective_bytes);
            bad = 1;
            break;
        }
    }
    if (!bad) return BASE_OK;
    if (base_ctx_error(m->group.ctx, &error)) comm_threads_fail_locked(m, &error);
    return BASE_ERR_MISMATCH;
}

static void wake_hosts(comm_threads_world_t *world)
{
    for (int r = 0; r < world->size; r++)
        (void)pthread_cond_signal(&world->members[r].wake[COMM_THREADS_HOST]);
}

/* Two waits: all have begun, so every operand can be read; all are done, so every operand may
 * change. The copies are small and made under the mutex, so that a rank that leaves on a stop
 * never takes its operand away from a reader. */
static base_status_t collective(comm_group_t *group, comm_threads_collective_t kind,
                                const void *mine, int64_t bytes, void *all)
{
    comm_threads_member_t *m = (comm_threads_member_t *)group;
    base_status_t st;
    uint64_t number;

    (void)pthread_mutex_lock(&m->world->mutex);
    st = comm_threads_is_stopped(m->world) ? comm_threads_stopped(m) : BASE_OK;
    if (st < 0) goto out; /* who came before has left */
    number = ++m->collective_begun;
    m->collective = kind;
    m->collective_bytes = bytes;
    m->collective_mine = mine;
    wake_hosts(m->world);
    BASE_TRY_GOTO(wait_collective(m, number, 0), st, out);
    BASE_TRY_GOTO(compare_collective(m, number), st, out);
    st = comm_threads_is_stopped(m->world) ? comm_threads_stopped(m) : BASE_OK;
    if (st < 0) goto out;
    for (int r = 0; r < m->world->size && bytes > 0; r++)
        memcpy((char *)all + r * bytes, m->world->members[r].collective_mine, (size_t)bytes);
    m->collective_done = number;
    wake_hosts(m->world);
    st = wait_collective(m, number, 1);
out:
    (void)pthread_mutex_unlock(&m->world->mutex);
    return st;
}

base_status_t comm_threads_barrier(comm_group_t *group)
{
    return collective(group, COMM_THREADS_BARRIER, NULL, 0, NULL);
}

base_status_t comm_threads_allgather(comm_group_t *group, const void *mine, int64_t bytes,
                                     void *all)
{
    return collective(group, COMM_THREADS_ALLGATHER, mine, bytes, all);
}
