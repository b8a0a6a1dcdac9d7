/* Starting and ending the ranks of the threads transport. */
#include "comm/threads_world.h"

#include "base/device/device_host.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

/* The end of a rank that succeeded. Its lists and buffers are gone when its function returns, so
 * an exchange that is still open is a fault; it is found here, before a peer reads freed memory,
 * wherever that can be told in time. */
static base_status_t check_complete_locked(comm_threads_member_t *m)
{
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        for (int i = 0; i < COMM_MAX_OPEN_EXCHANGES; i++) {
            const comm_threads_slot_t *slot = &m->slots[c][i];
            char place[COMM_PLACE_BYTES];

            for (int r = 0; r < m->world->size && slot->sequence > 0; r++) {
                const comm_peer_t *p = &slot->by_rank[r];
                const int not_here =
                    p->num_recv > 0 && base_counter_value(m->arrived[c][r]) < slot->sequence;

                if (!not_here && (p->num_send == 0 || slot->consumed[r])) continue;
                comm_threads_place(c, slot->sequence, &slot->tag, place);
                return BASE_FAIL(
                    m->group.ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                    "rank %d: %s: ended before it was complete: %s rank %d", m->group.rank, place,
                    not_here ? COMM_THREADS_NOTHING_CAME : COMM_THREADS_NOT_FETCHED, r);
            }
        }
    return BASE_OK;
}

static void wake_all(comm_threads_world_t *world)
{
    for (int r = 0; r < world->size; r++)
        for (int i = 0; i <= COMM_THREADS_HOST; i++)
            (void)pthread_cond_broadcast(&world->members[r].wake[i]);
}

static base_status_t end_rank(comm_threads_member_t *m, base_status_t st)
{
    base_error_t error;

    /* A failure stops the others before anything else; comm_group_stop also waits for copies in
     * flight. */
    if (st < 0) {
        comm_group_stop(&m->group, base_ctx_error(m->group.ctx, &error) ? &error : NULL);
    } else {
        (void)pthread_mutex_lock(&m->world->mutex);
        st = comm_threads_is_stopped(m->world) ? BASE_OK : check_complete_locked(m);
        if (st < 0 && base_ctx_error(m->group.ctx, &error))
            comm_threads_fail_locked(
                m, &error); /* in the same breath: nobody begins to read any more */
        (void)pthread_mutex_unlock(&m->world->mutex);
    }
    (void)pthread_mutex_lock(&m->world->mutex);
    m->ended = 1;
    wake_all(m->world); /* whoever waits for something it never began */
    (void)pthread_mutex_unlock(&m->world->mutex);
    for (int c = 0; c < COMM_NUM_CHANNELS; c++) {
        const base_status_t sync = base_stream_sync(m->stream[c]);

        if (st >= 0 && sync < 0 && !comm_threads_is_stopped(m->world))
            st = comm_threads_forward(m, sync);
    }
    return st;
}

static void *rank_main(void *arg)
{
    comm_threads_member_t *m = arg;

    m->status = end_rank(m, m->fn(&m->group, m->group.ctx, m->group.dev, m->user));
    return NULL;
}

/* ==== the world ==== */

static base_status_t open_member(comm_threads_world_t *world, int rank,
                                 const comm_threads_options_t *options, base_ctx_t *ctx,
                                 base_device_t **dev_p)
{
    base_ctx_set_stop_flag(ctx, &world->stop);
    if (options->deadline_ms > 0) base_ctx_set_deadline_ms(ctx, options->deadline_ms);
    BASE_TRY(base_device_open(ctx, options->device, options->device_index, dev_p));
    base_device_set_seed(*dev_p, options->seed * 1000003u + (uint64_t)rank + 1);
    BASE_TRY(comm_threads_member_init(world, rank, ctx, *dev_p));
    world->members[rank].group.hosts = options->hosts;
    return BASE_OK;
}

/* Work of the cpu device's COMPUTE stream runs on this thread. */
static int create_thread(comm_threads_member_t *m)
{
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);

    if (rc != 0) return rc;
    rc = pthread_attr_setstacksize(&attr, BASE_HOST_STACK_BYTES);
    if (rc == 0) rc = pthread_create(&m->thread, &attr, rank_main, m);
    (void)pthread_attr_destroy(&attr);
    return rc;
}

static base_status_t start_members(comm_threads_world_t *world, comm_rank_fn fn, void *user)
{
    for (int r = 0; r < world->size; r++) {
        comm_threads_member_t *m = &world->members[r];

        m->fn = fn;
        m->user = user;
        if (create_thread(m) != 0) {
            const base_status_t st = BASE_FAIL(m->group.ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                                               "rank %d of %d: no thread", r, world->size);

            return comm_threads_forward(m, st); /* those that run already stop */
        }
        m->started = 1;
        base_memory_count_open(base_ctx_memory(m->group.ctx), BASE_RESOURCE_THREAD);
    }
    return BASE_OK;
}

static void join_members(comm_threads_world_t *world)
{
    for (int r = 0; r < world->size; r++) {
        comm_threads_member_t *m = &world->members[r];

        if (!m->started) continue;
        (void)pthread_join(m->thread, NULL);
        base_memory_count_close(base_ctx_memory(m->group.ctx), BASE_RESOURCE_THREAD);
    }
}

static void take_error(base_ctx_t *ctx, base_error_t *error)
{
    if (error != NULL) (void)base_ctx_error(ctx, error);
}

/* All contexts and devices exist; makes the members, runs them, and takes them down. */
static base_status_t run_world(comm_threads_world_t *world, const comm_threads_options_t *options,
                               comm_rank_fn fn, void *user, base_ctx_t **ctxs, base_device_t **devs,
                               base_error_t *error)
{
    base_status_t st = BASE_OK;

    for (int r = 0; r < world->size && st >= 0; r++) {
        st = open_member(world, r, options, ctxs[r], &devs[r]);
        if (st < 0) take_error(ctxs[r], error);
    }
    if (st >= 0) {
        (void)start_members(world, fn, user); /* a failure is the world's error */
        join_members(world);
        if (world->has_failed) {
            st = world->error.status;
            if (error != NULL) *error = world->error;
        }
    }
    /* Streams first, of all members: what still runs on one may look at another. */
    for (int r = 0; r < world->size; r++)
        comm_threads_member_quiesce(&world->members[r]);
    for (int r = 0; r < world->size; r++)
        comm_group_destroy(world->members[r].world != NULL ? &world->members[r].group : NULL);
    for (int r = 0; r < world->size; r++)
        base_device_close(devs[r]);
    return st;
}

base_status_t comm_threads_run(const comm_threads_options_t *options, comm_rank_fn fn, void *user,
                               base_error_t *error)
{
    const int size = options->num_ranks;
    comm_threads_world_t world = {.size = size, .delay_ns = options->delay_ns};
    base_ctx_t *boss = NULL; /* of no rank: owns what the ranks share */
    base_ctx_t **ctxs;
    base_device_t **devs;
    base_status_t st;

    if (error != NULL) *error = (base_error_t){.status = BASE_OK};
    BASE_TRY(base_ctx_create(0, 1, options->log, &boss));
    if (size < 1 || size > COMM_THREADS_MAX_RANKS || fn == NULL || options->delay_ns < 0 ||
        (options->device == BASE_DEVICE_CUDA && size > 1)) {
        st = BASE_FAIL(boss, BASE_ERR_ARG, BASE_MSG_INT_01,
                       "threads transport: %d ranks on device kind %d; wanted 1..%d on cpu or "
                       "strict, or 1 on cuda",
                       size, (int)options->device, COMM_THREADS_MAX_RANKS);
        take_error(boss, error);
        goto out_boss;
    }
    ctxs = base_calloc(boss, size, sizeof(base_ctx_t *), "rank contexts");
    devs = base_calloc(boss, size, sizeof(base_device_t *), "rank devices");
    world.members = base_calloc(boss, size, sizeof(comm_threads_member_t), "threads transport");
    st = ctxs == NULL || devs == NULL || world.members == NULL ? BASE_ERR_NOMEM : BASE_OK;
    for (int r = 0; r < size && st >= 0; r++)
        st = base_ctx_create(r, size, options->log, &ctxs[r]);
    if (st >= 0 && pthread_mutex_init(&world.mutex, NULL) != 0) st = BASE_ERR_NOMEM;
    if (st < 0) {
        (void)BASE_FAIL(boss, st, BASE_MSG_MEM_01, "threads transport: no memory for %d ranks",
                        size);
        take_error(boss, error);
        goto out_world;
    }
    st = run_world(&world, options, fn, user, ctxs, devs, error);
    (void)pthread_mutex_destroy(&world.mutex);
out_world:
    for (int r = 0; r < size && ctxs != NULL; r++)
        base_ctx_destroy(ctxs[r]);
    base_free(boss, world.members);
    base_free(boss, devs);
    base_free(boss, ctxs);
out_boss:
    base_ctx_destroy(boss);
    return st;
}
