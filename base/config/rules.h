/* Rules: what several keys have to say together.
 *
 * A rule that needs only the presence of keys works on the tree, so that it is reported beside the
 * faults of single values; a rule over numbers works on the resolved configuration, which exists
 * only when nothing else is wrong. */
#ifndef CADRE_BASE_CONFIG_RULES_H
#define CADRE_BASE_CONFIG_RULES_H

#include "base/config/config.h"
#include "base/config/schema.h"
#include "base/config/yaml_load.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Missing keys (CONF-05), keys that exclude each other (CONF-06), names of adapters (CONF-04,
 * CONF-07). */
void base_rules_check(const base_yaml_node_t *root, base_error_list_t *errors);

/* Numbers that contradict each other (CONF-04). `root` is only asked for places. */
void base_rules_check_numbers(const base_config_t *config, const base_yaml_node_t *root,
                              base_error_list_t *errors);

/* The entry that `key` (section adapters) takes its value from: the adapter's own, else that of
 * `defaults`, unless the adapter gives the key's partner, which puts the inherited one aside. NULL:
 * the default of the table. Both nodes may be NULL. */
const base_yaml_entry_t *base_rules_effective(const base_schema_key_t *key,
                                              const base_yaml_node_t *adapter,
                                              const base_yaml_node_t *defaults);

/* train.mode as far as it can be read; lora when it cannot. */
base_config_mode_t base_rules_mode(const base_yaml_node_t *root);

#ifdef __cplusplus
}
#endif
#endif
