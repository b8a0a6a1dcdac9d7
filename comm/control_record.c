/* Records are uploaded, exchanged each with each, and downloaded look_ahead calls later. A ring
 * entry is used again look_ahead + 1 calls later at the earliest, when its own exchange has been
 * waited for; that of a rank with nothing but sends as well. */
#include "comm/control_record.h"

#include "base/memory.h"

#include <inttypes.h>
#include <stdbool.h>

#define RING        (COMM_CONTROL_MAX_LOOK_AHEAD + 1)
#define ENTRY_BYTES 4096 /* apart, since the strict device protects pages */

/* Tag of comm's own; reduce.c has -1 and -2. */
enum { KIND_CONTROL = -3 };

typedef struct control_entry {
    comm_ticket_t ticket;
    comm_control_record_t mine;
    comm_peer_t *peers; /* [size - 1] */
    base_range_t send, *recv;
} control_entry_t;

struct comm_control {
    comm_group_t *group;
    base_ctx_t *ctx;
    base_buffer_t *buffer; /* [RING] {mine, all}, each rounded up to ENTRY_BYTES */
    base_stream_t *stream;
    int look_ahead;
    int64_t calls, finished; /* exchanges given; of those, known to be complete */
    int64_t entry_bytes;
    control_entry_t ring[RING];
    comm_control_record_t *all; /* [size] */
};

static base_range_t place(const comm_control_t *c, int64_t offset)
{
    const int64_t bytes = (int64_t)sizeof(comm_control_record_t);

    return (base_range_t){
        .mem = base_mem(c->buffer, offset), .row_bytes = bytes, .rows = 1, .pitch = bytes};
}

static base_status_t make_entry(comm_control_t *c, int i)
{
    const int size = comm_group_size(c->group), me = comm_group_rank(c->group);
    control_entry_t *e = &c->ring[i];
    int n = 0;

    e->peers = base_calloc(c->ctx, size, sizeof *e->peers, "control record");
    e->recv = base_calloc(c->ctx, size, sizeof *e->recv, "control record");
    if (e->peers == NULL || e->recv == NULL) return BASE_ERR_NOMEM;
    e->send = place(c, i * c->entry_bytes);
    for (int r = 0; r < size; r++) {
        e->recv[n] =
            place(c, i * c->entry_bytes + ENTRY_BYTES + r * (int64_t)sizeof(comm_control_record_t));
        if (r == me) continue;
        e->peers[n] = (comm_peer_t){
            .rank = r, .num_send = 1, .num_recv = 1, .send = &e->send, .recv = &e->recv[n]};
        n++;
    }
    return BASE_OK;
}

base_status_t comm_control_create(comm_group_t *group, base_device_t *dev, int look_ahead,
                                  comm_control_t **control_p)
{
    base_ctx_t *ctx = base_device_ctx(dev);
    const int64_t size = comm_group_size(group);
    const int64_t all_bytes = size * (int64_t)sizeof(comm_control_record_t);
    base_status_t st;

    if (look_ahead < 0 || look_ahead > COMM_CONTROL_MAX_LOOK_AHEAD)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "control record: look-ahead %d; wanted 0..%d", look_ahead,
                         COMM_CONTROL_MAX_LOOK_AHEAD);
    comm_control_t *c = base_calloc(ctx, 1, sizeof *c, "control record");
    if (c == NULL) return BASE_ERR_NOMEM;
    c->group = group;
    c->ctx = ctx;
    c->look_ahead = look_ahead;
    c->entry_bytes = ENTRY_BYTES + (all_bytes + ENTRY_BYTES - 1) / ENTRY_BYTES * ENTRY_BYTES;
    c->all = base_calloc(ctx, size, sizeof *c->all, "control record");
    st = c->all == NULL ? BASE_ERR_NOMEM : BASE_OK;
    if (st >= 0)
        st = base_buffer_alloc(dev, BASE_MEMORY_DEVICE, RING * c->entry_bytes, "control records",
                               &c->buffer);
    if (st >= 0) st = base_stream_create(dev, BASE_STREAM_ASYNC, "control", &c->stream);
    for (int i = 0; i < RING && st >= 0; i++)
        st = make_entry(c, i);
    if (st < 0) {
        comm_control_destroy(c);
        return st;
    }
    *control_p = c;
    return BASE_OK;
}

void comm_control_destroy(comm_control_t *control)
{
    if (control == NULL) return;
    if (control->calls != control->finished) comm_group_stop(control->group, NULL);
    base_stream_destroy(control->stream);
    for (int i = 0; i < RING; i++) {
        base_free(control->ctx, control->ring[i].recv);
        base_free(control->ctx, control->ring[i].peers);
    }
    base_buffer_free(control->buffer);
    base_free(control->ctx, control->all);
    base_free(control->ctx, control);
}

/* A rank alone has nobody to tell, and waits for no stream. */
static bool is_alone(const comm_control_t *c)
{
    return comm_group_size(c->group) == 1;
}

static base_status_t give(comm_control_t *c, control_entry_t *e, const comm_control_record_t *mine)
{
    const comm_exchange_t ex = {.tag = {.microbatch = c->calls, .layer = -1, .kind = KIND_CONTROL},
                                .name = "control record",
                                .num_peers = comm_group_size(c->group) - 1,
                                .peers = e->peers,
                                .after = c->stream};

    e->mine = *mine;
    if (is_alone(c)) return BASE_OK;
    BASE_TRY(base_upload(c->stream, e->send.mem, &e->mine, (int64_t)sizeof e->mine));
    return comm_exchange_begin(c->group, COMM_CHANNEL_PING, &ex, &e->ticket);
}

/* Everyone's microbatch and plan are rank 0's. */
static base_status_t compare(const comm_control_t *c)
{
    const comm_control_record_t *first = &c->all[0];

    for (int r = 1; r < comm_group_size(c->group); r++) {
        const comm_control_record_t *other = &c->all[r];

        if (other->microbatch == first->microbatch && other->plan_hash == first->plan_hash)
            continue;
        return BASE_FAIL(c->ctx, BASE_ERR_MISMATCH, BASE_MSG_COMM_03,
                         "rank %d: control record: rank 0 is at microbatch %" PRId64
                         ", plan %016" PRIx64 ", rank %d at microbatch %" PRId64
                         ", plan %016" PRIx64,
                         comm_group_rank(c->group), first->microbatch, first->plan_hash, r,
                         other->microbatch, other->plan_hash);
    }
    return BASE_OK;
}

static base_status_t take(comm_control_t *c, control_entry_t *e, int64_t index)
{
    const int size = comm_group_size(c->group), me = comm_group_rank(c->group);
    const base_mem_t all = base_mem(c->buffer, index * c->entry_bytes + ENTRY_BYTES);

    if (is_alone(c)) {
        c->all[0] = e->mine;
        return BASE_OK;
    }
    BASE_TRY(comm_exchange_complete(c->group, e->ticket, c->stream)); /* the entry is used again */
    BASE_TRY(base_download(c->stream, c->all, all, size * (int64_t)sizeof *c->all));
    BASE_TRY(base_stream_sync(c->stream));
    c->all[me] = e->mine;
    return compare(c);
}

base_status_t comm_control_exchange(comm_control_t *control, const comm_control_record_t *mine,
                                    const comm_control_record_t **all_p)
{
    comm_control_t *c = control;
    const int64_t now = c->calls % RING, then = (c->calls - c->look_ahead) % RING;

    *all_p = NULL;
    BASE_TRY(give(c, &c->ring[now], mine));
    if (c->calls++ < c->look_ahead) return BASE_OK;
    BASE_TRY(take(c, &c->ring[then], then));
    *all_p = c->all;
    return BASE_OK;
}

base_status_t comm_control_finish(comm_control_t *control)
{
    if (!is_alone(control)) {
        for (int i = 0; i < RING; i++)
            BASE_TRY(
                comm_exchange_complete(control->group, control->ring[i].ticket, control->stream));
        BASE_TRY(base_stream_sync(control->stream));
    }
    control->finished = control->calls;
    return BASE_OK;
}
