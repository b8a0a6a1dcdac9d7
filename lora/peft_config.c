#include "lora/peft_config.h"

#include "data/json_read.h"
#include "lora/layout.h"

#include <math.h>
#include <string.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define MAX_NAMES    100000 /* of target_modules: PEFT may have written every module's name */

static const char *const read_keys[] = {
    "alpha_pattern", "base_model_name_or_path",
    "bias",          "init_lora_weights",
    "lora_alpha",    "lora_dropout",
    "peft_type",     "r",
    "rank_pattern",  "target_modules",
    "task_type",     "use_rslora",
};

/* Bookkeeping, and settings of a start that is over. */
static const char *const harmless_keys[] = {
    "auto_mapping",   "ensure_weight_tying", "eva_config",   "exclude_modules",   "inference_mode",
    "layers_pattern", "megatron_core",       "peft_version", "qalora_group_size", "revision",
    "runtime_config",
};

/* Known, so that the message can say so; any key may be null, false or empty. */
static const char *const unsupported_keys[] = {
    "alora_invocation_tokens", "arrow_config",        "corda_config",    "fan_in_fan_out",
    "layer_replication",       "layers_to_transform", "loftq_config",    "lora_bias",
    "lora_ga_config",          "megatron_config",     "modules_to_save", "target_parameters",
    "trainable_token_indices", "use_bdlora",          "use_dora",        "use_qalora",
    "velora_config",
};

/* Words of init_lora_weights that leave the base as it is. */
static const char *const good_inits[] = {"gaussian", "eva", "orthogonal"};

static bool listed(const char *const *words, size_t count, const char *word)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(words[i], word) == 0) return true;
    return false;
}

/* ==== keys ==== */

static void check_key(void *arg, const char *key, data_json_kind_t kind, double number)
{
    const data_json_object_t *root = arg;

    if (listed(read_keys, COUNT(read_keys), key) ||
        listed(harmless_keys, COUNT(harmless_keys), key))
        return;
    if (kind == DATA_JSON_NULL || (kind == DATA_JSON_BOOL && number == 0.0)) return;
    if ((kind == DATA_JSON_ARRAY || kind == DATA_JSON_OBJECT) && number == 0.0) return;
    data_json_fault(root, BASE_MSG_DATA_42, key,
                    listed(unsupported_keys, COUNT(unsupported_keys), key)
                        ? "is not supported; only null, false or an empty value is allowed"
                        : "is not known; it may change what the adapter computes");
}

/* A text that may be missing and else has to be this one. */
static void check_word(const data_json_object_t *root, const char *key, const char *want)
{
    const char *word;

    if (!data_json_has(root, key) || !data_json_text(root, key, &word)) return;
    if (strcmp(word, want) != 0)
        data_json_fault(root, BASE_MSG_DATA_42, key,
                        "is \"%.100s\", which is not supported; only \"%s\" is", word, want);
}

static void check_init(const data_json_object_t *root)
{
    const char *const key = "init_lora_weights";
    data_json_kind_t kind;
    const char *word;

    if (!data_json_kind(root, key, &kind) || kind == DATA_JSON_NULL || kind == DATA_JSON_BOOL)
        return;
    if (data_json_text(root, key, &word) && !listed(good_inits, COUNT(good_inits), word))
        data_json_fault(root, BASE_MSG_DATA_42, key,
                        "is \"%.100s\", which changes the base or is not known; convert the "
                        "adapter with PEFT (path_initial_model_for_weight_conversion)",
                        word);
}

static void check_keys(const data_json_object_t *root)
{
    data_json_object_t arg = *root;

    data_json_each(root, check_key, &arg);
    if (!data_json_has(root, "peft_type"))
        data_json_fault(root, BASE_MSG_DATA_03, "peft_type", "is missing");
    check_word(root, "peft_type", "LORA");
    check_word(root, "task_type", "CAUSAL_LM");
    check_word(root, "bias", "none");
    check_init(root);
}

/* ==== patterns ==== */

/* Whether the key is a regular expression that pattern_matches understands. */
static bool pattern_is_simple(const char *key)
{
    const char *p = key[0] == '^' ? key + 1 : key;
    const char *const first = p;

    for (; *p != '\0'; p++) {
        if (p[0] == '\\' && p[1] == '.')
            p++;
        else if (p[0] == '$' && p[1] == '\0')
            return p > first;
        else if (strchr("._-", *p) == NULL && !(*p >= '0' && *p <= '9') &&
                 !(*p >= 'a' && *p <= 'z') && !(*p >= 'A' && *p <= 'Z'))
            return false;
    }
    return p > first;
}

/* (.*\.)?(KEY)$ from the beginning of the name: each atom of KEY is one character, so KEY can only
 * lie at one place, the end. */
static bool pattern_matches(const char *key, const char *name)
{
    const bool anchored = key[0] == '^';
    const size_t length = strlen(name);
    size_t atoms = 0;
    const char *at;

    if (anchored) key++;
    for (const char *p = key; *p != '\0' && *p != '$'; p++, atoms++)
        if (*p == '\\') p++;
    if (atoms > length || (anchored && atoms < length)) return false;
    if (atoms < length && name[length - atoms - 1] != '.') return false;
    at = name + (length - atoms);
    for (const char *p = key; *at != '\0'; p++, at++) {
        if (*p == '.') continue;
        if (*p == '\\') p++;
        if (*p != *at) return false;
    }
    return true;
}

typedef struct pattern_visit {
    const data_json_object_t *object;
    lora_peft_config_t *config;
    lora_peft_pattern_t *patterns;
    int64_t count;
    bool ranks; /* values are ranks: positive integers */
} pattern_visit_t;

static void take_pattern(void *arg, const char *key, data_json_kind_t kind, double number)
{
    pattern_visit_t *visit = arg;
    lora_peft_pattern_t *pattern = &visit->patterns[visit->count];
    bool good = kind == DATA_JSON_NUMBER && number > 0.0 && isfinite(number);

    if (visit->ranks) good = good && number == floor(number) && number <= LORA_PEFT_MAX_RANK;
    if (!good)
        data_json_fault(visit->object, BASE_MSG_DATA_04, key, "is no positive %s",
                        visit->ranks ? "integer" : "number");
    if (!pattern_is_simple(key))
        data_json_fault(visit->object, BASE_MSG_DATA_42, key,
                        "is a regular expression that is not supported; names of modules are");
    *pattern =
        (lora_peft_pattern_t){base_text_pool_copy(&visit->config->pool, key, strlen(key)), number};
    visit->count++;
}

static void read_patterns(const data_json_object_t *root, const char *key, bool ranks,
                          lora_peft_config_t *config)
{
    data_json_object_t object;
    pattern_visit_t visit = {.object = &object, .config = config, .ranks = ranks};

    if (!data_json_has(root, key) || !data_json_child(root, key, &object)) return;
    visit.patterns = base_text_pool_take(&config->pool, ((size_t)data_json_num_keys(&object) + 1) *
                                                            sizeof *visit.patterns);
    if (visit.patterns == NULL) return;
    data_json_each(&object, take_pattern, &visit);
    if (ranks) {
        config->ranks = visit.patterns;
        config->num_ranks = visit.count;
    } else {
        config->alphas = visit.patterns;
        config->num_alphas = visit.count;
    }
}

/* ==== reading ==== */

static void read_targets(const data_json_object_t *root, lora_peft_config_t *config)
{
    const char *const key = "target_modules";
    const char **targets;
    data_json_kind_t kind;
    int64_t count;

    if (!data_json_kind(root, key, &kind) || kind == DATA_JSON_NULL || kind == DATA_JSON_TEXT)
        return;
    if (!data_json_array(root, key, &count)) return;
    if (count > MAX_NAMES) {
        data_json_fault(root, BASE_MSG_DATA_04, key, "has more than %d names", MAX_NAMES);
        return;
    }
    targets = base_text_pool_take(&config->pool, ((size_t)count + 1) * sizeof *targets);
    if (targets == NULL) return;
    for (int64_t i = 0; i < count; i++) {
        const char *name;

        if (data_json_array_text(root, key, i, &name))
            targets[config->num_targets++] = base_text_pool_copy(&config->pool, name, strlen(name));
    }
    config->targets = targets;
    config->has_targets = true;
}

static void read_values(const data_json_object_t *root, lora_peft_config_t *config)
{
    const char *base;

    data_json_int(root, "r", 1, LORA_PEFT_MAX_RANK, &config->rank);
    data_json_number(root, "lora_alpha", 1e-9, 1e9, &config->alpha);
    if (data_json_has(root, "lora_dropout"))
        data_json_number(root, "lora_dropout", 0.0, 1.0, &config->dropout);
    if (data_json_has(root, "use_rslora")) data_json_bool(root, "use_rslora", &config->rslora);
    if (data_json_has(root, "base_model_name_or_path") &&
        data_json_text(root, "base_model_name_or_path", &base))
        config->base_model = base_text_pool_copy(&config->pool, base, strlen(base));
    read_targets(root, config);
    read_patterns(root, "rank_pattern", true, config);
    read_patterns(root, "alpha_pattern", false, config);
}

base_status_t lora_peft_config_read(base_ctx_t *ctx, const char *path, base_error_list_t *errors,
                                    lora_peft_config_t *config)
{
    const size_t before = errors->count;
    data_json_object_t root;
    data_json_t *json;

    *config = (lora_peft_config_t){0};
    base_text_pool_init(&config->pool, ctx);
    BASE_TRY(data_json_read(ctx, path, DATA_JSON_MAX_BYTES, errors, &json));
    root = data_json_root(json);
    check_keys(&root);
    read_values(&root, config);
    data_json_close(json);
    if (config->pool.failed || errors->pool.failed) return BASE_ERR_NOMEM;
    return errors->count > before ? BASE_ERR_FORMAT : BASE_OK;
}

void lora_peft_config_deinit(lora_peft_config_t *config)
{
    base_text_pool_deinit(&config->pool);
}

/* ==== questions ==== */

static double first_match(const lora_peft_pattern_t *patterns, int64_t count, const char *module,
                          double otherwise)
{
    for (int64_t i = 0; i < count; i++)
        if (pattern_matches(patterns[i].key, module)) return patterns[i].value;
    return otherwise;
}

int64_t lora_peft_config_rank(const lora_peft_config_t *config, const char *module)
{
    return (int64_t)first_match(config->ranks, config->num_ranks, module, (double)config->rank);
}

double lora_peft_config_scale(const lora_peft_config_t *config, const char *module)
{
    return lora_scale(first_match(config->alphas, config->num_alphas, module, config->alpha),
                      lora_peft_config_rank(config, module), config->rslora);
}

bool lora_peft_config_has_target(const lora_peft_config_t *config, const char *module)
{
    const size_t length = strlen(module);

    if (!config->has_targets) return true;
    for (int64_t i = 0; i < config->num_targets; i++) {
        const size_t n = strlen(config->targets[i]);

        if (n > length || strcmp(module + length - n, config->targets[i]) != 0) continue;
        if (n == length || module[length - n - 1] == '.') return true;
    }
    return false;
}
