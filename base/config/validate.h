/* Validate: everything that can be wrong with a configuration, in one pass over its tree.
 *
 * base_validate_keys looks at each key alone: known here, of the right type, in range.
 * base_rules_check (rules.h) looks at keys together. Both only add to `errors` and never stop
 * early; neither changes the tree. */
#ifndef CADRE_BASE_CONFIG_VALIDATE_H
#define CADRE_BASE_CONFIG_VALIDATE_H

#include "base/config/schema.h"
#include "base/config/yaml_load.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `root` is the whole document. Unknown keys are CONF-03 (with the nearest legal key, or where the
 * key belongs), keys of other tools CONF-08, values CONF-04. */
void base_validate_keys(const base_yaml_node_t *root, base_error_list_t *errors);

/* "adapters.code" of adapter `index` of the list: by its name if it has one, else "adapters[1]".
 * Writes at most `bytes` with the zero byte and returns `buffer`. `node` may be anything that
 * stands in the list. */
const char *base_validate_adapter_path(const base_yaml_node_t *node, size_t index, char *buffer,
                                       size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
