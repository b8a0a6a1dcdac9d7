/* Large messages between two processes: one range in one piece, which goes from and to its place,
 * and one of rows with gaps, which goes by way of staging.
 *
 *   mpirun -np 2 ranks.exchange_large [BYTES CHUNK_BYTES]
 *
 * Without words the sizes are small and a message holds at most 1 MiB. With 2684354560 0 each range
 * has 2.5 GiB, more than MPI's counts can say, and goes in messages of at most 1 GiB; that takes
 * 16 GiB of memory on the machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/memory.h"
#include "tests/support/mpi_world.h"

#define BYTES       (INT64_C(5) << 20)
#define CHUNK_BYTES (INT64_C(1) << 20)
#define PIECE       (INT64_C(1) << 20) /* of uploads and downloads */
#define ROW_BYTES   40000              /* less than what goes to its place by itself */
#define GAP_BYTES   64

typedef struct large {
    int64_t bytes, chunk_bytes;
    int64_t wrong; /* bytes of this process that are not what was sent */
    double seconds[2];
} large_t;

typedef struct gear {
    base_ctx_t *ctx;
    base_stream_t *stream;
    base_buffer_t *buffer;
    base_event_t *ready;
    uint64_t *piece; /* [PIECE] on the host */
} gear_t;

/* Every word of a buffer says where it is. */
static uint64_t word_at(int64_t at, int what)
{
    return (uint64_t)at * UINT64_C(0x9E3779B97F4A7C15) + (uint64_t)what;
}

static base_status_t write_all(gear_t *g, int64_t bytes, int what)
{
    for (int64_t at = 0; at < bytes; at += PIECE) {
        const int64_t n = bytes - at < PIECE ? bytes - at : PIECE;

        for (int64_t i = 0; i < n; i += 8)
            g->piece[i / 8] = word_at(at + i, what);
        BASE_TRY(base_upload(g->stream, base_mem(g->buffer, at), g->piece, n));
        BASE_TRY(base_stream_sync(g->stream));
    }
    return BASE_OK;
}

/* Bytes of rows have come; those of gaps are as they were (`before`). */
static base_status_t count_wrong(gear_t *g, int64_t bytes, int64_t row_bytes, int64_t pitch,
                                 int before, int came, int64_t *wrong)
{
    for (int64_t at = 0; at < bytes; at += PIECE) {
        const int64_t n = bytes - at < PIECE ? bytes - at : PIECE;

        BASE_TRY(base_download(g->stream, g->piece, base_mem(g->buffer, at), n));
        BASE_TRY(base_stream_sync(g->stream));
        for (int64_t i = 0; i < n; i += 8) {
            const int what = (at + i) % pitch < row_bytes ? came : before;

            *wrong += g->piece[i / 8] != word_at(at + i, what) ? 8 : 0;
        }
    }
    return BASE_OK;
}

/* Rank 0 sends the range, and rank 1 one row. */
static base_status_t exchange(comm_group_t *group, gear_t *g, large_t *l, int64_t row_bytes,
                              int64_t pitch, int kind)
{
    const int me = comm_group_rank(group);
    const int64_t rows = l->bytes / pitch, bytes = rows * pitch;
    const base_range_t all = {base_mem(g->buffer, 0), row_bytes, rows, pitch};
    const base_range_t behind = {base_mem(g->buffer, bytes), ROW_BYTES, 1, ROW_BYTES};
    const comm_peer_t peer = {.rank = 1 - me,
                              .num_send = 1,
                              .num_recv = 1,
                              .send = me == 0 ? &all : &behind,
                              .recv = me == 0 ? &behind : &all};
    const comm_exchange_t ex = {
        .tag = {.kind = kind}, .num_peers = 1, .peers = &peer, .ready = g->ready};
    comm_ticket_t ticket;

    BASE_TRY(write_all(g, bytes + ROW_BYTES, me));
    BASE_TRY(base_event_record(g->ready, g->stream));
    BASE_TRY(comm_barrier(group));
    const int64_t start_ns = base_clock_ns();
    BASE_TRY(comm_exchange_begin(group, COMM_CHANNEL_PONG, &ex, &ticket));
    BASE_TRY(comm_exchange_arrived(group, ticket, 1 - me, g->stream));
    BASE_TRY(comm_exchange_sent(group, ticket, g->stream));
    BASE_TRY(base_stream_sync(g->stream));
    l->seconds[kind] = (double)(base_clock_ns() - start_ns) * 1e-9;
    BASE_TRY(comm_barrier(group));
    return me == 0 ? BASE_OK : count_wrong(g, bytes, row_bytes, pitch, 1, 0, &l->wrong);
}

static base_status_t large_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                void *user)
{
    large_t *l = user;
    gear_t g = {.ctx = ctx};
    base_status_t st;

    g.piece = base_alloc(ctx, (size_t)PIECE, "pieces");
    if (g.piece == NULL) return BASE_ERR_NOMEM;
    BASE_TRY_GOTO(base_stream_create(dev, BASE_STREAM_COMPUTE, "test", &g.stream), st, out);
    BASE_TRY_GOTO(base_event_create(dev, &g.ready), st, out);
    BASE_TRY_GOTO(
        base_buffer_alloc(dev, BASE_MEMORY_DEVICE, l->bytes + ROW_BYTES, "test", &g.buffer), st,
        out);
    BASE_TRY_GOTO(exchange(group, &g, l, l->bytes, l->bytes, 0), st, out);
    st = exchange(group, &g, l, ROW_BYTES, ROW_BYTES + GAP_BYTES, 1);
out:
    if (st < 0) comm_group_stop(group, NULL);
    base_buffer_free(g.buffer);
    base_event_destroy(g.ready);
    base_stream_destroy(g.stream);
    base_free(ctx, g.piece);
    return st;
}

static void ranges_arrive_whole(void **state)
{
    large_t *l = *state;
    const comm_mpi_options_t options = {
        .device = BASE_DEVICE_CPU, .chunk_bytes = l->chunk_bytes, .deadline_ms = 120000};
    const mpi_piece_t pieces[] = {{&l->wrong, sizeof l->wrong}};
    base_error_t error;

    if (comm_mpi_run(mpi_world(), &options, large_rank, l, &error) < 0) fail_msg("%s", error.text);
    mpi_world_merge(pieces, 1);
    print_message("%lld bytes from process to process: in one piece %.2f s, in rows %.2f s\n",
                  (long long)l->bytes, l->seconds[0], l->seconds[1]);
    assert_int_equal(l->wrong, 0);
}

int main(int argc, char **argv)
{
    large_t l = {.bytes = argc > 2 ? strtoll(argv[1], NULL, 10) : BYTES,
                 .chunk_bytes = argc > 2 ? strtoll(argv[2], NULL, 10) : CHUNK_BYTES};
    const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(ranges_arrive_whole, &l)};

    mpi_world_open();
    if (mpi_world() == NULL || comm_mpi_size(mpi_world()) != 2 || l.bytes < 2 * ROW_BYTES ||
        l.bytes % 8 != 0) {
        (void)fprintf(stderr, "usage: mpirun -np 2 exchange_large [BYTES CHUNK_BYTES]\n");
        return 2;
    }
    const int failed = cmocka_run_group_tests_name("exchange_large", tests, NULL, NULL);
    mpi_world_close();
    return failed;
}
