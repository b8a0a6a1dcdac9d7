#include "tests/support/ctx_fixture.h"

#include "base/message.h"

#include <ctype.h>

static void ids_are_well_formed_and_unique(void **state)
{
    (void)state;
    for (int i = 0; i < BASE_MSG_COUNT; i++) {
        const char *id = base_message_id((base_message_t)i);
        const size_t n = strlen(id);

        assert_true(n >= 5 && n <= 7);
        for (size_t k = 0; k + 3 < n; k++)
            assert_true(isupper((unsigned char)id[k]));
        assert_int_equal(id[n - 3], '-');
        assert_true(isdigit((unsigned char)id[n - 2]) && isdigit((unsigned char)id[n - 1]));
        for (int k = 0; k < i; k++)
            assert_string_not_equal(id, base_message_id((base_message_t)k));
    }
    assert_string_equal(base_message_id(BASE_MSG_CONF_03), "CONF-03");
}

/* One sentence each, that can stand after a colon or as a heading. */
static void texts_and_cures_read_alike(void **state)
{
    (void)state;
    for (int i = 0; i < BASE_MSG_COUNT; i++) {
        const char *text = base_message_text((base_message_t)i);
        const char *cure = base_message_cure((base_message_t)i);

        assert_true(strlen(text) > 0 && strlen(text) < 80);
        assert_true(strlen(cure) > 0 && strlen(cure) < 200);
        assert_int_not_equal(text[strlen(text) - 1], '.');
        assert_int_not_equal(cure[strlen(cure) - 1], '.');
        assert_null(strchr(text, '\n'));
        assert_null(strchr(cure, '\n'));
    }
}

static void unknown_values_give_null(void **state)
{
    (void)state;
    assert_null(base_message_id(BASE_MSG_COUNT));
    assert_null(base_message_text((base_message_t)(BASE_MSG_COUNT + 7)));
    assert_null(base_message_cure(BASE_MSG_COUNT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_well_formed_and_unique),
        cmocka_unit_test(texts_and_cures_read_alike),
        cmocka_unit_test(unknown_values_give_null),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
