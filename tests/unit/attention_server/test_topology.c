#include "tests/support/ctx_fixture.h"

#include "attention_server/task.h"

static void check_tables(const as_topology_t *t)
{
    int32_t trainers = 0, servers = 0;

    for (int32_t r = 0; r < t->num_ranks; r++) {
        if (t->rank_trainer[r] >= 0) {
            assert_int_equal(t->rank_trainer[r], trainers);
            assert_int_equal(t->trainer_rank[trainers++], r);
        }
        if (t->rank_server[r] >= 0) {
            assert_int_equal(t->rank_server[r], servers);
            assert_int_equal(t->server_rank[servers++], r);
        }
    }
    assert_int_equal(t->num_trainers, trainers);
    assert_int_equal(t->num_servers, servers);
}

static void roles_follow_the_placement(void **state)
{
    /* T: trainer, S: server, B: both. */
    static const struct {
        as_placement_t placement;
        int32_t ranks_per_host, servers_per_host;
        const char *roles;
    } cases[] = {
        {AS_IN_PLACE, 2, 0, "BBBBB"}, {AS_LOCAL, 8, 3, "BBB"},     {AS_LOCAL, 1, 0, "B"},
        {AS_POOL, 4, 1, "TTTS"},      {AS_POOL, 4, 1, "TTTSTTTS"}, {AS_POOL, 4, 3, "TSSSTSSS"},
        {AS_POOL, 4, 1, "TTTSTS"},    {AS_POOL, 8, 1, "TTS"},      {AS_POOL, 3, 2, "TSSTSSTSSTSS"},
    };
    base_ctx_t *ctx = fixture_ctx();

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        as_topology_t *t = NULL;

        assert_int_equal(as_topology_create(ctx, cases[i].placement,
                                            (int32_t)strlen(cases[i].roles),
                                            cases[i].ranks_per_host, cases[i].servers_per_host, &t),
                         BASE_OK);
        assert_int_equal(t->placement, cases[i].placement);
        for (int32_t r = 0; r < t->num_ranks; r++) {
            assert_int_equal(t->rank_trainer[r] >= 0, cases[i].roles[r] != 'S');
            assert_int_equal(t->rank_server[r] >= 0, cases[i].roles[r] != 'T');
        }
        check_tables(t);
        as_topology_destroy(t);
    }
    fixture_ctx_end(ctx);
}

static void hosts_without_trainer_are_refused(void **state)
{
    static const struct {
        int32_t num_ranks, ranks_per_host, servers_per_host;
        base_status_t st;
        const char *id, *text;
    } cases[] = {
        {4, 4, 0, BASE_ERR_CONFIG, "CONF-04", "attention.servers_per_host: 0, want at least 1"},
        {4, 4, -1, BASE_ERR_CONFIG, "CONF-04", "attention.servers_per_host: -1"},
        {4, 4, 4, BASE_ERR_CONFIG, "CONF-04", "servers_per_host: 4, but host 0 has 4 ranks"},
        {5, 2, 2, BASE_ERR_CONFIG, "CONF-04", "servers_per_host: 2, but host 0 has 2 ranks"},
        {5, 4, 1, BASE_ERR_CONFIG, "CONF-04", "servers_per_host: 1, but host 1 has 1 ranks"},
        {1, 4, 1, BASE_ERR_CONFIG, "CONF-04", "servers_per_host: 1, but host 0 has 1 ranks"},
        {3, 8, 3, BASE_ERR_CONFIG, "CONF-04", "servers_per_host: 3, but host 0 has 3 ranks"},
        {0, 1, 1, BASE_ERR_ARG, "INT-01", "0 ranks"},
        {1, 0, 1, BASE_ERR_ARG, "INT-01", "0 on a host"},
    };
    base_ctx_t *ctx = fixture_ctx();
    as_topology_t *t = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(as_topology_create(ctx, AS_POOL, cases[i].num_ranks,
                                            cases[i].ranks_per_host, cases[i].servers_per_host, &t),
                         cases[i].st);
        fixture_expect_error(ctx, cases[i].st, cases[i].id, cases[i].text);
    }
    assert_null(t);
    fixture_ctx_end(ctx);
}

static void create_fails_cleanly(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    as_topology_t *t = NULL;
    int64_t n = 0;

    (void)state;
    for (;;) {
        base_memory_fail_at(base_ctx_memory(ctx), ++n);
        const base_status_t st = as_topology_create(ctx, AS_POOL, 4, 2, 1, &t);
        if (st == BASE_OK || n > 100) break;
        assert_int_equal(st, BASE_ERR_NOMEM);
        fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "topology");
        assert_int_equal(base_memory_live_total(base_ctx_memory(ctx)), 0);
    }
    assert_int_equal(n, 6);
    base_memory_fail_at(base_ctx_memory(ctx), 0);
    as_topology_destroy(t);
    as_topology_destroy(NULL);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roles_follow_the_placement),
        cmocka_unit_test(hosts_without_trainer_are_refused),
        cmocka_unit_test(create_fails_cleanly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
