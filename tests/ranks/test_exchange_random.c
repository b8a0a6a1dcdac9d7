/* Random exchanges: sizes, pitches, empty lists, both channels, 1 to 5 ranks, several open at once;
 * every byte of every receiving buffer is compared, the gaps between rows included. */
#include "tests/ranks/rank_case.h"

#include "base/memory.h"

#include <stdlib.h>

#define WINDOW        4 /* exchanges in flight on each rank */
#define MAX_RANGES    4
#define SLOT_BYTES    (64 * 1024)
#define GAP           0xEE
#define NUM_EXCHANGES 48
#define WARM_UP       16

typedef struct plan {
    uint64_t seed;
} plan_t;

/* One rank's view of one exchange, with what its buffers hold before and after. */
typedef struct view {
    comm_ticket_t ticket;
    comm_peer_t peers[RANKS_MAX];
    base_range_t send[RANKS_MAX][MAX_RANGES], recv[RANKS_MAX][MAX_RANGES];
    unsigned char out[SLOT_BYTES], wanted[SLOT_BYTES], got[SLOT_BYTES];
    base_event_t *ready;
    int open;
} view_t;

typedef struct shape {
    int64_t row_bytes, rows, send_pitch, recv_pitch;
} shape_t;

/* What rank a sends to rank b in exchange e: both derive it from the seed. */
static int pair_ranges(uint64_t seed, int e, int a, int b)
{
    const uint64_t r = rank_random(seed, (uint64_t)e, (uint64_t)(a * 16 + b), 1);

    return r % 3 == 0 ? 0 : (int)(r / 3 % (MAX_RANGES + 1));
}

static shape_t pair_shape(uint64_t seed, int e, int a, int b, int k)
{
    const uint64_t r = rank_random(seed, (uint64_t)e, (uint64_t)(a * 16 + b), 100 + (uint64_t)k);
    shape_t s = {.row_bytes = (int64_t)(r % 257), .rows = (int64_t)(r >> 10) % 9};

    if ((r >> 16) % 16 == 0) s.row_bytes = 0;
    s.send_pitch = s.row_bytes + (int64_t)((r >> 24) % 33);
    s.recv_pitch = s.row_bytes + (int64_t)((r >> 32) % 33);
    return s;
}

static unsigned char payload(uint64_t seed, int e, int a, int b, int k, int64_t at)
{
    return (unsigned char)(rank_random(seed, (uint64_t)e * 4096 + (uint64_t)k,
                                       (uint64_t)(a * 16 + b), 7 + (uint64_t)(at / 8)) >>
                           (at % 8 * 8));
}

/* Writes the payload of one range into an image and describes it; returns the offset after it. */
static int64_t lay_out(uint64_t seed, int e, int a, int b, int k, int64_t pitch, int64_t at,
                       unsigned char *image, base_buffer_t *buffer, int64_t base,
                       base_range_t *range)
{
    const shape_t s = pair_shape(seed, e, a, b, k);

    for (int64_t row = 0; row < s.rows; row++)
        for (int64_t i = 0; i < s.row_bytes; i++)
            image[at + row * pitch + i] = payload(seed, e, a, b, k, row * s.row_bytes + i);
    *range = (base_range_t){.mem = base_mem(buffer, base + at),
                            .row_bytes = s.row_bytes,
                            .rows = s.rows,
                            .pitch = pitch};
    return at + s.rows * pitch + 5;
}

static void make_view(view_t *v, uint64_t seed, int e, int me, int size, base_buffer_t *out,
                      base_buffer_t *in, int64_t base, comm_exchange_t *ex)
{
    int64_t out_at = 0, in_at = 0;
    int n = 0;

    memset(v->out, GAP, sizeof v->out);
    memset(v->wanted, GAP, sizeof v->wanted);
    for (int p = 0; p < size; p++) {
        comm_peer_t *peer = &v->peers[n];
        int num_send, num_recv;

        if (p == me) continue;
        num_send = pair_ranges(seed, e, me, p);
        num_recv = pair_ranges(seed, e, p, me);
        /* A peer with nothing in either direction may be listed or not. */
        if (num_send == 0 && num_recv == 0 && rank_random(seed, (uint64_t)e, (uint64_t)p, 3) % 2)
            continue;
        for (int k = 0; k < num_send; k++)
            out_at = lay_out(seed, e, me, p, k, pair_shape(seed, e, me, p, k).send_pitch, out_at,
                             v->out, out, base, &v->send[n][k]);
        for (int k = 0; k < num_recv; k++)
            in_at = lay_out(seed, e, p, me, k, pair_shape(seed, e, p, me, k).recv_pitch, in_at,
                            v->wanted, in, base, &v->recv[n][k]);
        *peer = (comm_peer_t){.rank = p,
                              .num_send = num_send,
                              .num_recv = num_recv,
                              .send = v->send[n],
                              .recv = v->recv[n]};
        n++;
    }
    *ex = (comm_exchange_t){.tag = {.plan_hash = seed, .microbatch = e, .layer = e % 7, .kind = 1},
                            .num_peers = n,
                            .peers = v->peers};
}

/* Waits for exchange e's data peer by peer, in a random order, or for all of it at once, and compares the whole slot. */
static base_status_t retire(rank_case_t *run, comm_group_t *group, view_t *v, base_stream_t *stream,
                            base_buffer_t *in, int64_t base, int e)
{
    const int me = comm_group_rank(group), size = comm_group_size(group);
    const int first = (int)(rank_random((uint64_t)me, (uint64_t)e, 0, 9) % (uint64_t)size);

    if (!v->open) return BASE_OK;
    v->open = 0;
    if (rank_random((uint64_t)me, (uint64_t)e, 0, 10) % 3 == 0)
        BASE_TRY(comm_exchange_complete(group, v->ticket, stream));
    else
        for (int i = 0; i < size; i++)
            BASE_TRY(comm_exchange_arrived(group, v->ticket, (first + i) % size, stream));
    BASE_TRY(base_download(stream, v->got, base_mem(in, base), SLOT_BYTES));
    BASE_TRY(comm_exchange_sent(group, v->ticket, stream));
    BASE_TRY(base_stream_sync(stream));
    RANK_CHECK(run, me, memcmp(v->got, v->wanted, SLOT_BYTES) == 0, "exchange %d differs", e);
    return BASE_OK;
}

/* What was given to `stream` is ready by an event, or behind that stream, or behind another one that waits for it. */
static base_status_t choose_ready(const plan_t *plan, int me, int e, view_t *v,
                                  base_stream_t *stream, base_stream_t *other, comm_exchange_t *ex)
{
    const int how = (int)(rank_random(plan->seed, (uint64_t)e, (uint64_t)me, 11) % 3);

    ex->ready = how == 0 ? v->ready : NULL;
    ex->after = how == 1 ? stream : how == 2 ? other : NULL;
    if (how == 1) return BASE_OK;
    BASE_TRY(base_event_record(v->ready, stream));
    return how == 2 ? base_stream_wait_event(other, v->ready) : BASE_OK;
}

static base_status_t exchange_loop(rank_case_t *run, comm_group_t *group, base_ctx_t *ctx,
                                   base_stream_t *stream, base_stream_t *other, base_buffer_t *out,
                                   base_buffer_t *in, view_t *views)
{
    const plan_t *plan = run->user;
    const int me = comm_group_rank(group), size = comm_group_size(group);
    base_memory_t *memory = base_ctx_memory(ctx);
    int64_t calls = 0;

    for (int e = 0; e < NUM_EXCHANGES + WINDOW; e++) {
        const int64_t base = e % WINDOW * SLOT_BYTES;
        const base_range_t gaps = rank_range(in, base, SLOT_BYTES);
        view_t *v = &views[e % WINDOW];
        comm_exchange_t ex;

        BASE_TRY(retire(run, group, v, stream, in, base, e - WINDOW));
        if (e >= NUM_EXCHANGES) continue;
        if (e == WARM_UP) calls = base_memory_calls(memory);
        make_view(v, plan->seed, e, me, size, out, in, base, &ex);
        BASE_TRY(base_upload(stream, base_mem(out, base), v->out, SLOT_BYTES));
        BASE_TRY(base_fill(stream, &gaps, GAP));
        BASE_TRY(choose_ready(plan, me, e, v, stream, other, &ex));
        BASE_TRY(comm_exchange_begin(group, (int)(rank_random(plan->seed, (uint64_t)e, 0, 2) % 2),
                                     &ex, &v->ticket));
        v->open = 1;
    }
    RANK_CHECK(run, me, base_memory_calls(memory) == calls, "%lld allocations after the warm-up",
               (long long)(base_memory_calls(memory) - calls));
    return BASE_OK;
}

static base_status_t random_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user)
{
    view_t *views = calloc(WINDOW, sizeof *views);
    rank_gear_t out = {0}, in = {0};
    base_status_t st = BASE_ERR_NOMEM;

    if (views == NULL) return st;
    BASE_TRY_GOTO(rank_gear_open(&out, dev, BASE_STREAM_COMPUTE, WINDOW * SLOT_BYTES), st, out);
    BASE_TRY_GOTO(rank_gear_open(&in, dev, BASE_STREAM_COMPUTE, WINDOW * SLOT_BYTES), st, out);
    for (int i = 0; i < WINDOW; i++)
        BASE_TRY_GOTO(base_event_create(dev, &views[i].ready), st, out);
    st = exchange_loop(user, group, ctx, out.stream, in.stream, out.buffer, in.buffer, views);
out:
    if (st < 0) comm_group_stop(group, NULL);
    for (int i = 0; i < WINDOW; i++)
        base_event_destroy(views[i].ready);
    rank_gear_close(&in);
    rank_gear_close(&out);
    free(views);
    return st;
}

/* chunk_bytes, direct_bytes: over MPI. */
static void run_random(base_device_kind_t device, int num_seeds, int64_t chunk_bytes,
                       int64_t direct_bytes)
{
    for (int size = 1; size <= rank_case_max(); size++)
        for (int seed = 1; seed <= num_seeds; seed++) {
            plan_t plan = {.seed = (uint64_t)seed * 77 + (uint64_t)size};
            rank_case_t run = {.options = {.num_ranks = size,
                                           .device = device,
                                           .seed = plan.seed,
                                           .deadline_ms = 60000},
                               .chunk_bytes = chunk_bytes,
                               .direct_bytes = direct_bytes,
                               .user = &plan};

            rank_case_run(&run, random_rank);
            rank_case_assert_ok(&run);
        }
}

static void test_random_cpu(void **state)
{
    (void)state;
    run_random(BASE_DEVICE_CPU, 4, 0, 0);
}

static void test_random_strict(void **state)
{
    (void)state;
    run_random(BASE_DEVICE_STRICT, 4, 0, 0);
}

/* Messages cut as those over 1 GiB are, and ranges that go from and to their place: both far
 * smaller than they are outside of tests. */
static void test_random_chunks(void **state)
{
    (void)state;
    if (strcmp(rank_case_transport(), "mpi") != 0) return;
    run_random(BASE_DEVICE_CPU, 2, 100, 0);
    run_random(BASE_DEVICE_CPU, 2, 0, 300);
    run_random(BASE_DEVICE_CPU, 2, 333, 500);
    run_random(BASE_DEVICE_STRICT, 1, 333, 500);
}

static void test_random_gpus(void **state)
{
    (void)state;
    run_random(BASE_DEVICE_CUDA, 4, 0, 0);
    run_random(BASE_DEVICE_CUDA, 2, 0, 300); /* NCCL: ranges that go from and to their place */
}

int main(void)
{
    const struct CMUnitTest on_gpus[] = {cmocka_unit_test(test_random_gpus)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_cpu),
        cmocka_unit_test(test_random_strict),
        cmocka_unit_test(test_random_chunks),
    };

    if (rank_case_on_gpus()) return RANK_CASE_MAIN("exchange_random", on_gpus);
    return RANK_CASE_MAIN("exchange_random", tests);
}
