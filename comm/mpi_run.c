/* Running a rank of the MPI transport: its context, device, group and thread. */
#include "comm/mpi_state.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "base/log.h"
#include "base/memory.h"
#include "comm/copy_engine.h"
#include "comm/nccl.h"
#include "comm/nccl_link.h"
#include "comm/watch.h"

#include <stdlib.h>
#include <string.h>

/* After a stop: how long a rank waits for the others to say that they stop too; for rank 0, which
 * tells the user, a twelfth of the deadline (10 s of 120) if that is longer. */
#define STOP_WAIT_NS    INT64_C(2000000000)
#define FIRST_WAIT_PART 12
#define POLL_NS         20000000
#define OPEN_MS         60000

typedef struct runner {
    comm_mpi_t *mpi;
    int is_auto;         /* the transport was chosen here: another may take its place */
    base_status_t found; /* what went wrong before the ranks met: this one fails when they have */
    comm_mpi_group_t *g;
    comm_rank_fn fn;
    void *user;
    base_status_t status;
} runner_t;

/* ==== the end ==== */

/* All others have ended, and know that this rank has. */
static int all_left(const comm_mpi_group_t *g)
{
    if (g->note_due[COMM_MPI_STOP] || g->note_due[COMM_MPI_ENDED] || g->notes_open) return 0;
    for (int r = 0; r < g->group.size; r++)
        if (r != g->group.rank && g->ended[r].magic == 0) return 0;
    return 1;
}

/* The lowest rank that is known to have ended, this one included. */
static int first_ended(const comm_mpi_group_t *g)
{
    int r = 0;

    while (r < g->group.rank && g->ended[r].magic == 0)
        r++;
    return r;
}

static int waited_enough(const comm_mpi_group_t *g, int64_t since_stop_ns)
{
    const int64_t first_ns = base_ctx_deadline_ms(g->group.ctx) * 1000000 / FIRST_WAIT_PART;

    return since_stop_ns > STOP_WAIT_NS && (first_ended(g) == 0 || since_stop_ns > first_ns);
}

/* The mutex is held; what is said does not change any more. */
static void report(const comm_mpi_group_t *g)
{
    if (g->report == NULL || !g->has_failed) return;
    (void)pthread_mutex_unlock(&g->process->mutex);
    g->report(g->report_user, &g->error);
    (void)pthread_mutex_lock(&g->process->mutex);
}

/* Its lists and buffers are gone when its function returns, so an exchange that is still open is a
 * fault. Then it stays until all have ended, however long that takes: rank 0 may still be writing.
 * */
static void end_rank(runner_t *run)
{
    comm_mpi_group_t *g = run->g;
    comm_mpi_t *mpi = run->mpi;
    int64_t stopped_ns = 0;

    (void)pthread_mutex_lock(&mpi->mutex);
    if (run->status >= 0 && !comm_mpi_is_stopped(g)) {
        run->status = comm_mpi_check_complete(g);
        if (run->status >= 0 && g->carrier != NULL)
            run->status = g->carrier->check_complete(g->carrier);
    }
    if (run->status < 0) (void)comm_mpi_forward(g, run->status, COMM_MPI_CONCERNS_NONE);
    if (g->carrier != NULL) {
        (void)pthread_mutex_unlock(&mpi->mutex);
        g->carrier->end(g->carrier);
        (void)pthread_mutex_lock(&mpi->mutex);
    }
    if (g->group.rank == 0) report(g); /* before the others are free to go */
    comm_mpi_end(g);
    while (!all_left(g)) {
        if (comm_mpi_is_stopped(g) && stopped_ns == 0) stopped_ns = base_clock_ns();
        if (stopped_ns > 0 && waited_enough(g, base_clock_ns() - stopped_ns)) break;
        comm_mpi_sleep(mpi, &mpi->changed, POLL_NS);
    }
    mpi->speaker = first_ended(g);
    if (g->group.rank > 0 && mpi->speaker == g->group.rank) report(g);
    mpi->gone = !all_left(g);
    (void)pthread_mutex_unlock(&mpi->mutex);
    for (int c = 0; c < COMM_NUM_CHANNELS; c++) {
        const base_status_t sync = g->stream[c] != NULL ? base_stream_sync(g->stream[c]) : BASE_OK;

        if (run->status >= 0 && sync < 0 && !comm_mpi_is_stopped(g)) run->status = sync;
    }
}

static base_status_t try_carrier(comm_mpi_group_t *g)
{
    if (g->transport == COMM_TRANSPORT_COPY_ENGINE) return comm_copy_engine_open(g);
    return g->transport == COMM_TRANSPORT_NCCL ? comm_nccl_open(g) : BASE_OK;
}

/* What takes the place of copy engines that do not work. */
static int has_other(comm_mpi_group_t *g, comm_transport_t *other)
{
    const base_device_kind_t kind = base_device_kind(g->group.dev);

    *other = kind == BASE_DEVICE_CUDA ? COMM_TRANSPORT_NCCL : COMM_TRANSPORT_MPI;
    return g->transport == COMM_TRANSPORT_COPY_ENGINE && !comm_mpi_is_stopped(g) &&
           (*other == COMM_TRANSPORT_MPI || comm_nccl_link_carries(kind));
}

static void say_other(comm_mpi_group_t *g, comm_transport_t other)
{
    base_ctx_t *ctx = g->group.ctx;
    base_error_t error;

    if (base_ctx_error(ctx, &error))
        base_log_warn(base_ctx_log(ctx), "transport", "transport %s instead of %s: %s",
                      comm_transport_name(other), comm_transport_name(g->transport), error.text);
    base_ctx_clear_error(ctx);
}

/* The ranks meet and open each other's memory, which is no matter of one exchange's deadline. */
static base_status_t open_carrier(comm_mpi_group_t *g, int is_auto)
{
    comm_transport_t other;
    base_ctx_t *ctx = g->group.ctx;
    const int64_t deadline_ms = base_ctx_deadline_ms(ctx);

    if (deadline_ms < OPEN_MS) base_ctx_set_deadline_ms(ctx, OPEN_MS);
    base_status_t st = try_carrier(g);
    if (st < 0 && is_auto && has_other(g, &other)) { /* on all ranks alike */
        say_other(g, other);
        g->transport = other;
        st = try_carrier(g);
    }
    base_ctx_set_deadline_ms(ctx, deadline_ms);
    return st;
}

static void *rank_main(void *arg)
{
    runner_t *run = arg;
    comm_mpi_group_t *g = run->g;
    comm_group_t *group = &g->group;

    run->status = run->found;
    if (run->status >= 0) run->status = open_carrier(g, run->is_auto);
    if (run->status >= 0) run->status = run->fn(group, group->ctx, group->dev, run->user);
    end_rank(run);
    if (g->carrier != NULL) g->carrier->destroy(g->carrier);
    g->carrier = NULL;
    return NULL;
}

/* Work of the cpu device's COMPUTE stream runs on this thread: it has a stack of our own size. */
static base_status_t run_thread(runner_t *run, base_ctx_t *ctx)
{
    pthread_attr_t attr;
    pthread_t thread;
    int rc = pthread_attr_init(&attr);

    if (rc == 0) {
        rc = pthread_attr_setstacksize(&attr, BASE_HOST_STACK_BYTES);
        if (rc == 0) rc = pthread_create(&thread, &attr, rank_main, run);
        (void)pthread_attr_destroy(&attr);
    }
    if (rc != 0) {
        run->status =
            BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "rank %d: no thread", run->mpi->rank);
        end_rank(run); /* the others stop */
        return run->status;
    }
    (void)pthread_join(thread, NULL);
    return run->status;
}

/* ==== a group ==== */

static base_status_t run_group(runner_t *run, base_error_t *error)
{
    comm_mpi_t *mpi = run->mpi;
    comm_mpi_group_t *g = run->g;
    const int64_t limit_ns = base_ctx_deadline_ms(g->group.ctx) * 1000000;
    base_status_t st;

    base_ctx_set_stop_flag(g->group.ctx, &g->stop);
    st = comm_mpi_ask(mpi, COMM_MPI_OPEN, limit_ns, "communicators");
    if (st >= 0) st = comm_mpi_ask(mpi, COMM_MPI_RUN, limit_ns, "communicators");
    if (st < 0) {
        mpi->failed = mpi->stuck = 1;
        if (error != NULL) comm_watch_error(mpi->ctx, st, error);
        return st;
    }
    st = run_thread(run, g->group.ctx);
    (void)pthread_mutex_lock(&mpi->mutex); /* news may still come in */
    if (g->has_failed) {
        st = g->error.status;
        if (error != NULL) *error = g->error;
    } else if (st < 0 && error != NULL) {
        comm_watch_error(g->group.ctx, st, error);
    }
    (void)pthread_mutex_unlock(&mpi->mutex);
    const base_status_t closed = comm_mpi_ask(mpi, COMM_MPI_CLOSE, limit_ns, "closing");
    if (st >= 0 && closed < 0 && error != NULL) comm_watch_error(mpi->ctx, closed, error);
    return st < 0 ? st : closed;
}

static int number_on_host(const comm_mpi_t *mpi)
{
    int number = 0;

    for (int r = 0; r < mpi->rank; r++)
        number += mpi->hosts[r] == mpi->hosts[mpi->rank];
    return number;
}

/* By default CUDA loads a kernel when it is first launched, and may wait for all streams then. One of
 * them may be waiting for a peer, whose data another thread of this rank cannot give a copy for
 * meanwhile. Read when CUDA starts. */
static void load_kernels_early(base_device_kind_t device)
{
    if (device == BASE_DEVICE_CUDA) (void)setenv("CUDA_MODULE_LOADING", "EAGER", 0);
}

/* A rank whose device cannot be opened, such as one more than there are GPUs, meets the others all the same, on the CPU:
 * they wait for it, and only then can it tell them. *found: why; it is recorded. */
static base_status_t open_device(const comm_mpi_t *mpi, const comm_mpi_options_t *options,
                                 base_ctx_t *ctx, base_device_t **dev_p, base_status_t *found)
{
    const int index = options->device == BASE_DEVICE_CUDA ? number_on_host(mpi) : 0;

    *found = base_device_open(ctx, options->device, index, dev_p);
    return *found < 0 ? base_device_open(ctx, BASE_DEVICE_CPU, 0, dev_p) : BASE_OK;
}

static base_status_t run_member(comm_mpi_t *mpi, const comm_mpi_options_t *options, int is_auto,
                                int size, comm_rank_fn fn, void *user, base_ctx_t *ctx,
                                base_error_t *error)
{
    comm_mpi_group_t *g = base_calloc(mpi->ctx, 1, sizeof *g, "MPI transport");
    runner_t run = {.mpi = mpi, .is_auto = is_auto, .g = g, .fn = fn, .user = user};
    base_device_t *dev = NULL;
    base_status_t st = BASE_ERR_NOMEM;

    if (g == NULL) return st;
    if (options->deadline_ms > 0) base_ctx_set_deadline_ms(ctx, options->deadline_ms);
    if (size > 1) load_kernels_early(options->device);
    BASE_TRY_GOTO(open_device(mpi, options, ctx, &dev, &run.found), st, out_free);
    if (options->transport == COMM_TRANSPORT_COPY_ENGINE) base_device_share(dev);
    base_device_set_seed(dev, options->seed * 1000003u + (uint64_t)mpi->rank + 1);
    BASE_TRY_GOTO(comm_mpi_group_init(g, mpi, options, ctx, dev, size), st, out_device);
    mpi->group = g;
    st = run_group(&run, error);
    if (mpi->stuck) return st; /* the progress thread still uses it all; the process ends now */
    mpi->group = NULL;
    comm_group_destroy(&g->group);
out_device:
    base_device_close(dev);
out_free:
    if (st < 0 && error != NULL && error->status == BASE_OK) comm_watch_error(ctx, st, error);
    base_free(mpi->ctx, g);
    return st;
}

int comm_mpi_speaker(const comm_mpi_t *mpi)
{
    return mpi->speaker;
}

const char *comm_transport_name(comm_transport_t transport)
{
    static const char *const names[] = {"mpi", "copy_engine", "nccl", "auto"};

    return transport >= 0 && transport < COMM_TRANSPORT_COUNT ? names[transport] : "unknown";
}

static int is_one_host(const comm_mpi_t *mpi, const comm_mpi_options_t *options, int size)
{
    const int32_t *hosts = options->hosts != NULL ? options->hosts : mpi->hosts;

    for (int r = 1; r < size; r++)
        if (hosts[r] != hosts[0]) return 0;
    return 1;
}

/* What AUTO means for these ranks. */
static comm_transport_t choose(const comm_mpi_t *mpi, const comm_mpi_options_t *options, int size)
{
    const int on_cuda = options->device == BASE_DEVICE_CUDA;

    if (size == 1) return COMM_TRANSPORT_MPI; /* it moves nothing, on any device */
    if (options->transport != COMM_TRANSPORT_AUTO) return options->transport;
    if (is_one_host(mpi, options, size)) return COMM_TRANSPORT_COPY_ENGINE;
    return on_cuda ? COMM_TRANSPORT_NCCL : COMM_TRANSPORT_MPI;
}

static int is_legal(const comm_mpi_t *mpi, const comm_mpi_options_t *o, int size)
{
    return o->num_ranks >= 0 && size <= mpi->size && o->delay_ns >= 0 &&
           o->chunk_bytes <= INT32_MAX && o->device >= BASE_DEVICE_CPU &&
           o->device <= BASE_DEVICE_CUDA && o->transport >= COMM_TRANSPORT_MPI &&
           o->transport < COMM_TRANSPORT_COUNT;
}

/* What is known before anything is opened, and to all ranks alike. */
static base_status_t check_transport(const comm_mpi_t *mpi, const comm_mpi_options_t *o, int size)
{
    const int on_cuda = o->device == BASE_DEVICE_CUDA;
    const char *why = NULL;

    if (size == 1) return BASE_OK; /* it moves nothing */
    if (o->transport == COMM_TRANSPORT_MPI && on_cuda)
        why = "moves memory of the CPU, and these ranks have GPUs";
    else if (o->transport == COMM_TRANSPORT_COPY_ENGINE && on_cuda && !is_one_host(mpi, o, size))
        why = "serves the GPUs of one host, and these are of several";
    else if (o->transport == COMM_TRANSPORT_NCCL && !comm_nccl_link_carries(o->device))
        why = on_cuda ? "is not in this program, which was built without NCCL"
                      : "moves memory of GPUs, and these ranks have none";
    if (why == NULL) return BASE_OK;
    return BASE_FAIL(mpi->ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_COMM_06, "rank %d: transport %s %s",
                     mpi->rank, comm_transport_name(o->transport), why);
}

base_status_t comm_mpi_run(comm_mpi_t *mpi, const comm_mpi_options_t *given, comm_rank_fn fn,
                           void *user, base_error_t *error)
{
    const int size = given->num_ranks > 0 ? given->num_ranks : mpi->size;
    comm_mpi_options_t chosen = *given;
    const comm_mpi_options_t *options = &chosen;
    base_ctx_t *ctx = NULL;
    base_status_t st;

    if (error != NULL) *error = (base_error_t){.status = BASE_OK};
    if (fn == NULL || !is_legal(mpi, given, size)) {
        st = BASE_FAIL(
            mpi->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
            "MPI transport: %d ranks on device kind %d with transport %d; wanted at most %d",
            given->num_ranks, (int)given->device, (int)given->transport, mpi->size);
        if (error != NULL) comm_watch_error(mpi->ctx, st, error);
        return st;
    }
    chosen.transport = choose(mpi, given, size);
    st = check_transport(mpi, options, size);
    if (st < 0) {
        if (error == NULL) return st;
        comm_watch_error(mpi->ctx, st, error);
        base_ctx_clear_error(mpi->ctx); /* it is the run's, said once */
        return st;
    }
    mpi->open_ranks = size;
    if (mpi->rank >= size) { /* opening is collective */
        st = comm_mpi_ask(mpi, COMM_MPI_OPEN, INT64_MAX, "communicators");
        const base_status_t idle = comm_mpi_ask(mpi, COMM_MPI_IDLE, INT64_MAX, "communicators");

        return st < 0 ? st : idle;
    }
    st = base_ctx_create(mpi->rank, size, options->log, &ctx);
    if (st >= 0)
        st = run_member(mpi, options, given->transport == COMM_TRANSPORT_AUTO, size, fn, user, ctx,
                        error);
    if (!mpi->stuck) base_ctx_destroy(ctx);
    return st;
}
