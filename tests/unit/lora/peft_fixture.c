#include "tests/unit/lora/peft_fixture.h"

#include "base/file.h"
#include "base/philox.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char base_config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":\"silu\","
    "\"hidden_size\":8,\"intermediate_size\":10,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
    "\"num_key_value_heads\":1,\"head_dim\":6,\"vocab_size\":20,\"max_position_embeddings\":64,"
    "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"tie_word_embeddings\":false}";

/* ==== files ==== */

void peft_put(base_ctx_t *ctx, const char *dir, const char *file, const char *text)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    assert_int_equal(base_file_make_dirs(ctx, dir), BASE_OK);
    assert_int_equal(base_file_write(ctx, path, text, strlen(text)), BASE_OK);
}

char *peft_text(base_ctx_t *ctx, const char *dir, const char *file)
{
    char path[256], *text;
    size_t bytes;

    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    assert_int_equal(base_file_read(ctx, path, 1 << 20, &text, &bytes), BASE_OK);
    return text;
}

bool peft_exists(const char *dir, const char *file)
{
    char path[256];
    struct stat info;

    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    return lstat(path, &info) == 0;
}

int peft_entries(const char *dir)
{
    DIR *folder = opendir(dir);
    int count = 0;

    assert_non_null(folder);
    while (readdir(folder) != NULL)
        count++;
    (void)closedir(folder);
    return count - 2; /* "." and ".." */
}

void peft_remove(const char *path)
{
    DIR *folder;
    const struct dirent *entry;

    if (unlink(path) == 0) return;
    folder = opendir(path);
    if (folder == NULL) return;
    while ((entry = readdir(folder)) != NULL) {
        char inner[512];

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        (void)snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
        peft_remove(inner);
    }
    (void)closedir(folder);
    (void)rmdir(path);
}

/* ==== the base ==== */

static void write_base(peft_case_t *c, const char *dir)
{
    const data_model_spec_t spec = {.num_layers = 2,
                                    .hidden = 8,
                                    .intermediate = 10,
                                    .vocab = 20,
                                    .num_q_heads = 2,
                                    .num_kv_heads = 1,
                                    .head_dim = 6};
    const int64_t count = data_model_spec_num_tensors(&spec);
    static const float zeros[256];
    data_model_tensor_t tensor[32];
    data_safetensors_tensor_t file[32];
    const void *data[32];
    char path[256];

    assert_true(count <= 32);
    for (int64_t i = 0; i < count; i++) {
        data_model_spec_tensor(&spec, i, &tensor[i]);
        file[i] = (data_safetensors_tensor_t){.name = tensor[i].name,
                                              .dtype = DATA_F32,
                                              .rank = tensor[i].rank,
                                              .shape = {tensor[i].shape[0], tensor[i].shape[1]}};
        data[i] = zeros;
    }
    peft_put(c->ctx, dir, "config.json", base_config);
    (void)snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_int_equal(data_safetensors_write(c->ctx, path, file, data, count), BASE_OK);
}

void peft_case_init(peft_case_t *c, const char *root)
{
    char dir[80];

    *c = (peft_case_t){.ctx = fixture_ctx()};
    peft_remove(root);
    (void)snprintf(c->root, sizeof c->root, "%s", root);
    (void)snprintf(dir, sizeof dir, "%s/base", root);
    write_base(c, dir);
    assert_int_equal(data_hf_folder_open(c->ctx, dir, NULL, &c->base), BASE_OK);
    c->spec = data_hf_folder_spec(c->base);
}

void peft_case_deinit(peft_case_t *c)
{
    data_hf_folder_close(c->base);
    peft_remove(c->root);
    fixture_ctx_end(c->ctx);
}

/* ==== adapters in memory ==== */

void peft_fill(float *values, int64_t count, uint32_t seed)
{
    const base_philox_key_t key = base_philox_key(seed);

    for (int64_t i = 0; i < count; i++)
        values[i] = (float)(base_philox(key, (uint32_t)i, 0, 0, 0).word[0] >> 24) / 128.0f - 1.0f;
}

lora_layout_t *peft_layout(peft_case_t *c, int32_t rank, uint32_t targets)
{
    lora_layout_t *layout = NULL;

    assert_int_equal(lora_layout_create(c->ctx, c->spec, rank, targets, &layout), BASE_OK);
    return layout;
}

float *peft_values(peft_case_t *c, const lora_layout_t *layout, uint32_t seed)
{
    float *values = base_calloc(c->ctx, layout->count, sizeof *values, "values");

    assert_non_null(values);
    peft_fill(values, layout->count, seed);
    return values;
}

lora_export_t peft_adapter(const peft_case_t *c, const lora_layout_t *layout, const float *values)
{
    return (lora_export_t){.name = "code",
                           .layout = layout,
                           .values = values,
                           .alpha = 8.0,
                           .base_model = "meta-llama/Llama-3.1-8B",
                           .base = c->base};
}

/* ==== folders by hand ==== */

static void add_half(peft_folder_t *f, const char *module, const char *half, int64_t rows,
                     int64_t columns)
{
    peft_tensor_t *t = &f->tensors[f->count];

    assert_true(f->count < PEFT_MAX_TENSORS && rows * columns <= 256);
    (void)snprintf(t->name, sizeof t->name, "base_model.model.%s.lora_%s.weight", module, half);
    t->dtype = DATA_F32;
    t->rows = rows;
    t->columns = columns;
    peft_fill(t->values, rows * columns, (uint32_t)f->count + 100);
    f->count++;
}

void peft_folder_add(peft_folder_t *f, const char *module, int64_t rank, int64_t in, int64_t out)
{
    add_half(f, module, "A", rank, in);
    add_half(f, module, "B", out, rank);
}

peft_folder_t *peft_folder_create(const peft_case_t *c, const char *name)
{
    peft_folder_t *f = calloc(1, sizeof *f);

    assert_non_null(f);
    (void)snprintf(f->dir, sizeof f->dir, "%s/%s", c->root, name);
    (void)snprintf(f->config, sizeof f->config,
                   "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,"
                   "\"target_modules\":[\"q_proj\",\"v_proj\"]}");
    peft_folder_add(f, "model.layers.0.self_attn.q_proj", 4, 8, 12);
    peft_folder_add(f, "model.layers.0.self_attn.v_proj", 4, 8, 6);
    peft_folder_add(f, "model.layers.1.self_attn.q_proj", 4, 8, 12);
    peft_folder_add(f, "model.layers.1.self_attn.v_proj", 4, 8, 6);
    return f;
}

peft_tensor_t *peft_folder_find(peft_folder_t *f, const char *name)
{
    for (int i = 0; i < f->count; i++)
        if (strstr(f->tensors[i].name, name) != NULL) return &f->tensors[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

/* Eight bytes are room for every dtype. */
static void convert(const peft_tensor_t *t, void *to)
{
    const int64_t count = t->rows * t->columns;

    if (t->dtype == DATA_F64)
        data_dtype_to_double(DATA_F32, t->values, to, count);
    else if (data_dtype_is_float(t->dtype))
        data_dtype_from_float(t->dtype, t->values, to, count);
    else
        memset(to, 1, (size_t)(count * data_dtype_bytes(t->dtype)));
}

void peft_folder_write(const peft_case_t *c, const peft_folder_t *f)
{
    data_safetensors_tensor_t file[PEFT_MAX_TENSORS];
    const void *data[PEFT_MAX_TENSORS];
    double(*bytes)[256] = calloc(PEFT_MAX_TENSORS, sizeof *bytes);
    char path[256];

    assert_non_null(bytes);
    for (int i = 0; i < f->count; i++) {
        file[i] = (data_safetensors_tensor_t){.name = f->tensors[i].name,
                                              .dtype = f->tensors[i].dtype,
                                              .rank = 2,
                                              .shape = {f->tensors[i].rows, f->tensors[i].columns}};
        convert(&f->tensors[i], bytes[i]);
        data[i] = bytes[i];
    }
    peft_put(c->ctx, f->dir, "adapter_config.json", f->config);
    (void)snprintf(path, sizeof path, "%s/adapter_model.safetensors", f->dir);
    assert_int_equal(data_safetensors_write(c->ctx, path, file, data, f->count), BASE_OK);
    free(bytes);
}
