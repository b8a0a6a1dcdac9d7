#include "tests/support/ctx_fixture.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* The test runs inside a folder of its own, which is removed at the end. */
typedef struct place {
    base_ctx_t *ctx;
    char folder[64];
    char *before;
} place_t;

static int setup(void **state)
{
    place_t *p = calloc(1, sizeof *p);

    assert_non_null(p);
    p->ctx = fixture_ctx();
    p->before = getcwd(NULL, 0);
    (void)snprintf(p->folder, sizeof p->folder, "/tmp/cadre-test-file-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    assert_int_equal(chdir(p->folder), 0);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    place_t *p = *state;
    char command[128];

    fixture_ctx_end(p->ctx);
    assert_int_equal(chdir(p->before), 0);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", p->folder);
    assert_int_equal(system(command), 0);
    free(p->before);
    free(p);
    return 0;
}

static void expect_content(base_ctx_t *ctx, const char *path, const char *want)
{
    char *data = NULL;
    size_t bytes = 0;

    assert_int_equal(base_file_read(ctx, path, 1000, &data, &bytes), BASE_OK);
    assert_int_equal(bytes, strlen(want));
    assert_string_equal(data, want);
    base_free(ctx, data);
}

static void write_replaces(void **state)
{
    place_t *p = *state;

    assert_int_equal(base_file_write(p->ctx, "a", "one", 3), BASE_OK);
    expect_content(p->ctx, "a", "one");
    assert_int_equal(base_file_write(p->ctx, "a", "", 0), BASE_OK);
    expect_content(p->ctx, "a", "");
    assert_int_equal(base_file_kind("a.tmp-0000"), BASE_FILE_NONE);
    assert_int_equal(base_file_kind("a"), BASE_FILE_REGULAR);
    assert_int_equal(base_file_kind("."), BASE_FILE_FOLDER);
    assert_int_equal(base_file_kind("/dev/null"), BASE_FILE_OTHER);
}

static void discarded_leaves_the_old(void **state)
{
    place_t *p = *state;
    base_file_t *file = NULL;

    assert_int_equal(base_file_write(p->ctx, "a", "one", 3), BASE_OK);
    assert_int_equal(base_file_create(p->ctx, "a", &file), BASE_OK);
    assert_int_equal(base_memory_live(base_ctx_memory(p->ctx), BASE_RESOURCE_FILE), 1);
    assert_true(fputs("half", base_file_stream(file)) >= 0);
    expect_content(p->ctx, "a", "one");
    base_file_discard(file);
    base_file_discard(NULL);
    expect_content(p->ctx, "a", "one");
    assert_int_equal(base_file_kind("a.tmp-0000"), BASE_FILE_NONE);
}

static void write_failures(void **state)
{
    place_t *p = *state;
    base_file_t *file = NULL;

    assert_int_equal(base_file_write(p->ctx, "no/such/a", "x", 1), BASE_ERR_IO);
    fixture_expect_error(p->ctx, BASE_ERR_IO, "IO-02", "no/such/a: cannot create: No such file");

    /* The target is a folder, so that everything works until the rename. */
    assert_int_equal(mkdir("folder", 0777), 0);
    assert_int_equal(base_file_write(p->ctx, "folder", "x", 1), BASE_ERR_IO);
    fixture_expect_error(p->ctx, BASE_ERR_IO, "IO-02", "folder: cannot replace: Is a directory");
    assert_int_equal(base_file_kind("folder.tmp-0000"), BASE_FILE_NONE);

    /* A full disk, by way of a link in the place of the temporary file. */
    assert_int_equal(symlink("/dev/full", "b.tmp-0000"), 0);
    assert_int_equal(base_file_write(p->ctx, "b", "x", 1), BASE_ERR_SPACE);
    fixture_expect_error(p->ctx, BASE_ERR_SPACE, "IO-02", "b: cannot write: No space left");
    assert_int_equal(base_file_kind("b"), BASE_FILE_NONE);

    /* A failed write that the caller overlooked. */
    assert_int_equal(symlink("/dev/full", "c.tmp-0000"), 0);
    assert_int_equal(base_file_create(p->ctx, "c", &file), BASE_OK);
    (void)setvbuf(base_file_stream(file), NULL, _IONBF, 0);
    (void)fputs("x", base_file_stream(file));
    assert_int_equal(base_file_commit(file), BASE_ERR_SPACE);
    fixture_expect_error(p->ctx, BASE_ERR_SPACE, "IO-02", "c: cannot write: No space left");
}

static void read_failures(void **state)
{
    place_t *p = *state;
    char *data = NULL;
    size_t bytes = 0;

    assert_int_equal(base_file_read(p->ctx, "none", 10, &data, &bytes), BASE_ERR_IO);
    fixture_expect_error(p->ctx, BASE_ERR_IO, "IO-01", "none: cannot open: No such file");
    assert_int_equal(base_file_read(p->ctx, ".", 10, &data, &bytes), BASE_ERR_IO);
    fixture_expect_error(p->ctx, BASE_ERR_IO, "IO-01", "Is a directory");
    assert_int_equal(base_file_write(p->ctx, "a", "12345", 5), BASE_OK);
    assert_int_equal(base_file_read(p->ctx, "a", 4, &data, &bytes), BASE_ERR_FORMAT);
    fixture_expect_error(p->ctx, BASE_ERR_FORMAT, "IO-03", "a: 5 bytes, at most 4");
    /* No size in the file system: the limit holds while reading. */
    assert_int_equal(base_file_read(p->ctx, "/dev/zero", 100000, &data, &bytes), BASE_ERR_FORMAT);
    fixture_expect_error(p->ctx, BASE_ERR_FORMAT, "IO-03", "/dev/zero: more than the 100000");
    assert_int_equal(base_file_read(p->ctx, "a", -1, &data, &bytes), BASE_ERR_ARG);
    fixture_expect_error(p->ctx, BASE_ERR_ARG, "INT-01", "limit of -1");
    assert_null(data);
}

static void read_at_the_limit(void **state)
{
    place_t *p = *state;
    char *data = NULL;
    size_t bytes = 0;

    assert_int_equal(base_file_write(p->ctx, "a", "1234\0006789", 9), BASE_OK);
    assert_int_equal(base_file_read(p->ctx, "a", 9, &data, &bytes), BASE_OK);
    assert_int_equal(bytes, 9);
    assert_memory_equal(data, "1234\0006789", 10);
    base_free(p->ctx, data);
    assert_int_equal(base_file_read(p->ctx, "/proc/self/status", 100000, &data, &bytes), BASE_OK);
    assert_true(bytes > 100);
    base_free(p->ctx, data);
    assert_int_equal(base_file_read(p->ctx, "/dev/null", 0, &data, &bytes), BASE_OK);
    assert_int_equal(bytes, 0);
    base_free(p->ctx, data);
}

static void folders(void **state)
{
    place_t *p = *state;

    assert_int_equal(base_file_make_dirs(p->ctx, "x/y//z/"), BASE_OK);
    assert_int_equal(base_file_kind("x/y/z"), BASE_FILE_FOLDER);
    assert_int_equal(base_file_make_dirs(p->ctx, "x/y/z"), BASE_OK);
    assert_int_equal(base_file_make_dirs(p->ctx, "."), BASE_OK);
    assert_int_equal(base_file_make_dirs(p->ctx, "/"), BASE_OK);
    assert_int_equal(base_file_write(p->ctx, "plain", "x", 1), BASE_OK);
    assert_int_equal(base_file_make_dirs(p->ctx, "plain/a"), BASE_ERR_IO);
    fixture_expect_error(p->ctx, BASE_ERR_IO, "IO-02",
                         "plain: cannot create the folder: File exists");
    assert_int_equal(base_file_make_dirs(p->ctx, "/proc/none/a"), BASE_ERR_IO);
    fixture_expect_error(p->ctx, BASE_ERR_IO, "IO-02", "/proc/none: cannot create the folder");
    assert_int_equal(base_file_make_dirs(p->ctx, ""), BASE_ERR_IO);
    fixture_expect_error(p->ctx, BASE_ERR_IO, "IO-02", "No such file");
}

static void rename_and_sync(void **state)
{
    place_t *p = *state;

    assert_int_equal(base_file_make_dirs(p->ctx, "part"), BASE_OK);
    assert_int_equal(base_file_write(p->ctx, "part/a", "x", 1), BASE_OK);
    assert_int_equal(base_file_sync(p->ctx, "part"), BASE_OK);
    assert_int_equal(base_file_rename(p->ctx, "part", "whole"), BASE_OK);
    expect_content(p->ctx, "whole/a", "x");
    assert_int_equal(base_file_rename(p->ctx, "part", "other"), BASE_ERR_IO);
    fixture_expect_error(p->ctx, BASE_ERR_IO, "IO-02", "other: cannot rename part");
    assert_int_equal(base_file_sync(p->ctx, "part"), BASE_ERR_IO);
    fixture_expect_error(p->ctx, BASE_ERR_IO, "IO-02", "part: cannot open to sync");
}

/* Each allocation of a write and of a read fails once; the file stays whole and nothing leaks. */
static void no_memory(void **state)
{
    place_t *p = *state;
    base_memory_t *memory = base_ctx_memory(p->ctx);
    base_status_t st = BASE_ERR_NOMEM;
    char *data = NULL;
    size_t bytes;

    for (int n = 1; st == BASE_ERR_NOMEM; n++) {
        base_memory_fail_at(memory, n);
        st = base_file_write(p->ctx, "a", "x", 1);
        if (st < 0) fixture_expect_error(p->ctx, BASE_ERR_NOMEM, "MEM-01", "");
        assert_int_equal(base_memory_live_total(memory), 0);
        assert_int_equal(base_file_kind("a.tmp-0000"), BASE_FILE_NONE);
    }
    assert_int_equal(st, BASE_OK);
    st = BASE_ERR_NOMEM;
    for (int n = 1; st == BASE_ERR_NOMEM; n++) {
        base_memory_fail_at(memory, n);
        st = base_file_read(p->ctx, "/proc/self/status", 100000, &data, &bytes);
        base_ctx_clear_error(p->ctx);
    }
    assert_int_equal(st, BASE_OK);
    base_free(p->ctx, data);
    base_memory_fail_at(memory, 1);
    assert_int_equal(base_file_make_dirs(p->ctx, "new/folder"), BASE_ERR_NOMEM);
    fixture_expect_error(p->ctx, BASE_ERR_NOMEM, "MEM-01", "path");
    base_memory_fail_at(memory, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(write_replaces),    TEST(discarded_leaves_the_old),
        TEST(write_failures),    TEST(read_failures),
        TEST(read_at_the_limit), TEST(folders),
        TEST(rename_and_sync),   TEST(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
