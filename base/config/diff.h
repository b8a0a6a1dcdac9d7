/* Diff: what differs between the configuration a run began with and the one given to --resume.
 *
 * Only configuration is compared; whether a model folder or a data file still holds the same is the
 * manifest's business. Not thread-safe. */
#ifndef CADRE_BASE_CONFIG_DIFF_H
#define CADRE_BASE_CONFIG_DIFF_H

#include "base/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct base_diff_item {
    const char *path;   /* "adapters.code.rank" */
    const char *before; /* values as they stand in a file; "none" when the key is absent */
    const char *now;
    bool refused; /* it changes what was learned; else it is taken, and worth a line in the log */
    const char *why; /* of a refusal: one clause; else "" */
} base_diff_item_t;

typedef struct base_diff {
    base_text_pool_t pool; /* owns the items and texts; private */
    base_diff_item_t *items;
    size_t count, capacity;
    size_t num_refused;
} base_diff_t;

void base_diff_init(base_diff_t *diff, base_ctx_t *ctx);
void base_diff_deinit(base_diff_t *diff);

/* Adds every difference, in the order of the table; adapters are matched by name. An adapter that
 * came or went is refused, and so is another order of the same adapters. `diff` is initialised and
 * may be reused only after deinit. Returns BASE_ERR_NOMEM. */
base_status_t base_diff_configs(base_diff_t *diff, const base_config_t *before,
                                const base_config_t *now) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
