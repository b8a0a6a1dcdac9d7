/* Print: a resolved configuration as YAML, as a hash, and the table as a page of documentation.
 * Thread-safe on a configuration that is not being changed; nothing is allocated. */
#ifndef CADRE_BASE_CONFIG_PRINT_H
#define CADRE_BASE_CONFIG_PRINT_H

#include "base/config/config.h"
#include "base/hash.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Every key with its value, defaults filled in, each adapter complete. Loading the text gives the
 * same configuration and the same text again. Faults of the stream stay with the stream (ferror).
 */
void base_print_config(const base_config_t *config, FILE *out);

/* Hash of that text: ranks compare it at start. */
base_hash_t base_print_hash(const base_config_t *config);

/* docs/config.md: every key with type, range, default and meaning, and an example. */
void base_print_reference(FILE *out);

/* The example of that page: a complete configuration, loadable as it is. Static. */
const char *base_print_example(void);

#ifdef __cplusplus
}
#endif
#endif
