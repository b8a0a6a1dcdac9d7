/* docs/config.md says what the table says. `unit.config.reference --write` writes it anew. */
#include "tests/unit/config/config_fixture.h"

#include "base/config/schema.h"

static char *generated(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);

    assert_non_null(out);
    base_print_reference(out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void the_page_is_up_to_date(void **state)
{
    const int write = *(const int *)*state;
    char *path = source_path("docs/config.md");
    char *wanted = generated();
    size_t bytes;
    char *found;

    if (write) {
        FILE *file = fopen(path, "wb");

        assert_non_null(file);
        assert_true(fputs(wanted, file) >= 0);
        assert_int_equal(fclose(file), 0);
    }
    found = file_text(path, &bytes);
    if (found == NULL || strcmp(found, wanted) != 0)
        fail_msg("docs/config.md is not what base/config/schema.c says; its head has the command");
    free(found);
    free(wanted);
    free(path);
}

static void every_key_is_on_the_page(void **state)
{
    char *page = generated();

    (void)state;
    for (size_t i = 0; i < base_schema_count(); i++) {
        char cell[80];

        (void)snprintf(cell, sizeof cell, "\n| `%s` | ", base_schema_key(i)->name);
        assert_non_null(strstr(page, cell));
        /* A bar would end the cell. */
        assert_null(strchr(base_schema_key(i)->doc, '|'));
    }
    assert_non_null(strstr(page, base_print_example()));
    free(page);
}

static void the_example_loads(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *config = config_of(ctx, base_print_example(), NULL);

    (void)state;
    assert_int_equal(config->num_adapters, 2);
    base_config_destroy(config);
    fixture_ctx_end(ctx);
}

int main(int argc, char **argv)
{
    int write = argc == 2 && strcmp(argv[1], "--write") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(the_page_is_up_to_date, &write),
        cmocka_unit_test(every_key_is_on_the_page),
        cmocka_unit_test(the_example_loads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
