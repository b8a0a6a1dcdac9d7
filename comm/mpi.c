/* MPI of this process: the progress thread, its start and its end. */
#include "comm/mpi_state.h"

#include "base/clock.h"
#include "base/memory.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

/* Sleeps between two looks at what is open: short after something moved and while data is on its way
 * (Open MPI brings a large message a piece further at each look), longer the longer nothing does. A
 * stop of another rank is seen within the longest. */
#define SLEEP_MIN_NS 20000
#define SLEEP_MAX_NS 1000000
/* Without a sleep after something moved, while a GPU waits for headers. */
#define GPU_SPIN_NS 100000
#define LET_IN_NS   50000
/* Waits of the rank's threads look at stop and deadline this often. */
#define POLL_NS 20000000
/* How long the end waits for MPI_Finalize after a failure: for ranks that were alive, one of which may still
 * have to say why, and when a rank did not come any more. */
#define LAST_WAIT_NS INT64_C(30000000000)
#define GONE_WAIT_NS INT64_C(3000000000)

/* ==== environment ==== */

static int number_of(const char *name, int *value)
{
    const char *text = getenv(name);
    char *end = NULL;

    if (text == NULL || text[0] == '\0') return 0;
    const long n = strtol(text, &end, 10);
    if (*end != '\0' || n < 0 || n > INT32_MAX) return 0;
    *value = (int)n;
    return 1;
}

int comm_mpi_launched(int *rank, int *size)
{
    /* mpirun of Open MPI sets the first pair in every version; srun with PMIx sets the others. */
    if (number_of("OMPI_COMM_WORLD_SIZE", size)) return number_of("OMPI_COMM_WORLD_RANK", rank);
    if (getenv("PMIX_NAMESPACE") != NULL && number_of("SLURM_NTASKS", size))
        return number_of("SLURM_PROCID", rank);
    return 0;
}

/* ==== what both threads use ==== */

void comm_mpi_enter(comm_mpi_t *mpi)
{
    (void)__atomic_add_fetch(&mpi->wanted, 1, __ATOMIC_SEQ_CST);
    (void)pthread_mutex_lock(&mpi->mutex);
    (void)__atomic_sub_fetch(&mpi->wanted, 1, __ATOMIC_SEQ_CST);
}

void comm_mpi_sleep(comm_mpi_t *mpi, pthread_cond_t *cond, int64_t ns)
{
    const int64_t until = base_clock_ns() + (ns < POLL_NS ? ns : POLL_NS);
    const struct timespec ts = {.tv_sec = (time_t)(until / 1000000000),
                                .tv_nsec = (long)(until % 1000000000)};

    (void)pthread_cond_timedwait(cond, &mpi->mutex, &ts); /* callers look again */
}

base_status_t comm_mpi_check(base_ctx_t *ctx, int rc, const char *call)
{
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;

    if (rc == MPI_SUCCESS) return BASE_OK;
    if (MPI_Error_string(rc, text, &length) != MPI_SUCCESS)
        (void)snprintf(text, sizeof text, "error %d", rc);
    return BASE_FAIL(ctx, BASE_ERR_COMM, BASE_MSG_COMM_04, "rank %d: %s: %s", base_ctx_rank(ctx),
                     call, text);
}

base_status_t comm_mpi_ask(comm_mpi_t *mpi, int what, int64_t limit_ns, const char *name)
{
    const int64_t start_ns = base_clock_ns();
    base_status_t st = BASE_OK;

    (void)pthread_mutex_lock(&mpi->mutex);
    mpi->asked = what;
    (void)pthread_cond_signal(&mpi->work);
    while (mpi->state != what && mpi->state != COMM_MPI_EXIT) {
        const int64_t waited_ns = base_clock_ns() - start_ns;

        if (waited_ns > limit_ns) {
            st = BASE_FAIL(mpi->ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                           "rank %d: %s: MPI has not come back in %" PRId64
                           " ms; not all ranks have come so far",
                           mpi->rank, name, waited_ns / 1000000);
            break;
        }
        comm_mpi_sleep(mpi, &mpi->changed, POLL_NS);
    }
    if (st >= 0) st = mpi->status;
    (void)pthread_mutex_unlock(&mpi->mutex);
    return st;
}

/* ==== the progress thread ==== */

/* Hosts are numbered in the order of their first ranks. */
static base_status_t find_hosts(comm_mpi_t *mpi)
{
    MPI_Comm host = MPI_COMM_NULL;
    int32_t leader = mpi->rank, next = 0;

    BASE_TRY(comm_mpi_check(
        mpi->ctx,
        MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, mpi->rank, MPI_INFO_NULL, &host),
        "MPI_Comm_split_type"));
    BASE_TRY(comm_mpi_check(mpi->ctx, MPI_Bcast(&leader, 1, MPI_INT32_T, 0, host), "MPI_Bcast"));
    BASE_TRY(comm_mpi_check(
        mpi->ctx,
        MPI_Allgather(&leader, 1, MPI_INT32_T, mpi->hosts, 1, MPI_INT32_T, MPI_COMM_WORLD),
        "MPI_Allgather"));
    (void)MPI_Comm_free(&host);
    for (int r = 0; r < mpi->size; r++) /* a leader is the first rank of its host */
        mpi->hosts[r] = mpi->hosts[r] == r ? next++ : mpi->hosts[mpi->hosts[r]];
    return BASE_OK;
}

static base_status_t start_mpi(comm_mpi_t *mpi)
{
    int provided = 0, already = 0;

    (void)MPI_Initialized(&already);
    if (already)
        return BASE_FAIL(mpi->ctx, BASE_ERR_COMM, BASE_MSG_COMM_04,
                         "rank %d: MPI has been initialized in this process already", mpi->rank);
    BASE_TRY(comm_mpi_check(mpi->ctx, MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided),
                            "MPI_Init_thread"));
    if (provided < MPI_THREAD_FUNNELED)
        return BASE_FAIL(mpi->ctx, BASE_ERR_COMM, BASE_MSG_COMM_04,
                         "rank %d: MPI has thread level %d; wanted %d (MPI_THREAD_FUNNELED)",
                         mpi->rank, provided, MPI_THREAD_FUNNELED);
    (void)MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &mpi->rank);
    (void)MPI_Comm_size(MPI_COMM_WORLD, &mpi->size);
    mpi->hosts = base_calloc(mpi->ctx, mpi->size, sizeof *mpi->hosts, "hosts of ranks");
    return mpi->hosts == NULL ? BASE_ERR_NOMEM : find_hosts(mpi);
}

static base_status_t open_group(comm_mpi_t *mpi)
{
    const int member = mpi->rank < mpi->open_ranks;
    MPI_Comm comm = MPI_COMM_NULL;
    base_status_t st = comm_mpi_check(
        mpi->ctx, MPI_Comm_split(MPI_COMM_WORLD, member ? 0 : MPI_UNDEFINED, mpi->rank, &comm),
        "MPI_Comm_split");

    if (st >= 0 && member) st = comm_mpi_group_connect(mpi->group, comm);
    return st;
}

/* One look at everything; returns whether anything moved. The mutex is held. */
static int progress_once(comm_mpi_group_t *g)
{
    int busy = 0;
    base_status_t st = comm_mpi_progress_notes(g, &busy);

    if (st >= 0 && !comm_mpi_is_stopped(g)) st = comm_mpi_progress(g, &busy);
    if (st >= 0 && !comm_mpi_is_stopped(g)) st = comm_mpi_progress_gather(g, &busy);
    if (st >= 0 && !comm_mpi_is_stopped(g)) st = comm_mpi_progress_bare(g, &busy);
    if (st < 0 && !comm_mpi_is_stopped(g)) (void)comm_mpi_forward(g, st, COMM_MPI_CONCERNS_NONE);
    if (comm_mpi_is_stopped(g) && !g->quiet) {
        if (comm_mpi_progress_notes(g, &busy) < 0) busy = 1; /* the news first, if they can go */
        comm_mpi_quiesce(g);
        g->quiet = 1;
        busy = 1;
    }
    return busy;
}

/* Lets go of the mutex until all that want it have had it, but no longer than LET_IN_NS. */
static void let_in(comm_mpi_t *mpi)
{
    const int64_t start_ns = base_clock_ns();

    (void)pthread_mutex_unlock(&mpi->mutex);
    do
        (void)sched_yield();
    while (__atomic_load_n(&mpi->wanted, __ATOMIC_SEQ_CST) > 0 &&
           base_clock_ns() - start_ns < LET_IN_NS);
    (void)pthread_mutex_lock(&mpi->mutex);
}

/* A GPU waits for headers: a sleep would be longer than what they let begin. */
static int spins(const comm_mpi_group_t *g, int64_t busy_ns)
{
    return g->headers_only && g->moving && base_device_kind(g->group.dev) == BASE_DEVICE_CUDA &&
           base_clock_ns() - busy_ns < GPU_SPIN_NS;
}

static void run_group(comm_mpi_t *mpi)
{
    int64_t sleep_ns = SLEEP_MIN_NS, busy_ns = 0;

    while (mpi->asked == COMM_MPI_RUN) {
        if (progress_once(mpi->group)) {
            sleep_ns = SLEEP_MIN_NS;
            busy_ns = base_clock_ns();
            (void)pthread_cond_broadcast(&mpi->changed);
            if (__atomic_load_n(&mpi->wanted, __ATOMIC_SEQ_CST) > 0) let_in(mpi);
        } else if (spins(mpi->group, busy_ns)) {
            let_in(mpi);
        } else {
            if (mpi->group->moving) sleep_ns = SLEEP_MIN_NS;
            comm_mpi_sleep(mpi, &mpi->work, sleep_ns);
            sleep_ns = sleep_ns * 2 < SLEEP_MAX_NS ? sleep_ns * 2 : SLEEP_MAX_NS;
        }
    }
}

static void *progress_main(void *arg)
{
    comm_mpi_t *mpi = arg;
    const base_status_t st = start_mpi(mpi);

    (void)prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL); /* sleeps of 20 us, not of 70 */
    (void)pthread_mutex_lock(&mpi->mutex);
    mpi->status = st;
    mpi->state = COMM_MPI_IDLE;
    (void)pthread_cond_broadcast(&mpi->changed);
    while (mpi->asked != COMM_MPI_EXIT && st >= 0) {
        const int asked = mpi->asked;
        base_status_t did = BASE_OK;

        if (asked == mpi->state) {
            comm_mpi_sleep(mpi, &mpi->work, POLL_NS);
            continue;
        }
        if (asked == COMM_MPI_OPEN || asked == COMM_MPI_CLOSE) {
            (void)pthread_mutex_unlock(&mpi->mutex);
            if (asked == COMM_MPI_OPEN)
                did = open_group(mpi);
            else
                comm_mpi_group_disconnect(mpi->group);
            (void)pthread_mutex_lock(&mpi->mutex);
        }
        mpi->status = did;
        mpi->state = asked;
        (void)pthread_cond_broadcast(&mpi->changed);
        if (asked == COMM_MPI_RUN) run_group(mpi);
    }
    (void)pthread_mutex_unlock(&mpi->mutex);
    if (st >= 0) (void)MPI_Finalize();
    (void)pthread_mutex_lock(&mpi->mutex);
    mpi->state = COMM_MPI_EXIT;
    (void)pthread_cond_broadcast(&mpi->changed);
    (void)pthread_mutex_unlock(&mpi->mutex);
    return NULL;
}

/* ==== life ==== */

/* Who finds it taken looks a few times before he sleeps: it is held for microseconds. */
static int init_mutex(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attr;

    if (pthread_mutexattr_init(&attr) != 0) return 0;
    const int ok = pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP) == 0 &&
                   pthread_mutex_init(mutex, &attr) == 0;
    (void)pthread_mutexattr_destroy(&attr);
    return ok;
}

static int init_sync(comm_mpi_t *mpi)
{
    pthread_condattr_t attr;

    if (pthread_condattr_init(&attr) != 0) return 0;
    const int ok = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 &&
                   init_mutex(&mpi->mutex) && pthread_cond_init(&mpi->work, &attr) == 0 &&
                   pthread_cond_init(&mpi->changed, &attr) == 0;
    (void)pthread_condattr_destroy(&attr);
    return ok;
}

static void deinit_sync(comm_mpi_t *mpi)
{
    (void)pthread_cond_destroy(&mpi->changed);
    (void)pthread_cond_destroy(&mpi->work);
    (void)pthread_mutex_destroy(&mpi->mutex);
}

base_status_t comm_mpi_create(base_ctx_t *ctx, comm_mpi_t **mpi_p)
{
    comm_mpi_t *mpi = base_calloc(ctx, 1, sizeof *mpi, "MPI transport");
    base_status_t st;

    if (mpi == NULL) return BASE_ERR_NOMEM;
    mpi->ctx = ctx;
    mpi->size = 1;
    (void)comm_mpi_launched(&mpi->rank, &mpi->size); /* for messages until MPI says so itself */
    mpi->state = COMM_MPI_OPEN;                      /* anything but what is asked for */
    if (!init_sync(mpi) || pthread_create(&mpi->thread, NULL, progress_main, mpi) != 0) {
        base_free(ctx, mpi);
        return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "MPI transport: no thread");
    }
    base_memory_count_open(base_ctx_memory(ctx), BASE_RESOURCE_THREAD);
    st = comm_mpi_ask(mpi, COMM_MPI_IDLE, base_ctx_deadline_ms(ctx) * 1000000, "MPI_Init_thread");
    if (st < 0) {
        mpi->failed = mpi->gone = 1;
        comm_mpi_destroy(mpi);
        return st;
    }
    *mpi_p = mpi;
    return BASE_OK;
}

void comm_mpi_destroy(comm_mpi_t *mpi)
{
    const int64_t start_ns = base_clock_ns();
    int ended;

    if (mpi == NULL) return;
    const int64_t limit_ns = mpi->gone || mpi->stuck ? GONE_WAIT_NS : LAST_WAIT_NS;
    (void)pthread_mutex_lock(&mpi->mutex);
    mpi->asked = COMM_MPI_EXIT;
    (void)pthread_cond_signal(&mpi->work);
    while (mpi->failed && mpi->state != COMM_MPI_EXIT && base_clock_ns() - start_ns < limit_ns)
        comm_mpi_sleep(mpi, &mpi->changed, POLL_NS);
    ended = !mpi->failed || mpi->state == COMM_MPI_EXIT;
    (void)pthread_mutex_unlock(&mpi->mutex);
    if (!ended) { /* it still uses the object: the process ends, and both with it */
        (void)pthread_detach(mpi->thread);
        return;
    }
    (void)pthread_join(mpi->thread, NULL);
    base_memory_count_close(base_ctx_memory(mpi->ctx), BASE_RESOURCE_THREAD);
    deinit_sync(mpi);
    base_free(mpi->ctx, mpi->hosts);
    base_free(mpi->ctx, mpi);
}

int comm_mpi_rank(const comm_mpi_t *mpi)
{
    return mpi->rank;
}

int comm_mpi_size(const comm_mpi_t *mpi)
{
    return mpi->size;
}
