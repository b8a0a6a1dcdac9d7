/* Ranks that are about to run different things are named before anything runs. */
#include "tests/support/ctx_fixture.h"

#include "comm/threads.h"
#include "trainer/run/agreement.h"

#define RANKS 3

typedef struct agreement_case {
    tr_agreement_t given[RANKS];
    int trains[RANKS]; /* in check_start */
    uint64_t values[RANKS];
    int start;
    base_status_t found[RANKS];
    char text[RANKS][BASE_ERROR_TEXT_BYTES];
} agreement_case_t;

static base_status_t run_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    agreement_case_t *c = user;
    const int rank = base_ctx_rank(ctx);
    base_error_t error;

    (void)dev;
    if (c->start)
        c->found[rank] = tr_agreement_check_start(ctx, group, c->trains[rank], c->values[rank]);
    else
        c->found[rank] = tr_agreement_check(ctx, group, &c->given[rank]);
    if (base_ctx_error(ctx, &error)) {
        memcpy(c->text[rank], error.text, sizeof error.text);
        base_ctx_clear_error(ctx);
    }
    return comm_barrier(group);
}

static agreement_case_t alike(void)
{
    agreement_case_t c = {0};

    for (int r = 0; r < RANKS; r++)
        c.given[r] = (tr_agreement_t){.config = 1, .model = 2, .datasets = 3, .profile = 4};
    return c;
}

static void check(agreement_case_t *c, const char *want)
{
    const comm_threads_options_t options = {.num_ranks = RANKS, .device = BASE_DEVICE_CPU};
    base_error_t error = {0};

    assert_int_equal(comm_threads_run(&options, run_rank, c, &error), BASE_OK);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(c->found[r], want == NULL ? BASE_OK : BASE_ERR_MISMATCH);
        if (want != NULL && strstr(c->text[r], want) == NULL) fail_msg("%s", c->text[r]);
    }
}

static void test_all_alike(void **state)
{
    agreement_case_t c = alike();

    (void)state;
    check(&c, NULL);
}

static void test_who_and_what(void **state)
{
    agreement_case_t c;

    (void)state;
    c = alike();
    c.given[2].config = 9;
    check(&c, "rank 2 has another configuration than rank 0 (hash 0000000000000009, not "
              "0000000000000001)");
    c = alike();
    c.given[1].model = 9;
    check(&c, "rank 1 has another model than rank 0");
    c = alike();
    c.given[1].profile = c.given[2].profile = 9;
    check(&c, "rank 1 has another attention profile (attention.cost_profile) than rank 0");
    c = alike();
    c.given[2].datasets = 9;
    check(&c, "rank 2 has other documents than rank 0");
}

/* Rank 0 is a server: what it has does not count. */
static void test_first_values(void **state)
{
    agreement_case_t c = {.start = 1, .trains = {0, 1, 1}, .values = {7, 8, 8}};

    (void)state;
    check(&c, NULL);
    c.values[2] = 9;
    check(&c, "rank 2 has other values of adapters to begin with (init) than rank 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_alike),
        cmocka_unit_test(test_who_and_what),
        cmocka_unit_test(test_first_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
