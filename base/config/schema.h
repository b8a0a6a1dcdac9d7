/* Schema: the table of configuration keys.
 *
 * One row a key. Validation, defaults, --print-config, --set, docs/config.md and the comparison on
 * resume all read this table; to add a key, add a field to base_config_t (config.h) and a row to
 * schema.c, and write docs/config.md anew (its head has the command). Rules between several keys
 * are in rules.c. Everything here is static and read-only. */
#ifndef CADRE_BASE_CONFIG_SCHEMA_H
#define CADRE_BASE_CONFIG_SCHEMA_H

#include "base/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, C type of the field, words for the reader) */
#define BASE_SCHEMA_TYPE_MAP(X)                                                                    \
    X(BOOL, bool, "true or false")                                                                 \
    X(INT, int64_t, "whole number")                                                                \
    X(DOUBLE, double, "number")                                                                    \
    X(STRING, char *, "text")                                                                      \
    X(PATH, char *, "path")                                                                        \
    X(DOCUMENTS, char *, "path that ends in .jsonl or .h5")                                        \
    X(ENUM, int, "word")                                                                           \
    X(WORD_OR_PATH, char *, "word, or a path with a slash")                                        \
    X(TARGETS, uint32_t, "all-linear, or a list of layers")                                        \
    X(PAIR, double[2], "list of two numbers")                                                      \
    X(NUMBERS, const base_config_numbers_t *, "list of numbers")

typedef enum base_schema_type {
#define X(name, field, words) BASE_SCHEMA_##name,
    BASE_SCHEMA_TYPE_MAP(X)
#undef X
        BASE_SCHEMA_TYPE_COUNT
} base_schema_type_t;

/* Whether `--resume` accepts another value than the run began with. */
typedef enum base_schema_resume {
    BASE_SCHEMA_TAKE,   /* it does not change what was learned: taken and logged */
    BASE_SCHEMA_REFUSE, /* it does: an error that shows both values */
    BASE_SCHEMA_GROW, /* a larger value is taken with schedule constant, everything else refused */
    BASE_SCHEMA_CONTENT, /* a path: it may move; the manifest compares what it holds */
    BASE_SCHEMA_RESUME_COUNT
} base_schema_resume_t;

/* Flags of a row. */
#define BASE_SCHEMA_REQUIRED 0x01u /* must be given, by the adapter or in defaults */
#define BASE_SCHEMA_OPTIONAL 0x02u /* may be absent: 0 or NULL in the struct, not printed */
#define BASE_SCHEMA_DERIVED                                                                        \
    0x04u /* the default follows from other keys; `fallback` says how, in words */
#define BASE_SCHEMA_INHERIT  0x08u /* an adapter that does not say it takes it from `defaults` */
#define BASE_SCHEMA_LORA     0x10u /* means nothing with train.mode full */
#define BASE_SCHEMA_OPEN_MIN 0x20u /* min itself is not allowed */
#define BASE_SCHEMA_OPEN_MAX 0x40u /* max itself is not allowed */

typedef struct base_schema_key {
    const char *section; /* "", "attention", "batch", "train", "adapters" */
    const char *name;
    base_schema_type_t type;
    unsigned flags;
    const char
        *fallback;   /* default as it would stand in the file; words when DERIVED; NULL: none */
    double min, max; /* numbers only; HUGE_VAL: no bound */
    const char *const *words; /* ENUM, WORD_OR_PATH and TARGETS: the legal words, then NULL */
    const char *partner;      /* key of the same section that it excludes, or NULL */
    base_schema_resume_t resume;
    const char *unit; /* of a number, or "" */
    const char *doc;  /* one sentence or two */
    size_t offset; /* of the field in base_config_t; section "adapters": in base_config_adapter_t */
} base_schema_key_t;

size_t base_schema_count(void);
const base_schema_key_t *base_schema_key(size_t index);

/* Sections as they stand in the file: "", "attention", "batch", "train", "defaults", "adapters".
 * defaults holds the inherited rows of adapters. NULL past the end. */
const char *base_schema_section(size_t index);

/* True when `key` may stand in `section`. */
bool base_schema_belongs(const base_schema_key_t *key, const char *section);

/* The row of `name` in `section`, or NULL. */
const base_schema_key_t *base_schema_find(const char *section, const char *name);

const char *base_schema_type_words(base_schema_type_t type);

/* "a whole number from 1 to 1024", "one of constant, linear, cosine": what the key wants, for
 * messages and docs. Writes at most `bytes` with the zero byte and returns `buffer`. */
const char *base_schema_wants(const base_schema_key_t *key, char *buffer, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
