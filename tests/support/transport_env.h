/* Which transport the processes of a test use: CADRE_RANKS_TRANSPORT of the environment, a name of
 * comm_transport_name, else MPI; with CADRE_RANKS_PER_HOST so many ranks count as a host. */
#ifndef CADRE_TESTS_SUPPORT_TRANSPORT_ENV_H
#define CADRE_TESTS_SUPPORT_TRANSPORT_ENV_H

#include "comm/mpi.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline comm_transport_t transport_env(void)
{
    const char *name = getenv("CADRE_RANKS_TRANSPORT");
    comm_transport_t t = COMM_TRANSPORT_MPI;

    if (name == NULL) return t;
    while (strcmp(comm_transport_name(t), name) != 0)
        if (++t == COMM_TRANSPORT_COUNT) {
            (void)fprintf(stderr, "CADRE_RANKS_TRANSPORT: no transport %s\n", name);
            abort();
        }
    return t;
}

/* The hosts of `num` ranks, in `room`; NULL: where they are. */
static inline const int32_t *transport_env_hosts(int32_t *room, int num)
{
    const char *number = getenv("CADRE_RANKS_PER_HOST");
    const int per_host = number != NULL ? (int)strtol(number, NULL, 10) : 0;

    for (int r = 0; r < num && per_host > 0; r++)
        room[r] = r / per_host;
    return per_host > 0 ? room : NULL;
}

#endif
