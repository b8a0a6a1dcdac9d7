#include "base/config/config.h"

#include "base/config/override.h"
#include "base/config/rules.h"
#include "base/config/schema.h"
#include "base/config/validate.h"
#include "base/config/value.h"
#include "base/config/yaml_load.h"
#include "base/memory.h"

#include <errno.h>
#include <string.h>

#define DEFAULT_CHECKPOINT_MINUTES 20

/* ==== resolve: a valid tree to the structs ==== */

static base_status_t store_node(const base_schema_key_t *key, const base_yaml_node_t *node,
                                base_config_t *config, void *object)
{
    base_value_fault_t fault;
    base_value_t value;

    if (!base_value_parse(key, node, &value, &fault))
        return BASE_FAIL(config->pool.ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01,
                         "%s: %s after validation", key->name, fault.text);
    return base_value_store(key, &value, &config->pool, object);
}

/* The default of the table goes through the same parser as a file; `scratch` holds its nodes. */
static base_status_t store_fallback(const base_schema_key_t *key, base_text_pool_t *scratch,
                                    base_config_t *config, void *object)
{
    base_error_list_t errors;
    base_yaml_node_t *node = NULL;
    base_status_t st;

    if (key->fallback == NULL || (key->flags & BASE_SCHEMA_DERIVED) != 0) return BASE_OK;
    base_error_list_init(&errors, config->pool.ctx);
    st =
        base_yaml_load(scratch, key->name, 0, key->fallback, strlen(key->fallback), &errors, &node);
    base_error_list_deinit(&errors);
    BASE_TRY(st);
    return store_node(key, node, config, object);
}

static base_status_t resolve_root(const base_yaml_node_t *root, base_text_pool_t *scratch,
                                  base_config_t *config)
{
    for (size_t i = 0; i < base_schema_count(); i++) {
        const base_schema_key_t *key = base_schema_key(i);
        const base_yaml_node_t *section, *node;

        if (strcmp(key->section, "adapters") == 0) continue;
        section = key->section[0] == '\0' ? root : base_yaml_get(root, key->section);
        node = base_yaml_get(section, key->name);
        if (node != NULL)
            BASE_TRY(store_node(key, node, config, config));
        else
            BASE_TRY(store_fallback(key, scratch, config, config));
    }
    return BASE_OK;
}

/* One job: an adapter, or (adapter NULL) the model itself with the settings of `defaults`. */
static base_status_t resolve_job(const base_yaml_node_t *adapter, const base_yaml_node_t *defaults,
                                 base_text_pool_t *scratch, base_config_t *config,
                                 base_config_adapter_t *job)
{
    bool own_seed = false;

    for (size_t i = 0; i < base_schema_count(); i++) {
        const base_schema_key_t *key = base_schema_key(i);
        const base_yaml_entry_t *entry;

        if (strcmp(key->section, "adapters") != 0 ||
            (adapter == NULL && (key->flags & BASE_SCHEMA_LORA) != 0))
            continue;
        entry = base_rules_effective(key, adapter, defaults);
        if (entry != NULL)
            BASE_TRY(store_node(key, entry->value, config, job));
        else
            BASE_TRY(store_fallback(key, scratch, config, job));
        if (strcmp(key->name, "seed") == 0) own_seed = entry != NULL;
    }
    if (!own_seed) job->seed = config->train.seed;
    /* alpha cannot be 0 when it was given. */
    if (!(job->alpha > 0)) job->alpha = 2.0 * (double)job->rank;
    return BASE_OK;
}

static base_status_t resolve_adapters(const base_yaml_node_t *root, base_text_pool_t *scratch,
                                      base_config_t *config)
{
    const base_yaml_node_t *adapters = base_yaml_get(root, "adapters");
    const base_yaml_node_t *defaults = base_yaml_get(root, "defaults");
    int64_t columns = 0;

    config->adapters =
        base_text_pool_take(&config->pool, adapters->count * sizeof *config->adapters);
    if (config->adapters == NULL) return BASE_ERR_NOMEM;
    for (size_t i = 0; i < adapters->count; i++) {
        BASE_TRY(resolve_job(adapters->entries[i].value, defaults, scratch, config,
                             &config->adapters[i]));
        columns += config->adapters[i].rank;
    }
    config->num_adapters = (int64_t)adapters->count;
    if (config->batch.max_rank_columns == 0) config->batch.max_rank_columns = columns;
    return BASE_OK;
}

static base_status_t resolve_full(const base_yaml_node_t *root, base_text_pool_t *scratch,
                                  base_config_t *config)
{
    config->full.name = base_text_pool_copy(&config->pool, "full", 4);
    config->full.data = config->data;
    if (config->full.name == NULL) return BASE_ERR_NOMEM;
    return resolve_job(NULL, base_yaml_get(root, "defaults"), scratch, config, &config->full);
}

static base_status_t resolve(const base_yaml_node_t *root, base_text_pool_t *scratch,
                             base_config_t *config)
{
    BASE_TRY(resolve_root(root, scratch, config));
    if (config->attention.placement == BASE_CONFIG_PLACEMENT_POOL &&
        config->attention.servers_per_host == 0)
        config->attention.servers_per_host = 1;
    if (config->train.checkpoint_every_minutes == 0 &&
        config->train.checkpoint_every_microbatches == 0)
        config->train.checkpoint_every_minutes = DEFAULT_CHECKPOINT_MINUTES;
    if (config->train.mode == BASE_CONFIG_MODE_FULL) return resolve_full(root, scratch, config);
    return resolve_adapters(root, scratch, config);
}

/* ==== load ==== */

static base_status_t build(base_ctx_t *ctx, const base_yaml_node_t *root, base_text_pool_t *scratch,
                           base_error_list_t *errors, base_config_t **config_p)
{
    base_config_t *config = base_calloc(ctx, 1, sizeof *config, "configuration");
    base_status_t st;

    if (config == NULL) return BASE_ERR_NOMEM;
    base_text_pool_init(&config->pool, ctx);
    BASE_TRY_GOTO(resolve(root, scratch, config), st, err_destroy_config);
    base_rules_check_numbers(config, root, errors);
    BASE_TRY_GOTO(base_error_list_finish(errors), st, err_destroy_config);
    *config_p = config;
    return BASE_OK;
err_destroy_config:
    base_config_destroy(config);
    return st;
}

static base_status_t load_tree(const char *name, const char *text, size_t bytes,
                               const char *const *sets, size_t num_sets, base_text_pool_t *pool,
                               base_error_list_t *errors, base_yaml_node_t **root_p)
{
    const base_error_place_t start = {.source = name, .line = 1, .column = 1};
    base_yaml_node_t *root = NULL;

    BASE_TRY(base_yaml_load(pool, name, 0, text, bytes, errors, &root));
    if (root == NULL || base_value_is_nothing(root))
        root = base_yaml_new(pool, BASE_YAML_MAPPING, start);
    if (root == NULL) return BASE_ERR_NOMEM;
    for (size_t i = 0; i < num_sets && root->kind == BASE_YAML_MAPPING; i++)
        BASE_TRY(base_override_apply(pool, root, sets[i], (int)i + 1, errors));
    *root_p = root;
    return BASE_OK;
}

/* What a shell takes apart stands in single quotes. */
static char *add_word(base_text_pool_t *pool, const char *words, const char *between,
                      const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789_-./+:@,=";

    if (word[0] != '\0' && word[strspn(word, plain)] == '\0')
        return base_text_pool_format(pool, "%s%s%s", words, between, word);
    char *all = base_text_pool_format(pool, "%s%s'", words, between);
    for (const char *next = word; all != NULL && next != NULL;) {
        const char *quote = strchr(next, '\'');
        const int length = quote != NULL ? (int)(quote - next) : (int)strlen(next);

        all = base_text_pool_format(pool, "%s%.*s%s", all, length, next,
                                    quote != NULL ? "'\\''" : "'");
        next = quote != NULL ? quote + 1 : NULL;
    }
    return all;
}

static base_status_t keep_words(base_config_t *config, const char *name, const char *const *sets,
                                size_t num_sets)
{
    config->words = add_word(&config->pool, "", "", name);
    for (size_t i = 0; i < num_sets && config->words != NULL; i++)
        config->words = add_word(&config->pool, config->words, " --set ", sets[i]);
    return config->words != NULL ? BASE_OK : BASE_ERR_NOMEM;
}

static base_status_t load_with(base_ctx_t *ctx, const char *name, const char *text, size_t bytes,
                               const char *const *sets, size_t num_sets, base_error_list_t *errors,
                               base_config_t **config_p)
{
    base_text_pool_t pool;
    base_yaml_node_t *root = NULL;
    base_status_t st;

    base_text_pool_init(&pool, ctx);
    st = load_tree(name, text, bytes, sets, num_sets, &pool, errors, &root);
    if (st == BASE_OK) {
        base_validate_keys(root, errors);
        base_rules_check(root, errors);
    }
    /* A broken file is an entry in the list, not yet in the context; anything else is recorded
     * already. */
    if (st == BASE_OK || st == BASE_ERR_CONFIG) st = base_error_list_finish(errors);
    if (st == BASE_OK) st = build(ctx, root, &pool, errors, config_p);
    if (st == BASE_OK) st = keep_words(*config_p, name, sets, num_sets);
    if (st < 0) {
        base_config_destroy(*config_p);
        *config_p = NULL;
    }
    base_text_pool_deinit(&pool);
    return st;
}

base_status_t base_config_load_text(base_ctx_t *ctx, const char *name, const char *text,
                                    size_t bytes, const char *const *sets, size_t num_sets,
                                    base_error_list_t *errors, base_config_t **config_p)
{
    base_error_list_t own;
    base_status_t st;

    *config_p = NULL;
    if (errors != NULL) return load_with(ctx, name, text, bytes, sets, num_sets, errors, config_p);
    base_error_list_init(&own, ctx);
    st = load_with(ctx, name, text, bytes, sets, num_sets, &own, config_p);
    base_error_list_deinit(&own);
    return st;
}

/* One byte more than a configuration may have, so that the parser sees that it is too long. */
static base_status_t read_file(base_ctx_t *ctx, const char *path, base_error_list_t *errors,
                               char **text_p, size_t *bytes_p)
{
    const base_error_place_t place = {.source = path};
    const size_t room = BASE_YAML_MAX_BYTES + 1;
    char *text = base_alloc(ctx, room, "configuration file");
    FILE *file;
    int error = 0;

    if (text == NULL) return BASE_ERR_NOMEM;
    errno = 0;
    file = fopen(path, "rb");
    if (file == NULL) {
        error = errno;
    } else {
        *bytes_p = fread(text, 1, room, file);
        if (ferror(file)) error = errno != 0 ? errno : EIO;
        (void)fclose(file);
    }
    if (error != 0) {
        base_free(ctx, text);
        base_error_list_add(errors, BASE_MSG_CONF_01, place, "%s", strerror(error));
        return base_error_list_finish(errors);
    }
    *text_p = text;
    return BASE_OK;
}

static base_status_t load_file(base_ctx_t *ctx, const char *path, const char *const *sets,
                               size_t num_sets, base_error_list_t *errors, base_config_t **config_p)
{
    char *text = NULL;
    size_t bytes = 0;
    base_status_t st;

    BASE_TRY(read_file(ctx, path, errors, &text, &bytes));
    st = load_with(ctx, path, text, bytes, sets, num_sets, errors, config_p);
    base_free(ctx, text);
    return st;
}

base_status_t base_config_load(base_ctx_t *ctx, const char *path, const char *const *sets,
                               size_t num_sets, base_error_list_t *errors, base_config_t **config_p)
{
    base_error_list_t own;
    base_status_t st;

    *config_p = NULL;
    if (errors != NULL) return load_file(ctx, path, sets, num_sets, errors, config_p);
    base_error_list_init(&own, ctx);
    st = load_file(ctx, path, sets, num_sets, &own, config_p);
    base_error_list_deinit(&own);
    return st;
}

void base_config_destroy(base_config_t *config)
{
    base_ctx_t *ctx;

    if (config == NULL) return;
    ctx = config->pool.ctx;
    base_text_pool_deinit(&config->pool);
    base_free(ctx, config);
}

const base_config_adapter_t *base_config_adapter(const base_config_t *config, const char *name)
{
    for (int64_t i = 0; i < config->num_adapters; i++)
        if (strcmp(config->adapters[i].name, name) == 0) return &config->adapters[i];
    return NULL;
}
