/* YAML load: text to a tree of nodes that know their line and column.
 *
 * The subset that a configuration needs: mappings, sequences and scalars of one document.
 * Everything that could mean something else than it seems is refused with CONF-02: tabs in the
 * indentation, anchors and aliases, tags, several documents, keys that are no scalars, text that is
 * not UTF-8, more than BASE_YAML_MAX_DEPTH levels, BASE_YAML_MAX_NODES nodes, BASE_YAML_MAX_KEYS keys of one mapping or BASE_YAML_MAX_BYTES
 * bytes. Two equal keys of a mapping are CONF-07; the first one stays. Scalars have no type: the
 * schema decides. libyaml allocates for itself while it parses. */
#ifndef CADRE_BASE_CONFIG_YAML_LOAD_H
#define CADRE_BASE_CONFIG_YAML_LOAD_H

#include "base/config/error_list.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BASE_YAML_MAX_BYTES ((size_t)1 << 22)
#define BASE_YAML_MAX_NODES 100000
#define BASE_YAML_MAX_KEYS  1024 /* of one mapping: looking for equal keys is quadratic */
#define BASE_YAML_MAX_DEPTH 16

typedef enum base_yaml_kind {
    BASE_YAML_SCALAR,
    BASE_YAML_SEQUENCE,
    BASE_YAML_MAPPING
} base_yaml_kind_t;

typedef struct base_yaml_node base_yaml_node_t;
typedef struct base_yaml_entry {
    base_yaml_node_t *key; /* a scalar; NULL in a sequence */
    base_yaml_node_t *value;
} base_yaml_entry_t;

struct base_yaml_node {
    base_yaml_kind_t kind;
    bool quoted;      /* scalars: written in quotes or as a block */
    const char *text; /* scalars: zero-terminated, without a zero byte inside */
    base_error_place_t place;
    base_yaml_entry_t *entries; /* in the order of the file */
    size_t count, capacity;
};

/* Parses `bytes` bytes at `text`; `source` names them in messages and is borrowed by the tree. The
 * tree lives in `pool`. *root_p is NULL for an empty document. Faults are added to `errors`; the
 * tree is still returned when the only faults are equal keys. Returns BASE_ERR_CONFIG after a fault
 * that leaves no tree, BASE_ERR_NOMEM. */
base_status_t base_yaml_load(base_text_pool_t *pool, const char *source, int order,
                             const char *text, size_t bytes, base_error_list_t *errors,
                             base_yaml_node_t **root_p) BASE_MUST_CHECK;

/* The value of `key` in a mapping, or NULL; of a node that is NULL or no mapping, NULL. */
base_yaml_node_t *base_yaml_get(const base_yaml_node_t *mapping, const char *key);

/* The same, but the entry, so that its key's place is at hand. */
base_yaml_entry_t *base_yaml_entry(const base_yaml_node_t *mapping, const char *key);

base_yaml_node_t *base_yaml_new(base_text_pool_t *pool, base_yaml_kind_t kind,
                                base_error_place_t place);

/* Adds an entry. Returns BASE_ERR_NOMEM. */
base_status_t base_yaml_add(base_text_pool_t *pool, base_yaml_node_t *parent, base_yaml_node_t *key,
                            base_yaml_node_t *value) BASE_MUST_CHECK;

/* Removes the entry of `key`, if there is one. */
void base_yaml_remove(base_yaml_node_t *mapping, const char *key);

#ifdef __cplusplus
}
#endif
#endif
