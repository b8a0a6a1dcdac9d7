/* Files that are no dataset, or a damaged one: what is said of them. */
#define FIXTURE_FILE "dataset_faults_test.h5"
#include "tests/unit/data/dataset_fixture.h"

#include "base/file.h"
#include "data/json_read.h"

#include <unistd.h>

#define MODEL "dataset_faults_model"

/* The file is refused with `count` faults, the first of which is this one; with and without a list,
 * and nothing is left. */
static void expect_refusal(base_ctx_t *ctx, size_t count, const char *id, const char *piece)
{
    base_error_list_t errors;
    data_dataset_t *ds = NULL;

    base_error_list_init(&errors, ctx);
    assert_int_equal(data_dataset_open(ctx, FIXTURE_FILE, &errors, &ds), BASE_ERR_FORMAT);
    assert_null(ds);
    if (errors.count != count)
        fail_msg("%zu faults, the first: %s", errors.count, errors.items[0].text);
    assert_int_equal(data_errors_finish(&errors), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, id, piece);
    base_error_list_deinit(&errors);
    assert_int_equal(data_dataset_open(ctx, FIXTURE_FILE, NULL, &ds), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, id, FIXTURE_FILE ": ");
    assert_int_equal(base_memory_live_total(base_ctx_memory(ctx)), 0);
}

static base_ctx_t *begin(fixture_t *f)
{
    base_ctx_t *ctx = fixture_ctx();

    fixture_fill(f);
    fixture_write(ctx, f);
    return ctx;
}

static void end(base_ctx_t *ctx)
{
    assert_int_equal(unlink(FIXTURE_FILE), 0);
    fixture_ctx_end(ctx);
}

static void what_is_no_dataset(void **state)
{
    fixture_t f;
    base_ctx_t *ctx = begin(&f);
    data_dataset_t *ds = NULL;
    hid_t file;

    (void)state;
    fixture_set_number("format_version", 2);
    expect_refusal(ctx, 1, "DATA-11", "has format version 2, this program reads 1");
    fixture_set_text("format", "cadre-checkpoint", H5T_STR_NULLTERM);
    expect_refusal(ctx, 1, "DATA-11",
                   "attribute \"format\" is \"cadre-checkpoint\", wanted \"cadre-dataset\"");
    file = fixture_edit();
    assert_true(H5Adelete(file, "format") >= 0);
    fixture_edited(file);
    expect_refusal(ctx, 1, "DATA-11", "attribute \"format\" is missing");
    assert_int_equal(base_file_write(ctx, FIXTURE_FILE, "{\"text\":\"a\"}\n", 13), BASE_OK);
    expect_refusal(ctx, 1, "DATA-11", "is no HDF5 file (13 bytes)");
    assert_int_equal(base_file_write(ctx, FIXTURE_FILE, "", 0), BASE_OK);
    expect_refusal(ctx, 1, "DATA-11", "is no HDF5 file (0 bytes)");
    assert_int_equal(data_dataset_open(ctx, "no/such.h5", NULL, &ds), BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-01", "no/such.h5: cannot open: No such file");
    assert_int_equal(data_dataset_open(ctx, ".", NULL, &ds), BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-01", ".: cannot open: is no regular file");
    end(ctx);
}

static void attributes(void **state)
{
    fixture_t f;
    base_ctx_t *ctx = begin(&f);
    hid_t file;

    (void)state;
    fixture_set_number("vocab_size", 0);
    expect_refusal(ctx, 1, "DATA-12", "attribute \"vocab_size\" is 0, wanted 1 to 16777216");
    fixture_set_number("vocab_size", 2);
    expect_refusal(ctx, 1, "DATA-12", "attribute \"eos_id\" is 2, wanted -1 to 1");
    fixture_set_number("vocab_size", FIXTURE_VOCAB);
    fixture_set_text("content_sha256", "ABC", H5T_STR_NULLTERM);
    fixture_set_number("num_documents", 0);
    expect_refusal(ctx, 2, "DATA-12", "attribute \"num_documents\" is 0");
    fixture_set_text("num_documents", "40", H5T_STR_NULLTERM);
    file = fixture_edit();
    assert_true(H5Adelete(file, "settings") >= 0);
    fixture_edited(file);
    expect_refusal(ctx, 2, "DATA-12", "attribute \"settings\" is missing");
    end(ctx);
}

static void arrays(void **state)
{
    fixture_t f;
    base_ctx_t *ctx = begin(&f);
    const int64_t rows = f.offsets[FIXTURE_DOCUMENTS];

    (void)state;
    fixture_set_array("/tokens", H5T_STD_I64LE, 10, 0, f.line);
    expect_refusal(ctx, 1, "DATA-12", "dataset \"/tokens\" is not stored as int32");
    fixture_set_array("/tokens", H5T_STD_I32LE, rows - 1, 0, f.tokens);
    expect_refusal(ctx, 1, "DATA-12", "dataset \"/tokens\" has ");
    fixture_set_array("/tokens", H5T_STD_I32LE, 0, 0, NULL);
    fixture_set_array("/line", H5T_STD_I64LE, 0, 0, NULL);
    expect_refusal(ctx, 2, "DATA-12", "dataset \"/tokens\" is missing");
    end(ctx);
}

static void offsets(void **state)
{
    fixture_t f;
    base_ctx_t *ctx = begin(&f);
    const int64_t was = f.offsets[7];
    char text[200];

    (void)state;
    f.offsets[7] = f.offsets[8];
    fixture_set_array("/offsets", H5T_STD_I64LE, FIXTURE_DOCUMENTS + 1, 0, f.offsets);
    (void)snprintf(text, sizeof text,
                   "document 7: \"/offsets\" goes from %d to %d, wanted at least one row",
                   (int)f.offsets[8], (int)f.offsets[8]);
    expect_refusal(ctx, 1, "DATA-12", text);
    f.offsets[7] = INT64_MIN;
    fixture_set_array("/offsets", H5T_STD_I64LE, FIXTURE_DOCUMENTS + 1, 0, f.offsets);
    expect_refusal(ctx, 2, "DATA-12", "document 6: ");
    f.offsets[7] = was;
    f.offsets[FIXTURE_DOCUMENTS] += 3;
    fixture_set_array("/offsets", H5T_STD_I64LE, FIXTURE_DOCUMENTS + 1, 0, f.offsets);
    expect_refusal(ctx, 1, "DATA-12", "dataset \"/offsets\" goes from 0 to ");
    end(ctx);
}

/* Complaint 5: every label is masked, and the run "succeeds" with a loss of 0. */
static void complaint_5_documents_without_supervised_tokens(void **state)
{
    fixture_t f;
    base_ctx_t *ctx = begin(&f);
    int32_t supervised[FIXTURE_DOCUMENTS];
    int64_t sum = 0;

    (void)state;
    for (int64_t i = 0; i < FIXTURE_DOCUMENTS; i++) {
        supervised[i] = 0;
        for (int64_t r = f.offsets[i]; r < f.offsets[i + 1]; r++)
            supervised[i] += f.mask[r];
        sum += supervised[i];
    }
    sum -= supervised[9];
    supervised[9] = 0;
    fixture_set_array("/supervised", H5T_STD_I32LE, FIXTURE_DOCUMENTS, 0, supervised);
    fixture_set_number("num_supervised", sum);
    expect_refusal(ctx, 1, "DATA-14", "document 9 (line 14 of the JSONL): none of its ");
    fixture_set_number("num_supervised", sum + 1);
    expect_refusal(ctx, 2, "DATA-14", "document 9 ");
    memset(supervised, 0, sizeof supervised);
    fixture_set_array("/supervised", H5T_STD_I32LE, FIXTURE_DOCUMENTS, 0, supervised);
    fixture_set_number("num_supervised", 1);
    /* 20, "40 documents in all", and the sum. */
    expect_refusal(ctx, 22, "DATA-14", "document 0 (line 1 of the JSONL)");
    for (int64_t i = 0; i < FIXTURE_DOCUMENTS; i++)
        supervised[i] = 1;
    supervised[2] = (int32_t)(f.offsets[3] - f.offsets[2]);
    fixture_set_array("/supervised", H5T_STD_I32LE, FIXTURE_DOCUMENTS, 0, supervised);
    fixture_set_number("num_supervised", FIXTURE_DOCUMENTS - 1 + supervised[2]);
    expect_refusal(ctx, 1, "DATA-12", "document 2: \"/supervised\" says ");
    f.line[30] = 0;
    fixture_set_array("/line", H5T_STD_I64LE, FIXTURE_DOCUMENTS, 0, f.line);
    expect_refusal(ctx, 1, "DATA-12", "document 30: \"/line\" says 0, wanted at least 1");
    end(ctx);
}

/* What only reading a document shows. */
static void documents_are_checked_when_read(void **state)
{
    fixture_t f;
    base_ctx_t *ctx = begin(&f);
    const int64_t rows = f.offsets[FIXTURE_DOCUMENTS], from = f.offsets[4];
    int32_t tokens[FIXTURE_MAX_ROWS];
    uint8_t mask[FIXTURE_MAX_ROWS];
    data_dataset_t *ds;

    (void)state;
    f.tokens[from + 1] = FIXTURE_VOCAB;
    fixture_set_array("/tokens", H5T_STD_I32LE, rows, 0, f.tokens);
    ds = fixture_open(ctx);
    assert_int_equal(data_dataset_read(ds, 3, tokens, mask), BASE_OK);
    assert_int_equal(data_dataset_read(ds, 4, tokens, mask), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-12",
                         "document 4: row 1 is token 1000, the vocabulary has 1000");
    assert_int_equal(data_dataset_verify(ds), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-12", "the content has SHA-256 ");
    data_dataset_close(ds);
    f.tokens[from + 1] = -1;
    fixture_set_array("/tokens", H5T_STD_I32LE, rows, 64, f.tokens);
    ds = fixture_open(ctx);
    assert_int_equal(data_dataset_read(ds, 4, tokens, mask), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-12", "row 1 is token -1");
    data_dataset_close(ds);
    end(ctx);
}

static void masks_are_checked_when_read(void **state)
{
    fixture_t f;
    base_ctx_t *ctx = begin(&f);
    const int64_t rows = f.offsets[FIXTURE_DOCUMENTS], from = f.offsets[4];
    int32_t tokens[FIXTURE_MAX_ROWS];
    uint8_t mask[FIXTURE_MAX_ROWS];
    data_dataset_t *ds;

    (void)state;
    f.mask[from + 1] ^= 1;
    fixture_set_array("/loss_mask", H5T_STD_U8LE, rows, 0, f.mask);
    ds = fixture_open(ctx);
    assert_int_equal(data_dataset_read(ds, 4, tokens, mask), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-12", "\"/supervised\" says ");
    data_dataset_close(ds);
    f.mask[from + 1] = 2;
    fixture_set_array("/loss_mask", H5T_STD_U8LE, rows, 0, f.mask);
    ds = fixture_open(ctx);
    assert_int_equal(data_dataset_read(ds, 4, tokens, mask), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-12", "row 1 has loss_mask 2, wanted 0 or 1");
    data_dataset_close(ds);
    f.mask[from] = 1;
    fixture_set_array("/loss_mask", H5T_STD_U8LE, rows, 0, f.mask);
    ds = fixture_open(ctx);
    assert_int_equal(data_dataset_read(ds, 4, tokens, mask), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-12", "row 0 has loss_mask 1, wanted 0,");
    /* The file becomes shorter while it is open. */
    assert_int_equal(truncate(FIXTURE_FILE, 3000), 0);
    assert_int_equal(data_dataset_read(ds, 39, tokens, mask), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-12", " of the file, wanted are bytes up to ");
    data_dataset_close(ds);
    end(ctx);
}

static void a_dataset_of_another_model(void **state)
{
    fixture_t f;
    base_ctx_t *ctx = begin(&f);
    char hex[BASE_SHA256_HEX_BYTES];
    base_error_list_t errors;
    data_dataset_t *ds;

    (void)state;
    ds = fixture_open(ctx);
    assert_int_equal(data_dataset_match(ds, FIXTURE_SHA, FIXTURE_VOCAB, NULL), BASE_OK);
    assert_int_equal(data_dataset_match(ds, FIXTURE_SHA, 999, NULL), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-13",
                         FIXTURE_FILE ": was made for a vocab_size of 1000, the model's is 999");
    base_error_list_init(&errors, ctx);
    assert_int_equal(data_dataset_match(ds, FIXTURE_OTHER_SHA, 999, &errors), BASE_ERR_FORMAT);
    assert_int_equal(errors.count, 2);
    assert_int_equal(data_errors_finish(&errors), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-13",
                         "tokenizer.json of SHA-256 " FIXTURE_SHA
                         ", the model's is " FIXTURE_OTHER_SHA);
    base_error_list_deinit(&errors);
    data_dataset_close(ds);

    assert_int_equal(base_file_make_dirs(ctx, MODEL), BASE_OK);
    assert_int_equal(base_file_write(ctx, MODEL "/tokenizer.json", "abc", 3), BASE_OK);
    assert_int_equal(data_dataset_tokenizer_sha256(ctx, MODEL, hex), BASE_OK);
    assert_string_equal(hex, FIXTURE_OTHER_SHA); /* of "abc" */
    assert_int_equal(unlink(MODEL "/tokenizer.json"), 0);
    assert_int_equal(data_dataset_tokenizer_sha256(ctx, MODEL, hex), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-30", MODEL "/tokenizer.json: no such file");
    assert_int_equal(rmdir(MODEL), 0);
    end(ctx);
}

/* Cut at every length: an interrupted copy is always noticed when it is opened. */
static void cut_files_are_refused(void **state)
{
    fixture_t f;
    base_ctx_t *ctx = begin(&f);
    char *text;
    size_t bytes;

    (void)state;
    assert_int_equal(base_file_read(ctx, FIXTURE_FILE, 1 << 20, &text, &bytes), BASE_OK);
    base_free(ctx, text);
    for (size_t left = bytes; left-- > 0;) {
        data_dataset_t *ds = NULL;
        base_error_t error;

        assert_int_equal(truncate(FIXTURE_FILE, (off_t)left), 0);
        if (left % 7 != 0 && left + 40 < bytes && left > 40) continue; /* for the time it takes */
        assert_int_equal(data_dataset_open(ctx, FIXTURE_FILE, NULL, &ds), BASE_ERR_FORMAT);
        assert_true(base_ctx_error(ctx, &error));
        assert_memory_equal(base_message_id(error.message), "DATA-1", 6);
        base_ctx_clear_error(ctx);
    }
    end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_dataset),
        cmocka_unit_test(attributes),
        cmocka_unit_test(arrays),
        cmocka_unit_test(offsets),
        cmocka_unit_test(complaint_5_documents_without_supervised_tokens),
        cmocka_unit_test(documents_are_checked_when_read),
        cmocka_unit_test(masks_are_checked_when_read),
        cmocka_unit_test(a_dataset_of_another_model),
        cmocka_unit_test(cut_files_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
