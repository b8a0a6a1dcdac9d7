/* Barrier and all-gather of the MPI transport. Every rank sends every other one its call {number,
 * which, bytes}, with the payload when it is small, so that a rank that does not come, or calls
 * something else, can be named. */
#include "comm/mpi_state.h"

#include "base/clock.h"
#include "base/memory.h"
#include "comm/watch.h"

#include <inttypes.h>
#include <string.h>

#define POLL_NS 20000000

static const char *collective_name(int32_t collective)
{
    return collective == COMM_MPI_BARRIER ? "barrier" : "all-gather";
}

/* ==== the progress thread's part ==== */

static base_status_t add(comm_mpi_group_t *g, int is_send, void *at, int64_t bytes, int peer,
                         int tag)
{
    comm_mpi_gather_t *c = &g->gather;
    MPI_Request *request = &c->requests[c->num_requests];

    *request = MPI_REQUEST_NULL;
    c->owner[c->num_requests++] = is_send ? -1 : peer;
    if (is_send)
        return comm_mpi_check(g->group.ctx,
                              MPI_Isend(at, (int)bytes, MPI_BYTE, peer, tag, g->control, request),
                              "MPI_Isend of a collective");
    return comm_mpi_check(g->group.ctx,
                          MPI_Irecv(at, (int)bytes, MPI_BYTE, peer, tag, g->control, request),
                          "MPI_Irecv of a collective");
}

/* The calls of the others may come before this rank's receives: they are small. */
static base_status_t post_calls(comm_mpi_group_t *g)
{
    comm_mpi_gather_t *c = &g->gather;

    c->num_requests = 0;
    memset(c->here, 0, (size_t)g->group.size);
    for (int r = 0; r < g->group.size; r++)
        if (r != g->group.rank)
            BASE_TRY(add(g, 0, &c->calls[r], sizeof c->calls[r], r, COMM_MPI_TAG_COLLECTIVE));
    for (int r = 0; r < g->group.size; r++)
        if (r != g->group.rank)
            BASE_TRY(add(g, 1, &c->mine, sizeof c->mine, r, COMM_MPI_TAG_COLLECTIVE));
    c->calls[g->group.rank] = c->mine;
    c->here[g->group.rank] = 1;
    c->posted = 1;
    return BASE_OK;
}

/* A peer that sent the same call: its payload follows, when it was too large for the call. */
static base_status_t take_call(comm_mpi_group_t *g, int peer)
{
    comm_mpi_gather_t *c = &g->gather;
    const comm_mpi_call_t *call = &c->calls[peer];

    c->here[peer] = 1;
    if (call->magic != COMM_MPI_MAGIC || call->number != c->mine.number ||
        call->collective != c->mine.collective || call->bytes != c->mine.bytes ||
        c->mine.bytes <= COMM_MPI_INLINE_BYTES)
        return BASE_OK; /* a call that differs is the waiting thread's to judge */
    c->here[peer] = 0;
    BASE_TRY(
        add(g, 0, c->payload + peer * c->mine.bytes, c->mine.bytes, peer, COMM_MPI_TAG_PAYLOAD));
    c->owner[c->num_requests - 1] = g->group.size + peer;
    return add(g, 1, c->payload + g->group.rank * c->mine.bytes, c->mine.bytes, peer,
               COMM_MPI_TAG_PAYLOAD);
}

base_status_t comm_mpi_progress_gather(comm_mpi_group_t *g, int *busy)
{
    comm_mpi_gather_t *c = &g->gather;
    int num = 0, all = 1;

    if (!c->active) return BASE_OK;
    if (!c->posted) {
        *busy = 1;
        BASE_TRY(post_calls(g));
    }
    BASE_TRY(comm_mpi_check(
        g->group.ctx, MPI_Testsome(c->num_requests, c->requests, &num, g->indices, g->statuses),
        "MPI_Testsome of a collective"));
    for (int i = 0; i < num && num != MPI_UNDEFINED; i++) {
        const int32_t owner = c->owner[g->indices[i]];

        *busy = 1;
        if (owner >= g->group.size)
            c->here[owner - g->group.size] = 1;
        else if (owner >= 0)
            BASE_TRY(take_call(g, owner));
    }
    for (int r = 0; r < g->group.size; r++)
        all = all && c->here[r];
    for (int k = 0; k < c->num_requests; k++)
        all = all && c->requests[k] == MPI_REQUEST_NULL;
    if (all) {
        c->active = 0;
        c->done = c->mine.number;
        *busy = 1;
    }
    return BASE_OK;
}

/* ==== the rank's part ==== */

static base_status_t look(comm_mpi_group_t *g, int64_t waited_ns)
{
    const comm_mpi_gather_t *c = &g->gather;
    const char *name = collective_name(c->mine.collective);
    base_status_t st = BASE_PENDING;

    if (comm_mpi_is_stopped(g)) return comm_watch_stopped(g->group.ctx);
    for (int r = 0; r < g->group.size && c->posted; r++) {
        const comm_mpi_note_t *ended = &g->ended[r];

        if (c->here[r]) continue;
        if (ended->magic != 0 && ended->collective_begun < c->mine.number)
            st = BASE_FAIL(g->group.ctx, BASE_ERR_PEER, BASE_MSG_COMM_01,
                           "rank %d: %s, collective %" PRIu64
                           ": rank %d has ended without beginning it",
                           g->group.rank, name, c->mine.number, r);
        else if (waited_ns > comm_watch_limit_ns(g->group.ctx))
            st = BASE_FAIL(g->group.ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                           "rank %d: %s, collective %" PRIu64 ": rank %d has not come in %" PRId64
                           " ms",
                           g->group.rank, name, c->mine.number, r, waited_ns / 1000000);
        if (st != BASE_PENDING) return comm_mpi_forward(g, st, COMM_MPI_CONCERNS_NONE);
    }
    return BASE_PENDING;
}

/* Every call has come. All ranks find the same, so that all of them have the error of their own. */
static base_status_t compare(comm_mpi_group_t *g)
{
    const comm_mpi_gather_t *c = &g->gather;

    for (int r = 0; r < g->group.size; r++) {
        const comm_mpi_call_t *a = &c->calls[0], *b = &c->calls[r];
        base_status_t st;

        if (b->magic == COMM_MPI_MAGIC && a->number == b->number &&
            a->collective == b->collective && a->bytes == b->bytes)
            continue;
        st = BASE_FAIL(g->group.ctx, BASE_ERR_MISMATCH, BASE_MSG_COMM_03,
                       "rank %d: collective %" PRIu64 ": rank 0 calls %s of %" PRId64
                       " bytes, rank %d %s of %" PRId64 " bytes",
                       g->group.rank, c->mine.number, collective_name(a->collective), a->bytes, r,
                       collective_name(b->collective), b->bytes);
        return comm_mpi_forward(g, st, COMM_MPI_CONCERNS_ALL);
    }
    return BASE_OK;
}

static base_status_t start(comm_mpi_group_t *g, comm_mpi_collective_t collective, const void *mine,
                           int64_t bytes)
{
    comm_mpi_gather_t *c = &g->gather;

    if (bytes > g->chunk_bytes)
        return BASE_FAIL(g->group.ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "rank %d: all-gather of %" PRId64 " bytes; at most %" PRId64,
                         g->group.rank, bytes, g->chunk_bytes);
    if (bytes > COMM_MPI_INLINE_BYTES && g->group.size * bytes > c->payload_room) {
        char *payload = base_alloc(g->group.ctx, (size_t)(g->group.size * bytes), "all-gather");

        /* The others come, and would wait for this rank. */
        if (payload == NULL) return comm_mpi_forward(g, BASE_ERR_NOMEM, COMM_MPI_CONCERNS_NONE);
        base_free(g->group.ctx, c->payload);
        c->payload = payload;
        c->payload_room = g->group.size * bytes;
    }
    c->mine = (comm_mpi_call_t){.magic = COMM_MPI_MAGIC,
                                .number = ++c->begun,
                                .collective = (int32_t)collective,
                                .bytes = bytes};
    if (bytes > COMM_MPI_INLINE_BYTES)
        memcpy(c->payload + g->group.rank * bytes, mine, (size_t)bytes);
    else if (bytes > 0)
        memcpy(c->mine.payload, mine, (size_t)bytes);
    c->posted = 0;
    c->active = 1;
    (void)pthread_cond_signal(&g->process->work);
    return BASE_OK;
}

static base_status_t run(comm_group_t *group, comm_mpi_collective_t collective, const void *mine,
                         int64_t bytes, void *all)
{
    comm_mpi_group_t *g = (comm_mpi_group_t *)group;
    comm_mpi_gather_t *c = &g->gather;
    const int64_t start_ns = base_clock_ns();
    base_status_t st;

    (void)pthread_mutex_lock(&g->process->mutex);
    st =
        comm_mpi_is_stopped(g) ? comm_watch_stopped(group->ctx) : start(g, collective, mine, bytes);
    while (st >= 0 && c->done < c->mine.number) {
        st = look(g, base_clock_ns() - start_ns);
        if (st == BASE_PENDING) comm_mpi_sleep(g->process, &g->process->changed, POLL_NS);
    }
    if (st >= 0) st = compare(g);
    for (int r = 0; r < group->size && st >= 0 && bytes > 0; r++)
        memcpy((char *)all + r * bytes,
               bytes > COMM_MPI_INLINE_BYTES ? c->payload + r * bytes : c->calls[r].payload,
               (size_t)bytes);
    (void)pthread_mutex_unlock(&g->process->mutex);
    return st;
}

base_status_t comm_mpi_barrier(comm_group_t *group)
{
    return run(group, COMM_MPI_BARRIER, NULL, 0, NULL);
}

base_status_t comm_mpi_allgather(comm_group_t *group, const void *mine, int64_t bytes, void *all)
{
    return run(group, COMM_MPI_ALLGATHER, mine, bytes, all);
}
