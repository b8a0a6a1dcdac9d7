#include "tests/unit/config/config_fixture.h"

/* Printing and loading again gives the same text, so the same configuration. */
static void round_trip(const char *text, const char *set)
{
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *first = config_of(ctx, text, set);
    char *printed = config_printed(first);
    base_config_t *second = config_of(ctx, printed, NULL);
    char *again = config_printed(second);

    assert_string_equal(printed, again);
    assert_true(base_print_hash(first) == base_print_hash(second));
    free(printed);
    free(again);
    base_config_destroy(first);
    base_config_destroy(second);
    fixture_ctx_end(ctx);
}

static void what_is_printed_loads_back(void **state)
{
    (void)state;
    round_trip(CONFIG_SHORT, NULL);
    round_trip(base_print_example(), NULL);
    round_trip(CONFIG_SHORT, "attention={placement: pool, servers_per_host: 3}");
    round_trip(CONFIG_SHORT, "attention={server_speeds: [1, 0.1, 3.3333333333333335]}");
    round_trip(CONFIG_SHORT, "train={checkpoint_every_microbatches: 3, deterministic: true}");
    round_trip(CONFIG_SHORT, "defaults={betas: [0.1, 0.3], eps: 1.2345678901234567e-9, "
                             "warmup_steps: 0, rslora: true, targets: [down_proj]}");
    round_trip(CONFIG_HEAD "data: d.h5\n"
                           "train: {mode: full}\n"
                           "defaults: {steps: 5, learning_rate: 1e-5, eval: e.h5}\n",
               NULL);
}

static void odd_texts_survive(void **state)
{
    const char *const texts[] = {"a b",        "x: y",      "# x",       "- x",
                                 "'",          "\\\"",      "\\\\",      "\\t\\n\\r",
                                 "\\x7f\\x01", "null",      "~",         "true",
                                 "1",          " lead",     "trail ",    "\xc3\xa4/\xc3\xb6",
                                 "[x]",        "\\N\\L\\P", "\\uFEFF-x", "\\U0001F600",
                                 "%x",         "@x",        "*x",        "&x"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char text[256];

        (void)snprintf(text, sizeof text, "%smodel: \"%s\"\noutput: \"%s\"\n", CONFIG_ADAPTER,
                       texts[i], texts[i]);
        round_trip(text, NULL);
    }
}

static void every_key_is_printed_once_set(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *config = config_of(ctx, CONFIG_SHORT, NULL);
    char *printed = config_printed(config);

    (void)state;
    assert_string_equal(printed, "model: m\n"
                                 "output: o\n"
                                 "attention:\n"
                                 "  placement: in_place\n"
                                 "  retain_mib: 256\n"
                                 "batch:\n"
                                 "  tokens_per_trainer: 8192\n"
                                 "  max_rank_columns: 16\n"
                                 "  packer: fast\n"
                                 "train:\n"
                                 "  mode: lora\n"
                                 "  seed: 0\n"
                                 "  dtype: auto\n"
                                 "  device: auto\n"
                                 "  transport: auto\n"
                                 "  recompute: auto\n"
                                 "  deterministic: false\n"
                                 "  checkpoint_every_minutes: 20\n"
                                 "  keep_checkpoints: 2\n"
                                 "adapters:\n"
                                 "  - name: code\n"
                                 "    data: d.jsonl\n"
                                 "    eval_every_steps: 50\n"
                                 "    rank: 16\n"
                                 "    alpha: 32\n"
                                 "    dropout: 0\n"
                                 "    targets: all-linear\n"
                                 "    rslora: false\n"
                                 "    init: kaiming\n"
                                 "    epochs: 1\n"
                                 "    global_batch_documents: 16\n"
                                 "    learning_rate: 0.0001\n"
                                 "    schedule: cosine\n"
                                 "    weight_decay: 0\n"
                                 "    betas: [0.9, 0.999]\n"
                                 "    eps: 1e-08\n"
                                 "    clip_norm: 1\n"
                                 "    seed: 0\n"
                                 "    order: shuffle\n");
    free(printed);
    base_config_destroy(config);
    fixture_ctx_end(ctx);
}

static void the_hash_tells_configurations_apart(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *a = config_of(ctx, CONFIG_SHORT, NULL);
    base_config_t *b = config_of(ctx, CONFIG_SHORT, "adapters.code.rank=17");
    base_config_t *c = config_of(ctx, CONFIG_SHORT, "adapters.code.rank=16");

    (void)state;
    assert_true(base_print_hash(a) != base_print_hash(b));
    assert_true(base_print_hash(a) == base_print_hash(c));
    base_config_destroy(a);
    base_config_destroy(b);
    base_config_destroy(c);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_printed_loads_back),
        cmocka_unit_test(odd_texts_survive),
        cmocka_unit_test(every_key_is_printed_once_set),
        cmocka_unit_test(the_hash_tells_configurations_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
