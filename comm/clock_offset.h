/* How far this rank's clock is from rank 0's, for traces.
 *
 * An all-gather ends nowhere before it has begun everywhere. So of a rank that enters at e and
 * leaves at x on its own clock, and rank 0, which enters at e0 and leaves at x0,
 *
 *     e0 <= x + offset    and    e + offset <= x0:        e0 - x <= offset <= x0 - e
 *
 * and several all-gathers leave an interval as wide as the quickest of them. Its middle is the
 * offset, half of its width the error: no assumption about the network, and a bound that holds. */
#ifndef CADRE_COMM_CLOCK_OFFSET_H
#define CADRE_COMM_CLOCK_OFFSET_H

#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct comm_clock_reading {
    int64_t here_ns;   /* of this rank's clock, when it was read */
    int64_t offset_ns; /* rank 0's clock - this one */
    int64_t error_ns;  /* at most */
} comm_clock_reading_t;

/* A clock, for tests. */
typedef int64_t (*comm_clock_fn)(void *user);

/* Collective; some milliseconds. `clock` NULL: base_clock_ns, of which ranks on rank 0's host have
 * the same: their offset is 0 without error. */
base_status_t comm_clock_read(comm_group_t *group, comm_clock_fn clock, void *user,
                              comm_clock_reading_t *reading) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
