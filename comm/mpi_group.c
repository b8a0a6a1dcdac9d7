/* Memory and communicators of one group of the MPI transport. */
#include "comm/mpi_state.h"

#include "base/memory.h"

#include <string.h>

/* Staging of a slot at the start; it grows when a microbatch needs more. */
#define STAGING_BYTES (128 * 1024)

static const char WHAT[] = "MPI transport";

/* ==== slots ==== */

static base_status_t slot_init(comm_mpi_group_t *g, comm_mpi_slot_t *s)
{
    base_ctx_t *ctx = g->group.ctx;
    const int64_t peers = g->group.size - 1;

    s->requests_room = (int)(4 * peers + 512); /* messages of an exchange; grows */
    s->in_bytes = s->out_bytes = STAGING_BYTES;
    s->links = base_calloc(ctx, peers, sizeof *s->links, WHAT);
    s->headers = base_calloc(ctx, peers, sizeof *s->headers, WHAT);
    s->in = base_calloc(ctx, s->in_bytes, 1, "MPI staging");
    s->out = base_calloc(ctx, s->out_bytes, 1, "MPI staging");
    s->requests = base_calloc(ctx, s->requests_room, sizeof(MPI_Request), WHAT);
    s->owner = base_calloc(ctx, s->requests_room, sizeof *s->owner, WHAT);
    return s->links == NULL || s->headers == NULL || s->in == NULL || s->out == NULL ||
                   s->requests == NULL || s->owner == NULL
               ? BASE_ERR_NOMEM
               : BASE_OK;
}

static void slot_deinit(comm_mpi_group_t *g, comm_mpi_slot_t *s)
{
    base_ctx_t *ctx = g->group.ctx;

    base_free(ctx, s->owner);
    base_free(ctx, s->requests);
    base_free(ctx, s->out);
    base_free(ctx, s->in);
    base_free(ctx, s->headers);
    base_free(ctx, s->links);
}

/* ==== the group ==== */

static void no_requests(MPI_Request *requests, int num)
{
    for (int i = 0; i < num; i++)
        requests[i] = MPI_REQUEST_NULL;
}

static base_status_t gather_init(comm_mpi_group_t *g)
{
    base_ctx_t *ctx = g->group.ctx;
    comm_mpi_gather_t *c = &g->gather;
    const int size = g->group.size;

    c->calls = base_calloc(ctx, size, sizeof *c->calls, WHAT);
    c->here = base_calloc(ctx, size, 1, WHAT);
    c->requests = base_calloc(ctx, 4 * (int64_t)size, sizeof(MPI_Request), WHAT);
    c->owner = base_calloc(ctx, 4 * (int64_t)size, sizeof *c->owner, WHAT);
    return c->calls == NULL || c->here == NULL || c->requests == NULL || c->owner == NULL
               ? BASE_ERR_NOMEM
               : BASE_OK;
}

static base_status_t control_init(comm_mpi_group_t *g)
{
    base_ctx_t *ctx = g->group.ctx;
    const int size = g->group.size;

    g->note_in = base_calloc(ctx, size, sizeof *g->note_in, WHAT);
    g->note_request = base_calloc(ctx, size, sizeof(MPI_Request), WHAT);
    g->note_sends = base_calloc(ctx, 2 * (int64_t)size, sizeof(MPI_Request), WHAT);
    g->ended = base_calloc(ctx, size, sizeof *g->ended, WHAT);
    g->stopped_by = base_calloc(ctx, size, 1, WHAT);
    g->room = 4 * size + 512;
    g->indices = base_calloc(ctx, g->room, sizeof *g->indices, WHAT);
    g->statuses = base_calloc(ctx, g->room, sizeof(MPI_Status), WHAT);
    if (g->note_in == NULL || g->note_request == NULL || g->note_sends == NULL ||
        g->ended == NULL || g->stopped_by == NULL || g->indices == NULL || g->statuses == NULL)
        return BASE_ERR_NOMEM;
    no_requests(g->note_request, size);
    no_requests(g->note_sends, 2 * size);
    return BASE_OK;
}

static base_status_t channel_init(comm_mpi_group_t *g, int c)
{
    base_ctx_t *ctx = g->group.ctx;
    const int size = g->group.size;

    g->header_in[c] = base_calloc(ctx, size, sizeof *g->header_in[c], WHAT);
    g->header_request[c] = base_calloc(ctx, size, sizeof(MPI_Request), WHAT);
    g->header_held[c] = base_calloc(ctx, size, 1, WHAT);
    if (g->header_in[c] == NULL || g->header_request[c] == NULL || g->header_held[c] == NULL)
        return BASE_ERR_NOMEM;
    no_requests(g->header_request[c], size);
    for (int i = 0; i < COMM_MAX_OPEN_EXCHANGES; i++)
        BASE_TRY(slot_init(g, &g->slots[c][i]));
    if (base_device_kind(g->group.dev) == BASE_DEVICE_CUDA)
        return BASE_OK; /* for work of the host */
    return base_stream_create(g->group.dev, BASE_STREAM_ASYNC, comm_channel_name(c), &g->stream[c]);
}

base_status_t comm_mpi_group_init(comm_mpi_group_t *g, comm_mpi_t *mpi,
                                  const comm_mpi_options_t *options, base_ctx_t *ctx,
                                  base_device_t *dev, int size)
{
    base_status_t st;

    memset(g, 0, sizeof *g);
    g->process = mpi;
    g->transport = options->transport;
    g->delay_ns = options->delay_ns;
    g->report = options->report;
    g->report_user = options->report_user;
    g->chunk_bytes = options->chunk_bytes > 0 ? options->chunk_bytes : INT64_C(1) << 30;
    g->direct_bytes = options->direct_bytes > 0 ? options->direct_bytes : 64 * 1024;
    g->most_in = g->most_out = STAGING_BYTES;
    g->control = MPI_COMM_NULL;
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        g->comms[c] = MPI_COMM_NULL;
    g->group = (comm_group_t){
        .ops = &comm_mpi_ops, .ctx = ctx, .dev = dev, .rank = mpi->rank, .size = size};
    BASE_TRY_GOTO(control_init(g), st, err_deinit);
    BASE_TRY_GOTO(gather_init(g), st, err_deinit);
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        BASE_TRY_GOTO(channel_init(g, c), st, err_deinit);
    BASE_TRY_GOTO(comm_group_init(&g->group, &comm_mpi_ops, ctx, dev, mpi->rank, size), st,
                  err_deinit);
    g->group.hosts = options->hosts != NULL ? options->hosts : mpi->hosts;
    return BASE_OK;
err_deinit:
    comm_mpi_group_deinit(g);
    return st;
}

void comm_mpi_group_deinit(comm_mpi_group_t *g)
{
    base_ctx_t *ctx = g->group.ctx;

    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        base_stream_destroy(g->stream[c]);
    comm_group_deinit(
        &g->group); /* after the streams: their exchanges borrow the reducer's lists */
    for (int c = 0; c < COMM_NUM_CHANNELS; c++) {
        for (int i = 0; i < COMM_MAX_OPEN_EXCHANGES; i++)
            slot_deinit(g, &g->slots[c][i]);
        base_free(ctx, g->header_held[c]);
        base_free(ctx, g->header_request[c]);
        base_free(ctx, g->header_in[c]);
    }
    base_free(ctx, g->gather.owner);
    base_free(ctx, g->gather.requests);
    base_free(ctx, g->gather.payload);
    base_free(ctx, g->gather.here);
    base_free(ctx, g->gather.calls);
    base_free(ctx, g->statuses);
    base_free(ctx, g->indices);
    base_free(ctx, g->stopped_by);
    base_free(ctx, g->ended);
    base_free(ctx, g->note_sends);
    base_free(ctx, g->note_request);
    base_free(ctx, g->note_in);
}

/* ==== communicators ==== */

base_status_t comm_mpi_group_connect(comm_mpi_group_t *g, MPI_Comm comm)
{
    base_ctx_t *ctx = g->group.ctx;

    g->control = comm;
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        BASE_TRY(comm_mpi_check(ctx, MPI_Comm_dup(comm, &g->comms[c]), "MPI_Comm_dup"));
    (void)MPI_Comm_set_errhandler(g->control, MPI_ERRORS_RETURN);
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        (void)MPI_Comm_set_errhandler(g->comms[c], MPI_ERRORS_RETURN);
    BASE_TRY(comm_mpi_post_notes(g));
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        for (int r = 0; r < g->group.size; r++)
            if (r != g->group.rank) BASE_TRY(comm_mpi_post_header(g, c, r));
    return BASE_OK;
}

/* A stopped group keeps its communicators: MPI_Comm_free is collective, and who has failed may be
 * gone. */
void comm_mpi_group_disconnect(comm_mpi_group_t *g)
{
    (void)pthread_mutex_lock(&g->process->mutex);
    if (!g->quiet) comm_mpi_quiesce(g);
    comm_mpi_forget_notes(g);
    (void)pthread_mutex_unlock(&g->process->mutex);
    if (comm_mpi_is_stopped(g) || g->control == MPI_COMM_NULL) return;
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        (void)MPI_Comm_free(&g->comms[c]);
    (void)MPI_Comm_free(&g->control);
}
