/* Datasets with a changed byte. A program of its own: after some of these files the library (1.10.8)
 * leaks memory of its own and says "HDF5: infinite loop closing library" at exit. That we hold
 * nothing of it is checked here, and its leaks are left alone (tests/unit/data/CMakeLists.txt). */
#define FIXTURE_FILE "dataset_changed_test.h5"
#include "tests/unit/data/dataset_fixture.h"

#include "base/file.h"

#include <unistd.h>

/* Seeded changes of single bytes: what is opened and verified has the documents that were written.
 */
static void changed_bytes_are_noticed(void **state)
{
    const base_philox_key_t key = base_philox_key(5);
    fixture_t f;
    base_ctx_t *ctx = fixture_ctx();
    char *text;
    size_t bytes;
    int refused = 0, noticed = 0, same = 0;

    (void)state;
    fixture_fill(&f);
    fixture_write(ctx, &f);
    assert_int_equal(base_file_read(ctx, FIXTURE_FILE, 1 << 20, &text, &bytes), BASE_OK);
    for (uint32_t round = 0; round < 1500; round++) {
        const base_philox_t r = base_philox(key, round, 0, 0, 0);
        const size_t at = r.word[0] % bytes;
        const char was = text[at];
        FILE *stream = fopen(FIXTURE_FILE, "wb");
        data_dataset_t *ds = NULL;

        assert_non_null(stream);
        text[at] = (char)(was ^ (int)(1 + r.word[1] % 255));
        assert_int_equal(fwrite(text, 1, bytes, stream), bytes);
        assert_int_equal(fclose(stream), 0);
        text[at] = was;
        if (data_dataset_open(ctx, FIXTURE_FILE, NULL, &ds) != BASE_OK)
            refused++;
        else if (data_dataset_verify(ds) != BASE_OK)
            noticed++;
        else {
            int32_t tokens[FIXTURE_MAX_ROWS];
            uint8_t mask[FIXTURE_MAX_ROWS];

            for (int64_t i = 0; i < FIXTURE_DOCUMENTS; i++) {
                assert_int_equal(data_dataset_read(ds, i, tokens, mask), BASE_OK);
                assert_memory_equal(tokens, f.tokens + f.offsets[i],
                                    (size_t)data_dataset_rows(ds, i) * sizeof *tokens);
            }
            same++;
        }
        base_ctx_clear_error(ctx);
        data_dataset_close(ds);
        assert_int_equal(H5Fget_obj_count(H5F_OBJ_ALL, H5F_OBJ_ALL), 0);
    }
    print_message("refused %d, noticed by verify %d, same documents %d\n", refused, noticed, same);
    assert_true(refused > 200 && noticed > 200);
    base_free(ctx, text);
    assert_int_equal(unlink(FIXTURE_FILE), 0);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changed_bytes_are_noticed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
