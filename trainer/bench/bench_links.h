/* `cadre bench links`: how fast exchanges move data, beside the transport's bare means (comm/bare.h) in
 * the same run, size by size.
 *
 * Two patterns. `one`: rank 0 sends to rank 1, 2 to 3, and so on. `both`: every rank sends to the next and
 * receives from the one before, all at once. Exchanges have one contiguous range a peer and follow each
 * other as in a layer: the next one of the same memory is ready when the last one is complete, and as many
 * as `depth` are on their way, which from COMM_SHARE on do not wait for each other (comm/comm.h). So are the bare
 * transfers: given one behind the other, waited for at the end.
 * A figure is the bytes that a rank receives by the time of the slowest rank; medians of rounds in which
 * bare and exchange take turns. Beside it stands how long an exchange takes alone: each is begun when
 * the one before is complete on the device, so that nothing hides what leads up to it; and, as `told`, how long a bare
 * transfer takes that says when it is done (comm/bare.h), as every exchange has to, or when the last of `tell_every`
 * says so for all. */
#ifndef CADRE_TRAINER_BENCH_BENCH_LINKS_H
#define CADRE_TRAINER_BENCH_BENCH_LINKS_H

#include "comm/comm.h"

#include <stdbool.h>
#include <stdio.h>

#define TR_LINKS_ROUNDS    15 /* most */
#define TR_LINKS_MIN_BYTES INT64_C(65536)
#define TR_LINKS_MAX_BYTES (INT64_C(1) << 30)

typedef struct tr_bench_links {
    int64_t max_bytes; /* of an exchange; from TR_LINKS_MIN_BYTES on by fours */
    int64_t round_ms;  /* about how long a round lasts */
    int32_t rounds;
    int32_t tell_every; /* 1: each */
    double want_share;  /* of bare, from 1 MiB on; 0: whatever it is */
    double want_gb;     /* GB/s, from 64 MiB on */
    bool json;
    FILE *out; /* rank 0 writes */
    bool met;  /* rank 0's, written: taken back when something falls short */
    bool said; /* likewise: the table has begun */
} tr_bench_links_t;

/* A comm_rank_fn for two ranks or more; `user` is a tr_bench_links_t. */
base_status_t tr_bench_links_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                  void *user);

#endif
