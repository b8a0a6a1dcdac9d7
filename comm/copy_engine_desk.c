/* The desks of the copy engine transport, and what a rank has of the other ranks of its host. */
#include "comm/copy_engine_state.h"

#include "base/device/device_host.h"
#include "base/memory.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char WHAT[] = "copy engines";

/* ==== layout ==== */

static int64_t round_up(int64_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static int64_t posting_bytes(int size)
{
    return round_up((int64_t)sizeof(comm_copy_posting_t)) +
           round_up((int64_t)sizeof(comm_copy_entry_t) * size) +
           round_up((int64_t)sizeof(comm_copy_range_t) * COMM_COPY_MAX_RANGES);
}

int64_t comm_copy_desk_bytes(int size)
{
    return round_up((int64_t)sizeof(comm_copy_desk_t)) +
           (int64_t)COMM_NUM_CHANNELS * COMM_MAX_OPEN_EXCHANGES * posting_bytes(size);
}

comm_copy_posting_t *comm_copy_posting(comm_copy_desk_t *desk, int size, int channel,
                                       uint64_t sequence)
{
    const int64_t number =
        (int64_t)channel * COMM_MAX_OPEN_EXCHANGES + (int64_t)(sequence % COMM_MAX_OPEN_EXCHANGES);

    return (void *)((char *)desk + round_up((int64_t)sizeof *desk) + number * posting_bytes(size));
}

comm_copy_entry_t *comm_copy_entries(comm_copy_posting_t *posting)
{
    return (void *)((char *)posting + round_up((int64_t)sizeof *posting));
}

comm_copy_range_t *comm_copy_ranges(comm_copy_posting_t *posting, int size)
{
    return (void *)((char *)comm_copy_entries(posting) +
                    round_up((int64_t)sizeof(comm_copy_entry_t) * size));
}

/* ==== the bell ==== */

/* Whoever sees nobody listening has rung before the listener says so, and it then finds that the bell has changed: hence
 * the one order of all four. With a GPU the pump mostly does not sleep, and no call of the kernel is made. */
void comm_copy_ring(comm_copy_desk_t *desk)
{
    (void)__atomic_add_fetch(&desk->bell, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&desk->listening, __ATOMIC_SEQ_CST) != 0)
        (void)syscall(SYS_futex, &desk->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void comm_copy_listen(comm_copy_desk_t *desk, uint32_t seen, int64_t ns)
{
    const struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000),
                                .tv_nsec = (long)(ns % 1000000000)};

    (void)__atomic_exchange_n(&desk->listening, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&desk->bell, __ATOMIC_SEQ_CST) == seen)
        (void)syscall(SYS_futex, &desk->bell, FUTEX_WAIT, seen, &ts, NULL, 0);
    __atomic_store_n(&desk->listening, 0, __ATOMIC_RELEASE);
}

/* ==== making ==== */

static base_status_t lane_init(comm_copy_engine_t *e, int c, int lane)
{
    comm_group_t *group = &e->g->group;
    base_counter_t **arrived = base_calloc(group->ctx, group->size, sizeof(base_counter_t *), WHAT);
    char name[48];

    if (arrived == NULL) return BASE_ERR_NOMEM;
    e->arrived[c][lane] = arrived;
    for (int r = 0; r < group->size; r++)
        if (e->peers[r].is_here) BASE_TRY(base_counter_create(group->dev, &arrived[r]));
    BASE_TRY(base_event_create(group->dev, &e->pulled[c][lane]));
    (void)snprintf(name, sizeof name, "pull %s %d", comm_channel_name(c), lane);
    return base_stream_create(group->dev, BASE_STREAM_ASYNC, name, &e->pull[c][lane]);
}

static base_status_t channel_init(comm_copy_engine_t *e, int c)
{
    comm_group_t *group = &e->g->group;
    base_ctx_t *ctx = group->ctx;
    char name[48];

    e->both_ready_ns[c] =
        base_calloc(ctx, (int64_t)COMM_MAX_OPEN_EXCHANGES * group->size, sizeof(int64_t), WHAT);
    if (e->both_ready_ns[c] == NULL) return BASE_ERR_NOMEM;
    for (int i = 0; i < COMM_MAX_OPEN_EXCHANGES; i++) {
        e->slots[c][i].links =
            base_calloc(ctx, group->size - 1, sizeof *e->slots[c][i].links, WHAT);
        if (e->slots[c][i].links == NULL) return BASE_ERR_NOMEM;
    }
    for (int l = 0; l < COMM_COPY_LANES; l++)
        BASE_TRY(lane_init(e, c, l));
    (void)snprintf(name, sizeof name, "post %s", comm_channel_name(c));
    return base_stream_create(group->dev, BASE_STREAM_ASYNC, name, &e->post[c]);
}

base_status_t comm_copy_init(comm_copy_engine_t *e, comm_mpi_group_t *g)
{
    base_ctx_t *ctx = g->group.ctx;
    const int size = g->group.size, me = g->group.rank;
    const int32_t *hosts = g->group.hosts;

    e->g = g;
    e->on_host = base_device_kind(g->group.dev) != BASE_DEVICE_CUDA;
    e->peers = base_calloc(ctx, size, sizeof *e->peers, WHAT);
    e->remote = base_calloc(ctx, size, sizeof *e->remote, WHAT);
    e->held = base_calloc(ctx, size, 1, WHAT);
    e->known = base_calloc(ctx, COMM_COPY_MAX_BUFFERS, sizeof *e->known, WHAT);
    if (e->peers == NULL || e->remote == NULL || e->held == NULL || e->known == NULL)
        return BASE_ERR_NOMEM;
    for (int r = 0; r < size; r++) {
        e->peers[r].is_here = r != me && hosts[r] == hosts[me];
        e->has_remote |= hosts[r] != hosts[me];
    }
    BASE_TRY(base_shared_create(ctx, comm_copy_desk_bytes(size), NULL, "desk", &e->memory));
    e->desk = base_shared_address(e->memory);
    e->desk->magic = COMM_COPY_MAGIC;
    BASE_TRY(
        base_counter_bank_create(g->group.dev, comm_copy_num_counters(size), "desk", &e->bank));
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        BASE_TRY(channel_init(e, c));
    return BASE_OK;
}

/* ==== the others ==== */

typedef struct card {
    base_shared_name_t desk;
    base_export_t bank;
} card_t;

static base_status_t meet(comm_copy_engine_t *e, int rank, const card_t *card)
{
    base_ctx_t *ctx = e->g->group.ctx;
    comm_copy_peer_t *p = &e->peers[rank];
    char name[48];

    p->buffers = base_calloc(ctx, COMM_COPY_MAX_BUFFERS, sizeof(base_buffer_t *), WHAT);
    if (p->buffers == NULL) return BASE_ERR_NOMEM;
    (void)snprintf(name, sizeof name, "rank %d: desk of rank %d", e->g->group.rank, rank);
    BASE_TRY(base_shared_open(ctx, &card->desk, NULL, name, &p->memory));
    p->desk = base_shared_address(p->memory);
    if (p->desk->magic != COMM_COPY_MAGIC ||
        base_shared_bytes(p->memory) != comm_copy_desk_bytes(e->g->group.size))
        return BASE_FAIL(ctx, BASE_ERR_MISMATCH, BASE_MSG_COMM_03,
                         "%s: rank %d runs another version of this program", name, rank);
    return base_counter_bank_import(e->g->group.dev, &card->bank, name, &p->bank);
}

base_status_t comm_copy_connect(comm_copy_engine_t *e)
{
    comm_group_t *group = &e->g->group;
    card_t mine = {.desk = base_shared_name(e->memory)};
    card_t *all = base_calloc(group->ctx, group->size, sizeof *all, WHAT);
    base_status_t st;

    if (all == NULL) return comm_mpi_give_up(e->g, BASE_ERR_NOMEM, COMM_MPI_CONCERNS_NONE);
    base_counter_bank_export(e->bank, &mine.bank);
    BASE_TRY_GOTO(comm_mpi_allgather(group, &mine, sizeof mine, all), st, out);
    for (int r = 0; r < group->size && st >= 0; r++)
        if (e->peers[r].is_here) st = meet(e, r, &all[r]);
    st = comm_mpi_agree(e->g, st); /* and nobody leaves before all have come in */
out:
    base_free(group->ctx, all);
    return st;
}

void comm_copy_disconnect(comm_copy_engine_t *e)
{
    for (int r = 0; r < e->g->group.size && e->peers != NULL; r++) {
        comm_copy_peer_t *p = &e->peers[r];

        for (int i = 0; i < COMM_COPY_MAX_BUFFERS && p->buffers != NULL; i++)
            base_buffer_free(p->buffers[i]);
        base_free(e->g->group.ctx, p->buffers);
        base_counter_bank_destroy(p->bank);
        base_shared_close(p->memory);
        *p = (comm_copy_peer_t){.is_here = p->is_here};
    }
}

static void lane_deinit(comm_copy_engine_t *e, int c, int lane)
{
    base_counter_t **arrived = e->arrived[c][lane];

    base_stream_destroy(e->pull[c][lane]);
    base_event_destroy(e->pulled[c][lane]);
    for (int r = 0; r < e->g->group.size && arrived != NULL; r++)
        base_counter_destroy(arrived[r]);
    base_free(e->g->group.ctx, arrived);
}

void comm_copy_deinit(comm_copy_engine_t *e)
{
    base_ctx_t *ctx = e->g->group.ctx;

    for (int c = 0; c < COMM_NUM_CHANNELS; c++) {
        base_stream_destroy(e->post[c]);
        for (int l = 0; l < COMM_COPY_LANES; l++)
            lane_deinit(e, c, l);
        base_free(ctx, e->both_ready_ns[c]);
        for (int i = 0; i < COMM_MAX_OPEN_EXCHANGES; i++)
            base_free(ctx, e->slots[c][i].links);
    }
    comm_copy_disconnect(e);
    base_counter_bank_destroy(e->bank);
    base_shared_close(e->memory);
    base_free(ctx, e->known);
    base_free(ctx, e->held);
    base_free(ctx, e->remote);
    base_free(ctx, e->peers);
}

/* ==== buffers ==== */

/* The number of a buffer at this rank's desk, exported when it is new. */
static base_status_t number_of(comm_copy_engine_t *e, base_buffer_t *buf, int32_t *number)
{
    const uint64_t serial = base_buffer_serial(buf);
    const int32_t num = e->desk->num_buffers;

    for (int32_t i = num - 1; i >= 0; i--)
        if (e->known[i].buffer == buf && e->known[i].serial == serial) {
            *number = i;
            return BASE_OK;
        }
    if (num == COMM_COPY_MAX_BUFFERS)
        return BASE_FAIL(
            e->g->group.ctx, BASE_ERR_NOMEM, BASE_MSG_INT_01,
            "rank %d: buffer %s: %d buffers have been sent from, and there is room for "
            "no more",
            e->g->group.rank, base_buffer_name(buf), COMM_COPY_MAX_BUFFERS);
    BASE_TRY(base_buffer_export(buf, &e->desk->buffers[num]));
    e->known[num] = (comm_copy_known_t){.buffer = buf, .serial = serial};
    e->desk->num_buffers = num + 1;
    *number = num;
    return BASE_OK;
}

base_status_t comm_copy_import(comm_copy_engine_t *e, int peer, int32_t number,
                               base_buffer_t **buf_p)
{
    comm_copy_peer_t *p = &e->peers[peer];
    char name[64];

    if (number < 0 || number >= COMM_COPY_MAX_BUFFERS)
        return BASE_FAIL(e->g->group.ctx, BASE_ERR_MISMATCH, BASE_MSG_COMM_03,
                         "rank %d: buffer %d of rank %d", e->g->group.rank, (int)number, peer);
    if (p->buffers[number] == NULL) {
        (void)snprintf(name, sizeof name, "rank %d: buffer %d of rank %d", e->g->group.rank,
                       (int)number, peer);
        BASE_TRY(base_buffer_import(e->g->group.dev, &p->desk->buffers[number], name,
                                    &p->buffers[number]));
    }
    *buf_p = p->buffers[number];
    return BASE_OK;
}

/* ==== posting ==== */

static base_status_t post_ranges(comm_copy_engine_t *e, const comm_peer_t *peer,
                                 comm_copy_range_t *ranges)
{
    const base_buffer_t *last = NULL; /* mostly the same one */
    int32_t number = 0;

    for (int i = 0; i < peer->num_send; i++) {
        const base_range_t *r = &peer->send[i];
        const int is_empty = r->rows == 0 || r->row_bytes == 0;

        if (!is_empty && r->mem.buffer != last) {
            BASE_TRY(number_of(e, r->mem.buffer, &number));
            last = r->mem.buffer;
        }
        ranges[i] = (comm_copy_range_t){.buffer = is_empty ? -1 : number,
                                        .offset = r->mem.offset,
                                        .row_bytes = r->row_bytes,
                                        .rows = r->rows,
                                        .pitch = r->rows > 1 ? r->pitch : r->row_bytes};
    }
    return BASE_OK;
}

base_status_t comm_copy_post(comm_copy_engine_t *e, int channel, const comm_exchange_t *ex,
                             uint64_t sequence)
{
    const int size = e->g->group.size;
    comm_copy_posting_t *posting = comm_copy_posting(e->desk, size, channel, sequence);
    comm_copy_entry_t *entries = comm_copy_entries(posting);
    comm_copy_range_t *ranges = comm_copy_ranges(posting, size);
    const comm_list_t none = {0};
    int64_t num = 0;

    /* Before what it stands for changes; an exchange, since a store lets later ones pass. */
    (void)__atomic_exchange_n(&posting->sequence, 0, __ATOMIC_ACQ_REL);
    posting->tag = ex->tag;
    for (int r = 0; r < size; r++) {
        comm_copy_list(&entries[r].send, &none);
        comm_copy_list(&entries[r].recv, &none);
    }
    for (int i = 0; i < ex->num_peers; i++) {
        const comm_peer_t *p = &ex->peers[i];
        comm_copy_entry_t *entry = &entries[p->rank];

        if (!e->peers[p->rank].is_here) continue;
        if (num + p->num_send > COMM_COPY_MAX_RANGES)
            return BASE_FAIL(e->g->group.ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                             "rank %d: channel %s: an exchange that sends more than %d ranges",
                             e->g->group.rank, comm_channel_name(channel), COMM_COPY_MAX_RANGES);
        const comm_list_t send = comm_list_of(p->send, p->num_send);
        const comm_list_t recv = comm_list_of(p->recv, p->num_recv);

        comm_copy_list(&entry->send, &send);
        comm_copy_list(&entry->recv, &recv);
        entry->first = num;
        BASE_TRY(post_ranges(e, p, ranges + num));
        num += p->num_send;
    }
    __atomic_store_n(&posting->sequence, sequence, __ATOMIC_RELEASE);
    __atomic_store_n(&e->desk->begun[channel], sequence, __ATOMIC_RELEASE);
    return BASE_OK;
}
