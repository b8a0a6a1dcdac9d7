#include "tests/unit/config/config_fixture.h"

#include "base/config/yaml_load.h"

typedef struct loaded {
    base_ctx_t *ctx;
    base_text_pool_t pool;
    base_error_list_t errors;
    base_yaml_node_t *root;
    base_status_t st;
} loaded_t;

static loaded_t load_bytes(const char *text, size_t bytes)
{
    loaded_t l = {.ctx = fixture_ctx()};

    base_text_pool_init(&l.pool, l.ctx);
    base_error_list_init(&l.errors, l.ctx);
    l.st = base_yaml_load(&l.pool, "run.yaml", 0, text, bytes, &l.errors, &l.root);
    return l;
}

static loaded_t load(const char *text)
{
    return load_bytes(text, strlen(text));
}

static void end(loaded_t *l)
{
    base_error_list_deinit(&l->errors);
    base_text_pool_deinit(&l->pool);
    fixture_ctx_end(l->ctx);
}

static void refused_bytes(const char *text, size_t bytes, const char *message)
{
    loaded_t l = load_bytes(text, bytes);

    assert_int_equal(l.st, BASE_ERR_CONFIG);
    assert_int_equal(l.errors.count, 1);
    assert_string_equal(base_message_id(l.errors.items[0].message), "CONF-02");
    assert_string_equal(l.errors.items[0].text, message);
    end(&l);
}

static void refused(const char *text, const char *message)
{
    refused_bytes(text, strlen(text), message);
}

static void keeps_places_and_quotes(void **state)
{
    loaded_t l = load("a: 1\nb:\n  - 'x'\n  - {c: 1e-4}\n");
    const base_yaml_node_t *b;

    (void)state;
    assert_int_equal(l.st, BASE_OK);
    assert_string_equal(base_yaml_get(l.root, "a")->text, "1");
    b = base_yaml_get(l.root, "b");
    assert_int_equal(b->kind, BASE_YAML_SEQUENCE);
    assert_int_equal(b->count, 2);
    assert_true(b->entries[0].value->quoted);
    assert_int_equal(b->entries[0].value->place.line, 3);
    assert_int_equal(b->entries[0].value->place.column, 5);
    assert_string_equal(base_yaml_get(b->entries[1].value, "c")->text, "1e-4");
    assert_int_equal(base_yaml_entry(b->entries[1].value, "c")->key->place.column, 6);
    assert_null(base_yaml_get(l.root, "z"));
    assert_null(base_yaml_get(b, "a"));
    assert_null(base_yaml_get(NULL, "a"));
    end(&l);
}

static void columns_count_characters(void **state)
{
    loaded_t l = load("{\"\xc3\xa4\xc3\xb6\": 1, b: 2}");

    (void)state;
    assert_int_equal(l.st, BASE_OK);
    assert_int_equal(base_yaml_entry(l.root, "b")->key->place.column, 11);
    end(&l);
}

static void an_empty_document_has_no_root(void **state)
{
    const char *const empty[] = {"", "# nothing\n", "---\n", "\xef\xbb\xbf"};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        loaded_t l = load(empty[i]);

        assert_int_equal(l.st, BASE_OK);
        assert_true(l.root == NULL || l.root->text[0] == '\0');
        end(&l);
    }
}

static void equal_keys_leave_the_first(void **state)
{
    loaded_t l = load("a: 1\nb: 2\na: 3\n");

    (void)state;
    assert_int_equal(l.st, BASE_OK);
    assert_int_equal(l.errors.count, 1);
    assert_string_equal(base_message_id(l.errors.items[0].message), "CONF-07");
    assert_string_equal(l.errors.items[0].text, "run.yaml:3:1: \"a\" stands already in line 1");
    assert_string_equal(base_yaml_get(l.root, "a")->text, "1");
    end(&l);
}

static void refuses_what_could_mislead(void **state)
{
    (void)state;
    refused("a:\n\tb: 1\n", "run.yaml:2:1: a tab in the indentation; use spaces");
    refused("a:\n  \tb: 1\n", "run.yaml:2:3: a tab in the indentation; use spaces");
    refused("a: &x 1\n",
            "run.yaml:1:4: anchors (&name) are not supported; use `defaults` or write it out");
    refused("a: *x\n", "run.yaml:1:4: aliases (*name) are not supported; write the value out");
    refused("*x : 1\n", "run.yaml:1:1: aliases (*name) are not supported; write the value out");
    refused("a: !!int 1\n",
            "run.yaml:1:4: tags (!name) are not supported; quote a text that begins with '!'");
    refused("a: 1\n---\nb: 2\n", "run.yaml:2:1: a second document (---); a configuration is one");
    refused("? [a, b]\n: 1\n", "run.yaml:1:3: a key must be a word");
    refused("a: \"x\\0y\"\n", "run.yaml:1:4: a zero byte in a text");
}

static void tabs_elsewhere_are_harmless(void **state)
{
    loaded_t l = load("a: 1\t# one\nb:\t2 \t\n");

    (void)state;
    assert_int_equal(l.st, BASE_OK);
    assert_string_equal(base_yaml_get(l.root, "b")->text, "2");
    end(&l);
}

static void refuses_text_that_is_not_utf8(void **state)
{
    (void)state;
    refused("a: \xff\n", "run.yaml:1:4: byte 0xff is not UTF-8 text");
    refused("a: 1\nb: x\xc3", "run.yaml:2:5: byte 0xc3 is not UTF-8 text");
    refused("a: \xc0\xaf", "run.yaml:1:4: byte 0xc0 is not UTF-8 text");
    refused("a: \xe0\x80\xaf", "run.yaml:1:4: byte 0xe0 is not UTF-8 text");
    refused("a: \xed\xa0\x80", "run.yaml:1:4: byte 0xed is not UTF-8 text");
    refused("a: \xf4\x90\x80\x80", "run.yaml:1:4: byte 0xf4 is not UTF-8 text");
    refused_bytes("a: \0", 4, "run.yaml:1:4: byte 0x00 is not UTF-8 text");
    refused_bytes("\xff\xfe"
                  "a\0",
                  4, "run.yaml:1:1: byte 0xff is not UTF-8 text");
}

static void refuses_absurd_sizes(void **state)
{
    const size_t bytes = BASE_YAML_MAX_BYTES + 1;
    char *text = malloc(bytes);
    size_t used = 0;

    (void)state;
    assert_non_null(text);
    memset(text, ' ', bytes);
    refused_bytes(text, bytes, "run.yaml: 4194305 bytes; a configuration has at most 4194304");
    memset(text, '[', 100);
    refused_bytes(text, 100, "run.yaml:1:18: nested too deep for a configuration");
    text[0] = '[';
    for (size_t i = 1; i + 1 < 250000; i += 2) {
        text[i] = '1';
        text[i + 1] = ',';
    }
    refused_bytes(text, 250000, "run.yaml:1:200000: too many entries for a configuration");
    for (int i = 0; i < 2000; i++)
        used += (size_t)snprintf(text + used, bytes - used, "k%d:\n", i);
    refused_bytes(text, used, "run.yaml:1025:1: too many keys in one place");
    free(text);
}

static void reports_what_the_parser_says(void **state)
{
    (void)state;
    refused("a: [1, 2\nb: 3\n", "run.yaml:2:2: did not find expected ',' or ']', while parsing a "
                                "flow sequence in line 1");
    refused("a: 1\n b: 2\n", "run.yaml:2:3: mapping values are not allowed in this context");
    refused("a: \"x\n", "run.yaml:2:1: found unexpected end of stream, while scanning a quoted "
                        "scalar in line 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_places_and_quotes),
        cmocka_unit_test(columns_count_characters),
        cmocka_unit_test(an_empty_document_has_no_root),
        cmocka_unit_test(equal_keys_leave_the_first),
        cmocka_unit_test(refuses_what_could_mislead),
        cmocka_unit_test(tabs_elsewhere_are_harmless),
        cmocka_unit_test(refuses_text_that_is_not_utf8),
        cmocka_unit_test(refuses_absurd_sizes),
        cmocka_unit_test(reports_what_the_parser_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
