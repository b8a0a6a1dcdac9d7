#include "tests/support/ctx_fixture.h"

#include "attention_server/task.h"

#define MAX_RANKS 16

/* NULL for NULL. */
static const int32_t *read_hosts(const char *digits, int32_t *hosts)
{
    if (digits == NULL) return NULL;
    for (size_t r = 0; digits[r] != '\0'; r++)
        hosts[r] = digits[r] == '-' ? -1 : digits[r] - '0';
    return hosts;
}

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
    /* T: trainer, S: server, B: both; hosts as digits, one a rank, NULL: not given. */
    static const struct {
        as_placement_t placement;
        int32_t servers_per_host, num_hosts;
        const char *roles, *hosts;
    } cases[] = {
        {AS_IN_PLACE, 0, 3, "BBBBB", "00112"},
        {AS_LOCAL, 3, 1, "BBB", NULL},
        {AS_LOCAL, 0, 1, "B", "0"},
        {AS_POOL, 1, 1, "TTTS", NULL},
        {AS_POOL, 1, 1, "TTTS", "0000"},
        {AS_POOL, 1, 2, "TTTSTTTS", "00001111"},
        {AS_POOL, 3, 2, "TSSSTSSS", "00001111"},
        {AS_POOL, 2, 4, "TSSTSSTSSTSS", "000111222333"},
        /* uneven */
        {AS_POOL, 1, 2, "TTTSTS", "000011"},
        {AS_POOL, 1, 3, "TSTTTTSTTS", "0011111222"},
        {AS_POOL, 2, 2, "TSSTTTSS", "00011111"},
        /* interleaved; the first host is not the first rank's */
        {AS_POOL, 1, 2, "TTTTSS", "010101"},
        {AS_POOL, 1, 2, "TTTTSS", "101010"},
        {AS_POOL, 2, 3, "TTSTSTSSSS", "0112102020"},
        {AS_POOL, 1, 3, "TTTTTSSS", "21001021"},
        {AS_IN_PLACE, 0, 2, "BBBB", "1001"},
    };
    base_ctx_t *ctx = fixture_ctx();

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int32_t num_ranks = (int32_t)strlen(cases[i].roles);
        int32_t hosts[MAX_RANKS];
        as_topology_t *t = NULL;

        assert_int_equal(as_topology_create(ctx, cases[i].placement, num_ranks,
                                            read_hosts(cases[i].hosts, hosts),
                                            cases[i].servers_per_host, &t),
                         BASE_OK);
        assert_int_equal(t->placement, cases[i].placement);
        assert_int_equal(t->num_ranks, num_ranks);
        assert_int_equal(t->num_hosts, cases[i].num_hosts);
        for (int32_t r = 0; r < t->num_ranks; r++) {
            assert_int_equal(t->rank_host[r], cases[i].hosts != NULL ? hosts[r] : 0);
            assert_int_equal(t->rank_trainer[r] >= 0, cases[i].roles[r] != 'S');
            assert_int_equal(t->rank_server[r] >= 0, cases[i].roles[r] != 'T');
        }
        check_tables(t);
        as_topology_destroy(t);
    }
    fixture_ctx_end(ctx);
}

typedef struct refused {
    int32_t num_ranks;
    const char *hosts;
    int32_t servers_per_host;
    const char *text;
} refused_t;

static void expect_refused(as_placement_t placement, const refused_t *cases, size_t num_cases,
                           base_status_t st, const char *id)
{
    base_ctx_t *ctx = fixture_ctx();
    as_topology_t *t = NULL;

    for (size_t i = 0; i < num_cases; i++) {
        int32_t hosts[MAX_RANKS];

        assert_int_equal(as_topology_create(ctx, placement, cases[i].num_ranks,
                                            read_hosts(cases[i].hosts, hosts),
                                            cases[i].servers_per_host, &t),
                         st);
        fixture_expect_error(ctx, st, id, cases[i].text);
    }
    assert_null(t);
    fixture_ctx_end(ctx);
}

static void hosts_without_trainer_are_refused(void **state)
{
    static const refused_t cases[] = {
        {4, NULL, 0, "attention.servers_per_host: 0, want at least 1"},
        {4, NULL, -1, "attention.servers_per_host: -1"},
        {4, NULL, 4, "servers_per_host: 4, but host 0 has 4 ranks"},
        {1, NULL, 1, "servers_per_host: 1, but host 0 has 1 ranks"},
        {3, "000", 4, "servers_per_host: 4, but host 0 has 3 ranks"},
        {5, "00112", 2, "servers_per_host: 2, but host 0 has 2 ranks"},
        {5, "00001", 1, "servers_per_host: 1, but host 1 has 1 ranks"},
        {6, "020112", 2, "servers_per_host: 2, but host 0 has 2 ranks"},
        {7, "0201012", 2, "servers_per_host: 2, but host 1 has 2 ranks"},
        {5, "10200", 1, "servers_per_host: 1, but host 1 has 1 ranks"},
    };

    (void)state;
    expect_refused(AS_POOL, cases, sizeof cases / sizeof cases[0], BASE_ERR_CONFIG, "CONF-04");
}

static void gaps_are_refused(void **state)
{
    static const refused_t cases[] = {
        {0, NULL, 1, "0 ranks"},
        {1, "1", 1, "rank 0 is on host 1, want 0 to 0"},
        {4, "1111", 1, "no rank is on host 0 of 2"},
        {4, "0022", 1, "no rank is on host 1 of 3"},
        {4, "2020", 1, "no rank is on host 1 of 3"},
        {4, "0009", 1, "rank 3 is on host 9, want 0 to 3"},
        {4, "00-0", 1, "rank 2 is on host -1"},
    };

    (void)state;
    expect_refused(AS_POOL, cases, sizeof cases / sizeof cases[0], BASE_ERR_ARG, "INT-01");
    expect_refused(AS_IN_PLACE, cases, sizeof cases / sizeof cases[0], BASE_ERR_ARG, "INT-01");
}

static void create_fails_cleanly(void **state)
{
    static const int32_t hosts[] = {0, 1, 0, 1};
    base_ctx_t *ctx = fixture_ctx();
    as_topology_t *t = NULL;
    int64_t n = 0;

    (void)state;
    for (;;) {
        base_memory_fail_at(base_ctx_memory(ctx), ++n);
        const base_status_t st = as_topology_create(ctx, AS_POOL, 4, hosts, 1, &t);
        if (st == BASE_OK || n > 100) break;
        assert_int_equal(st, BASE_ERR_NOMEM);
        fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "topology");
        assert_int_equal(base_memory_live_total(base_ctx_memory(ctx)), 0);
    }
    assert_int_equal(n, 8);
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
        cmocka_unit_test(gaps_are_refused),
        cmocka_unit_test(create_fails_cleanly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
