/* What the carriers of data (comm/copy_engine.h, comm/nccl.h) have in common. */
#include "comm/mpi_state.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "base/memory.h"
#include "comm/watch.h"

#include <stdio.h>
#include <string.h>

#define WAIT_SLICE_MS 20

typedef struct wait_args {
    comm_mpi_group_t *g;
    base_stream_t *stream;
    comm_mpi_wait_t wait;
} wait_args_t;

static void account(const wait_args_t *a, int64_t start_ns)
{
    const comm_mpi_wait_t *w = &a->wait;
    const base_trace_note_t note = comm_note(&w->tag, w->peer, 0);
    const int64_t ready_ns =
        w->ready_ns != NULL ? __atomic_load_n(w->ready_ns, __ATOMIC_ACQUIRE) : start_ns;

    base_stream_waited(a->stream, &note, start_ns, ready_ns);
}

/* The carrier's pump ends the wait when nothing comes; it knows what to say. */
static base_status_t wait_work(void *args)
{
    const wait_args_t *a = args;
    base_ctx_t *ctx = a->g->group.ctx;
    const int64_t start_ns = base_clock_ns();
    base_status_t st;

    if (base_counter_value(a->wait.counter) >= a->wait.value) return BASE_OK;
    base_ctx_waits_for(ctx, a->wait.peer);
    do {
        st = base_counter_wait_host(ctx, a->wait.counter, a->wait.value, WAIT_SLICE_MS);
        if (st != BASE_OK && comm_mpi_is_stopped(a->g)) st = comm_watch_stopped(ctx);
    } while (st == BASE_PENDING);
    base_ctx_waits_for(ctx, -1);
    if (st >= 0) account(a, start_ns);
    return st;
}

base_status_t comm_mpi_wait_counters(comm_mpi_group_t *g, base_stream_t *stream,
                                     const comm_mpi_wait_t *waits, int num)
{
    const int on_host = base_device_kind(g->group.dev) != BASE_DEVICE_CUDA;
    base_signal_t open[COMM_MPI_MAX_WAITS];
    base_status_t st = BASE_OK;
    int num_open = 0;

    for (int i = 0; i < num && st >= 0; i++) {
        const wait_args_t args = {.g = g, .stream = stream, .wait = waits[i]};

        /* The host has seen it, so all that is given to the stream from now on comes after it: no wait, which would
         * be a call of the driver. */
        if (base_counter_value(waits[i].counter) >= waits[i].value) continue;
        if (on_host)
            st = base_stream_submit(stream, wait_work, &args, sizeof args, NULL, 0);
        else
            open[num_open++] = (base_signal_t){waits[i].counter, waits[i].value};
    }
    if (st >= 0 && num_open > 0) st = base_stream_wait_all(stream, open, num_open);
    return comm_mpi_outcome(g, st);
}

base_status_t comm_mpi_outcome(comm_mpi_group_t *g, base_status_t st)
{
    return st < 0 && comm_mpi_is_stopped(g) ? comm_watch_stopped(g->group.ctx) : st;
}

/* ==== all or none ==== */

typedef struct verdict {
    base_status_t status;
    base_message_t message;
    char text[BASE_ERROR_TEXT_BYTES];
} verdict_t;

base_status_t comm_mpi_give_up(comm_mpi_group_t *g, base_status_t st, int concerns)
{
    (void)pthread_mutex_lock(&g->process->mutex);
    st = comm_mpi_forward(g, st, concerns);
    (void)pthread_mutex_unlock(&g->process->mutex);
    return st;
}

base_status_t comm_mpi_agree(comm_mpi_group_t *g, base_status_t st)
{
    base_ctx_t *ctx = g->group.ctx;
    const int size = g->group.size;
    verdict_t mine = {.status = st};
    verdict_t *all = base_calloc(ctx, size, sizeof *all, "verdicts");
    base_status_t asked, agreed = BASE_OK;

    if (all == NULL) return comm_mpi_give_up(g, BASE_ERR_NOMEM, COMM_MPI_CONCERNS_NONE);
    if (st < 0) {
        base_error_t error;

        comm_watch_error(ctx, st, &error);
        mine.message = error.message;
        (void)snprintf(mine.text, sizeof mine.text, "%s", error.text);
    }
    asked = comm_mpi_allgather(&g->group, &mine, sizeof mine, all);
    for (int r = 0; r < size && asked >= 0; r++) {
        const verdict_t *v = &all[r];

        if (v->status == BASE_PENDING) agreed = BASE_PENDING;
        if (v->status >= 0) continue;
        base_ctx_clear_error(ctx);
        asked = strncmp(v->text, "rank ", 5) == 0
                    ? BASE_FAIL(ctx, v->status, v->message, "%s", v->text)
                    : BASE_FAIL(ctx, v->status, v->message, "rank %d: %s", r, v->text);
    }
    base_free(ctx, all);
    return asked < 0 ? asked : agreed;
}
