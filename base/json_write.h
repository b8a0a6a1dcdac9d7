/* A small streaming JSON writer, to a FILE or into a buffer of fixed size. It allocates nothing.
 *
 *   base_json_t j;
 *   base_json_to_file(&j, f);
 *   base_json_begin_object(&j);
 *   base_json_put_int(&j, "step", 12);
 *   base_json_end(&j);
 *   BASE_TRY(base_json_finish(&j, ctx, path));
 *
 * The first fault sticks and the calls after it do nothing, so only base_json_finish returns a
 * status. Strings are UTF-8; a byte that is not valid UTF-8 becomes U+FFFD. Numbers: int64 in full;
 * a double is written with the fewest of 15, 16 or 17 digits that give back the same bits. JSON has
 * no NaN and no infinity: they are written as null, or are a fault after
 * base_json_refuse_nonfinite. Not thread-safe. */
#ifndef CADRE_BASE_JSON_WRITE_H
#define CADRE_BASE_JSON_WRITE_H

#include "base/context.h"

#include <stdbool.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BASE_JSON_DEPTH 32

/* The caller's memory; all fields are the writer's. */
typedef struct base_json {
    FILE *file;   /* borrowed; NULL: buffer */
    char *buffer; /* borrowed */
    size_t room;  /* of buffer, with the terminating zero */
    size_t bytes; /* written so far */
    int depth;    /* open objects and arrays */
    int indent;   /* spaces for each level; 0: one line */
    bool in_array[BASE_JSON_DEPTH];
    bool not_first[BASE_JSON_DEPTH];
    bool after_key;
    bool done; /* the outermost value is complete */
    bool refuse_nonfinite;
    base_status_t status;
    const char *fault; /* static string */
} base_json_t;

void base_json_to_file(base_json_t *j, FILE *file); /* borrows */
void base_json_to_buffer(base_json_t *j, char *buffer,
                         size_t room);                 /* borrows; always terminated */
void base_json_set_indent(base_json_t *j, int spaces); /* 0, the default: no line breaks */
void base_json_refuse_nonfinite(base_json_t *j);

void base_json_begin_object(base_json_t *j);
void base_json_begin_array(base_json_t *j);
void base_json_end(base_json_t *j); /* the innermost object or array */
void base_json_key(base_json_t *j, const char *key);
void base_json_string(base_json_t *j, const char *s); /* NULL: null */
void base_json_int(base_json_t *j, int64_t v);
void base_json_double(base_json_t *j, double v);
/* The same, with ".0" behind a whole number: for readers to whom 4 is no floating-point number. */
void base_json_real(base_json_t *j, double v);
void base_json_bool(base_json_t *j, bool v);
void base_json_null(base_json_t *j);
/* A key and its value. */
void base_json_put_string(base_json_t *j, const char *key, const char *s); /* NULL: null */
void base_json_put_int(base_json_t *j, const char *key, int64_t v);
void base_json_put_double(base_json_t *j, const char *key, double v);
void base_json_put_bool(base_json_t *j, const char *key, bool v);
void base_json_put_ints(base_json_t *j, const char *key, const int64_t *values, int64_t count);
/* A newline after a complete outermost value, after which another may follow (JSON lines). */
void base_json_newline(base_json_t *j);

/* Ends the text. `what` (a path) is the place of the message. BASE_ERR_IO or BASE_ERR_SPACE (IO-02,
 * base/file.h) when the file refused bytes, BASE_ERR_ARG when the buffer is too small or a number is not finite, BASE_ERR_STATE when
 * the calls do not form a JSON text (a value without key, an open object, too deep). Does not close
 * the file. */
base_status_t base_json_finish(base_json_t *j, base_ctx_t *ctx, const char *what) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
