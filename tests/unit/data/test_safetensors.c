#include "tests/support/ctx_fixture.h"

#include "base/file.h"
#include "base/philox.h"
#include "data/safetensors_read.h"
#include "data/safetensors_write.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH "safetensors_test.safetensors"

/* A file of this header and that many bytes of data; returns its size. */
static size_t compose(char *file, const char *header, size_t data_bytes)
{
    const size_t n = strlen(header);

    for (int i = 0; i < 8; i++)
        file[i] = (char)((uint64_t)n >> (8 * i));
    memcpy(file + 8, header, n);
    for (size_t i = 0; i < data_bytes; i++)
        file[8 + n + i] = (char)i;
    return 8 + n + data_bytes;
}

static void put_file(base_ctx_t *ctx, const char *header, size_t data_bytes)
{
    char file[4096];

    assert_int_equal(base_file_write(ctx, PATH, file, compose(file, header, data_bytes)), BASE_OK);
}

static void expect_fault(const char *header, size_t data_bytes, const char *id, const char *piece)
{
    base_ctx_t *ctx = fixture_ctx();
    data_safetensors_t *file = NULL;

    put_file(ctx, header, data_bytes);
    assert_int_equal(data_safetensors_open(ctx, PATH, NULL, &file), BASE_ERR_FORMAT);
    assert_null(file);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, id, piece);
    assert_int_equal(unlink(PATH), 0);
    fixture_ctx_end(ctx);
}

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
#define B "\"b\":{\"dtype\":\"BF16\",\"shape\":[1,3],\"data_offsets\":[8,14]}"

#define ONE(dtype, shape, range)                                                                   \
    "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" range "}}"

static void a_good_file_is_listed_and_read(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    data_safetensors_t *file = NULL;
    const data_safetensors_entry_t *b;
    unsigned char bytes[14];

    (void)state;
    put_file(ctx,
             "{" B ",\"__metadata__\":{\"format\":\"pt\"}," A
             ",\"s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[14,15]}"
             ",\"none\":{\"dtype\":\"I64\",\"shape\":[4,0],\"data_offsets\":[8,8]}}   ",
             15);
    assert_int_equal(data_safetensors_open(ctx, PATH, NULL, &file), BASE_OK);
    assert_int_equal(base_memory_live(base_ctx_memory(ctx), BASE_RESOURCE_FILE), 1);
    assert_string_equal(data_safetensors_path(file), PATH);
    assert_int_equal(data_safetensors_count(file), 4);
    assert_string_equal(data_safetensors_entry(file, 0)->name, "a");
    assert_string_equal(data_safetensors_entry(file, 3)->name, "s");
    assert_null(data_safetensors_find(file, "c"));
    b = data_safetensors_find(file, "b");
    assert_int_equal(b->dtype, DATA_BF16);
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(data_safetensors_elements(b), 3);
    assert_int_equal(data_safetensors_read(file, b, 2, 4, bytes), BASE_OK);
    assert_memory_equal(bytes, "\x0a\x0b\x0c\x0d", 4);
    assert_int_equal(data_safetensors_read_rows(file, b, 0, 1, bytes), BASE_OK);
    assert_int_equal(bytes[0], 8);
    assert_int_equal(
        data_safetensors_read_rows(file, data_safetensors_find(file, "a"), 1, 1, bytes), BASE_OK);
    assert_int_equal(bytes[0], 4);
    assert_int_equal(
        data_safetensors_read_rows(file, data_safetensors_find(file, "s"), 0, 1, bytes), BASE_OK);
    assert_int_equal(bytes[0], 14);
    assert_int_equal(
        data_safetensors_read_rows(file, data_safetensors_find(file, "none"), 0, 4, bytes),
        BASE_OK);

    assert_int_equal(data_safetensors_read(file, b, 3, 4, bytes), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "\"b\": 4 bytes from 3 of 6");
    assert_int_equal(data_safetensors_read_rows(file, b, 1, 1, bytes), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "1 rows from 1 of 1");
    assert_int_equal(truncate(PATH, 8 + 200), 0);
    assert_int_equal(data_safetensors_read_rows(file, b, 0, 1, bytes), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-06", "it was longer when it was opened");
    data_safetensors_close(file);
    assert_int_equal(unlink(PATH), 0);
    fixture_ctx_end(ctx);
}

static void an_empty_list_is_a_file(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    data_safetensors_t *file = NULL;

    (void)state;
    put_file(ctx, "{}", 0);
    assert_int_equal(data_safetensors_open(ctx, PATH, NULL, &file), BASE_OK);
    assert_int_equal(data_safetensors_count(file), 0);
    data_safetensors_close(file);
    /* Nothing is counted behind a dimension of 0, so nothing overflows. */
    put_file(ctx, ONE("F32", "[0,4611686018427387904,8]", "[0,0]"), 0);
    assert_int_equal(data_safetensors_open(ctx, PATH, NULL, &file), BASE_OK);
    assert_int_equal(data_safetensors_elements(data_safetensors_entry(file, 0)), 0);
    data_safetensors_close(file);
    expect_fault("{}", 3, "DATA-06", "ends at byte 0 of the data, the file has 3");
    fixture_ctx_end(ctx);
}

static void faults_name_tensor_and_numbers(void **state)
{
    (void)state;
    expect_fault("{" A "," B "}", 13, "DATA-06",
                 "ends at byte 14 of the data, the file has 13: it is cut short");
    expect_fault("{" A "," B "}", 15, "DATA-06", "ends at byte 14 of the data, the file has 15");
    expect_fault("{" A "," A "}", 8, "DATA-02", "duplicate object key");
    expect_fault("{" A ",\"b\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[10,12]}}", 12,
                 "DATA-06",
                 "\"b\" begins at byte 10 of the data, the one before it ends at 8: "
                 "there is a hole");
    expect_fault("{" A ",\"b\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[6,8]}}", 8,
                 "DATA-06",
                 "\"b\" begins at byte 6 of the data, the one before it ends at 8: "
                 "they overlap");
    expect_fault(ONE("F32", "[2]", "[0,4]"), 8, "DATA-06",
                 "[0, 4] are 4 bytes, F32 of shape [2] has 8");
    expect_fault(ONE("F32", "[2]", "[8,0]"), 8, "DATA-06", "[8, 0] are -8 bytes");
    expect_fault(ONE("F32", "[2]", "[0]"), 8, "DATA-04", "has 1 elements, 2 are wanted");
    expect_fault(ONE("F32", "[2]", "[0,8.0]"), 8, "DATA-04", "\"t.data_offsets[1]\": is a number");
    expect_fault(ONE("F32", "[-1]", "[0,8]"), 8, "DATA-04", "\"t.shape[0]\": is -1");
    expect_fault(ONE("F32", "2", "[0,8]"), 8, "DATA-04", "\"t.shape\": is an integer");
    expect_fault(ONE("F33", "[2]", "[0,8]"), 8, "DATA-05", "\"F33\" is not known");
    expect_fault(ONE("F4", "[2]", "[0,1]"), 1, "DATA-05", "\"F4\" is not known");
    expect_fault(ONE("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, "DATA-05", "has 9 dimensions");
    expect_fault(ONE("F32", "[4611686018427387904,2]", "[0,8]"), 8, "DATA-06", "63 bits");
    expect_fault(ONE("F32", "[4294967296,4294967296]", "[0,0]"), 0, "DATA-06", "63 bits");
    expect_fault(ONE("U8", "[0]", "[9223372036854775807,9223372036854775807]"), 0, "DATA-06",
                 "there is a hole");
    expect_fault("{\"t\":1}", 0, "DATA-04", "\"t\": is an integer, an object is wanted");
    expect_fault("{\"t\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "DATA-03",
                 "\"t.data_offsets\": is missing");
    expect_fault("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8,
                 "DATA-04", "\"t.x\": is no key");
    expect_fault("{\"__metadata__\":{\"format\":1}}", 0, "DATA-04", "\"__metadata__.format\"");
    expect_fault(" {}", 0, "DATA-06", "begins with byte 0x20, 0x7b '{' is wanted");
    expect_fault("", 0, "DATA-06", "begins with byte 0x00");
    expect_fault("{", 0, "DATA-02", PATH ":1:");
}

static void all_faulty_tensors_are_reported(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_error_list_t errors;
    data_safetensors_t *file = NULL;

    (void)state;
    base_error_list_init(&errors, ctx);
    put_file(ctx,
             "{\"x\":{\"dtype\":\"Q\",\"shape\":[],\"data_offsets\":[0,1]}," A
             ",\"y\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[8,10]}}",
             10);
    assert_int_equal(data_safetensors_open(ctx, PATH, &errors, &file), BASE_ERR_FORMAT);
    assert_int_equal(errors.count, 2);
    assert_false(base_ctx_error(ctx, &(base_error_t){0}));
    base_error_list_deinit(&errors);
    assert_int_equal(unlink(PATH), 0);
    fixture_ctx_end(ctx);
}

/* What git leaves where Git LFS was not installed. */
static void a_pointer_of_git_lfs(void **state)
{
    static const char text[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    base_ctx_t *ctx = fixture_ctx();
    data_safetensors_t *file = NULL;

    (void)state;
    assert_int_equal(base_file_write(ctx, PATH, text, strlen(text)), BASE_OK);
    assert_int_equal(data_safetensors_open(ctx, PATH, NULL, &file), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-06",
                         PATH ": is a Git LFS pointer of 63 bytes");
    assert_int_equal(unlink(PATH), 0);
    fixture_ctx_end(ctx);
}

static void files_without_a_header(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    data_safetensors_t *file = NULL;
    const unsigned char long_header[] = {1, 225, 245, 5, 0, 0, 0, 0, '{', '}'}; /* 100000001 */

    (void)state;
    assert_int_equal(base_file_write(ctx, PATH, "abc", 3), BASE_OK);
    assert_int_equal(data_safetensors_open(ctx, PATH, NULL, &file), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-06", "has 3 bytes");
    assert_int_equal(base_file_write(ctx, PATH, long_header, sizeof long_header), BASE_OK);
    assert_int_equal(data_safetensors_open(ctx, PATH, NULL, &file), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-06",
                         "100000001 bytes, at most 100000000 are allowed");
    assert_int_equal(base_file_write(ctx, PATH, "\5\0\0\0\0\0\0\0{}", 10), BASE_OK);
    assert_int_equal(data_safetensors_open(ctx, PATH, NULL, &file), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-06", "has 5 bytes, the file ends after 2");
    assert_int_equal(unlink(PATH), 0);
    assert_int_equal(data_safetensors_open(ctx, PATH, NULL, &file), BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-01", "cannot open: No such file");
    assert_int_equal(data_safetensors_open(ctx, ".", NULL, &file), BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-01", "Is a directory");
    fixture_ctx_end(ctx);
}

/* ==== writer ==== */

static void the_writer_keeps_the_reference_order(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    const float f32[3] = {1.0f, 2.0f, 3.0f};
    const uint16_t z[2] = {7, 8}, a[1] = {9};
    const uint16_t h[1] = {10};
    const data_safetensors_tensor_t tensors[] = {
        {"z", DATA_BF16, 2, {1, 2}}, {"m", DATA_F32, 1, {3}}, {"a", DATA_BF16, 0, {0}},
        {"h", DATA_F16, 1, {1}},     {"e", DATA_F32, 1, {0}},
    };
    const void *const data[] = {z, f32, a, h, NULL};
    const char *const header =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"e\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
        "\"m\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},"
        "\"a\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[12,14]},"
        "\"z\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[14,18]},"
        "\"h\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[18,20]}}";
    const size_t padded = (strlen(header) + 7) / 8 * 8;
    data_safetensors_t *file = NULL;
    char *bytes;
    size_t size;
    uint16_t back[2];

    (void)state;
    assert_int_equal(data_safetensors_write(ctx, PATH, tensors, data, 5), BASE_OK);
    assert_int_equal(base_file_read(ctx, PATH, 1 << 20, &bytes, &size), BASE_OK);
    assert_int_equal(size, 8 + padded + 20);
    assert_int_equal((unsigned char)bytes[0] | (unsigned char)bytes[1] << 8, padded);
    assert_memory_equal(bytes + 8, header, strlen(header));
    for (size_t i = strlen(header); i < padded; i++)
        assert_int_equal(bytes[8 + i], ' ');
    assert_memory_equal(bytes + 8 + padded, f32, 12);
    base_free(ctx, bytes);
    assert_int_equal(data_safetensors_open(ctx, PATH, NULL, &file), BASE_OK);
    assert_int_equal(data_safetensors_read_rows(file, data_safetensors_find(file, "z"), 0, 1, back),
                     BASE_OK);
    assert_memory_equal(back, z, sizeof z);
    data_safetensors_close(file);
    assert_int_equal(unlink(PATH), 0);
    fixture_ctx_end(ctx);
}

static void the_writer_refuses_what_is_wrong(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    data_safetensors_tensor_t tensors[] = {{"a", DATA_F32, 1, {2}}, {"a", DATA_F16, 1, {2}}};
    data_safetensors_writer_t *w = NULL;
    const float f[2] = {0};

    (void)state;
    assert_int_equal(data_safetensors_create(ctx, PATH, tensors, 2, &w), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "two tensors are called \"a\"");
    tensors[1].name = "__metadata__";
    assert_int_equal(data_safetensors_create(ctx, PATH, tensors, 2, &w), BASE_ERR_ARG);
    base_ctx_clear_error(ctx);
    tensors[1].name = "b";
    tensors[1].shape[0] = INT64_MAX;
    assert_int_equal(data_safetensors_create(ctx, PATH, tensors, 2, &w), BASE_ERR_ARG);
    base_ctx_clear_error(ctx);
    assert_int_equal(data_safetensors_create(ctx, "none/x", tensors, 1, &w), BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-02", "none/x");

    assert_int_equal(data_safetensors_create(ctx, PATH, tensors, 1, &w), BASE_OK);
    assert_int_equal(data_safetensors_append(w, f, 12), BASE_ERR_ARG);
    base_ctx_clear_error(ctx);
    assert_int_equal(data_safetensors_append(w, f, 4), BASE_OK);
    assert_int_equal(data_safetensors_next(w), 0);
    assert_int_equal(data_safetensors_commit(w), BASE_ERR_STATE);
    fixture_expect_error(ctx, BASE_ERR_STATE, "INT-01", "\"a\" is not complete");
    assert_int_equal(base_file_kind(PATH), BASE_FILE_NONE);
    assert_int_equal(data_safetensors_create(ctx, PATH, tensors, 1, &w), BASE_OK);
    data_safetensors_discard(w);
    data_safetensors_discard(NULL);
    assert_int_equal(base_file_kind(PATH), BASE_FILE_NONE);
    fixture_ctx_end(ctx);
}

/* ==== memory and mutations ==== */

static void memory_failures_leave_nothing(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    base_status_t st = BASE_ERR_NOMEM;

    (void)state;
    put_file(ctx, "{" A "," B "}", 14);
    for (int n = 1; st != BASE_OK; n++) {
        data_safetensors_t *file = NULL;

        assert_true(n < 100);
        base_memory_fail_at(base_ctx_memory(ctx), n);
        st = data_safetensors_open(ctx, PATH, NULL, &file);
        assert_true(st == BASE_OK || st == BASE_ERR_NOMEM);
        base_memory_fail_at(base_ctx_memory(ctx), 0);
        base_ctx_clear_error(ctx);
        data_safetensors_close(file);
        assert_int_equal(base_memory_live_total(base_ctx_memory(ctx)), 0);
    }
    assert_int_equal(unlink(PATH), 0);
    fixture_ctx_end(ctx);
}

/* Seeded changes of a good file: bytes replaced, removed, doubled, the end cut. Whatever comes out
 * is opened and read, or refused with an id. */
static void mutations_are_read_or_refused(void **state)
{
    static const char alphabet[] = "0123456789{}[]\",:. -aeF\\\n";
    const base_philox_key_t key = base_philox_key(20);
    base_ctx_t *ctx = fixture_ctx();
    char good[1024], bad[1024];
    const size_t size =
        compose(good,
                "{\"__metadata__\":{\"format\":\"pt\"}," A "," B
                ",\"c\":{\"dtype\":\"U8\",\"shape\":[2,1],\"data_offsets\":[14,16]}}",
                16);
    int opened = 0, refused = 0;

    (void)state;
    for (uint32_t round = 0; round < 2000; round++) {
        const base_philox_t r = base_philox(key, round, 0, 0, 0);
        size_t bytes = size;
        data_safetensors_t *file = NULL;
        FILE *stream;
        base_status_t st;

        memcpy(bad, good, size);
        for (uint32_t i = 0; i <= r.word[0] % 3; i++) {
            const base_philox_t q = base_philox(key, round, i + 1, 0, 0);
            const size_t at = q.word[0] % bytes;

            if (q.word[1] % 8 == 0) {
                memmove(bad + at, bad + at + 1, bytes - at - 1);
                bytes--;
            } else if (q.word[1] % 8 == 1) {
                memmove(bad + at + 1, bad + at, bytes - at);
                bytes++;
            } else if (q.word[1] % 8 == 2)
                bytes = at + 1;
            else
                bad[at] = q.word[1] % 8 == 3 ? (char)q.word[2]
                                             : alphabet[q.word[2] % (sizeof alphabet - 1)];
        }
        /* Not through base_file_write, which would sync each of them. */
        stream = fopen(PATH, "wb");
        assert_non_null(stream);
        assert_int_equal(fwrite(bad, 1, bytes, stream), bytes);
        assert_int_equal(fclose(stream), 0);
        st = data_safetensors_open(ctx, PATH, NULL, &file);
        if (st == BASE_OK) {
            char data[16];

            for (int64_t i = 0; i < data_safetensors_count(file); i++) {
                const data_safetensors_entry_t *entry = data_safetensors_entry(file, i);

                assert_true(entry->bytes <= 16);
                assert_ptr_equal(data_safetensors_find(file, entry->name), entry);
                assert_int_equal(data_safetensors_read(file, entry, 0, entry->bytes, data),
                                 BASE_OK);
            }
            data_safetensors_close(file);
            opened++;
        } else {
            base_error_t error;

            assert_int_equal(st, BASE_ERR_FORMAT);
            assert_true(base_ctx_error(ctx, &error));
            assert_non_null(strstr(error.text, PATH));
            assert_memory_equal(base_message_id(error.message), "DATA-0", 6);
            base_ctx_clear_error(ctx);
            refused++;
        }
    }
    assert_true(opened > 50 && refused > 1000);
    assert_int_equal(unlink(PATH), 0);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file_is_listed_and_read),
        cmocka_unit_test(an_empty_list_is_a_file),
        cmocka_unit_test(faults_name_tensor_and_numbers),
        cmocka_unit_test(all_faulty_tensors_are_reported),
        cmocka_unit_test(a_pointer_of_git_lfs),
        cmocka_unit_test(files_without_a_header),
        cmocka_unit_test(the_writer_keeps_the_reference_order),
        cmocka_unit_test(the_writer_refuses_what_is_wrong),
        cmocka_unit_test(memory_failures_leave_nothing),
        cmocka_unit_test(mutations_are_read_or_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
