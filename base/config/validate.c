#include "base/config/validate.h"

#include "base/config/suggest.h"
#include "base/config/value.h"

#include <string.h>

#define PATH_BYTES     128
#define MAX_CANDIDATES 96

/* ==== unknown keys ==== */

static const char *section_in_words(const char *section)
{
    if (section[0] == '\0') return "at the top level";
    if (strcmp(section, "adapters") == 0) return "in an adapter";
    return section;
}

/* "under train, under defaults or in an adapter": the sections that know `name`. False when none
 * does. */
static bool where_it_belongs(const char *name, char *buffer, size_t bytes)
{
    const char *section;
    size_t found = 0, total = 0, used = 0;

    for (size_t i = 0; (section = base_schema_section(i)) != NULL; i++)
        total += base_schema_find(section, name) != NULL;
    for (size_t i = 0; (section = base_schema_section(i)) != NULL && used < bytes; i++) {
        const char *separator = found == 0 ? "" : found + 1 == total ? " or " : ", ";
        const char *under = section[0] == '\0' || strcmp(section, "adapters") == 0 ? "" : "under ";

        if (base_schema_find(section, name) == NULL) continue;
        used += (size_t)snprintf(buffer + used, bytes - used, "%s%s%s", separator, under,
                                 section_in_words(section));
        found++;
    }
    return found > 0;
}

static const char *nearest_key(const char *section, const char *name)
{
    const char *candidates[MAX_CANDIDATES];
    const char *other;
    size_t count = 0;

    for (size_t i = 0; i < base_schema_count() && count < MAX_CANDIDATES; i++)
        if (base_schema_belongs(base_schema_key(i), section))
            candidates[count++] = base_schema_key(i)->name;
    for (size_t i = 1;
         section[0] == '\0' && count < MAX_CANDIDATES && (other = base_schema_section(i)) != NULL;
         i++)
        candidates[count++] = other;
    return base_suggest_nearest(name, candidates, count);
}

static void unknown_key(const char *section, const base_yaml_node_t *key, base_error_list_t *errors)
{
    const char *foreign = base_suggest_foreign(key->text);
    const char *near = nearest_key(section, key->text);
    char belongs[PATH_BYTES];

    if (where_it_belongs(key->text, belongs, sizeof belongs))
        base_error_list_add(errors, BASE_MSG_CONF_03, key->place,
                            "\"%s\" does not stand here; it belongs %s", key->text, belongs);
    else if (foreign != NULL)
        base_error_list_add(errors, BASE_MSG_CONF_08, key->place, "\"%s\": %s", key->text, foreign);
    else if (near != NULL)
        base_error_list_add(errors, BASE_MSG_CONF_03, key->place,
                            "unknown key \"%s\"; nearest is \"%s\"", key->text, near);
    else
        base_error_list_add(errors, BASE_MSG_CONF_03, key->place, "unknown key \"%.100s\"",
                            key->text);
}

/* ==== values ==== */

/* The place of a --set names the key already. */
static void bad_value(const base_value_fault_t *fault, const char *path, const char *name,
                      base_error_list_t *errors)
{
    const base_error_place_t place = fault->node->place;

    if (place.order > 0)
        base_error_list_add(errors, BASE_MSG_CONF_04, place, "%s", fault->text);
    else
        base_error_list_add(errors, BASE_MSG_CONF_04, place, "%s%s%s: %s", path,
                            path[0] == '\0' ? "" : ".", name, fault->text);
}

static void check_entry(const char *section, const char *path, const base_yaml_entry_t *entry,
                        base_error_list_t *errors)
{
    const base_schema_key_t *key = base_schema_find(section, entry->key->text);
    base_value_t value;
    base_value_fault_t fault;

    if (key == NULL)
        unknown_key(section, entry->key, errors);
    else if (!base_value_parse(key, entry->value, &value, &fault))
        bad_value(&fault, path, key->name, errors);
}

static const char *found_kind(const base_yaml_node_t *node)
{
    if (node->kind == BASE_YAML_SCALAR)
        return base_value_is_nothing(node) ? "nothing" : "a single value";
    return node->kind == BASE_YAML_SEQUENCE ? "a list" : "a mapping";
}

static void check_section(const char *section, const char *path, const base_yaml_node_t *node,
                          base_error_list_t *errors)
{
    /* `defaults:` with everything below it commented out. */
    if (base_value_is_nothing(node)) return;
    if (node->kind != BASE_YAML_MAPPING) {
        base_error_list_add(errors, BASE_MSG_CONF_04, node->place,
                            "%s: want keys with values, found %s", path, found_kind(node));
        return;
    }
    for (size_t i = 0; i < node->count; i++)
        check_entry(section, path, &node->entries[i], errors);
}

const char *base_validate_adapter_path(const base_yaml_node_t *node, size_t index, char *buffer,
                                       size_t bytes)
{
    const base_yaml_node_t *name = base_yaml_get(node, "name");

    if (name != NULL && name->kind == BASE_YAML_SCALAR && name->text[0] != '\0' &&
        strlen(name->text) <= 64)
        (void)snprintf(buffer, bytes, "adapters.%s", name->text);
    else
        (void)snprintf(buffer, bytes, "adapters[%zu]", index);
    return buffer;
}

static void check_adapters(const base_yaml_node_t *node, base_error_list_t *errors)
{
    char path[PATH_BYTES];

    if (base_value_is_nothing(node)) return;
    if (node->kind != BASE_YAML_SEQUENCE) {
        base_error_list_add(errors, BASE_MSG_CONF_04, node->place,
                            "adapters: want a list, each entry like `- name: legal`, found %s",
                            found_kind(node));
        return;
    }
    for (size_t i = 0; i < node->count; i++)
        check_section("adapters",
                      base_validate_adapter_path(node->entries[i].value, i, path, sizeof path),
                      node->entries[i].value, errors);
}

static bool is_section(const char *name)
{
    const char *section;

    for (size_t i = 1; (section = base_schema_section(i)) != NULL; i++)
        if (strcmp(section, name) == 0) return true;
    return false;
}

void base_validate_keys(const base_yaml_node_t *root, base_error_list_t *errors)
{
    if (root->kind != BASE_YAML_MAPPING) {
        base_error_list_add(errors, BASE_MSG_CONF_04, root->place,
                            "want keys with values, found %s", found_kind(root));
        return;
    }
    for (size_t i = 0; i < root->count; i++) {
        const base_yaml_entry_t *entry = &root->entries[i];

        if (strcmp(entry->key->text, "adapters") == 0)
            check_adapters(entry->value, errors);
        else if (is_section(entry->key->text))
            check_section(entry->key->text, entry->key->text, entry->value, errors);
        else
            check_entry("", "", entry, errors);
    }
}
