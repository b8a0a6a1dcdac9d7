#include "attention_server/task.h"

#include "base/memory.h"

#include <inttypes.h>

static base_status_t check_counts(base_ctx_t *ctx, as_placement_t placement, int32_t num_ranks,
                                  int32_t servers_per_host)
{
    if (num_ranks < 1)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "topology: %" PRId32 " ranks, want at least 1", num_ranks);
    if (placement == AS_POOL && servers_per_host < 1)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CONF_04,
                         "attention.servers_per_host: %" PRId32 ", want at least 1",
                         servers_per_host);
    return BASE_OK;
}

static base_status_t allocate(as_topology_t *t)
{
    base_ctx_t *ctx = t->ctx;
    const int32_t n = t->num_ranks;

    if ((t->trainer_rank = base_calloc(ctx, n, sizeof(int32_t), "topology: trainers")) == NULL ||
        (t->server_rank = base_calloc(ctx, n, sizeof(int32_t), "topology: servers")) == NULL ||
        (t->rank_trainer = base_calloc(ctx, n, sizeof(int32_t), "topology: ranks")) == NULL ||
        (t->rank_server = base_calloc(ctx, n, sizeof(int32_t), "topology: ranks")) == NULL ||
        (t->rank_host = base_calloc(ctx, n, sizeof(int32_t), "topology: hosts")) == NULL)
        return BASE_ERR_NOMEM;
    return BASE_OK;
}

/* Copies the hosts and counts the ranks of each; hosts without ranks are gaps. */
static base_status_t set_hosts(as_topology_t *t, const int32_t *rank_host, int32_t *host_ranks)
{
    for (int32_t r = 0; r < t->num_ranks; r++) {
        const int32_t host = rank_host != NULL ? rank_host[r] : 0;

        if (host < 0 || host >= t->num_ranks)
            return BASE_FAIL(t->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "topology: rank %" PRId32 " is on host %" PRId32
                             ", want 0 to %" PRId32,
                             r, host, t->num_ranks - 1);
        t->rank_host[r] = host;
        host_ranks[host]++;
        if (host >= t->num_hosts) t->num_hosts = host + 1;
    }
    for (int32_t h = 0; h < t->num_hosts; h++)
        if (host_ranks[h] == 0)
            return BASE_FAIL(t->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "topology: no rank is on host %" PRId32 " of %" PRId32, h,
                             t->num_hosts);
    return BASE_OK;
}

static base_status_t check_trainers(const as_topology_t *t, const int32_t *host_ranks,
                                    int32_t servers_per_host)
{
    if (t->placement != AS_POOL) return BASE_OK;
    for (int32_t h = 0; h < t->num_hosts; h++)
        if (servers_per_host >= host_ranks[h])
            return BASE_FAIL(t->ctx, BASE_ERR_CONFIG, BASE_MSG_CONF_04,
                             "attention.servers_per_host: %" PRId32 ", but host %" PRId32
                             " has %" PRId32 " ranks, want at least one trainer on each",
                             servers_per_host, h, host_ranks[h]);
    return BASE_OK;
}

/* host_ranks counts down to the ranks of each host that are still to come. */
static void set_roles(as_topology_t *t, int32_t *host_ranks, int32_t servers_per_host)
{
    for (int32_t r = 0; r < t->num_ranks; r++) {
        const int only =
            t->placement == AS_POOL && host_ranks[t->rank_host[r]]-- <= servers_per_host;
        const int serves = only || t->placement != AS_POOL;

        t->rank_trainer[r] = only ? -1 : t->num_trainers;
        t->rank_server[r] = serves ? t->num_servers : -1;
        if (!only) t->trainer_rank[t->num_trainers++] = r;
        if (serves) t->server_rank[t->num_servers++] = r;
    }
}

base_status_t as_topology_create(base_ctx_t *ctx, as_placement_t placement, int32_t num_ranks,
                                 const int32_t *rank_host, int32_t servers_per_host,
                                 as_topology_t **topology_p)
{
    int32_t *host_ranks = NULL; /* [num_ranks]; that many hosts at most */
    base_status_t st = BASE_ERR_NOMEM;

    BASE_TRY(check_counts(ctx, placement, num_ranks, servers_per_host));
    as_topology_t *t = base_calloc(ctx, 1, sizeof *t, "topology");
    if (t == NULL) return st;
    t->ctx = ctx;
    t->placement = placement;
    t->num_ranks = num_ranks;
    BASE_TRY_GOTO(allocate(t), st, err_destroy);
    host_ranks = base_calloc(ctx, num_ranks, sizeof *host_ranks, "topology: ranks of hosts");
    if (host_ranks == NULL) {
        st = BASE_ERR_NOMEM;
        goto err_destroy;
    }
    BASE_TRY_GOTO(set_hosts(t, rank_host, host_ranks), st, err_destroy);
    BASE_TRY_GOTO(check_trainers(t, host_ranks, servers_per_host), st, err_destroy);
    set_roles(t, host_ranks, servers_per_host);
    base_free(ctx, host_ranks);
    *topology_p = t;
    return BASE_OK;
err_destroy:
    base_free(ctx, host_ranks);
    as_topology_destroy(t);
    return st;
}

void as_topology_destroy(as_topology_t *topology)
{
    if (topology == NULL) return;
    base_free(topology->ctx, topology->rank_host);
    base_free(topology->ctx, topology->rank_server);
    base_free(topology->ctx, topology->rank_trainer);
    base_free(topology->ctx, topology->server_rank);
    base_free(topology->ctx, topology->trainer_rank);
    base_free(topology->ctx, topology);
}
