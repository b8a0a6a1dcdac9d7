#include "comm/clock_offset.h"

#include "base/clock.h"
#include "base/memory.h"
#include "comm/transport.h"

#define ROUNDS 16

/* What a rank says of the round at work and the one before. */
typedef struct said {
    int64_t entered, left_before;
} said_t;

static int64_t now(comm_clock_fn clock, void *user)
{
    return clock != NULL ? clock(user) : base_clock_ns();
}

static int shares_clock(const comm_group_t *group)
{
    const int32_t *hosts = comm_group_hosts(group);

    return hosts == NULL || hosts[comm_group_rank(group)] == hosts[0];
}

static base_status_t narrow(comm_group_t *group, comm_clock_fn clock, void *user, said_t *all,
                            int64_t *least_p, int64_t *most_p)
{
    said_t mine = {0, 0};
    int64_t entered_before = 0;

    for (int round = 0; round <= ROUNDS; round++) {
        mine.entered = now(clock, user);
        BASE_TRY(comm_allgather(group, &mine, (int64_t)sizeof mine, all));
        const int64_t left = now(clock, user);

        if (all[0].entered - left > *least_p) *least_p = all[0].entered - left;
        if (round > 0 && all[0].left_before - entered_before < *most_p)
            *most_p = all[0].left_before - entered_before;
        entered_before = mine.entered;
        mine.left_before = left;
    }
    return BASE_OK;
}

base_status_t comm_clock_read(comm_group_t *group, comm_clock_fn clock, void *user,
                              comm_clock_reading_t *reading)
{
    base_ctx_t *ctx = group->ctx;
    int64_t least = INT64_MIN, most = INT64_MAX;

    said_t *all = base_calloc(ctx, comm_group_size(group), sizeof *all, "clock readings");
    if (all == NULL) return BASE_ERR_NOMEM;
    const base_status_t st = narrow(group, clock, user, all, &least, &most);
    base_free(ctx, all);
    BASE_TRY(st);
    *reading = (comm_clock_reading_t){.here_ns = now(clock, user)};
    if (comm_group_rank(group) == 0 || (clock == NULL && shares_clock(group))) return BASE_OK;
    reading->offset_ns = least + (most - least) / 2;
    reading->error_ns = (most - least + 1) / 2;
    return BASE_OK;
}
