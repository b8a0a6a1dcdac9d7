#include "tests/golden/golden_case.h"

#include "data/safetensors_read.h"
#include "tests/support/ctx_fixture.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define PATH_BYTES 1024
#define NAME_BYTES 64

const char *const golden_families[GOLDEN_NUM_FAMILIES] = {"llama", "mistral", "qwen2", "qwen3"};

static const char *const modules[GOLDEN_MAX_TARGETS] = {
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};

/* ==== memory and paths ==== */

struct golden_block {
    golden_block_t *next;
    max_align_t data[];
};

static void *take(golden_case_t *g, int64_t count, size_t bytes)
{
    golden_block_t *block = calloc(1, sizeof *block + (size_t)count * bytes);

    assert_non_null(block);
    block->next = g->blocks;
    g->blocks = block;
    return block->data;
}

#define TAKE(g, count, type) ((type *)take((g), (count), sizeof(type)))

static char *copy_text(golden_case_t *g, const char *text)
{
    const size_t bytes = strlen(text) + 1;

    return memcpy(take(g, 1, bytes), text, bytes);
}

const char *golden_path(const char *relative, char *path, size_t bytes)
{
    const char *source = getenv("CADRE_SOURCE_DIR");
    int length;

    if (source == NULL) fail_msg("CADRE_SOURCE_DIR is not set: run this test with ctest");
    length = snprintf(path, bytes, "%s/tests/golden/files/%s", source, relative);
    assert_true(length > 0 && (size_t)length < bytes);
    return path;
}

/* ==== JSON ==== */

static json_t *json_open(const char *path)
{
    json_error_t error;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);

    if (root == NULL) fail_msg("%s:%d: %s", path, error.line, error.text);
    return root;
}

static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (value == NULL) fail_msg("\"%s\" is missing", key);
    return value;
}

static int64_t integer(const json_t *value)
{
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static double number(const json_t *object, const char *key)
{
    assert_true(json_is_number(member(object, key)));
    return json_number_value(member(object, key));
}

static const char *text(const json_t *value)
{
    assert_true(json_is_string(value));
    return json_string_value(value);
}

static int64_t count_of(const json_t *array)
{
    assert_true(json_is_array(array));
    return (int64_t)json_array_size(array);
}

/* ==== safetensors ==== */

/* All elements of a tensor (rows, cols), as doubles. A vector has one row. */
static double *read_tensor(golden_case_t *g, const data_safetensors_t *file, const char *name,
                           int64_t rows, int64_t cols)
{
    const data_safetensors_entry_t *entry = data_safetensors_find(file, name);
    double *values = TAKE(g, rows * cols, double);
    void *raw;

    if (entry == NULL) fail_msg("%s: no tensor %s", data_safetensors_path(file), name);
    assert_true(entry->rank == 1 || entry->rank == 2);
    assert_int_equal(entry->shape[entry->rank - 1], cols);
    assert_int_equal(entry->rank == 2 ? entry->shape[0] : 1, rows);
    assert_true(data_dtype_is_float(entry->dtype));
    raw = TAKE(g, entry->bytes, char);
    assert_int_equal(data_safetensors_read(file, entry, 0, entry->bytes, raw), BASE_OK);
    data_dtype_to_double(entry->dtype, raw, values, rows * cols);
    for (int64_t i = 0; i < rows * cols; i++)
        assert_true(isfinite(values[i]));
    return values;
}

static data_safetensors_t *tensors_open(base_ctx_t *ctx, const char *relative)
{
    char path[PATH_BYTES];
    data_safetensors_t *file;
    base_error_t error;

    if (data_safetensors_open(ctx, golden_path(relative, path, sizeof path), NULL, &file) ==
        BASE_OK)
        return file;
    assert_true(base_ctx_error(ctx, &error));
    fail_msg("%s", error.text);
    return NULL;
}

/* ==== documents ==== */

static void read_document(golden_case_t *g, const json_t *object, golden_document_t *d)
{
    const json_t *tokens = member(object, "tokens"), *rows = member(object, "rows");
    const char *mask = text(member(object, "mask"));

    d->rows = count_of(tokens);
    assert_true(d->rows > 0);
    assert_int_equal(strlen(mask), d->rows);
    d->tokens = TAKE(g, d->rows, int32_t);
    d->loss_mask = TAKE(g, d->rows, uint8_t);
    for (int64_t i = 0; i < d->rows; i++) {
        const int64_t token = integer(json_array_get(tokens, (size_t)i));

        assert_true(token >= 0 && token < g->vocab);
        assert_true(mask[i] == '0' || mask[i] == '1');
        d->tokens[i] = (int32_t)token;
        d->loss_mask[i] = mask[i] == '1';
        d->num_supervised += i > 0 && mask[i] == '1';
    }
    d->num_logit_rows = count_of(rows);
    d->logit_rows = TAKE(g, d->num_logit_rows, int64_t);
    for (int64_t i = 0; i < d->num_logit_rows; i++) {
        d->logit_rows[i] = integer(json_array_get(rows, (size_t)i));
        assert_true(d->logit_rows[i] > (i == 0 ? -1 : d->logit_rows[i - 1]));
        assert_true(d->logit_rows[i] < d->rows);
    }
}

static void read_batch(golden_case_t *g, const json_t *list, golden_adapter_t *a,
                       golden_batch_t *batch)
{
    batch->num_documents = count_of(list);
    assert_true(batch->num_documents > 0);
    batch->documents = TAKE(g, batch->num_documents, int32_t);
    for (int64_t i = 0; i < batch->num_documents; i++) {
        const int64_t document = integer(json_array_get(list, (size_t)i));

        assert_true(document >= 0 && document < a->num_documents);
        batch->documents[i] = (int32_t)document;
        batch->num_supervised += a->documents[document].num_supervised;
        if (a->num_trained <= document) a->num_trained = document + 1;
    }
    assert_true(batch->num_supervised > 0);
}

static void read_adapter(golden_case_t *g, const json_t *object, golden_adapter_t *a)
{
    const json_t *documents = member(object, "documents"), *batches = member(object, "batches");

    a->name = copy_text(g, text(member(object, "name")));
    a->batch_documents = integer(member(object, "batch_documents"));
    a->num_documents = count_of(documents);
    a->documents = TAKE(g, a->num_documents, golden_document_t);
    for (int64_t i = 0; i < a->num_documents; i++)
        read_document(g, json_array_get(documents, (size_t)i), &a->documents[i]);
    assert_int_equal(count_of(batches), GOLDEN_STEPS);
    for (size_t i = 0; i < GOLDEN_STEPS; i++)
        read_batch(g, json_array_get(batches, i), a, &a->batches[i]);
}

static void read_documents(golden_case_t *g)
{
    char path[PATH_BYTES];
    json_t *root = json_open(golden_path("documents.json", path, sizeof path));
    const json_t *training = member(root, "training"), *adapters = member(root, "adapters");
    golden_training_t *t = &g->training;

    g->vocab = integer(member(root, "vocab"));
    t->steps = integer(member(training, "steps"));
    assert_int_equal(t->steps, GOLDEN_STEPS);
    t->warmup_steps = integer(member(training, "warmup_steps"));
    t->learning_rate = number(training, "learning_rate");
    t->beta1 = number(training, "beta1");
    t->beta2 = number(training, "beta2");
    t->eps = number(training, "eps");
    t->weight_decay = number(training, "weight_decay");
    t->clip_norm = number(training, "clip_norm");
    assert_int_equal(count_of(adapters), GOLDEN_NUM_ADAPTERS);
    for (size_t i = 0; i < GOLDEN_NUM_ADAPTERS; i++)
        read_adapter(g, json_array_get(adapters, i), &g->adapters[i]);
    json_decref(root);
}

/* ==== expected numbers ==== */

static double *read_expected(golden_case_t *g, const data_safetensors_t *file, const char *adapter,
                             const char *key, int64_t rows, int64_t cols)
{
    char name[NAME_BYTES];

    assert_true(snprintf(name, sizeof name, "%s.%s", adapter, key) < NAME_BYTES);
    return read_tensor(g, file, name, rows, cols);
}

static void read_numbers(golden_case_t *g, base_ctx_t *ctx, const char *family)
{
    char name[NAME_BYTES];
    data_safetensors_t *file;

    (void)snprintf(name, sizeof name, "%s/expected.safetensors", family);
    file = tensors_open(ctx, name);
    for (int i = 0; i < GOLDEN_NUM_ADAPTERS; i++) {
        golden_adapter_t *a = &g->adapters[i];
        const int64_t n = a->num_documents;
        const double *sums = read_expected(g, file, a->name, "documents.losses", 1, n);
        const double *base_sums = read_expected(g, file, a->name, "base.losses", 1, n);

        a->losses = read_expected(g, file, a->name, "losses", 1, GOLDEN_STEPS);
        a->grad_norms = read_expected(g, file, a->name, "grad_norms", 1, GOLDEN_STEPS);
        a->learning_rates = read_expected(g, file, a->name, "learning_rates", 1, GOLDEN_STEPS);
        for (int64_t j = 0; j < n; j++) {
            golden_document_t *d = &a->documents[j];

            d->loss_sum = sums[j];
            d->base_loss_sum = base_sums[j];
            (void)snprintf(name, sizeof name, "documents.logits.%d", (int)j);
            d->logits = read_expected(g, file, a->name, name, d->num_logit_rows, g->vocab);
            (void)snprintf(name, sizeof name, "base.logits.%d", (int)j);
            d->base_logits = read_expected(g, file, a->name, name, d->num_logit_rows, g->vocab);
        }
    }
    data_safetensors_close(file);
}

/* ==== adapters ==== */

static void read_settings(golden_adapter_t *a)
{
    char path[PATH_BYTES];
    json_t *root;

    assert_true(snprintf(path, sizeof path, "%s/adapter_config.json", a->folder) < PATH_BYTES);
    root = json_open(path);
    a->rank = integer(member(root, "r"));
    a->alpha = number(root, "lora_alpha");
    a->rslora = json_is_true(member(root, "use_rslora"));
    a->scale = a->alpha / (a->rslora ? sqrt((double)a->rank) : (double)a->rank);
    json_decref(root);
}

static void read_targets(golden_adapter_t *a)
{
    char piece[NAME_BYTES];

    for (int m = 0; m < GOLDEN_MAX_TARGETS; m++) {
        int64_t i = 0;

        (void)snprintf(piece, sizeof piece, ".%s.lora_A.weight", modules[m]);
        while (i < a->num_tensors && strstr(a->tensors[i].name, piece) == NULL)
            i++;
        if (i < a->num_tensors) a->targets[a->num_targets++] = modules[m];
    }
}

static void read_tensors(golden_case_t *g, base_ctx_t *ctx, const char *family, golden_adapter_t *a)
{
    static const char *const parts[] = {"/adapter_model", "-gradients", "-final"};
    data_safetensors_t *file[3];
    char name[NAME_BYTES];

    for (int i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof name, "%s/%s%s.safetensors", family, a->name, parts[i]);
        file[i] = tensors_open(ctx, name);
    }
    a->num_tensors = data_safetensors_count(file[0]);
    assert_int_equal(data_safetensors_count(file[1]), a->num_tensors);
    assert_int_equal(data_safetensors_count(file[2]), a->num_tensors);
    a->tensors = TAKE(g, a->num_tensors, golden_tensor_t);
    for (int64_t i = 0; i < a->num_tensors; i++) {
        const data_safetensors_entry_t *entry = data_safetensors_entry(file[0], i);
        golden_tensor_t *t = &a->tensors[i];

        assert_int_equal(entry->rank, 2);
        t->name = copy_text(g, entry->name);
        t->rows = entry->shape[0];
        t->cols = entry->shape[1];
        t->initial = read_tensor(g, file[0], t->name, t->rows, t->cols);
        t->gradient = read_tensor(g, file[1], t->name, t->rows, t->cols);
        t->final = read_tensor(g, file[2], t->name, t->rows, t->cols);
        assert_int_equal(strstr(t->name, ".lora_A.") != NULL ? t->rows : t->cols, a->rank);
    }
    for (int i = 0; i < 3; i++)
        data_safetensors_close(file[i]);
}

/* ==== the case ==== */

golden_case_t *golden_case_open(base_ctx_t *ctx, const char *family)
{
    golden_case_t *g = calloc(1, sizeof *g);
    char relative[NAME_BYTES], path[PATH_BYTES];

    assert_non_null(g);
    (void)snprintf(relative, sizeof relative, "%s/model", family);
    g->model = copy_text(g, golden_path(relative, path, sizeof path));
    read_documents(g);
    read_numbers(g, ctx, family);
    for (int i = 0; i < GOLDEN_NUM_ADAPTERS; i++) {
        golden_adapter_t *a = &g->adapters[i];

        (void)snprintf(relative, sizeof relative, "%s/%s", family, a->name);
        a->folder = copy_text(g, golden_path(relative, path, sizeof path));
        read_settings(a);
        read_tensors(g, ctx, family, a);
        read_targets(a);
    }
    return g;
}

void golden_case_close(golden_case_t *g)
{
    if (g == NULL) return;
    while (g->blocks != NULL) {
        golden_block_t *block = g->blocks;

        g->blocks = block->next;
        free(block);
    }
    free(g);
}

const golden_tensor_t *golden_find(const golden_adapter_t *adapter, const char *name)
{
    for (int64_t i = 0; i < adapter->num_tensors; i++)
        if (strcmp(adapter->tensors[i].name, name) == 0) return &adapter->tensors[i];
    return NULL;
}

double golden_distance(const double *got, const double *want, int64_t count)
{
    double difference = 0, norm = 0;

    for (int64_t i = 0; i < count; i++) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    return sqrt(difference / norm);
}
