/* The configurations that launch/ ships load without an error. */
#include "tests/unit/trainer/run_fixture.h"

#include <glob.h>

static void load(const char *pattern, size_t at_least)
{
    const char *root = getenv("CADRE_SOURCE_DIR");
    base_ctx_t *ctx = fixture_ctx();
    char path[512];
    glob_t found;

    assert_non_null(root);
    (void)snprintf(path, sizeof path, "%s/%s", root, pattern);
    assert_int_equal(glob(path, 0, NULL, &found), 0);
    assert_true(found.gl_pathc >= at_least);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        base_config_t *config = NULL;
        base_error_list_t errors;

        base_error_list_init(&errors, ctx);
        if (base_config_load(ctx, found.gl_pathv[i], NULL, 0, &errors, &config) != BASE_OK) {
            base_error_list_print(&errors, stderr);
            fail_msg("%s", found.gl_pathv[i]);
        }
        base_error_list_deinit(&errors);
        base_config_destroy(config);
    }
    globfree(&found);
    fixture_ctx_end(ctx);
}

static void examples(void **state)
{
    (void)state;
    load("launch/configs/*.yaml", 3);
}

static void demo(void **state)
{
    (void)state;
    load("launch/demo_files/*.yaml", 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(examples), cmocka_unit_test(demo)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
