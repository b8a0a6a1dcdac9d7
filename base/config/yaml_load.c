#include "base/config/yaml_load.h"

#include <stdint.h>
#include <string.h>

#include <yaml.h>

#define CONF_SYNTAX BASE_MSG_CONF_02

typedef struct loader {
    base_text_pool_t *pool;
    base_error_list_t *errors;
    const char *source;
    int order;
    yaml_parser_t parser;
    int num_nodes;
} loader_t;

static base_error_place_t place_at(const loader_t *load, int line, int column)
{
    return (base_error_place_t){load->source, load->order, line, column};
}

/* A value of --set is one line in a place of its own: line and column would only confuse. */
static base_error_place_t place_of(const loader_t *load, yaml_mark_t mark)
{
    if (load->order > 0) return place_at(load, 0, 0);
    return place_at(load, (int)mark.line + 1, (int)mark.column + 1);
}

/* ==== the bytes ==== */

/* Length of the UTF-8 sequence at `s`, 0 when it is none: overlong forms, surrogates and cut
 * sequences are none. */
static size_t utf8_length(const unsigned char *s, size_t bytes)
{
    size_t length;
    uint32_t code;

    if (s[0] < 0x80) return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        length = 2;
    else if (s[0] >= 0xe0 && s[0] <= 0xef)
        length = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        length = 4;
    else
        return 0;
    if (length > bytes) return 0;
    code = s[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (s[i] & 0x3fu);
    }
    if ((length == 3 && code < 0x800) || (length == 4 && (code < 0x10000 || code > 0x10ffff)))
        return 0;
    return code >= 0xd800 && code <= 0xdfff ? 0 : length;
}

/* What libyaml would let pass, or refuse with a text that helps nobody. */
static base_status_t check_bytes(loader_t *load, const char *text, size_t bytes)
{
    const unsigned char *s = (const unsigned char *)text;
    bool indentation = true;
    int line = 1, column = 1;

    if (bytes > BASE_YAML_MAX_BYTES) {
        base_error_list_add(load->errors, CONF_SYNTAX, place_at(load, 0, 0),
                            "%zu bytes; a configuration has at most %zu", bytes,
                            BASE_YAML_MAX_BYTES);
        return BASE_ERR_CONFIG;
    }
    for (size_t i = 0; i < bytes;) {
        const size_t length = utf8_length(s + i, bytes - i);
        const base_error_place_t place =
            load->order > 0 ? place_at(load, 0, 0) : place_at(load, line, column);

        if (length == 0 || s[i] == 0) {
            base_error_list_add(load->errors, CONF_SYNTAX, place, "byte 0x%02x is not UTF-8 text",
                                s[i]);
            return BASE_ERR_CONFIG;
        }
        if (s[i] == '\t' && indentation) {
            base_error_list_add(load->errors, CONF_SYNTAX, place,
                                "a tab in the indentation; use spaces");
            return BASE_ERR_CONFIG;
        }
        indentation = s[i] == '\n' || (indentation && s[i] == ' ');
        column = s[i] == '\n' ? 1 : column + 1;
        line += s[i] == '\n';
        i += length;
    }
    return BASE_OK;
}

/* ==== the tree ==== */

base_yaml_node_t *base_yaml_new(base_text_pool_t *pool, base_yaml_kind_t kind,
                                base_error_place_t place)
{
    base_yaml_node_t *node = base_text_pool_take(pool, sizeof *node);

    if (node != NULL) {
        node->kind = kind;
        node->place = place;
        node->text = "";
    }
    return node;
}

base_status_t base_yaml_add(base_text_pool_t *pool, base_yaml_node_t *parent, base_yaml_node_t *key,
                            base_yaml_node_t *value)
{
    if (parent->count == parent->capacity) {
        const size_t capacity = parent->capacity == 0 ? 8 : 2 * parent->capacity;
        base_yaml_entry_t *entries = base_text_pool_take(pool, capacity * sizeof *entries);

        if (entries == NULL) return BASE_ERR_NOMEM;
        if (parent->count > 0) memcpy(entries, parent->entries, parent->count * sizeof *entries);
        parent->entries = entries;
        parent->capacity = capacity;
    }
    parent->entries[parent->count++] = (base_yaml_entry_t){key, value};
    return BASE_OK;
}

base_yaml_entry_t *base_yaml_entry(const base_yaml_node_t *mapping, const char *key)
{
    if (mapping == NULL || mapping->kind != BASE_YAML_MAPPING) return NULL;
    for (size_t i = 0; i < mapping->count; i++)
        if (strcmp(mapping->entries[i].key->text, key) == 0) return &mapping->entries[i];
    return NULL;
}

base_yaml_node_t *base_yaml_get(const base_yaml_node_t *mapping, const char *key)
{
    const base_yaml_entry_t *entry = base_yaml_entry(mapping, key);

    return entry == NULL ? NULL : entry->value;
}

void base_yaml_remove(base_yaml_node_t *mapping, const char *key)
{
    base_yaml_entry_t *entry = base_yaml_entry(mapping, key);

    if (entry == NULL) return;
    mapping->count--;
    memmove(entry, entry + 1, (size_t)(mapping->entries + mapping->count - entry) * sizeof *entry);
}

/* ==== the events ==== */

static base_status_t syntax_error(loader_t *load)
{
    const yaml_parser_t *parser = &load->parser;
    const char *problem = parser->problem == NULL ? "not valid YAML" : parser->problem;

    if (parser->error == YAML_MEMORY_ERROR)
        return BASE_FAIL(load->pool->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "%s: YAML parser",
                         load->source);
    if (parser->context != NULL && load->order == 0)
        base_error_list_add(load->errors, CONF_SYNTAX, place_of(load, parser->problem_mark),
                            "%s, %s in line %d", problem, parser->context,
                            (int)parser->context_mark.line + 1);
    else
        base_error_list_add(load->errors, CONF_SYNTAX, place_of(load, parser->problem_mark), "%s",
                            problem);
    return BASE_ERR_CONFIG;
}

static base_status_t next_event(loader_t *load, yaml_event_t *event)
{
    return yaml_parser_parse(&load->parser, event) ? BASE_OK : syntax_error(load);
}

static base_status_t refuse(loader_t *load, yaml_mark_t mark, const char *what)
{
    base_error_list_add(load->errors, CONF_SYNTAX, place_of(load, mark), "%s", what);
    return BASE_ERR_CONFIG;
}

/* An anchor, an alias or a tag can stand at every kind of node. */
static base_status_t check_event(loader_t *load, const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;

    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return refuse(load, event->start_mark,
                      "aliases (*name) are not supported; write the value out");
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        break;
    default:
        break;
    }
    if (anchor != NULL)
        return refuse(load, event->start_mark,
                      "anchors (&name) are not supported; use `defaults` or write it out");
    if (tag != NULL)
        return refuse(load, event->start_mark,
                      "tags (!name) are not supported; quote a text that begins with '!'");
    if (++load->num_nodes > BASE_YAML_MAX_NODES)
        return refuse(load, event->start_mark, "too many entries for a configuration");
    return BASE_OK;
}

static base_status_t load_node(loader_t *load, yaml_event_t *event, int depth,
                               base_yaml_node_t **node_p);

static base_status_t load_scalar(loader_t *load, const yaml_event_t *event, base_yaml_node_t *node)
{
    const char *value = (const char *)event->data.scalar.value;

    if (memchr(value, 0, event->data.scalar.length) != NULL)
        return refuse(load, event->start_mark, "a zero byte in a text");
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    node->text = base_text_pool_copy(load->pool, value, event->data.scalar.length);
    return node->text == NULL ? BASE_ERR_NOMEM : BASE_OK;
}

static base_status_t load_sequence(loader_t *load, int depth, base_yaml_node_t *node)
{
    for (;;) {
        yaml_event_t event;
        base_yaml_node_t *item = NULL;
        base_status_t st;

        BASE_TRY(next_event(load, &event));
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return BASE_OK;
        }
        st = load_node(load, &event, depth + 1, &item);
        yaml_event_delete(&event);
        BASE_TRY(st);
        BASE_TRY(base_yaml_add(load->pool, node, NULL, item));
    }
}

static base_status_t load_value(loader_t *load, int depth, base_yaml_node_t **value_p)
{
    yaml_event_t event;
    base_status_t st;

    BASE_TRY(next_event(load, &event));
    st = load_node(load, &event, depth, value_p);
    yaml_event_delete(&event);
    return st;
}

static base_status_t load_mapping(loader_t *load, int depth, base_yaml_node_t *node)
{
    for (;;) {
        yaml_event_t event;
        base_yaml_node_t *key = NULL, *value = NULL;
        const base_yaml_entry_t *first;
        base_status_t st = BASE_OK;

        BASE_TRY(next_event(load, &event));
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return BASE_OK;
        }
        if (node->count == BASE_YAML_MAX_KEYS)
            st = refuse(load, event.start_mark, "too many keys in one place");
        else if (event.type == YAML_SCALAR_EVENT || event.type == YAML_ALIAS_EVENT)
            st = load_node(load, &event, depth + 1, &key);
        else
            st = refuse(load, event.start_mark, "a key must be a word");
        yaml_event_delete(&event);
        BASE_TRY(st);
        BASE_TRY(load_value(load, depth + 1, &value));
        first = base_yaml_entry(node, key->text);
        if (first == NULL)
            BASE_TRY(base_yaml_add(load->pool, node, key, value));
        else
            base_error_list_add(load->errors, BASE_MSG_CONF_07, key->place,
                                "\"%s\" stands already in line %d", key->text,
                                first->key->place.line);
    }
}

static base_status_t load_node(loader_t *load, yaml_event_t *event, int depth,
                               base_yaml_node_t **node_p)
{
    base_yaml_kind_t kind = BASE_YAML_SCALAR;
    base_yaml_node_t *node;

    BASE_TRY(check_event(load, event));
    if (depth > BASE_YAML_MAX_DEPTH)
        return refuse(load, event->start_mark, "nested too deep for a configuration");
    if (event->type == YAML_SEQUENCE_START_EVENT)
        kind = BASE_YAML_SEQUENCE;
    else if (event->type == YAML_MAPPING_START_EVENT)
        kind = BASE_YAML_MAPPING;
    node = base_yaml_new(load->pool, kind, place_of(load, event->start_mark));
    if (node == NULL) return BASE_ERR_NOMEM;
    *node_p = node;
    if (kind == BASE_YAML_SEQUENCE) return load_sequence(load, depth, node);
    if (kind == BASE_YAML_MAPPING) return load_mapping(load, depth, node);
    return load_scalar(load, event, node);
}

/* The stream: its start, at most one document, its end. */
static base_status_t load_stream(loader_t *load, base_yaml_node_t **root_p)
{
    base_yaml_node_t *root = NULL;
    int num_documents = 0;

    for (;;) {
        yaml_event_t event;
        base_status_t st = BASE_OK;
        bool end = false;

        BASE_TRY(next_event(load, &event));
        if (event.type == YAML_STREAM_END_EVENT)
            end = true;
        else if (event.type == YAML_DOCUMENT_START_EVENT && ++num_documents > 1)
            st = refuse(load, event.start_mark, "a second document (---); a configuration is one");
        else if (event.type == YAML_ALIAS_EVENT || event.type == YAML_SCALAR_EVENT ||
                 event.type == YAML_SEQUENCE_START_EVENT || event.type == YAML_MAPPING_START_EVENT)
            st = load_node(load, &event, 0, &root);
        yaml_event_delete(&event);
        BASE_TRY(st);
        if (end) break;
    }
    *root_p = root;
    return BASE_OK;
}

base_status_t base_yaml_load(base_text_pool_t *pool, const char *source, int order,
                             const char *text, size_t bytes, base_error_list_t *errors,
                             base_yaml_node_t **root_p)
{
    static const char mark[] =
        "\xef\xbb\xbf"; /* of editors on Windows; libyaml counts it as a column */
    loader_t load = {.pool = pool, .errors = errors, .source = source, .order = order};
    base_status_t st;

    if (bytes >= sizeof mark - 1 && memcmp(text, mark, sizeof mark - 1) == 0) {
        text += sizeof mark - 1;
        bytes -= sizeof mark - 1;
    }
    BASE_TRY(check_bytes(&load, text, bytes));
    if (!yaml_parser_initialize(&load.parser))
        return BASE_FAIL(pool->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "%s: YAML parser", source);
    yaml_parser_set_encoding(&load.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&load.parser, (const unsigned char *)text, bytes);
    st = load_stream(&load, root_p);
    yaml_parser_delete(&load.parser);
    return st;
}
