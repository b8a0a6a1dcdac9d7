#include "tests/support/ctx_fixture.h"

#include "base/status.h"

static void names_and_texts(void **state)
{
    (void)state;
    assert_string_equal(base_status_name(BASE_OK), "BASE_OK");
    assert_string_equal(base_status_name(BASE_ERR_MISMATCH), "BASE_ERR_MISMATCH");
    assert_string_equal(base_status_text(BASE_PENDING), "not yet complete");
    assert_string_equal(base_status_text(BASE_ERR_NOMEM), "out of memory");
    assert_string_equal(base_status_name((base_status_t)-1000), "unknown");
    assert_string_equal(base_status_text((base_status_t)-1000), "unknown");
}

/* The list is complete and the families are as status.h says. */
static void scopes(void **state)
{
    (void)state;
#define X(name, value, text)                                                                       \
    assert_string_equal(base_status_name((base_status_t)(value)), "BASE_" #name);
    BASE_STATUS_MAP(X)
#undef X
    assert_int_equal(base_status_scope(BASE_ERR_ARG), BASE_SCOPE_CALL);
    assert_int_equal(base_status_scope(BASE_ERR_STATE), BASE_SCOPE_CALL);
    assert_int_equal(base_status_scope(BASE_ERR_TIMEOUT), BASE_SCOPE_PEER);
    assert_int_equal(base_status_scope(BASE_ERR_PEER), BASE_SCOPE_PEER);
    assert_int_equal(base_status_scope(BASE_ERR_MISMATCH), BASE_SCOPE_GROUP);
    assert_int_equal(base_status_scope(BASE_ERR_COMM), BASE_SCOPE_GROUP);
    assert_int_equal(base_status_scope(BASE_ERR_DEVICE), BASE_SCOPE_PROCESS);
    assert_int_equal(base_status_scope(BASE_ERR_INTERNAL), BASE_SCOPE_PROCESS);
}

static base_status_t forward(base_status_t st)
{
    BASE_TRY(st);
    return BASE_PENDING;
}

static base_status_t forward_goto(base_status_t given, int *undone)
{
    base_status_t st;

    BASE_TRY_GOTO(given, st, undo);
    return st;
undo:
    *undone = 1;
    return st;
}

static void try_forwards_failures_only(void **state)
{
    int undone = 0;

    (void)state;
    assert_int_equal(forward(BASE_OK), BASE_PENDING);
    assert_int_equal(forward(BASE_PENDING), BASE_PENDING);
    assert_int_equal(forward(BASE_ERR_IO), BASE_ERR_IO);
    assert_int_equal(forward_goto(BASE_PENDING, &undone), BASE_PENDING);
    assert_int_equal(undone, 0);
    assert_int_equal(forward_goto(BASE_ERR_COMM, &undone), BASE_ERR_COMM);
    assert_int_equal(undone, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_texts),
        cmocka_unit_test(scopes),
        cmocka_unit_test(try_forwards_failures_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
