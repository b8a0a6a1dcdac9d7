#include "data/hf_rope.h"

#include <string.h>

#define MAX_FACTOR 1e6

enum { PLAIN = 1 << DATA_ROPE_PLAIN, LINEAR = 1 << DATA_ROPE_LINEAR };
enum { LLAMA3 = 1 << DATA_ROPE_LLAMA3, YARN = 1 << DATA_ROPE_YARN };

static const struct {
    const char *word;
    data_rope_kind_t kind;
} kinds[] = {
    {"default", DATA_ROPE_PLAIN},
    {"linear", DATA_ROPE_LINEAR},
    {"llama3", DATA_ROPE_LLAMA3},
    {"yarn", DATA_ROPE_YARN},
};

/* Which types have a key. */
static const struct {
    const char *key;
    int kinds;
} keys[] = {
    {"type", PLAIN | LINEAR | LLAMA3 | YARN},
    {"rope_type", PLAIN | LINEAR | LLAMA3 | YARN},
    {"rope_theta", PLAIN | LINEAR | LLAMA3 | YARN},
    {"partial_rotary_factor", PLAIN | LINEAR | LLAMA3 | YARN},
    {"factor", LINEAR | LLAMA3 | YARN},
    {"original_max_position_embeddings", LLAMA3 | YARN},
    {"low_freq_factor", LLAMA3},
    {"high_freq_factor", LLAMA3},
    {"attention_factor", YARN},
    {"beta_fast", YARN},
    {"beta_slow", YARN},
    {"truncate", YARN},
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

typedef struct scaling {
    data_json_object_t object;
    data_rope_t *rope;
} scaling_t;

/* False: reported. */
static bool read_kind(const data_json_object_t *object, data_rope_kind_t *kind)
{
    const bool old = data_json_has(object, "type"), new = data_json_has(object, "rope_type");
    const char *word = NULL, *other = NULL;

    /* Where both are missing the newer one is named. */
    if ((new || !old) && !data_json_text(object, "rope_type", &word)) return false;
    if (old && !data_json_text(object, "type", &other)) return false;
    if (word == NULL) word = other;
    if (word == NULL) return false;
    if (other != NULL && strcmp(word, other) != 0) {
        data_json_fault(object, BASE_MSG_DATA_04, "type",
                        "is \"%.40s\" and \"rope_type\" is \"%.40s\"", other, word);
        return false;
    }
    for (size_t i = 0; i < COUNT(kinds); i++) {
        if (strcmp(kinds[i].word, word) != 0) continue;
        *kind = kinds[i].kind;
        return true;
    }
    data_json_fault(object, BASE_MSG_DATA_05, new ? "rope_type" : "type",
                    "is \"%.40s\"; default, linear, llama3 and yarn are supported", word);
    return false;
}

static void check_key(void *arg, const char *key, data_json_kind_t kind, double number)
{
    const scaling_t *scaling = arg;

    if (kind == DATA_JSON_NULL) return;
    for (size_t i = 0; i < COUNT(keys); i++)
        if (strcmp(keys[i].key, key) == 0 && (keys[i].kinds >> scaling->rope->kind & 1) != 0) {
            if (strcmp(key, "partial_rotary_factor") == 0 && number != 1.0)
                data_json_fault(&scaling->object, BASE_MSG_DATA_05, key,
                                "is %g, only 1 is supported", number);
            return;
        }
    data_json_fault(&scaling->object, BASE_MSG_DATA_05, key, "is no key of rope type %s",
                    kinds[scaling->rope->kind].word);
}

/* A key that yarn gives a value when it is missing. */
static void optional(const data_json_object_t *object, const char *key, double missing,
                     double *value)
{
    *value = missing;
    if (data_json_has(object, key)) (void)data_json_number(object, key, 1e-6, 1e6, value);
}

static void read_scaling(const data_json_object_t *object, data_rope_t *rope)
{
    scaling_t scaling = {.object = *object, .rope = rope};

    if (!read_kind(object, &rope->kind)) return;
    data_json_each(object, check_key, &scaling);
    if (rope->kind == DATA_ROPE_PLAIN) return;
    (void)data_json_number(object, "factor", 1.0, MAX_FACTOR, &rope->factor);
    if (rope->kind == DATA_ROPE_LINEAR) return;
    (void)data_json_int(object, "original_max_position_embeddings", 1, DATA_MODEL_MAX_POSITIONS,
                        &rope->original_max_positions);
    if (rope->kind == DATA_ROPE_LLAMA3) {
        double low = 0.0, high = 0.0;
        const bool has_low = data_json_number(object, "low_freq_factor", 1e-6, MAX_FACTOR, &low);
        const bool has_high = data_json_number(object, "high_freq_factor", 1e-6, MAX_FACTOR, &high);

        if (has_low && has_high && high <= low)
            data_json_fault(object, BASE_MSG_DATA_04, "high_freq_factor",
                            "is %g, not above low_freq_factor %g", high, low);
        rope->low_freq_factor = low;
        rope->high_freq_factor = high;
        return;
    }
    optional(object, "beta_fast", 32.0, &rope->beta_fast);
    optional(object, "beta_slow", 1.0, &rope->beta_slow);
    if (rope->beta_fast <= rope->beta_slow)
        data_json_fault(object, BASE_MSG_DATA_04, "beta_fast", "is %g, not above beta_slow %g",
                        rope->beta_fast, rope->beta_slow);
    optional(object, "attention_factor", data_rope_yarn_attention_factor(rope->factor),
             &rope->attention_factor);
    rope->truncate = true;
    if (data_json_has(object, "truncate"))
        (void)data_json_bool(object, "truncate", &rope->truncate);
}

/* `parameters`: rope_parameters or rope_scaling, NULL when there is none. */
static void read_theta(const data_json_object_t *root, const data_json_object_t *parameters,
                       double default_theta, double *theta)
{
    const bool outer = data_json_has(root, "rope_theta");
    const bool inner = parameters != NULL && data_json_has(parameters, "rope_theta");
    double second;

    if (!outer && !inner && parameters == NULL && default_theta > 0.0) {
        *theta = default_theta;
        return;
    }
    if (!data_json_number(inner ? parameters : root, "rope_theta", 1.0001, 1e15, theta)) return;
    if (outer && inner && data_json_number(root, "rope_theta", 1.0001, 1e15, &second) &&
        second != *theta)
        data_json_fault(root, BASE_MSG_DATA_04, "rope_theta",
                        "is %.15g and \"%s.rope_theta\" is %.15g", second, parameters->path,
                        *theta);
}

void data_hf_rope_read(const data_json_object_t *root, double default_theta, data_rope_t *rope)
{
    const bool new = data_json_has(root, "rope_parameters");
    const bool old = data_json_has(root, "rope_scaling");
    data_json_object_t object;

    *rope = (data_rope_t){.kind = DATA_ROPE_PLAIN};
    if (new &&old)
        data_json_fault(root, BASE_MSG_DATA_04, "rope_scaling",
                        "is given besides \"rope_parameters\"; one of the two has to go");
    if ((new || old) && !data_json_child(root, new ? "rope_parameters" : "rope_scaling", &object))
        return;
    read_theta(root, new || old ? &object : NULL, default_theta, &rope->theta);
    if (new || old) read_scaling(&object, rope);
}
