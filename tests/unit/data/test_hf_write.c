#include "tests/support/ctx_fixture.h"

#include "base/file.h"
#include "data/hf_folder.h"
#include "data/hf_write.h"
#include "data/hf_write_config.h"
#include "data/hf_write_random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FOLDER "hf_write_test"
#define SOURCE "hf_write_source"

static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json",
                                    "chat_template.jinja", "notes.txt"};

static void remove_folder(const char *folder)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[100];

        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
}

static void end(base_ctx_t *ctx)
{
    remove_folder(FOLDER);
    remove_folder(SOURCE);
    assert_int_equal(base_file_kind(FOLDER ".tmp-0000"), BASE_FILE_NONE);
    fixture_ctx_end(ctx);
}

/* A small model of a family with all that its config.json can say. */
static data_model_spec_t spec_of(data_model_family_t family)
{
    data_model_spec_t spec = {.family = family,
                              .num_layers = 3,
                              .hidden = 12,
                              .intermediate = 20,
                              .vocab = 33,
                              .num_q_heads = 4,
                              .num_kv_heads = 2,
                              .head_dim = 6, /* 4 * 6 is not 12 */
                              .max_positions = 4096,
                              .rms_eps = 1e-6,
                              .rope = {.kind = DATA_ROPE_PLAIN, .theta = 1234567.875},
                              .num_eos = 2,
                              .eos = {7, 32}};

    spec.softmax_scale = 1.0 / sqrt(6.0);
    switch (family) {
    case DATA_MODEL_LLAMA:
        spec.qkv_bias = spec.o_bias = spec.mlp_bias = true;
        break;
    case DATA_MODEL_MISTRAL:
        for (int l = 0; l < 3; l++)
            spec.layer_window[l] = 100;
        break;
    case DATA_MODEL_QWEN2:
        spec.qkv_bias = true;
        spec.layer_window[0] = spec.layer_window[2] = 64;
        break;
    default:
        spec.qk_norm = true;
        spec.tied = true;
        spec.layer_window[1] = 17;
        break;
    }
    return spec;
}

/* Element `e` of a tensor is a number that names both; exact in both dtypes. */
static base_status_t numbered(void *arg, int64_t index, const data_model_tensor_t *tensor,
                              int64_t row, int64_t num_rows, float *to)
{
    const int64_t cols = tensor->rank == 2 ? tensor->shape[1] : 1;

    (void)arg;
    for (int64_t i = 0; i < num_rows * cols; i++)
        to[i] = (float)((index * 31 + row * cols + i) % 256) - 128.0f;
    return BASE_OK;
}

static data_hf_folder_t *write_and_open(base_ctx_t *ctx, const data_model_spec_t *spec,
                                        const data_hf_write_options_t *options)
{
    data_hf_folder_t *folder = NULL;
    base_error_t error;

    remove_folder(FOLDER);
    if (data_hf_write(ctx, FOLDER, spec, options, numbered, NULL) != BASE_OK ||
        data_hf_folder_open(ctx, FOLDER, NULL, &folder) != BASE_OK)
        fail_msg("%s", base_ctx_error(ctx, &error) ? error.text : "no text");
    return folder;
}

/* ==== what is written ==== */

static void expect_tensors(const data_hf_folder_t *folder, data_dtype_t dtype)
{
    const data_model_spec_t *spec = data_hf_folder_spec(folder);
    float found[33 * 12], wanted[33 * 12];

    for (int64_t i = 0; i < data_model_spec_num_tensors(spec); i++) {
        data_model_tensor_t tensor;
        int64_t elements;

        data_model_spec_tensor(spec, i, &tensor);
        elements = tensor.shape[0] * (tensor.rank == 2 ? tensor.shape[1] : 1);
        assert_true(elements <= 33 * 12);
        assert_int_equal(data_hf_folder_entry(folder, i)->dtype, dtype);
        assert_int_equal(data_hf_folder_read_float(folder, i, 0, tensor.shape[0], found), BASE_OK);
        (void)numbered(NULL, i, &tensor, 0, tensor.shape[0], wanted);
        assert_memory_equal(found, wanted, (size_t)elements * sizeof *found);
    }
}

/* Complaint 12: what was saved is opened and compared. */
static void complaint_12_all_families_read_back(void **state)
{
    base_ctx_t *ctx = fixture_ctx();

    (void)state;
    for (int family = 0; family < DATA_MODEL_NUM_FAMILIES; family++) {
        const data_model_spec_t spec = spec_of((data_model_family_t)family);

        for (int narrow = 0; narrow < 2; narrow++) {
            const data_dtype_t dtype = narrow ? DATA_BF16 : DATA_F32;
            const data_hf_write_options_t options = {.dtype = dtype};
            data_hf_folder_t *folder = write_and_open(ctx, &spec, &options);

            assert_true(data_hf_config_same(&spec, data_hf_folder_spec(folder)));
            expect_tensors(folder, dtype);
            data_hf_folder_close(folder);
        }
    }
    end(ctx);
}

static void ropes_windows_and_ends(void **state)
{
    const data_rope_t ropes[] = {
        {.kind = DATA_ROPE_LINEAR, .theta = 10000.0, .factor = 2.5},
        {.kind = DATA_ROPE_LLAMA3,
         .theta = 500000.0,
         .factor = 8.0,
         .original_max_positions = 8192,
         .low_freq_factor = 1.0,
         .high_freq_factor = 4.0},
        {.kind = DATA_ROPE_YARN,
         .theta = 1e6,
         .factor = 4.0,
         .original_max_positions = 32768,
         .beta_fast = 32.0,
         .beta_slow = 1.0,
         .attention_factor = 1.1386294361119891,
         .truncate = true},
        {.kind = DATA_ROPE_YARN,
         .theta = 1e6,
         .factor = 4.0,
         .original_max_positions = 32768,
         .beta_fast = 31.5,
         .beta_slow = 1.25,
         .attention_factor = 1.0 / 3.0,
         .truncate = false},
    };
    base_ctx_t *ctx = fixture_ctx();
    const data_hf_write_options_t options = {.dtype = DATA_F32};

    (void)state;
    for (int family = 0; family < DATA_MODEL_NUM_FAMILIES; family++) {
        data_model_spec_t spec = spec_of((data_model_family_t)family);

        for (size_t i = 0; i < sizeof ropes / sizeof *ropes; i++) {
            spec.rope = ropes[i];
            spec.num_eos = (int32_t)i % 3;
            spec.tied = i % 2 == 0;
            if (i > 1)
                for (int l = 0; l < spec.num_layers; l++)
                    spec.layer_window[l] = 0;
            data_hf_folder_close(write_and_open(ctx, &spec, &options));
        }
    }
    end(ctx);
}

/* What no config.json of the family says is not written as something else. */
static void specs_that_no_config_has(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    data_hf_write_options_t options = {.dtype = DATA_F32};
    data_model_spec_t spec[6];

    (void)state;
    for (int i = 0; i < 6; i++)
        spec[i] = spec_of(i == 1   ? DATA_MODEL_MISTRAL
                          : i == 2 ? DATA_MODEL_QWEN2
                                   : DATA_MODEL_LLAMA);
    spec[0].layer_window[1] = 5;
    spec[1].layer_window[1] = 5;
    spec[2].layer_window[1] = 5; /* two windows of different length */
    spec[3].qk_norm = true;
    spec[4].softmax_scale = 0.5;
    spec[5].o_bias = false;
    for (int i = 0; i < 6; i++) {
        assert_int_equal(data_hf_write(ctx, FOLDER, &spec[i], &options, numbered, NULL),
                         BASE_ERR_UNSUPPORTED);
        fixture_expect_error(ctx, BASE_ERR_UNSUPPORTED, "INT-01", "cannot express this spec");
        assert_int_equal(base_file_kind(FOLDER), BASE_FILE_NONE);
    }
    spec[0].hidden = 0;
    assert_int_equal(data_hf_write(ctx, FOLDER, &spec[0], &options, numbered, NULL), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "hidden is out of range");
    options.dtype = DATA_F64;
    spec[0] = spec_of(DATA_MODEL_LLAMA);
    assert_int_equal(data_hf_write(ctx, FOLDER, &spec[0], &options, numbered, NULL), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "dtype is out of range");
    end(ctx);
}

static void expect_file(base_ctx_t *ctx, const char *path, const char *piece)
{
    char *text;
    size_t bytes;

    assert_int_equal(base_file_read(ctx, path, 1 << 20, &text, &bytes), BASE_OK);
    if (strstr(text, piece) == NULL) fail_msg("%s has no %s: %s", path, piece, text);
    base_free(ctx, text);
}

static void files_beside_it_come_along(void **state)
{
    static const char config[] =
        "{\"bos_token_id\":1,\"pad_token_id\":0,\"initializer_range\":0.5}";
    base_ctx_t *ctx = fixture_ctx();
    const data_model_spec_t spec = spec_of(DATA_MODEL_QWEN3);
    data_hf_write_options_t options = {
        .dtype = DATA_F32, .files_from = SOURCE, .config_from = SOURCE "/config.json"};

    (void)state;
    assert_int_equal(base_file_make_dirs(ctx, SOURCE), BASE_OK);
    assert_int_equal(base_file_write(ctx, SOURCE "/config.json", config, strlen(config)), BASE_OK);
    assert_int_equal(base_file_write(ctx, SOURCE "/tokenizer.json", "{\"x\":1}", 7), BASE_OK);
    assert_int_equal(base_file_write(ctx, SOURCE "/notes.txt", "mine", 4), BASE_OK);
    /* An empty folder may be there; a slash at the end says nothing. */
    assert_int_equal(base_file_make_dirs(ctx, FOLDER), BASE_OK);
    assert_int_equal(data_hf_write(ctx, FOLDER "//", &spec, &options, numbered, NULL), BASE_OK);
    expect_file(ctx, FOLDER "/tokenizer.json", "{\"x\":1}");
    expect_file(ctx, FOLDER "/config.json", "\"bos_token_id\": 1,");
    expect_file(ctx, FOLDER "/config.json", "\"pad_token_id\": 0,");
    expect_file(ctx, FOLDER "/config.json", "\"initializer_range\": 0.5,");
    assert_int_equal(base_file_kind(FOLDER "/notes.txt"), BASE_FILE_NONE);
    assert_int_equal(base_file_kind(FOLDER "/chat_template.jinja"), BASE_FILE_NONE);

    /* A folder that holds something is left as it is. */
    assert_int_equal(data_hf_write(ctx, FOLDER, &spec, &options, numbered, NULL), BASE_ERR_CONFIG);
    fixture_expect_error(ctx, BASE_ERR_CONFIG, "DATA-16", FOLDER ": the folder is not empty");
    assert_int_equal(data_hf_write(ctx, SOURCE "/notes.txt", &spec, &options, numbered, NULL),
                     BASE_ERR_CONFIG);
    fixture_expect_error(ctx, BASE_ERR_CONFIG, "DATA-16", "a file stands where the folder");
    remove_folder(FOLDER);
    options.config_from = SOURCE "/none.json";
    assert_int_equal(data_hf_write(ctx, FOLDER, &spec, &options, numbered, NULL), BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-01", "none.json: cannot open");
    end(ctx);
}

/* ==== failures ==== */

typedef struct poison {
    int64_t index, row, col;
    float value;
    base_status_t st;
} poison_t;

static base_status_t poisoned(void *arg, int64_t index, const data_model_tensor_t *tensor,
                              int64_t row, int64_t num_rows, float *to)
{
    const poison_t *poison = arg;

    (void)numbered(NULL, index, tensor, row, num_rows, to);
    if (index != poison->index) return BASE_OK;
    to[(poison->row - row) * tensor->shape[1] + poison->col] = poison->value;
    return poison->st;
}

/* Complaint 5, its other half: an all-NaN model is not saved. */
static void complaint_5_what_is_not_finite_is_refused(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    const data_model_spec_t spec = spec_of(DATA_MODEL_LLAMA);
    const data_hf_write_options_t wide = {.dtype = DATA_F32}, narrow = {.dtype = DATA_BF16};
    poison_t poison = {.row = 5, .col = 3, .value = NAN};

    (void)state;
    poison.index = data_model_spec_index(&spec, DATA_TENSOR_K, 1);
    assert_int_equal(data_hf_write(ctx, FOLDER, &spec, &wide, poisoned, &poison), BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-17",
                         FOLDER ": tensor \"model.layers.1.self_attn.k_proj.weight\": row 5, "
                                "column 3 is nan as F32");
    poison.value = 3.4e38f; /* finite, but above the largest of bf16 */
    assert_int_equal(data_hf_write(ctx, FOLDER, &spec, &narrow, poisoned, &poison),
                     BASE_ERR_FORMAT);
    fixture_expect_error(ctx, BASE_ERR_FORMAT, "DATA-17", "column 3 is 3.4e+38 as BF16");
    assert_int_equal(base_file_kind(FOLDER), BASE_FILE_NONE);
    assert_int_equal(data_hf_write(ctx, FOLDER, &spec, &wide, poisoned, &poison), BASE_OK);
    remove_folder(FOLDER);
    /* What the source of the rows says ends it, too. */
    poison.st = BASE_ERR_DEVICE;
    assert_int_equal(data_hf_write(ctx, FOLDER, &spec, &wide, poisoned, &poison), BASE_ERR_DEVICE);
    assert_int_equal(base_file_kind(FOLDER), BASE_FILE_NONE);
    end(ctx);
}

static void memory_failures_leave_nothing(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    const data_model_spec_t spec = spec_of(DATA_MODEL_QWEN2);
    const data_hf_write_options_t options = {.dtype = DATA_F32, .files_from = SOURCE};
    base_status_t st = BASE_ERR_NOMEM;

    (void)state;
    assert_int_equal(base_file_make_dirs(ctx, SOURCE), BASE_OK);
    assert_int_equal(base_file_write(ctx, SOURCE "/tokenizer.json", "{}", 2), BASE_OK);
    for (int n = 1; st != BASE_OK; n++) {
        assert_true(n < 300);
        base_memory_fail_at(base_ctx_memory(ctx), n);
        st = data_hf_write(ctx, FOLDER, &spec, &options, numbered, NULL);
        base_memory_fail_at(base_ctx_memory(ctx), 0);
        if (st == BASE_OK) break;
        fixture_expect_error(ctx, BASE_ERR_NOMEM, "MEM-01", "");
        assert_int_equal(base_memory_live_total(base_ctx_memory(ctx)), 0);
        /* The last failures come after the rename. */
        if (base_file_kind(FOLDER) != BASE_FILE_NONE) remove_folder(FOLDER);
        remove_folder(FOLDER ".tmp-0000"); /* where listing it was what failed */
    }
    end(ctx);
}

/* ==== random weights ==== */

/* The numbers are what the header says, in whatever pieces they are asked for. The values come from
 * a second implementation, in Python; its libm may round the last bit of a float differently. */
static void random_weights_are_pinned(void **state)
{
    static const double wanted[6] = {-0.0139988698, 0.00755965943, 0.0197380893,
                                     -0.0219530258, 0.0353211351,  0.0238776952};
    const double ulp = 0x1p-28; /* of a float below 2^-4; all of them are */
    const data_model_spec_t spec = spec_of(DATA_MODEL_LLAMA);
    const int64_t q = data_model_spec_index(&spec, DATA_TENSOR_Q, 1);
    data_hf_random_t random = {.seed = UINT64_C(0x123456789), .std = 0.02};
    float whole[24 * 12], piece[24 * 12];
    data_model_tensor_t tensor;

    (void)state;
    data_model_spec_tensor(&spec, q, &tensor);
    assert_int_equal(data_hf_random_rows(&random, q, &tensor, 0, 24, whole), BASE_OK);
    for (int i = 0; i < 6; i++)
        if (fabs((double)whole[i] - wanted[i]) > ulp)
            fail_msg("element %d is %.9g, wanted %.9g", i, (double)whole[i], wanted[i]);
    for (int64_t row = 0; row < 24; row++)
        assert_int_equal(data_hf_random_rows(&random, q, &tensor, row, 1, piece + row * 12),
                         BASE_OK);
    assert_memory_equal(whole, piece, sizeof whole);
    /* Odd rows begin in the middle of a pair. */
    tensor.shape[1] = 3;
    for (int64_t row = 0; row < 96; row++)
        assert_int_equal(data_hf_random_rows(&random, q, &tensor, row, 1, piece + row * 3),
                         BASE_OK);
    assert_memory_equal(whole, piece, sizeof whole);
    random.seed++;
    assert_int_equal(data_hf_random_rows(&random, q, &tensor, 0, 96, piece), BASE_OK);
    assert_true(memcmp(whole, piece, sizeof whole) != 0);
}

/* Mean and deviation of 2^16 numbers: 0 within 5 sigma / 256, and 1 within 5 / sqrt(2 * 2^16). */
static void random_weights_are_normal(void **state)
{
    enum { COUNT = 1 << 16 };
    data_model_tensor_t tensor = {.kind = DATA_TENSOR_GATE, .rank = 2, .shape = {COUNT / 16, 16}};
    data_hf_random_t random = {.seed = 4, .std = 0.02};
    float *values = calloc(COUNT, sizeof *values);
    double sum = 0.0, squares = 0.0;

    (void)state;
    assert_non_null(values);
    (void)data_hf_random_rows(&random, 9, &tensor, 0, COUNT / 16, values);
    for (int i = 0; i < COUNT; i++) {
        const double v = (double)values[i] / 0.02;

        sum += v;
        squares += v * v;
    }
    assert_true(fabs(sum / COUNT) < 5.0 / 256.0);
    assert_true(fabs(sqrt(squares / COUNT) - 1.0) < 5.0 / sqrt(2.0 * COUNT));
    tensor = (data_model_tensor_t){.kind = DATA_TENSOR_K_NORM, .rank = 1, .shape = {5, 0}};
    (void)data_hf_random_rows(&random, 9, &tensor, 0, 5, values);
    assert_true(values[0] == 1.0f && values[4] == 1.0f);
    tensor.kind = DATA_TENSOR_DOWN_BIAS;
    (void)data_hf_random_rows(&random, 9, &tensor, 0, 5, values);
    assert_true(values[0] == 0.0f && values[4] == 0.0f);
    free(values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(complaint_12_all_families_read_back),
        cmocka_unit_test(ropes_windows_and_ends),
        cmocka_unit_test(specs_that_no_config_has),
        cmocka_unit_test(files_beside_it_come_along),
        cmocka_unit_test(complaint_5_what_is_not_finite_is_refused),
        cmocka_unit_test(memory_failures_leave_nothing),
        cmocka_unit_test(random_weights_are_pinned),
        cmocka_unit_test(random_weights_are_normal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
