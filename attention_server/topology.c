#include "attention_server/task.h"

#include "base/memory.h"

#include <inttypes.h>

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static base_status_t check_counts(base_ctx_t *ctx, as_placement_t placement, int32_t num_ranks,
                                  int32_t ranks_per_host, int32_t servers_per_host)
{
    if (num_ranks < 1 || ranks_per_host < 1)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "topology: %" PRId32 " ranks, %" PRId32 " on a host, want at least 1",
                         num_ranks, ranks_per_host);
    if (placement != AS_POOL) return BASE_OK;
    if (servers_per_host < 1)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CONF_04,
                         "attention.servers_per_host: %" PRId32 ", want at least 1",
                         servers_per_host);

    /* Only the last host can be smaller than the others. */
    const int32_t last_host = (num_ranks - 1) / ranks_per_host;
    const int32_t last_ranks = num_ranks - last_host * ranks_per_host;
    const int32_t host = servers_per_host >= ranks_per_host ? 0 : last_host;
    const int32_t host_ranks = host == last_host ? last_ranks : ranks_per_host;
    if (servers_per_host >= host_ranks)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CONF_04,
                         "attention.servers_per_host: %" PRId32 ", but host %" PRId32
                         " has %" PRId32 " ranks, want at least one trainer on each",
                         servers_per_host, host, host_ranks);
    return BASE_OK;
}

static int serves_only(const as_topology_t *topology, int32_t rank, int32_t ranks_per_host,
                       int32_t servers_per_host)
{
    if (topology->placement != AS_POOL) return 0;
    const int32_t host_begin = rank / ranks_per_host * ranks_per_host;
    const int32_t host_ranks = min_i32(ranks_per_host, topology->num_ranks - host_begin);
    return rank - host_begin >= host_ranks - servers_per_host;
}

base_status_t as_topology_create(base_ctx_t *ctx, as_placement_t placement, int32_t num_ranks,
                                 int32_t ranks_per_host, int32_t servers_per_host,
                                 as_topology_t **topology_p)
{
    BASE_TRY(check_counts(ctx, placement, num_ranks, ranks_per_host, servers_per_host));

    as_topology_t *t = base_calloc(ctx, 1, sizeof *t, "topology");
    if (t == NULL) return BASE_ERR_NOMEM;
    t->ctx = ctx;
    t->placement = placement;
    t->num_ranks = num_ranks;
    if ((t->trainer_rank =
             base_calloc(ctx, num_ranks, sizeof *t->trainer_rank, "topology: trainers")) == NULL ||
        (t->server_rank =
             base_calloc(ctx, num_ranks, sizeof *t->server_rank, "topology: servers")) == NULL ||
        (t->rank_trainer =
             base_calloc(ctx, num_ranks, sizeof *t->rank_trainer, "topology: ranks")) == NULL ||
        (t->rank_server = base_calloc(ctx, num_ranks, sizeof *t->rank_server, "topology: ranks")) ==
            NULL) {
        as_topology_destroy(t);
        return BASE_ERR_NOMEM;
    }

    for (int32_t r = 0; r < num_ranks; r++) {
        const int only = serves_only(t, r, ranks_per_host, servers_per_host);
        const int serves = only || placement != AS_POOL;

        t->rank_trainer[r] = only ? -1 : t->num_trainers;
        t->rank_server[r] = serves ? t->num_servers : -1;
        if (!only) t->trainer_rank[t->num_trainers++] = r;
        if (serves) t->server_rank[t->num_servers++] = r;
    }
    *topology_p = t;
    return BASE_OK;
}

void as_topology_destroy(as_topology_t *topology)
{
    if (topology == NULL) return;
    base_free(topology->ctx, topology->rank_server);
    base_free(topology->ctx, topology->rank_trainer);
    base_free(topology->ctx, topology->server_rank);
    base_free(topology->ctx, topology->trainer_rank);
    base_free(topology->ctx, topology);
}
