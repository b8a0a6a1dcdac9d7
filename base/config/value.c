#include "base/config/value.h"

#include "base/config/suggest.h"
#include "base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_TEXT 40

static const char ALL_LINEAR[] = "all-linear";

/* ==== parse ==== */

bool base_value_is_nothing(const base_yaml_node_t *node)
{
    return node->kind == BASE_YAML_SCALAR && !node->quoted &&
           (node->text[0] == '\0' || strcmp(node->text, "~") == 0 ||
            strcmp(node->text, "null") == 0);
}

/* Bytes of `text` to show: at most SHOWN_TEXT, never half a character. */
static int shown(const char *text)
{
    size_t length = strlen(text);

    if (length <= SHOWN_TEXT) return (int)length;
    length = SHOWN_TEXT;
    while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80)
        length--;
    return (int)length;
}

static bool is_number_type(base_schema_type_t type)
{
    return type == BASE_SCHEMA_INT || type == BASE_SCHEMA_DOUBLE || type == BASE_SCHEMA_PAIR ||
           type == BASE_SCHEMA_NUMBERS;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool parse_int(const char *text, int64_t *number)
{
    const char *c = text;
    long long parsed;

    if (*c == '+' || *c == '-') c++;
    if (!is_digit(*c)) return false;
    while (is_digit(*c))
        c++;
    if (*c != '\0') return false;
    errno = 0;
    parsed = strtoll(text, NULL, 10);
    if (errno != 0) return false;
    *number = parsed;
    return true;
}

/* Decimal only: strtod alone would also take 0x10, inf and nan. "1e-4" needs no point. */
static bool parse_double(const char *text, double *number)
{
    const char *c = text;
    int digits = 0;

    if (*c == '+' || *c == '-') c++;
    for (; is_digit(*c); c++)
        digits++;
    if (*c == '.')
        for (c++; is_digit(*c); c++)
            digits++;
    if (digits == 0) return false;
    if (*c == 'e' || *c == 'E') {
        c++;
        if (*c == '+' || *c == '-') c++;
        if (!is_digit(*c)) return false;
        while (is_digit(*c))
            c++;
    }
    if (*c != '\0') return false;
    *number = strtod(text, NULL);
    return *number - *number == 0.0; /* 1e999 is infinite */
}

static bool parse_word(const char *const *words, const char *text, int64_t *index)
{
    for (int64_t i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], text) == 0) {
            *index = i;
            return true;
        }
    }
    return false;
}

/* "q_proj" or "q_proj,v_proj" where a list belongs: an entry of a list that is a word is no fault. */
static bool lacks_brackets(const base_schema_key_t *key, const char *text)
{
    int64_t index;

    return key->type == BASE_SCHEMA_TARGETS &&
           (strchr(text, ',') != NULL || parse_word(key->words, text, &index));
}

static bool is_path_type(base_schema_type_t type)
{
    return type == BASE_SCHEMA_PATH || type == BASE_SCHEMA_DOCUMENTS ||
           type == BASE_SCHEMA_WORD_OR_PATH;
}

/* What a shell would have replaced. */
static bool wants_shell(const char *path)
{
    return path[0] == '$' || (path[0] == '~' && path[1] == '/');
}

/* The second half of a fault: what was found, and what may help. */
static void describe(const base_schema_key_t *key, const base_yaml_node_t *node, char *found,
                     size_t bytes)
{
    const char *dots =
        node->kind == BASE_YAML_SCALAR && (size_t)shown(node->text) < strlen(node->text) ? "..."
                                                                                         : "";
    const char *near = NULL;
    size_t num_words = 0;
    double number;

    if (node->kind == BASE_YAML_SEQUENCE) {
        (void)snprintf(found, bytes, "a list of %zu", node->count);
        return;
    }
    if (node->kind == BASE_YAML_MAPPING) {
        (void)snprintf(found, bytes, "a mapping");
        return;
    }
    if (base_value_is_nothing(node)) {
        (void)snprintf(found, bytes, "nothing");
        return;
    }
    while (key->words != NULL && key->words[num_words] != NULL)
        num_words++;
    if (num_words > 0) near = base_suggest_nearest(node->text, key->words, num_words);
    if (key->type == BASE_SCHEMA_TARGETS && near == NULL) {
        const char *const all[] = {ALL_LINEAR};
        near = base_suggest_nearest(node->text, all, 1);
    }
    if (lacks_brackets(key, node->text))
        (void)snprintf(found, bytes, "\"%.*s%s\"; a list is written [%.*s]", shown(node->text),
                       node->text, dots, shown(node->text), node->text);
    else if (is_path_type(key->type) && wants_shell(node->text))
        (void)snprintf(found, bytes,
                       "\"%.*s%s\"; ~ and $NAME are not replaced here, write the path out",
                       shown(node->text), node->text, dots);
    else if (near != NULL)
        (void)snprintf(found, bytes, "\"%.*s%s\"; nearest is \"%s\"", shown(node->text), node->text,
                       dots, near);
    else if (node->quoted && (is_number_type(key->type) || key->type == BASE_SCHEMA_BOOL))
        (void)snprintf(found, bytes, "the text \"%.*s%s\" in quotes", shown(node->text), node->text,
                       dots);
    else if (is_number_type(key->type) && is_digit(node->text[0]) &&
             !parse_double(node->text, &number))
        (void)snprintf(found, bytes, "\"%.*s%s\"; write it in decimal, without unit and separators",
                       shown(node->text), node->text, dots);
    else
        (void)snprintf(found, bytes, "\"%.*s%s\"", shown(node->text), node->text, dots);
}

static bool in_range(const base_schema_key_t *key, double number)
{
    if ((key->flags & BASE_SCHEMA_OPEN_MIN) != 0 ? number <= key->min : number < key->min)
        return false;
    return (key->flags & BASE_SCHEMA_OPEN_MAX) != 0 ? number < key->max : number <= key->max;
}

static bool plain_scalar(const base_yaml_node_t *node)
{
    return node->kind == BASE_YAML_SCALAR && !node->quoted;
}

static bool parse_real(const base_schema_key_t *key, const base_yaml_node_t *node, double *real)
{
    return plain_scalar(node) && parse_double(node->text, real) && in_range(key, *real);
}

/* `*culprit` is left at the entry that is at fault; so below. */
static bool parse_pair(const base_schema_key_t *key, const base_yaml_node_t *node,
                       base_value_t *value, const base_yaml_node_t **culprit)
{
    if (node->kind != BASE_YAML_SEQUENCE || node->count != 2) return false;
    for (size_t i = 0; i < 2; i++) {
        *culprit = node->entries[i].value;
        if (!parse_real(key, *culprit, &value->real[i])) return false;
    }
    return true;
}

static bool parse_numbers(const base_schema_key_t *key, const base_yaml_node_t *node,
                          base_value_t *value, const base_yaml_node_t **culprit)
{
    double real;

    if (node->kind != BASE_YAML_SEQUENCE || node->count == 0) return false;
    for (size_t i = 0; i < node->count; i++) {
        *culprit = node->entries[i].value;
        if (!parse_real(key, *culprit, &real)) return false;
    }
    value->list = node;
    return true;
}

static bool parse_targets(const base_schema_key_t *key, const base_yaml_node_t *node,
                          base_value_t *value, const base_yaml_node_t **culprit)
{
    if (node->kind == BASE_YAML_SCALAR) {
        value->integer = BASE_CONFIG_TARGET_ALL;
        return strcmp(node->text, ALL_LINEAR) == 0;
    }
    if (node->kind != BASE_YAML_SEQUENCE || node->count == 0) return false;
    for (size_t i = 0; i < node->count; i++) {
        int64_t bit;

        *culprit = node->entries[i].value;
        if ((*culprit)->kind != BASE_YAML_SCALAR || !parse_word(key->words, (*culprit)->text, &bit))
            return false;
        value->integer |= (int64_t)1 << bit;
    }
    return true;
}

static bool parse_text(const base_schema_key_t *key, const base_yaml_node_t *node,
                       base_value_t *value)
{
    int64_t word;

    if (node->kind != BASE_YAML_SCALAR || base_value_is_nothing(node) || node->text[0] == '\0' ||
        strlen(node->text) > BASE_VALUE_MAX_TEXT)
        return false;
    value->text = node->text;
    if (is_path_type(key->type) && wants_shell(node->text)) return false;
    if (key->type == BASE_SCHEMA_DOCUMENTS)
        return base_text_ends_in(node->text, ".jsonl") || base_text_ends_in(node->text, ".h5");
    if (key->type != BASE_SCHEMA_WORD_OR_PATH) return true;
    return strchr(node->text, '/') != NULL || parse_word(key->words, node->text, &word);
}

static bool parse_typed(const base_schema_key_t *key, const base_yaml_node_t *node,
                        base_value_t *value, const base_yaml_node_t **culprit)
{
    switch (key->type) {
    case BASE_SCHEMA_BOOL:
        value->integer = strcmp(node->text, "true") == 0;
        return plain_scalar(node) && (value->integer == 1 || strcmp(node->text, "false") == 0);
    case BASE_SCHEMA_INT:
        return plain_scalar(node) && parse_int(node->text, &value->integer) &&
               in_range(key, (double)value->integer);
    case BASE_SCHEMA_DOUBLE:
        return parse_real(key, node, &value->real[0]);
    case BASE_SCHEMA_PAIR:
        return parse_pair(key, node, value, culprit);
    case BASE_SCHEMA_NUMBERS:
        return parse_numbers(key, node, value, culprit);
    case BASE_SCHEMA_ENUM:
        return node->kind == BASE_YAML_SCALAR &&
               parse_word(key->words, node->text, &value->integer);
    case BASE_SCHEMA_TARGETS:
        return parse_targets(key, node, value, culprit);
    case BASE_SCHEMA_STRING:
    case BASE_SCHEMA_PATH:
    case BASE_SCHEMA_DOCUMENTS:
    case BASE_SCHEMA_WORD_OR_PATH:
        return parse_text(key, node, value);
    case BASE_SCHEMA_TYPE_COUNT:
        break;
    }
    return false;
}

bool base_value_parse(const base_schema_key_t *key, const base_yaml_node_t *node,
                      base_value_t *value, base_value_fault_t *fault)
{
    char wants[sizeof fault->text / 2 - 16], found[sizeof fault->text / 2];

    *value = (base_value_t){0};
    fault->node = node;
    fault->text[0] = '\0';
    if (parse_typed(key, node, value, &fault->node)) return true;
    describe(key, fault->node, found, sizeof found);
    (void)snprintf(fault->text, sizeof fault->text, "want %s, found %s",
                   base_schema_wants(key, wants, sizeof wants), found);
    return false;
}

/* ==== fields ==== */

/* memcpy because the table knows a field by its offset only. */
#define GET(type, name)                                                                            \
    type name;                                                                                     \
    memcpy(&name, (const char *)object + key->offset, sizeof name)

static void put(const base_schema_key_t *key, void *object, const void *field, size_t bytes)
{
    memcpy((char *)object + key->offset, field, bytes);
}

/* Of a list that parse_numbers has looked at. */
static const base_config_numbers_t *copy_numbers(base_text_pool_t *pool,
                                                 const base_yaml_node_t *list)
{
    base_config_numbers_t *numbers = base_text_pool_take(pool, sizeof *numbers);
    double *of = base_text_pool_take(pool, list->count * sizeof *of);

    if (numbers == NULL || of == NULL) return NULL;
    for (size_t i = 0; i < list->count; i++)
        (void)parse_double(list->entries[i].value->text, &of[i]);
    *numbers = (base_config_numbers_t){(int64_t)list->count, of};
    return numbers;
}

base_status_t base_value_store(const base_schema_key_t *key, const base_value_t *value,
                               base_text_pool_t *pool, void *object)
{
    const bool yes = value->integer != 0;
    const int word = (int)value->integer;
    const uint32_t bits = (uint32_t)value->integer;
    const base_config_numbers_t *numbers;
    const char *text;

    switch (key->type) {
    case BASE_SCHEMA_BOOL:
        put(key, object, &yes, sizeof yes);
        break;
    case BASE_SCHEMA_INT:
        put(key, object, &value->integer, sizeof value->integer);
        break;
    case BASE_SCHEMA_DOUBLE:
        put(key, object, &value->real[0], sizeof value->real[0]);
        break;
    case BASE_SCHEMA_PAIR:
        put(key, object, value->real, sizeof value->real);
        break;
    case BASE_SCHEMA_NUMBERS:
        numbers = copy_numbers(pool, value->list);
        if (numbers == NULL) return BASE_ERR_NOMEM;
        put(key, object, &numbers, sizeof numbers);
        break;
    case BASE_SCHEMA_ENUM:
        put(key, object, &word, sizeof word);
        break;
    case BASE_SCHEMA_TARGETS:
        put(key, object, &bits, sizeof bits);
        break;
    case BASE_SCHEMA_STRING:
    case BASE_SCHEMA_PATH:
    case BASE_SCHEMA_DOCUMENTS:
    case BASE_SCHEMA_WORD_OR_PATH:
        text = base_text_pool_copy(pool, value->text, strlen(value->text));
        if (text == NULL) return BASE_ERR_NOMEM;
        put(key, object, &text, sizeof text);
        break;
    case BASE_SCHEMA_TYPE_COUNT:
        break;
    }
    return BASE_OK;
}

static base_value_t fetch(const base_schema_key_t *key, const void *object)
{
    base_value_t value = {0};

    switch (key->type) {
    case BASE_SCHEMA_BOOL: {
        GET(bool, yes);
        value.integer = yes;
        break;
    }
    case BASE_SCHEMA_INT: {
        GET(int64_t, number);
        value.integer = number;
        break;
    }
    case BASE_SCHEMA_ENUM: {
        GET(int, word);
        value.integer = word;
        break;
    }
    case BASE_SCHEMA_TARGETS: {
        GET(uint32_t, bits);
        value.integer = bits;
        break;
    }
    case BASE_SCHEMA_DOUBLE: {
        GET(double, real);
        value.real[0] = real;
        break;
    }
    case BASE_SCHEMA_PAIR:
        memcpy(value.real, (const char *)object + key->offset, sizeof value.real);
        break;
    case BASE_SCHEMA_NUMBERS: {
        GET(const base_config_numbers_t *, numbers);
        value.numbers = numbers;
        break;
    }
    case BASE_SCHEMA_STRING:
    case BASE_SCHEMA_PATH:
    case BASE_SCHEMA_DOCUMENTS:
    case BASE_SCHEMA_WORD_OR_PATH: {
        GET(char *, text);
        value.text = text;
        break;
    }
    case BASE_SCHEMA_TYPE_COUNT:
        break;
    }
    return value;
}

int64_t base_value_int(const base_schema_key_t *key, const void *object)
{
    return fetch(key, object).integer;
}

bool base_value_is_set(const base_schema_key_t *key, const void *object)
{
    const base_value_t value = fetch(key, object);

    if ((key->flags & BASE_SCHEMA_OPTIONAL) == 0) return true;
    return value.integer != 0 || value.text != NULL || value.numbers != NULL || value.real[0] > 0 ||
           value.real[0] < 0;
}

static bool same_number(double a, double b)
{
    return !(a < b) && !(a > b); /* no value here is NaN */
}

static bool same_numbers(const base_config_numbers_t *a, const base_config_numbers_t *b)
{
    if (a == NULL || b == NULL || a->count != b->count) return a == b;
    for (int64_t i = 0; i < a->count; i++)
        if (!same_number(a->of[i], b->of[i])) return false;
    return true;
}

bool base_value_equal(const base_schema_key_t *key, const void *a, const void *b)
{
    const base_value_t x = fetch(key, a), y = fetch(key, b);

    if (x.text != NULL && y.text != NULL) return strcmp(x.text, y.text) == 0;
    return x.text == y.text && x.integer == y.integer && same_number(x.real[0], y.real[0]) &&
           same_number(x.real[1], y.real[1]) && same_numbers(x.numbers, y.numbers);
}

/* ==== write ==== */

void base_writer_text(const base_writer_t *writer, const char *text)
{
    writer->write(writer->to, text, strlen(text));
}

/* Fewest digits that read back to the same double. */
static void write_double(const base_writer_t *writer, double real)
{
    char text[40];

    for (int digits = 6; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, real);
        if (same_number(strtod(text, NULL), real)) break;
    }
    base_writer_text(writer, text);
}

/* Letters that mean nothing in YAML wherever they stand; a text of others is quoted, needed or not.
 */
static bool is_harmless(const char *text)
{
    if (strcmp(text, "null") == 0) return false;
    for (const char *c = text; *c != '\0'; c++) {
        const bool letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || is_digit(*c);

        if (!letter && strchr("_/", *c) == NULL && (c == text || strchr(".-+@", *c) == NULL))
            return false;
    }
    return true;
}

/* One character inside double quotes; returns its bytes. Escaped is what YAML would fold or refuse:
 * controls and the line and byte order marks of Unicode. */
static size_t write_character(const base_writer_t *writer, const char *c)
{
    const unsigned char *s = (const unsigned char *)c;
    const size_t length = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    unsigned code = s[0];
    char escaped[8];

    if (length == 2)
        code = (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
    else if (length == 3)
        code = (s[0] & 0xfu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
    if (length <= 3 && (code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 ||
                        code == 0x2029 || code == 0xfeff || code >= 0xfffe)) {
        (void)snprintf(escaped, sizeof escaped, "\\u%04x", code & 0xffffu);
        base_writer_text(writer, escaped);
        return length;
    }
    if (code == '"' || code == '\\') base_writer_text(writer, "\\");
    writer->write(writer->to, c, length);
    return length;
}

static void write_text(const base_writer_t *writer, const char *text)
{
    if (is_harmless(text)) {
        base_writer_text(writer, text);
        return;
    }
    base_writer_text(writer, "\"");
    while (*text != '\0')
        text += write_character(writer, text);
    base_writer_text(writer, "\"");
}

static void write_targets(const base_schema_key_t *key, const base_writer_t *writer, int64_t bits)
{
    const char *separator = "[";

    if (bits == BASE_CONFIG_TARGET_ALL) {
        base_writer_text(writer, ALL_LINEAR);
        return;
    }
    for (int64_t i = 0; key->words[i] != NULL; i++) {
        if ((bits >> i & 1) == 0) continue;
        base_writer_text(writer, separator);
        base_writer_text(writer, key->words[i]);
        separator = ", ";
    }
    base_writer_text(writer, "]");
}

static void write_numbers(const base_writer_t *writer, const double *real, int64_t count)
{
    base_writer_text(writer, "[");
    for (int64_t i = 0; i < count; i++) {
        if (i > 0) base_writer_text(writer, ", ");
        write_double(writer, real[i]);
    }
    base_writer_text(writer, "]");
}

void base_value_write(const base_schema_key_t *key, const void *object, const base_writer_t *writer)
{
    const base_value_t value = fetch(key, object);
    char number[32];

    switch (key->type) {
    case BASE_SCHEMA_BOOL:
        base_writer_text(writer, value.integer != 0 ? "true" : "false");
        break;
    case BASE_SCHEMA_INT:
        (void)snprintf(number, sizeof number, "%" PRId64, value.integer);
        base_writer_text(writer, number);
        break;
    case BASE_SCHEMA_ENUM:
        base_writer_text(writer, key->words[value.integer]);
        break;
    case BASE_SCHEMA_TARGETS:
        write_targets(key, writer, value.integer);
        break;
    case BASE_SCHEMA_DOUBLE:
        write_double(writer, value.real[0]);
        break;
    case BASE_SCHEMA_PAIR:
        write_numbers(writer, value.real, 2);
        break;
    case BASE_SCHEMA_NUMBERS:
        write_numbers(writer, value.numbers->of, value.numbers->count);
        break;
    case BASE_SCHEMA_STRING:
    case BASE_SCHEMA_PATH:
    case BASE_SCHEMA_DOCUMENTS:
    case BASE_SCHEMA_WORD_OR_PATH:
        write_text(writer, value.text);
        break;
    case BASE_SCHEMA_TYPE_COUNT:
        break;
    }
}
