#include "comm/exchange.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static base_status_t check_list(base_ctx_t *ctx, const base_range_t *list, int num, int rank,
                                int peer, const char *what)
{
    if (num < 0 || (num > 0 && list == NULL))
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "rank %d: exchange with rank %d: %s list of %d ranges at %s", rank, peer,
                         what, num, list == NULL ? "no address" : "an address");
    for (int i = 0; i < num; i++)
        BASE_TRY(base_range_check(ctx, &list[i], what));
    return BASE_OK;
}

base_status_t comm_exchange_check(base_ctx_t *ctx, const comm_exchange_t *ex, int rank, int size)
{
    if (ex->num_peers < 0 || (ex->num_peers > 0 && ex->peers == NULL))
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "rank %d: exchange with %d peers and %s", rank, ex->num_peers,
                         ex->peers == NULL ? "no list of them" : "a list of them");
    if (ex->ready != NULL && ex->after != NULL)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "rank %d: exchange with both an event and a stream to begin after", rank);
    for (int i = 0; i < ex->num_peers; i++) {
        const comm_peer_t *p = &ex->peers[i];

        if (p->rank < 0 || p->rank >= size || p->rank == rank)
            return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "rank %d: exchange with rank %d; wanted another rank in 0..%d", rank,
                             p->rank, size - 1);
        if (i > 0 && p->rank <= ex->peers[i - 1].rank)
            return BASE_FAIL(
                ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                "rank %d: exchange lists rank %d after rank %d; wanted ascending ranks", rank,
                p->rank, ex->peers[i - 1].rank);
        BASE_TRY(check_list(ctx, p->send, p->num_send, rank, p->rank, "send"));
        BASE_TRY(check_list(ctx, p->recv, p->num_recv, rank, p->rank, "receive"));
    }
    return BASE_OK;
}

int64_t comm_exchange_bytes(const base_range_t *list, int num)
{
    int64_t bytes = 0;

    for (int i = 0; i < num; i++)
        bytes += list[i].row_bytes * list[i].rows;
    return bytes;
}

int comm_exchange_difference(const base_range_t *send, int num_send, const base_range_t *recv,
                             int num_recv)
{
    const int num = num_send < num_recv ? num_send : num_recv;

    for (int i = 0; i < num; i++) {
        const int empty_send = send[i].row_bytes == 0 || send[i].rows == 0;
        const int empty_recv = recv[i].row_bytes == 0 || recv[i].rows == 0;

        if (empty_send && empty_recv) continue;
        if (send[i].row_bytes != recv[i].row_bytes || send[i].rows != recv[i].rows) return i;
    }
    return num_send == num_recv ? -1 : num;
}

uint64_t comm_exchange_hash(const base_range_t *list, int num)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a, a word at a time */

    for (int i = 0; i < num; i++) {
        const int empty = list[i].row_bytes == 0 || list[i].rows == 0;

        hash = (hash ^ (uint64_t)(empty ? 0 : list[i].row_bytes)) * UINT64_C(0x100000001b3);
        hash = (hash ^ (uint64_t)(empty ? 0 : list[i].rows)) * UINT64_C(0x100000001b3);
        hash ^= hash >> 29;
    }
    return hash;
}

int comm_tag_equal(const comm_tag_t *a, const comm_tag_t *b)
{
    return a->plan_hash == b->plan_hash && a->microbatch == b->microbatch && a->layer == b->layer &&
           a->kind == b->kind;
}

void comm_tag_text(const comm_tag_t *tag, char text[COMM_TEXT_BYTES])
{
    (void)snprintf(text, COMM_TEXT_BYTES,
                   "kind %" PRId32 ", layer %" PRId32 ", microbatch %" PRId64 ", plan %016" PRIx64,
                   tag->kind, tag->layer, tag->microbatch, tag->plan_hash);
}

static void range_text(const base_range_t *list, int num, int i, char text[COMM_TEXT_BYTES])
{
    if (i >= num)
        (void)snprintf(text, COMM_TEXT_BYTES, "nothing");
    else
        (void)snprintf(text, COMM_TEXT_BYTES, "%" PRId64 " rows of %" PRId64 " bytes", list[i].rows,
                       list[i].row_bytes);
}

/* `difference`: a range of both lists, or -1 (then not in the text). */
static void pair_text(const comm_pair_t *p, int64_t send_bytes, int64_t recv_bytes, int difference,
                      char *text, size_t text_bytes)
{
    char sender[COMM_TEXT_BYTES], receiver[COMM_TEXT_BYTES];
    int used;

    comm_tag_text(p->sender_tag, sender);
    comm_tag_text(p->receiver_tag, receiver);
    used = snprintf(text, text_bytes,
                    "rank %d sends rank %d %d ranges, %" PRId64 " bytes (%s); rank %d expects %d "
                    "ranges, %" PRId64 " bytes (%s)",
                    p->sender, p->receiver, p->num_send, send_bytes, sender, p->receiver,
                    p->num_recv, recv_bytes, receiver);
    if (difference < 0 || used <= 0 || (size_t)used >= text_bytes) return;
    range_text(p->send, p->num_send, difference, sender);
    range_text(p->recv, p->num_recv, difference, receiver);
    (void)snprintf(text + used, text_bytes - (size_t)used,
                   "; first difference at range %d: %s sent, %s expected", difference, sender,
                   receiver);
}

int comm_pair_disagrees(const comm_pair_t *p, char *text, size_t text_bytes)
{
    const int tags_equal = comm_tag_equal(p->sender_tag, p->receiver_tag);
    int i;

    /* A list of empty ranges is not an empty list: the count is part of what both sides derive. */
    if (p->num_send == 0 && p->num_recv == 0) return 0;
    i = comm_exchange_difference(p->send, p->num_send, p->recv, p->num_recv);
    if (tags_equal && i < 0) return 0;
    pair_text(p, comm_exchange_bytes(p->send, p->num_send),
              comm_exchange_bytes(p->recv, p->num_recv), i, text, text_bytes);
    return 1;
}

/* ==== lists without places ==== */

comm_list_t comm_list_of(const base_range_t *list, int num)
{
    comm_list_t l = {
        .num = num, .bytes = comm_exchange_bytes(list, num), .hash = comm_exchange_hash(list, num)};

    for (int i = 0; i < num && i < COMM_LIST_SIZES; i++)
        l.first[i] = (comm_list_size_t){list[i].row_bytes, list[i].rows};
    return l;
}

int comm_way_disagrees(const comm_way_t *w, char *text, size_t text_bytes)
{
    base_range_t lists[2][COMM_LIST_SIZES];
    const comm_list_t *sides[2] = {w->send, w->recv};
    int known[2];

    if (w->send->num == 0 && w->recv->num == 0) return 0;
    if (w->send->num == w->recv->num && w->send->bytes == w->recv->bytes &&
        w->send->hash == w->recv->hash && comm_tag_equal(w->sender_tag, w->receiver_tag))
        return 0;
    memset(lists, 0, sizeof lists);
    for (int s = 0; s < 2; s++) {
        known[s] = sides[s]->num < COMM_LIST_SIZES ? (int)sides[s]->num : COMM_LIST_SIZES;
        for (int k = 0; k < known[s]; k++) {
            lists[s][k].row_bytes = sides[s]->first[k].row_bytes;
            lists[s][k].rows = sides[s]->first[k].rows;
        }
    }
    const comm_pair_t pair = {.sender = w->sender,
                              .receiver = w->receiver,
                              .sender_tag = w->sender_tag,
                              .receiver_tag = w->receiver_tag,
                              .num_send = (int)w->send->num,
                              .num_recv = (int)w->recv->num,
                              .send = lists[0],
                              .recv = lists[1]};
    const int i = comm_exchange_difference(lists[0], known[0], lists[1], known[1]);

    pair_text(&pair, w->send->bytes, w->recv->bytes, i < COMM_LIST_SIZES ? i : -1, text,
              text_bytes);
    return 1;
}
