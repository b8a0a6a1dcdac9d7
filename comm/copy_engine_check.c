/* What the copy engine transport needs of its devices, tried once before it is relied on: that memory of
 * every other rank can be opened and read, and that what a stream writes into another rank's counters
 * is seen there by the host and by streams. */
#include "comm/copy_engine_state.h"

#include "base/device/device_host.h"
#include "base/memory.h"

#include <string.h>

#define ROWS      64
#define ROW_BYTES 192
#define PITCH     256 /* copied as a rectangle, as tensors are */
#define BYTES     (ROWS * PITCH)
#define WAIT_MS   5000

typedef struct check {
    comm_copy_engine_t *e;
    base_buffer_t *mine, *copy, *theirs;
    base_stream_t *stream;
    base_export_t *exports; /* [size] */
    unsigned char *host;    /* [BYTES] */
} check_t;

static uint8_t pattern(int rank, int at)
{
    return (uint8_t)(rank * 89 + at * 7 + at / PITCH + 1);
}

static base_status_t prepare(check_t *c)
{
    base_device_t *dev = c->e->g->group.dev;

    BASE_TRY(base_stream_create(dev, BASE_STREAM_ASYNC, "check", &c->stream));
    BASE_TRY(base_buffer_alloc(dev, BASE_MEMORY_DEVICE, BYTES, "check", &c->mine));
    BASE_TRY(base_buffer_alloc(dev, BASE_MEMORY_DEVICE, BYTES, "check", &c->copy));
    for (int i = 0; i < BYTES; i++)
        c->host[i] = pattern(c->e->g->group.rank, i);
    BASE_TRY(base_upload(c->stream, base_mem(c->mine, 0), c->host, BYTES));
    BASE_TRY(base_stream_sync(c->stream));
    return base_buffer_export(c->mine, &c->exports[c->e->g->group.rank]);
}

/* Copies what `rank` offers and looks at it. */
static base_status_t read_rank(check_t *c, int rank)
{
    comm_group_t *group = &c->e->g->group;
    base_range_t from = {.row_bytes = ROW_BYTES, .rows = ROWS, .pitch = PITCH}, to = from;
    int wrong = 0;

    BASE_TRY(base_buffer_import(group->dev, &c->exports[rank], "check", &c->theirs));
    from.mem = base_mem(c->theirs, 0);
    to.mem = base_mem(c->copy, 0);
    BASE_TRY(base_copy(c->stream, &to, &from));
    BASE_TRY(base_download(c->stream, c->host, base_mem(c->copy, 0), BYTES));
    BASE_TRY(base_stream_sync(c->stream));
    for (int i = 0; i < BYTES; i++)
        wrong += i % PITCH < ROW_BYTES && c->host[i] != pattern(rank, i);
    base_buffer_free(c->theirs);
    c->theirs = NULL;
    if (wrong > 0)
        return BASE_FAIL(group->ctx, BASE_ERR_COMM, BASE_MSG_COMM_05,
                         "rank %d: memory of rank %d: %d of %d bytes came as something else",
                         group->rank, rank, wrong, ROWS * ROW_BYTES);
    return base_stream_signal(
        c->stream,
        base_counter_bank_at(c->e->peers[rank].bank, comm_copy_checked(group->size, group->rank)),
        1);
}

static base_status_t read_all(check_t *c)
{
    comm_group_t *group = &c->e->g->group;

    for (int r = 0; r < group->size; r++)
        if (c->e->peers[r].is_here) BASE_TRY(read_rank(c, r));
    return base_stream_sync(c->stream);
}

/* All streams have written by now; so neither wait takes long, and none that never ends is given. */
static base_status_t hear_all(check_t *c)
{
    comm_group_t *group = &c->e->g->group;

    for (int r = 0; r < group->size; r++) {
        if (!c->e->peers[r].is_here) continue;
        base_counter_t *told = base_counter_bank_at(c->e->bank, comm_copy_checked(group->size, r));
        const base_status_t st = base_counter_wait_host(group->ctx, told, 1, WAIT_MS);

        if (st == BASE_PENDING)
            return BASE_FAIL(group->ctx, BASE_ERR_COMM, BASE_MSG_COMM_05,
                             "rank %d: a counter that rank %d has raised is still 0 here",
                             group->rank, r);
        if (st < 0) return st;
        BASE_TRY(base_stream_wait_counter(c->stream, told, 1));
    }
    return base_stream_sync(c->stream);
}

base_status_t comm_copy_check(comm_copy_engine_t *e)
{
    comm_group_t *group = &e->g->group;
    check_t c = {.e = e};
    base_status_t st = BASE_ERR_NOMEM;

    c.exports = base_calloc(group->ctx, group->size, sizeof *c.exports, "check");
    c.host = base_calloc(group->ctx, BYTES, 1, "check");
    if (c.exports != NULL && c.host != NULL) st = prepare(&c);
    st = comm_mpi_agree(e->g, st);
    if (st >= 0) {
        const base_export_t mine = c.exports[group->rank];

        st = comm_mpi_allgather(group, &mine, sizeof mine, c.exports);
    }
    if (st >= 0) st = comm_mpi_agree(e->g, read_all(&c));
    if (st >= 0) st = comm_mpi_agree(e->g, hear_all(&c));
    base_stream_destroy(c.stream); /* first: after a failure it may still copy */
    base_buffer_free(c.theirs);
    base_buffer_free(c.copy);
    base_buffer_free(c.mine);
    base_free(group->ctx, c.host);
    base_free(group->ctx, c.exports);
    return st;
}
