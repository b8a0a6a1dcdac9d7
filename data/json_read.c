#include "data/json_read.h"

#include "base/file.h"
#include "base/memory.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TEXT_BYTES 512

struct data_json {
    base_ctx_t *ctx;
    json_t *root;
    const char *source;
    base_error_list_t *errors;
};

/* ==== parsing ==== */

base_status_t data_json_parse(base_ctx_t *ctx, const char *source, const char *text, size_t bytes,
                              base_error_list_t *errors, data_json_t **json_p)
{
    json_error_t error;
    data_json_t *json = base_calloc(ctx, 1, sizeof *json, source);

    if (json == NULL) return BASE_ERR_NOMEM;
    *json = (data_json_t){.ctx = ctx, .source = source, .errors = errors};
    json->root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (json->root == NULL && json_error_code(&error) == json_error_out_of_memory) {
        base_free(ctx, json);
        return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "%s: no memory to parse %zu bytes",
                         source, bytes);
    }
    if (json->root == NULL) {
        data_error_add(
            errors, BASE_MSG_DATA_02,
            (base_error_place_t){.source = source, .line = error.line, .column = error.column},
            "%s", error.text);
        base_free(ctx, json);
        return BASE_ERR_FORMAT;
    }
    if (!json_is_object(json->root)) {
        DATA_ERROR(errors, BASE_MSG_DATA_02, source, "is an array, an object is wanted");
        data_json_close(json);
        return BASE_ERR_FORMAT;
    }
    *json_p = json;
    return BASE_OK;
}

base_status_t data_json_read(base_ctx_t *ctx, const char *path, int64_t max_bytes,
                             base_error_list_t *errors, data_json_t **json_p)
{
    char *text;
    size_t bytes;
    base_status_t st;

    BASE_TRY(base_file_read(ctx, path, max_bytes, &text, &bytes));
    st = data_json_parse(ctx, path, text, bytes, errors, json_p);
    base_free(ctx, text);
    return st;
}

void data_json_close(data_json_t *json)
{
    if (json == NULL) return;
    json_decref(json->root);
    base_free(json->ctx, json);
}

data_json_object_t data_json_root(const data_json_t *json)
{
    return (data_json_object_t){
        .node = json->root, .path = "", .source = json->source, .errors = json->errors};
}

/* ==== errors ==== */

void data_json_fault(const data_json_object_t *object, base_message_t message, const char *key,
                     const char *fmt, ...)
{
    char text[TEXT_BYTES];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (key == NULL)
        DATA_ERROR(object->errors, message, object->source, "%s", text);
    else
        /* Names come from the file and may be of any length. */
        DATA_ERROR(object->errors, message, object->source, "\"%.200s%s%.200s\": %s", object->path,
                   object->path[0] != '\0' ? "." : "", key, text);
}

void data_error_add(base_error_list_t *errors, base_message_t message, base_error_place_t place,
                    const char *fmt, ...)
{
    va_list args;
    const char *text;

    va_start(args, fmt);
    text = base_text_pool_vformat(&errors->pool, fmt, args);
    va_end(args);
    place.source = base_text_pool_copy(&errors->pool, place.source, strlen(place.source));
    if (text != NULL && place.source != NULL)
        base_error_list_add(errors, message, place, "%s", text);
}

base_status_t data_errors_finish(base_error_list_t *errors)
{
    if (errors->pool.failed) return BASE_ERR_NOMEM;
    if (errors->count == 0) return BASE_OK;
    return BASE_FAIL(errors->pool.ctx, BASE_ERR_FORMAT, errors->items[0].message, "%s",
                     errors->items[0].text);
}

/* ==== getters ==== */

static const char *word_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    case JSON_NULL:
        return "null";
    }
    return "unknown";
}

static const json_t *value_of(const data_json_object_t *object, const char *key)
{
    const json_t *value = json_object_get(object->node, key);

    return value == NULL || json_is_null(value) ? NULL : value;
}

bool data_json_has(const data_json_object_t *object, const char *key)
{
    return value_of(object, key) != NULL;
}

static const json_t *wanted(const data_json_object_t *object, const char *key)
{
    const json_t *value = value_of(object, key);

    if (value == NULL) data_json_fault(object, BASE_MSG_DATA_03, key, "is missing");
    return value;
}

static bool wrong_type(const data_json_object_t *object, const char *key, const json_t *value,
                       const char *want)
{
    data_json_fault(object, BASE_MSG_DATA_04, key, "is %s, %s is wanted", word_of(value), want);
    return false;
}

static bool take_int(const data_json_object_t *object, const char *key, const json_t *value,
                     int64_t min, int64_t max, int64_t *out)
{
    int64_t number;

    if (!json_is_integer(value)) return wrong_type(object, key, value, "an integer");
    number = json_integer_value(value);
    if (number < min || number > max) {
        data_json_fault(object, BASE_MSG_DATA_04, key,
                        "is %" PRId64 ", %" PRId64 " to %" PRId64 " is allowed", number, min, max);
        return false;
    }
    *out = number;
    return true;
}

bool data_json_int(const data_json_object_t *object, const char *key, int64_t min, int64_t max,
                   int64_t *value)
{
    const json_t *found = wanted(object, key);

    return found != NULL && take_int(object, key, found, min, max, value);
}

bool data_json_number(const data_json_object_t *object, const char *key, double min, double max,
                      double *value)
{
    const json_t *found = wanted(object, key);
    double number;

    if (found == NULL) return false;
    if (!json_is_number(found)) return wrong_type(object, key, found, "a number");
    number = json_number_value(found);
    if (!(number >= min && number <= max)) {
        data_json_fault(object, BASE_MSG_DATA_04, key, "is %.15g, %g to %g is allowed", number, min,
                        max);
        return false;
    }
    *value = number;
    return true;
}

bool data_json_bool(const data_json_object_t *object, const char *key, bool *value)
{
    const json_t *found = wanted(object, key);

    if (found == NULL) return false;
    if (!json_is_boolean(found)) return wrong_type(object, key, found, "true or false");
    *value = json_is_true(found);
    return true;
}

static bool take_text(const data_json_object_t *object, const char *key, const json_t *value,
                      const char **out)
{
    if (!json_is_string(value)) return wrong_type(object, key, value, "a string");
    *out = json_string_value(value);
    return true;
}

bool data_json_text(const data_json_object_t *object, const char *key, const char **value)
{
    const json_t *found = wanted(object, key);

    return found != NULL && take_text(object, key, found, value);
}

bool data_json_child(const data_json_object_t *object, const char *key, data_json_object_t *child)
{
    const json_t *found = wanted(object, key);

    if (found == NULL) return false;
    if (!json_is_object(found)) return wrong_type(object, key, found, "an object");
    *child = (data_json_object_t){found, key, object->source, object->errors};
    return true;
}

/* ==== arrays ==== */

bool data_json_array(const data_json_object_t *object, const char *key, int64_t *count)
{
    const json_t *found = wanted(object, key);

    if (found == NULL) return false;
    if (!json_is_array(found)) return wrong_type(object, key, found, "an array");
    *count = (int64_t)json_array_size(found);
    return true;
}

/* Elements report as "KEY[3]". */
static const json_t *element(const data_json_object_t *object, const char *key, int64_t index,
                             char *name, size_t bytes)
{
    (void)snprintf(name, bytes, "%.160s[%" PRId64 "]", key, index);
    return json_array_get(json_object_get(object->node, key), (size_t)index);
}

bool data_json_array_int(const data_json_object_t *object, const char *key, int64_t index,
                         int64_t min, int64_t max, int64_t *value)
{
    char name[200];
    const json_t *found = element(object, key, index, name, sizeof name);

    return found != NULL && take_int(object, name, found, min, max, value);
}

bool data_json_array_text(const data_json_object_t *object, const char *key, int64_t index,
                          const char **value)
{
    char name[200];
    const json_t *found = element(object, key, index, name, sizeof name);

    return found != NULL && take_text(object, name, found, value);
}

/* ==== keys ==== */

int64_t data_json_num_keys(const data_json_object_t *object)
{
    return (int64_t)json_object_size(object->node);
}

static data_json_kind_t kind_of(const json_t *value, double *number)
{
    *number = 0.0;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        *number = (double)json_object_size(value);
        return DATA_JSON_OBJECT;
    case JSON_ARRAY:
        *number = (double)json_array_size(value);
        return DATA_JSON_ARRAY;
    case JSON_STRING:
        return DATA_JSON_TEXT;
    case JSON_INTEGER:
    case JSON_REAL:
        *number = json_number_value(value);
        return DATA_JSON_NUMBER;
    case JSON_TRUE:
        *number = 1.0;
        return DATA_JSON_BOOL;
    case JSON_FALSE:
        return DATA_JSON_BOOL;
    case JSON_NULL:
        break;
    }
    return DATA_JSON_NULL;
}

bool data_json_kind(const data_json_object_t *object, const char *key, data_json_kind_t *kind)
{
    const json_t *value = json_object_get(object->node, key);
    double number;

    if (value == NULL) return false;
    *kind = kind_of(value, &number);
    return true;
}

void data_json_each(const data_json_object_t *object, data_json_visit_fn visit, void *arg)
{
    /* jansson's iterators take a pointer to non-const and do not write through it. */
    union {
        const json_t *in;
        json_t *out;
    } node = {.in = object->node};
    void *at = json_object_iter(node.out);

    while (at != NULL) {
        double number;
        const data_json_kind_t kind = kind_of(json_object_iter_value(at), &number);

        visit(arg, json_object_iter_key(at), kind, number);
        at = json_object_iter_next(node.out, at);
    }
}
