#include "tests/support/ctx_fixture.h"

#include "base/json_write.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define ROOM 512

typedef struct sheet {
    base_ctx_t *ctx;
    base_json_t j;
    char text[ROOM];
} sheet_t;

static int setup(void **state)
{
    sheet_t *s = calloc(1, sizeof *s);

    assert_non_null(s);
    s->ctx = fixture_ctx();
    base_json_to_buffer(&s->j, s->text, ROOM);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    sheet_t *s = *state;

    fixture_ctx_end(s->ctx);
    free(s);
    return 0;
}

static void expect(sheet_t *s, const char *want)
{
    assert_int_equal(base_json_finish(&s->j, s->ctx, "sheet"), BASE_OK);
    assert_string_equal(s->text, want);
}

static void expect_fault(sheet_t *s, base_status_t st, const char *piece)
{
    assert_int_equal(base_json_finish(&s->j, s->ctx, "sheet"), st);
    fixture_expect_error(s->ctx, st, st == BASE_ERR_SPACE ? "IO-02" : "INT-01", piece);
}

static void nested(void **state)
{
    sheet_t *s = *state;

    base_json_begin_object(&s->j);
    base_json_key(&s->j, "a");
    base_json_begin_array(&s->j);
    base_json_int(&s->j, INT64_MIN);
    base_json_bool(&s->j, true);
    base_json_bool(&s->j, false);
    base_json_null(&s->j);
    base_json_string(&s->j, NULL);
    base_json_begin_object(&s->j);
    base_json_end(&s->j);
    base_json_end(&s->j);
    base_json_key(&s->j, "b");
    base_json_string(&s->j, "");
    base_json_end(&s->j);
    expect(s, "{\"a\":[-9223372036854775808,true,false,null,null,{}],\"b\":\"\"}");
}

static void members(void **state)
{
    sheet_t *s = *state;

    base_json_begin_object(&s->j);
    base_json_put_string(&s->j, "s", "x");
    base_json_put_string(&s->j, "n", NULL);
    base_json_put_int(&s->j, "i", -3);
    base_json_put_double(&s->j, "d", 0.5);
    base_json_put_bool(&s->j, "b", true);
    base_json_put_ints(&s->j, "l", (const int64_t[]){4, -5}, 2);
    base_json_put_ints(&s->j, "e", NULL, 0);
    base_json_end(&s->j);
    expect(s, "{\"s\":\"x\",\"n\":null,\"i\":-3,\"d\":0.5,\"b\":true,\"l\":[4,-5],\"e\":[]}");
}

static void indented(void **state)
{
    sheet_t *s = *state;

    base_json_set_indent(&s->j, 2);
    base_json_begin_object(&s->j);
    base_json_key(&s->j, "a");
    base_json_begin_array(&s->j);
    base_json_int(&s->j, 1);
    base_json_int(&s->j, 2);
    base_json_end(&s->j);
    base_json_key(&s->j, "e");
    base_json_begin_array(&s->j);
    base_json_end(&s->j);
    base_json_end(&s->j);
    expect(s, "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"e\": []\n}");
}

static void strings_are_escaped(void **state)
{
    sheet_t *s = *state;

    base_json_string(&s->j, "q\" b\\ \n\r\t \x01 \x1f \x7f \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80");
    expect(s, "\"q\\\" b\\\\ \\n\\r\\t \\u0001 \\u001f \\u007f \xc3\xa4 \xe2\x82\xac "
              "\xf0\x9f\x98\x80\"");
}

/* Overlong, lone tail, surrogate, beyond U+10FFFF, cut at the end: each bad byte becomes U+FFFD. */
static void bad_utf8_is_replaced(void **state)
{
    sheet_t *s = *state;

    base_json_string(&s->j, "\xc0\x80|\x80|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82");
#define FFFD "\xef\xbf\xbd"
    expect(s,
           "\"" FFFD FFFD "|" FFFD "|" FFFD FFFD FFFD "|" FFFD FFFD FFFD FFFD "|" FFFD FFFD "\"");
}

static void doubles_come_back(void **state)
{
    static const double values[] = {0.0,    -0.0, 0.1,     1.0 / 3.0, 1e300,   5e-324,
                                    123456, 1e-4, 2.5e-16, 0x1p53,    1.7e308, 0.30000000000000004};
    sheet_t *s = *state;

    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        double back;

        base_json_to_buffer(&s->j, s->text, ROOM);
        base_json_double(&s->j, values[i]);
        assert_int_equal(base_json_finish(&s->j, s->ctx, "sheet"), BASE_OK);
        back = strtod(s->text, NULL);
        assert_memory_equal(&back, &values[i], sizeof back);
    }
    base_json_to_buffer(&s->j, s->text, ROOM);
    base_json_double(&s->j, 0.1);
    expect(s, "0.1");
    base_json_to_buffer(&s->j, s->text, ROOM);
    base_json_begin_array(&s->j);
    base_json_double(&s->j, 4.0);
    base_json_real(&s->j, 4.0);
    base_json_real(&s->j, -0.25);
    base_json_real(&s->j, 1e300);
    base_json_real(&s->j, (double)NAN);
    base_json_end(&s->j);
    expect(s, "[4,4.0,-0.25,1e+300,null]");
}

static void nonfinite(void **state)
{
    sheet_t *s = *state;

    base_json_begin_array(&s->j);
    base_json_double(&s->j, (double)NAN);
    base_json_double(&s->j, (double)-INFINITY);
    base_json_end(&s->j);
    expect(s, "[null,null]");

    base_json_to_buffer(&s->j, s->text, ROOM);
    base_json_refuse_nonfinite(&s->j);
    base_json_double(&s->j, (double)INFINITY);
    expect_fault(s, BASE_ERR_ARG, "sheet: a number is not finite");
}

static void json_lines(void **state)
{
    sheet_t *s = *state;

    base_json_int(&s->j, 1);
    base_json_newline(&s->j);
    base_json_int(&s->j, 2);
    base_json_newline(&s->j);
    expect(s, "1\n2\n");
}

static void misuse_is_a_fault(void **state)
{
    sheet_t *s = *state;

    base_json_begin_object(&s->j);
    base_json_int(&s->j, 1);
    base_json_key(&s->j, "after a fault nothing happens");
    base_json_end(&s->j);
    expect_fault(s, BASE_ERR_STATE, "without a key");

    base_json_to_buffer(&s->j, s->text, ROOM);
    base_json_begin_array(&s->j);
    base_json_key(&s->j, "k");
    expect_fault(s, BASE_ERR_STATE, "outside an object");

    base_json_to_buffer(&s->j, s->text, ROOM);
    base_json_begin_object(&s->j);
    base_json_key(&s->j, "k");
    base_json_end(&s->j);
    expect_fault(s, BASE_ERR_STATE, "after a key");

    base_json_to_buffer(&s->j, s->text, ROOM);
    base_json_end(&s->j);
    expect_fault(s, BASE_ERR_STATE, "without an open object");

    base_json_to_buffer(&s->j, s->text, ROOM);
    base_json_begin_array(&s->j);
    expect_fault(s, BASE_ERR_STATE, "still open");

    base_json_to_buffer(&s->j, s->text, ROOM);
    base_json_int(&s->j, 1);
    base_json_int(&s->j, 2);
    expect_fault(s, BASE_ERR_STATE, "second JSON value");

    base_json_to_buffer(&s->j, s->text, ROOM);
    base_json_newline(&s->j);
    expect_fault(s, BASE_ERR_STATE, "ends inside");

    base_json_to_buffer(&s->j, s->text, ROOM);
    for (int i = 0; i <= BASE_JSON_DEPTH; i++)
        base_json_begin_array(&s->j);
    expect_fault(s, BASE_ERR_STATE, "too deeply");
}

/* Every size below the right one is a fault, never writes beyond, and leaves a terminated text. */
static void small_buffers(void **state)
{
    sheet_t *s = *state;
    const size_t need = strlen("{\"key\":\"\\\"\"}") + 1;

    for (size_t room = 0; room <= need; room++) {
        memset(s->text, 'X', ROOM);
        base_json_to_buffer(&s->j, s->text, room);
        base_json_begin_object(&s->j);
        base_json_key(&s->j, "key");
        base_json_string(&s->j, "\"");
        base_json_end(&s->j);
        if (room < need)
            expect_fault(s, BASE_ERR_ARG, "does not fit");
        else
            assert_int_equal(base_json_finish(&s->j, s->ctx, "sheet"), BASE_OK);
        assert_int_equal(s->text[room], 'X');
        if (room > 0) assert_true(strlen(s->text) < room);
    }
}

static void full_disk(void **state)
{
    sheet_t *s = *state;
    FILE *full = fopen("/dev/full", "w");

    if (full == NULL) skip();
    base_json_to_file(&s->j, full);
    base_json_int(&s->j, 1);
    expect_fault(s, BASE_ERR_SPACE, "No space left");
    (void)fclose(full);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nested),
        TEST(members),
        TEST(indented),
        TEST(strings_are_escaped),
        TEST(bad_utf8_is_replaced),
        TEST(nonfinite),
        TEST(doubles_come_back),
        TEST(json_lines),
        TEST(misuse_is_a_fault),
        TEST(full_disk),
        TEST(small_buffers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
