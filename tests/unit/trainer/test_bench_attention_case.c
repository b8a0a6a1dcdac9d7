/* The sets of CA-tasks that `cadre bench attention` times, at full length. */
#include "tests/support/ctx_fixture.h"
#include "trainer/bench/bench_attention_case.h"

#include <string.h>

typedef struct totals {
    int64_t rows, longest_prefix, most_rows, fewest_rows;
    int32_t with_prefix, of_some_heads;
} totals_t;

static totals_t totals_of(const tr_attention_case_t *of, const tr_attention_set_t *set)
{
    totals_t t = {.fewest_rows = INT64_MAX};

    for (int32_t i = 0; i < set->num_tasks; i++) {
        const as_task_t *x = &set->tasks[i];
        const int64_t rows = x->q1 - x->q0;

        assert_true(rows > 0 && x->document >= 0 && x->document < set->num_documents);
        assert_true(x->h0 >= 0 && x->h0 < x->h1 && x->h1 <= of->shape.kv_heads);
        assert_int_equal(x->k0, as_task_first_key(x->q0, of->shape.window));
        t.rows += rows;
        if (x->q0 > t.longest_prefix) t.longest_prefix = x->q0;
        if (rows > t.most_rows) t.most_rows = rows;
        if (rows < t.fewest_rows) t.fewest_rows = rows;
        t.with_prefix += x->q0 > 0;
        t.of_some_heads += x->h1 - x->h0 < of->shape.kv_heads;
    }
    return t;
}

static const tr_attention_case_t *find(const char *name)
{
    const tr_attention_case_t *of = tr_attention_case_find(name);

    if (of == NULL) fail_msg("no case \"%s\"", name);
    return of;
}

static totals_t make(const char *name, int32_t *num_tasks)
{
    base_ctx_t *ctx = fixture_ctx();
    tr_attention_set_t set;

    assert_int_equal(tr_attention_set_make(ctx, find(name), 1, &set), BASE_OK);
    const totals_t t = totals_of(find(name), &set);
    *num_tasks = set.num_tasks;
    print_message("%s: %d tasks, %lld rows of %lld to %lld, prefixes to %lld, %d with one\n", name,
                  (int)set.num_tasks, (long long)t.rows, (long long)t.fewest_rows,
                  (long long)t.most_rows, (long long)t.longest_prefix, (int)t.with_prefix);
    tr_attention_set_free(ctx, &set);
    fixture_ctx_end(ctx);
    return t;
}

static void test_documents(void **state)
{
    int32_t count;
    const totals_t t = make(TR_ATTENTION_DENSE, &count);

    (void)state;
    assert_true(count == 2 && t.rows == 32768 && t.fewest_rows == 16384 && t.with_prefix == 0);
}

static void test_pack(void **state)
{
    int32_t count;
    const totals_t t = make("pack of 32k, 32:8", &count);

    (void)state;
    assert_true(count > 10 && t.rows == 32768 && t.most_rows <= 8192 && t.with_prefix == 0);
}

static void test_long_and_fillers(void **state)
{
    int32_t count;
    const totals_t t = make("64k and 16 of 1k, 32:8", &count);

    (void)state;
    assert_true(count == 17 && t.most_rows == 65536 && t.rows == 65536 + 16 * 1024);
}

static void test_shards(void **state)
{
    int32_t count;
    const totals_t t = make("24 shards, 32:8", &count);

    (void)state;
    assert_true(count == 24 && t.with_prefix == 24);
    assert_true(t.fewest_rows >= 128 && t.most_rows > 2048 && t.most_rows <= 4096);
    assert_true(t.longest_prefix > 32768 && t.longest_prefix <= 131072);
}

/* A server's share of the work is not its share of the rows: those with long prefixes count more. */
static void test_planned(void **state)
{
    int32_t count;
    const totals_t t = make("planned set, 32:8", &count);

    (void)state;
    assert_true(count >= 8 && t.with_prefix > 0 && t.longest_prefix >= 16384);
    assert_true(t.rows > 4096 && t.rows < 262144);
}

/* Pairs by formula against a loop over rows: heads, windows, prefixes. */
static void test_flops(void **state)
{
    as_task_t tasks[] = {{.h1 = 8, .q0 = 0, .q1 = 300},
                         {.document = 1, .h0 = 2, .h1 = 5, .q0 = 128, .q1 = 700}};
    const tr_attention_set_t set = {2, 2, tasks};
    const int64_t windows[] = {0, 200};

    (void)state;
    for (int w = 0; w < 2; w++) {
        const tr_attention_shape_t shape = {8, 4, 64, windows[w]};
        int64_t pairs = 0;

        for (int t = 0; t < 2; t++)
            for (int64_t row = tasks[t].q0; row < tasks[t].q1; row++)
                pairs += (windows[w] != 0 && row + 1 > windows[w] ? windows[w] : row + 1) *
                         (tasks[t].h1 - tasks[t].h0);
        assert_true(tr_attention_set_flops(&shape, &set) == 4.0 * (double)pairs * 4 * 64);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents),        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_long_and_fillers), cmocka_unit_test(test_shards),
        cmocka_unit_test(test_planned),          cmocka_unit_test(test_flops),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
