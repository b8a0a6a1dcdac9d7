#include "tests/support/ctx_fixture.h"

#include "base/file.h"
#include "data/json_read.h"

#include <unistd.h>

static data_json_t *parse(base_ctx_t *ctx, base_error_list_t *errors, const char *text)
{
    data_json_t *json = NULL;

    if (data_json_parse(ctx, "x.json", text, strlen(text), errors, &json) != BASE_OK)
        assert_null(json);
    return json;
}

static void expect_syntax(const char *text, const char *place)
{
    base_ctx_t *ctx = fixture_ctx();
    base_error_list_t errors;

    base_error_list_init(&errors, ctx);
    assert_null(parse(ctx, &errors, text));
    assert_int_equal(data_errors_finish(&errors), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-02", place);
    base_error_list_deinit(&errors);
    fixture_ctx_end(ctx);
}

static void syntax_errors_have_line_and_column(void **state)
{
    (void)state;
    expect_syntax("{\"a\": 1,\n  \"b\": }", "x.json:2:8: ");
    expect_syntax("{\"a\": 1, \"a\": 2}", "x.json:1:12: duplicate object key near '\"a\"'");
    expect_syntax("{\"a\": {\"b\": 1,\n\"b\": 2}}", "x.json:2:3: duplicate");
    expect_syntax("", "x.json:1:0: ");
    expect_syntax("[1]", "x.json: is an array");
    expect_syntax("{} x", "x.json:1:4: ");
    expect_syntax("{\"a\": 99999999999999999999}", "x.json:1:26: too big integer");
    expect_syntax("version https://git-lfs.github.com/spec/v1\n", "x.json:1:");
}

static void getters_report_everything_in_one_pass(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_error_list_t errors;
    data_json_t *json;
    data_json_object_t root, child;
    int64_t i = 0, n = 0;
    double d = 0.0;
    bool b = false;
    const char *s = NULL;

    (void)state;
    base_error_list_init(&errors, ctx);
    json = parse(ctx, &errors,
                 "{\"i\": 3, \"d\": 2.5, \"b\": true, \"s\": \"x\", \"n\": null,"
                 " \"o\": {\"k\": \"y\"}, \"a\": [1, \"z\"]}");
    root = data_json_root(json);
    assert_true(data_json_int(&root, "i", 0, 3, &i));
    assert_true(data_json_number(&root, "i", 0, 3, &d));
    assert_true(data_json_number(&root, "d", 0, 3, &d));
    assert_true(data_json_bool(&root, "b", &b));
    assert_true(data_json_text(&root, "s", &s));
    assert_true(data_json_child(&root, "o", &child));
    assert_true(data_json_array(&root, "a", &n));
    assert_true(data_json_array_int(&root, "a", 0, 1, 1, &i));
    assert_true(data_json_array_text(&root, "a", 1, &s));
    assert_string_equal(s, "z");
    assert_true(n == 2 && d == 2.5 && b && i == 1);
    assert_int_equal(data_json_num_keys(&root), 7);
    assert_int_equal(errors.count, 0);

    assert_false(data_json_has(&root, "n"));
    assert_false(data_json_int(&root, "n", 0, 3, &i));
    assert_false(data_json_int(&root, "d", 0, 3, &i));
    assert_false(data_json_int(&root, "i", 4, 5, &i));
    assert_false(data_json_number(&root, "s", 0, 3, &d));
    assert_false(data_json_number(&root, "d", 3, 4, &d));
    assert_false(data_json_bool(&root, "i", &b));
    assert_false(data_json_text(&root, "b", &s));
    assert_false(data_json_child(&root, "a", &child));
    assert_false(data_json_int(&child, "k", 0, 3, &i));
    assert_false(data_json_array(&root, "o", &n));
    assert_false(data_json_array_int(&root, "a", 1, 0, 3, &i));
    assert_false(data_json_array_text(&root, "a", 0, &s));
    assert_int_equal(errors.count, 12);
    assert_string_equal(base_message_id(errors.items[1].message), "DATA-04");
    assert_string_equal(errors.items[0].text, "x.json: \"n\": is missing");
    assert_string_equal(errors.items[1].text, "x.json: \"d\": is a number, an integer is wanted");
    assert_string_equal(errors.items[2].text, "x.json: \"i\": is 3, 4 to 5 is allowed");
    assert_string_equal(errors.items[8].text, "x.json: \"o.k\": is a string, an integer is wanted");
    assert_string_equal(errors.items[10].text,
                        "x.json: \"a[1]\": is a string, an integer is wanted");
    assert_true(i == 1 && d == 2.5 && b && n == 2); /* outputs only on success */
    assert_int_equal(data_errors_finish(&errors), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-03", "\"n\": is missing");
    data_json_close(json);
    base_error_list_deinit(&errors);
    fixture_ctx_end(ctx);
}

static void files_are_limited(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_error_list_t errors;
    data_json_t *json = NULL;

    (void)state;
    base_error_list_init(&errors, ctx);
    assert_int_equal(base_file_write(ctx, "json_read.json", "{\"a\": 1}", 8), BASE_OK);
    assert_int_equal(data_json_read(ctx, "json_read.json", 8, &errors, &json), BASE_OK);
    data_json_close(json);
    assert_int_equal(data_json_read(ctx, "json_read.json", 7, &errors, &json), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "IO-03", "json_read.json");
    assert_int_equal(data_json_read(ctx, "none.json", 7, &errors, &json), BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-01", "none.json");
    assert_int_equal(data_errors_finish(&errors), BASE_OK);
    base_memory_fail_at(base_ctx_memory(ctx), 1);
    assert_int_equal(data_json_parse(ctx, "x", "{}", 2, &errors, &json), BASE_ERR_NOMEM);
    base_ctx_clear_error(ctx);
    assert_int_equal(unlink("json_read.json"), 0);
    base_error_list_deinit(&errors);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(syntax_errors_have_line_and_column),
        cmocka_unit_test(getters_report_everything_in_one_pass),
        cmocka_unit_test(files_are_limited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
