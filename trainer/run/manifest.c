#include "trainer/run/manifest.h"

#include "base/clock.h"
#include "base/config/print.h"
#include "base/config/schema.h"
#include "base/config/value.h"
#include "base/file.h"
#include "base/json_write.h"
#include "base/version.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Absolute, with links resolved where the path exists. What does not exist (an adapter's data that
 * was prepared elsewhere) hangs below the folder that the process runs in. */
static void put_path(base_json_t *j, const char *path)
{
    char whole[PATH_MAX];
    char folder[PATH_MAX];

    if (path == NULL || realpath(path, whole) != NULL) {
        base_json_string(j, path == NULL ? NULL : whole);
    } else if (path[0] != '/' && getcwd(folder, sizeof folder) != NULL &&
               snprintf(whole, sizeof whole, "%s/%s", folder, path) < (int)sizeof whole) {
        base_json_string(j, whole);
    } else {
        base_json_string(j, path);
    }
}

/* ==== the configuration ==== */

static void put_targets(base_json_t *j, uint32_t targets)
{
    static const struct {
        uint32_t bit;
        const char *word;
    } words[] = {
#define X(name, bit, word) {BASE_CONFIG_TARGET_##name, word},
        BASE_CONFIG_TARGET_MAP(X)
#undef X
    };

    base_json_begin_array(j);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if ((targets & words[i].bit) != 0) base_json_string(j, words[i].word);
    base_json_end(j);
}

static void put_numbers(base_json_t *j, const double *of, int64_t count)
{
    base_json_begin_array(j);
    for (int64_t i = 0; i < count; i++)
        base_json_double(j, of[i]);
    base_json_end(j);
}

static void put_value(base_json_t *j, const base_schema_key_t *key, const void *object)
{
    const void *field = (const char *)object + key->offset;
    const base_config_numbers_t *numbers;

    base_json_key(j, key->name);
    switch (key->type) {
    case BASE_SCHEMA_BOOL:
        base_json_bool(j, *(const bool *)field);
        return;
    case BASE_SCHEMA_INT:
        base_json_int(j, *(const int64_t *)field);
        return;
    case BASE_SCHEMA_DOUBLE:
        base_json_double(j, *(const double *)field);
        return;
    case BASE_SCHEMA_STRING:
        base_json_string(j, *(char *const *)field);
        return;
    case BASE_SCHEMA_PATH:
    case BASE_SCHEMA_DOCUMENTS:
        put_path(j, *(char *const *)field);
        return;
    case BASE_SCHEMA_ENUM:
        base_json_string(j, key->words[*(const int *)field]);
        return;
    case BASE_SCHEMA_WORD_OR_PATH:
        if (strchr(*(char *const *)field, '/') != NULL)
            put_path(j, *(char *const *)field);
        else
            base_json_string(j, *(char *const *)field);
        return;
    case BASE_SCHEMA_TARGETS:
        put_targets(j, *(const uint32_t *)field);
        return;
    case BASE_SCHEMA_PAIR:
        put_numbers(j, field, 2);
        return;
    case BASE_SCHEMA_NUMBERS:
        numbers = *(const base_config_numbers_t *const *)field;
        put_numbers(j, numbers->of, numbers->count);
        return;
    case BASE_SCHEMA_TYPE_COUNT:
        break;
    }
    base_json_null(j);
}

/* The keys of `section` that are set in `object` and carry none of the flags `without`. */
static void put_keys(base_json_t *j, const char *section, unsigned without, const void *object)
{
    for (size_t i = 0; i < base_schema_count(); i++) {
        const base_schema_key_t *key = base_schema_key(i);

        if (strcmp(key->section, section) == 0 && (key->flags & without) == 0 &&
            base_value_is_set(key, object))
            put_value(j, key, object);
    }
}

static void put_config(base_json_t *j, const base_config_t *config)
{
    const char *section;

    base_json_key(j, "config");
    base_json_begin_object(j);
    put_keys(j, "", 0, config);
    for (size_t i = 0; (section = base_schema_section(i)) != NULL; i++) {
        if (section[0] == '\0' || strcmp(section, "defaults") == 0 ||
            strcmp(section, "adapters") == 0)
            continue;
        base_json_key(j, section);
        base_json_begin_object(j);
        put_keys(j, section, 0, config);
        base_json_end(j);
    }
    if (config->train.mode == BASE_CONFIG_MODE_FULL) {
        base_json_key(j, "defaults");
        base_json_begin_object(j);
        put_keys(j, "adapters", BASE_SCHEMA_LORA, &config->full);
        base_json_end(j);
    } else {
        base_json_key(j, "adapters");
        base_json_begin_array(j);
        for (int64_t i = 0; i < config->num_adapters; i++) {
            base_json_begin_object(j);
            put_keys(j, "adapters", 0, &config->adapters[i]);
            base_json_end(j);
        }
        base_json_end(j);
    }
    base_json_end(j);
}

/* ==== the rest ==== */

static void put_program(base_json_t *j)
{
    char preset[256];

    base_version_preset(preset, sizeof preset);
    base_json_key(j, "program");
    base_json_begin_object(j);
    base_json_put_string(j, "version", base_version_number());
    base_json_put_string(j, "commit", base_version_commit());
    base_json_put_string(j, "preset", preset);
    base_json_put_string(j, "compiler", base_version_compiler());
    base_json_end(j);
}

static void put_start(base_json_t *j, const tr_manifest_t *manifest)
{
    char time[BASE_CLOCK_TEXT_BYTES];
    char cpu[256];
    char host[256] = "";

    base_clock_format(base_clock_wall_ns(), time);
    base_version_cpu(cpu, sizeof cpu);
    (void)gethostname(host, sizeof host - 1);
    base_json_key(j, "command");
    base_json_begin_array(j);
    for (int i = 0; i < manifest->argc; i++)
        base_json_string(j, manifest->argv[i]);
    base_json_end(j);
    base_json_key(j, "folder");
    put_path(j, ".");
    base_json_put_string(j, "start_time", time);
    base_json_put_bool(j, "resumed", manifest->resumed);
    base_json_put_string(j, "host", host);
    base_json_put_string(j, "cpu", cpu);
    base_json_put_int(j, "num_ranks", manifest->num_ranks);
}

static void put_inputs(base_json_t *j, const tr_manifest_t *manifest)
{
    base_json_key(j, "model");
    base_json_begin_object(j);
    base_json_key(j, "path");
    put_path(j, manifest->config->model);
    base_json_put_string(j, "hash", manifest->model_hash);
    base_json_end(j);
    base_json_key(j, "tokenizer");
    base_json_begin_object(j);
    base_json_put_string(j, "hash", manifest->tokenizer_hash);
    base_json_end(j);
    base_json_key(j, "output");
    put_path(j, manifest->config->output);
    base_json_key(j, "datasets");
    base_json_begin_array(j);
    for (int64_t i = 0; i < manifest->num_datasets; i++) {
        const tr_manifest_dataset_t *dataset = &manifest->datasets[i];

        base_json_begin_object(j);
        base_json_put_string(j, "adapter", dataset->adapter);
        base_json_put_string(j, "use", dataset->use);
        base_json_key(j, "path");
        put_path(j, dataset->path);
        base_json_put_string(j, "content_sha256", dataset->content_sha256);
        base_json_put_int(j, "documents", dataset->documents);
        base_json_put_int(j, "tokens", dataset->tokens);
        base_json_put_int(j, "supervised_tokens", dataset->supervised_tokens);
        base_json_end(j);
    }
    base_json_end(j);
}

static void put_seeds(base_json_t *j, const base_config_t *config)
{
    base_json_key(j, "seeds");
    base_json_begin_object(j);
    base_json_put_int(j, "train", config->train.seed);
    if (config->train.mode == BASE_CONFIG_MODE_FULL) {
        base_json_put_int(j, "model", config->full.seed);
    } else {
        base_json_key(j, "adapters");
        base_json_begin_object(j);
        for (int64_t i = 0; i < config->num_adapters; i++)
            base_json_put_int(j, config->adapters[i].name, config->adapters[i].seed);
        base_json_end(j);
    }
    base_json_end(j);
}

base_status_t tr_manifest_write(base_ctx_t *ctx, const char *path, const tr_manifest_t *manifest)
{
    base_file_t *file;
    base_json_t j;
    char hash[20];
    base_status_t st;

    BASE_TRY(base_file_create(ctx, path, &file));
    base_json_to_file(&j, base_file_stream(file));
    base_json_set_indent(&j, 2);
    base_json_begin_object(&j);
    base_json_put_int(&j, "format", 1);
    put_program(&j);
    put_start(&j, manifest);
    put_inputs(&j, manifest);
    put_seeds(&j, manifest->config);
    (void)snprintf(hash, sizeof hash, "%016" PRIx64, base_print_hash(manifest->config));
    base_json_put_string(&j, "config_hash", hash);
    put_config(&j, manifest->config);
    base_json_end(&j);
    base_json_newline(&j);
    st = base_json_finish(&j, ctx, path);
    if (st < 0) {
        base_file_discard(file);
        return st;
    }
    return base_file_commit(file);
}
