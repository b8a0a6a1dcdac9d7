/* The packer: room, columns, order and every document once (lora_schedule_judge), never below the
 * bounds, few adapters, supervised rows spread, the same bytes everywhere, nothing allocated. */
#include "lora/bound.h"
#include "tests/support/pack_case.h"

#define SEEDS 150

/* Every kind of window: padding, stages, columns, long documents. */
static void vary(pack_case_t *c, uint64_t seed)
{
    const int64_t capacity = 1024 << seed % 4;

    pack_case_begin(c, seed, 6, 7, 20, capacity, seed % 5 == 0 ? capacity + 100 : capacity);
    if (seed % 3 == 1 && c->window.alone_capacity == capacity) c->window.adapter_align = 128;
    c->window.stages = 1 + (int32_t)(seed % 7 == 2) * 3;
    if (seed % 4 == 3) c->window.rank_columns = 40;
}

static void run_and_judge(base_ctx_t *ctx, lora_packer_t *packer, pack_case_t *c,
                          lora_schedule_value_t *value)
{
    lora_bounds_t bounds;

    assert_int_equal(lora_packer_run(packer, &c->window, &c->schedule), BASE_OK);
    assert_int_equal(lora_schedule_judge(ctx, &c->window, &c->schedule, value), BASE_OK);
    assert_int_equal(lora_bound_window(ctx, &c->window, &bounds), BASE_OK);
    assert_true(value->microbatches >= bounds.best);
}

static void test_legal(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    lora_packer_t *packer = pack_case_packer(ctx);
    lora_schedule_value_t value;
    static pack_case_t c;

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        vary(&c, seed);
        run_and_judge(ctx, packer, &c, &value);
    }
    lora_packer_destroy(packer);
    fixture_ctx_end(ctx);
}

/* The judge sees each fault: it is what the other tests rest on. */
static void test_judge_rejects(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    static pack_case_t c;
    int64_t rows[4] = {600, 500, 300, 200};
    int32_t microbatch[4] = {0, 1, 2, 3};
    lora_schedule_t schedule = {4, microbatch};
    lora_window_batch_t batches[2] = {{0, 2, 0}, {2, 2, 0}};
    lora_window_adapter_t adapter = {.rank = 8, .total = 2, .num_batches = 2};

    (void)state;
    memset(&c, 0, sizeof c);
    lora_window_t w = {1024, 1024, 1, 0, 1, 1, 2, 4, &adapter, batches, rows, NULL};
    assert_int_equal(lora_schedule_judge(ctx, &w, &schedule, NULL), BASE_OK);
    microbatch[1] = 0; /* 1100 rows */
    assert_int_equal(lora_schedule_judge(ctx, &w, &schedule, NULL), BASE_ERR_INTERNAL);
    fixture_expect_error(ctx, BASE_ERR_INTERNAL, "INT-01", "rows 1100");
    microbatch[1] = 2; /* two batches in one */
    assert_int_equal(lora_schedule_judge(ctx, &w, &schedule, NULL), BASE_ERR_INTERNAL);
    fixture_expect_error(ctx, BASE_ERR_INTERNAL, "INT-01", "too early");
    microbatch[1] = 1;
    w.stages = 2; /* one microbatch between */
    assert_int_equal(lora_schedule_judge(ctx, &w, &schedule, NULL), BASE_ERR_INTERNAL);
    fixture_expect_error(ctx, BASE_ERR_INTERNAL, "INT-01", "too early");
    microbatch[2] = microbatch[3] = 3;
    assert_int_equal(lora_schedule_judge(ctx, &w, &schedule, NULL), BASE_OK);
    w.rank_columns = 4;
    assert_int_equal(lora_schedule_judge(ctx, &w, &schedule, NULL), BASE_ERR_INTERNAL);
    fixture_expect_error(ctx, BASE_ERR_INTERNAL, "INT-01", "columns 8");
    w.rank_columns = 0;
    microbatch[0] = 4;
    assert_int_equal(lora_schedule_judge(ctx, &w, &schedule, NULL), BASE_ERR_INTERNAL);
    fixture_expect_error(ctx, BASE_ERR_INTERNAL, "INT-01", "of so many 4");
    fixture_ctx_end(ctx);
}

static void test_never_fits(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    lora_packer_t *packer = pack_case_packer(ctx);
    static pack_case_t c;

    (void)state;
    pack_case_begin(&c, 1, 3, 3, 9, 1000, 900);
    c.rows[2] = 1001;
    assert_int_equal(lora_packer_run(packer, &c.window, &c.schedule), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "PLAN-01", "1001 rows, a microbatch holds 1000");
    c.rows[2] = 1;
    c.adapters[0].rank = 65;
    c.window.rank_columns = 64;
    assert_int_equal(lora_packer_run(packer, &c.window, &c.schedule), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "PLAN-01", "rank 65, a microbatch has 64 columns");
    c.window.num_documents--;
    assert_int_equal(lora_packer_run(packer, &c.window, &c.schedule), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "packer: documents");
    lora_packer_destroy(packer);
    fixture_ctx_end(ctx);
}

/* One schedule for all ranks, runs and compilers; nothing is allocated once it exists. */
static void test_same_bytes(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    lora_packer_t *packer = pack_case_packer(ctx);
    base_hash_t all = BASE_HASH_START;
    static pack_case_t c;
    const int64_t calls = base_memory_calls(base_ctx_memory(ctx));

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        vary(&c, seed);
        assert_int_equal(lora_packer_run(packer, &c.window, &c.schedule), BASE_OK);
        const base_hash_t hash = lora_schedule_hash(&c.window, &c.schedule);
        all = base_hash_u64(all, hash);
        memset(c.microbatch, 0x55, sizeof c.microbatch);
        assert_int_equal(lora_packer_run(packer, &c.window, &c.schedule), BASE_OK);
        assert_true(hash == lora_schedule_hash(&c.window, &c.schedule));
    }
    assert_int_equal(calls, base_memory_calls(base_ctx_memory(ctx)));
    if (all != UINT64_C(0xe9e3479c3cb12cb3)) fail_msg("hash is %016llx", (unsigned long long)all);
    lora_packer_destroy(packer);
    fixture_ctx_end(ctx);
}

/* What a training loop does: the next microbatch, again and again, until nothing is left; adapters
 * that have ended are gone, batches come one at a time. */
static void test_rolling(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    lora_packer_t *packer = pack_case_packer(ctx);
    static pack_case_t c;
    static int32_t all[PACK_CASE_DOCUMENTS];
    int32_t number = 0, left;

    (void)state;
    pack_case_begin(&c, 77, 5, 7, 20, 4096, 3000);
    for (int32_t d = 0; d < c.window.num_documents; d++)
        all[d] = -1;
    do {
        static pack_case_t now;
        int32_t from[PACK_CASE_DOCUMENTS];

        now.window = c.window;
        now.window.num_batches = now.window.num_documents = left = 0;
        for (int32_t a = 0; a < c.window.num_adapters; a++) {
            lora_window_adapter_t *adapter = &now.adapters[a];

            *adapter = c.adapters[a];
            adapter->not_before = adapter->not_before > number ? adapter->not_before - number : 0;
            adapter->first_batch = now.window.num_batches;
            adapter->num_batches = 0;
            for (int32_t j = 0; j < c.adapters[a].num_batches; j++) {
                const lora_window_batch_t *b = &c.batches[c.adapters[a].first_batch + j];
                const int32_t first = now.window.num_documents;

                for (int32_t i = 0; i < b->num_documents; i++) {
                    if (all[b->first_document + i] >= 0) continue;
                    from[now.window.num_documents] = b->first_document + i;
                    now.rows[now.window.num_documents++] = c.rows[b->first_document + i];
                }
                if (now.window.num_documents == first) {
                    adapter->done++;
                    continue;
                }
                now.batches[now.window.num_batches++] =
                    (lora_window_batch_t){first, now.window.num_documents - first,
                                          b->num_documents - (now.window.num_documents - first)};
                adapter->num_batches = 1;
                break;
            }
        }
        now.window.adapters = now.adapters;
        now.window.batches = now.batches;
        now.window.rows = now.rows;
        now.schedule.microbatch = now.microbatch;
        assert_int_equal(lora_packer_next(packer, &now.window, &now.schedule), BASE_OK);
        for (int32_t d = 0; d < now.window.num_documents; d++) {
            if (now.microbatch[d] == 0) all[from[d]] = number;
            left += now.microbatch[d] != 0;
        }
        assert_true(++number < 1000);
        for (int32_t d = 0; d < c.window.num_documents && left == 0; d++)
            left += all[d] < 0;
    } while (left > 0);
    const lora_schedule_t schedule = {number, all};
    assert_int_equal(lora_schedule_judge(ctx, &c.window, &schedule, NULL), BASE_OK);
    lora_packer_destroy(packer);
    fixture_ctx_end(ctx);
}

/* Documents of equal length and very unequal answers: exchanging them costs nothing. */
static void test_supervised_spread(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    lora_packer_t *packer = pack_case_packer(ctx);
    lora_schedule_value_t value;
    static pack_case_t c;

    (void)state;
    memset(&c, 0, sizeof c);
    c.window =
        (lora_window_t){400, 400, 1, 0, 1, 1, 1, 16, c.adapters, c.batches, c.rows, c.supervised};
    c.adapters[0] = (lora_window_adapter_t){.rank = 8, .total = 1, .num_batches = 1};
    c.batches[0] = (lora_window_batch_t){0, 16, 0};
    for (int d = 0; d < 16; d++) {
        c.rows[d] = 100;
        c.supervised[d] = d < 8 ? 90 : 10;
    }
    c.schedule.microbatch = c.microbatch;
    run_and_judge(ctx, packer, &c, &value);
    assert_int_equal(value.microbatches, 4);
    assert_int_equal(value.supervised_excess, 0);
    lora_packer_destroy(packer);
    fixture_ctx_end(ctx);
}

/* Every allocation of the packer can fail: nothing is left behind. */
static void test_no_memory(void **state)
{
    static const lora_packer_limits_t limits = {2, 4, 16};
    base_ctx_t *ctx = fixture_ctx();
    lora_packer_t *packer = NULL;
    int64_t n = 1;

    (void)state;
    for (;; n++) {
        base_memory_fail_at(base_ctx_memory(ctx), n);
        const base_status_t st = lora_packer_create(ctx, &limits, &packer);
        base_memory_fail_at(base_ctx_memory(ctx), 0);
        if (st == BASE_OK) break;
        assert_int_equal(st, BASE_ERR_NOMEM);
        base_ctx_clear_error(ctx);
        assert_int_equal(base_memory_live_total(base_ctx_memory(ctx)), 0);
    }
    assert_true(n > 20);
    lora_packer_destroy(packer);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_legal),      cmocka_unit_test(test_judge_rejects),
        cmocka_unit_test(test_never_fits), cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_rolling),    cmocka_unit_test(test_supervised_spread),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
