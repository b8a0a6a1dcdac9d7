/* The exact packer in a run: every document once, never more microbatches than with the fast packer
 * and now and then fewer; the same plans from two planning threads that solve at once. */
#include "base/philox.h"
#include "lora/pack_process.h"
#include "tests/support/horizon_case.h"
#include "trainer/loop/planning.h"

#include <sys/stat.h>
#include <unistd.h>

/* The first comes out shorter, and asks little: a process takes its time under a sanitizer. */
#define FIRST_SEED 73
#define SEEDS      2

static int64_t draw(uint64_t seed, uint32_t what, int64_t low, int64_t high)
{
    const base_philox_t r = base_philox(base_philox_key(seed), what, 0, 0, 0);

    return low + (int64_t)base_philox_below(r.word[0], r.word[1], (uint64_t)(high - low + 1));
}

/* Small batches of documents that are long for a microbatch: one to four come together. */
static horizon_options_t draw_options(uint64_t seed)
{
    horizon_options_t o = {.placement = AS_IN_PLACE, .ranks = 1, .tokens = 512};

    if (seed % 3 == 1) o.rank_columns = 20;
    for (int j = 0; j < HORIZON_JOBS; j++) {
        const uint32_t who = (uint32_t)j * 8;

        o.epochs[j] = draw(seed, who, 1, 2);
        o.batches[j] = draw(seed, who + 1, 2, 6);
        o.adapter_ranks[j] = INT64_C(4) << draw(seed, who + 2, 0, 2);
        o.longest[j] = draw(seed, who + 3, 40, 380);
    }
    return o;
}

static int64_t run(const horizon_options_t *o)
{
    horizon_case_t c;

    horizon_begin(&c, o);
    while (horizon_step(&c, o->rank_columns)) {
    }
    horizon_check_all_given(&c, o->epochs);
    horizon_end(&c);
    return c.microbatches;
}

/* No theorem, since batches that are not drawn yet follow: a count. */
static void test_never_more(void **state)
{
    int64_t sum[2] = {0};

    (void)state;
    for (uint64_t seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
        horizon_options_t o = draw_options(seed);

        const int64_t fast = run(&o);
        o.exact = 1;
        const int64_t exact = run(&o);
        assert_true(exact <= fast);
        sum[0] += fast;
        sum[1] += exact;
    }
    print_message("%d runs: fast %lld microbatches, exact %lld\n", SEEDS, (long long)sum[0],
                  (long long)sum[1]);
    assert_true(sum[1] < sum[0]);
}

static tr_planning_t *begin_planning(horizon_case_t *c, const horizon_options_t *o)
{
    tr_planning_t *planning = NULL;

    horizon_begin(c, o);
    assert_int_equal(
        tr_planning_create(c->ctx, c->jobs, HORIZON_JOBS, o->rank_columns, &c->lots, &planning),
        BASE_OK);
    tr_horizon_set_exact(tr_planning_horizon(planning), 1);
    assert_int_equal(tr_planning_start(planning), BASE_OK);
    for (int n = 0; n < TR_PLANNING_AHEAD; n++)
        tr_planning_request(planning, NULL, 0);
    return planning;
}

/* Each rank has files of its own. Once they run, nothing is allocated. */
static void test_ranks_agree(void **state)
{
    const horizon_options_t o = draw_options(FIRST_SEED);
    tr_planning_t *planning[2];
    tr_planned_t *planned[2];
    static horizon_case_t c[2];
    int64_t calls = 0;
    int more = 1;

    (void)state;
    planning[0] = begin_planning(&c[0], &o);
    assert_true(mkdir("second_rank", 0755) == 0 || errno == EEXIST);
    assert_int_equal(chdir("second_rank"), 0);
    planning[1] = begin_planning(&c[1], &o);
    for (int64_t n = 0; more; n++) {
        for (int r = 0; r < 2; r++)
            assert_int_equal(tr_planning_wait(planning[r], n, &planned[r]), BASE_OK);
        more = planned[0]->entry.kind != TR_ENTRY_END;
        assert_int_equal(planned[0]->entry.kind, planned[1]->entry.kind);
        if (more)
            assert_true(tr_lot_plans(planned[0]->lot)[0]->hash ==
                        tr_lot_plans(planned[1]->lot)[0]->hash);
        for (int r = 0; r < 2 && more; r++)
            tr_planning_request(planning[r], NULL, 0);
        if (n == 2 * TR_PLANNING_LOTS) calls = base_memory_calls(base_ctx_memory(c[0].ctx));
    }
    assert_true(calls > 0);
    assert_int_equal(base_memory_calls(base_ctx_memory(c[0].ctx)), calls);
    for (int r = 0; r < 2; r++) {
        tr_planning_destroy(planning[r]);
        horizon_end(&c[r]);
    }
    assert_int_equal(chdir(".."), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_never_more),
        cmocka_unit_test(test_ranks_agree),
    };

    if (lora_pack_process_is(argc, argv)) return lora_pack_process_main();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
