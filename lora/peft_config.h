/* adapter_config.json of a PEFT adapter: read strictly, written in the portable form.
 *
 * Reading: r and lora_alpha have to stand there (PEFT fills them from defaults that nobody meant).
 * A key that switches on what Cadre does not compute is DATA-42, by its name: use_dora, bias,
 * modules_to_save, lora_bias, fan_in_fan_out, layers_to_transform, layer_replication, an
 * init_lora_weights that has changed the base (pissa, olora, corda, loftq and any word that is not
 * known to leave it alone), another peft_type or task_type. A key that is not known at all is
 * DATA-42 too unless its value is null, false or empty: newer versions of PEFT add switches. All
 * faults are reported in one pass.
 *
 * rank_pattern, alpha_pattern: PEFT takes the first key k, in the order of the file, for which the
 * regular expression (.*\.)?(k)$ matches the module's name. Keys made of letters, digits, '_', '-',
 * '.' (any character) and '\.', with or without '^' before and '$' behind, are matched so; other
 * regular expressions are DATA-42. */
#ifndef CADRE_LORA_PEFT_CONFIG_H
#define CADRE_LORA_PEFT_CONFIG_H

#include "base/config/error_list.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LORA_PEFT_MAX_RANK 65536

typedef struct lora_peft_pattern {
    const char *key;
    double value;
} lora_peft_pattern_t;

typedef struct lora_peft_config {
    int64_t rank;
    double alpha;
    double dropout; /* 0: not named */
    bool rslora;
    const char *base_model; /* as the file names it; NULL: not at all */
    int64_t num_ranks, num_alphas;
    const lora_peft_pattern_t *ranks, *alphas; /* in the order of the file */
    bool has_targets;                          /* target_modules is a list of names */
    int64_t num_targets;
    const char **targets;
    base_text_pool_t pool; /* owns all of it; private */
} lora_peft_config_t;

/* Faults go to `errors` (BASE_ERR_FORMAT, nothing recorded yet); a file that cannot be read is
 * recorded at once. *config is always to be ended with deinit. */
base_status_t lora_peft_config_read(base_ctx_t *ctx, const char *path, base_error_list_t *errors,
                                    lora_peft_config_t *config) BASE_MUST_CHECK;
void lora_peft_config_deinit(lora_peft_config_t *config); /* may be repeated */

/* Rank of a module ("model.layers.0.self_attn.q_proj") and by what B A is multiplied there. */
int64_t lora_peft_config_rank(const lora_peft_config_t *config, const char *module);
double lora_peft_config_scale(const lora_peft_config_t *config, const char *module);
/* Whether PEFT puts an adapter there: false when target_modules is a list without the module. With
 * a regular expression or a word ("all-linear") the names of the tensors decide. */
bool lora_peft_config_has_target(const lora_peft_config_t *config, const char *module);

/* What a adapter_config.json of ours says. */
typedef struct lora_peft_words {
    int64_t rank;
    double alpha;
    double dropout;
    bool rslora;
    uint32_t targets; /* bits of base_config_target_t */
    const char *base_model;
} lora_peft_words_t;

/* Writes the file as PEFT does: indent 2, keys sorted, targets a sorted list; an alpha without
 * fraction is an integer, which PEFT and servers expect. BASE_ERR_IO (IO-02). */
base_status_t lora_peft_config_write(base_ctx_t *ctx, const char *path,
                                     const lora_peft_words_t *words) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
