/* The lists of an exchange: what is legal, what two sides must agree on, and how to say it. Used
 * by all transports. */
#ifndef CADRE_COMM_EXCHANGE_H
#define CADRE_COMM_EXCHANGE_H

#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Peers ascending, in [0, size), never `rank`; counts not negative; every range within its
 * buffer. BASE_ERR_ARG (INT-01: the lists come from our own planner) names the peer and what is
 * wrong. */
base_status_t comm_exchange_check(base_ctx_t *ctx, const comm_exchange_t *ex, int rank,
                                  int size) BASE_MUST_CHECK;

int64_t comm_exchange_bytes(const base_range_t *list, int num); /* sum of row_bytes x rows */

/* Index of the first range at which what one side sends differs from what the other receives (the
 * shorter length when one list is a prefix of the other), or -1 when they match. Reads sizes
 * only, never buffers. */
int comm_exchange_difference(const base_range_t *send, int num_send, const base_range_t *recv,
                             int num_recv);

/* Of the sizes only, empty ranges all the same: equal lists (comm_exchange_difference) have equal
 * hashes. */
uint64_t comm_exchange_hash(const base_range_t *list, int num);

int comm_tag_equal(const comm_tag_t *a, const comm_tag_t *b);

#define COMM_TEXT_BYTES 128
/* "kind 2, layer 5, microbatch 7, plan 00000000000000ab" */
void comm_tag_text(const comm_tag_t *tag, char text[COMM_TEXT_BYTES]);

/* One direction between two ranks, as each of them lists it. */
typedef struct comm_pair {
    int sender, receiver;
    const comm_tag_t *sender_tag, *receiver_tag;
    int num_send, num_recv;
    const base_range_t *send, *recv;
} comm_pair_t;

/* 0 when the two agree, or when neither lists anything (their tags then need not be the same);
 * else writes both sides, with tags, counts and bytes, as one clause. */
int comm_pair_disagrees(const comm_pair_t *pair, char *text, size_t text_bytes);

/* A list without places, of fixed size: what a rank tells a peer of another process. Lists that match
 * have equal num, bytes and hash. */
#define COMM_LIST_SIZES 16
typedef struct comm_list_size {
    int64_t row_bytes, rows;
} comm_list_size_t;
typedef struct comm_list {
    int64_t num, bytes;
    uint64_t hash;
    comm_list_size_t first[COMM_LIST_SIZES]; /* so that a disagreement can be told */
} comm_list_t;
comm_list_t comm_list_of(const base_range_t *list, int num);

/* comm_pair with such lists. */
typedef struct comm_way {
    int sender, receiver;
    const comm_tag_t *sender_tag, *receiver_tag;
    const comm_list_t *send, *recv;
} comm_way_t;
int comm_way_disagrees(const comm_way_t *way, char *text, size_t text_bytes);

#ifdef __cplusplus
}
#endif
#endif
