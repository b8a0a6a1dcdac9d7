#define FIXTURE_FILE "dataset_test.h5"
#include "tests/unit/data/dataset_fixture.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Every document of the file is what was written. */
static void expect_content(const data_dataset_t *ds, const fixture_t *f)
{
    int64_t supervised = 0, longest = 0;

    assert_int_equal(data_dataset_num_documents(ds), FIXTURE_DOCUMENTS);
    assert_int_equal(data_dataset_num_tokens(ds), f->offsets[FIXTURE_DOCUMENTS]);
    for (int64_t i = 0; i < FIXTURE_DOCUMENTS; i++) {
        const int64_t from = f->offsets[i], rows = f->offsets[i + 1] - from;
        int32_t tokens[FIXTURE_MAX_ROWS];
        uint8_t mask[FIXTURE_MAX_ROWS];
        int64_t ones = 0;

        assert_int_equal(data_dataset_rows(ds, i), rows);
        assert_int_equal(data_dataset_line(ds, i), f->line[i]);
        assert_int_equal(data_dataset_read(ds, i, tokens, mask), BASE_OK);
        assert_memory_equal(tokens, f->tokens + from, (size_t)rows * sizeof *tokens);
        assert_memory_equal(mask, f->mask + from, (size_t)rows);
        for (int64_t r = 0; r < rows; r++)
            ones += mask[r];
        assert_int_equal(data_dataset_supervised(ds, i), ones);
        supervised += ones;
        if (rows > longest) longest = rows;
    }
    assert_int_equal(data_dataset_num_supervised(ds), supervised);
    assert_int_equal(data_dataset_max_rows(ds), longest);
    assert_int_equal(data_dataset_verify(ds), BASE_OK);
}

static void what_is_written_is_read(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    fixture_t f;
    data_dataset_t *ds;
    const data_dataset_attributes_t *a;

    (void)state;
    fixture_fill(&f);
    fixture_write(ctx, &f);
    ds = fixture_open(ctx);
    assert_string_equal(data_dataset_path(ds), FIXTURE_FILE);
    a = data_dataset_attributes(ds);
    assert_string_equal(a->creator, "a test");
    assert_string_equal(a->tokenizer_sha256, FIXTURE_SHA);
    assert_string_equal(a->template_sha256, "");
    assert_string_equal(a->source, "corpora/legal \xc3\xa9.jsonl");
    assert_string_equal(a->source_sha256, FIXTURE_OTHER_SHA);
    assert_string_equal(a->settings, "{\"max_tokens\":30}");
    assert_int_equal(a->vocab_size, FIXTURE_VOCAB);
    assert_int_equal(a->eos_id, 2);
    assert_int_equal(a->bos_id, -1);
    expect_content(ds, &f);
    data_dataset_close(ds);

    /* Without lines they are counted. */
    f.content.line = NULL;
    fixture_write(ctx, &f);
    ds = fixture_open(ctx);
    assert_int_equal(data_dataset_line(ds, 0), 1);
    assert_int_equal(data_dataset_line(ds, 39), 40);
    data_dataset_close(ds);
    assert_int_equal(unlink(FIXTURE_FILE), 0);
    fixture_ctx_end(ctx);
}

/* content_sha256 of a content that is small enough to be written down: by Python, hashlib.sha256 of
 * struct.pack("<3q5i5B", 0, 2, 5, 7, 8, 9, 1, 2, 0, 1, 0, 1, 1). */
static void the_content_hash_is_that_of_the_bytes(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    fixture_t f;
    data_dataset_content_t c;
    data_dataset_t *ds;

    (void)state;
    fixture_fill(&f);
    c = f.content;
    c.attributes.num_documents = 2;
    c.offsets = (const int64_t[]){0, 2, 5};
    c.tokens = (const int32_t[]){7, 8, 9, 1, 2};
    c.loss_mask = (const uint8_t[]){0, 1, 0, 1, 1};
    assert_int_equal(data_dataset_write(ctx, FIXTURE_FILE, &c), BASE_OK);
    ds = fixture_open(ctx);
    assert_string_equal(data_dataset_attributes(ds)->content_sha256,
                        "2ab40ec19c3fec672aeb229cf4703081c0c59cf742d97a820777686aa43eade2");
    assert_int_equal(data_dataset_verify(ds), BASE_OK);
    data_dataset_close(ds);
    assert_int_equal(unlink(FIXTURE_FILE), 0);
    fixture_ctx_end(ctx);
}

/* Than that in which the caller began: libhdf5 would write it down. */
static void wait_for_another_second(void)
{
    const time_t begun = time(NULL);
    while (time(NULL) == begun)
        (void)usleep(10000);
}

static void the_same_content_gives_the_same_file(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    fixture_t f;
    char first[BASE_SHA256_HEX_BYTES], second[BASE_SHA256_HEX_BYTES];
    data_dataset_t *a, *b;
    uint64_t hash;

    (void)state;
    fixture_fill(&f);
    fixture_write(ctx, &f);
    assert_int_equal(base_sha256_file(ctx, FIXTURE_FILE, first), BASE_OK);
    a = fixture_open(ctx);
    hash = data_dataset_hash(a);
    /* Replaced under an open one, which goes on reading its own file. */
    f.tokens[0] ^= 1;
    fixture_write(ctx, &f);
    b = fixture_open(ctx);
    assert_false(data_dataset_hash(b) == hash);
    expect_content(b, &f);
    f.tokens[0] ^= 1;
    expect_content(a, &f);
    data_dataset_close(a);
    data_dataset_close(b);
    wait_for_another_second();
    fixture_write(ctx, &f);
    assert_int_equal(base_sha256_file(ctx, FIXTURE_FILE, second), BASE_OK);
    assert_string_equal(first, second);
    assert_int_equal(unlink(FIXTURE_FILE), 0);
    fixture_ctx_end(ctx);
}

static void offsets_alone(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    fixture_t f;
    data_dataset_t *ds = NULL, *full;
    int32_t token;
    uint8_t mask;

    (void)state;
    fixture_fill(&f);
    fixture_write(ctx, &f);
    full = fixture_open(ctx);
    assert_int_equal(data_dataset_open_offsets(ctx, FIXTURE_FILE, NULL, &ds), BASE_OK);
    assert_int_equal(base_memory_live(base_ctx_memory(ctx), BASE_RESOURCE_FILE), 1);
    assert_int_equal(base_memory_live(base_ctx_memory(ctx), BASE_RESOURCE_H5), 0);
    for (int64_t i = 0; i < FIXTURE_DOCUMENTS; i++)
        assert_int_equal(data_dataset_rows(ds, i), data_dataset_rows(full, i));
    assert_int_equal(data_dataset_max_rows(ds), data_dataset_max_rows(full));
    assert_int_equal(data_dataset_num_supervised(ds), data_dataset_num_supervised(full));
    assert_true(data_dataset_hash(ds) == data_dataset_hash(full));
    assert_int_equal(data_dataset_read(ds, 0, &token, &mask), BASE_ERR_STATE);
    fixture_expect_error(ctx, BASE_ERR_STATE, "INT-01", "only the offsets");
    assert_int_equal(data_dataset_verify(ds), BASE_ERR_STATE);
    base_ctx_clear_error(ctx);
    assert_int_equal(data_dataset_read(full, FIXTURE_DOCUMENTS, &token, &mask), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "document 40 of 40");
    data_dataset_close(ds);
    data_dataset_close(full);
    data_dataset_close(NULL);
    assert_int_equal(unlink(FIXTURE_FILE), 0);
    fixture_ctx_end(ctx);
}

/* Other writers store texts with a variable length or padded, and arrays in chunks. */
static void other_spellings_of_the_file(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    fixture_t f;
    data_dataset_t *ds;

    (void)state;
    fixture_fill(&f);
    fixture_write(ctx, &f);
    fixture_set_text("format", DATA_DATASET_FORMAT, H5T_STR_NULLPAD);
    fixture_set_variable_text("creator", "another program");
    fixture_set_text("source", "padded", H5T_STR_SPACEPAD);
    ds = fixture_open(ctx);
    assert_string_equal(data_dataset_attributes(ds)->creator, "another program");
    assert_string_equal(data_dataset_attributes(ds)->source, "padded");
    assert_int_equal(base_memory_live(base_ctx_memory(ctx), BASE_RESOURCE_H5), 0);
    data_dataset_close(ds);
    /* One array in chunks, then both. */
    fixture_set_array("/tokens", H5T_STD_I32LE, f.offsets[FIXTURE_DOCUMENTS], 64, f.tokens);
    ds = fixture_open(ctx);
    assert_int_equal(base_memory_live(base_ctx_memory(ctx), BASE_RESOURCE_H5), 1);
    expect_content(ds, &f);
    data_dataset_close(ds);
    fixture_set_array("/loss_mask", H5T_STD_U8LE, f.offsets[FIXTURE_DOCUMENTS], 50, f.mask);
    fixture_set_array("/offsets", H5T_STD_I64LE, FIXTURE_DOCUMENTS + 1, 7, f.offsets);
    ds = fixture_open(ctx);
    expect_content(ds, &f);
    data_dataset_close(ds);
    assert_int_equal(unlink(FIXTURE_FILE), 0);
    fixture_ctx_end(ctx);
}

/* ==== threads ==== */

#define NUM_THREADS 4

typedef struct reader {
    const data_dataset_t *ds;
    const fixture_t *f;
    int64_t first;
    int wrong;
} reader_t;

static void *read_all(void *arg)
{
    reader_t *reader = arg;
    const fixture_t *f = reader->f;
    int32_t tokens[FIXTURE_MAX_ROWS];
    uint8_t mask[FIXTURE_MAX_ROWS];

    for (int64_t n = 0; n < 10 * FIXTURE_DOCUMENTS; n++) {
        const int64_t i = (reader->first + 7 * n) % FIXTURE_DOCUMENTS;
        const int64_t rows = data_dataset_rows(reader->ds, i);

        if (data_dataset_read(reader->ds, i, tokens, mask) != BASE_OK ||
            memcmp(tokens, f->tokens + f->offsets[i], (size_t)rows * sizeof *tokens) != 0 ||
            memcmp(mask, f->mask + f->offsets[i], (size_t)rows) != 0)
            reader->wrong++;
    }
    return NULL;
}

static void threads_read_at_the_same_time(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    fixture_t f;

    (void)state;
    fixture_fill(&f);
    fixture_write(ctx, &f);
    for (int chunked = 0; chunked < 2; chunked++) {
        data_dataset_t *ds;
        pthread_t thread[NUM_THREADS];
        reader_t reader[NUM_THREADS];

        if (chunked)
            fixture_set_array("/tokens", H5T_STD_I32LE, f.offsets[FIXTURE_DOCUMENTS], 64, f.tokens);
        ds = fixture_open(ctx);
        for (int t = 0; t < NUM_THREADS; t++) {
            reader[t] = (reader_t){.ds = ds, .f = &f, .first = 11 * t};
            assert_int_equal(pthread_create(&thread[t], NULL, read_all, &reader[t]), 0);
        }
        for (int t = 0; t < NUM_THREADS; t++) {
            assert_int_equal(pthread_join(thread[t], NULL), 0);
            assert_int_equal(reader[t].wrong, 0);
        }
        data_dataset_close(ds);
    }
    assert_int_equal(unlink(FIXTURE_FILE), 0);
    fixture_ctx_end(ctx);
}

/* ==== failures that are not the file's ==== */

static void memory_failures_leave_nothing(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    fixture_t f;
    base_status_t st = BASE_ERR_NOMEM;

    (void)state;
    fixture_fill(&f);
    for (int n = 1; st != BASE_OK; n++) {
        assert_true(n < 20);
        base_memory_fail_at(base_ctx_memory(ctx), n);
        st = data_dataset_write(ctx, FIXTURE_FILE, &f.content);
        base_memory_fail_at(base_ctx_memory(ctx), 0);
        if (st == BASE_OK) break;
        fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "");
    }
    st = BASE_ERR_NOMEM;
    for (int n = 1; st != BASE_OK; n++) {
        data_dataset_t *ds = NULL;

        assert_true(n < 100);
        base_memory_fail_at(base_ctx_memory(ctx), n);
        st = data_dataset_open(ctx, FIXTURE_FILE, NULL, &ds);
        base_memory_fail_at(base_ctx_memory(ctx), 0);
        if (st == BASE_OK) {
            data_dataset_close(ds);
            break;
        }
        assert_null(ds);
        fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "");
        assert_int_equal(base_memory_live_total(base_ctx_memory(ctx)), 0);
    }
    assert_int_equal(unlink(FIXTURE_FILE), 0);
    fixture_ctx_end(ctx);
}

static void what_cannot_be_written_leaves_the_old_file(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    fixture_t f;
    data_dataset_t *ds;

    (void)state;
    fixture_fill(&f);
    fixture_write(ctx, &f);
    f.mask[f.offsets[3]] = 1;
    assert_int_equal(data_dataset_write(ctx, FIXTURE_FILE, &f.content), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "document 3: the first row is supervised");
    f.mask[f.offsets[3]] = 0;
    memset(f.mask + f.offsets[3], 0, (size_t)(f.offsets[4] - f.offsets[3]));
    assert_int_equal(data_dataset_write(ctx, FIXTURE_FILE, &f.content), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "document 3: no supervised token");
    fixture_fill(&f);
    f.tokens[5] = FIXTURE_VOCAB;
    assert_int_equal(data_dataset_write(ctx, FIXTURE_FILE, &f.content), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "outside the vocabulary");
    fixture_fill(&f);
    f.content.attributes.tokenizer_sha256 = "none";
    assert_int_equal(data_dataset_write(ctx, FIXTURE_FILE, &f.content), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "\"tokenizer_sha256\"");
    fixture_fill(&f);
    assert_int_equal(data_dataset_write(ctx, "no/such/folder.h5", &f.content), BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-02", "no/such/folder.h5: cannot write: ");
    ds = fixture_open(ctx);
    expect_content(ds, &f);
    data_dataset_close(ds);
    assert_true(access(FIXTURE_FILE ".tmp-0000", F_OK) != 0);
    assert_int_equal(unlink(FIXTURE_FILE), 0);
    fixture_ctx_end(ctx);
}

/* Wherever the disk is full: the library lives on, and so does this process at its end. */
static void a_full_disk_leaves_the_old_file(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    struct rlimit before;
    fixture_t f;
    data_dataset_t *ds;
    struct stat info;

    (void)state;
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    fixture_fill(&f);
    fixture_write(ctx, &f);
    assert_int_equal(stat(FIXTURE_FILE, &info), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    for (rlim_t limit = 0; limit < (rlim_t)info.st_size; limit += 64) {
        const struct rlimit small = {.rlim_cur = limit, .rlim_max = before.rlim_max};

        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        const base_status_t st = data_dataset_write(ctx, FIXTURE_FILE, &f.content);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_int_equal(st, BASE_ERR_SPACE);
        fixture_expect_error(ctx, BASE_ERR_SPACE, "IO-02", "cannot write: File too large");
        assert_true(access(FIXTURE_FILE ".tmp-0000", F_OK) != 0);
    }
    ds = fixture_open(ctx);
    expect_content(ds, &f);
    data_dataset_close(ds);
    assert_int_equal(unlink(FIXTURE_FILE), 0);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(the_content_hash_is_that_of_the_bytes),
        cmocka_unit_test(the_same_content_gives_the_same_file),
        cmocka_unit_test(offsets_alone),
        cmocka_unit_test(other_spellings_of_the_file),
        cmocka_unit_test(threads_read_at_the_same_time),
        cmocka_unit_test(memory_failures_leave_nothing),
        cmocka_unit_test(what_cannot_be_written_leaves_the_old_file),
        cmocka_unit_test(a_full_disk_leaves_the_old_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
