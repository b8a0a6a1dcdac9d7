/* Each cases/NAME.yaml with the exact output in cases/NAME.txt: the errors, or for a good file the
 * resolved configuration. cases/NAME.set holds one --set a line. `unit.config.cases --write` writes
 * the .txt files anew; read the difference before it is kept. */
#include "tests/unit/config/config_fixture.h"

#include <dirent.h>

#define MAX_CASES 200
#define MAX_SETS  16

static int write_mode(int argc, char **argv)
{
    return argc == 2 && strcmp(argv[1], "--write") == 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names without .yaml, sorted; owned by the caller. */
static size_t list_cases(const char *folder, char **names)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    size_t count = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        const char *dot = strrchr(entry->d_name, '.');

        if (dot == NULL || strcmp(dot, ".yaml") != 0) continue;
        assert_true(count < MAX_CASES);
        names[count++] = strndup(entry->d_name, (size_t)(dot - entry->d_name));
    }
    (void)closedir(dir);
    qsort(names, count, sizeof *names, by_name);
    return count;
}

/* Cuts a text into lines in place. */
static size_t lines_of(char *text, const char **lines)
{
    size_t count = 0;

    while (text != NULL && *text != '\0') {
        char *newline = strchr(text, '\n');

        assert_true(count < MAX_SETS);
        lines[count++] = text;
        if (newline != NULL) *newline++ = '\0';
        text = newline;
    }
    return count;
}

/* What a user would see. */
static char *outcome(const char *text, size_t bytes, char *sets)
{
    const char *lines[MAX_SETS];
    const size_t num_sets = lines_of(sets, lines);
    base_ctx_t *ctx = fixture_ctx();
    base_config_t *config = NULL;
    base_error_list_t errors;
    base_status_t st;
    char *out_text = NULL;
    size_t out_bytes = 0;
    FILE *out = open_memstream(&out_text, &out_bytes);

    assert_non_null(out);
    base_error_list_init(&errors, ctx);
    st = base_config_load_text(ctx, "run.yaml", text, bytes, lines, num_sets, &errors, &config);
    if (st == BASE_OK)
        base_print_config(config, out);
    else
        base_error_list_print(&errors, out);
    assert_true(st == BASE_OK || st == BASE_ERR_CONFIG);
    base_error_list_deinit(&errors);
    base_config_destroy(config);
    base_ctx_clear_error(ctx);
    fixture_ctx_end(ctx);
    assert_int_equal(fclose(out), 0);
    return out_text;
}

static char *with_ending(const char *folder, const char *name, const char *ending)
{
    const size_t bytes = strlen(folder) + strlen(name) + strlen(ending) + 2;
    char *path = malloc(bytes);

    assert_non_null(path);
    (void)snprintf(path, bytes, "%s/%s%s", folder, name, ending);
    return path;
}

/* Returns whether the case is as its file says. */
static int run_case(const char *folder, const char *name, int write)
{
    char *yaml = with_ending(folder, name, ".yaml");
    char *txt = with_ending(folder, name, ".txt");
    char *set = with_ending(folder, name, ".set");
    size_t bytes = 0, unused;
    char *text = file_text(yaml, &bytes);
    char *sets = file_text(set, &unused);
    char *found = outcome(text, bytes, sets);
    char *wanted = file_text(txt, &unused);
    int same = wanted != NULL && strcmp(found, wanted) == 0;

    if (write) {
        FILE *file = fopen(txt, "wb");

        assert_non_null(file);
        assert_true(fputs(found, file) >= 0);
        assert_int_equal(fclose(file), 0);
        same = 1;
    } else if (!same) {
        print_error("%s: found\n%s\nwanted\n%s\n", name, found,
                    wanted == NULL ? "(no file)" : wanted);
    }
    free(yaml);
    free(txt);
    free(set);
    free(text);
    free(sets);
    free(found);
    free(wanted);
    return same;
}

static void all_cases(void **state)
{
    const int write = *(const int *)*state;
    char *names[MAX_CASES];
    char *folder = source_path("tests/unit/config/cases");
    const size_t count = list_cases(folder, names);
    size_t wrong = 0;

    assert_true(count >= 20);
    for (size_t i = 0; i < count; i++) {
        wrong += !run_case(folder, names[i], write);
        free(names[i]);
    }
    free(folder);
    assert_int_equal(wrong, 0);
}

int main(int argc, char **argv)
{
    int write = write_mode(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(all_cases, &write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
