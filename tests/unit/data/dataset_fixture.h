/* A small dataset of the tests' own, and ways to change its file behind the library's back.
 * FIXTURE_FILE is its path: programs that run at the same time need different ones. */
#ifndef CADRE_TESTS_UNIT_DATA_DATASET_FIXTURE_H
#define CADRE_TESTS_UNIT_DATA_DATASET_FIXTURE_H

#include "tests/support/ctx_fixture.h"

#include "base/philox.h"
#include "data/dataset_write.h"

#include <hdf5.h>
#include <stdio.h>

#define FIXTURE_DOCUMENTS 40
#define FIXTURE_MAX_ROWS  30
#define FIXTURE_VOCAB     1000
#define FIXTURE_SHA       "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define FIXTURE_OTHER_SHA "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

typedef struct fixture {
    data_dataset_content_t content;
    int64_t offsets[FIXTURE_DOCUMENTS + 1];
    int32_t tokens[FIXTURE_DOCUMENTS * FIXTURE_MAX_ROWS];
    uint8_t mask[FIXTURE_DOCUMENTS * FIXTURE_MAX_ROWS];
    int64_t line[FIXTURE_DOCUMENTS];
} fixture_t;

/* Documents of 2 to 30 rows, about half of the tokens supervised and the last one always; every
 * third line of the JSONL is missing. */
static inline void fixture_fill(fixture_t *f)
{
    const base_philox_key_t key = base_philox_key(11);

    memset(f, 0, sizeof *f);
    for (uint32_t i = 0; i < FIXTURE_DOCUMENTS; i++) {
        const int64_t from = f->offsets[i];
        const int64_t rows = 2 + base_philox(key, i, 0, 0, 0).word[0] % (FIXTURE_MAX_ROWS - 1);

        for (int64_t r = 0; r < rows; r++) {
            const base_philox_t draw = base_philox(key, i, (uint32_t)r, 1, 0);

            f->tokens[from + r] = (int32_t)(draw.word[0] % FIXTURE_VOCAB);
            f->mask[from + r] = r > 0 && (r == rows - 1 || draw.word[1] % 2 == 0);
        }
        f->offsets[i + 1] = from + rows;
        f->line[i] = i + i / 2 + 1;
    }
    f->content = (data_dataset_content_t){.attributes = {.creator = "a test",
                                                         .tokenizer_sha256 = FIXTURE_SHA,
                                                         .template_sha256 = "",
                                                         .source = "corpora/legal \xc3\xa9.jsonl",
                                                         .source_sha256 = FIXTURE_OTHER_SHA,
                                                         .settings = "{\"max_tokens\":30}",
                                                         .vocab_size = FIXTURE_VOCAB,
                                                         .eos_id = 2,
                                                         .bos_id = -1,
                                                         .num_documents = FIXTURE_DOCUMENTS},
                                          .offsets = f->offsets,
                                          .tokens = f->tokens,
                                          .loss_mask = f->mask,
                                          .line = f->line};
}

static inline void fixture_write(base_ctx_t *ctx, const fixture_t *f)
{
    base_error_t error;

    if (data_dataset_write(ctx, FIXTURE_FILE, &f->content) != BASE_OK)
        fail_msg("%s", base_ctx_error(ctx, &error) ? error.text : "no text");
}

static inline data_dataset_t *fixture_open(base_ctx_t *ctx)
{
    data_dataset_t *ds = NULL;
    base_error_t error;

    if (data_dataset_open(ctx, FIXTURE_FILE, NULL, &ds) != BASE_OK)
        fail_msg("%s", base_ctx_error(ctx, &error) ? error.text : "no text");
    return ds;
}

/* ==== changes to the file ==== */

static inline hid_t fixture_edit(void)
{
    const hid_t file = H5Fopen(FIXTURE_FILE, H5F_ACC_RDWR, H5P_DEFAULT);

    assert_true(file >= 0);
    return file;
}

static inline void fixture_edited(hid_t file)
{
    assert_true(H5Fclose(file) >= 0);
}

/* Replaces a number; name of an attribute. */
static inline void fixture_set_number(const char *name, int64_t value)
{
    const hid_t file = fixture_edit(), attribute = H5Aopen(file, name, H5P_DEFAULT);

    assert_true(attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0);
    assert_true(H5Aclose(attribute) >= 0);
    fixture_edited(file);
}

/* Replaces a text by one of fixed length, padded as `pad` says. */
static inline void fixture_set_text(const char *name, const char *text, H5T_str_t pad)
{
    const hid_t file = fixture_edit(), space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    hid_t attribute;

    assert_true(H5Tset_size(type, strlen(text) + (pad == H5T_STR_NULLTERM)) >= 0);
    assert_true(H5Tset_strpad(type, pad) >= 0);
    assert_true(H5Adelete(file, name) >= 0);
    attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(attribute >= 0 && H5Awrite(attribute, type, text) >= 0);
    (void)H5Aclose(attribute);
    (void)H5Tclose(type);
    (void)H5Sclose(space);
    fixture_edited(file);
}

/* Replaces a text by one of variable length. */
static inline void fixture_set_variable_text(const char *name, const char *text)
{
    const hid_t file = fixture_edit(), space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    hid_t attribute;

    assert_true(H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Adelete(file, name) >= 0);
    attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(attribute >= 0 && H5Awrite(attribute, type, &text) >= 0);
    (void)H5Aclose(attribute);
    (void)H5Tclose(type);
    (void)H5Sclose(space);
    fixture_edited(file);
}

/* Replaces an array: of `count` elements of `type`, in chunks of `chunk` with deflate (0:
 * contiguous). data NULL: it is only removed. */
static inline void fixture_set_array(const char *name, hid_t type, int64_t count, int64_t chunk,
                                     const void *data)
{
    const hid_t file = fixture_edit(), list = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t length = (hsize_t)count, piece = (hsize_t)chunk;
    const hid_t space = H5Screate_simple(1, &length, NULL);
    hid_t dataset;

    assert_true(H5Ldelete(file, name, H5P_DEFAULT) >= 0);
    if (chunk > 0) {
        assert_true(H5Pset_chunk(list, 1, &piece) >= 0);
        assert_true(H5Pset_deflate(list, 1) >= 0);
    }
    if (data != NULL) {
        dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
        assert_true(dataset >= 0 &&
                    H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
        (void)H5Dclose(dataset);
    }
    (void)H5Sclose(space);
    (void)H5Pclose(list);
    fixture_edited(file);
}

#endif
