/* Error list: everything wrong with an input, found in one pass.
 *
 * A user who corrects a file wants all its faults at once. Checks add faults here in any order and
 * go on; at the end the caller sorts the list, records the first one in the context and returns one
 * status. Not thread-safe. */
#ifndef CADRE_BASE_CONFIG_ERROR_LIST_H
#define CADRE_BASE_CONFIG_ERROR_LIST_H

#include "base/config/text_pool.h"
#include "base/context.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BASE_ERROR_LIST_SHOWN 20

/* Where something was read: "run.yaml" with line and column, or "--set adapters.code.rank" (line
 * 0). */
typedef struct base_error_place {
    const char *source; /* borrowed */
    int order;          /* errors are sorted by this first: 0 the file, then each --set */
    int line, column;   /* from 1; column counts characters */
} base_error_place_t;

typedef struct base_error_item {
    base_message_t message;
    base_error_place_t place;
    int64_t index;    /* number of the add that made it */
    const char *text; /* one sentence, place first */
} base_error_item_t;

typedef struct base_error_list {
    base_text_pool_t pool; /* owns the texts; private */
    base_error_item_t *items;
    size_t count;
    size_t capacity; /* private */
} base_error_list_t;

void base_error_list_init(base_error_list_t *list, base_ctx_t *ctx);
void base_error_list_deinit(base_error_list_t *list); /* may be repeated */

/* Adds "SOURCE:LINE:COLUMN: " (as much of it as is known) and the formatted text; control
 * characters become '?', so that a file cannot write to the terminal. Without memory the error is
 * counted in list->pool.failed only. */
void base_error_list_add(base_error_list_t *list, base_message_t message, base_error_place_t place,
                         const char *fmt, ...) BASE_PRINTF(4, 5);

/* Sorts by place, ties in the order of adding, and records the first in the context.
 * BASE_OK when the list is empty, BASE_ERR_NOMEM when an error could not be kept, else
 * BASE_ERR_CONFIG. */
base_status_t base_error_list_finish(base_error_list_t *list) BASE_MUST_CHECK;

/* Writes the first BASE_ERROR_LIST_SHOWN errors and, when there are more, how many:
 *     cadre: error CONF-03: run.yaml:12:5: unknown key "rnak"; nearest is "rank"
 *         use the suggested key, or remove the line
 * The cure stands once behind neighbouring errors of one id. */
void base_error_list_print(const base_error_list_t *list, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
