#include "base/config/rules.h"

#include "base/config/validate.h"
#include "base/config/value.h"

#include <inttypes.h>
#include <string.h>

#define PATH_BYTES 128
#define MAX_NAME   64

base_config_mode_t base_rules_mode(const base_yaml_node_t *root)
{
    const base_yaml_node_t *mode = base_yaml_get(base_yaml_get(root, "train"), "mode");
    const bool full =
        mode != NULL && mode->kind == BASE_YAML_SCALAR && strcmp(mode->text, "full") == 0;

    return full ? BASE_CONFIG_MODE_FULL : BASE_CONFIG_MODE_LORA;
}

const base_yaml_entry_t *base_rules_effective(const base_schema_key_t *key,
                                              const base_yaml_node_t *adapter,
                                              const base_yaml_node_t *defaults)
{
    const base_yaml_entry_t *own = base_yaml_entry(adapter, key->name);

    if (own != NULL) return own;
    if (key->partner != NULL && base_yaml_entry(adapter, key->partner) != NULL) return NULL;
    return (key->flags & BASE_SCHEMA_INHERIT) != 0 ? base_yaml_entry(defaults, key->name) : NULL;
}

/* ==== every mode ==== */

/* Both keys of a pair in one mapping: reported once, at the one that stands later. */
static void check_pairs(const char *section, const char *path, const base_yaml_node_t *node,
                        base_error_list_t *errors)
{
    for (size_t i = 0; i < base_schema_count(); i++) {
        const base_schema_key_t *key = base_schema_key(i);
        const base_yaml_entry_t *entry, *partner;

        if (key->partner == NULL || !base_schema_belongs(key, section) ||
            strcmp(key->name, key->partner) > 0)
            continue;
        entry = base_yaml_entry(node, key->name);
        partner = base_yaml_entry(node, key->partner);
        if (entry != NULL && partner != NULL)
            base_error_list_add(errors, BASE_MSG_CONF_06,
                                entry > partner ? entry->key->place : partner->key->place,
                                "%s gives both %s and %s", path, key->name, key->partner);
    }
}

static void check_root_key(const base_yaml_node_t *root, const char *name,
                           base_error_list_t *errors)
{
    if (base_yaml_get(root, name) == NULL)
        base_error_list_add(errors, BASE_MSG_CONF_05, root->place, "no %s", name);
}

static void check_servers(const base_yaml_node_t *root, base_error_list_t *errors)
{
    const base_yaml_node_t *attention = base_yaml_get(root, "attention");
    const base_yaml_entry_t *servers = base_yaml_entry(attention, "servers_per_host");
    const base_yaml_entry_t *speeds = base_yaml_entry(attention, "server_speeds");
    const base_yaml_node_t *node = base_yaml_get(attention, "placement");
    const char *placement =
        node == NULL || node->kind != BASE_YAML_SCALAR ? "in_place" : node->text;

    if (servers != NULL && strcmp(placement, "pool") != 0)
        base_error_list_add(
            errors, BASE_MSG_CONF_06, servers->key->place,
            "attention.servers_per_host needs attention.placement: pool, which is %s", placement);
    if (speeds != NULL && strcmp(placement, "local") == 0)
        base_error_list_add(errors, BASE_MSG_CONF_06, speeds->key->place,
                            "attention.server_speeds needs attention.placement: in_place or pool, "
                            "which is local");
}

/* Required keys, epochs or steps, and what early stopping needs, of one job. */
static void check_job(const char *path, base_error_place_t place, const base_yaml_node_t *adapter,
                      const base_yaml_node_t *defaults, bool full, base_error_list_t *errors)
{
    const base_yaml_entry_t *patience = base_rules_effective(
        base_schema_find("adapters", "early_stopping_patience"), adapter, defaults);

    for (size_t i = 0; i < base_schema_count(); i++) {
        const base_schema_key_t *key = base_schema_key(i);

        if (!base_schema_belongs(key, "adapters") || (key->flags & BASE_SCHEMA_REQUIRED) == 0 ||
            (full && (key->flags & BASE_SCHEMA_LORA) != 0) ||
            base_rules_effective(key, adapter, defaults) != NULL)
            continue;
        base_error_list_add(
            errors, BASE_MSG_CONF_05, place, "%s: no %s%s", path, key->name,
            !full && (key->flags & BASE_SCHEMA_INHERIT) != 0 ? ", and none in defaults" : "");
    }
    if (base_rules_effective(base_schema_find("adapters", "epochs"), adapter, defaults) == NULL &&
        base_rules_effective(base_schema_find("adapters", "steps"), adapter, defaults) == NULL)
        base_error_list_add(errors, BASE_MSG_CONF_05, place, "%s: neither epochs nor steps%s", path,
                            full ? "" : ", and none in defaults");
    if (patience != NULL &&
        base_rules_effective(base_schema_find("adapters", "eval"), adapter, defaults) == NULL &&
        base_rules_effective(base_schema_find("adapters", "eval_documents"), adapter, defaults) ==
            NULL)
        base_error_list_add(errors, BASE_MSG_CONF_05, patience->key->place,
                            "%s: early_stopping_patience needs eval or eval_documents", path);
}

/* ==== mode lora ==== */

/* Names become folders, keys of run files and words of --set. */
static bool is_name(const char *name)
{
    static const char LEGAL[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

    return strspn(name, LEGAL) == strlen(name) && strchr("._-", name[0]) == NULL &&
           strlen(name) <= MAX_NAME;
}

static void check_name(const base_yaml_node_t *adapters, size_t index, base_error_list_t *errors)
{
    const base_yaml_node_t *name = base_yaml_get(adapters->entries[index].value, "name");

    if (name == NULL || name->kind != BASE_YAML_SCALAR || base_value_is_nothing(name) ||
        name->text[0] == '\0')
        return;
    if (!is_name(name->text)) {
        base_error_list_add(errors, BASE_MSG_CONF_04, name->place,
                            "adapter \"%.100s\": a name has letters, digits, '.', '_' and '-', at "
                            "most %d, and begins with a letter or digit",
                            name->text, MAX_NAME);
        return;
    }
    for (size_t i = 0; i < index; i++) {
        const base_yaml_node_t *other = base_yaml_get(adapters->entries[i].value, "name");

        if (other == NULL || other->kind != BASE_YAML_SCALAR ||
            strcmp(other->text, name->text) != 0)
            continue;
        base_error_list_add(errors, BASE_MSG_CONF_07, name->place,
                            "an adapter \"%s\" stands already in line %d", name->text,
                            other->place.line);
        return;
    }
}

static void check_lora(const base_yaml_node_t *root, base_error_list_t *errors)
{
    const base_yaml_node_t *defaults = base_yaml_get(root, "defaults");
    const base_yaml_node_t *adapters = base_yaml_get(root, "adapters");
    const base_yaml_entry_t *data = base_yaml_entry(root, "data");
    char path[PATH_BYTES];

    if (data != NULL)
        base_error_list_add(
            errors, BASE_MSG_CONF_06, data->key->place,
            "data at the top level is for train.mode: full; an adapter has its own");
    if (adapters == NULL || base_value_is_nothing(adapters) ||
        (adapters->kind == BASE_YAML_SEQUENCE && adapters->count == 0)) {
        base_error_list_add(errors, BASE_MSG_CONF_05,
                            adapters == NULL ? root->place : adapters->place,
                            "no adapters; train.mode: lora needs at least one");
        return;
    }
    if (adapters->kind != BASE_YAML_SEQUENCE) return;
    if (adapters->count > BASE_CONFIG_MAX_ADAPTERS) {
        base_error_list_add(errors, BASE_MSG_CONF_04, adapters->place,
                            "%zu adapters; one run has at most %d", adapters->count,
                            BASE_CONFIG_MAX_ADAPTERS);
        return;
    }
    for (size_t i = 0; i < adapters->count; i++) {
        const base_yaml_node_t *adapter = adapters->entries[i].value;

        base_validate_adapter_path(adapter, i, path, sizeof path);
        if (adapter->kind != BASE_YAML_MAPPING && !base_value_is_nothing(adapter)) continue;
        check_name(adapters, i, errors);
        check_pairs("adapters", path, adapter, errors);
        check_job(path, adapter->place, adapter, defaults, false, errors);
    }
}

/* ==== mode full ==== */

static void refuse_lora_keys(const char *section, const base_yaml_node_t *node,
                             base_error_list_t *errors)
{
    for (size_t i = 0; node != NULL && node->kind == BASE_YAML_MAPPING && i < node->count; i++) {
        const base_yaml_node_t *name = node->entries[i].key;
        const base_schema_key_t *key = base_schema_find(section, name->text);

        if (key == NULL || (key->flags & BASE_SCHEMA_LORA) == 0) continue;
        if (strcmp(key->name, "data") == 0)
            base_error_list_add(
                errors, BASE_MSG_CONF_06, name->place,
                "%s.data means nothing with train.mode: full; data stands at the top level",
                section);
        else
            base_error_list_add(errors, BASE_MSG_CONF_06, name->place,
                                "%s.%s means nothing with train.mode: full", section, key->name);
    }
}

static void check_full(const base_yaml_node_t *root, base_error_list_t *errors)
{
    const base_yaml_entry_t *adapters = base_yaml_entry(root, "adapters");
    const base_yaml_entry_t *defaults = base_yaml_entry(root, "defaults");

    if (adapters != NULL && !base_value_is_nothing(adapters->value))
        base_error_list_add(
            errors, BASE_MSG_CONF_06, adapters->key->place,
            "adapters mean nothing with train.mode: full, which trains the model itself");
    check_root_key(root, "data", errors);
    refuse_lora_keys("defaults", defaults == NULL ? NULL : defaults->value, errors);
    refuse_lora_keys("batch", base_yaml_get(root, "batch"), errors);
    check_job("defaults", defaults == NULL ? root->place : defaults->key->place, NULL,
              defaults == NULL ? NULL : defaults->value, true, errors);
}

void base_rules_check(const base_yaml_node_t *root, base_error_list_t *errors)
{
    if (root->kind != BASE_YAML_MAPPING) return;
    check_root_key(root, "model", errors);
    check_root_key(root, "output", errors);
    check_servers(root, errors);
    check_pairs("train", "train", base_yaml_get(root, "train"), errors);
    check_pairs("defaults", "defaults", base_yaml_get(root, "defaults"), errors);
    if (base_rules_mode(root) == BASE_CONFIG_MODE_FULL)
        check_full(root, errors);
    else
        check_lora(root, errors);
}

/* ==== numbers ==== */

static void check_warmup(const char *path, const base_config_adapter_t *job,
                         base_error_place_t place, base_error_list_t *errors)
{
    if (job->steps > 0 && job->warmup_steps >= job->steps)
        base_error_list_add(errors, BASE_MSG_CONF_04, place,
                            "%s: warmup_steps %" PRId64 " leaves nothing of steps %" PRId64, path,
                            job->warmup_steps, job->steps);
}

void base_rules_check_numbers(const base_config_t *config, const base_yaml_node_t *root,
                              base_error_list_t *errors)
{
    const base_yaml_node_t *columns =
        base_yaml_get(base_yaml_get(root, "batch"), "max_rank_columns");
    const base_yaml_node_t *adapters = base_yaml_get(root, "adapters");
    const base_yaml_node_t *defaults = base_yaml_get(root, "defaults");
    const base_schema_key_t *warmup = base_schema_find("adapters", "warmup_steps");
    char path[PATH_BYTES];

    for (int64_t i = 0; i < config->num_adapters; i++) {
        const base_config_adapter_t *job = &config->adapters[i];
        const base_yaml_node_t *node = adapters->entries[i].value;
        const base_yaml_entry_t *entry = base_rules_effective(warmup, node, defaults);

        base_validate_adapter_path(node, (size_t)i, path, sizeof path);
        check_warmup(path, job, entry == NULL ? node->place : entry->value->place, errors);
        if (columns != NULL && job->rank > config->batch.max_rank_columns)
            base_error_list_add(errors, BASE_MSG_CONF_04, columns->place,
                                "batch.max_rank_columns: %" PRId64 " is less than the rank %" PRId64
                                " of %s",
                                config->batch.max_rank_columns, job->rank, path);
    }
    if (config->train.mode == BASE_CONFIG_MODE_FULL) {
        const base_yaml_entry_t *entry = base_rules_effective(warmup, NULL, defaults);

        check_warmup("defaults", &config->full, entry == NULL ? root->place : entry->value->place,
                     errors);
    }
}
