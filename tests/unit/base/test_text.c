/* Endings of strings, at their edges. */
#include "tests/support/ctx_fixture.h"

#include "base/text.h"

static void test_ends_in(void **state)
{
    (void)state;
    assert_true(base_text_ends_in("a.h5", ".h5"));
    assert_true(base_text_ends_in("a.h5.h5", ".h5"));
    assert_true(base_text_ends_in("/.h5", ".h5"));
    assert_false(base_text_ends_in(".h5", ".h5")); /* nothing stands before it */
    assert_false(base_text_ends_in("h5", ".h5"));
    assert_false(base_text_ends_in("", ".h5"));
    assert_false(base_text_ends_in("a.h5.gz", ".h5"));
    assert_false(base_text_ends_in("a.H5", ".h5"));
    assert_true(base_text_ends_in("a", ""));
    assert_false(base_text_ends_in("", ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ends_in)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
