#include "tests/ranks/rank_world.h"

#include "base/clock.h"
#include "comm/mpi.h"
#include "tests/support/nccl_fake.h"
#include "tests/support/transport_env.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define USER_BYTES (64 * 1024)
#define MEET_NS    INT64_C(180000000000)

/* Memory of all processes. */
typedef struct shared {
    int arrived; /* atomic: processes that have come to a meeting, ever */
    rank_verdict_t of[RANKS_MAX];
    base_status_t status; /* rank 0's */
    base_error_t error;
    _Alignas(64) unsigned char user[USER_BYTES];
} shared_t;

/* One of a program, which has no other place for it: cmocka's tests are called without it. */
static struct world {
    base_ctx_t *ctx;
    comm_mpi_t *mpi;
    shared_t *shared;
    int rank, size, meetings;
} world;

static void give_up(const char *what)
{
    (void)fprintf(stderr, "rank %d: %s\n", world.rank, what);
    abort();
}

int rank_world_is_mpi(void)
{
    return world.mpi != NULL;
}

int rank_world_size(void)
{
    return world.size;
}

const char *rank_world_transport(void)
{
    return comm_transport_name(transport_env());
}

void rank_world_meet(void)
{
    const int64_t until = base_clock_ns() + MEET_NS;

    world.meetings++;
    __atomic_add_fetch(&world.shared->arrived, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(&world.shared->arrived, __ATOMIC_ACQUIRE) <
           world.meetings * world.size) {
        if (base_clock_ns() > until) give_up("the other ranks have not come for three minutes");
        base_clock_sleep_ns(100000);
    }
}

/* The name of the shared file: rank 0's process. */
static base_status_t gather_name(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user)
{
    const int64_t mine = (int64_t)getpid();
    int64_t all[RANKS_MAX];

    (void)ctx;
    (void)dev;
    BASE_TRY(comm_allgather(group, &mine, sizeof mine, all));
    *(int64_t *)user = all[0];
    return comm_barrier(group);
}

static base_status_t meet(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    (void)ctx;
    (void)dev;
    (void)user;
    return comm_barrier(group);
}

static void share_memory(void)
{
    const comm_mpi_options_t options = {.device = BASE_DEVICE_CPU};
    int64_t pid = 0;
    char path[64];
    int fd;

    if (comm_mpi_run(world.mpi, &options, gather_name, &pid, NULL) < 0) give_up("no first group");
    (void)snprintf(path, sizeof path, "ranks-%lld.shared", (long long)pid);
    fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)sizeof(shared_t)) != 0) give_up("no shared file");
    world.shared = mmap(NULL, sizeof(shared_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (world.shared == MAP_FAILED) give_up("no shared memory");
    if (comm_mpi_run(world.mpi, &options, meet, NULL, NULL) < 0) give_up("no second group");
    if (world.rank == 0) (void)unlink(path);
}

void rank_world_open(void)
{
    if (!comm_mpi_launched(&world.rank, &world.size)) return;
    nccl_fake_link();
    if (world.size > RANKS_MAX || (world.size < RANKS_MAX && !rank_case_on_gpus()))
        give_up("wanted RANKS_MAX processes");
    if (world.rank != 0 && freopen("/dev/null", "w", stdout) == NULL) give_up("no /dev/null");
    if (base_ctx_create(world.rank, world.size, NULL, &world.ctx) < 0) give_up("no context");
    if (comm_mpi_create(world.ctx, &world.mpi) < 0) give_up("no MPI");
    share_memory();
}

void rank_world_close(void)
{
    if (world.mpi == NULL) return;
    rank_world_meet();
    comm_mpi_destroy(world.mpi);
    base_ctx_destroy(world.ctx);
}

void rank_world_run(rank_case_t *run, comm_rank_fn fn)
{
    int32_t hosts[RANKS_MAX];
    const comm_mpi_options_t options = {.num_ranks = run->options.num_ranks,
                                        .device = run->options.device,
                                        .transport = transport_env(),
                                        .hosts = transport_env_hosts(hosts, RANKS_MAX),
                                        .seed = run->options.seed,
                                        .deadline_ms = run->options.deadline_ms,
                                        .delay_ns = run->options.delay_ns,
                                        .chunk_bytes = run->chunk_bytes,
                                        .direct_bytes = run->direct_bytes,
                                        .log = run->options.log};
    void *mine = run->user;
    shared_t *s = world.shared;

    if (run->user_bytes > USER_BYTES) give_up("user_bytes");
    if (run->user_bytes > 0) run->user = s->user;
    if (run->user_bytes > 0 && world.rank == 0) memcpy(s->user, mine, run->user_bytes);
    rank_world_meet();
    run->status = comm_mpi_run(world.mpi, &options, fn, run, &run->error);
    s->of[world.rank] = run->of[world.rank];
    if (world.rank == 0) s->status = run->status;
    if (world.rank == 0) s->error = run->error;
    rank_world_meet();
    memcpy(run->of, s->of, sizeof run->of);
    run->status = s->status;
    run->error = s->error;
    run->user = mine;
    if (run->user_bytes > 0) memcpy(mine, s->user, run->user_bytes);
    rank_world_meet(); /* nobody writes the next case before all have read this one */
}
