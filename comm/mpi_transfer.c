/* The messages that a list of ranges becomes: its segments (comm/segment.h), each cut into messages of
 * at most chunk_bytes. */
#include "comm/mpi_state.h"

#include "base/device/device_host.h"
#include "base/memory.h"
#include "comm/segment.h"

#include <string.h>

/* Whether this side moves the segment without staging: one large piece of plain memory. */
static int is_direct(const comm_mpi_group_t *g, const base_range_t *list, const comm_segment_t *s)
{
    return comm_segment_is_whole(g->direct_bytes, list, s) &&
           base_device_kind(base_buffer_device(list[s->first].mem.buffer)) == BASE_DEVICE_CPU;
}

int64_t comm_mpi_staging_bytes(const comm_mpi_group_t *g, const base_range_t *list, int num)
{
    comm_segment_t s = {0};
    int64_t bytes = 0;

    while (comm_segment_next(g->direct_bytes, list, num, &s))
        bytes += is_direct(g, list, &s) ? 0 : s.bytes;
    return bytes;
}

/* ==== requests ==== */

MPI_Request *comm_mpi_add_request(comm_mpi_group_t *g, comm_mpi_slot_t *slot, int32_t owner)
{
    base_ctx_t *ctx = g->group.ctx;

    if (slot->num_requests == slot->requests_room) {
        const int room = 2 * slot->requests_room;
        MPI_Request *requests =
            base_realloc(ctx, slot->requests, room, sizeof(MPI_Request), "MPI transport");
        if (requests != NULL) slot->requests = requests;
        int32_t *owners = base_realloc(ctx, slot->owner, room, sizeof *owners, "MPI transport");
        if (owners != NULL) slot->owner = owners;
        if (requests == NULL || owners == NULL) return NULL;
        slot->requests_room = room;
    }
    slot->requests[slot->num_requests] = MPI_REQUEST_NULL;
    slot->owner[slot->num_requests] = owner;
    return &slot->requests[slot->num_requests++];
}

typedef struct message {
    int channel, link, is_send;
    char *at;
    int64_t bytes;
} message_t;

static base_status_t start_messages(comm_mpi_group_t *g, comm_mpi_slot_t *slot, const message_t *m)
{
    comm_mpi_link_t *link = &slot->links[m->link];
    const int tag = COMM_MPI_TAG_DATA + (int)(slot->sequence % COMM_MAX_OPEN_EXCHANGES);
    const MPI_Comm comm = g->comms[m->channel];
    const int peer = link->lists.rank;

    for (int64_t at = 0; at < m->bytes; at += g->chunk_bytes) {
        const int64_t left = m->bytes - at;
        const int count = (int)(left < g->chunk_bytes ? left : g->chunk_bytes);
        MPI_Request *request = comm_mpi_add_request(g, slot, 2 * m->link + m->is_send);

        if (request == NULL) return BASE_ERR_NOMEM;
        if (m->is_send) {
            BASE_TRY(comm_mpi_check(
                g->group.ctx, MPI_Isend(m->at + at, count, MPI_BYTE, peer, tag, comm, request),
                "MPI_Isend"));
            link->num_sends++;
        } else {
            BASE_TRY(comm_mpi_check(
                g->group.ctx, MPI_Irecv(m->at + at, count, MPI_BYTE, peer, tag, comm, request),
                "MPI_Irecv"));
            link->num_receives++;
        }
    }
    return BASE_OK;
}

static base_status_t start_list(comm_mpi_group_t *g, int channel, comm_mpi_slot_t *slot, int link,
                                int is_send)
{
    const comm_mpi_link_t *l = &slot->links[link];
    const base_range_t *list = is_send ? l->lists.send : l->lists.recv;
    const int num = is_send ? l->lists.num_send : l->lists.num_recv;
    char *staging = is_send ? slot->out + l->out_at : slot->in + l->in_at;
    comm_segment_t s = {0};

    while (comm_segment_next(g->direct_bytes, list, num, &s)) {
        const int direct = is_direct(g, list, &s);
        const message_t m = {.channel = channel,
                             .link = link,
                             .is_send = is_send,
                             .at = direct ? base_mem_address(list[s.first].mem) : staging,
                             .bytes = s.bytes};

        staging += direct ? 0 : s.bytes;
        BASE_TRY(start_messages(g, slot, &m));
    }
    return BASE_OK;
}

base_status_t comm_mpi_receive_list(comm_mpi_group_t *g, int channel, comm_mpi_slot_t *slot,
                                    int link)
{
    return start_list(g, channel, slot, link, 0);
}

base_status_t comm_mpi_send_list(comm_mpi_group_t *g, int channel, comm_mpi_slot_t *slot, int link)
{
    return start_list(g, channel, slot, link, 1);
}

/* ==== packing ==== */

static char *copy_range(const base_range_t *r, char *staging, int to_place)
{
    const base_operand_t operand = {*r, to_place ? BASE_WRITE : BASE_READ};
    char *place;

    if (comm_range_bytes(r) == 0) return staging; /* no place to open */
    place = base_mem_address(r->mem);
    base_host_open(&operand, 1);
    for (int64_t row = 0; row < r->rows; row++, staging += r->row_bytes) {
        if (to_place)
            memcpy(place + row * r->pitch, staging, (size_t)r->row_bytes);
        else
            memcpy(staging, place + row * r->pitch, (size_t)r->row_bytes);
    }
    base_host_close(&operand, 1);
    return staging;
}

static void copy_list(const comm_mpi_group_t *g, const base_range_t *list, int num, char *staging,
                      int to_place)
{
    comm_segment_t s = {0};

    while (comm_segment_next(g->direct_bytes, list, num, &s)) {
        if (is_direct(g, list, &s)) continue;
        for (int i = s.first; i < s.end; i++)
            staging = copy_range(&list[i], staging, to_place);
    }
}

void comm_mpi_pack(const comm_mpi_group_t *g, const comm_mpi_slot_t *slot,
                   const comm_mpi_link_t *link)
{
    copy_list(g, link->lists.send, link->lists.num_send, slot->out + link->out_at, 0);
}

void comm_mpi_unpack(const comm_mpi_group_t *g, const comm_mpi_slot_t *slot,
                     const comm_mpi_link_t *link)
{
    copy_list(g, link->lists.recv, link->lists.num_recv, slot->in + link->in_at, 1);
}
