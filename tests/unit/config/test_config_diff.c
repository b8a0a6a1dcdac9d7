#include "tests/unit/config/config_fixture.h"

#include "base/config/diff.h"

#define TWO                                                                                        \
    CONFIG_SHORT "  - name: legal\n"                                                               \
                 "    data: l.jsonl\n"                                                             \
                 "    steps: 9\n"                                                                  \
                 "    learning_rate: 2e-4\n"                                                       \
                 "    schedule: constant\n"

/* One difference a line: "path: before -> now, refused". The caller frees it. */
static char *diff_of(base_ctx_t *ctx, const char *text, const char *set, const char *other,
                     const char *other_set)
{
    base_config_t *before = config_of(ctx, text, set);
    base_config_t *now = config_of(ctx, other, other_set);
    size_t refused = 0, bytes;
    base_diff_t diff;
    char *lines = NULL;
    FILE *out = open_memstream(&lines, &bytes);

    assert_non_null(out);
    base_diff_init(&diff, ctx);
    assert_int_equal(base_diff_configs(&diff, before, now), BASE_OK);
    for (size_t i = 0; i < diff.count; i++) {
        const base_diff_item_t *item = &diff.items[i];

        (void)fprintf(out, "%s: %s -> %s, %s\n", item->path, item->before, item->now,
                      item->refused ? "refused" : "taken");
        refused += item->refused;
        assert_true((item->why[0] != '\0') == item->refused);
    }
    assert_int_equal(refused, diff.num_refused);
    base_diff_deinit(&diff);
    base_config_destroy(before);
    base_config_destroy(now);
    assert_int_equal(fclose(out), 0);
    return lines;
}

static void expect(const char *set, const char *other_set, const char *lines)
{
    base_ctx_t *ctx = fixture_ctx();
    char *found = diff_of(ctx, TWO, set, TWO, other_set);

    assert_string_equal(found, lines);
    free(found);
    fixture_ctx_end(ctx);
}

static void what_changes_learning_is_refused(void **state)
{
    (void)state;
    expect(NULL, NULL, "");
    expect(NULL, "adapters.code.alpha=33", "adapters.code.alpha: 32 -> 33, refused\n");
    expect(NULL, "adapters.code.targets=[q_proj]",
           "adapters.code.targets: all-linear -> [q_proj], refused\n");
    expect(NULL, "adapters.code.eval_documents=3",
           "adapters.code.eval_documents: none -> 3, refused\n");
    expect(NULL, "train.seed=3",
           "train.seed: 0 -> 3, refused\nadapters.code.seed: 0 -> 3, refused\n"
           "adapters.legal.seed: 0 -> 3, refused\n");
}

static void what_does_not_is_taken(void **state)
{
    (void)state;
    expect(NULL, "attention.placement=local", "attention.placement: in_place -> local, taken\n");
    expect(NULL, "batch.tokens_per_trainer=512", "batch.tokens_per_trainer: 8192 -> 512, taken\n");
    expect(NULL, "model=moved/m", "model: m -> moved/m, taken\n");
    expect(NULL, "output=p", "output: o -> p, taken\n");
}

static void only_a_constant_schedule_may_grow(void **state)
{
    (void)state;
    expect(NULL, "adapters.code.epochs=2", "adapters.code.epochs: 1 -> 2, refused\n");
    expect(NULL, "adapters.legal.steps=10", "adapters.legal.steps: 9 -> 10, taken\n");
    expect(NULL, "adapters.legal.steps=8", "adapters.legal.steps: 9 -> 8, refused\n");
    expect(NULL, "adapters.legal.epochs=8",
           "adapters.legal.epochs: none -> 8, refused\nadapters.legal.steps: 9 -> none, refused\n");
}

static void adapters_are_matched_by_name(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    char *found = diff_of(ctx, TWO, NULL, CONFIG_SHORT, "batch.max_rank_columns=32");

    (void)state;
    assert_string_equal(found, "adapters.legal: present -> none, refused\n");
    free(found);
    found = diff_of(ctx, CONFIG_SHORT, "batch.max_rank_columns=32", TWO, NULL);
    assert_string_equal(found, "adapters.legal: none -> present, refused\n");
    free(found);
    found = diff_of(ctx, TWO, NULL,
                    CONFIG_HEAD "adapters:\n"
                                "  - {name: legal, data: l.jsonl, steps: 9, learning_rate: 2e-4, "
                                "schedule: constant}\n"
                                "  - {name: code, data: d.jsonl, epochs: 1, learning_rate: 1e-4}\n",
                    NULL);
    assert_string_equal(found, "order of adapters: code -> legal, refused\n");
    free(found);
    fixture_ctx_end(ctx);
}

static void modes_are_compared(void **state)
{
    static const char FULL[] = CONFIG_HEAD "data: d.h5\n"
                                           "train: {mode: full}\n"
                                           "defaults: {steps: 5, learning_rate: 1e-5}\n";
    base_ctx_t *ctx = fixture_ctx();
    char *found = diff_of(ctx, FULL, NULL, FULL, "defaults.clip_norm=2");

    (void)state;
    assert_string_equal(found, "defaults.clip_norm: 1 -> 2, refused\n");
    free(found);
    found = diff_of(ctx, FULL, NULL, CONFIG_SHORT, NULL);
    assert_string_equal(found, "data: d.h5 -> none, taken\n"
                               "batch.max_rank_columns: none -> 16, taken\n"
                               "train.mode: full -> lora, refused\n");
    free(found);
    fixture_ctx_end(ctx);
}

static void survives_failing_memory(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *before = config_of(ctx, TWO, NULL);
    base_config_t *now = config_of(ctx, TWO, "train={seed: 5, device: cpu}");
    base_status_t st = BASE_ERR_NOMEM;

    (void)state;
    for (int64_t n = 1; st == BASE_ERR_NOMEM; n++) {
        base_diff_t diff;

        base_memory_fail_at(base_ctx_memory(ctx), n);
        base_diff_init(&diff, ctx);
        st = base_diff_configs(&diff, before, now);
        base_diff_deinit(&diff);
        base_memory_fail_at(base_ctx_memory(ctx), 0);
        assert_true(n < 100);
    }
    assert_int_equal(st, BASE_OK);
    base_ctx_clear_error(ctx);
    base_config_destroy(before);
    base_config_destroy(now);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_changes_learning_is_refused),
        cmocka_unit_test(what_does_not_is_taken),
        cmocka_unit_test(only_a_constant_schedule_may_grow),
        cmocka_unit_test(adapters_are_matched_by_name),
        cmocka_unit_test(modes_are_compared),
        cmocka_unit_test(survives_failing_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
