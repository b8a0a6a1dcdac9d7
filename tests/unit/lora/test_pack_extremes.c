/* The packer on windows that are as uneven as can be: documents of one row by the thousand, documents
 * that stand alone, just above a half or a third of a microbatch, adapters of very unlike lengths and
 * batches, ranks that leave no room beside them. */
#include "lora/bound.h"
#include "lora/packer.h"
#include "tests/support/ctx_fixture.h"

#define MAX_ADAPTERS  16
#define MAX_BATCHES   512
#define MAX_DOCUMENTS 16384
#define CAPACITY      8065
#define ALONE         8192

typedef struct window {
    lora_window_t w;
    lora_window_adapter_t adapters[MAX_ADAPTERS];
    lora_window_batch_t batches[MAX_BATCHES];
    int64_t rows[MAX_DOCUMENTS];
    int32_t microbatch[MAX_DOCUMENTS];
} window_t;

static void begin(window_t *x, int64_t rank_columns, int32_t stages)
{
    memset(x, 0, sizeof *x);
    x->w = (lora_window_t){.capacity = CAPACITY,
                           .alone_capacity = ALONE,
                           .adapter_align = 1,
                           .rank_columns = rank_columns,
                           .stages = stages,
                           .adapters = x->adapters,
                           .batches = x->batches,
                           .rows = x->rows};
}

/* Lengths from `low` to `high`, in an order that only looks random. */
static void add(window_t *x, int64_t rank, int32_t batches, int32_t documents, int64_t low,
                int64_t high)
{
    lora_window_t *w = &x->w;

    assert_true(w->num_adapters < MAX_ADAPTERS && w->num_batches + batches <= MAX_BATCHES &&
                w->num_documents + batches * documents <= MAX_DOCUMENTS);
    x->adapters[w->num_adapters++] = (lora_window_adapter_t){
        .rank = rank, .total = batches, .first_batch = w->num_batches, .num_batches = batches};
    for (int32_t b = 0; b < batches; b++) {
        x->batches[w->num_batches++] = (lora_window_batch_t){w->num_documents, documents, 0};
        for (int32_t d = 0; d < documents; d++, w->num_documents++)
            x->rows[w->num_documents] =
                low + (int64_t)((uint32_t)w->num_documents * 2654435761u >> 7) % (high - low + 1);
    }
}

/* A legal schedule of at most `per_mille` of the bound; its first microbatch alone is one too. */
static void check(window_t *x, const char *name, int64_t per_mille)
{
    base_ctx_t *ctx = fixture_ctx();
    const lora_packer_limits_t limits = {MAX_ADAPTERS, MAX_BATCHES, MAX_DOCUMENTS};
    lora_schedule_t schedule = {0, x->microbatch};
    lora_packer_t *packer = NULL;
    lora_schedule_value_t value;
    lora_bounds_t bounds;
    int64_t rows = 0;

    assert_int_equal(lora_packer_create(ctx, &limits, &packer), BASE_OK);
    assert_int_equal(lora_packer_run(packer, &x->w, &schedule), BASE_OK);
    assert_int_equal(lora_schedule_judge(ctx, &x->w, &schedule, &value), BASE_OK);
    assert_int_equal(lora_bound_window(ctx, &x->w, &bounds), BASE_OK);
    print_message("%s: %d microbatches, bound %lld\n", name, (int)schedule.num_microbatches,
                  (long long)bounds.best);
    assert_true(value.microbatches >= bounds.best);
    assert_true(value.microbatches * 1000 <= bounds.best * per_mille);
    assert_int_equal(lora_packer_next(packer, &x->w, &schedule), BASE_OK);
    for (int32_t d = 0; d < x->w.num_documents; d++)
        rows += x->microbatch[d] == 0 ? x->rows[d] : 0;
    assert_true(rows > 0 && rows <= ALONE);
    lora_packer_destroy(packer);
    fixture_ctx_end(ctx);
}

static void test_lengths(void **state)
{
    static window_t x;

    (void)state;
    begin(&x, 0, 1);
    for (int a = 0; a < 4; a++)
        add(&x, 8, 4, 1000, 1, 1);
    check(&x, "one row", 1000);
    static const int64_t shares[] = {CAPACITY,         CAPACITY / 2,     CAPACITY / 2 + 1,
                                     CAPACITY / 3 + 1, CAPACITY / 4 + 1, ALONE};
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        begin(&x, 0, 1);
        for (int a = 0; a < 4; a++)
            add(&x, 8, 25, 12, shares[i], shares[i]); /* 12 is a multiple of 1, 2, 3 */
        check(&x, "a share of the room", 1000);
    }
    begin(&x, 0, 4);
    for (int a = 0; a < 2; a++)
        add(&x, 8, 50, 8, 1, 2000);
    check(&x, "two adapters and four stages", 1010);
}

/* The chain of the small batches decides: none may be divided where it need not be. */
static void test_unlike_adapters(void **state)
{
    static window_t x;

    (void)state;
    begin(&x, 0, 1);
    add(&x, 8, 10, 4, ALONE, ALONE);
    add(&x, 8, 100, 64, 10, 10);
    add(&x, 8, 40, 8, 1, 3000);
    check(&x, "alone, tiny and middling", 1010);
    begin(&x, 0, 1);
    add(&x, 8, 400, 1, 1, 1);
    add(&x, 8, 20, 400, 1, 40);
    check(&x, "batches of one row beside batches of a microbatch", 1010);
}

static void test_scarce_columns(void **state)
{
    static window_t x;

    (void)state;
    begin(&x, 64, 1);
    for (int a = 0; a < MAX_ADAPTERS; a++)
        add(&x, 64, 10, 8, 1, 100 << a % 6);
    check(&x, "each adapter needs all columns", 1000);
    begin(&x, 64, 1);
    for (int a = 0; a < MAX_ADAPTERS; a++)
        add(&x, 33, 10, 8, 1, 100 << a % 6);
    check(&x, "each adapter needs more than half of them", 1000);
    begin(&x, 64, 1);
    for (int a = 0; a < MAX_ADAPTERS; a++)
        add(&x, a % 2 ? 60 : 4, 10, 8, 1, 100 << a % 6);
    check(&x, "ranks 60 and 4", 1060);
    begin(&x, 64, 1);
    for (int a = 0; a < MAX_ADAPTERS; a++)
        add(&x, 4 << a % 5, 10, 8, 1, 100 << a % 6);
    check(&x, "ranks 4 to 64", 1100);
}

/* What sums of padded adapters are not made for is refused, not met with an assertion. */
static void test_padded_and_too_large(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    static window_t x;

    (void)state;
    begin(&x, 0, 1);
    add(&x, 8, 2, 8, 1, 2000);
    x.w.adapter_align = 128;
    x.w.capacity = x.w.alone_capacity = 2 * LORA_WINDOW_PADDED_CAPACITY;
    assert_int_equal(lora_window_check(ctx, &x.w), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "padded adapters: capacity 32768");
    x.w.adapter_align = 2;
    x.w.capacity = x.w.alone_capacity = 2 * LORA_WINDOW_PADDED_UNITS + 2;
    assert_int_equal(lora_window_check(ctx, &x.w), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "padded adapters: capacity 1026");
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_unlike_adapters),
        cmocka_unit_test(test_scarce_columns),
        cmocka_unit_test(test_padded_and_too_large),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
