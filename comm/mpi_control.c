/* Stops and ends: what a rank of the MPI transport tells all others, outside of any exchange. */
#include "comm/mpi_state.h"

#include "base/clock.h"
#include "comm/watch.h"

#include <string.h>

/* How long a stopped rank goes on with transfers that cannot be cancelled any more. */
#define QUIESCE_NS INT64_C(200000000)

int comm_mpi_is_stopped(const comm_mpi_group_t *g)
{
    return __atomic_load_n(&g->stop, __ATOMIC_ACQUIRE) != 0;
}

/* ==== telling ==== */

static void take_note(comm_mpi_group_t *g, comm_mpi_news_t news)
{
    comm_mpi_note_t *note = &g->note_out[news];

    note->magic = COMM_MPI_MAGIC;
    note->news = (int32_t)news;
    note->concerns = COMM_MPI_CONCERNS_NONE;
    note->rank = g->group.rank;
    note->collective_begun = g->gather.begun;
    memcpy(note->begun, g->begun, sizeof note->begun);
    g->note_due[news] = 1;
    (void)pthread_cond_signal(&g->process->work);
}

static void raise_stop(comm_mpi_group_t *g)
{
    g->process->failed = 1;
    __atomic_store_n(&g->stop, 1, __ATOMIC_RELEASE);
    (void)pthread_cond_broadcast(&g->process->changed);
}

void comm_mpi_fail(comm_mpi_group_t *g, const base_error_t *error, int concerns)
{
    comm_mpi_note_t *note = &g->note_out[COMM_MPI_STOP];

    if (g->has_failed) return; /* what comes now is a consequence */
    g->has_failed = 1;
    g->failed_rank = g->group.rank;
    g->error = *error;
    take_note(g, COMM_MPI_STOP);
    note->concerns = concerns;
    note->status = error->status;
    note->message = (int32_t)error->message;
    note->rank = error->rank;
    memcpy(note->text, error->text, sizeof note->text);
    raise_stop(g);
}

base_status_t comm_mpi_forward(comm_mpi_group_t *g, base_status_t st, int concerns)
{
    base_error_t error;

    comm_watch_error(g->group.ctx, st, &error);
    comm_mpi_fail(g, &error, concerns);
    return st;
}

void comm_mpi_end(comm_mpi_group_t *g)
{
    g->has_ended = 1;
    take_note(g, COMM_MPI_ENDED);
}

/* ==== being told ==== */

/* The text without the rank that it begins with, "rank 3: ". */
static const char *without_rank(const char *text)
{
    const char *colon = strncmp(text, "rank ", 5) == 0 ? strstr(text, ": ") : NULL;

    return colon != NULL ? colon + 2 : text;
}

static void take_stop(comm_mpi_group_t *g, int peer, const comm_mpi_note_t *note)
{
    base_ctx_t *ctx = g->group.ctx;
    const int rank = g->group.rank;

    g->stopped_by[peer] = 1;
    if (g->has_failed) return;
    g->has_failed = 1;
    g->failed_rank = peer;
    g->error = (base_error_t){.status = (base_status_t)note->status,
                              .message = (base_message_t)note->message,
                              .rank = note->rank,
                              .file = __FILE__,
                              .line = __LINE__};
    memcpy(g->error.text, note->text, sizeof g->error.text);
    g->error.text[sizeof g->error.text - 1] = '\0';
    if (!g->has_ended) {
        if (note->concerns == rank || note->concerns == COMM_MPI_CONCERNS_ALL)
            (void)BASE_FAIL(ctx, g->error.status, g->error.message, "rank %d: %s", rank,
                            without_rank(g->error.text));
        else
            (void)BASE_FAIL(ctx, BASE_ERR_PEER, BASE_MSG_COMM_01,
                            "rank %d: rank %d has stopped: %s", rank, peer, g->error.text);
    }
    raise_stop(g);
}

static base_status_t post_note(comm_mpi_group_t *g, int peer)
{
    return comm_mpi_check(g->group.ctx,
                          MPI_Irecv(&g->note_in[peer], sizeof g->note_in[peer], MPI_BYTE, peer,
                                    COMM_MPI_TAG_NOTE, g->control, &g->note_request[peer]),
                          "MPI_Irecv of a note");
}

base_status_t comm_mpi_post_notes(comm_mpi_group_t *g)
{
    for (int r = 0; r < g->group.size; r++)
        if (r != g->group.rank) BASE_TRY(post_note(g, r));
    return BASE_OK;
}

static base_status_t take_news(comm_mpi_group_t *g, int peer)
{
    const comm_mpi_note_t *note = &g->note_in[peer];

    if (note->magic != COMM_MPI_MAGIC)
        return BASE_FAIL(g->group.ctx, BASE_ERR_MISMATCH, BASE_MSG_COMM_03,
                         "rank %d: rank %d runs another version of this program", g->group.rank,
                         peer);
    if (note->news == COMM_MPI_STOP)
        take_stop(g, peer, note);
    else
        g->ended[peer] = *note;
    return post_note(g, peer);
}

static base_status_t send_notes(comm_mpi_group_t *g, int news)
{
    for (int r = 0; r < g->group.size; r++)
        if (r != g->group.rank)
            BASE_TRY(comm_mpi_check(g->group.ctx,
                                    MPI_Isend(&g->note_out[news], sizeof g->note_out[news],
                                              MPI_BYTE, r, COMM_MPI_TAG_NOTE, g->control,
                                              &g->note_sends[news * g->group.size + r]),
                                    "MPI_Isend of a note"));
    return BASE_OK;
}

base_status_t comm_mpi_progress_notes(comm_mpi_group_t *g, int *busy)
{
    int num = 0, sent = 0;

    for (int news = 0; news < 2; news++)
        if (g->note_due[news]) {
            g->note_due[news] = 0;
            *busy = g->notes_open = 1;
            BASE_TRY(send_notes(g, news));
        }
    BASE_TRY(comm_mpi_check(
        g->group.ctx, MPI_Testall(2 * g->group.size, g->note_sends, &sent, MPI_STATUSES_IGNORE),
        "MPI_Testall of notes"));
    *busy |= g->notes_open && sent;
    g->notes_open = !sent;
    BASE_TRY(comm_mpi_check(
        g->group.ctx, MPI_Testsome(g->group.size, g->note_request, &num, g->indices, g->statuses),
        "MPI_Testsome of notes"));
    for (int i = 0; i < num && num != MPI_UNDEFINED; i++) {
        *busy = 1;
        BASE_TRY(take_news(g, g->indices[i]));
    }
    return BASE_OK;
}

/* ==== the end of open requests ==== */

static int test_all(MPI_Request *requests, int num)
{
    int done = 1, all = 1;

    for (int i = 0; i < num; i++) {
        if (requests[i] == MPI_REQUEST_NULL) continue;
        (void)MPI_Test(&requests[i], &done, MPI_STATUS_IGNORE);
        all = all && done;
    }
    return all;
}

static void cancel(MPI_Request *request)
{
    if (*request != MPI_REQUEST_NULL) (void)MPI_Cancel(request);
}

/* Receives that nothing has matched end at once; what is on its way is given some time, and then
 * left: the buffers stay until the process ends (comm.h). */
void comm_mpi_quiesce(comm_mpi_group_t *g)
{
    const int64_t until = base_clock_ns() + QUIESCE_NS;
    int all;

    for (int c = 0; c < COMM_NUM_CHANNELS; c++) {
        for (int r = 0; r < g->group.size; r++)
            cancel(&g->header_request[c][r]);
        for (int i = 0; i < COMM_MAX_OPEN_EXCHANGES; i++) {
            comm_mpi_slot_t *slot = &g->slots[c][i];

            for (int k = 0; k < slot->num_requests; k++)
                if (slot->owner[k] >= 0 && slot->owner[k] % 2 == 0) cancel(&slot->requests[k]);
        }
    }
    for (int k = 0; k < g->gather.num_requests; k++)
        if (g->gather.owner[k] >= 0) cancel(&g->gather.requests[k]);
    do {
        all = test_all(g->gather.requests, g->gather.num_requests);
        for (int c = 0; c < COMM_NUM_CHANNELS; c++) {
            all = test_all(g->header_request[c], g->group.size) && all;
            for (int i = 0; i < COMM_MAX_OPEN_EXCHANGES; i++)
                all = test_all(g->slots[c][i].requests, g->slots[c][i].num_requests) && all;
        }
        if (all) break;
        (void)pthread_mutex_unlock(&g->process->mutex); /* whoever waits sees the stop */
        base_clock_sleep_ns(200000);
        (void)pthread_mutex_lock(&g->process->mutex);
    } while (base_clock_ns() < until);
}

void comm_mpi_forget_notes(comm_mpi_group_t *g)
{
    for (int r = 0; r < g->group.size; r++)
        cancel(&g->note_request[r]);
    (void)test_all(g->note_request, g->group.size);
    (void)test_all(g->note_sends, 2 * g->group.size);
}
