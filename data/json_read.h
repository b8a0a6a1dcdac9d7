/* JSON files of a model folder: parsed with jansson, looked at with typed getters that report
 * everything wrong in one pass.
 *
 *   data_json_t *json;
 *   BASE_TRY(data_json_read(ctx, path, DATA_JSON_MAX_BYTES, errors, &json));
 *   const data_json_object_t root = data_json_root(json);
 *   data_json_int(&root, "hidden_size", 1, 1 << 20, &hidden);       false: reported in `errors`
 *   data_json_close(json);
 *   return data_errors_finish(errors);
 *
 * Syntax errors and duplicate keys have line and column (DATA-02). jansson keeps no positions of
 * values, so what the getters report is placed by the key's path: `config.json:
 * "rope_scaling.factor": ...`. A missing key is DATA-03, a wrong type or value DATA-04. A key
 * whose value is null counts as missing.
 *
 * The tree is jansson's own memory: its allocator is set per process, so it cannot be counted for a
 * rank. It is bounded by the limit on the text, lives between read and close, and nothing of it is
 * kept by what is built from it. One thread at a time. */
#ifndef CADRE_DATA_JSON_READ_H
#define CADRE_DATA_JSON_READ_H

#include "base/config/error_list.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* config.json has some kilobytes, an index some hundred for the largest models. */
#define DATA_JSON_MAX_BYTES (INT64_C(16) << 20)

struct json_t; /* jansson's */

typedef struct data_json data_json_t;

/* An object within a tree; a value, borrowed from its data_json_t. */
typedef struct data_json_object {
    const struct json_t *node;
    const char *path;   /* of the object: "" at the root, else "rope_scaling" */
    const char *source; /* file, for messages */
    base_error_list_t *errors;
} data_json_object_t;

/* Reads a file of at most max_bytes; the outermost value has to be an object. Syntax is reported in
 * `errors` (BASE_ERR_FORMAT, nothing recorded in the context yet: data_errors_finish does). A file
 * that cannot be read is recorded at once (IO-01, IO-03). The caller frees *json_p with
 * data_json_close; path and errors are borrowed until then. */
base_status_t data_json_read(base_ctx_t *ctx, const char *path, int64_t max_bytes,
                             base_error_list_t *errors, data_json_t **json_p) BASE_MUST_CHECK;
/* The same from memory; the text is not needed afterwards. */
base_status_t data_json_parse(base_ctx_t *ctx, const char *source, const char *text, size_t bytes,
                              base_error_list_t *errors, data_json_t **json_p) BASE_MUST_CHECK;
void data_json_close(data_json_t *json); /* NULL is legal */
data_json_object_t data_json_root(const data_json_t *json);

/* ==== getters: true and the output set, or false and a report ==== */

/* Whether the key stands there with a value other than null. */
bool data_json_has(const data_json_object_t *object, const char *key);

/* An integer in [min, max]. 3.0 is no integer. */
bool data_json_int(const data_json_object_t *object, const char *key, int64_t min, int64_t max,
                   int64_t *value);
/* A number, integers included, in [min, max]. */
bool data_json_number(const data_json_object_t *object, const char *key, double min, double max,
                      double *value);
bool data_json_bool(const data_json_object_t *object, const char *key, bool *value);
/* Borrowed from the tree. */
bool data_json_text(const data_json_object_t *object, const char *key, const char **value);
/* The key itself names the child in messages: it has to outlive *child. */
bool data_json_child(const data_json_object_t *object, const char *key, data_json_object_t *child);

/* ==== arrays ==== */

/* Number of elements. */
bool data_json_array(const data_json_object_t *object, const char *key, int64_t *count);
/* Element `index` of an array that data_json_array has found. */
bool data_json_array_int(const data_json_object_t *object, const char *key, int64_t index,
                         int64_t min, int64_t max, int64_t *value);
bool data_json_array_text(const data_json_object_t *object, const char *key, int64_t index,
                          const char **value);

/* ==== keys ==== */

/* The kinds of a value, for rules over keys that nobody reads. */
typedef enum data_json_kind {
    DATA_JSON_NULL,
    DATA_JSON_BOOL,
    DATA_JSON_NUMBER,
    DATA_JSON_TEXT,
    DATA_JSON_ARRAY,
    DATA_JSON_OBJECT
} data_json_kind_t;

/* Whether the key stands there, null included, and of which kind its value is. */
bool data_json_kind(const data_json_object_t *object, const char *key, data_json_kind_t *kind);

int64_t data_json_num_keys(const data_json_object_t *object);
/* Calls `visit` for each key in the order of the file. `number` is the value of a number or bool
 * (0 or 1), the count of an array or object, else 0. */
typedef void (*data_json_visit_fn)(void *arg, const char *key, data_json_kind_t kind,
                                   double number);
void data_json_each(const data_json_object_t *object, data_json_visit_fn visit, void *arg);

/* ==== errors ==== */

/* Reports a fault of a key: `SOURCE: "PATH.KEY": TEXT`. key NULL: `SOURCE: TEXT`. */
void data_json_fault(const data_json_object_t *object, base_message_t message, const char *key,
                     const char *fmt, ...) BASE_PRINTF(4, 5);

/* Records the first error in the context: BASE_OK when there is none, BASE_ERR_NOMEM when one could
 * not be kept, else BASE_ERR_FORMAT (exit status 3, unlike base_error_list_finish, which is for
 * what the user wrote). The list keeps the order of the checks. */
base_status_t data_errors_finish(base_error_list_t *errors) BASE_MUST_CHECK;

/* base_error_list_add, with a copy of place.source in the list's own memory: the files that faults
 * are found in are closed before the list is printed. */
void data_error_add(base_error_list_t *errors, base_message_t message, base_error_place_t place,
                    const char *fmt, ...) BASE_PRINTF(4, 5);
/* The same without line and column. */
#define DATA_ERROR(errors, message, where, ...)                                                    \
    data_error_add((errors), (message), (base_error_place_t){.source = (where)}, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
