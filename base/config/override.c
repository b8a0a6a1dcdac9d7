#include "base/config/override.h"

#include "base/config/schema.h"
#include "base/config/suggest.h"
#include "base/config/value.h"

#include <string.h>

#define MAX_CANDIDATES 256

static const char ADAPTERS[] = "adapters.";

static base_yaml_node_t *new_scalar(base_text_pool_t *pool, const char *text, size_t length,
                                    base_error_place_t place)
{
    base_yaml_node_t *node = base_yaml_new(pool, BASE_YAML_SCALAR, place);

    if (node == NULL) return NULL;
    node->text = base_text_pool_copy(pool, text, length);
    return node->text == NULL ? NULL : node;
}

/* Puts key: value into a mapping, in the old entry's position if there is one. */
static base_status_t put(base_text_pool_t *pool, base_yaml_node_t *mapping, base_yaml_node_t *key,
                         base_yaml_node_t *value)
{
    base_yaml_entry_t *entry = base_yaml_entry(mapping, key->text);

    if (entry == NULL) return base_yaml_add(pool, mapping, key, value);
    *entry = (base_yaml_entry_t){key, value};
    return BASE_OK;
}

/* The mapping of a section, created when the file has none or an empty one. *section_p is NULL when
 * the file has something else there, which validation reports. */
static base_status_t section_of(base_text_pool_t *pool, base_yaml_node_t *root, const char *name,
                                size_t length, base_error_place_t place,
                                base_yaml_node_t **section_p)
{
    base_yaml_node_t *key = new_scalar(pool, name, length, place);
    base_yaml_node_t *section;

    *section_p = NULL;
    if (key == NULL) return BASE_ERR_NOMEM;
    section = base_yaml_get(root, key->text);
    if (section == NULL || base_value_is_nothing(section)) {
        section = base_yaml_new(pool, BASE_YAML_MAPPING, place);
        if (section == NULL) return BASE_ERR_NOMEM;
        BASE_TRY(put(pool, root, key, section));
    }
    if (section->kind == BASE_YAML_MAPPING) *section_p = section;
    return BASE_OK;
}

/* The adapter called name[0, length); NULL after an error that lists the nearest. */
static base_yaml_node_t *adapter_of(const base_yaml_node_t *root, const char *name, size_t length,
                                    base_error_place_t place, base_error_list_t *errors)
{
    const base_yaml_node_t *adapters = base_yaml_get(root, "adapters");
    const char *candidates[MAX_CANDIDATES];
    const char *near = NULL;
    size_t count = 0;
    char word[128];

    for (size_t i = 0;
         adapters != NULL && adapters->kind == BASE_YAML_SEQUENCE && i < adapters->count; i++) {
        const base_yaml_node_t *other = base_yaml_get(adapters->entries[i].value, "name");

        if (other == NULL || other->kind != BASE_YAML_SCALAR) continue;
        if (strlen(other->text) == length && strncmp(other->text, name, length) == 0)
            return adapters->entries[i].value;
        if (count < MAX_CANDIDATES) candidates[count++] = other->text;
    }
    (void)snprintf(word, sizeof word, "%.*s",
                   length < sizeof word ? (int)length : (int)sizeof word - 1, name);
    near = base_suggest_nearest(word, candidates, count);
    if (near != NULL)
        base_error_list_add(errors, BASE_MSG_CONF_03, place,
                            "no adapter is called \"%s\"; nearest is \"%s\"", word, near);
    else
        base_error_list_add(errors, BASE_MSG_CONF_03, place, "no adapter is called \"%s\"", word);
    return NULL;
}

/* steps=10 speaks against the epochs of the file, not beside them. */
static void drop_partner(base_yaml_node_t *mapping, const char *section, const char *name)
{
    const base_schema_key_t *key = base_schema_find(section, name);
    const base_yaml_entry_t *partner;

    if (key == NULL || key->partner == NULL) return;
    partner = base_yaml_entry(mapping, key->partner);
    if (partner != NULL && partner->key->place.order == 0) base_yaml_remove(mapping, key->partner);
}

typedef struct target {
    base_yaml_node_t *mapping; /* NULL: nowhere, and reported or to be reported by validation */
    char section[32];          /* for drop_partner; "" when unknown */
    const char *key;
} target_t;

static base_status_t find_target(base_text_pool_t *pool, base_yaml_node_t *root, const char *path,
                                 base_error_place_t place, base_error_list_t *errors,
                                 target_t *target)
{
    const char *first = strchr(path, '.');
    const char *last = strrchr(path, '.');

    *target = (target_t){.mapping = root, .key = path};
    if (first == NULL) return BASE_OK;
    if (first != last && strncmp(path, ADAPTERS, strlen(ADAPTERS)) == 0) {
        const char *name = path + strlen(ADAPTERS);

        target->key = last + 1;
        (void)snprintf(target->section, sizeof target->section, "adapters");
        target->mapping = adapter_of(root, name, (size_t)(last - name), place, errors);
        return BASE_OK;
    }
    if (strncmp(path, ADAPTERS, strlen(ADAPTERS)) == 0) {
        target->mapping = NULL;
        base_error_list_add(errors, BASE_MSG_CONF_03, place, "want adapters.NAME.KEY=VALUE");
        return BASE_OK;
    }
    target->key = first + 1;
    (void)snprintf(target->section, sizeof target->section, "%.*s",
                   (int)(first - path < 31 ? first - path : 31), path);
    return section_of(pool, root, path, (size_t)(first - path), place, &target->mapping);
}

base_status_t base_override_apply(base_text_pool_t *pool, base_yaml_node_t *root, const char *set,
                                  int order, base_error_list_t *errors)
{
    const char *equals = strchr(set, '=');
    base_error_place_t place = {.source = "--set", .order = order};
    base_yaml_node_t *key, *value = NULL;
    target_t target;
    char *path;
    base_status_t st;

    if (equals == NULL || equals == set) {
        base_error_list_add(errors, BASE_MSG_CLI_02, place, "want PATH=VALUE, found \"%.100s\"",
                            set);
        return BASE_OK;
    }
    path = base_text_pool_copy(pool, set, (size_t)(equals - set));
    place.source = base_text_pool_format(pool, "--set %.100s", path == NULL ? "" : path);
    if (path == NULL || place.source == NULL) return BASE_ERR_NOMEM;
    st = base_yaml_load(pool, place.source, order, equals + 1, strlen(equals + 1), errors, &value);
    if (st == BASE_ERR_CONFIG) return BASE_OK;
    BASE_TRY(st);
    if (value == NULL) value = base_yaml_new(pool, BASE_YAML_SCALAR, place);
    BASE_TRY(find_target(pool, root, path, place, errors, &target));
    if (value == NULL) return BASE_ERR_NOMEM;
    if (target.mapping == NULL || target.mapping->kind != BASE_YAML_MAPPING) return BASE_OK;
    key = new_scalar(pool, target.key, strlen(target.key), place);
    if (key == NULL) return BASE_ERR_NOMEM;
    drop_partner(target.mapping, target.section, target.key);
    return put(pool, target.mapping, key, value);
}
