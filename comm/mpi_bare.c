/* The bare figure of the MPI transport: MPI itself, from the progress thread, which does nothing else
 * meanwhile. */
#include "comm/mpi_state.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "comm/watch.h"

#define TAG     8 /* of a channel's communicator: no other message has it */
#define POLL_NS 20000000

base_status_t comm_mpi_progress_bare(comm_mpi_group_t *g, int *busy)
{
    const comm_bare_t *b = g->bare;
    const MPI_Comm comm = g->comms[COMM_CHANNEL_PING];
    base_status_t st = BASE_OK;

    if (b == NULL) return BASE_OK;
    *busy = 1;
    const int to = b->to >= 0 ? b->to : MPI_PROC_NULL,
              from = b->from >= 0 ? b->from : MPI_PROC_NULL;
    char *out = base_mem_address(b->send), *in = base_mem_address(b->recv);
    const int64_t start_ns = base_clock_ns();

    for (int i = 0; i < b->repeat && st >= 0; i++) {
        const int64_t at = i % b->depth * b->bytes;

        st = comm_mpi_check(g->group.ctx,
                            MPI_Sendrecv(out + at, (int)b->bytes, MPI_BYTE, to, TAG, in + at,
                                         (int)b->bytes, MPI_BYTE, from, TAG, comm,
                                         MPI_STATUS_IGNORE),
                            "MPI_Sendrecv");
    }
    g->bare_ns = base_clock_ns() - start_ns;
    g->bare = NULL;
    return st;
}

base_status_t comm_mpi_bare(comm_group_t *group, const comm_bare_t *bare, int64_t *ns_p)
{
    comm_mpi_group_t *g = (comm_mpi_group_t *)group;
    base_status_t st = BASE_OK;

    if (base_device_kind(group->dev) != BASE_DEVICE_CPU || bare->bytes > g->chunk_bytes)
        return BASE_FAIL(group->ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                         "rank %d: MPI alone: on the cpu device, at most %lld bytes", group->rank,
                         (long long)g->chunk_bytes);
    BASE_TRY(comm_barrier(group));
    (void)pthread_mutex_lock(&g->process->mutex);
    g->bare = bare;
    (void)pthread_cond_signal(&g->process->work);
    while (g->bare != NULL && !comm_mpi_is_stopped(g))
        comm_mpi_sleep(g->process, &g->process->changed, POLL_NS);
    if (comm_mpi_is_stopped(g)) st = comm_watch_stopped(group->ctx);
    *ns_p = g->bare_ns;
    (void)pthread_mutex_unlock(&g->process->mutex);
    return st < 0 ? st : comm_barrier(group);
}
