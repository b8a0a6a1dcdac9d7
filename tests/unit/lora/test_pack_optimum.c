/* Tiny windows against the optimum by trying everything: bounds are not above it, the exact packer
 * reaches it, the packer misses it rarely and by one. */
#include "lora/bound.h"
#include "lora/pack_exact.h"
#include "tests/support/pack_case.h"

#define SEEDS 60

static const lora_exact_limits_t limits = {.seconds = 30};

/* 1 when documents from d on can be placed in microbatches 0 .. count - 1. */
static int place(base_ctx_t *ctx, pack_case_t *c, int32_t d, int32_t count)
{
    lora_schedule_t s = {count, c->microbatch};

    if (d == c->window.num_documents) {
        const int legal = lora_schedule_judge(ctx, &c->window, &s, NULL) == BASE_OK;

        base_ctx_clear_error(ctx);
        return legal;
    }
    for (int32_t m = 0; m < count; m++) {
        int64_t rows = c->rows[d];

        for (int32_t e = 0; e < d; e++)
            rows += c->microbatch[e] == m ? c->rows[e] : 0;
        if (rows > c->window.alone_capacity) continue; /* too full already */
        c->microbatch[d] = m;
        if (place(ctx, c, d + 1, count)) return 1;
    }
    return 0;
}

static int32_t optimum(base_ctx_t *ctx, pack_case_t *c)
{
    int32_t count = 1;

    while (!place(ctx, c, 0, count))
        assert_true(++count < 20);
    return count;
}

static void draw(pack_case_t *c, uint64_t seed)
{
    pack_case_begin(c, seed, 3, 2, 2, 1024, seed % 4 == 1 ? 1100 : 1024);
    c->window.stages = 1 + (int32_t)(seed % 3 == 0);
    if (seed % 4 == 2) c->window.adapter_align = 128;
    if (seed % 5 == 0) c->window.rank_columns = 32;
}

static void test_optimum(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    lora_packer_t *packer = pack_case_packer(ctx);
    static pack_case_t c;
    int missed = 0, tried = 0;

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        lora_bounds_t bounds;
        lora_exact_result_t exact;

        draw(&c, seed);
        if (c.window.num_documents > 8) continue;
        tried++;
        const int32_t best = optimum(ctx, &c);
        assert_int_equal(lora_bound_window(ctx, &c.window, &bounds), BASE_OK);
        assert_true(bounds.best <= best);
        assert_int_equal(lora_packer_run(packer, &c.window, &c.schedule), BASE_OK);
        assert_in_range(c.schedule.num_microbatches, best, best + 1);
        missed += c.schedule.num_microbatches > best;
        assert_int_equal(lora_pack_exact(ctx, &c.window, &limits, &c.schedule, &exact), BASE_OK);
        assert_int_equal(lora_schedule_judge(ctx, &c.window, &c.schedule, NULL), BASE_OK);
        assert_int_equal(c.schedule.num_microbatches, best);
        assert_true(exact.proven && exact.bound == best);
    }
    assert_true(tried > 40);
    if (missed > 0) fail_msg("missed %d of %d", missed, tried);
    lora_packer_destroy(packer);
    fixture_ctx_end(ctx);
}

/* Where columns are scarce the packer meets the bound mostly; the exact packer says of the others how
 * near it comes. */
static void test_columns(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    lora_packer_t *packer = pack_case_packer(ctx);
    int64_t ours = 0, optima = 0;
    int windows = 0, open = 0;
    static pack_case_t c;

    (void)state;
    for (uint64_t seed = 1000; seed < 1100; seed++) {
        lora_bounds_t bounds;
        lora_exact_result_t exact;

        pack_case_begin(&c, seed, 4, 2, 4, 16384, 8192);
        c.window.rank_columns = 32;
        if (c.window.num_documents < 10 || c.window.num_documents > 14) continue;
        assert_int_equal(lora_packer_run(packer, &c.window, &c.schedule), BASE_OK);
        assert_int_equal(lora_bound_window(ctx, &c.window, &bounds), BASE_OK);
        windows++;
        if (c.schedule.num_microbatches == bounds.best) continue;
        open++;
        ours += c.schedule.num_microbatches;
        assert_int_equal(lora_pack_exact(ctx, &c.window, &limits, &c.schedule, &exact), BASE_OK);
        assert_int_equal(lora_schedule_judge(ctx, &c.window, &c.schedule, NULL), BASE_OK);
        assert_true(exact.proven && exact.bound == c.schedule.num_microbatches);
        optima += exact.bound;
    }
    /* Of 27 windows 4 are open, and the packer has the optimum of them. */
    assert_true(windows > 20 && open > 0 && 5 * open <= windows);
    assert_true(ours <= optima + 1);
    lora_packer_destroy(packer);
    fixture_ctx_end(ctx);
}

/* Martello and Toth's bound on sets whose optimum is known. */
static void test_bounds(void **state)
{
    static const int64_t over_half[] = {60, 60, 55, 55, 51};
    static const int64_t beside[] = {70, 70, 40, 40, 40}; /* 40 does not fit beside 70 */
    static const int64_t thirds[] = {34, 34, 34};         /* three do not fit */
    static const int64_t halves[] = {50, 50, 50, 50}, fourths[] = {26, 26, 26, 26, 26, 26, 26};
    static const int64_t long_ones[] = {150, 60, 40};

    (void)state;
    assert_int_equal(lora_bound_volume(over_half, 5, 100), 3);
    assert_int_equal(lora_bound_l2(over_half, 5, 100), 5);
    assert_int_equal(lora_bound_volume(beside, 5, 100), 3);
    assert_int_equal(lora_bound_l2(beside, 5, 100), 4);
    assert_int_equal(lora_bound_l2(thirds, 3, 100), 2);
    assert_int_equal(lora_bound_l2(long_ones, 3, 100), 2);
    assert_int_equal(lora_bound_l2(thirds, 0, 100), 0);
    assert_int_equal(lora_bound_dual(over_half, 5, 100), 5);
    assert_int_equal(lora_bound_dual(thirds, 3, 100), 2);
    assert_int_equal(lora_bound_dual(halves, 4, 100), 2);
    assert_int_equal(lora_bound_l2(fourths, 7, 100), 2);
    assert_int_equal(lora_bound_dual(fourths, 7, 100), 3);
    assert_int_equal(lora_bound_dual(long_ones, 3, 100), 2);
    assert_int_equal(lora_bound_dual(thirds, 0, 100), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_optimum),
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
