#include "tests/support/ctx_fixture.h"

#include "base/file.h"
#include "base/philox.h"
#include "data/hf_folder.h"
#include "data/json_read.h"
#include "data/safetensors_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A model folder of the test's own: a Llama of two layers, some kilobytes. */
#define FOLDER      "hf_folder_test"
#define MAX_TENSORS 64

static const char config_text[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":\"silu\","
    "\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
    "\"num_key_value_heads\":1,\"vocab_size\":20,\"max_position_embeddings\":64,"
    "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"tie_word_embeddings\":%s}";

typedef struct model {
    base_ctx_t *ctx;
    int64_t count;
    data_model_tensor_t tensor[MAX_TENSORS];
    data_safetensors_tensor_t file[MAX_TENSORS]; /* what is written; names borrow from tensor */
    float value[MAX_TENSORS][256];
    const void *data[MAX_TENSORS];
} model_t;

static model_t *model_create(bool tied)
{
    const data_model_spec_t spec = {.num_layers = 2,
                                    .hidden = 8,
                                    .intermediate = 12,
                                    .vocab = 20,
                                    .num_q_heads = 2,
                                    .num_kv_heads = 1,
                                    .head_dim = 4,
                                    .tied = tied};
    model_t *m = calloc(1, sizeof *m);
    char text[1024];

    assert_non_null(m);
    m->ctx = fixture_ctx();
    assert_int_equal(base_file_make_dirs(m->ctx, FOLDER), BASE_OK);
    (void)snprintf(text, sizeof text, config_text, tied ? "true" : "false");
    assert_int_equal(base_file_write(m->ctx, FOLDER "/config.json", text, strlen(text)), BASE_OK);
    m->count = data_model_spec_num_tensors(&spec);
    assert_true(m->count + 2 <= MAX_TENSORS);
    for (int64_t i = 0; i < m->count; i++) {
        data_model_tensor_t *t = &m->tensor[i];

        data_model_spec_tensor(&spec, i, t);
        m->file[i] = (data_safetensors_tensor_t){.name = t->name,
                                                 .dtype = DATA_F32,
                                                 .rank = t->rank,
                                                 .shape = {t->shape[0], t->shape[1]}};
    }
    for (int64_t i = 0; i < MAX_TENSORS; i++) {
        m->data[i] = m->value[i];
        for (int k = 0; k < 256; k++)
            m->value[i][k] = (float)i + (float)k / 256.0f;
    }
    return m;
}

static void write_files(model_t *m)
{
    assert_int_equal(
        data_safetensors_write(m->ctx, FOLDER "/model.safetensors", m->file, m->data, m->count),
        BASE_OK);
}

/* Tensors [0, cut) in one shard, the rest in the other. */
static void write_shards(model_t *m, int64_t cut)
{
    assert_int_equal(data_safetensors_write(m->ctx, FOLDER "/a.safetensors", m->file, m->data, cut),
                     BASE_OK);
    assert_int_equal(data_safetensors_write(m->ctx, FOLDER "/b.safetensors", m->file + cut,
                                            m->data + cut, m->count - cut),
                     BASE_OK);
}

static void write_index(model_t *m, int64_t cut, const char *extra)
{
    char text[8192];
    int used = snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");

    for (int64_t i = 0; i < m->count; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, "\"%s\":\"%s.safetensors\",",
                         m->file[i].name, i < cut ? "a" : "b");
    used += snprintf(text + used - 1, sizeof text - (size_t)used, "%s}}", extra) - 1;
    assert_int_equal(
        base_file_write(m->ctx, FOLDER "/model.safetensors.index.json", text, (size_t)used),
        BASE_OK);
}

static void model_end(model_t *m)
{
    static const char *const files[] = {"config.json",
                                        "model.safetensors",
                                        "a.safetensors",
                                        "b.safetensors",
                                        "model.safetensors.index.json",
                                        "adapter_config.json"};

    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[100];

        (void)snprintf(path, sizeof path, "%s/%s", FOLDER, files[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(FOLDER), 0);
    fixture_ctx_end(m->ctx);
    free(m);
}

static data_hf_folder_t *open_good(model_t *m)
{
    data_hf_folder_t *folder = NULL;
    base_error_t error;

    if (data_hf_folder_open(m->ctx, FOLDER, NULL, &folder) != BASE_OK)
        fail_msg("%s", base_ctx_error(m->ctx, &error) ? error.text : "no text");
    return folder;
}

/* The folder is refused with `count` faults, the first of which is this one. */
static void expect_faults(model_t *m, size_t count, const char *id, const char *piece)
{
    base_error_list_t errors;
    data_hf_folder_t *folder = NULL;

    base_error_list_init(&errors, m->ctx);
    assert_int_equal(data_hf_folder_open(m->ctx, FOLDER, &errors, &folder), BASE_ERR_FORMAT);
    assert_null(folder);
    if (errors.count != count)
        fail_msg("%zu faults, the first: %s", errors.count, errors.items[0].text);
    assert_int_equal(data_errors_finish(&errors), BASE_ERR_FORMAT);
    fixture_expect_error(m->ctx, BASE_ERR_FORMAT, id, piece);
    base_error_list_deinit(&errors);
    assert_int_equal(data_hf_folder_open(m->ctx, FOLDER, NULL, &folder), BASE_ERR_FORMAT);
    fixture_expect_error(m->ctx, BASE_ERR_FORMAT, id, piece);
    assert_int_equal(base_memory_live_total(base_ctx_memory(m->ctx)), 0);
}

static void a_folder_is_read(void **state)
{
    model_t *m = model_create(false);
    data_hf_folder_t *folder;
    const int64_t q = 4; /* the list begins with embedding, norm, head, norm1 */
    float f[64];
    double d[64];
    uint64_t hash, again;

    (void)state;
    assert_string_equal(m->file[q].name, "model.layers.0.self_attn.q_proj.weight");
    write_files(m);
    folder = open_good(m);
    assert_int_equal(data_hf_folder_spec(folder)->head_dim, 4);
    assert_int_equal(data_hf_folder_entry(folder, q)->dtype, DATA_F32);
    assert_int_equal(data_hf_folder_read_float(folder, q, 2, 3, f), BASE_OK);
    assert_memory_equal(f, m->value[q] + 16, 24 * sizeof *f);
    assert_int_equal(data_hf_folder_read_double(folder, q, 2, 3, d), BASE_OK);
    for (int i = 0; i < 24; i++)
        assert_true(d[i] == (double)m->value[q][16 + i]);
    assert_int_equal(data_hf_folder_read_raw(folder, q, 7, 1, f), BASE_OK);
    assert_int_equal(data_hf_folder_read_double(folder, q, 7, 2, d), BASE_ERR_ARG);
    fixture_expect_error(m->ctx, BASE_ERR_ARG, "INT-01", "2 rows from 7 of 8");
    assert_int_equal(data_hf_folder_read_double(folder, q, 9, 0, d), BASE_ERR_ARG);
    base_ctx_clear_error(m->ctx);
    assert_int_equal(data_hf_folder_hash(folder, &hash), BASE_OK);
    data_hf_folder_close(folder);

    /* The hash is that of the tensors, not of the files, and sees a changed value. */
    assert_int_equal(unlink(FOLDER "/model.safetensors"), 0);
    write_shards(m, 9);
    write_index(m, 9, "");
    folder = open_good(m);
    assert_int_equal(base_memory_live(base_ctx_memory(m->ctx), BASE_RESOURCE_FILE), 2);
    assert_int_equal(data_hf_folder_read_float(folder, q, 2, 3, f), BASE_OK);
    assert_memory_equal(f, m->value[q] + 16, 24 * sizeof *f);
    assert_int_equal(data_hf_folder_hash(folder, &again), BASE_OK);
    assert_true(hash == again);
    data_hf_folder_close(folder);
    m->value[q][3] += 1.0f;
    write_shards(m, 9);
    folder = open_good(m);
    assert_int_equal(data_hf_folder_hash(folder, &again), BASE_OK);
    assert_false(hash == again);
    data_hf_folder_close(folder);
    model_end(m);
}

static void other_dtypes_are_converted(void **state)
{
    model_t *m = model_create(false);
    data_hf_folder_t *folder;
    uint16_t half[256];
    float f[64];
    double d[64];

    (void)state;
    for (int i = 0; i < 256; i++)
        half[i] = data_bf16_from_float((float)i - 100.0f);
    m->file[4].dtype = DATA_BF16;
    m->data[4] = half;
    write_files(m);
    folder = open_good(m);
    assert_int_equal(data_hf_folder_read_float(folder, 4, 1, 7, f), BASE_OK);
    assert_int_equal(data_hf_folder_read_double(folder, 4, 1, 7, d), BASE_OK);
    for (int i = 0; i < 56; i++)
        assert_true(f[i] == (float)(8 + i) - 100.0f && d[i] == (double)f[i]);
    data_hf_folder_close(folder);
    m->file[4].dtype = DATA_I16;
    write_files(m);
    expect_faults(m, 1, "DATA-09", "q_proj.weight\" is I16");
    model_end(m);
}

static void tensors_are_compared_in_one_pass(void **state)
{
    model_t *m = model_create(false);

    (void)state;
    m->file[m->count] = (data_safetensors_tensor_t){"extra.bias", DATA_F32, 1, {3}};
    m->file[m->count + 1] = (data_safetensors_tensor_t){
        "model.layers.1.self_attn.rotary_emb.inv_freq", DATA_F32, 1, {2}};
    m->count += 2;
    write_files(m);
    expect_faults(m, 1, "DATA-08",
                  FOLDER
                  "/model.safetensors: tensor \"extra.bias\" is not part of this llama model "
                  "with 2 layers");
    m->file[5].name = "model.layers.2.self_attn.k_proj.weight"; /* layer 0's is missing then */
    m->file[0].shape[0] = 21;
    write_files(m);
    expect_faults(m, 4, "DATA-09",
                  "tensor \"model.embed_tokens.weight\" has shape [21, 8], config.json gives "
                  "[20, 8]");
    m->file[0].shape[0] = 20;
    m->count -= 2;
    write_files(m);
    expect_faults(
        m, 2, "DATA-07",
        "tensor \"model.layers.0.self_attn.k_proj.weight\" of shape [4, 8] is in no file");
    model_end(m);
}

static void a_tied_head_is_absent_or_equal(void **state)
{
    model_t *m = model_create(true);

    (void)state;
    write_files(m);
    data_hf_folder_close(open_good(m));
    m->file[m->count] = m->file[0];
    m->file[m->count].name = "lm_head.weight";
    m->data[m->count] = m->data[0];
    m->count++;
    write_files(m);
    data_hf_folder_close(open_good(m));
    m->data[m->count - 1] = m->value[7];
    write_files(m);
    expect_faults(m, 1, "DATA-08", "\"lm_head.weight\" differs from \"model.embed_tokens.weight\"");
    model_end(m);
}

static void index_and_shards_have_to_agree(void **state)
{
    model_t *m = model_create(false);

    (void)state;
    write_shards(m, 9);
    write_index(m, 10, "");
    expect_faults(m, 2, "DATA-10", "is not in \"a.safetensors\", where the index places it");
    write_index(m, 9, ",\"ghost\":\"b.safetensors\"");
    expect_faults(m, 1, "DATA-10", "\"weight_map.ghost\": is not in \"b.safetensors\"");
    write_index(m, 9, ",\"x\":\"../b.safetensors\",\"y\":7");
    expect_faults(m, 2, "DATA-10", "\"weight_map.x\": is in \"../b.safetensors\"");
    write_index(m, 9, ",\"x\":\"c.safetensors\"");
    expect_faults(m, 1, "DATA-01", "names the shard \"c.safetensors\", which is not in the folder");
    m->count--;
    write_index(m, 9, "");
    m->count++;
    expect_faults(m, 1, "DATA-10", "b.safetensors\" but not in the index");
    write_index(m, 9, "");
    assert_int_equal(truncate(FOLDER "/a.safetensors", 900), 0);
    assert_int_equal(truncate(FOLDER "/b.safetensors", 7), 0);
    expect_faults(m, 2, "DATA-06", FOLDER "/a.safetensors: ");
    write_files(m);
    expect_faults(m, 1, "DATA-01", "has both model.safetensors and model.safetensors.index.json");
    model_end(m);
}

static void what_is_no_model_folder(void **state)
{
    model_t *m = model_create(false);
    data_hf_folder_t *folder = NULL;

    (void)state;
    expect_faults(m, 1, "DATA-01", FOLDER ": has neither model.safetensors nor");
    /* What was downloaded before safetensors; and a cache that was copied without its blobs. */
    assert_int_equal(base_file_write(m->ctx, FOLDER "/pytorch_model.bin", "PK", 2), BASE_OK);
    expect_faults(m, 1, "DATA-01", FOLDER ": has only pytorch_model.bin, a pickle");
    assert_int_equal(symlink("../../blobs/none", FOLDER "/model.safetensors"), 0);
    expect_faults(m, 1, "DATA-01",
                  FOLDER ": has its weights as a link to \"../../blobs/none\", which is not there");
    assert_int_equal(unlink(FOLDER "/model.safetensors"), 0);
    assert_int_equal(unlink(FOLDER "/pytorch_model.bin"), 0);
    write_files(m);
    /* Faults of config.json and of the files are reported together. */
    assert_int_equal(base_file_write(m->ctx, FOLDER "/config.json", "{\"zap\":1}", 9), BASE_OK);
    assert_int_equal(truncate(FOLDER "/model.safetensors", 8), 0);
    expect_faults(m, 3, "DATA-05", FOLDER "/config.json: \"zap\"");
    assert_int_equal(unlink(FOLDER "/config.json"), 0);
    expect_faults(m, 1, "DATA-01", FOLDER ": has no config.json");
    assert_int_equal(base_file_write(m->ctx, FOLDER "/adapter_config.json", "{}", 2), BASE_OK);
    expect_faults(m, 1, "DATA-01", "is an adapter, a base model is wanted");
    assert_int_equal(data_hf_folder_open(m->ctx, "no/such", NULL, &folder), BASE_ERR_FORMAT);
    fixture_expect_error(m->ctx, BASE_ERR_FORMAT, "DATA-01", "no/such: there is no such folder");
    assert_int_equal(data_hf_folder_open(m->ctx, FOLDER "/adapter_config.json", NULL, &folder),
                     BASE_ERR_FORMAT);
    fixture_expect_error(m->ctx, BASE_ERR_FORMAT, "DATA-01", "is a file, not a folder");
    model_end(m);
}

/* A fault that is recorded at once, not in the list, is an error all the same. */
static void a_config_of_unlikely_size_is_refused(void **state)
{
    model_t *m = model_create(false);
    data_hf_folder_t *folder = NULL;
    base_error_list_t errors;

    (void)state;
    write_files(m);
    assert_int_equal(truncate(FOLDER "/config.json", INT64_C(17) << 20), 0);
    base_error_list_init(&errors, m->ctx);
    assert_int_equal(data_hf_folder_open(m->ctx, FOLDER, &errors, &folder), BASE_ERR_FORMAT);
    assert_null(folder);
    fixture_expect_error(m->ctx, BASE_ERR_FORMAT, "IO-03", FOLDER "/config.json");
    base_error_list_deinit(&errors);
    model_end(m);
}

/* Seeded changes of single bytes of a good index: the whole model, or an id. */
static void changed_indexes_are_read_or_refused(void **state)
{
    static const char alphabet[] = "abz.\"{}[],:/ 0_";
    const base_philox_key_t key = base_philox_key(22);
    const char *const path = FOLDER "/model.safetensors.index.json";
    model_t *m = model_create(false);
    char *text;
    size_t bytes;
    int refused = 0;

    (void)state;
    write_shards(m, 9);
    write_index(m, 9, "");
    assert_int_equal(base_file_read(m->ctx, path, 1 << 20, &text, &bytes), BASE_OK);
    for (uint32_t round = 0; round < 500; round++) {
        const base_philox_t r = base_philox(key, round, 0, 0, 0);
        const size_t at = r.word[0] % bytes;
        const char was = text[at];
        data_hf_folder_t *folder = NULL;
        FILE *stream = fopen(path, "wb");
        base_error_t error;

        assert_non_null(stream);
        text[at] = alphabet[r.word[1] % (sizeof alphabet - 1)];
        assert_int_equal(fwrite(text, 1, bytes, stream), bytes);
        assert_int_equal(fclose(stream), 0);
        text[at] = was;
        if (data_hf_folder_open(m->ctx, FOLDER, NULL, &folder) == BASE_OK) {
            data_hf_folder_close(folder);
            continue;
        }
        assert_true(base_ctx_error(m->ctx, &error));
        assert_int_equal(error.status, BASE_ERR_FORMAT);
        assert_memory_equal(base_message_id(error.message), "DATA-", 5);
        base_ctx_clear_error(m->ctx);
        refused++;
    }
    assert_true(refused > 300);
    base_free(m->ctx, text);
    model_end(m);
}

static void memory_failures_leave_nothing(void **state)
{
    model_t *m = model_create(true);
    base_status_t st = BASE_ERR_NOMEM;

    (void)state;
    m->file[m->count] = m->file[0];
    m->file[m->count].name = "lm_head.weight";
    m->data[m->count] = m->data[0];
    m->count++;
    write_shards(m, 9);
    write_index(m, 9, "");
    for (int n = 1; st != BASE_OK; n++) {
        data_hf_folder_t *folder = NULL;

        assert_true(n < 200);
        base_memory_fail_at(base_ctx_memory(m->ctx), n);
        st = data_hf_folder_open(m->ctx, FOLDER, NULL, &folder);
        base_memory_fail_at(base_ctx_memory(m->ctx), 0);
        assert_true(st == BASE_OK || st == BASE_ERR_NOMEM);
        base_ctx_clear_error(m->ctx);
        data_hf_folder_close(folder);
        assert_int_equal(base_memory_live_total(base_ctx_memory(m->ctx)), 0);
    }
    model_end(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_is_read),
        cmocka_unit_test(other_dtypes_are_converted),
        cmocka_unit_test(tensors_are_compared_in_one_pass),
        cmocka_unit_test(a_tied_head_is_absent_or_equal),
        cmocka_unit_test(index_and_shards_have_to_agree),
        cmocka_unit_test(what_is_no_model_folder),
        cmocka_unit_test(a_config_of_unlikely_size_is_refused),
        cmocka_unit_test(changed_indexes_are_read_or_refused),
        cmocka_unit_test(memory_failures_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
