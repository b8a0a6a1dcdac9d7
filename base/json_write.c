#include "base/json_write.h"

#include "base/file.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void fault(base_json_t *j, base_status_t st, const char *text)
{
    if (j->status < 0) return;
    j->status = st;
    j->fault = text;
}

static void put(base_json_t *j, const char *s, size_t n)
{
    if (j->status < 0) return;
    if (j->file != NULL) {
        if (fwrite(s, 1, n, j->file) != n) {
            fault(j, base_file_status(errno), strerror(errno));
            return;
        }
    } else {
        if (n >= j->room - j->bytes) {
            fault(j, BASE_ERR_ARG, "the JSON text does not fit its buffer");
            return;
        }
        memcpy(j->buffer + j->bytes, s, n);
        j->buffer[j->bytes + n] = '\0';
    }
    j->bytes += n;
}

static void puts_literal(base_json_t *j, const char *s)
{
    put(j, s, strlen(s));
}

/* ==== strings ==== */

static int is_tail(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

/* Length of the valid UTF-8 sequence at p (RFC 3629: no overlong form, no surrogate, at most
 * U+10FFFF), or 0. The terminating zero is no tail byte, so nothing is read past it. */
static size_t utf8_sequence(const unsigned char *p)
{
    if (p[0] < 0x80) return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) return is_tail(p[1]) ? 2 : 0;
    if (p[0] >= 0xe0 && p[0] <= 0xef) {
        if (!is_tail(p[1]) || !is_tail(p[2])) return 0;
        if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)) return 0;
        return 3;
    }
    if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        if (!is_tail(p[1]) || !is_tail(p[2]) || !is_tail(p[3])) return 0;
        if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) return 0;
        return 4;
    }
    return 0;
}

static void put_escaped(base_json_t *j, unsigned char c)
{
    char text[8];

    switch (c) {
    case '"':
        puts_literal(j, "\\\"");
        return;
    case '\\':
        puts_literal(j, "\\\\");
        return;
    case '\n':
        puts_literal(j, "\\n");
        return;
    case '\r':
        puts_literal(j, "\\r");
        return;
    case '\t':
        puts_literal(j, "\\t");
        return;
    default:
        (void)snprintf(text, sizeof text, "\\u%04x", c);
        puts_literal(j, text);
    }
}

static void put_string(base_json_t *j, const char *s)
{
    const unsigned char *p = (const unsigned char *)s;

    puts_literal(j, "\"");
    while (*p != '\0') {
        const size_t n = utf8_sequence(p);

        if (n == 0)
            puts_literal(j, "\xef\xbf\xbd");
        else if (n == 1 && (*p < 0x20 || *p == '"' || *p == '\\' || *p == 0x7f))
            put_escaped(j, *p);
        else
            put(j, (const char *)p, n);
        p += n == 0 ? 1 : n;
    }
    puts_literal(j, "\"");
}

/* ==== structure ==== */

static void line_break(base_json_t *j)
{
    if (j->indent == 0) return;
    puts_literal(j, "\n");
    for (int i = 0; i < j->depth * j->indent; i++)
        put(j, " ", 1);
}

/* Comma and line break before an element. */
static void separate(base_json_t *j)
{
    bool *not_first = &j->not_first[j->depth - 1];

    if (*not_first) puts_literal(j, ",");
    *not_first = true;
    line_break(j);
}

/* Called before each value: 1 when a value may stand here. */
static int begin_value(base_json_t *j)
{
    if (j->status < 0) return 0;
    if (j->depth == 0) {
        if (j->done) {
            fault(j, BASE_ERR_STATE, "a second JSON value without base_json_newline");
            return 0;
        }
    } else if (j->in_array[j->depth - 1]) {
        separate(j);
    } else if (!j->after_key) {
        fault(j, BASE_ERR_STATE, "a JSON value without a key inside an object");
        return 0;
    }
    j->after_key = false;
    return 1;
}

static void end_value(base_json_t *j)
{
    if (j->depth == 0) j->done = true;
}

static void begin(base_json_t *j, bool array)
{
    if (!begin_value(j)) return;
    if (j->depth == BASE_JSON_DEPTH) {
        fault(j, BASE_ERR_STATE, "JSON nested too deeply");
        return;
    }
    puts_literal(j, array ? "[" : "{");
    j->in_array[j->depth] = array;
    j->not_first[j->depth] = false;
    j->depth++;
}

static void init(base_json_t *j)
{
    memset(j, 0, sizeof *j);
    j->status = BASE_OK;
}

void base_json_to_file(base_json_t *j, FILE *file)
{
    init(j);
    j->file = file;
}

void base_json_to_buffer(base_json_t *j, char *buffer, size_t room)
{
    init(j);
    j->buffer = buffer;
    j->room = room;
    if (room == 0)
        fault(j, BASE_ERR_ARG, "the JSON text does not fit its buffer");
    else
        buffer[0] = '\0';
}

void base_json_set_indent(base_json_t *j, int spaces)
{
    j->indent = spaces;
}

void base_json_refuse_nonfinite(base_json_t *j)
{
    j->refuse_nonfinite = true;
}

void base_json_begin_object(base_json_t *j)
{
    begin(j, false);
}

void base_json_begin_array(base_json_t *j)
{
    begin(j, true);
}

void base_json_end(base_json_t *j)
{
    if (j->status < 0) return;
    if (j->depth == 0 || j->after_key) {
        fault(j, BASE_ERR_STATE, "base_json_end without an open object or after a key");
        return;
    }
    j->depth--;
    if (j->not_first[j->depth]) line_break(j);
    puts_literal(j, j->in_array[j->depth] ? "]" : "}");
    end_value(j);
}

void base_json_key(base_json_t *j, const char *key)
{
    if (j->status < 0) return;
    if (j->depth == 0 || j->in_array[j->depth - 1] || j->after_key) {
        fault(j, BASE_ERR_STATE, "a JSON key outside an object or after a key");
        return;
    }
    separate(j);
    put_string(j, key);
    puts_literal(j, j->indent == 0 ? ":" : ": ");
    j->after_key = true;
}

void base_json_string(base_json_t *j, const char *s)
{
    if (s == NULL) {
        base_json_null(j);
        return;
    }
    if (!begin_value(j)) return;
    put_string(j, s);
    end_value(j);
}

void base_json_int(base_json_t *j, int64_t v)
{
    char text[32];

    if (!begin_value(j)) return;
    (void)snprintf(text, sizeof text, "%" PRId64, v);
    puts_literal(j, text);
    end_value(j);
}

static void put_double(base_json_t *j, double v, const char *point)
{
    char text[40];

    if (!isfinite(v)) {
        if (j->refuse_nonfinite)
            fault(j, BASE_ERR_ARG, "a number is not finite");
        else
            base_json_null(j);
        return;
    }
    if (!begin_value(j)) return;
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    puts_literal(j, text);
    if (strpbrk(text, ".e") == NULL) puts_literal(j, point);
    end_value(j);
}

void base_json_double(base_json_t *j, double v)
{
    put_double(j, v, "");
}

void base_json_real(base_json_t *j, double v)
{
    put_double(j, v, ".0");
}

static void literal(base_json_t *j, const char *s)
{
    if (!begin_value(j)) return;
    puts_literal(j, s);
    end_value(j);
}

void base_json_bool(base_json_t *j, bool v)
{
    literal(j, v ? "true" : "false");
}

void base_json_null(base_json_t *j)
{
    literal(j, "null");
}

void base_json_put_string(base_json_t *j, const char *key, const char *s)
{
    base_json_key(j, key);
    base_json_string(j, s);
}

void base_json_put_int(base_json_t *j, const char *key, int64_t v)
{
    base_json_key(j, key);
    base_json_int(j, v);
}

void base_json_put_double(base_json_t *j, const char *key, double v)
{
    base_json_key(j, key);
    base_json_double(j, v);
}

void base_json_put_bool(base_json_t *j, const char *key, bool v)
{
    base_json_key(j, key);
    base_json_bool(j, v);
}

void base_json_put_ints(base_json_t *j, const char *key, const int64_t *values, int64_t count)
{
    base_json_key(j, key);
    base_json_begin_array(j);
    for (int64_t i = 0; i < count; i++)
        base_json_int(j, values[i]);
    base_json_end(j);
}

void base_json_newline(base_json_t *j)
{
    if (j->status < 0) return;
    if (!j->done) {
        fault(j, BASE_ERR_STATE, "a line ends inside a JSON value");
        return;
    }
    puts_literal(j, "\n");
    j->done = false;
}

base_status_t base_json_finish(base_json_t *j, base_ctx_t *ctx, const char *what)
{
    if (j->status >= 0 && j->depth != 0)
        fault(j, BASE_ERR_STATE, "an object or array is still open");
    if (j->status >= 0 && j->file != NULL && fflush(j->file) != 0)
        fault(j, base_file_status(errno), strerror(errno));
    if (j->status >= 0) return BASE_OK;
    const bool refused = j->status == BASE_ERR_IO || j->status == BASE_ERR_SPACE;
    return BASE_FAIL(ctx, j->status, refused ? BASE_MSG_IO_02 : BASE_MSG_INT_01, "%s: %s", what,
                     j->fault);
}
