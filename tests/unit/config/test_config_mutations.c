/* Random edits of a good configuration: whatever comes out is either loaded, and then prints and
 * loads back, or refused with an error of this folder. The seed is fixed; CADRE_FUZZ_ROUNDS makes
 * it longer. */
#include "tests/unit/config/config_fixture.h"

#define MAX_TEXT 4096

typedef struct text {
    char bytes[MAX_TEXT];
    size_t count;
} text_t;

/* xorshift64: the sequence is part of the test. */
static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t below(uint64_t *state, size_t bound)
{
    return (size_t)(next(state) % bound);
}

static void insert(text_t *text, size_t at, const char *piece, size_t count)
{
    if (text->count + count > MAX_TEXT) return;
    memmove(text->bytes + at + count, text->bytes + at, text->count - at);
    memcpy(text->bytes + at, piece, count);
    text->count += count;
}

static void mutate(text_t *text, uint64_t *state)
{
    static const char *const PIECES[] = {
        "\n",   ": ",    "- ",       "  ",   "{",   "}",     "[",  "]",    "\"",    "'",
        "#",    "&a ",   "*a",       "!t ",  "|\n", "---\n", "\t", "null", "1e999", "-1",
        "rank", "steps", "\xc3\xa4", "\xff", "? ",  "0x1p3", "~",  "full"};
    const size_t at = text->count == 0 ? 0 : below(state, text->count);
    const char *piece = PIECES[below(state, sizeof PIECES / sizeof PIECES[0])];
    const char byte = (char)next(state);
    char copied[64];
    size_t count = below(state, sizeof copied);

    if (count > text->count - at) count = text->count - at;
    memcpy(copied, text->bytes + at, count);
    switch (below(state, 5)) {
    case 0:
        insert(text, at, piece, strlen(piece));
        break;
    case 1:
        if (at < text->count) text->bytes[at] = byte;
        break;
    case 2:
        memmove(text->bytes + at, text->bytes + at + count, text->count - at - count);
        text->count -= count;
        break;
    case 3:
        insert(text, text->count == 0 ? 0 : below(state, text->count), copied, count);
        break;
    default:
        insert(text, at, &byte, 1);
        break;
    }
}

static void check_loaded(base_ctx_t *ctx, const base_config_t *config)
{
    char *printed = config_printed(config);
    base_config_t *again = config_of(ctx, printed, NULL);

    assert_true(base_print_hash(config) == base_print_hash(again));
    base_config_destroy(again);
    free(printed);
}

/* Returns whether the text was a configuration. */
static int check_text(const text_t *text, const char *set)
{
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *config = NULL;
    base_error_t error;
    /* Exactly as long as the text, so that a sanitizer sees a read behind it. */
    char *exact = malloc(text->count + 1);
    const base_status_t st =
        (assert_non_null(exact), memcpy(exact, text->bytes, text->count),
         base_config_load_text(ctx, "run.yaml", exact, text->count, &set, 1, NULL, &config));

    if (st == BASE_OK) {
        check_loaded(ctx, config);
    } else {
        assert_int_equal(st, BASE_ERR_CONFIG);
        assert_null(config);
        assert_true(base_ctx_error(ctx, &error));
        assert_true(strncmp(base_message_id(error.message), "CONF-", 5) == 0 ||
                    strcmp(base_message_id(error.message), "CLI-02") == 0);
        base_ctx_clear_error(ctx);
    }
    base_config_destroy(config);
    free(exact);
    fixture_ctx_end(ctx);
    return st == BASE_OK;
}

static void edited_files(void **state)
{
    const char *asked = getenv("CADRE_FUZZ_ROUNDS");
    const long rounds = asked == NULL ? 4000 : strtol(asked, NULL, 10);
    uint64_t seed = 0x9e3779b97f4a7c15u;
    long loaded = 0;

    (void)state;
    for (long round = 0; round < rounds; round++) {
        text_t text = {.count = strlen(base_print_example())};
        const size_t edits = 1 + below(&seed, 4);

        memcpy(text.bytes, base_print_example(), text.count);
        for (size_t i = 0; i < edits; i++)
            mutate(&text, &seed);
        loaded += check_text(&text, "train.seed=1");
    }
    /* Edits that hit a comment or a digit leave a configuration; without any the test is blind. */
    assert_true(loaded > rounds / 50);
    assert_true(loaded < rounds);
}

static void edited_sets(void **state)
{
    static const char SET[] = "adapters.code.targets=[q_proj, v_proj]";
    uint64_t seed = 88172645463325252u;
    text_t file = {.count = strlen(base_print_example())};

    (void)state;
    memcpy(file.bytes, base_print_example(), file.count);
    for (int round = 0; round < 1000; round++) {
        text_t set = {.count = strlen(SET)};

        memcpy(set.bytes, SET, set.count);
        mutate(&set, &seed);
        mutate(&set, &seed);
        set.bytes[set.count] = '\0';
        (void)check_text(&file, set.bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edited_files),
        cmocka_unit_test(edited_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
