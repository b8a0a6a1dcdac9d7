/* What the progress thread does for exchanges: posts those that are ready, compares headers, hands
 * data to MPI, and brings what has come to its place. */
#include "comm/mpi_state.h"

#include "base/clock.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ==== headers ==== */

base_status_t comm_mpi_post_header(comm_mpi_group_t *g, int channel, int peer)
{
    return comm_mpi_check(g->group.ctx,
                          MPI_Irecv(&g->header_in[channel][peer], sizeof(comm_mpi_header_t),
                                    MPI_BYTE, peer, COMM_MPI_TAG_HEADER, g->comms[channel],
                                    &g->header_request[channel][peer]),
                          "MPI_Irecv of a header");
}

static base_status_t fail_mismatch(comm_mpi_group_t *g, int channel, uint64_t sequence, int peer,
                                   const char *what)
{
    const base_status_t st = BASE_FAIL(g->group.ctx, BASE_ERR_MISMATCH, BASE_MSG_COMM_03,
                                       "rank %d: channel %s, exchange %" PRIu64 ": %s",
                                       g->group.rank, comm_channel_name(channel), sequence, what);

    return comm_mpi_forward(g, st, peer);
}

/* `mine` NULL: this rank lists nothing for the peer. */
static base_status_t compare(comm_mpi_group_t *g, int channel, int peer, const comm_tag_t *tag,
                             const comm_peer_t *mine, const comm_mpi_header_t *h)
{
    const comm_list_t none = {0};
    const comm_list_t send = mine != NULL ? comm_list_of(mine->send, mine->num_send) : none;
    const comm_list_t recv = mine != NULL ? comm_list_of(mine->recv, mine->num_recv) : none;
    const int me = g->group.rank;
    char text[768];

    const comm_way_t out = {.sender = me,
                            .receiver = peer,
                            .sender_tag = tag,
                            .receiver_tag = &h->tag,
                            .send = &send,
                            .recv = &h->recv};
    const comm_way_t in = {.sender = peer,
                           .receiver = me,
                           .sender_tag = &h->tag,
                           .receiver_tag = tag,
                           .send = &h->send,
                           .recv = &recv};

    if (comm_way_disagrees(&out, text, sizeof text) || comm_way_disagrees(&in, text, sizeof text))
        return fail_mismatch(g, channel, h->sequence, peer, text);
    return BASE_OK;
}

static comm_mpi_link_t *find_link(comm_mpi_slot_t *slot, int peer)
{
    for (int i = 0; i < slot->num_links; i++)
        if (slot->links[i].lists.rank == peer) return &slot->links[i];
    return NULL;
}

/* A peer's headers come in the order of its exchanges: those before `h` that this rank lists it in
 * and that it has sent none for are exchanges in which it lists nothing. */
static base_status_t check_skipped(comm_mpi_group_t *g, int channel, int peer,
                                   const comm_mpi_header_t *h)
{
    for (int i = 0; i < COMM_MAX_OPEN_EXCHANGES; i++) {
        comm_mpi_slot_t *slot = &g->slots[channel][i];
        const comm_mpi_header_t nothing = {.sequence = slot->sequence, .tag = slot->tag};
        const comm_mpi_link_t *link;

        if (slot->phase != COMM_MPI_POSTED || slot->sequence >= h->sequence) continue;
        link = find_link(slot, peer);
        if (link != NULL && !link->header_in)
            return compare(g, channel, peer, &slot->tag, &link->lists, &nothing);
    }
    return BASE_OK;
}

/* The data of a link whose header agrees. The mutex is not held while it is packed. */
static base_status_t send_data(comm_mpi_group_t *g, int channel, comm_mpi_slot_t *slot,
                               comm_mpi_link_t *link)
{
    link->header_in = 1;
    link->ready_ns = base_clock_ns();
    link->due_ns = link->ready_ns + g->delay_ns;
    if (link->lists.num_send > 0 && !g->headers_only) {
        (void)pthread_mutex_unlock(&g->process->mutex);
        comm_mpi_pack(g, slot, link);
        (void)pthread_mutex_lock(&g->process->mutex);
        BASE_TRY(comm_mpi_send_list(g, channel, slot, (int)(link - slot->links)));
    }
    link->sending = 1;
    return BASE_OK;
}

/* *taken = 0: this rank is not there yet. */
static base_status_t take_header(comm_mpi_group_t *g, int channel, int peer, int *taken)
{
    const comm_mpi_header_t *h = &g->header_in[channel][peer];
    comm_mpi_slot_t *slot = &g->slots[channel][h->sequence % COMM_MAX_OPEN_EXCHANGES];
    comm_mpi_link_t *link;

    *taken = 1;
    if (h->magic != COMM_MPI_MAGIC)
        return fail_mismatch(g, channel, h->sequence, peer, "not a header of this program");
    BASE_TRY(check_skipped(g, channel, peer, h));
    if (h->sequence > g->begun[channel] ||
        (slot->sequence == h->sequence && slot->phase < COMM_MPI_POSTED)) {
        *taken = 0;
        return BASE_OK;
    }
    link = slot->sequence == h->sequence ? find_link(slot, peer) : NULL;
    BASE_TRY(compare(g, channel, peer, slot->sequence == h->sequence ? &slot->tag : &h->tag,
                     link != NULL ? &link->lists : NULL, h));
    return link == NULL ? BASE_OK : send_data(g, channel, slot, link);
}

static base_status_t progress_headers(comm_mpi_group_t *g, int channel, int *busy)
{
    int num = 0;

    BASE_TRY(comm_mpi_check(
        g->group.ctx,
        MPI_Testsome(g->group.size, g->header_request[channel], &num, g->indices, g->statuses),
        "MPI_Testsome of headers"));
    for (int i = 0; i < num && num != MPI_UNDEFINED; i++)
        g->header_held[channel][g->indices[i]] = 1;
    for (int r = 0; r < g->group.size; r++) {
        int taken;

        if (!g->header_held[channel][r]) continue;
        BASE_TRY(take_header(g, channel, r, &taken));
        if (!taken || comm_mpi_is_stopped(g)) continue;
        *busy = 1;
        g->header_held[channel][r] = 0;
        BASE_TRY(comm_mpi_post_header(g, channel, r));
    }
    return BASE_OK;
}

/* ==== posting ==== */

/* To the most that any slot has needed: exchanges of all sizes pass through each of them, and after
 * the first microbatch nothing is to be allocated any more. */
static base_status_t make_room(comm_mpi_group_t *g, char **staging, int64_t *room, int64_t bytes,
                               int64_t *most)
{
    char *bigger;

    while (*most < bytes)
        *most *= 2;
    if (*room == *most) return BASE_OK;
    bigger = base_alloc(g->group.ctx, (size_t)*most, "MPI staging");
    if (bigger == NULL) return BASE_ERR_NOMEM;
    base_free(g->group.ctx, *staging);
    *staging = bigger;
    *room = *most;
    return BASE_OK;
}

/* The slot has no open request: its staging may move. */
static base_status_t stage(comm_mpi_group_t *g, comm_mpi_slot_t *slot)
{
    int64_t in = 0, out = 0;

    for (int i = 0; i < slot->num_links; i++) {
        comm_mpi_link_t *l = &slot->links[i];

        l->in_at = in;
        l->out_at = out;
        in += comm_mpi_staging_bytes(g, l->lists.recv, l->lists.num_recv);
        out += comm_mpi_staging_bytes(g, l->lists.send, l->lists.num_send);
    }
    BASE_TRY(make_room(g, &slot->in, &slot->in_bytes, in, &g->most_in));
    return make_room(g, &slot->out, &slot->out_bytes, out, &g->most_out);
}

static base_status_t post(comm_mpi_group_t *g, int channel, comm_mpi_slot_t *slot)
{
    slot->num_requests = 0;
    if (!g->headers_only) BASE_TRY(stage(g, slot));
    for (int i = 0; i < slot->num_links && !g->headers_only; i++)
        BASE_TRY(comm_mpi_receive_list(g, channel, slot, i));
    for (int i = 0; i < slot->num_links; i++) {
        const comm_peer_t *p = &slot->links[i].lists;
        comm_mpi_header_t *h = &slot->headers[i];
        MPI_Request *request = comm_mpi_add_request(g, slot, -1);

        if (request == NULL) return BASE_ERR_NOMEM;
        *h = (comm_mpi_header_t){.magic = COMM_MPI_MAGIC,
                                 .sequence = slot->sequence,
                                 .tag = slot->tag,
                                 .send = comm_list_of(p->send, p->num_send),
                                 .recv = comm_list_of(p->recv, p->num_recv)};
        BASE_TRY(comm_mpi_check(g->group.ctx,
                                MPI_Isend(h, sizeof *h, MPI_BYTE, p->rank, COMM_MPI_TAG_HEADER,
                                          g->comms[channel], request),
                                "MPI_Isend of a header"));
    }
    slot->phase = COMM_MPI_POSTED;
    return BASE_OK;
}

/* ==== completion ==== */

static base_status_t room_for(comm_mpi_group_t *g, int num)
{
    if (num <= g->room) return BASE_OK;
    base_free(g->group.ctx, g->statuses);
    base_free(g->group.ctx, g->indices);
    g->room = 2 * num;
    g->indices = base_calloc(g->group.ctx, g->room, sizeof *g->indices, "MPI transport");
    g->statuses = base_calloc(g->group.ctx, g->room, sizeof(MPI_Status), "MPI transport");
    return g->indices == NULL || g->statuses == NULL ? BASE_ERR_NOMEM : BASE_OK;
}

static base_status_t test_requests(comm_mpi_group_t *g, comm_mpi_slot_t *slot, int *open, int *busy)
{
    int num = 0;

    BASE_TRY(room_for(g, slot->num_requests));
    BASE_TRY(comm_mpi_check(
        g->group.ctx,
        MPI_Testsome(slot->num_requests, slot->requests, &num, g->indices, g->statuses),
        "MPI_Testsome of data"));
    *open = num != MPI_UNDEFINED; /* a last one may just have ended: the next look tells */
    for (int i = 0; i < num && num != MPI_UNDEFINED; i++) {
        const int32_t owner = slot->owner[g->indices[i]];

        *busy = 1;
        if (owner < 0) continue;
        slot->links[owner / 2].num_receives -= owner % 2 == 0;
        slot->links[owner / 2].num_sends -= owner % 2 == 1;
    }
    return BASE_OK;
}

/* Returns whether the link is done. */
static int finish_link(comm_mpi_group_t *g, int channel, comm_mpi_slot_t *slot,
                       comm_mpi_link_t *link, int *busy)
{
    const comm_peer_t *lists = &link->lists;

    if (!link->header_in || !link->sending || base_clock_ns() < link->due_ns) return 0;
    if (!link->arrived && link->num_receives == 0 && g->headers_only) {
        link->arrived = 1;
        *busy = 1;
    }
    if (!link->arrived && link->num_receives == 0) {
        (void)pthread_mutex_unlock(&g->process->mutex);
        comm_mpi_unpack(g, slot, link);
        const base_trace_note_t note =
            comm_note(&slot->tag, lists->rank, comm_exchange_bytes(lists->recv, lists->num_recv));
        if (lists->num_recv > 0)
            comm_trace_transfer(g->group.ctx, channel, slot->name, &note, link->ready_ns);
        (void)pthread_mutex_lock(&g->process->mutex);
        link->arrived = 1;
        *busy = 1;
    }
    if (!link->sent && link->num_sends == 0) {
        link->sent = 1;
        *busy = 1;
    }
    return link->arrived && link->sent;
}

static base_status_t progress_slot(comm_mpi_group_t *g, int channel, comm_mpi_slot_t *slot,
                                   int *busy)
{
    int open = 0, done = 1;

    if (slot->phase == COMM_MPI_READY) {
        *busy = 1;
        BASE_TRY(post(g, channel, slot));
    }
    if (slot->phase != COMM_MPI_POSTED) return BASE_OK;
    BASE_TRY(test_requests(g, slot, &open, busy));
    for (int i = 0; i < slot->num_links; i++) {
        const comm_mpi_link_t *l = &slot->links[i];

        done = finish_link(g, channel, slot, &slot->links[i], busy) && done;
        /* What NCCL moves waits for its headers alone. */
        g->moving |= g->headers_only ? !l->header_in
                                     : l->header_in && (l->num_receives > 0 || l->num_sends > 0);
    }
    if (done && !open) {
        slot->phase = COMM_MPI_COMPLETE;
        __atomic_store_n(&slot->complete, slot->sequence, __ATOMIC_RELEASE);
        *busy = 1;
    }
    return BASE_OK;
}

base_status_t comm_mpi_progress(comm_mpi_group_t *g, int *busy)
{
    g->moving = 0;
    for (int c = 0; c < COMM_NUM_CHANNELS; c++) {
        const uint64_t last = g->begun[c];
        const uint64_t first =
            last > COMM_MAX_OPEN_EXCHANGES ? last - COMM_MAX_OPEN_EXCHANGES + 1 : 1;

        /* In the order of the exchanges: receives of a pair are posted as its sends leave. */
        for (uint64_t s = first; s <= last && !comm_mpi_is_stopped(g); s++)
            BASE_TRY(progress_slot(g, c, &g->slots[c][s % COMM_MAX_OPEN_EXCHANGES], busy));
        if (!comm_mpi_is_stopped(g)) BASE_TRY(progress_headers(g, c, busy));
    }
    return BASE_OK;
}
