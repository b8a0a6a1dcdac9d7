/* Override: `--set PATH=VALUE` as a change of the tree, before validation.
 *
 * The value is validated like the file's; its place in messages is "--set PATH". */
#ifndef CADRE_BASE_CONFIG_OVERRIDE_H
#define CADRE_BASE_CONFIG_OVERRIDE_H

#include "base/config/yaml_load.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Applies one set. `order` (1, 2, ...) is its number. PATH is KEY, SECTION.KEY or
 * adapters.NAME.KEY; a name may hold dots, a key does not. The other key of a pair is removed from
 * the same section unless a set put it there. A fault is added to `errors` and the tree stays as it
 * was. Returns BASE_ERR_NOMEM or BASE_OK. */
base_status_t base_override_apply(base_text_pool_t *pool, base_yaml_node_t *root, const char *set,
                                  int order, base_error_list_t *errors) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
