/* What the planner is for, on layouts drawn as `cadre bench plan` draws them: near the bound,
 * fewer bytes than DistCA's planner, and each term of the objective worth something. A few rows of
 * that table with fewer draws; limits are those of the table's goals, and for terms left out half
 * of what was seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/ctx_fixture.h"
#include "trainer/bench/bench_plan_case.h"
#include "trainer/simulate/derived_profile.h"

#define DRAWS 10

static tr_plan_setting_t setting_of(tr_lengths_t lengths, int scaled, int32_t servers,
                                    int32_t kv_heads, const as_profile_t *profile)
{
    return (tr_plan_setting_t){.lengths = lengths,
                               .scaled = scaled,
                               .max_rows = 131072,
                               .rows_each = 65536,
                               .num_servers = servers,
                               .ranks_per_host = 1,
                               .num_kv_heads = kv_heads,
                               .group = 4,
                               .head_dim = 128,
                               .profile = profile,
                               .draws = DRAWS,
                               .seed = 1};
}

static void run(const tr_plan_setting_t *s, const tr_plan_arm_t *arms, int32_t count,
                tr_plan_row_t *rows)
{
    base_ctx_t *ctx = fixture_ctx();

    assert_int_equal(tr_plan_case_run(ctx, s, arms, count, rows), BASE_OK);
    fixture_ctx_end(ctx);
}

/* ==== near the bound, and fewer bytes ==== */

static void check_against_distca(tr_lengths_t lengths, int scaled, int32_t servers,
                                 int32_t kv_heads, double share)
{
    static const tr_plan_arm_t arms[] = {
        {"cadre", TR_ARM_CADRE, 1, 1, 1, 0, 2, 0, 0},
        {"by layout", TR_ARM_CADRE, 1, 1, 0, 0, 2, 0, 0},
        {"published", TR_ARM_DISTCA_PUBLISHED, 0, 0, 0, 0, 0, 50, 1},
        {"shipped", TR_ARM_DISTCA_SHIPPED, 0, 0, 0, 0, 0, 50, 1},
    };
    as_profile_t profile;
    tr_plan_row_t rows[4];

    tr_derived_h200(4, &profile);
    const tr_plan_setting_t s = setting_of(lengths, scaled, servers, kv_heads, &profile);
    run(&s, arms, 4, rows);
    for (int i = 0; i < 2; i++) {
        assert_true(rows[i].ratio_median <= 10100);
        assert_true(rows[i].ratio_worst <= 10200);
        assert_true((double)rows[i].link_median <= share * (double)rows[2].link_median);
        assert_true((double)rows[i].link_median <= share * (double)rows[3].link_median);
        assert_true(rows[i].ratio_worst <= rows[2].ratio_worst);
        assert_true(rows[i].ratio_worst <= rows[3].ratio_worst);
    }
}

static void goals_where_heads_can_be_cut(void **state)
{
    (void)state;
    check_against_distca(TR_LENGTHS_PRETRAIN, 0, 8, 8, 0.5);
    check_against_distca(TR_LENGTHS_PRETRAIN, 1, 32, 8, 0.5);
    check_against_distca(TR_LENGTHS_PROLONG, 0, 16, 8, 0.5);
}

static void goals_where_they_cannot(void **state)
{
    (void)state;
    check_against_distca(TR_LENGTHS_PRETRAIN, 0, 8, 1, 0.8);
    check_against_distca(TR_LENGTHS_PRETRAIN, 1, 32, 1, 0.8);
    check_against_distca(TR_LENGTHS_PROLONG, 0, 16, 1, 0.8);
}

/* ==== every term is worth something ==== */

static void terms_are_missed(void **state)
{
    enum { ALL, LINKS, GRID, RESIDENCY, TIME, RETAINED, NUM };
    static const tr_plan_arm_t arms[NUM] = {
        {"all", TR_ARM_CADRE, 1, 1, 1, 0, 2, 0, 0},
        {"links", TR_ARM_CADRE, 1, 1, 1, AS_WITHOUT_LINKS, 2, 0, 0},
        {"grid", TR_ARM_CADRE, 1, 1, 1, AS_WITHOUT_GRID, 2, 0, 0},
        {"residency", TR_ARM_CADRE, 1, 1, 1, AS_WITHOUT_RESIDENCY, 2, 0, 0},
        {"time", TR_ARM_PAIRS, 1, 1, 1, 0, 2, 0, 0},
        {"retained", TR_ARM_CADRE, 1, 0, 1, 0, 2, 0, 0},
    };
    as_profile_t profile;
    tr_plan_row_t rows[NUM];

    (void)state;
    tr_derived_h200(4, &profile);
    profile.row_grain = 128; /* a kernel of whole tiles */
    const tr_plan_setting_t s = setting_of(TR_LENGTHS_PROLONG, 0, 32, 1, &profile);
    run(&s, arms, NUM, rows);
    assert_true(rows[LINKS].link_median * 100 >= rows[ALL].link_median * 115);
    assert_true(rows[GRID].ratio_worst >= rows[ALL].ratio_worst + 200);
    assert_true(rows[RESIDENCY].link_median * 10 >= rows[ALL].link_median * 18);
    assert_true(rows[TIME].ratio_median >= rows[ALL].ratio_median + 50);
    assert_true(rows[RETAINED].link_median * 10 >= rows[ALL].link_median * 14);
}

/* The choice between halves that make up for each other and halves that do not. */
static void the_other_half_is_missed(void **state)
{
    static const tr_plan_arm_t arms[] = {
        {"with", TR_ARM_CADRE, 1, 1, 1, 0, 2, 0, 0},
        {"without", TR_ARM_CADRE, 1, 1, 1, AS_WITHOUT_BOTH_HALVES, 2, 0, 0}};
    as_profile_t profile;
    tr_plan_row_t rows[2];

    (void)state;
    tr_derived_h200(4, &profile);
    const tr_plan_setting_t s = setting_of(TR_LENGTHS_PRETRAIN, 0, 64, 1, &profile);
    run(&s, arms, 2, rows);
    assert_true(rows[1].link_median * 100 >= rows[0].link_median * 135);
    assert_true(rows[1].pass_median * 100 >= rows[0].pass_median * 115);
}

static void head_cuts_are_missed(void **state)
{
    static const tr_plan_arm_t arms[] = {{"with", TR_ARM_CADRE, 1, 1, 1, 0, 2, 0, 0},
                                         {"without", TR_ARM_CADRE, 0, 1, 1, 0, 2, 0, 0}};
    as_profile_t profile;
    tr_plan_row_t rows[2];

    (void)state;
    tr_derived_h200(4, &profile);
    const tr_plan_setting_t s = setting_of(TR_LENGTHS_PRETRAIN, 0, 16, 8, &profile);
    run(&s, arms, 2, rows);
    assert_true(rows[1].link_median * 10 >= rows[0].link_median * 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goals_where_heads_can_be_cut),
        cmocka_unit_test(goals_where_they_cannot),
        cmocka_unit_test(terms_are_missed),
        cmocka_unit_test(the_other_half_is_missed),
        cmocka_unit_test(head_cuts_are_missed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
