/* The part of cmocka that our GPU tests use, for test programs that are carried to a GPU host as
 * one file: distributions ship cmocka as a shared library only. Same functions, same output
 * format, declared by the real cmocka.h; a test that uses another of its functions does not
 * link. Everyone else links the library. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h needs setjmp.h, stdarg.h, stddef.h and stdint.h. */
#include <cmocka.h>

/* Tests run one after the other; an assertion must be made in the thread that runs the test. */
static jmp_buf test_end;

void print_message(const char *const format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
}

void print_error(const char *const format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
}

void _fail(const char *const file, const int line)
{
    fprintf(stderr, "[   LINE   ] --- %s:%d: error: Failure!\n", file, line);
    longjmp(test_end, 1);
}

void _assert_true(const LargestIntegralType result, const char *const expression,
                  const char *const file, const int line)
{
    if (result) return;
    fprintf(stderr, "%s\n", expression);
    _fail(file, line);
}

void _assert_int_equal(const LargestIntegralType a, const LargestIntegralType b,
                       const char *const file, const int line)
{
    if (a == b) return;
    fprintf(stderr, "%#llx != %#llx\n", (unsigned long long)a, (unsigned long long)b);
    _fail(file, line);
}

void _assert_string_equal(const char *const a, const char *const b, const char *const file,
                          const int line)
{
    if (strcmp(a, b) == 0) return;
    fprintf(stderr, "\"%s\" != \"%s\"\n", a, b);
    _fail(file, line);
}

static int run_one(const struct CMUnitTest *test)
{
    void *state = test->initial_state;
    printf("[ RUN      ] %s\n", test->name);
    fflush(stdout);
    const int failed = setjmp(test_end);
    if (failed == 0 && (test->setup_func == NULL || test->setup_func(&state) == 0)) {
        test->test_func(&state);
        if (test->teardown_func != NULL) (void)test->teardown_func(&state);
    }
    printf("%s %s\n", failed ? "[  FAILED  ]" : "[       OK ]", test->name);
    return failed;
}

int _cmocka_run_group_tests(const char *group_name, const struct CMUnitTest *const tests,
                            const size_t num_tests, CMFixtureFunction group_setup,
                            CMFixtureFunction group_teardown)
{
    void *state = NULL;
    int num_failed = 0;

    printf("[==========] Running %zu test(s) of %s.\n", num_tests, group_name);
    if (group_setup != NULL && group_setup(&state) != 0) return (int)num_tests;
    for (size_t i = 0; i < num_tests; i++)
        num_failed += run_one(&tests[i]);
    if (group_teardown != NULL) (void)group_teardown(&state);
    printf("[==========] %zu test(s) run, %d failed.\n", num_tests, num_failed);
    return num_failed;
}
