/* Value: one key's value between YAML text and its field in the configuration.
 *
 * The only place that knows the types of schema.h: parse (with its message), store, compare, write.
 * Not thread-safe where a pool is passed. Numbers follow the C locale. */
#ifndef CADRE_BASE_CONFIG_VALUE_H
#define CADRE_BASE_CONFIG_VALUE_H

#include "base/config/schema.h"
#include "base/config/yaml_load.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BASE_VALUE_MAX_TEXT 4095

typedef struct base_value {
    int64_t integer;  /* BOOL, INT, ENUM, TARGETS */
    double real[2];   /* DOUBLE, PAIR */
    const char *text; /* STRING, PATH, DOCUMENTS, WORD_OR_PATH; borrowed from the node */
    const base_yaml_node_t *list;         /* NUMBERS as they were read; borrowed */
    const base_config_numbers_t *numbers; /* NUMBERS of an object */
} base_value_t;

typedef struct base_value_fault {
    const base_yaml_node_t *node; /* what is at fault: the value, or an entry of its list */
    char text[512];               /* "want a whole number from 1 to 1024, found "16.5"" */
} base_value_fault_t;

/* Reads `node` as `key` wants it. Returns false after writing one clause to *fault. */
bool base_value_parse(const base_schema_key_t *key, const base_yaml_node_t *node,
                      base_value_t *value, base_value_fault_t *fault);

/* A key without a value behind it (`defaults:`), ~ or null. */
bool base_value_is_nothing(const base_yaml_node_t *node);

/* Writes the value into the field of `object`, the struct that key->offset belongs to; texts and
 * lists are copied into `pool`. Returns BASE_ERR_NOMEM. */
base_status_t base_value_store(const base_schema_key_t *key, const base_value_t *value,
                               base_text_pool_t *pool, void *object) BASE_MUST_CHECK;

/* False for an OPTIONAL key that is absent: its field is 0 or NULL. */
bool base_value_is_set(const base_schema_key_t *key, const void *object);

/* Whether both objects hold the same value; numbers by their bits' value, not by their text. */
bool base_value_equal(const base_schema_key_t *key, const void *a, const void *b);

/* An INT field. */
int64_t base_value_int(const base_schema_key_t *key, const void *object);

/* Where text goes: a stream, a hash, a buffer. */
typedef struct base_writer {
    void (*write)(void *to, const char *text, size_t length);
    void *to;
} base_writer_t;

void base_writer_text(const base_writer_t *writer, const char *text);

/* Writes a field as YAML that base_value_parse reads back to the same value: numbers with as many
 * digits as that takes, texts quoted where YAML would see something else in them. */
void base_value_write(const base_schema_key_t *key, const void *object,
                      const base_writer_t *writer);

#ifdef __cplusplus
}
#endif
#endif
