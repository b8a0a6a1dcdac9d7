/* A rank that has no memory: each request that opening a group and exchanging make fails once. All ranks end without waiting
 * for a deadline, what is reported is MEM-01 of that rank, and nothing is left behind.
 *
 * Linked with --wrap of the functions from which requests are counted, and of the end of a context. */
#include "tests/ranks/rank_case.h"

#include "base/memory.h"

#define RANKS   3
#define VICTIM  1
#define BYTES   4096
#define LONG_MS 60000

typedef struct scarce {
    int64_t fails;           /* which request of the victim */
    int64_t before;          /* what it had requested where counting begins */
    int64_t requests;        /* and in all from there */
    int64_t left[RANKS_MAX]; /* objects that outlived the context of a rank */
} scarce_t;

/* One of a program: what is wrapped knows no case. */
static struct count {
    const rank_case_t *run; /* NULL: nothing is counted */
    base_ctx_t *ctx;        /* over MPI: of this process's rank */
} count;

static int is_threads(void)
{
    return strcmp(rank_case_transport(), "threads") == 0;
}

/* The victim's requests count from here. */
static void count_from(base_ctx_t *ctx)
{
    scarce_t *scarce = count.run->user;

    if (base_ctx_rank(ctx) != VICTIM) return;
    scarce->before = base_memory_calls(base_ctx_memory(ctx));
    base_memory_fail_at(base_ctx_memory(ctx), scarce->fails);
}

/* ==== what is wrapped ==== */

struct comm_mpi_group;
base_status_t __real_base_ctx_create(int rank, int size, base_log_t *log, base_ctx_t **ctx_p);
base_status_t __wrap_base_ctx_create(int rank, int size, base_log_t *log, base_ctx_t **ctx_p);
void __real_base_ctx_destroy(base_ctx_t *ctx);
void __wrap_base_ctx_destroy(base_ctx_t *ctx);
base_status_t __real_comm_copy_engine_open(struct comm_mpi_group *g);
base_status_t __wrap_comm_copy_engine_open(struct comm_mpi_group *g);
base_status_t __real_comm_nccl_open(struct comm_mpi_group *g);
base_status_t __wrap_comm_nccl_open(struct comm_mpi_group *g);

/* As threads from the beginning; over MPI ranks first have to meet, or none could tell the others. */
base_status_t __wrap_base_ctx_create(int rank, int size, base_log_t *log, base_ctx_t **ctx_p)
{
    const base_status_t st = __real_base_ctx_create(rank, size, log, ctx_p);

    if (st < 0 || count.run == NULL || size < 2) return st;
    count.ctx = *ctx_p;
    if (is_threads()) count_from(*ctx_p);
    return st;
}

void __wrap_base_ctx_destroy(base_ctx_t *ctx)
{
    if (count.run != NULL && ctx != NULL && base_ctx_size(ctx) > 1) {
        base_memory_t *memory = base_ctx_memory(ctx);
        scarce_t *scarce = count.run->user;
        const int rank = base_ctx_rank(ctx);

        scarce->left[rank] = base_memory_live_total(memory);
        if (scarce->left[rank] != 0) base_memory_report(memory, stderr);
        if (rank == VICTIM) scarce->requests = base_memory_calls(memory) - scarce->before;
    }
    __real_base_ctx_destroy(ctx);
}

base_status_t __wrap_comm_copy_engine_open(struct comm_mpi_group *g)
{
    if (count.run != NULL) count_from(count.ctx);
    return __real_comm_copy_engine_open(g);
}

base_status_t __wrap_comm_nccl_open(struct comm_mpi_group *g)
{
    if (count.run != NULL) count_from(count.ctx);
    return __real_comm_nccl_open(g);
}

/* ==== a rank ==== */

/* A piece from everyone to everyone, on both channels, behind what the stream does. */
static base_status_t exchange(comm_group_t *group, const rank_gear_t *gear)
{
    const int me = comm_group_rank(group);
    base_range_t out[RANKS], in[RANKS];
    comm_peer_t peers[RANKS];
    int num = 0;

    for (int r = 0; r < RANKS; r++) {
        out[r] = rank_range(gear->buffer, r * BYTES, BYTES);
        in[r] = rank_range(gear->buffer, (RANKS + r) * BYTES, BYTES);
        if (r != me) peers[num++] = (comm_peer_t){r, 1, 1, &out[r], &in[r]};
    }
    for (int c = 0; c < COMM_NUM_CHANNELS; c++) {
        const comm_exchange_t ex = {.num_peers = num, .peers = peers, .after = gear->stream};
        comm_ticket_t ticket;

        BASE_TRY(comm_exchange_begin(group, c, &ex, &ticket));
        BASE_TRY(comm_exchange_complete(group, ticket, gear->stream));
    }
    BASE_TRY(base_stream_sync(gear->stream));
    return comm_barrier(group);
}

static base_status_t rank_fn(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    rank_gear_t gear;

    (void)user;
    if (strcmp(rank_case_transport(), "mpi") == 0) count_from(ctx);
    base_status_t st = rank_gear_open(&gear, dev, BASE_STREAM_ASYNC, 2 * RANKS * BYTES);
    if (st < 0) return st;
    const base_range_t all = rank_range(gear.buffer, 0, 2 * RANKS * BYTES);
    st = base_fill(gear.stream, &all, 7);
    if (st >= 0) st = exchange(group, &gear);
    if (st < 0) comm_group_stop(group, NULL);
    rank_gear_close(&gear);
    return st;
}

/* ==== the test ==== */

static void check_error(const rank_case_t *run, int64_t n)
{
    const base_error_t *e = &run->error;

    if (run->status != BASE_ERR_NOMEM || e->status != BASE_ERR_NOMEM ||
        strcmp(base_message_id(e->message), "MEM-01") != 0 ||
        (e->rank != VICTIM && strstr(e->text, "rank 1") == NULL))
        fail_msg("request %lld: %s, %s of rank %d: %s", (long long)n, base_status_name(run->status),
                 base_message_id(e->message), e->rank, e->text);
}

static int64_t fail_each(base_device_kind_t device)
{
    const int is_auto = strcmp(rank_case_transport(), "auto") == 0; /* another transport may do */
    int64_t n = 0, failures = 0, requests = 0;

    do {
        scarce_t scarce = {.fails = ++n};
        rank_case_t run = {
            .options = {.num_ranks = RANKS, .device = device, .seed = 3, .deadline_ms = LONG_MS},
            .user = &scarce,
            .user_bytes = sizeof scarce};

        count.run = &run;
        rank_case_run(&run, rank_fn);
        count.run = NULL;
        rank_case_assert_right(&run);
        for (int r = 0; r < RANKS; r++)
            assert_int_equal(scarce.left[r], 0);
        requests = scarce.requests;
        if (requests >= n) failures++;
        if (requests >= n && !(is_auto && run.status == BASE_OK)) check_error(&run, n);
    } while (requests >= n);
    return failures;
}

static void test_each_request(void **state)
{
    (void)state;
    const int64_t num = fail_each(BASE_DEVICE_CPU);
    print_message("%lld requests\n", (long long)num);
    assert_true(num > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_request)};

    return RANK_CASE_MAIN("no_memory", tests);
}
