#include "comm/threads_world.h"

#include "base/clock.h"
#include "base/memory.h"
#include "comm/watch.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* ==== failure ==== */

int comm_threads_is_stopped(const comm_threads_world_t *world)
{
    return __atomic_load_n(&world->stop, __ATOMIC_ACQUIRE) != 0;
}

void comm_threads_fail_locked(comm_threads_member_t *m, const base_error_t *error)
{
    comm_threads_world_t *world = m->world;

    if (world->has_failed) return; /* what comes now is a consequence */
    world->has_failed = 1;
    world->failed_rank = m->group.rank;
    world->error = *error;
    for (int r = 0; r < world->size; r++)
        if (r != m->group.rank && !world->members[r].ended)
            (void)BASE_FAIL(world->members[r].group.ctx, BASE_ERR_PEER, BASE_MSG_COMM_01,
                            "rank %d: rank %d has stopped: %s", r, m->group.rank, error->text);
    __atomic_store_n(&world->stop, 1, __ATOMIC_RELEASE);
    for (int r = 0; r < world->size; r++)
        for (int i = 0; i < world->members[r].num_conds; i++)
            (void)pthread_cond_broadcast(&world->members[r].wake[i]);
}

void comm_threads_fail(comm_threads_member_t *m, const base_error_t *error)
{
    (void)pthread_mutex_lock(&m->world->mutex);
    comm_threads_fail_locked(m, error);
    (void)pthread_mutex_unlock(&m->world->mutex);
}

base_status_t comm_threads_forward(comm_threads_member_t *m, base_status_t st)
{
    base_error_t error;

    comm_watch_error(m->group.ctx, st, &error);
    comm_threads_fail(m, &error);
    return st;
}

base_status_t comm_threads_stopped(const comm_threads_member_t *m)
{
    return comm_watch_stopped(m->group.ctx);
}

/* ==== waiting ==== */

int64_t comm_threads_deadline_ns(const comm_threads_member_t *m)
{
    return comm_watch_limit_ns(m->group.ctx);
}

void comm_threads_sleep(comm_threads_member_t *m, int who, int64_t ns)
{
    const int64_t until = base_clock_ns() + (ns < COMM_THREADS_POLL_NS ? ns : COMM_THREADS_POLL_NS);
    const struct timespec ts = {.tv_sec = (time_t)(until / 1000000000),
                                .tv_nsec = (long)(until % 1000000000)};

    (void)pthread_cond_timedwait(&m->wake[who], &m->world->mutex,
                                 &ts); /* callers look again whatever the reason */
}

void comm_threads_place(int channel, uint64_t sequence, const comm_tag_t *tag,
                        char text[COMM_PLACE_BYTES])
{
    char tag_text[COMM_TEXT_BYTES];

    comm_tag_text(tag, tag_text);
    (void)snprintf(text, COMM_PLACE_BYTES, "channel %s, exchange %llu (%s)",
                   comm_channel_name(channel), (unsigned long long)sequence, tag_text);
}

const char *comm_threads_peer_state(comm_threads_member_t *peer, int channel, uint64_t sequence)
{
    const comm_threads_slot_t *slot = comm_threads_slot(peer, channel, sequence);

    if (peer->begun[channel] < sequence)
        return peer->ended ? "it has ended without beginning it" : "it has not begun it";
    if (slot->sequence == sequence && slot->phase == COMM_THREADS_BEGUN)
        return "it has begun it, but its data is not ready or an earlier exchange is not done";
    if (slot->sequence == sequence && slot->phase == COMM_THREADS_POSTED)
        return "it has posted it and waits for others";
    return "it is done with it";
}

/* ==== members ==== */

static base_status_t cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    int rc = pthread_condattr_init(&attr);

    if (rc != 0) return BASE_ERR_NOMEM;
    rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* as base_clock_ns */
    if (rc == 0) rc = pthread_cond_init(cond, &attr);
    (void)pthread_condattr_destroy(&attr);
    return rc == 0 ? BASE_OK : BASE_ERR_NOMEM;
}

static base_status_t create_counters(comm_threads_member_t *m, base_counter_t ***counters_p)
{
    const int size = m->world->size;
    base_counter_t **counters =
        base_calloc(m->group.ctx, size, sizeof(base_counter_t *), "exchange counters");

    if (counters == NULL) return BASE_ERR_NOMEM;
    *counters_p = counters; /* deinit frees what is there */
    for (int r = 0; r < size; r++)
        if (r != m->group.rank) BASE_TRY(base_counter_create(m->group.dev, &counters[r]));
    return BASE_OK;
}

static void destroy_counters(const comm_threads_member_t *m, base_counter_t ***counters_p)
{
    if (*counters_p == NULL) return;
    for (int r = 0; r < m->world->size; r++)
        base_counter_destroy((*counters_p)[r]);
    base_free(m->group.ctx, *counters_p);
    *counters_p = NULL;
}

static base_status_t channel_init(comm_threads_member_t *m, int c)
{
    base_ctx_t *ctx = m->group.ctx;
    const int size = m->world->size;
    char name[32];

    BASE_TRY(create_counters(m, &m->arrived[c]));
    BASE_TRY(create_counters(m, &m->consumed[c]));
    m->due_ns[c] = base_calloc(ctx, size, sizeof(int64_t), "exchange times");
    if (m->due_ns[c] == NULL) return BASE_ERR_NOMEM;
    for (int i = 0; i < COMM_MAX_OPEN_EXCHANGES; i++) {
        m->slots[c][i].by_rank = base_calloc(ctx, size, sizeof(comm_peer_t), "exchange slot");
        m->slots[c][i].consumed = base_calloc(ctx, size, 1, "exchange slot");
        m->slots[c][i].ready_ns = base_calloc(ctx, size, sizeof(int64_t), "exchange slot");
        if (m->slots[c][i].by_rank == NULL || m->slots[c][i].consumed == NULL ||
            m->slots[c][i].ready_ns == NULL)
            return BASE_ERR_NOMEM;
    }
    (void)snprintf(name, sizeof name, "exchange %s", comm_channel_name(c));
    return base_stream_create(m->group.dev, BASE_STREAM_ASYNC, name, &m->stream[c]);
}

static void channel_deinit(comm_threads_member_t *m, int c)
{
    base_ctx_t *ctx = m->group.ctx;

    for (int i = 0; i < COMM_MAX_OPEN_EXCHANGES; i++) {
        base_free(ctx, m->slots[c][i].by_rank);
        base_free(ctx, m->slots[c][i].consumed);
        base_free(ctx, m->slots[c][i].ready_ns);
    }
    memset(m->slots[c], 0, sizeof m->slots[c]);
    base_free(ctx, m->due_ns[c]);
    m->due_ns[c] = NULL;
    destroy_counters(m, &m->consumed[c]);
    destroy_counters(m, &m->arrived[c]);
}

base_status_t comm_threads_member_init(comm_threads_world_t *world, int rank, base_ctx_t *ctx,
                                       base_device_t *dev)
{
    comm_threads_member_t *m = &world->members[rank];
    base_status_t st;

    m->world = world;
    m->group.ctx = ctx;
    m->group.dev = dev;
    m->group.rank = rank;
    m->group.size = world->size;
    for (int i = 0; i < COMM_NUM_CHANNELS + 1; i++) {
        if (cond_init(&m->wake[i]) < 0) {
            st = BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "rank %d: no condition variable",
                           rank);
            goto err_deinit;
        }
        m->num_conds++;
    }
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        BASE_TRY_GOTO(channel_init(m, c), st, err_deinit);
    BASE_TRY_GOTO(comm_group_init(&m->group, &comm_threads_ops, ctx, dev, rank, world->size), st,
                  err_deinit);
    return BASE_OK;
err_deinit:
    comm_threads_member_deinit(m);
    return st;
}

void comm_threads_member_quiesce(comm_threads_member_t *m)
{
    for (int c = 0; c < COMM_NUM_CHANNELS; c++) {
        base_stream_destroy(m->stream[c]);
        m->stream[c] = NULL;
    }
}

void comm_threads_member_deinit(comm_threads_member_t *m)
{
    if (m->world == NULL) return;
    comm_threads_member_quiesce(m); /* first: what runs there uses the rest */
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        channel_deinit(m, c);
    comm_group_deinit(
        &m->group); /* after the streams: their exchanges borrow the reducer's lists */
    while (m->num_conds > 0)
        (void)pthread_cond_destroy(&m->wake[--m->num_conds]);
    m->world = NULL;
}
