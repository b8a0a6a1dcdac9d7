/* One completion for several exchanges.
 *
 * To say that a transfer is done takes a GPU's stream as long as moving some hundred KiB (docs/kernels/links.md). Counters only
 * grow, and a stream keeps its order: so the value of a later exchange says that the earlier ones are done too. A pump
 * therefore owes the completion of a short exchange
 *
 *   - until the last of COMM_SHARE consecutive ones is given to the same stream (positions 4k to 4k + 3), or
 *   - until no other one of its size would fit into COMM_SHARE_BYTES, or
 *   - until all that the stream was told to say before has been said. As long as that has not, what is owed could not be
 *     said either, so that nobody loses time; and from then on somebody might wait in vain.
 *
 * The last makes it a matter of one rank alone: it asks no peer, and no peer knows. The earlier exchanges are done when the
 * last one is, at most as much later as COMM_SHARE_BYTES take, where a stream is given nothing that waits. So it is with
 * copy engines: the peer's data is ready. A kernel of NCCL waits for ranks that do not have the exchange ready yet, and one
 * of them might wait for what this rank does when an earlier one is done. So over NCCL only exchanges share that say
 * that it is not so (comm_exchange_t.independent). */
#ifndef CADRE_COMM_SHARE_H
#define CADRE_COMM_SHARE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define COMM_SHARE       4
#define COMM_SHARE_BYTES (INT64_C(8) << 20)

/* What a stream has been given and nobody is told of yet. */
typedef struct comm_share {
    uint64_t last; /* position of the last exchange; 0: nothing is owed */
    int64_t bytes; /* of all of them */
} comm_share_t;

/* Whether two such exchanges share one. */
static inline int comm_share_is_short(int64_t bytes)
{
    return 2 * bytes <= COMM_SHARE_BYTES;
}

/* Whether the exchange may be told of together with what is owed. */
static inline int comm_share_takes(const comm_share_t *owed, uint64_t sequence, int64_t bytes)
{
    return owed->last / COMM_SHARE == sequence / COMM_SHARE &&
           owed->bytes + bytes <= COMM_SHARE_BYTES;
}

/* Notes that it is given. Returns whether all has to be told now. */
static inline int comm_share_add(comm_share_t *owed, uint64_t sequence, int64_t bytes)
{
    owed->last = sequence;
    owed->bytes += bytes;
    return sequence % COMM_SHARE == COMM_SHARE - 1 || owed->bytes + bytes > COMM_SHARE_BYTES;
}

#ifdef __cplusplus
}
#endif
#endif
